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
        number: how many are not 0.
        errors: how many errors of one size that are independent make as large a sum: those of like terms are alike, so
            that it is the sum of the squares of the numbers of like terms.
        sizes: the sum of their absolute values.
        root: of the sum of the squares of products, which are rounded themselves; else 0.
    """

    number: Array | int
    errors: Array | int
    sizes: Array
    root: Array

    def magnitude(self, total: Array) -> Array:
        """The error of a sum with that absolute value, in the order that is worst, by that of a number of size 1."""
        largest = (self.sizes + total) / 2
        of_products = self.root * np.sqrt(self.errors / np.maximum(self.number, 1))
        found: Array = np.hypot(of_products, largest * np.sqrt(np.maximum(self.errors, 1) - 1))
        return found


def terms(stacked: Array, roundoff: float) -> Terms:
    """Those along the first axis; alike are those that are the same in units of what is lost where they are added."""
    stacked = np.asarray(stacked, np.float64)
    zeros, sizes = stacked == 0, abs(stacked).sum(axis=0)
    number = len(stacked) - zeros.sum(axis=0)
    if len(stacked) <= _FEW:
        return Terms(number, number, sizes, 0 * sizes)
    ordered = np.sort(stacked, axis=0)
    units = ordered // (sizes * roundoff / 2 + (sizes == 0))
    unlike = (units[1:] != units[:-1]) | (ordered[1:] == 0) | (ordered[:-1] == 0)
    places = np.arange(len(stacked)).reshape(-1, *(1,) * (stacked.ndim - 1))
    first = np.concatenate([0 * unlike[:1], np.where(unlike, places[1:], 0)])  # of the like terms that each belongs to
    before = places - np.maximum.accumulate(first, axis=0)
    return Terms(number, (2 * before + 1).sum(axis=0) - zeros.sum(axis=0), sizes, 0 * sizes)


def products(a: Array, b: Array, roundoff: float) -> Terms:
    """Those of a matrix product (M, K) @ (K, N); alike are those whose factors are, and those that are lost in it."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    number, sizes, root = _number(a, b), abs(a) @ abs(b), _norms(a, b)
    if a.shape[1] <= _FEW:
        return Terms(number, number, sizes, root)
    left, right = _keys(a, roundoff), _keys(b.T, roundoff)
    errors = _squares_of_numbers(left, right) if _repeats(left) and _repeats(right) else number
    lost = _number_below(a, b, sizes * roundoff / 2)
    return Terms(number, np.maximum(np.maximum(errors, number), lost * lost), sizes, root)


def _number(a: Array, b: Array) -> Array | int:
    """How many products are not 0."""
    kept = a != 0, b != 0
    if kept[0].all() and kept[1].all():
        return int(a.shape[1])
    number: Array = np.matmul(*(factors.astype(np.float64) for factors in kept))
    return number


def _norms(a: Array, b: Array) -> Array:
    """The root of the sum of the squares of products, none of which underflows that is near the largest."""
    units = [abs(factors).max(initial=0.0) or 1.0 for factors in (a, b)]
    found: Array = np.sqrt((a / units[0]) ** 2 @ (b / units[1]) ** 2) * units[0] * units[1]
    return found


def _number_below(a: Array, b: Array, limits: Array) -> Array | int:
    """How many products (M, N) are not 0 and below a limit; 0 where they are so few that they do not matter."""
    sizes = [np.where(factors == 0, np.inf, abs(factors)) for factors in (a, b)]
    some = np.flatnonzero(sizes[0].min(axis=0) * sizes[1].min(axis=1) < limits.max(initial=0.0))
    if len(some) ** 2 <= a.shape[1]:
        return 0
    found = np.zeros(limits.shape)
    for k in some:
        found += np.multiply.outer(sizes[0][:, k], sizes[1][k]) < limits
    return found


def places(roundoff: float, coarser: int) -> int:
    """The last bits of a float64 that are left out where numbers are compared: beyond a precision, short of some."""
    return max(53 + coarser + round(math.log2(roundoff)), _NOISY)


def _keys(factors: Array, roundoff: float) -> Array:
    """One integer for all numbers that are one where so many products are added; 0 of 0, with which nothing errs."""
    lost = np.uint64(places(roundoff, max(2, math.ceil(math.log2(factors.shape[1])) - 1)))
    return np.where(
        factors == 0, np.uint64(0), (factors.copy().view(np.uint64) + (np.uint64(1) << lost >> np.uint64(1))) >> lost
    )


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


_SIGNS = 64  # the estimate is off by less than half
_AT_A_TIME = 256  # terms
_NOISY = 12  # last bits of a float64 that may depend on the machine
