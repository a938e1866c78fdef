"""The four nonlinearities and their derivatives, each written in terms of the value: f'(a) = g(f(a))."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Nonlinearity(NamedTuple):
    """`value(a)` is f(a); `times_derivative(d_y, y)` is d_y f'(a) where y = f(a)."""

    value: Callable[[Tensor], Tensor]
    times_derivative: Callable[[Tensor, Tensor], Tensor]


NONLINEARITIES = {
    "tanh": Nonlinearity(torch.tanh, lambda d_y, y: d_y * (1 - y * y)),
    "relu": Nonlinearity(torch.relu, lambda d_y, y: torch.where(y > 0, d_y, 0.0)),
    "sigmoid": Nonlinearity(torch.sigmoid, lambda d_y, y: d_y * (y * (1 - y))),
    "identity": Nonlinearity(lambda a: a, lambda d_y, y: d_y),
}
