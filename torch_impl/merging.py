"""The outputs of two directions made one (SPEC.md, 5)."""

import torch
from torch import Tensor


def merge(kind: str, outputs: list[Tensor]) -> Tensor:
    """The outputs of the directions made one."""
    if len(outputs) == 1:
        return outputs[0]
    forward, backward = outputs
    if kind == "concat":
        return torch.cat(outputs, dim=-1)
    if kind == "multiply":
        return forward * backward
    return forward + backward if kind == "sum" else (forward + backward) * 0.5
