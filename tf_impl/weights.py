"""Weights to the spec and back: one table of where each stands in the Keras objects and in their files.

Keras keeps kernels transposed: kernel (I, G*H), recurrent_kernel (H, G*H), a Dense layer's kernel (F, O).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..spec.encoder_decoder import EncoderDecoderSpec
from ..spec.parameters import Weights, checked_weights, parameters


class Place(NamedTuple):
    """The layer of a model that has the weight, its name there, its key in a weight file, and the layout."""

    layer: str
    variable: str
    key: str
    transposed: bool


PLACES: Mapping[str, Place] = {
    "embedding.weight": Place("embedding", "embeddings", "0", False),
    "context.weight": Place("context", "kernel", "0", True),
    "context.bias": Place("context", "bias", "1", False),
    "layers.input_weight": Place("core", "{direction}.kernel", "{direction}.kernel", True),
    "layers.recurrent_weight": Place("core", "{direction}.recurrent_kernel", "{direction}.recurrent_kernel", True),
    "layers.bias": Place("core", "{direction}.bias", "{direction}.bias", False),
    "layers.input_bias": Place("core", "{direction}.input_bias", "{direction}.input_bias", False),
    "layers.recurrent_bias": Place("core", "{direction}.recurrent_bias", "{direction}.recurrent_bias", False),
    "head.weight": Place("head", "kernel", "0", True),
    "head.bias": Place("head", "bias", "1", False),
}  # {direction} is such as layers.0.backward


def place(name: str) -> Place:
    """Where the weight of that canonical name stands; in an encoder or a decoder, below its name."""
    side, _, own = name.partition(".")
    if side in ("encoder", "decoder"):
        row = place(own)
        return row._replace(layer=f"{side}/{row.layer}")
    direction, _, kind = name.rpartition(".")
    if not direction.startswith("layers."):
        return PLACES[name]
    row = PLACES[f"layers.{kind}"]
    return row._replace(variable=row.variable.format(direction=direction), key=row.key.format(direction=direction))


def turned(name: str, array: Any) -> Any:
    """The array in the other layout: the spec's from Keras', and Keras' from the spec's."""
    return array.T if place(name).transposed else array


def variables(model: Any) -> dict[str, Any]:
    """The Keras variables of a model of this package by canonical name, in canonical order."""
    if isinstance(model.spec, EncoderDecoderSpec):
        sides = {side: variables(getattr(model, side)) for side in model.spec.sides}
        return {f"{side}.{name}": variable for side, own in sides.items() for name, variable in own.items()}
    core = {variable.name: variable for variable in getattr(model, "core", model).weights}
    found = {}
    for parameter in parameters(model.spec):
        row = place(parameter.name)
        found[parameter.name] = (
            core[row.variable] if row.layer == "core" else getattr(getattr(model, row.layer), row.variable)
        )
    return found


def to_spec(model: Any) -> Weights:
    """A copy of the weights under their canonical names."""
    return {name: np.array(turned(name, variable.numpy()), order="C") for name, variable in variables(model).items()}


def from_spec(model: Any, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None:
    """Set all weights. Raises WeightError unless every name, shape and dtype fits."""
    checked = checked_weights(model.spec, weights, model.dtype, cast=cast)
    for name, variable in variables(model).items():
        variable.value.assign(turned(name, checked[name]), read_value=False)  # Keras' own assign takes twice as long
