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


class InPlace(NamedTuple):
    """`value(a, a)` writes f(a) over a; `derivative(y, out)` writes f'(a) where y = f(a), and is None where it is 1."""

    value: Callable[[Any, Any], Any]
    derivative: Callable[[Any, Any], Any] | None


def _relu(a: Any, out: Any) -> Any:
    return np.maximum(a, 0, out=out)


def _sigmoid(a: Any, out: Any) -> Any:
    out[...] = sigmoid(a)
    return out


def _tanh_derivative(y: Any, out: Any) -> Any:
    return np.subtract(1, np.multiply(y, y, out), out)


def _sigmoid_derivative(y: Any, out: Any) -> Any:
    return np.multiply(np.subtract(1, y, out), y, out)


IN_PLACE = {
    "tanh": InPlace(np.tanh, _tanh_derivative),
    "relu": InPlace(_relu, lambda y, out: np.greater(y, 0, out)),
    "sigmoid": InPlace(_sigmoid, _sigmoid_derivative),
    "identity": InPlace(np.positive, None),
}
