"""Weights to the spec and back: the model holds the spec's own names and layouts, so the table is the identity."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from ..spec.parameters import Weights, checked_weights
from .encoder_decoder import EncoderDecoder
from .model import SequenceModel

Model = SequenceModel | EncoderDecoder


def to_spec(model: Model) -> Weights:
    """A copy of the weights under their canonical names."""
    return {name: array.copy() for name, array in model.weights.items()}


def from_spec(model: Model, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None:
    """Set all weights. Raises WeightError unless every name, shape and dtype fits."""
    for name, array in checked_weights(model.spec, weights, model.dtype, cast=cast).items():
        np.copyto(model.weights[name], array)
