"""Steps of different numbers of rows in one array, step after step, and pieces of them that fit into a cache."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

PIECE = 2**18  # numbers: 1 MB in float32, half of a common second-level cache
SHARE = 4  # at least so many pieces, so that what is held for a piece is small beside the whole
FEW = 128  # rows, of which there is one piece


class Steps:
    """Of an array (N, H) the steps, (n, H) each, in reading order.

    Attributes:
        series: the array, in order of time.
        rows, sizes: the steps in reading order, and the number of rows n of each.
    """

    def __init__(self, series: Tensor, sizes: Sequence[int], *, reverse: bool) -> None:
        T = len(sizes)
        self.series, self.reverse = series, reverse
        self.ends = [0, *accumulate(sizes)]  # in order of time
        self.even = sizes[0] == sizes[-1]  # sizes only grow, or only shrink
        rows = series.view(T, -1, series.shape[1]).unbind(0) if self.even else series.split(sizes)
        self.rows, self.sizes = (rows[::-1], sizes[::-1]) if reverse else (rows, sizes)

    def pieces(self) -> list["Piece"]:
        """Steps that follow one another, in reading order: a part of the rows that is small, or fits into a cache."""
        T, (N, H) = len(self.rows), self.series.shape
        largest = max(1, min(PIECE // H, max(FEW, N // SHARE)) // max(self.sizes))
        return [Piece(self, begin, min(begin + largest, T)) for begin in range(0, T, largest)]


class Piece(NamedTuple):
    """The steps from `begin` to `stop` in reading order."""

    steps: Steps
    begin: int
    stop: int

    @property
    def first(self) -> int:
        """The earliest step, in order of time."""
        return len(self.steps.rows) - self.stop if self.steps.reverse else self.begin

    @property
    def last(self) -> int:
        """One past the latest step."""
        return len(self.steps.rows) - self.begin if self.steps.reverse else self.stop

    @property
    def start(self) -> int:
        """The first row."""
        return self.steps.ends[self.first]

    @property
    def end(self) -> int:
        """One past the last row."""
        return self.steps.ends[self.last]

    @property
    def rows(self) -> Tensor:
        """The piece's part of the array, in order of time."""
        return self.steps.series[self.start : self.end]

    def backwards(self, series: Tensor) -> tuple[Sequence[int], Sequence[Tensor]]:
        """Of an array of the piece's rows the steps' sizes and the steps, from the last that was read."""
        sizes, forward = self.steps.sizes[self.begin : self.stop], not self.steps.reverse
        return sizes[::-1], Steps(series, sizes if forward else sizes[::-1], reverse=forward).rows

    def before(self, initial: Tensor) -> Tensor:
        """The states before each of the piece's rows, in order of time."""
        steps = self.steps
        if steps.even:
            return self._shifted(steps.series, steps.sizes[0], initial)
        found = []
        for s in range(self.begin, self.stop):
            n, m = steps.sizes[s], steps.sizes[s - 1] if s else 0
            found.append([steps.rows[s - 1][:n]] * (m > 0) + [initial[m:n]] * (n > m))
        return torch.cat([part for parts in (found[::-1] if steps.reverse else found) for part in parts])

    def _shifted(self, series: Tensor, n: int, initial: Tensor) -> Tensor:
        start, end = (self.start + n, self.end + n) if self.steps.reverse else (self.start - n, self.end - n)
        if self.begin:
            return series[start:end]
        return torch.cat([series[start:], initial[:n]] if self.steps.reverse else [initial[:n], series[:end]])
