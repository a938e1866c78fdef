"""All layers in one call of torch's own kernel, which on a GPU is cuDNN's: what `nn.RNN` runs (SPEC.md, 13.5).

Shorter sequences are packed, as `nn.RNN` takes them.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..spec.model import ModelSpec
from .packing import Rows, traced
from .transforms import refuse_transforms

KERNELS: dict[str, Callable[..., Any]] = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}


def at_hand(x: Tensor) -> bool:
    """Whether cuDNN can run on a tensor: it is on a GPU, and no compiler, exporter or transform is at work."""
    return x.device.type == "cuda" and not traced() and bool(torch.backends.cudnn.is_acceptable(x))


def has(spec: ModelSpec) -> bool:
    """Whether it has such layers, where nothing drops their inputs or states."""
    return spec.cell == "rnn" and spec.nonlinearity in KERNELS and (spec.num_directions == 1 or spec.merge == "concat")


def takes(rows: Rows | None) -> bool:
    """Whether it takes such sequences: they begin together, so that padding is on the right."""
    return rows is None or rows.sizes[0] == max(rows.sizes)


def layers(
    x: Tensor, weights: Sequence[Sequence[Tensor]], bidirectional: bool, initial: Tensor, rows: Rows | None, kind: str
) -> tuple[Tensor, Tensor]:
    """Outputs of the last of some layers, (B, T, D*H) or (N, D*H), and the final states of all, (L*D, B, H).

    Args:
        x: (B, T, I), or (N, I) without the padding.
        weights: of each layer and direction the input weight, the recurrent weight, and both biases if there are any.
        initial: (L*D, B, H), in the order of the rows.
        rows: the valid steps; None for all.
        kind: the nonlinearity.

    Raises:
        UnsupportedError: forward-mode differentiation is at work.
    """
    flat = [weight for each in weights for weight in each]
    refuse_transforms(x, initial, *flat)
    number = len(weights) // (1 + bidirectional)
    options = (flat, len(weights[0]) == 4, number, 0.0, torch.is_grad_enabled(), bidirectional)
    with _without_warning(x.device):
        if rows is None:
            outputs, final = KERNELS[kind](x, initial.contiguous(), *options, True)
            return outputs, final
        n = rows.sizes[0]  # sequences without a step come last, and are not packed
        outputs, final = KERNELS[kind](x, torch.tensor(rows.sizes), initial[:, :n].contiguous(), *options)
        return outputs, torch.cat([final, initial[:, n:]], dim=1)


@contextmanager
def _without_warning(device: torch.device) -> Iterator[None]:
    """A context without the warning that weights are no single block, which costs a copy of them for each call."""
    if device.type != "cuda":
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        yield


@contextmanager
def without_tf32(device: torch.device) -> Iterator[None]:
    """A context in which a GPU computes float32 in float32; before and after it stands what the user has set."""
    if device.type != "cuda":
        yield
        return
    settings: Any = (torch.backends.cudnn.rnn, torch.backends.cuda.matmul)
    before = [each.fp32_precision for each in settings]
    try:
        for each in settings:
            each.fp32_precision = "ieee"
        yield
    finally:
        for each, precision in zip(settings, before, strict=True):
            each.fp32_precision = precision
