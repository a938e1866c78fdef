"""Steps of different numbers of rows in one array, step after step, and pieces of them that fit into a cache."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

PIECE = 2**18  # numbers: 1 MB in float32, half of a common second-level cache
SHARE = 4  # at least so many pieces, so that what is held for a piece is small beside the whole
FEW = 128  # rows, of which there is one piece
LONG = 128  # rows, whose product with others costs less than their copy


class Steps:
    """Of an array (N, H) the steps, (n, H) each, in reading order.

    Attributes:
        series: the array, in order of time.
        sizes: the number of rows n of each step in reading order.
    """

    def __init__(self, series: Tensor, sizes: Sequence[int], *, reverse: bool = False) -> None:
        self.series, self.reverse = series, reverse
        self.sizes = sizes[::-1] if reverse else sizes
        self.ends = [0, *accumulate(sizes)]  # in order of time
        self.even = sizes[0] == sizes[-1]  # sizes only grow, or only shrink

    @cached_property
    def rows(self) -> Sequence[Tensor]:
        """The steps in reading order."""
        sizes = self.sizes[::-1] if self.reverse else self.sizes
        H = self.series.shape[1]
        rows = self.series.view(len(sizes), -1, H).unbind(0) if self.even else self.series.split(sizes)
        return rows[::-1] if self.reverse else rows

    def pieces_read(self, width: int) -> list["Piece"]:
        """Steps that follow one another, in reading order: as few as have only a share of the array's numbers to read,
        `width` for each row."""
        return self._pieces(max(FEW, self.series.numel() // (SHARE * width)))

    def pieces(self) -> list["Piece"]:
        """The same, of a share of the array that fits into a cache."""
        N, H = self.series.shape
        return self._pieces(min(PIECE // H, max(FEW, N // SHARE)))

    def _pieces(self, largest: int) -> list["Piece"]:
        found, begin, number = [], 0, 0
        if len(self.series) <= largest:
            return [Piece(self, 0, len(self.sizes))]
        for step, n in enumerate(self.sizes):
            if number and number + n > largest:
                found.append(Piece(self, begin, step))
                begin, number = step, 0
            number += n
        return [*found, Piece(self, begin, len(self.sizes))]


class Piece(NamedTuple):
    """The steps from `begin` to `stop` in reading order."""

    steps: Steps
    begin: int
    stop: int

    @property
    def first(self) -> int:
        """The earliest step, in order of time."""
        return len(self.steps.sizes) - self.stop if self.steps.reverse else self.begin

    @property
    def last(self) -> int:
        """One past the latest step."""
        return len(self.steps.sizes) - self.begin if self.steps.reverse else self.stop

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

    @property
    def forwards(self) -> tuple[Sequence[Tensor], Sequence[int]]:
        """Its steps as they are read, and their sizes."""
        return self.steps.rows[self.begin : self.stop], self.steps.sizes[self.begin : self.stop]

    def backwards(self, series: Tensor) -> tuple[Sequence[int], Sequence[Tensor]]:
        """Of an array of the piece's rows the steps' sizes and the steps, from the last that was read."""
        sizes, forward = self.steps.sizes[self.begin : self.stop], not self.steps.reverse
        return sizes[::-1], Steps(series, sizes if forward else sizes[::-1], reverse=forward).rows

    def before(self, initial: Tensor) -> list[tuple[slice, Tensor]]:
        """Which of the piece's rows, in order of time, and the states before each of them; together all of its rows."""
        blocks: list[tuple[Tensor, int, int]] = []
        for source, start, end in self._blocks(initial):
            if blocks and blocks[-1][0] is source and blocks[-1][2] == start:
                start = blocks.pop()[1]
            blocks.append((source, start, end))
        parts = [source[start:end] for source, start, end in blocks]
        if len(parts) * LONG > self.end - self.start:
            return [(slice(None), torch.cat(parts))]
        ends = [0, *accumulate(map(len, parts))]
        return [(slice(begin, end), part) for begin, end, part in zip(ends, ends[1:], parts, strict=False)]

    def _blocks(self, initial: Tensor) -> Iterator[tuple[Tensor, int, int]]:
        """Where the states before each step stand, in order of time: in the array, or among the initial ones."""
        steps, T = self.steps, len(self.steps.sizes)
        sizes = steps.sizes[::-1] if steps.reverse else steps.sizes
        for t in range(self.first, self.last):
            before, n = t + 1 if steps.reverse else t - 1, sizes[t]
            m = sizes[before] if 0 <= before < T else 0
            if m:
                yield steps.series, steps.ends[before], steps.ends[before] + min(m, n)
            if n > m:
                yield initial, m, n
