"""The outputs of two directions made one (SPEC.md, 5)."""

from typing import Any

import numpy as np

Array = Any


def merge(kind: str, outputs: list[Array]) -> Array:
    """The outputs of the directions made one."""
    if len(outputs) == 1:
        return outputs[0]
    forward, backward = outputs
    if kind == "concat":
        return np.concatenate(outputs, axis=-1)
    if kind == "multiply":
        return forward * backward
    return forward + backward if kind == "sum" else (forward + backward) * forward.dtype.type(0.5)


def merge_gradient(kind: str, outputs: list[Array], d_y: Array) -> list[Array]:
    """The gradient of each direction's outputs."""
    if len(outputs) == 1:
        return [d_y]
    if kind == "concat":
        return np.split(d_y, 2, axis=-1)
    if kind == "multiply":
        return [d_y * outputs[1], d_y * outputs[0]]
    return [d_y, d_y] if kind == "sum" else [d_y * d_y.dtype.type(0.5)] * 2
