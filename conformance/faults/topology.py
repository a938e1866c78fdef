"""Faults of topology: models put together, layer by layer, from single directions that the backend inside runs."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...spec.backend import Result
from .fault import Fault
from .wrapped import Arguments, Array, Model, Wrapped, states_given, valid_steps, without_padding

Mask = NDArray[np.bool_]


class Composed(Wrapped):
    """Right as it stands, but for rounding: a fault overrides one of the decisions below.

    Every direction of every layer is a `simple_rnn` of the backend inside; sequences are packed to the left in the
    order in which the direction reads them.
    """

    encoder_decoders = False

    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        weights, valid = self.to_spec(model), valid_steps(inputs, arguments)
        series = without_padding(inputs, valid)
        series = weights["embedding.weight"][series] if model.spec.embedding else series
        initial, final = self._initial(model, weights, arguments, len(series)), []
        outputs = [series] * model.spec.num_directions
        for layer in range(model.spec.num_layers):
            fed = self.fed(model, outputs) if layer else outputs
            runs = [
                self._direction(model, weights, layer, d, fed[d], valid, initial)
                for d in range(model.spec.num_directions)
            ]
            outputs = [run.outputs[..., : model.spec.hidden_size] for run in runs]
            final += [run.final_states for run in runs]
        states = {name: np.concatenate([one[name] for one in final]) for name in initial}
        return self._result(model, weights, outputs, states, valid)

    def fed(self, model: Model, outputs: list[Array]) -> list[Array]:
        """What each direction of a layer reads, of the outputs of both directions of the layer below."""
        return [merged(model, outputs)] * len(outputs)

    def steps(self, valid: Mask, direction: str) -> Mask:
        """The steps that a direction takes."""
        return valid

    def reads_backward(self, direction: str) -> bool:
        return direction == "backward"

    def _direction(
        self, model: Model, weights: dict[str, Array], layer: int, d: int, x: Array, valid: Mask,
        initial: dict[str, Array],
    ) -> Result:  # fmt: skip
        direction, index = model.spec.directions[d], layer * model.spec.num_directions + d
        prefix, taken = f"layers.{layer}.{direction}.", self.steps(valid, direction)
        single = replace(
            model.spec, variant="simple_rnn", input_size=x.shape[2], num_layers=1, merge="concat",
            dropout=None, embedding=None, head=None, context=None,
        )  # fmt: skip
        inner = self.backend.build(single, dtype=model.dtype)
        own = {name.replace(prefix, "layers.0.forward."): a for name, a in weights.items() if name.startswith(prefix)}
        self.backend.from_spec(inner, own)
        order = reading_order(taken, backward=self.reads_backward(direction))
        run: Result = self.backend.run(
            inner, np.take_along_axis(x, order, axis=1), lengths=taken.sum(axis=1),
            initial_state={name: a[index : index + 1] for name, a in initial.items()},
        )  # fmt: skip
        outputs = np.zeros_like(run.outputs)
        np.put_along_axis(outputs, order, run.outputs, axis=1)
        return replace(run, outputs=np.where(valid[:, :, None], outputs, outputs.dtype.type(0)))

    def _initial(self, model: Model, weights: dict[str, Array], arguments: Arguments, B: int) -> dict[str, Array]:
        states = states_given(model.spec, arguments)
        if states is None:
            shape = model.spec.state_shape(B)
            states = {name: np.zeros(shape, model.dtype) for name in model.spec.cell_definition.states}
            if "context" in arguments:
                context = np.asarray(arguments["context"], model.dtype)
                start = context @ weights["context.weight"].T + weights["context.bias"]  # (B, L*D*H)
                states[next(iter(states))] = start.reshape(B, shape[0], shape[2]).swapaxes(0, 1).copy()
        return states

    def _result(
        self, model: Model, weights: dict[str, Array], outputs: list[Array], states: dict[str, Array], valid: Mask
    ) -> Result:
        found, head = Result(merged(model, outputs), states), model.spec.head
        if head is None:
            return found
        top = list(states[model.spec.cell_definition.output][-model.spec.num_directions :])
        read = found.outputs if head.reads == "steps" else merged(model, top)
        scores = read @ weights["head.weight"].T + weights.get("head.bias", read.dtype.type(0))
        if head.reads == "steps":
            scores = np.where(valid[:, :, None], scores, scores.dtype.type(0))
        return replace(found, scores=scores)


class OneDirectionFeeds(Composed):
    def fed(self, model: Model, outputs: list[Array]) -> list[Array]:
        return [merged(model, outputs[:1] * len(outputs))] * len(outputs)


class TwoStacks(Composed):
    def fed(self, model: Model, outputs: list[Array]) -> list[Array]:
        if model.spec.merge != "concat":
            return outputs
        nothing = [np.zeros_like(y) for y in outputs]
        return [merged(model, [*nothing[:d], y, *nothing[d + 1 :]]) for d, y in enumerate(outputs)]


class BackwardFromTheEnd(Composed):
    def steps(self, valid: Mask, direction: str) -> Mask:
        return np.ones_like(valid) if direction == "backward" else valid


class StateRunsOn(Composed):
    def steps(self, valid: Mask, direction: str) -> Mask:
        return np.ones_like(valid) if direction == "forward" else valid


class MaskNotReversed(Composed):
    def steps(self, valid: Mask, direction: str) -> Mask:
        return valid[:, ::-1] if direction == "backward" else valid


class BackwardReadsForward(Composed):
    def reads_backward(self, direction: str) -> bool:
        return False


def merged(model: Model, outputs: list[Array]) -> Array:
    """The outputs of the directions made one (SPEC.md, 5)."""
    if len(outputs) == 1:
        return outputs[0]
    forward, backward = outputs
    found: dict[str, Any] = {
        "concat": lambda: np.concatenate(outputs, axis=-1),
        "sum": lambda: forward + backward,
        "average": lambda: (forward + backward) / 2,
        "multiply": lambda: forward * backward,
    }
    result: Array = found[model.spec.merge]()
    return result


def reading_order(taken: Mask, *, backward: bool) -> NDArray[np.intp]:
    """(B, T, 1), the times that are taken in the order in which they are read, then the others."""
    times = np.arange(taken.shape[1])
    rank = np.where(taken, -times if backward else times, taken.shape[1])
    return np.argsort(rank, axis=1, kind="stable")[:, :, None]


FAULTS = (
    Fault("layers fed by one direction only", "The next layer reads the forward outputs in both places.", "results",
          OneDirectionFeeds),
    Fault(
        "two independent stacks instead of interleaved",
        "Each direction has layers of its own, and the two meet at the top.",
        "results", TwoStacks, "https://github.com/tensorflow/tensorflow/issues/33683",
    ),
    Fault(
        "backward start at T-1 instead of length-1",
        "The backward direction reads the padding first.",
        "results", BackwardFromTheEnd, "https://github.com/pytorch/pytorch/issues/517",
    ),
    Fault(
        "mask not reversed",
        "The backward direction reads the inputs from the end and the mask from the beginning.",
        "results", MaskNotReversed, "https://github.com/keras-team/keras/pull/1934",
    ),
    Fault(
        "state not carried past the length",
        "Steps on padding of 0 still change the state, by the bias and the recurrent weight.",
        "results", StateRunsOn, "https://github.com/keras-team/keras/issues/1300",
    ),
    Fault(
        "backward direction reads forward",
        "The inputs of the backward direction are not reversed.",
        "results", BackwardReadsForward, "https://github.com/stanfordmlgroup/nlc/issues/8",
    ),
)  # fmt: skip
