"""The factors of dropout, 0 or 1/(1 - p), by a hash of counters: the same units in every backend (SPEC.md, 12.15).

torch has no products of unsigned words, so that words of 32 bits stand in int64 and are multiplied by halves.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..spec.dropout import KINDS, STEPWISE, Masks
from ..spec.encoder_decoder import AnySpec
from ..spec.errors import InputError
from ..spec.model import ModelSpec

WORD = 2**32


def count_calls(module: nn.Module, spec: AnySpec, seed: int | None, device: torch.device | str | None) -> None:
    """Give a module `dropout_seed`, and `dropout_calls` where it drops: a buffer that no state dict holds."""
    module.dropout_seed = seed or 0
    if spec.dropout:
        calls = torch.zeros((), dtype=torch.int64, device=device)
        module.register_buffer("dropout_calls", calls, persistent=False)


def masks_of_call(module: Any, given: Masks | bool | None) -> Masks | None:
    """The masks that are given, or those of a module's next call in `train()` mode. Raises InputError."""
    if isinstance(given, tuple):
        return Masks(*given)
    if given is True:
        raise InputError("dropout: expected Masks(seed, update), False or None, got True; None drops in train()")
    if given is False or not module.training or module.spec.dropout is None:
        return None
    module.dropout_calls += 1
    return Masks(module.dropout_seed, module.dropout_calls)


def factors(
    spec: ModelSpec, masks: Masks | None, kind: str, layer: int, direction: int, shape: tuple[int, ...], like: Tensor
) -> Tensor | None:
    """What numbers of shape (T, B, N) are multiplied by, (T, B, N) or (B, N); None where nothing is dropped."""
    if masks is None or spec.dropout is None or not spec.dropout.rate(kind):
        return None
    if kind == "between_layers" and layer == spec.num_layers - 1:
        return None
    kept = hashes(masks, kind, layer, direction, shape, like.device) >= spec.dropout.threshold(kind)
    return kept.to(like.dtype) * spec.dropout.scale(kind)


def hashes(masks: Masks, kind: str, layer: int, direction: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A number of 32 bits for each place of a shape, (T, B, N), or for each (B, N) where all steps share it."""
    h = torch.zeros(1, dtype=torch.int64, device=device)
    layer, direction = masks.first_layer + layer, masks.first_direction + direction
    for word in (masks.seed, masks.seed // WORD, masks.update, KINDS.index(kind), layer, direction):
        h = absorbed(h, word % WORD)
    steps, rows, units = shape
    h = absorbed(h, (torch.arange(rows, device=device) + masks.first_row)[:, None] % WORD)  # (B, 1)
    if kind in STEPWISE:
        h = absorbed(h, torch.arange(steps, device=device)[:, None, None])  # (T, B, 1)
    return absorbed(h, torch.arange(units, device=device))


def absorbed(h: Tensor, words: int | Tensor) -> Tensor:
    """The hash after one more word."""
    return mixed(((h ^ words) + 0x9E3779B9) % WORD)


def mixed(h: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 (Appleby)."""
    h = _product(h ^ (h >> 16), 0x85EBCA6B)
    h = _product(h ^ (h >> 13), 0xC2B2AE35)
    return h ^ (h >> 16)


def _product(h: Tensor, constant: int) -> Tensor:
    """h times a constant, both of 32 bits, modulo 2^32, without a step beyond 63 bits."""
    high, low = constant >> 16, constant & 0xFFFF
    return (h * low + ((h * high & 0xFFFF) << 16)) & (WORD - 1)
