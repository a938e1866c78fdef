"""Sequences in parts, each run again when its gradient is due, from the states before it (SPEC.md, 13.4)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..spec.errors import UnsupportedError
from ..spec.recomputing import parts

States = dict[str, Tensor]
Layers = Callable[[Tensor, Tensor | None, States], tuple[Tensor, States]]


def recomputed(layers: Layers, inputs: Tensor, valid: Tensor | None, states: States) -> tuple[Tensor, States]:
    """What the layers give for inputs (B, T, I), a mask (B, T) and initial states, which keep those of each part alone.

    Raises:
        UnsupportedError: a compiler or an exporter is at work, to which the parts would be a loop of a fixed length.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        raise UnsupportedError(
            "recompute: expected an eager call, got torch.compile or torch.export; set module.recompute = False"
        )
    sizes = [part.stop - part.start for part in parts(inputs.shape[1])]
    masks = [None] * len(sizes) if valid is None else valid.split(sizes, dim=1)
    outputs = []
    for x, mask in zip(inputs.split(sizes, dim=1), masks, strict=True):
        y, states = checkpoint(layers, x, mask, states, use_reentrant=False, preserve_rng_state=False)
        outputs.append(y)
    return torch.cat(outputs, dim=1), states
