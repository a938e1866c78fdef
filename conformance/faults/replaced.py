"""Faults inside a loop over time, which no wrapper reaches: one entry of a table of an implementation is replaced.

The plain loop is taken, which the table is for. Each is written with the operators that NumPy, torch and TensorFlow
have in common.
"""

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from .fault import Fault

PACKAGES = {"numpy": "numpy_impl", "torch": "torch_impl", "tf": "tf_impl"}
FRAMEWORKS = {"numpy": "numpy", "torch": "torch", "tf": "tensorflow"}
SMALL = 2.0**-90  # too small to be seen in a result, too large to be flushed to 0 in float32


def relu_one_at_zero(relu: Any, framework: Any) -> Any:
    """The value is marked below 0, so that the derivative, which knows the value alone, can tell 0 from below."""
    return relu._replace(
        value=lambda a: relu.value(a) - SMALL * relu.value(-a),
        times_derivative=lambda d_y, y: d_y - relu.times_derivative(d_y, -y),
    )


def tanh_derivative_of_value(tanh: Any, framework: Any) -> Any:
    return tanh._replace(times_derivative=lambda d_y, y: d_y * (1 - tanh.value(y) * tanh.value(y)))


def sigmoid_overflows(sigmoid: Any, framework: Any) -> Any:
    def value(a: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):  # a NaN is the fault, not NumPy's warning of it
            return framework.exp(a) / (1 + framework.exp(a))

    return sigmoid._replace(value=value)


def replacing(backend_name: str, entry: str, change: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """What makes the context in which an implementation's table of nonlinearities has a changed entry."""

    @contextmanager
    def apply(backend: Any) -> Iterator[Any]:
        package = f"{__package__.rsplit('.', 2)[0]}.{PACKAGES[backend_name]}"
        table = importlib.import_module(f"{package}.nonlinearities").NONLINEARITIES
        changed = change(table[entry], importlib.import_module(FRAMEWORKS[backend_name]))
        plain = mock.patch.object(importlib.import_module(f"{package}.cells.rnn"), "IN_PLACE", False)
        graphs = fresh_graphs(importlib.import_module(f"{package}.recurrence"))
        with mock.patch.dict(table, {entry: changed}), plain, graphs:
            yield backend

    return apply


def fresh_graphs(recurrence: ModuleType) -> AbstractContextManager[Any]:
    """Graphs of the loop traced anew inside, and the old ones back outside; TensorFlow's implementation has some."""
    if not hasattr(recurrence, "_loop"):
        return nullcontext()
    return mock.patch.object(recurrence, "_loop", functools.cache(recurrence._loop.__wrapped__))


def _faults(
    name: str, story: str, check: str, entry: str, change: Callable[[Any, Any], Any], thread: str
) -> Iterator[Fault]:
    """The fault for each implementation."""
    for own in PACKAGES:
        yield Fault(f"{name} ({own})", story, check, replacing(own, entry, change), thread, only=own)


FAULTS = (
    *_faults(
        "relu'(0) = 1",
        "The derivative is 0 below 0, and 1 at 0 as well.",
        "relu_at_zero", "relu", relu_one_at_zero, "https://github.com/tensorflow/playground/issues/19",
    ),
    *_faults(
        "tanh'(tanh(a))",
        "The derivative is taken at the value instead of at the argument.",
        "gradients", "tanh", tanh_derivative_of_value, "https://github.com/davidrmiller/neural2d/issues/40",
    ),
    *_faults(
        "sigmoid overflows",
        "exp(a) / (1 + exp(a)) is NaN for large a.",
        "results", "sigmoid", sigmoid_overflows, "https://github.com/FederatedAI/FATE/issues/65",
    ),
)  # fmt: skip
