"""Steps of different numbers of rows in one array, step after step, and pieces of them that fit into a cache."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

Array = Any
PIECE = 512  # rows: with 512 units 1 MB in float32, half of a common second-level cache


class Steps:
    """Of an array (N, H) the steps, (n, H) each, in reading order.

    Attributes:
        series: the array, in order of time.
        rows, sizes: the steps in reading order, and the number of rows n of each.
    """

    def __init__(self, series: Array, sizes: Sequence[int], *, reverse: bool) -> None:
        self.series, self.reverse = series, reverse
        self.ends: list[int] = [0, *accumulate(sizes)]  # in order of time
        self.even = sizes[0] == sizes[-1]  # sizes only grow, or only shrink
        if self.even:
            rows = list(series.reshape(len(sizes), -1, series.shape[1]))
        else:
            rows = [series[a:b] for a, b in zip(self.ends, self.ends[1:], strict=False)]
        self.rows, self.sizes = (rows[::-1], sizes[::-1]) if reverse else (rows, sizes)

    def pieces(self) -> list["Piece"]:
        """Steps that follow one another, together at most `PIECE` rows or one step; in reading order."""
        T, largest = len(self.rows), max(1, PIECE // max(self.sizes))
        return [Piece(self, begin, min(begin + largest, T)) for begin in range(0, T, largest)]


class Piece(NamedTuple):
    """The steps from `begin` to `stop` in reading order."""

    steps: Steps
    begin: int
    stop: int

    @property
    def times(self) -> slice:
        """The steps, in order of time."""
        T = len(self.steps.rows)
        return slice(T - self.stop, T - self.begin) if self.steps.reverse else slice(self.begin, self.stop)

    @property
    def places(self) -> slice:
        """The rows."""
        return slice(self.steps.ends[self.times.start], self.steps.ends[self.times.stop])

    @property
    def number(self) -> int:
        """How many rows there are."""
        return sum(self.steps.sizes[self.begin : self.stop])

    @property
    def rows(self) -> Array:
        """The piece's part of the array, in order of time."""
        return self.steps.series[self.places]

    def backwards(self, series: Array) -> tuple[Sequence[int], Sequence[Array]]:
        """Of an array of the piece's rows the steps' sizes and the steps, from the last that was read."""
        sizes, forward = self.steps.sizes[self.begin : self.stop], not self.steps.reverse
        return sizes[::-1], Steps(series, sizes if forward else sizes[::-1], reverse=forward).rows

    def before(self, initial: Array) -> Array:
        """The states before each of the piece's rows, in order of time."""
        steps = self.steps
        if steps.even:
            return self._shifted(steps.series, steps.sizes[0], initial)
        found = []
        for s in range(self.begin, self.stop):
            n, m = steps.sizes[s], steps.sizes[s - 1] if s else 0
            found.append([steps.rows[s - 1][:n]] * (m > 0) + [initial[m:n]] * (n > m))
        return np.concatenate([part for parts in (found[::-1] if steps.reverse else found) for part in parts])

    def _shifted(self, series: Array, n: int, initial: Array) -> Array:
        places = self.places
        n = n if self.steps.reverse else -n
        start, end = places.start + n, places.stop + n
        if self.begin:
            return series[start:end]
        return np.concatenate([series[start:], initial[:n]] if self.steps.reverse else [initial[:-n], series[:end]])
