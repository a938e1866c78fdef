"""How a loop over time reads and writes series (B, T, N), one step (B, N) after the other."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

Tensor = Any


class Storage(NamedTuple):
    """What a loop does with series.

    Attributes:
        opened: of a series, what is read; None of None.
        read: of that and t, the step.
        empty: of a series (B, T, _) and a width N, an empty one (B, T, N), to be written.
        written: of that, t and a step, the series with it.
        closed: the series that has been written; 0 where nothing was.
    """

    opened: Callable[[Tensor | None], Any]
    read: Callable[[Any, Tensor], Tensor]
    empty: Callable[[Tensor, Any], Any]
    written: Callable[[Any, Tensor, Tensor], Any]
    closed: Callable[[Any], Tensor]


def _array(series: Tensor | None) -> Any:
    if series is None:
        return None
    by_time = tf.transpose(series, [1, 0, 2])
    return tf.TensorArray(series.dtype, size=tf.shape(by_time)[0], infer_shape=False).unstack(by_time)


def _empty_array(like: Tensor, width: Any) -> Any:
    return tf.TensorArray(like.dtype, size=tf.shape(like)[1], element_shape=(like.shape[0], width))


def _slice(series: Tensor, t: Tensor) -> Tensor:
    rows, _, width = _sizes(series)
    return tf.reshape(tf.slice(series, [0, t, 0], [rows, 1, width]), [rows, width])


def _empty_series(like: Tensor, width: Any) -> Tensor:
    rows, steps, _ = _sizes(like)
    return tf.zeros([rows, steps, width], like.dtype)


def _written(series: Tensor, t: Tensor, step: Tensor) -> Tensor:
    return keras.ops.slice_update(series, [0, t, 0], step[:, None])


def _sizes(series: Tensor) -> list[Any]:
    return [tf.shape(series)[k] if known is None else known for k, known in enumerate(series.shape)]


ARRAYS = Storage(  # in any graph
    _array,
    lambda array, t: array.read(t),
    _empty_array,
    lambda array, t, step: array.write(t, step),
    lambda array: tf.transpose(array.stack(), [1, 0, 2]),
)
SLICES = Storage(  # where XLA compiles, which writes a step in place: nothing is turned or copied
    lambda series: series,
    _slice,
    _empty_series,
    _written,
    lambda series: series,
)
