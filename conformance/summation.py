"""What the error of a sum depends on (SPEC.md, 11.4)."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    """Those of a matrix product (..., M, K) @ (..., K, N); only products that follow each other are taken as alike."""
    count, sizes, squares = a.shape[-1], abs(a) @ abs(b), (a * a) @ (b * b)
    if count <= _FEW or not (pairs := _alike(a[..., 1:], a[..., :-1], roundoff)).any():
        return Terms(count, count, sizes, squares)
    repeats = pairs.astype(int) @ _alike(b[..., 1:, :], b[..., :-1, :], roundoff).astype(int)
    return Terms(count, (1 + repeats) ** 2 + (count - 1 - repeats), sizes, squares)  # at most: all repeat one term


def _alike(a: Array, b: Array, roundoff: Any) -> Array:
    """Where two numbers are one, short of the last two bits, and not 0, with which nothing errs."""
    return np.asarray(abs(a - b) < 4 * roundoff * abs(a), bool)
