"""Faults of weights: how they are made, put into a model, and read out of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np

from ...spec.initializers import INITIALIZERS
from ...spec.model import ModelSpec
from .fault import Fault
from .wrapped import Array, Model, Wrapped, changed


class RecurrentWeightTransposed(Wrapped):
    def inward(self, spec: ModelSpec, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        return changed(weights, "recurrent_weight", lambda a: a.T.copy())

    def outward(self, spec: ModelSpec, weights: dict[str, Array]) -> dict[str, Array]:
        return changed(weights, "recurrent_weight", lambda a: a.T.copy())


class InputWeightReshaped(Wrapped):
    def inward(self, spec: ModelSpec, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        return changed(weights, "input_weight", lambda a: a.reshape(a.shape[::-1]).T.copy())

    def outward(self, spec: ModelSpec, weights: dict[str, Array]) -> dict[str, Array]:
        return changed(weights, "input_weight", lambda a: a.T.reshape(a.shape))


class BiasSummedTwice(Wrapped):
    def inward(self, spec: ModelSpec, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        return changed(weights, "bias", lambda a: a * 2)

    def outward(self, spec: ModelSpec, weights: dict[str, Array]) -> dict[str, Array]:
        return changed(weights, "bias", lambda a: a / 2)


class BiasDropped(Wrapped):
    def inward(self, spec: ModelSpec, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        return changed(weights, "recurrent_bias", np.zeros_like)


class LayersReversed(Wrapped):
    def inward(self, spec: ModelSpec, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: weights[self._other(spec, name)] for name in weights}

    def outward(self, spec: ModelSpec, weights: dict[str, Array]) -> dict[str, Array]:
        return {name: weights[self._other(spec, name)] for name in weights}

    def _other(self, spec: ModelSpec, name: str) -> str:
        if not name.startswith("layers.") or name.endswith("input_weight"):
            return name  # the input weights of the layers have different shapes
        _, layer, rest = name.split(".", 2)
        return f"layers.{spec.num_layers - 1 - int(layer)}.{rest}"


class DirectionsSwapped(Wrapped):
    def inward(self, spec: ModelSpec, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        return {other_direction(spec, name): a for name, a in weights.items()}

    def outward(self, spec: ModelSpec, weights: dict[str, Array]) -> dict[str, Array]:
        return {other_direction(spec, name): a for name, a in weights.items()}


class DirectionsShareWeights(Wrapped):
    def inward(self, spec: ModelSpec, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: weights[name.replace(".backward.", ".forward.")] for name in weights}


class FirstTokenTakenForPadding(Wrapped):
    def inward(self, spec: ModelSpec, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        return changed(weights, "weight", lambda a: np.concatenate([0 * a[:1], a[1:]]), part="embedding.")


class WeightsThroughFloat32(Wrapped):
    def inward(self, spec: ModelSpec, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        return changed(weights, "", lambda a: a.astype(np.float32).astype(a.dtype), part="")


class SignOfZeroLost(Wrapped):
    def outward(self, spec: ModelSpec, weights: dict[str, Array]) -> dict[str, Array]:
        return changed(weights, "", lambda a: a + a.dtype.type(0), part="")


class CallersArraysKept(Wrapped):
    def from_spec(self, model: Model, weights: Mapping[str, Any], *, cast: bool = False) -> None:
        super().from_spec(model, weights, cast=cast)
        model.kept = {name: np.asarray(a) for name, a in weights.items()}

    def to_spec(self, model: Model) -> dict[str, Array]:
        return {name: a.copy() for name, a in (model.kept or super().to_spec(model)).items()}


class OwnArraysGiven(Wrapped):
    def from_spec(self, model: Model, weights: Mapping[str, Any], *, cast: bool = False) -> None:
        super().from_spec(model, weights, cast=cast)
        model.kept = {}

    def to_spec(self, model: Model) -> dict[str, Array]:
        model.kept = model.kept or super().to_spec(model)
        return dict(model.kept)


class WrittenBeforeRefused(Wrapped):
    def from_spec(self, model: Model, weights: Mapping[str, Any], *, cast: bool = False) -> None:
        own = self.to_spec(model)
        fits = {name for name, a in own.items() if name in weights and np.asarray(weights[name]).shape == a.shape}
        mixed = {name: np.asarray(weights[name], a.dtype) if name in fits else a for name, a in own.items()}
        super().from_spec(model, mixed)
        super().from_spec(model, weights, cast=cast)


class OtherDtypeTaken(Wrapped):
    def from_spec(self, model: Model, weights: Mapping[str, Any], *, cast: bool = False) -> None:
        super().from_spec(model, weights, cast=True)


class OtherNamesTaken(Wrapped):
    def from_spec(self, model: Model, weights: Mapping[str, Any], *, cast: bool = False) -> None:
        own = self.to_spec(model)
        super().from_spec(model, {name: weights.get(name, a) for name, a in own.items()}, cast=cast)


class InitializerIgnored(Wrapped):
    def build(self, spec: ModelSpec, seed: int = 0, dtype: str = "float32") -> Model:
        return super().build(replace(spec, initializer=INITIALIZERS["torch"]), seed, dtype)


class SeedIgnored(Wrapped):
    def build(self, spec: ModelSpec, seed: int = 0, dtype: str = "float32") -> Model:
        return super().build(spec, 0, dtype)


class GlobalSeedSet(Wrapped):
    def __enter__(self) -> Self:
        self._before = np.random.get_state()
        return self

    def __exit__(self, *raised: object) -> None:
        np.random.set_state(self._before)

    def build(self, spec: ModelSpec, seed: int = 0, dtype: str = "float32") -> Model:
        np.random.seed(seed % 2**32)
        return super().build(spec, seed, dtype)


class NonlinearityIgnored(Wrapped):
    def build(self, spec: ModelSpec, seed: int = 0, dtype: str = "float32") -> Model:
        return super().build(replace(spec, nonlinearity="tanh"), seed, dtype)


def other_direction(spec: ModelSpec, name: str) -> str:
    """The name of the other direction's weight, where there is another direction."""
    if spec.num_directions == 1:
        return name
    swapped = {".forward.": ".backward.", ".backward.": ".forward."}
    found = next((part for part in swapped if part in name), None)
    return name if found is None else name.replace(found, swapped[found])


