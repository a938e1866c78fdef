"""The valid steps of a batch alone, so that shorter sequences cost less."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """The valid steps, time after time, the rows of each in one order.

    Attributes:
        order: (B,), the batch's rows from the longest sequence to the shortest.
        sizes: rows of each time step that has any, never growing or never shrinking; N together.
        places: (N,), where each stands among the steps of a batch, b*T + t.
    """

    order: Tensor
    sizes: list[int]
    places: Tensor

    def taken(self, x: Tensor) -> Tensor:
        """(N, I) of (B, T, I)."""
        return x.flatten(0, 1).index_select(0, self.places)

    def put_back(self, x: Tensor, like: Tensor) -> Tensor:
        """(B, T, F) of (N, F), 0 at steps that are not valid; B and T are those of another array."""
        B, T = like.shape[:2]
        return x.new_zeros(B * T, x.shape[1]).index_copy_(0, self.places, x).view(B, T, -1)


def valid_rows(mask: Tensor) -> Rows | None:
    """The valid steps of a mask (B, T), where padding is only on the right or only on the left; else None."""
    B, T = mask.shape
    order = mask.sum(1).argsort(descending=True, stable=True)
    by_time = mask[order].t()  # (T, B)
    sizes = by_time.sum(1)
    prefixes = torch.arange(B, device=mask.device) < sizes[:, None]
    steps = sizes.diff()
    if not bool((by_time == prefixes).all() & ((steps <= 0).all() | (steps >= 0).all()) & mask.any()):
        return None
    t, b = by_time.nonzero(as_tuple=True)
    return Rows(order, [n for n in sizes.tolist() if n], order[b] * T + t)


def reads_values(mask: Tensor) -> bool:
    """Whether the values of a mask may be looked at: it stops neither a GPU nor a compiler or an exporter."""
    return mask.device.type == "cpu" and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
