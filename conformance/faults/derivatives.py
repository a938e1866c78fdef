"""Faults of gradients."""

from dataclasses import replace

import numpy as np

from .fault import Fault
from .wrapped import Arguments, Array, Model, Wrapped, valid_steps, without_padding

Gradients = dict[str, Array]


class InitialStateGradientMissing(Wrapped):
    def derivatives(self, model: Model, inputs: Array, cotangents: Arguments, arguments: Arguments) -> Gradients:
        found = super().derivatives(model, inputs, cotangents, arguments)
        return {name: np.zeros_like(a) if name.startswith("initial_state") else a for name, a in found.items()}


class InputsGradientMissing(Wrapped):
    def derivatives(self, model: Model, inputs: Array, cotangents: Arguments, arguments: Arguments) -> Gradients:
        found = super().derivatives(model, inputs, cotangents, arguments)
        return {name: a for name, a in found.items() if name != "inputs"}


class RecurrentBiasFrozen(Wrapped):
    def derivatives(self, model: Model, inputs: Array, cotangents: Arguments, arguments: Arguments) -> Gradients:
        found = super().derivatives(model, inputs, cotangents, arguments)
        return {name: np.zeros_like(a) if name.endswith("recurrent_bias") else a for name, a in found.items()}


class MeanOverRows(Wrapped):
    def derivatives(self, model: Model, inputs: Array, cotangents: Arguments, arguments: Arguments) -> Gradients:
        found, weights = super().derivatives(model, inputs, cotangents, arguments), self.to_spec(model)
        return {name: a / a.dtype.type(len(inputs)) if name in weights else a for name, a in found.items()}


class FinalStateCotangentIgnored(Wrapped):
    def derivatives(self, model: Model, inputs: Array, cotangents: Arguments, arguments: Arguments) -> Gradients:
        others = {name: a for name, a in cotangents.items() if name != "final_state_cotangent"}
        return super().derivatives(model, inputs, others, arguments)


class MissingCotangentIsOne(Wrapped):
    def derivatives(self, model: Model, inputs: Array, cotangents: Arguments, arguments: Arguments) -> Gradients:
        ones = np.ones((*inputs.shape[:2], model.spec.output_size))
        return super().derivatives(model, inputs, {"outputs_cotangent": ones, **cotangents}, arguments)


class RepeatedTokenOverwritten(Wrapped):
    def derivatives(self, model: Model, inputs: Array, cotangents: Arguments, arguments: Arguments) -> Gradients:
        found = super().derivatives(model, inputs, cotangents, arguments)
        if model.spec.embedding:
            tokens, slices = embedded_gradient(self, model, inputs, cotangents, arguments)
            found["embedding.weight"] = np.zeros_like(found["embedding.weight"])
            found["embedding.weight"][tokens] = slices
        return found


class PaddingTimesZero(Wrapped):
    def derivatives(self, model: Model, inputs: Array, cotangents: Arguments, arguments: Arguments) -> Gradients:
        found = super().derivatives(model, inputs, cotangents, arguments)
        if model.spec.embedding is None:
            found["inputs"] = found["inputs"] + 0 * inputs.astype(model.dtype)
        return found


class GradientInPadding(Wrapped):
    def derivatives(self, model: Model, inputs: Array, cotangents: Arguments, arguments: Arguments) -> Gradients:
        found, valid = super().derivatives(model, inputs, cotangents, arguments), valid_steps(inputs, arguments)
        if model.spec.embedding is None:
            unmasked = {name: a for name, a in arguments.items() if name not in ("lengths", "mask")}
            leaked = super().derivatives(model, without_padding(inputs, valid), cotangents, unmasked)["inputs"]
            found["inputs"] = np.where(valid[:, :, None], found["inputs"], leaked)
        return found


def embedded_gradient(
    backend: Wrapped, model: Model, inputs: Array, cotangents: Arguments, arguments: Arguments
) -> tuple[Array, Array]:
    """Of a model of tokens: the valid ones (N,), and the gradient of the row that each one reads, (N, I)."""
    weights, valid = backend.to_spec(model), valid_steps(inputs, arguments)
    inner = backend.backend.build(replace(model.spec, embedding=None), dtype=model.dtype)
    backend.backend.from_spec(inner, {name: a for name, a in weights.items() if name != "embedding.weight"})
    rows = weights["embedding.weight"][without_padding(inputs, valid)]
    found: Array = backend.backend.gradients(inner, rows, **cotangents, **arguments)["inputs"]
    return inputs[valid], found[valid]


FAULTS = (
    Fault("gradient of the initial state missing", "The state is taken for a constant.", "gradients",
          InitialStateGradientMissing),
    Fault("gradient of the inputs missing", "Only the weights have gradients.", "gradients", InputsGradientMissing),
    Fault("recurrent bias frozen", "Of the two biases only one is trained.", "gradients", RecurrentBiasFrozen),
    Fault("gradients averaged over the rows", "The sum over the batch is divided by B, whatever the loss is.",
          "gradients", MeanOverRows),
    Fault("cotangent of the final state ignored", "Only the outputs are differentiated.", "gradients",
          FinalStateCotangentIgnored),
    Fault("missing cotangent taken for ones", "What is not given counts as a loss that sums the outputs.",
          "cotangents", MissingCotangentIsOne),
    Fault(
        "gradient of a repeated token overwritten",
        "The rows of the table are assigned by index, so that the last step of a token wins.",
        "gradients", RepeatedTokenOverwritten, "https://github.com/pymc-devs/pytensor/pull/2242",
    ),
    Fault(
        "NaN in the padding reaches a gradient",
        "The mask is multiplied in, and 0 times NaN is NaN.",
        "padding", PaddingTimesZero, "https://github.com/tensorflow/tensorflow/issues/6209",
    ),
    Fault("padding leaking into gradients", "The inputs at invalid steps get a gradient as if they were valid.",
          "padding", GradientInPadding),
)  # fmt: skip
