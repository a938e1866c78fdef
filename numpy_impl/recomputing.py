"""Sequences in parts, each run again when its gradient is due, from the states before it (SPEC.md, 13.4)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..spec.dropout import Masks
from ..spec.model import ModelSpec
from ..spec.parameters import Weights
from ..spec.recomputing import parts
from . import recurrent

Array = Any
States = dict[str, Any]


@dataclass(frozen=True)
class Tape:
    """What the backward pass reads again: arguments, and the states before each part, (L*D, B, H) by name."""

    inputs: Array
    mask: Array | None
    masks: Masks | None
    starts: list[States]


def forward(
    spec: ModelSpec, weights: Weights, inputs: Array, mask: Array | None, initial: States, masks: Masks | None,
    *, outputs: bool,
) -> tuple[Array | None, States, Tape]:  # fmt: skip
    """As `recurrent.forward`; outputs are None unless they are wanted."""
    B, T = inputs.shape[:2]
    found = np.empty((B, T, spec.output_size), inputs.dtype) if outputs else None
    tape, states = Tape(inputs, mask, masks, []), initial
    for part in parts(T):
        tape.starts.append(states)
        y, states, _ = _run(spec, weights, tape, part, states, outputs=outputs)
        if found is not None:
            found[:, part] = y
    return found, states, tape


def backward(
    spec: ModelSpec, weights: Weights, tape: Tape, d_outputs: Array | None, d_final: States
) -> tuple[Weights, Array, States]:
    """As `recurrent.backward`; cotangents of the outputs are None for zeros."""
    B, T = tape.inputs.shape[:2]
    d_x, d_states = np.empty(tape.inputs.shape, tape.inputs.dtype), d_final
    gradients = {name: np.zeros_like(array) for name, array in weights.items() if name.startswith("layers.")}
    for part, states in reversed(list(zip(parts(T), tape.starts, strict=True))):
        _, _, again = _run(spec, weights, tape, part, states, outputs=False)
        zeros = (B, part.stop - part.start, spec.output_size)
        d_y = np.zeros(zeros, d_x.dtype) if d_outputs is None else d_outputs[:, part]
        found, d_x[:, part], d_states = recurrent.backward(spec, weights, again, d_y, d_states)
        for name, gradient in found.items():
            gradients[name] += gradient
    return gradients, d_x, d_states


def _run(
    spec: ModelSpec, weights: Weights, tape: Tape, part: slice, states: States, *, outputs: bool
) -> tuple[Array | None, States, Any]:
    mask = None if tape.mask is None or tape.mask[:, part].all() else tape.mask[:, part]
    return recurrent.forward(spec, weights, tape.inputs[:, part], mask, states, tape.masks, outputs=outputs)