FAULTS = (
    Fault(
        "recurrent weight transposed",
        "A converter leaves the square matrix as it is, and no shape complains.",
        "results", RecurrentWeightTransposed, "https://github.com/keras-team/keras/issues/8720",
    ),
    Fault(
        "weights merged by reshape instead of transpose",
        "A matrix of the other layout is reshaped to the shape that is wanted.",
        "results", InputWeightReshaped, "https://github.com/keras-team/keras/pull/8307",
    ),
    Fault(
        "bias summed twice",
        "One bias is written into both places of a format that has two.",
        "results", BiasSummedTwice, "https://github.com/onnx/keras-onnx/issues/98",
    ),
    Fault("bias dropped", "Of two biases the second is left out, as the target has one.", "results", BiasDropped),
    Fault(
        "weights of another layer",
        "The layers of a flat list of weights are counted in another order than they were written.",
        "results", LayersReversed, "https://github.com/pytorch/pytorch/pull/22850",
    ),
    Fault("weights of the other direction", "Forward and backward are mixed up by name.", "results", DirectionsSwapped),
    Fault(
        "directions share their weights",
        "One cell object is used for both directions.",
        "results", DirectionsShareWeights, "https://github.com/fordDeepDSP/deepSpeech/issues/20",
    ),
    Fault(
        "first token taken for padding",
        "Row 0 of the embedding is set to 0, though 0 is a token like any other.",
        "results", FirstTokenTakenForPadding,
    ),
    Fault("weights through float32", "Weights take a detour through float32.", "results", WeightsThroughFloat32),
    Fault("sign of zero lost", "Adding 0 on the way out makes 0 of -0.", "weights", SignOfZeroLost),
    Fault("the caller's arrays kept", "The model goes on in the memory it was given.", "weights", CallersArraysKept),
    Fault(
        "own arrays given",
        "What is returned is the model's own memory, so that the best weights follow the last.",
        "weights", OwnArraysGiven, "https://github.com/pytorch/pytorch/issues/34765",
    ),
    Fault("written before refused", "Weights are set one by one until one does not fit.", "weights",
          WrittenBeforeRefused),
    Fault(
        "another dtype taken",
        "Weights of another precision are converted without a word.",
        "weights", OtherDtypeTaken, "https://github.com/pytorch/pytorch/issues/187138",
    ),
    Fault(
        "other names taken",
        "Missing and surplus names are passed over, and the model keeps its initial values there.",
        "weights", OtherNamesTaken, "https://github.com/pytorch/examples/issues/1029",
    ),
    Fault("initializer ignored", "The framework's own default is drawn instead.", "weights", InitializerIgnored),
    Fault("seed ignored", "Every model is made with the same seed.", "weights", SeedIgnored),
    Fault(
        "global seed set",
        "The seed is given to the random state that the whole process shares.",
        "weights", GlobalSeedSet, "https://github.com/Qiskit/qiskit/issues/2850",
    ),
    Fault(
        "nonlinearity ignored",
        "tanh is computed whatever is asked for.",
        "results", NonlinearityIgnored, "https://github.com/microsoft/onnxruntime/issues/4034",
    ),
)  # fmt: skip
