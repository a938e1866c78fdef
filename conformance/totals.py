"""Sums of what comes one after the other, under some arithmetic."""

import functools
import operator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import summation
from .arithmetic import Exact

Array = NDArray[Any]


class Rows(NamedTuple):
    """What is summed over rows, with other such rows or alone: products (S, M, K) @ (S, K, N), or (S, K, N) itself."""

    factors: Array | None
    rows: Array


class Total:
    """A sum of arrays, and of rows that may come together in one accumulator, in any order."""

    def __init__(self, ops: Exact) -> None:
        self.ops = ops
        self.arrays: list[Array] = []
        self.sum: Array | None = None
        self.waiting: list[Rows] = []
        self.numbers = 0  # among what waits
        self.terms: list[Rows] = []  # of one sample

    def add(self, term: Array | Rows) -> None:
        """One more array, or more rows."""
        if not isinstance(term, Rows):
            self.arrays.append(term)
            return
        self.waiting.append(term)
        self.numbers += term.rows.size
        if self.numbers > _AT_A_TIME:
            self._sum_up()

    def value(self) -> Array:
        """The sum, with the error of a sum of so many numbers in any order."""
        arrays = self.arrays
        if self.waiting or self.terms:
            arrays = [*arrays, self._of_rows()]
        if len(arrays) < 3:
            return arrays[0] if len(arrays) == 1 else self.ops.add(*arrays)
        terms = [array[0] for array in arrays]
        total = functools.reduce(operator.add, arrays)
        return self.ops.accumulated(total, lambda roundoff: summation.terms(_stacked(terms), roundoff))

    def _of_rows(self) -> Array:
        self._sum_up()
        assert self.sum is not None
        factors, rows = _joined(self.terms)
        if factors is None:
            return self.ops.accumulated(self.sum, lambda roundoff: summation.terms(rows[0][:, None], roundoff))
        return self.ops.accumulated(self.sum, lambda roundoff: summation.products(factors[0], rows[0], roundoff))

    def _sum_up(self) -> None:
        if self.waiting:
            factors, rows = _joined(self.waiting)
            found = rows.sum(axis=1, keepdims=True) if factors is None else factors @ rows
            self.sum = found if self.sum is None else self.sum + found
            self.terms.append(Rows(factors if factors is None else factors[:1].copy(), rows[:1].copy()))
            self.waiting, self.numbers = [], 0


def _joined(several: list[Rows]) -> Rows:
    """All rows of several, which have factors or have none."""
    factors = [each.factors for each in several if each.factors is not None]
    assert len(factors) in (0, len(several))
    return Rows(_side_by_side(factors, 2) if factors else None, _side_by_side([each.rows for each in several], 1))


def _side_by_side(arrays: list[Array], axis: int) -> Array:
    if len(arrays) == 1:
        return arrays[0]
    samples = max(map(len, arrays))
    whole = [a if len(a) == samples else np.broadcast_to(a, (samples, *a.shape[1:])) for a in arrays]
    return np.concatenate(whole, axis=axis)


def _stacked(arrays: list[Array]) -> Array:
    one_shape = all(array.shape == arrays[0].shape for array in arrays)
    return np.stack(arrays if one_shape else np.broadcast_arrays(*arrays))


_AT_A_TIME = 2**20  # numbers that wait, so that products are larger than those of one step
