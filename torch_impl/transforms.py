"""What torch's transforms of functions are refused by: the operator has one derivative, in reverse mode.

Without this, forward mode gives derivatives of 0 (torch runs an operator of ours below its levels, where the tangents
are lost), and the others stop with an error about torch's own classes.
"""

from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad

from ..spec.errors import UnsupportedError

TRANSFORMS = {"Grad": "torch.func.grad, vjp or jacrev", "Jvp": "torch.func.jvp or jacfwd", "Vmap": "torch.vmap"}
FORWARD_MODE = "forward-mode differentiation (torch.func.jvp, torch.autograd.forward_ad)"
WAY_OUT = {
    "torch.vmap": "make what it maps over part of the batch; batched gradients one call of torch.autograd.grad each",
    **dict.fromkeys(
        (TRANSFORMS["Grad"], TRANSFORMS["Jvp"], FORWARD_MODE),
        "take gradients with .backward() or torch.autograd.grad, outside of transforms",
    ),
}


def refuse_transforms(*tensors: Tensor | None) -> None:
    """Raises UnsupportedError where a transform of torch is at work on one of the tensors."""
    if found := _transform([tensor for tensor in tensors if tensor is not None]):
        raise UnsupportedError(
            f"rnnzoo::recurrence: expected plain tensors, got those of {found}, which it has no rule for; "
            f"{WAY_OUT[found]}"
        )


def _transform(tensors: list[Tensor]) -> str | None:
    dual: Any = forward_ad
    forward_mode = dual._current_level >= 0
    if torch.compiler.is_compiling():  # it follows no more than this
        return FORWARD_MODE if forward_mode else None
    if any(_functorch.is_legacy_batchedtensor(tensor) for tensor in tensors):  # of is_grads_batched=True
        return TRANSFORMS["Vmap"]
    if any(_functorch.is_functorch_wrapped_tensor(tensor) for tensor in tensors):
        levels = reversed(_functorch.get_interpreter_stack() or [])
        if names := [TRANSFORMS[level.key().name] for level in levels if level.key().name in TRANSFORMS]:
            return names[0]
    if forward_mode and any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        return FORWARD_MODE
    return None
