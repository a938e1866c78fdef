"""Steps of different numbers of rows in one array, step after step, and pieces of them that fit into a cache."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import numpy as np

Array = Any
PIECE = 512  # rows: with 512 units 1 MB in float32, half of a common second-level cache
SHARE = 8  # at least so many pieces, so that what is held for a piece is small beside the whole
FEW = 128  # rows, of which there is one piece


class Piece(NamedTuple):
    """Steps that follow one another.

    Attributes:
        times: its steps, in order of time.
        places: its rows.
        number: how many rows it has.
    """

    times: slice
    places: slice
    number: int


class Steps:
    """Of an array (N, H), in order of time, the steps, (n, H) each.

    Attributes:
        series: the array.
        sizes: the number of rows n of each in reading order.
    """

    def __init__(self, series: Array, sizes: Sequence[int], *, reverse: bool) -> None:
        self.series, self.reverse = series, reverse
        self.sizes = sizes[::-1] if reverse else sizes
        self.even = sizes[0] == sizes[-1]  # sizes only grow, or only shrink

    def before(self, piece: Piece, initial: Array) -> list[tuple[slice, Array]]:
        """Which of a piece's rows, in order of time, and the states before each of them; together all of its rows."""
        if self.even:
            return self._shifted(piece, initial)
        found = self.series[self._previous[0][piece.places]]
        rows = self._previous[1][piece.places]
        begins = rows >= 0
        found[begins] = initial[rows[begins]]
        return [(slice(None), found)]

    def _shifted(self, piece: Piece, initial: Array) -> list[tuple[slice, Array]]:
        n, start, stop = self.sizes[0], piece.places.start, piece.places.stop
        if self.reverse:
            if stop < len(self.series):
                return [(slice(None), self.series[start + n : stop + n])]
            found = [(slice(0, -n), self.series[start + n :]), (slice(-n, None), initial[:n])]
        else:
            if start > 0:
                return [(slice(None), self.series[start - n : stop - n])]
            found = [(slice(0, n), initial[:n]), (slice(n, None), self.series[: stop - n])]
        if piece.number <= FEW:  # their copy costs less than a second product
            return [(slice(None), np.concatenate([states for _, states in found]))]
        return found if piece.number > n else [(slice(None), initial[:n])]

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


def blocks(series: Array, sizes: Sequence[int], *, reverse: bool) -> list[Array]:
    """The steps of an array (N, H) as views (k, n, H), one for all steps that follow one another with n rows each."""
    H, found, end = series.shape[1], [], 0
    if sizes[0] == sizes[-1]:
        found.append(series.reshape(len(sizes), -1, H))
    else:
        for n, alike in groupby(sizes):
            begin, end = end, end + n * len(list(alike))
            found.append(series[begin:end].reshape(-1, n, H))
    return [block[::-1] for block in reversed(found)] if reverse else found


def pieces(sizes: Sequence[int]) -> list[Piece]:
    """Pieces of steps with so many rows, as few as have only a share of them."""
    ends, found, begin = [0, *accumulate(sizes)], [], 0
    largest = min(PIECE, max(FEW, ends[-1] // SHARE))
    if ends[-1] <= largest:
        return [Piece(slice(0, len(sizes)), slice(0, ends[-1]), ends[-1])]
    for t in range(1, len(ends)):
        if t == len(sizes) or ends[t + 1] - ends[begin] > largest:
            found.append(Piece(slice(begin, t), slice(ends[begin], ends[t]), ends[t] - ends[begin]))
            begin = t
    return found
