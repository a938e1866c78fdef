"""Arrays against what they should be, element by element."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.errors import ConformanceError, listed
from .bounds import Bounds, Truth

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One array against what it should be.

    Attributes:
        quantity: its name.
        expected, got, allowed: arrays of one shape; allowed is 0 where it has to be exact.
        gain: by how much rounding errors grew in it.
        rest: what float64 cannot hold of what is expected.
    """

    quantity: str
    expected: Array
    got: Array
    allowed: Array
    gain: float = 0.0
    rest: Array | float = 0.0

    @property
    def errors(self) -> Array:
        """The absolute error of every element; infinite where only one is a number, or they are not infinite alike."""
        with np.errstate(invalid="ignore"):
            errors = np.nan_to_num(np.abs(self.got - self.expected - self.rest), nan=np.inf, posinf=np.inf)
        alike = np.isnan(self.got) & np.isnan(self.expected) | np.isinf(self.got) & (self.got == self.expected)
        return np.where(alike, 0.0, errors)

    @property
    def ratios(self) -> Array:
        """Error by allowed error of every element; 0 where both are 0, or anything is allowed."""
        errors = self.errors
        with np.errstate(all="ignore"):
            ratios: Array = np.where((errors == 0) | np.isinf(self.allowed), 0.0, errors / self.allowed)
        return ratios

    @property
    def ratio(self) -> float:
        """The largest of the ratios; it holds up to 1."""
        return float(self.ratios.max(initial=0.0))

    @property
    def decidable(self) -> bool:
        """Whether rounding alone stays below the largest element: where it does not, anything would pass."""
        finite = np.isfinite(self.expected)
        allowed = float(self.allowed[finite].max(initial=0.0))
        largest = float(np.abs(self.expected[finite]).max(initial=0.0))
        return allowed == 0 or (largest == 0 and np.isfinite(allowed)) or allowed < largest

    def worst(self) -> tuple[int, ...]:
        """The index of the element with the largest ratio."""
        return tuple(map(int, np.unravel_index(int(np.argmax(self.ratios)), self.expected.shape)))

    @property
    def error(self) -> float:
        """The error of the worst element."""
        return float(self.errors[self.worst()])

    @property
    def limit(self) -> float:
        """What is allowed of the worst element."""
        return float(self.allowed[self.worst()])

    def description(self, first: str = "expected", second: str = "got") -> str:
        """The worst element in words."""
        index = self.worst()
        at = f"{self.quantity} at {list(index)}" if index else self.quantity
        expected, got, allowed = (array[index] for array in (self.expected, self.got, self.allowed))
        return f"{at}: {first} {expected:.9g}, {second} {got:.9g}, allowed {allowed:.3g}"


def compared(
    found: Mapping[str, Array],
    expected: Mapping[str, Truth],
    bounds: Bounds,
    dtype: str | Mapping[str, str] | None = None,
) -> Iterator[Comparison]:
    """Every array against its truth and bound; all have to have the dtype, or those that a mapping names.

    Raises:
        ConformanceError: names, shapes or dtypes differ.
    """
    _same_names(found, expected)
    for name, (wanted, rest) in expected.items():
        got, kind = np.asarray(found[name]), dtype.get(name) if isinstance(dtype, Mapping) else dtype
        if got.shape != wanted.shape or (kind and got.dtype != np.dtype(kind)):
            raise ConformanceError(
                f"{name}: expected {kind or 'an array'} of shape {wanted.shape}, got {got.dtype} of shape {got.shape}"
            )
        yield Comparison(name, wanted, got.astype(np.float64), bounds.allowed[name], bounds.gains[name], rest)


def zero(what: str, found: Array) -> Comparison:
    """An array that has to be 0 throughout."""
    return Comparison(what, np.zeros(found.shape), np.asarray(found, np.float64), np.zeros(found.shape))


def identical(what: str, found: Mapping[str, Array], expected: Mapping[str, Array]) -> Iterator[Comparison]:
    """Arrays that have to be the same to the last bit; -0 is not 0.

    Raises:
        ConformanceError: names, shapes or dtypes differ.
    """
    return (_bit_by_bit(*pair) for pair in _pairs(what, found, expected))


def equal(what: str, found: Mapping[str, Array], expected: Mapping[str, Array]) -> Iterator[Comparison]:
    """Arrays that have to hold the same numbers, without any error; -0 is 0.

    Raises:
        ConformanceError: names, shapes or dtypes differ.
    """
    return (_exactly(*pair) for pair in _pairs(what, found, expected))


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays have one dtype, one shape and the same bits; -0 is not 0."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def largest_difference(a: Array, b: Array) -> float:
    """The largest absolute difference of two arrays of one shape; infinite where they are not infinite or NaN alike."""
    plain = Comparison("", np.asarray(a, np.float64), np.asarray(b, np.float64), np.ones(np.shape(a)))
    return plain.ratio


def _pairs(what: str, found: Mapping[str, Array], expected: Mapping[str, Array]) -> Iterator[tuple[str, Array, Array]]:
    _same_names(found, expected)
    for name, wanted in expected.items():
        got = np.asarray(found[name])
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            raise ConformanceError(
                f"{what}, {name}: expected {wanted.dtype} of shape {wanted.shape}, got {got.dtype} of shape {got.shape}"
            )
        yield f"{what}, {name}", got, wanted


def _exactly(quantity: str, got: Array, wanted: Array) -> Comparison:
    return Comparison(quantity, wanted.astype(np.float64), got.astype(np.float64), np.zeros(wanted.shape))


def _bit_by_bit(quantity: str, got: Array, wanted: Array) -> Comparison:
    """Numbers where they differ as numbers; where only bits do (-0, a NaN's payload), equal or not as 0 and 1."""
    plain = _exactly(quantity, got, wanted)
    if same_bits(got, wanted) or plain.ratio:
        return plain
    differs = [a.tobytes() != b.tobytes() for a, b in zip(got.ravel(), wanted.ravel(), strict=True)]
    ones = np.reshape(differs, wanted.shape).astype(np.float64)
    return Comparison(f"bits of {quantity}", np.zeros(wanted.shape), ones, np.zeros(wanted.shape))


def _same_names(found: Mapping[str, Array], expected: Mapping[str, Any]) -> None:
    if set(found) != set(expected):
        missing, surplus = set(expected) - set(found), set(found) - set(expected)
        raise ConformanceError(f"names: missing {listed(missing)}; surplus {listed(surplus)}")
