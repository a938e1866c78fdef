"""The four nonlinearities and their derivatives, each written in terms of the value: f'(a) = g(f(a))."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf


class Nonlinearity(NamedTuple):
    """`value(a)` is f(a); `times_derivative(d_y, y)` is d_y f'(a) where y = f(a)."""

    value: Callable[[Any], Any]
    times_derivative: Callable[[Any, Any], Any]


NONLINEARITIES = {
    "tanh": Nonlinearity(tf.tanh, lambda d_y, y: d_y * (1 - y * y)),
    "relu": Nonlinearity(tf.nn.relu, lambda d_y, y: tf.where(y > 0, d_y, tf.zeros([], d_y.dtype))),
    "sigmoid": Nonlinearity(tf.sigmoid, lambda d_y, y: d_y * (y * (1 - y))),
    "identity": Nonlinearity(lambda a: a, lambda d_y, y: d_y),
}
