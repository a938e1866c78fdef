"""The valid steps of a batch alone, so that shorter sequences cost less."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .steps import Piece, pieces

Array = Any


@dataclass(frozen=True)
class Rows:
    """The valid steps of B sequences, time after time, the rows of each in one order.

    Attributes:
        shape: B and T.
        sizes: rows of each time step that has any, never growing or never shrinking; N together.
        order: (B,), the batch's rows from the longest sequence to the shortest; None where all steps are valid.
        places: (N,), where each stands among the steps of a batch, b*T + t; None where all are valid.
    """

    shape: tuple[int, int]
    sizes: list[int]
    order: Array | None = None
    places: Array | None = None

    @cached_property
    def pieces(self) -> list[Piece]:
        """The steps in pieces, in order of time."""
        return pieces(self.sizes)

    @property
    def largest(self) -> int:
        """The most rows of a piece."""
        return max(piece.number for piece in self.pieces)

    def taken(self, x: Array) -> Array:
        """(N, I) of (B, T, I)."""
        if self.places is None:
            return x.transpose(1, 0, 2).reshape(-1, x.shape[2])
        return x.reshape(-1, x.shape[2])[self.places]

    def piece(self, x: Array, piece: Piece, room: Array) -> Array:
        """The rows of a piece, (R, I): a view where they stand so, else a copy, where there is room for it."""
        if x.ndim == 2:
            return x[piece.places]
        if self.places is None and len(x) == 1:
            return x[0, piece.times]
        rows = room[: piece.number * x.shape[2]].reshape(piece.number, -1)
        if self.places is not None:  # none is out of bounds, which is not asked for here
            return np.take(x.reshape(-1, x.shape[2]), self.places[piece.places], 0, rows, "clip")
        np.copyto(rows.reshape(-1, len(x), x.shape[2]), x[:, piece.times].transpose(1, 0, 2))
        return rows

    def put_back(self, x: Array) -> Array:
        """(B, T, F) of (N, F), 0 at steps that are not valid."""
        B, T = self.shape
        if self.places is None:
            return x.reshape(T, B, -1).transpose(1, 0, 2)
        found = np.zeros((B * T, x.shape[1]), x.dtype)
        found[self.places] = x
        return found.reshape(B, T, -1)

    def states_taken(self, states: Array) -> Array:
        """(L*D, B, H) in the order of the rows."""
        return states if self.order is None else states[:, self.order]

    def states_put_back(self, states: Array) -> Array:
        """(L*D, B, H) in the order of the batch."""
        if self.order is None:
            return states
        found = np.empty_like(states)
        found[:, self.order] = states
        return found


def valid_rows(shape: tuple[int, int], mask: Array | None) -> Rows | None:
    """The valid steps of a mask (B, T), where padding is only on the right or only on the left; else None."""
    B, T = shape
    if mask is None:
        return Rows(shape, [B] * T)
    order = np.argsort(-mask.sum(axis=1), kind="stable")
    by_time = mask[order].T  # (T, B)
    sizes = by_time.sum(axis=1)
    growth = np.diff(sizes)
    ordered = (growth <= 0).all() or (growth >= 0).all()
    if not (ordered and mask.any() and (by_time == (np.arange(B) < sizes[:, None])).all()):
        return None
    t, b = np.nonzero(by_time)
    return Rows(shape, [int(n) for n in sizes if n], order, order[b] * T + t)
