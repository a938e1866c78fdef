"""The steps of a batch that are computed: all, or the valid ones alone, so that shorter sequences cost less."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .steps import Piece


class Rows(NamedTuple):
    """Steps of B sequences, time after time, the rows of each in one order.

    Attributes:
        shape: B and T.
        sizes: rows of each time step that has any, never growing or never shrinking; N together.
        order: (B,), the batch's rows from the longest sequence to the shortest; None where all steps are valid.
        places: (N,), where each stands among the steps of a batch, b*T + t; None where all are valid.
    """

    shape: tuple[int, int]
    sizes: list[int]
    order: Tensor | None = None
    places: Tensor | None = None

    def taken(self, x: Tensor) -> Tensor:
        """(N, M) of (B, T, M)."""
        if self.places is None:
            return x.transpose(0, 1).flatten(0, 1)
        return x.flatten(0, 1).index_select(0, self.places)

    def shaped(self, x: Tensor) -> Tensor:
        """(B, T, M): of (N, M) a view where all steps are valid, else zeros, into which the valid ones are to go."""
        B, T = self.shape
        if self.places is None:
            return x.view(T, B, -1).transpose(0, 1)
        return x.new_zeros(B, T, x.shape[1])

    def put_back(self, x: Tensor) -> Tensor:
        """(B, T, M) of (N, M), 0 at steps that are not valid."""
        assert self.places is not None
        return self.shaped(x).flatten(0, 1).index_copy(0, self.places, x).view(*self.shape, -1)

    def empty_like(self, x: Tensor) -> Tensor:
        """Room for numbers that are written piece by piece, in the shape of x; 0 at steps that are not valid."""
        if x.dim() == 3 and self.places is None:  # time after time, so that each piece is one block
            return torch.empty_like(x.transpose(0, 1), memory_format=torch.contiguous_format).transpose(0, 1)
        return x.new_empty(x.shape) if x.dim() == 2 else x.new_zeros(x.shape)

    def states_taken(self, states: Tensor) -> Tensor:
        """(L*D, B, H) in the order of the rows."""
        return states if self.order is None else states.index_select(1, self.order)

    def states_put_back(self, states: Tensor) -> Tensor:
        """(L*D, B, H) in the order of the batch."""
        return states if self.order is None else states.index_select(1, self.order.argsort())


class InPieces:
    """Numbers of a batch's steps, (B, T, M) or (N, M), which are read and written piece by piece."""

    def __init__(self, x: Tensor, rows: Rows) -> None:
        self.places = rows.places if x.dim() == 3 else None
        self.x = x
        if x.dim() == 3:
            self.x = x.transpose(0, 1) if self.places is None else x.flatten(0, 1)

    def read(self, piece: Piece) -> Tensor:
        """A piece's rows, (R, M): a view where they stand one after the other, else a copy."""
        if self.places is not None:
            return self.x.index_select(0, self.places[piece.start : piece.end])
        return self._block(piece).flatten(0, -2)

    def room(self, piece: Piece) -> Tensor:
        """Where a piece's rows are to be written, (R, M): a view as for `read`, else memory of its own."""
        if self.places is not None:
            return self.x.new_empty(piece.end - piece.start, self.x.shape[1])
        return self.read(piece)

    def copied(self, piece: Piece) -> Tensor:
        """The same in memory of its own."""
        if self.places is not None:
            return self.read(piece)
        block = self._block(piece)
        return block.new_empty(block.shape).copy_(block).flatten(0, -2)

    def write(self, piece: Piece, rows: Tensor, own: slice = slice(None)) -> None:
        """Write a piece's rows that were read and changed, unless that changed the view; `own` columns alone."""
        if self.places is not None:
            self.x[:, own].index_copy_(0, self.places[piece.start : piece.end], rows)

    def _block(self, piece: Piece) -> Tensor:
        if self.x.dim() == 3:
            return self.x[piece.first : piece.last]
        return self.x[piece.start : piece.end]


def all_rows(x: Tensor) -> Rows:
    """All steps of (B, T, M)."""
    B, T = x.shape[:2]
    return Rows((B, T), [B] * T)


def valid_rows(mask: Tensor) -> Rows | None:
    """The valid steps of a mask (B, T), where padding is only on the right or only on the left; else None."""
    (B, T), valid = mask.shape, mask.cpu().numpy()  # each of NumPy's many small operations takes half of torch's time
    order = np.argsort(-valid.sum(axis=1), kind="stable")
    by_time = valid[order].T  # (T, B)
    sizes = by_time.sum(axis=1)
    growth = np.diff(sizes)
    ordered = (growth <= 0).all() or (growth >= 0).all()
    if not (ordered and sizes.any() and (by_time == (np.arange(B) < sizes[:, None])).all()):
        return None
    t, b = np.nonzero(by_time)
    places = torch.from_numpy(order[b] * T + t).to(mask.device)
    return Rows((B, T), [n for n in sizes.tolist() if n], torch.from_numpy(order).to(mask.device), places)


def reads_values(mask: Tensor) -> bool:
    """Whether the values of a mask may be looked at: it stops neither a GPU nor a compiler or an exporter."""
    return mask.device.type == "cpu" and not traced()


def traced() -> bool:
    """Whether a compiler, an exporter or a transform of functions is at work."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or bool(torch._C._are_functorch_transforms_active())
