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
        read: of that, t and a number of rows, the first rows of the step.
        empty: of a series (B, T, _), a step (B, N) and where the steps end, a series (B, T, N) to be written, which
            holds that step where none will be.
        written: of that, t and the first rows of a step, the series with them.
        closed: the series that has been written.
    """

    opened: Callable[[Tensor | None], Any]
    read: Callable[[Any, Tensor, Any], Tensor]
    empty: Callable[[Tensor, Tensor, Tensor], Any]
    written: Callable[[Any, Tensor, Tensor], Any]
    closed: Callable[[Any], Tensor]


def _array(series: Tensor | None) -> Any:
    if series is None:
        return None
    by_time = tf.transpose(series, [1, 0, 2])
    return tf.TensorArray(series.dtype, size=tf.shape(by_time)[0], infer_shape=False).unstack(by_time)


def _empty_array(like: Tensor, step: Tensor, end: Tensor) -> Any:
    return tf.TensorArray(step.dtype, size=tf.shape(like)[1], element_shape=step.shape)


def _slice(series: Tensor, t: Tensor, rows: Any) -> Tensor:
    width = _width(series)
    return tf.reshape(tf.slice(series, [0, t, 0], [rows, 1, width]), [rows, width])


def _filled(like: Tensor, step: Tensor, end: Tensor) -> Tensor:
    rows, width = tf.unstack(tf.shape(step))
    return tf.broadcast_to(step[:, None], [rows, tf.shape(like)[1], width])


def _written(series: Tensor, t: Tensor, step: Tensor) -> Tensor:
    return keras.ops.slice_update(series, [0, t, 0], step[:, None])


def _packed_slice(series: Tensor, t: Tensor, rows: Any) -> Tensor:
    width = _width(series)
    return tf.reshape(tf.slice(series, [0, t, 0], [1, rows, width]), [rows, width])


def _packed_empty(like: Tensor, step: Tensor, end: Tensor) -> Tensor:
    empty = tf.zeros([1, tf.shape(like)[1], tf.shape(step)[1]], step.dtype)
    return _packed_written(empty, end + 1, step)


def _packed_written(series: Tensor, t: Tensor, step: Tensor) -> Tensor:
    return keras.ops.slice_update(series, [0, t, 0], step[None])


def _width(series: Tensor) -> Any:
    return tf.shape(series)[2] if series.shape[2] is None else series.shape[2]


ARRAYS = Storage(  # in any graph; all rows are read and all steps written
    _array,
    lambda array, t, rows: array.read(t),
    _empty_array,
    lambda array, t, step: array.write(t, step),
    lambda array: tf.transpose(array.stack(), [1, 0, 2]),
)
SLICES = Storage(  # where XLA compiles, which writes a step in place: nothing is turned or copied
    lambda series: series, _slice, _filled, _written, lambda series: series
)
PACKED = Storage(  # the same where a step is some rows among those of `packing`, of which t is the first
    lambda series: series, _packed_slice, _packed_empty, _packed_written, lambda series: series
)
