"""The four nonlinearities and their derivatives, each written in terms of the value: f'(a) = g(f(a))."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Nonlinearity(NamedTuple):
    """`value(a)` is f(a); `times_derivative(d_y, y)` is d_y f'(a) where y = f(a)."""

    value: Callable[[Any], Any]
    times_derivative: Callable[[Any, Any], Any]


def sigmoid(a: Any) -> Any:
    """1 / (1 + exp(-a)), without an exponential that overflows."""
    e = np.exp(-np.abs(a))
    return np.where(a < 0, e, a.dtype.type(1)) / (1 + e)


NONLINEARITIES = {
    "tanh": Nonlinearity(np.tanh, lambda d_y, y: d_y * (1 - y * y)),
    "relu": Nonlinearity(lambda a: np.maximum(a, 0), lambda d_y, y: np.where(y > 0, d_y, np.zeros((), d_y.dtype))),
    "sigmoid": Nonlinearity(sigmoid, lambda d_y, y: d_y * (y * (1 - y))),
    "identity": Nonlinearity(lambda a: a, lambda d_y, y: d_y),
}
