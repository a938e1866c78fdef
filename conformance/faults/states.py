"""Faults of states: where a run starts, and what it gives as the end."""

from dataclasses import replace
from typing import Any

import numpy as np

from ...spec.backend import Result
from ...spec.model import ModelSpec
from .fault import Fault
from .wrapped import Arguments, Array, Model, Wrapped, halves, states_given, valid_steps


class LastOutputForFinalState(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        if model.spec.num_directions == 2 and model.spec.merge != "concat":
            return result
        states = dict(result.final_states)
        top = np.stack(halves(model.spec, result.outputs[:, -1]))  # (D, B, H)
        output = model.spec.cell_definition.output
        states[output] = np.concatenate([states[output][: -len(top)], top])
        return replace(result, final_states=states)


class StatesReversed(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        return replace(result, final_states={name: a[::-1].copy() for name, a in result.final_states.items()})


class StatesByDirection(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result, D = super().results(model, inputs, arguments), model.spec.num_directions
        order = np.arange(model.spec.num_layers * D).reshape(-1, D).T.ravel()
        return replace(result, final_states={name: a[order] for name, a in result.final_states.items()})


class StatesBatchFirst(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        return replace(result, final_states={name: a.swapaxes(0, 1) for name, a in result.final_states.items()})


class InitialStateIgnored(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        return super().results(model, inputs, _with_states(model.spec, arguments, np.zeros_like))


class InitialStatesReversed(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        return super().results(model, inputs, _with_states(model.spec, arguments, lambda a: a[::-1].copy()))


class OneStateForAllLayers(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        D, L = model.spec.num_directions, model.spec.num_layers
        return super().results(model, inputs, _with_states(model.spec, arguments, lambda a: np.tile(a[:D], (L, 1, 1))))


class OneStateForAllRows(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        return super().results(
            model, inputs, _with_states(model.spec, arguments, lambda a: np.repeat(a[:, :1], a.shape[1], 1))
        )


class StateFromRowToRow(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        if arguments:
            return super().results(model, inputs, arguments)
        rows = [super().results(model, inputs[:1], {})]
        for b in range(1, len(inputs)):
            rows.append(super().results(model, inputs[b : b + 1], {"initial_state": rows[-1].final_states}))
        states = {name: np.concatenate([row.final_states[name] for row in rows], 1) for name in rows[0].final_states}
        scores = None if rows[0].scores is None else np.concatenate([row.scores for row in rows])
        return Result(np.concatenate([row.outputs for row in rows]), states, scores)


class ForwardStateForBoth(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        D = model.spec.num_directions
        return super().results(model, inputs, _with_states(model.spec, arguments, lambda a: np.repeat(a[::D], D, 0)))


class ContextReshaped(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        if "context" not in arguments:
            return super().results(model, inputs, arguments)
        weights = self.to_spec(model)
        start = np.asarray(arguments["context"]) @ weights["context.weight"].T + weights["context.bias"]  # (B, L*D*H)
        states = {name: np.zeros(model.spec.state_shape(len(start))) for name in model.spec.cell_definition.states}
        first = next(iter(states))
        states[first] = start.reshape(states[first].shape)
        others = {name: value for name, value in arguments.items() if name != "context"}
        return super().results(model, inputs, {**others, "initial_state": states})


class StateLeftOver(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        left = model.kept.get("states")
        if left is not None and not {"initial_state", "context"} & set(arguments):
            arguments = {**arguments, "initial_state": left}
        result = super().results(model, inputs, arguments)
        model.kept["states"] = result.final_states
        return result


class EmptyRowGivesZeroState(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result, valid = super().results(model, inputs, arguments), valid_steps(inputs, arguments)
        states = {
            name: np.where(valid.any(axis=1, keepdims=True), a, a.dtype.type(0))
            for name, a in result.final_states.items()
        }
        return replace(result, final_states=states)


class StatesLeftSorted(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        order = np.argsort(-valid_steps(inputs, arguments).sum(axis=1), kind="stable")
        return replace(result, final_states={name: a[:, order] for name, a in result.final_states.items()})


def _with_states(spec: ModelSpec, arguments: Arguments, change: Any) -> Arguments:
    states = states_given(spec, arguments)
    return arguments if states is None else {**arguments, "initial_state": {n: change(a) for n, a in states.items()}}


FAULTS = (
    Fault(
        "last output taken for the final state",
        "outputs[:, -1] is returned as the state, which holds for full sequences read forward alone.",
        "results", LastOutputForFinalState, "https://github.com/aymericdamien/TensorFlow-Examples/issues/201",
    ),
    Fault("states of the layers reversed", "The final states come from the top layer down.", "results",
          StatesReversed),
    Fault("states ordered by direction", "The final states have the index d*L + l.", "results", StatesByDirection),
    Fault(
        "states batch-first",
        "The final states are given as (B, L*D, H), as the outputs are batch-first.",
        "results", StatesBatchFirst, "https://github.com/hunkim/PyTorchZeroToAll/issues/16",
    ),
    Fault(
        "initial state ignored",
        "The argument is taken, and the run starts from 0.",
        "results", InitialStateIgnored, "https://github.com/tensorflow/tensorflow/issues/11553",
    ),
    Fault("initial state given to the wrong layer", "The initial states are counted from the top layer down.",
          "results", InitialStatesReversed),
    Fault(
        "one initial state for all layers",
        "Every layer starts from the state that was meant for the first.",
        "results", OneStateForAllLayers, "https://github.com/pclucas14/GansFallingShort/pull/2",
    ),
    Fault(
        "one initial state for all rows",
        "The state of one sequence is spread over the batch.",
        "results", OneStateForAllRows, "https://github.com/onnx/keras-onnx/pull/400",
    ),
    Fault(
        "state handed from row to row",
        "Each sequence of a batch starts from where the one before it ended.",
        "results", StateFromRowToRow, "https://github.com/nntrainer/nntrainer/pull/1038",
    ),
    Fault(
        "forward initial state for both directions",
        "The backward direction starts from another state than its own.",
        "results", ForwardStateForBoth, "https://github.com/microsoft/onnxruntime/issues/1607",
    ),
    Fault(
        "context reshaped instead of transposed",
        "The vector (B, L*D*H) is viewed as (L*D, B, H), which mixes the rows of the batch.",
        "results", ContextReshaped, "https://github.com/timbmg/Sentence-VAE/issues/20",
    ),
    Fault(
        "state left over from the run before",
        "Where no initial state is given, the run starts from the last one's final state.",
        "padding", StateLeftOver, "https://github.com/soumith/cudnn.torch/issues/348",
    ),
    Fault(
        "no valid step handled wrongly",
        "A row without a valid step has the final state 0, whatever it started from.",
        "results", EmptyRowGivesZeroState, "https://github.com/onnx/onnx/issues/1674",
    ),
    Fault(
        "final states left sorted by length",
        "The rows are sorted by length, and only the outputs are put back in order.",
        "results", StatesLeftSorted, "https://github.com/Lizhen0628/text_classification/issues/12",
    ),
)  # fmt: skip
