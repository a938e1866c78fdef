"""The factors of dropout in Python's integers, by the letter of SPEC.md, 12.14 and 12.15."""

import numpy as np

from ..spec.dropout import KINDS, Dropout, Masks
from .arithmetic import Exact
from .tape import Value

WORD = 2**32


def factors(
    ops: Exact, dropout: Dropout | None, masks: Masks | None, kind: str, place: tuple[int, int],
    shape: tuple[int, int], step: int | None = None,
) -> Value | None:  # fmt: skip
    """What a vector of each row is multiplied by, (S, B, N); None where that kind drops nothing.

    place: layer and direction; shape: B and N.
    """
    if dropout is None or masks is None or not dropout.rate(kind):
        return None
    layer, direction = masks.first_layer + place[0], masks.first_direction + place[1]
    times = () if step is None else (step,)
    hashes = np.array([
        [hashed(masks, kind, layer, direction, masks.first_row + row, *times, unit)
         for unit in range(shape[1])]
        for row in range(shape[0])
    ])  # fmt: skip
    kept = ops.constant((hashes >= int(dropout.rate(kind) * WORD)).astype(float))
    return Value(kept * ops.hyperparameter(1 / (1 - dropout.rate(kind))).reshape(-1, 1, 1), ops)


def hashed(masks: Masks, kind: str, *words: int) -> int:
    """The hash of a place."""
    h = 0
    for word in (masks.seed, masks.seed // WORD, masks.update, KINDS.index(kind), *words):
        h = mixed(((h ^ word % WORD) + 0x9E3779B9) % WORD)
    return h


def mixed(h: int) -> int:
    """The finaliser of MurmurHash3."""
    h = (h ^ h >> 16) * 0x85EBCA6B % WORD
    h = (h ^ h >> 13) * 0xC2B2AE35 % WORD
    return h ^ h >> 16
