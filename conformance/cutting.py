"""A small model cut out of a large one: the first units of each layer, with the weights between them.

Every bit of a large model is compared; but to run it under random errors takes 64 times its memory, so that what is
run is the part that shows how rows, columns, directions and layers are understood.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec, final_state_size
from ..spec.model import Context, ModelSpec
from ..spec.parameters import Weights, parameters
from ..spec.stored import Array

UNITS = 48  # of each layer, and of everything else
LARGE = 2**20  # numbers of a model that is cut


def is_large(spec: AnySpec) -> bool:
    """Whether a model has more numbers than are run under random errors at once."""
    return sum(parameter.count for parameter in parameters(spec)) > LARGE


def cut(spec: AnySpec, weights: Mapping[str, Array]) -> tuple[AnySpec, Weights]:
    """The small model; each weight is read once, and not kept whole."""
    if isinstance(spec, EncoderDecoderSpec):
        return _cut_pair(spec, weights)
    small = _small(spec)
    return small, _kept(spec, small, weights, "")


def _cut_pair(spec: EncoderDecoderSpec, weights: Mapping[str, Array]) -> tuple[EncoderDecoderSpec, Weights]:
    """The context of the small decoder is the final state of the small encoder."""
    encoder = _small(spec.encoder)
    decoder = replace(_small(spec.decoder), context=Context(final_state_size(encoder)))
    kept = _kept(spec.encoder, encoder, weights, "encoder.") | _kept(
        spec.decoder, decoder, weights, "decoder.", spec.encoder
    )
    return EncoderDecoderSpec(encoder, decoder), kept


def _kept(
    spec: ModelSpec, small: ModelSpec, weights: Mapping[str, Array], prefix: str, encoder: ModelSpec | None = None
) -> Weights:
    """The weights of the small network, with a prefix; the columns of its context belong to an encoder, if any."""
    kept = {}
    for parameter in parameters(small):
        name = prefix + parameter.name
        whole = weights[name]
        if whole.ndim == 1:
            kept[name] = whole[_first(len(whole), parameter.shape[0], spec)].copy()
        else:
            across = encoder if encoder and parameter.name == "context.weight" else spec
            pairs = zip(whole.shape, parameter.shape, (spec, across), strict=True)
            kept[name] = whole[np.ix_(*(_first(n, m, of) for n, m, of in pairs))]
    return kept


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
