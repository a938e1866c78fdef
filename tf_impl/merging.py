"""The outputs of two directions made one (SPEC.md, 5)."""

from typing import Any

import tensorflow as tf

Tensor = Any


def merge(kind: str, outputs: list[Tensor]) -> Tensor:
    """The outputs of the directions made one."""
    if len(outputs) == 1:
        return outputs[0]
    forward, backward = outputs
    if kind == "concat":
        return tf.concat(outputs, axis=-1)
    if kind == "multiply":
        return forward * backward
    return forward + backward if kind == "sum" else (forward + backward) * tf.constant(0.5, forward.dtype)
