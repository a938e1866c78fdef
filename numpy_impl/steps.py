"""Steps of different numbers of rows in one array, step after step, and pieces of them that fit into a cache."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

Array = Any
PIECE = 512  # rows: with 512 units 1 MB in float32, half of a common second-level cache
SHARE = 4  # at least so many pieces, so that what is held for a piece is small beside the whole
FEW = 128  # rows, of which there is one piece


class Piece(NamedTuple):
    """Steps that follow one another.

    Attributes:
        begin, stop: its steps in reading order, from the first to one past the last.
        times: the same in order of time.
        places: its rows.
        number: how many rows it has.
    """

    begin: int
    stop: int
    times: slice
    places: slice
    number: int


class Steps:
    """Of an array (N, H) the steps, (n, H) each, in reading order.

    Attributes:
        series: the array, in order of time.
        rows, sizes: the steps in reading order, and the number of rows n of each.
    """

    def __init__(self, series: Array, sizes: Sequence[int], *, reverse: bool) -> None:
        self.series, self.reverse = series, reverse
        self.even = sizes[0] == sizes[-1]  # sizes only grow, or only shrink
        if self.even:
            rows = list(series.reshape(len(sizes), -1, series.shape[1]))
        else:
            ends = [0, *accumulate(sizes)]
            rows = [series[a:b] for a, b in pairwise(ends)]
        self.rows, self.sizes = (rows[::-1], sizes[::-1]) if reverse else (rows, sizes)

    def backwards(self, series: Array, piece: Piece) -> tuple[Sequence[int], Sequence[Array]]:
        """Of an array of a piece's rows the steps' sizes and the steps, from the last that was read."""
        sizes, forward = self.sizes[piece.begin : piece.stop], not self.reverse
        return sizes[::-1], Steps(series, sizes if forward else sizes[::-1], reverse=forward).rows

    def before(self, piece: Piece, initial: Array) -> Array:
        """The states before each of a piece's rows, in order of time."""
        if self.even:
            return self._shifted(piece, initial)
        found = self.series[self._previous[0][piece.places]]
        rows = self._previous[1][piece.places]
        begins = rows >= 0
        found[begins] = initial[rows[begins]]
        return found

    def _shifted(self, piece: Piece, initial: Array) -> Array:
        n = self.sizes[0] if self.reverse else -self.sizes[0]
        start, end = piece.places.start + n, piece.places.stop + n
        if piece.begin:
            return self.series[start:end]
        parts = [self.series[start:], initial[:n]] if self.reverse else [initial[:-n], self.series[:end]]
        return np.concatenate(parts)

    @cached_property
    def _previous(self) -> tuple[Array, Array]:
        """For each row, (N,), where it stood a step before, and where it begins its number, else -1."""
        sizes = np.array(self.sizes)  # in reading order
        before = np.concatenate([[0], sizes[:-1]])
        starts = np.cumsum(sizes) - sizes
        if self.reverse:
            starts = sizes.sum() - starts - sizes
        order = slice(None, None, -1 if self.reverse else 1)
        row = np.arange(sizes.sum()) - np.repeat(starts[order], sizes[order])
        place = row + np.repeat(np.concatenate([[0], starts[:-1]])[order], sizes[order])
        begins = row >= np.repeat(before[order], sizes[order])
        return np.where(begins, 0, place), np.where(begins, row, -1)


def pieces(sizes: Sequence[int], *, reverse: bool = False) -> list[Piece]:
    """Pieces of steps with so many rows, given in order of time, in reading order."""
    ends, T = [0, *accumulate(sizes)], len(sizes)
    rows = min(PIECE, max(FEW, ends[-1] // SHARE))
    largest = max(1, rows // max(sizes))
    found = []
    for begin in range(0, T, largest):
        stop = min(begin + largest, T)
        first, last = (T - stop, T - begin) if reverse else (begin, stop)
        found.append(Piece(begin, stop, slice(first, last), slice(ends[first], ends[last]), ends[last] - ends[first]))
    return found
