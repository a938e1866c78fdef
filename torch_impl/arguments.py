"""What the modules are given, checked: types, shapes and dtypes, never values (SPEC.md, 6 and 7)."""

from typing import Any

import torch
from torch import Tensor

from ..spec.errors import InputError


def check_tensor(where: str, given: Any) -> None:
    """Raises InputError for what is no tensor, such as a NumPy array."""
    if not isinstance(given, Tensor):
        raise InputError(
            f"{where}: expected a torch tensor, got {type(given).__name__}; convert it with torch.from_numpy or "
            "torch.tensor"
        )


def check_inputs(inputs: Tensor, input_size: int) -> None:
    """Raises InputError unless the inputs are real numbers (B, T, I)."""
    check_tensor("inputs", inputs)
    if inputs.dim() != 3 or inputs.shape[2] != input_size or inputs.shape[0] < 1 or inputs.shape[1] < 1:
        got = tuple(inputs.shape)
        raise InputError(f"inputs: expected shape (B, T, {input_size}) with B and T at least 1, got {got}")
    if not inputs.is_floating_point():
        raise InputError(f"inputs: expected floating-point numbers, got {inputs.dtype}; convert them with .float()")


def one_step(x: Tensor) -> Tensor:
    """The sequence (B, 1, ...) of that one step. Raises InputError for a single number."""
    check_tensor("step inputs", x)
    if x.dim() == 0:
        raise InputError("step inputs: expected shape (B, I), or tokens (B,), got a single number")
    return x.unsqueeze(1)


def valid_steps(inputs: Tensor, lengths: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """The mask (B, T) that lengths or a mask stand for, or None. Raises InputError."""
    if inputs.dim() < 2:
        raise InputError(f"inputs: expected shape (B, T, I), or tokens (B, T), got {tuple(inputs.shape)}")
    B, T = inputs.shape[:2]
    if lengths is not None and mask is not None:
        raise InputError("lengths and mask: expected one of them, got both; lengths are the mask t < length")
    if lengths is not None:
        lengths = torch.as_tensor(lengths, device=inputs.device)
        if lengths.shape != (B,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise InputError(f"lengths: expected {B} integers, got shape {tuple(lengths.shape)} of {lengths.dtype}")
        return torch.arange(T, device=inputs.device) < lengths[:, None]
    if mask is not None:
        check_tensor("mask", mask)
    if mask is not None and (mask.shape != (B, T) or mask.dtype != torch.bool):
        raise InputError(f"mask: expected bool of shape {(B, T)}, got {mask.dtype} of shape {tuple(mask.shape)}")
    return mask
