"""The factors of dropout, 0 or 1/(1 - p), by a hash of counters: the same units in every backend (SPEC.md, 12.15).

Words of 32 bits stand in int64, which every device multiplies, and are multiplied by halves.
"""

from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from ..spec.dropout import KINDS, STEPWISE, Masks
from ..spec.model import ModelSpec

Tensor = Any
WORD = 2**32


def counter() -> Any:
    """Of the calls in training; a variable of TensorFlow's own, as Keras would take one of its own for a weight."""
    with tf.init_scope():
        return tf.Variable(0, False, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)


def masks_of_call(layer: Any, training: bool | None, given: Masks | None) -> Masks | None:
    """The masks that are given, or those of a layer's next call where Keras trains."""
    if given is not None:
        return Masks(*given)
    if not training or layer.dropout_calls is None:
        return None
    words = int64(layer.seed % 2**64), layer.dropout_calls.assign_add(1), *[int64(0)] * (len(Masks._fields) - 2)
    return Masks(*map(tf.convert_to_tensor, words))  # all tensors, as Keras refuses a mixture


def int64(word: int) -> Any:
    """The bits of up to 64 of a word, as TensorFlow's integers have a sign."""
    return np.uint64(word).astype(np.int64)


def factors(
    spec: ModelSpec, masks: Masks | None, kind: str, layer: int, direction: int, shape: tuple[Any, ...], dtype: Any
) -> Tensor | None:
    """What numbers of shape (T, B, N) are multiplied by, (T, B, N) or (B, N); None where nothing is dropped."""
    if masks is None or spec.dropout is None or not spec.dropout.rate(kind):
        return None
    if kind == "between_layers" and layer == spec.num_layers - 1:
        return None
    kept = hashes(masks, kind, layer, direction, shape) >= spec.dropout.threshold(kind)
    return tf.cast(kept, dtype) * tf.constant(spec.dropout.scale(kind), dtype)


def hashes(masks: Masks, kind: str, layer: int, direction: int, shape: tuple[Any, ...]) -> Tensor:
    """A number of 32 bits for each place of a shape, (T, B, N), or for each (B, N) where all steps share it."""
    layer, direction = masks.first_layer + layer, masks.first_direction + direction
    words = (masks.seed % WORD, masks.seed // WORD, masks.update, KINDS.index(kind), layer, direction)
    return _graph(kind in STEPWISE)(_vector(words) % WORD, _vector((masks.first_row,))[0], _vector(shape))


@cache
def _graph(stepwise: bool) -> Any:
    """The hash as a graph for all shapes, traced once in a process."""

    def of_places(words: Tensor, first_row: Tensor, shape: Tensor) -> Tensor:
        h = tf.zeros([1], tf.int64)
        for word in tf.unstack(words):
            h = absorbed(h, word)
        steps, rows, units = tf.unstack(shape)
        h = absorbed(h, (tf.range(rows) + first_row)[:, None] % WORD)  # (B, 1)
        if stepwise:
            h = absorbed(h, tf.range(steps)[:, None, None])  # (T, B, 1)
        return absorbed(h, tf.range(units))

    given = [tf.TensorSpec(shape, tf.int64) for shape in ([6], [], [3])]
    return tf.function(of_places, autograph=False).get_concrete_function(*given)


def _vector(words: tuple[Any, ...]) -> Tensor:
    return tf.stack([tf.cast(word, tf.int64) for word in words])


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
