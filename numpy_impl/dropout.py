"""The factors of dropout, 0 or 1/(1 - p), by a hash of counters: the same units in every backend (SPEC.md, 12.15)."""

from typing import Any

import numpy as np

from ..spec.dropout import KINDS, STEPWISE, Masks
from ..spec.model import ModelSpec

Array = Any
WORD = 2**32


def factors(
    spec: ModelSpec, masks: Masks | None, kind: str, layer: int, direction: int, shape: tuple[int, ...], dtype: Any
) -> Array | None:
    """What numbers of shape (T, B, N) are multiplied by, (T, B, N) or (B, N); None where nothing is dropped."""
    if masks is None or spec.dropout is None or not spec.dropout.rate(kind):
        return None
    if kind == "between_layers" and layer == spec.num_layers - 1:
        return None
    kept = hashes(masks, kind, layer, direction, shape) >= spec.dropout.threshold(kind)
    return np.where(kept, np.asarray(spec.dropout.scale(kind), dtype), np.zeros((), dtype))


def hashes(masks: Masks, kind: str, layer: int, direction: int, shape: tuple[int, ...]) -> Array:
    """A number of 32 bits for each place of a shape, (T, B, N), or for each (B, N) where all steps share it."""
    h, layer, direction = np.zeros(1, np.uint32), masks.first_layer + layer, masks.first_direction + direction
    for word in (masks.seed, masks.seed // WORD, masks.update, KINDS.index(kind), layer, direction):
        h = absorbed(h, np.uint32(word % WORD))
    steps, rows, units = shape
    h = absorbed(h, counted(masks.first_row, rows)[:, None])  # (B, 1)
    if kind in STEPWISE:
        h = absorbed(h, counted(0, steps)[:, None, None])  # (T, B, 1)
    return absorbed(h, counted(0, units))


def counted(first: int, number: int) -> Array:
    """So many words from the first on."""
    return np.arange(first, first + number, dtype=np.uint64).astype(np.uint32)


def absorbed(h: Array, words: Array) -> Array:
    """The hash after one more word."""
    return mixed((h ^ words) + np.uint32(0x9E3779B9))


def mixed(h: Array) -> Array:
    """The finaliser of MurmurHash3 (Appleby)."""
    h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
