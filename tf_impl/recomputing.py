"""Sequences in parts, each run again when its gradient is due, from the states before it (SPEC.md, 13.4).

A part begins from the state before it in its forward direction, and from the state after it in its backward one. Only a
layer's input tells its states, so that they are had layer by layer, in sweeps over all parts, each direction in its own
order. States (L*D, B, H) stand row by row, as `{name}.{l*D + d}`.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record  # the only place that tells whether a tape records
from tensorflow.python.ops import control_flow_util  # and that, whether XLA compiles a graph

from ..spec.errors import UnsupportedError
from .sweeps import Parts, Run, sweep

Tensor = Any
Tensors = dict[str, Any]


def due(inputs: Tensor) -> bool:
    """Whether gradients may be asked for, and inputs (B, T, ...) have more than one step."""
    return inputs.shape[1] != 1 and (not tf.executing_eagerly() or record.could_possibly_record())


def recomputed(
    run: Run, weights: Any, inputs: Tensor, valid: Tensor | None, initial: Tensors, directions: int, series: int
) -> tuple[list[Tensor], Tensors]:
    """What a model gives for whole sequences, of which the states that each part begins from are kept alone.

    Args:
        run: what is run on each part, as for `Parts`.
        weights: a structure of tensors.
        inputs: (B, T, ...).
        valid: (B, T), or None.
        initial: (L*D, B, H) by name.
        directions: D.
        series: how many tensors all layers give.

    Raises:
        UnsupportedError: XLA compiles the graph around it.
    """
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        raise UnsupportedError(
            "recompute: expected a graph that XLA does not compile as a whole, got one, where the parts have no fixed "
            "size; leave jit_compile out, or set layer.recompute = False"
        )
    parts, rows = Parts(run, inputs, valid, tuple(initial)), next(iter(initial.values())).shape[0]
    ends = parts.by_row(initial, rows)  # (B, H) each
    begins = {key: tf.repeat(h[None], parts.count, axis=0) for key, h in ends.items()}  # (K, B, H) each

    def swept(until: int, own: Sequence[int], *, backward: bool = False) -> list[Tensor]:
        start = {key: ends[key] for key in parts.keys(own)}
        known = {key: begins[key] for key in parts.keys(range(until)) if key not in start}
        given = series if until == rows and not backward else 0
        found, kept, final = sweep(parts, weights, known, start, given, backward)
        begins.update(kept)
        ends.update(final)
        return found

    if directions == 1:
        found = swept(rows, range(rows))
    for row in range(0, rows, 2) if directions == 2 else ():
        swept(row + 2, [row + 1], backward=True)
        found = swept(row + 2, [row])
    return found, parts.by_name(ends, rows)
