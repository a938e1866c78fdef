"""A small model cut out of a large one: the first units of each layer, with the weights between them.

Every bit of a large model is compared; but to run it under random errors takes 64 times its memory, so that what is
run is the part that shows how rows, columns, directions and layers are understood.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..spec.model import ModelSpec
from ..spec.parameters import Weights, parameters
from ..spec.stored import Array

UNITS = 48  # of each layer, and of everything else
LARGE = 2**20  # numbers of a model that is cut


def is_large(spec: ModelSpec) -> bool:
    """Whether a model has more numbers than are run under random errors at once."""
    return sum(parameter.count for parameter in parameters(spec)) > LARGE


def cut(spec: ModelSpec, weights: Mapping[str, Array]) -> tuple[ModelSpec, Weights]:
    """The small model; each weight is read once, and not kept whole."""
    small = _small(spec)
    kept = {}
    for parameter in parameters(small):
        whole = weights[parameter.name]
        if whole.ndim == 1:
            kept[parameter.name] = whole[_first(len(whole), parameter.shape[0], spec)].copy()
        else:
            rows, columns = (_first(n, m, spec) for n, m in zip(whole.shape, parameter.shape, strict=True))
            kept[parameter.name] = whole[np.ix_(rows, columns)]
    return small, kept


def _small(spec: ModelSpec) -> ModelSpec:
    embedding, head, context = spec.embedding, spec.head, spec.context
    return replace(
        spec,
        input_size=min(spec.input_size, UNITS),
        hidden_size=min(spec.hidden_size, UNITS),
        embedding=embedding and replace(embedding, vocabulary_size=min(embedding.vocabulary_size, UNITS)),
        head=head and replace(head, size=min(head.size, UNITS)),
        context=context and replace(context, size=min(context.size, UNITS)),
    )


def _first(size: int, kept: int, spec: ModelSpec) -> Array:
    """Which of so many rows or columns stay: the first of each block of hidden units, or the first of all."""
    H, few = spec.hidden_size, min(spec.hidden_size, UNITS)
    if kept % few == 0 and size == kept // few * H:
        return (np.arange(size // H)[:, None] * H + np.arange(few)).ravel()
    return np.arange(kept)
