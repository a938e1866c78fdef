"""What the error of a sum depends on (SPEC.md, 11.4)."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import hashing
from .precision import factor

Array = NDArray[Any]
_FEW = 1 + int(factor() ** 2 / 3)  # n - 1 errors of at most u, all alike, are below c sqrt(n - 1) u / sqrt(3)


class Terms(NamedTuple):
    """The terms of a sum, each an array, of numbers or of products of numbers.

    Attributes:
        number: how many there are.
        errors: how many errors of one size that are independent make as large a sum: those of like terms are alike, so
            that it is the sum of the squares of the numbers of like terms.
        sizes: the sum of their absolute values.
        squares: the sum of the squares of products, which are rounded themselves; else 0.
    """

    number: int
    errors: Array | int
    sizes: Array
    squares: Array

    def magnitude(self, total: Array) -> Array:
        """The error of a sum with that absolute value, in the order that is worst, by that of a number of size 1."""
        largest = (self.sizes + total) / 2
        found: Array = np.sqrt(self.squares * self.errors / self.number + (self.errors - 1) * largest * largest)
        return found


def terms(stacked: Array, roundoff: Any) -> Terms:
    """Those along the first axis; alike are those that are the same in units of what is lost where they are added."""
    count, sizes = len(stacked), abs(stacked).sum(axis=0)
    if count <= _FEW:
        return Terms(count, count, sizes, 0 * sizes)
    lost = sizes * roundoff / 2 + (sizes == 0)
    ordered = np.sort(stacked, axis=0) // lost
    unlike = (ordered[1:] != ordered[:-1]) | (ordered[1:] == 0)
    places = np.arange(len(stacked)).reshape(-1, *(1,) * (stacked.ndim - 1))
    first = np.concatenate([0 * unlike[:1], np.where(unlike, places[1:], 0)])  # of the like terms that each belongs to
    before = places - np.maximum.accumulate(first, axis=0)
    return Terms(count, (2 * before + 1).sum(axis=0), sizes, 0 * sizes)


def products(a: Array, b: Array, roundoff: Any) -> Terms:
    """Those of a matrix product (M, K) @ (K, N); alike are those whose factors are."""
    count, sizes, squares = a.shape[1], abs(a) @ abs(b), (a * a) @ (b * b)
    if count <= _FEW:
        return Terms(count, count, sizes, squares)
    left, right = _keys(a, roundoff), _keys(b.T, roundoff)
    errors = _squares_of_numbers(left, right) if _repeats(left) and _repeats(right) else count
    return Terms(count, np.maximum(errors, count), sizes, squares)


def places(roundoff: float, coarser: int) -> int:
    """The last bits of a float64 that are left out where numbers are compared: beyond a precision, short of some."""
    return max(53 + coarser + round(math.log2(roundoff)), _NOISY)


def _keys(factors: Array, roundoff: Any) -> Array:
    """One integer for all numbers that are one where so many products are added; 0 of 0, with which nothing errs."""
    lost = np.uint64(places(float(roundoff), max(2, math.ceil(math.log2(factors.shape[1])) - 1)))
    bits = np.asarray(factors, np.float64).view(np.uint64)
    return np.where(factors == 0, np.uint64(0), (bits + (np.uint64(1) << lost >> np.uint64(1))) >> lost)


def _repeats(keys: Array) -> bool:
    """Whether any row has a key twice."""
    ordered = np.sort(keys, axis=1)
    return bool(np.any((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != 0)))


def _squares_of_numbers(left: Array, right: Array) -> Array:
    """For each row of both the sum of the squares of the numbers of like pairs of keys, estimated.

    Each pair has a random sign that is a function of it; the square of the sum of all signs has that expectation
    (Alon, Matias and Szegedy, The space complexity of approximating the frequency moments, 1996).
    """
    of_left, of_right = hashing.multipliers(2 * _SIGNS, 0, "signs").reshape(2, -1)
    sums = np.zeros((_SIGNS, len(left), len(right)), np.float32)
    for start in range(0, left.shape[1], _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        sums += hashing.signs(left[:, part], of_left) @ hashing.signs(right[:, part], of_right).swapaxes(1, 2)
    found: Array = np.mean(np.square(sums, dtype=np.float64), axis=0)
    return found


_SIGNS = 32  # the estimate is off by a quarter, a bound by an eighth
_AT_A_TIME = 256  # terms
_NOISY = 12  # last bits of a float64 that may depend on the machine
