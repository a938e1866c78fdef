"""The numbers that the oracle computes with: float64, decimal ones of any precision, or mpmath's.

Decimals are the default of what is exact, as the standard library has them, in C: a run of the oracle takes
two thirds of the time that it takes over mpmath's numbers (measured on the suite's cases). A test holds the
two against each other.
"""

import decimal as standard
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.errors import BackendError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Numbers:
    """A kind of number.

    Attributes:
        array: makes an array of them; every float64 is exact among numbers of 40 digits and more, or nearly so.
        functions: `exp`, `log` and `tanh` of an array; `np.sqrt` serves all kinds.
        precision: makes the context in which arithmetic has the precision asked for.
    """

    array: Callable[[Any], Array]
    functions: Mapping[str, Callable[[Array], Array]]
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext


def float64() -> Numbers:
    """IEEE double precision through NumPy; exp stops short of infinity, so that its derivative stays a number."""
    functions: dict[str, Callable[[Array], Array]] = {
        "exp": lambda a: np.exp(np.minimum(a, _LARGEST_EXPONENT)),
        "log": np.log,
        "tanh": np.tanh,
    }
    return Numbers(lambda values: np.asarray(values, np.float64), functions)


def decimal(digits: int) -> Numbers:
    """Decimal numbers of `digits` digits."""
    context = standard.Context(prec=digits, Emin=-(10**9), Emax=10**9)
    functions = {"exp": lambda a: _exp(a, context), "log": context.ln, "tanh": lambda a: _tanh(a, context)}
    return Numbers(
        lambda values: _objects(values, standard.Decimal),
        _elementwise(functions),
        lambda: standard.localcontext(context),
    )


def mpmath(digits: int) -> Numbers:
    """mpmath's numbers of `digits` digits, in a context of their own.

    Raises:
        BackendError: mpmath is not installed.
    """
    try:
        import mpmath
    except ModuleNotFoundError as error:
        raise BackendError("these numbers need the package mpmath; run: pip install 'rnnzoo[test]'") from error
    context = mpmath.MPContext()
    context.dps = digits
    functions = {name: getattr(context, name) for name in ("exp", "log", "tanh")}
    return Numbers(lambda values: _objects(values, context.mpf), _elementwise(functions))


_LARGEST_EXPONENT = 709.0
_FARTHEST = standard.Decimal(10**9)


def _exp(a: standard.Decimal, context: standard.Context) -> standard.Decimal:
    """The exponential, short of overflow."""
    return context.exp(max(min(a, _FARTHEST), -_FARTHEST))


def _tanh(a: standard.Decimal, context: standard.Context) -> standard.Decimal:
    """(e^2 - 1) / (e^2 + 1) of the exponential e, which is 1 or -1 to all digits far out."""
    square = _exp(2 * a, context)
    return context.divide(context.subtract(square, 1), context.add(square, 1))


def _objects(values: Any, kind: Callable[[Any], Any]) -> Array:
    given = np.asarray(values)
    if given.dtype == object:
        return given
    found = np.empty(given.shape, object)
    for index, value in np.ndenumerate(given):
        found[index] = kind(float(value))
    return found


def _elementwise(functions: Mapping[str, Callable[[Any], Any]]) -> dict[str, Callable[[Array], Array]]:
    return {name: np.frompyfunc(function, 1, 1) for name, function in functions.items()}
