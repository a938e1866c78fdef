"""Faults of outputs, scores and lengths."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...spec.backend import Result
from ...spec.errors import InputError
from ...spec.model import ModelSpec
from .fault import Fault
from .wrapped import Arguments, Array, Model, Wrapped, halves, valid_steps, without_padding


class BackwardNotFlippedBack(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        forward, *backward = halves(model.spec, result.outputs)
        return replace(result, outputs=np.concatenate([forward, *(half[:, ::-1] for half in backward)], axis=-1))


class HalvesSwapped(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        return replace(result, outputs=np.concatenate(halves(model.spec, result.outputs)[::-1], axis=-1))


class DirectionsReshaped(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        apart = np.stack([half.swapaxes(0, 1) for half in halves(model.spec, result.outputs)], axis=1)  # (T, D, B, H)
        joined = apart.reshape(result.outputs.swapaxes(0, 1).shape)
        return replace(result, outputs=joined.swapaxes(0, 1).copy())


class SingleRowSqueezed(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        return replace(result, outputs=result.outputs[0]) if len(inputs) == 1 else result


class ZerosTakenForPadding(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        if model.spec.embedding:
            return super().results(model, inputs, arguments)
        mask = valid_steps(inputs, arguments) & (inputs != 0).any(axis=2)
        others = {name: a for name, a in arguments.items() if name not in ("lengths", "mask")}
        return super().results(model, inputs, {**others, "mask": mask})


class AverageIsSum(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        return replace(result, outputs=result.outputs * 2) if model.spec.merge == "average" else result


class HeadReadsLastStep(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        if model.spec.head is None or model.spec.head.reads == "steps":
            return result
        return replace(result, scores=_scores(self.to_spec(model), result.outputs[:, -1]))


class FinalStatesAveraged(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        if model.spec.head is None or model.spec.head.reads == "steps" or model.spec.merge != "sum":
            return result
        top = result.final_states[model.spec.cell_definition.output][-2:]
        return replace(result, scores=_scores(self.to_spec(model), top.mean(axis=0)))


class OutputsThroughFloat32(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        return replace(result, outputs=result.outputs.astype(np.float32).astype(result.outputs.dtype))


class InputsThroughFloat32(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        narrow = inputs if model.spec.embedding else np.asarray(inputs, np.float32)
        return super().results(model, narrow, arguments)


class ComputedInFloat32(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        narrow = self.backend.build(model.spec, dtype="float32")
        self.backend.from_spec(narrow, self.to_spec(model), cast=True)
        result: Result = self.backend.run(narrow, inputs, **arguments)
        return Result(
            result.outputs.astype(model.dtype),
            {name: a.astype(model.dtype) for name, a in result.final_states.items()},
            None if result.scores is None else result.scores.astype(model.dtype),
        )


class LengthsIgnored(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        tame = without_padding(inputs, valid_steps(inputs, arguments))
        return super().results(
            model, tame, {name: a for name, a in arguments.items() if name not in ("lengths", "mask")}
        )


class LastOutputRepeated(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result, valid = super().results(model, inputs, arguments), valid_steps(inputs, arguments)
        outputs = result.outputs.copy()
        for t in range(1, outputs.shape[1]):
            outputs[~valid[:, t], t] = outputs[~valid[:, t], t - 1]
        return replace(result, outputs=outputs)


class HeadsBiasInPadding(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result, head = super().results(model, inputs, arguments), model.spec.head
        if head is None or result.scores is None or head.reads == "final" or not head.bias:
            return result
        valid = valid_steps(inputs, arguments)[:, :, None]
        return replace(result, scores=np.where(valid, result.scores, self.to_spec(model)["head.bias"]))


class EmptyRowRefused(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        if not valid_steps(inputs, arguments).any(axis=1).all():
            raise InputError("lengths: all values must be > 0")
        return super().results(model, inputs, arguments)


class OutputsCutShort(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result = super().results(model, inputs, arguments)
        steps = np.flatnonzero(valid_steps(inputs, arguments).any(axis=0))
        return replace(result, outputs=result.outputs[:, : steps[-1] + 1 if len(steps) else 0])


class TimeTakenForBatch(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        if arguments:
            return super().results(model, inputs, arguments)
        outputs = super().results(model, inputs.swapaxes(0, 1), {}).outputs.swapaxes(0, 1)
        return replace(super().results(model, inputs, {}), outputs=outputs)


class SupportsRaises(Wrapped):
    def supports(self, spec: ModelSpec) -> str | None:
        raise RuntimeError(f"no such thing as a {spec.variant}")


def _scores(weights: Mapping[str, Array], features: Array) -> Array:
    scores: Array = features @ weights["head.weight"].T
    return scores + weights["head.bias"] if "head.bias" in weights else scores


FAULTS = (
    Fault(
        "backward outputs not put back in time order",
        "The backward outputs are joined to the forward ones in the order in which they were computed.",
        "results", BackwardNotFlippedBack, "https://github.com/keras-team/keras/issues/1431",
    ),
    Fault("halves swapped in concat", "The backward half comes first.", "results", HalvesSwapped),
    Fault(
        "directions reshaped instead of transposed",
        "Outputs (T, D, B, H) are viewed as (T, B, D*H), which mixes the rows of the batch.",
        "results", DirectionsReshaped, "https://github.com/pytorch/pytorch/pull/7809",
    ),
    Fault(
        "single row squeezed away",
        "squeeze() without an axis takes the batch's too, where it is 1.",
        "results", SingleRowSqueezed, "https://github.com/salesforce/pytorch-qrnn/issues/11",
    ),
    Fault(
        "zeros taken for padding",
        "A step counts as invalid where its inputs are 0, which data may be.",
        "results", ZerosTakenForPadding, "https://github.com/Element-Research/rnn/issues/433",
    ),
    Fault("average taken for sum", "Merging by average forgets to halve.", "results", AverageIsSum),
    Fault(
        "head reads the last step",
        "A classifier reads outputs[:, -1], where the backward direction has seen one step.",
        "results", HeadReadsLastStep, "https://github.com/yunjey/pytorch-tutorial/issues/149",
    ),
    Fault("final states averaged, not summed", "The head reads another merge than the outputs have.", "results",
          FinalStatesAveraged),
    Fault("outputs through float32", "The outputs take a detour through float32.", "results", OutputsThroughFloat32),
    Fault("inputs through float32", "The inputs are taken as float32 before anything else.", "results",
          InputsThroughFloat32),
    Fault("float32 accumulation in a float64 path", "A float64 model is computed in float32 inside.", "results",
          ComputedInFloat32),
    Fault(
        "lengths ignored",
        "The padding is computed as if it were part of the sequence.",
        "results", LengthsIgnored, "https://github.com/ray-project/ray/issues/8551",
    ),
    Fault(
        "padding leaking into outputs",
        "At invalid steps the last valid output is repeated.",
        "padding", LastOutputRepeated, "https://github.com/keras-team/keras/issues/7878",
    ),
    Fault("head's bias at invalid steps", "The scores of the padding are those of outputs of 0.", "padding",
          HeadsBiasInPadding),
    Fault(
        "no valid step refused",
        "A batch with an empty sequence is an error.",
        "results", EmptyRowRefused, "https://github.com/microsoft/onnxruntime/issues/10768", raises=True,
    ),
    Fault(
        "outputs cut to the longest length",
        "The outputs have as many steps as the longest sequence of the batch, not T.",
        "results", OutputsCutShort, "https://github.com/pytorch/pytorch/issues/1591",
    ),
    Fault(
        "time taken for batch",
        "Batch-major inputs are given to a model that reads time first.",
        "results", TimeTakenForBatch, "https://github.com/HHTseng/video-classification/issues/42",
    ),
    Fault("support asked and an error raised", "supports() raises where it should say no.", "results",
          SupportsRaises, raises=True),
)  # fmt: skip
