"""The factors of dropout, 0 or 1/(1 - p), by a hash of counters: the same units in every backend (SPEC.md, 12.15).

Words of 32 bits stand in int64, which every device multiplies, and are multiplied by halves.
"""

from typing import Any

import tensorflow as tf

from ..spec.dropout import KINDS, Masks
from ..spec.model import ModelSpec

Tensor = Any
WORD = 2**32


def factors(
    spec: ModelSpec, masks: Masks | None, kind: str, layer: int, direction: int, shape: tuple[Any, ...], dtype: Any
) -> Tensor | None:
    """What the numbers of a shape, (B, N) or (T, B, N), are multiplied by; None where that kind drops nothing."""
    if masks is None or spec.dropout is None or not spec.dropout.rate(kind):
        return None
    kept = hashes(masks, kind, layer, direction, shape) >= spec.dropout.threshold(kind)
    return tf.cast(kept, dtype) * tf.constant(spec.dropout.scale(kind), dtype)


def hashes(masks: Masks, kind: str, layer: int, direction: int, shape: tuple[Any, ...]) -> Tensor:
    """A number of 32 bits for each place of a shape, (B, N), or (T, B, N) where each step has its own."""
    h = tf.zeros([1], tf.int64)
    for word in (masks.seed % WORD, masks.seed // WORD % WORD, masks.update, KINDS.index(kind), layer, direction):
        h = absorbed(h, tf.cast(word, tf.int64) % WORD)
    rows, units = shape[-2:]
    first_row = tf.cast(masks.first_row, tf.int64)
    h = absorbed(h, (_range(rows) + first_row)[:, None] % WORD)  # (B, 1)
    if len(shape) == 3:
        h = absorbed(h, _range(shape[0])[:, None, None])  # (T, B, 1)
    return absorbed(h, _range(units))


def absorbed(h: Tensor, words: Tensor) -> Tensor:
    """The hash after one more word."""
    return mixed((tf.bitwise.bitwise_xor(h, words) + 0x9E3779B9) % WORD)


def mixed(h: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 (Appleby)."""
    h = _product(_folded(h, 16), 0x85EBCA6B)
    h = _product(_folded(h, 13), 0xC2B2AE35)
    return _folded(h, 16)


def _folded(h: Tensor, places: int) -> Tensor:
    return tf.bitwise.bitwise_xor(h, h // 2**places)


def _product(h: Tensor, constant: int) -> Tensor:
    """h times a constant, both of 32 bits, modulo 2^32, without a step beyond 63 bits."""
    high, low = constant >> 16, constant & 0xFFFF
    return (h * low + h * high % 2**16 * 2**16) % WORD


def _range(number: Any) -> Tensor:
    return tf.range(tf.cast(number, tf.int64))
