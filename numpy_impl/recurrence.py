"""The loop over time, forward and backward in time order: one direction of one layer (SPEC.md, 3 and 6).

It owns the product with the recurrent weight, the mask and the order of the steps; the cell is elementwise.
A backward direction is the same loop over flipped views.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..spec.definitions import Cell
from .nonlinearities import Nonlinearity

Array = Any
States = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """What a step computes: the cell's description, its code, and the nonlinearity."""

    definition: Cell
    code: ModuleType
    f: Nonlinearity


@dataclass(frozen=True)
class Tape:
    """What the backward pass reads again.

    Attributes:
        states: by name, (T+1, B, H): before the first step, and after each.
        p, q: (T, B, G*H), or None where the cell does not read them again.
        mask: (T, B, 1), or None.
        factors: of dropout, (B, H), or None.
    """

    step: Step
    states: States
    p: Array | None
    q: Array | None
    mask: Array | None
    recurrent_weight: Array
    factors: Array | None


def forward(
    step: Step,
    p: Array,
    recurrent_weight: Array,
    recurrent_bias: Array | None,
    initial: States,
    mask: Array | None,
    factors: Array | None = None,
) -> tuple[Array, States, Tape]:
    """Outputs (T, B, H), final states (B, H) by name, and the tape; p is (T, B, G*H), initial (B, H) by name.

    The recurrent weight reads the state times `factors` (B, H), where there are any.
    """
    steps = len(p)
    keep = step.code.KEEPS_PROJECTIONS
    states = {name: np.empty((steps + 1, *h.shape), p.dtype) for name, h in initial.items()}  # (T+1, B, H)
    kept = np.empty_like(p) if keep else None
    for name, h in initial.items():
        states[name][0] = h
    for t in range(steps):
        old = {name: series[t] for name, series in states.items()}
        h = old[step.definition.output]
        q = (h if factors is None else h * factors) @ recurrent_weight.T  # (B, G*H)
        if recurrent_bias is not None:
            q += recurrent_bias
        if kept is not None:
            kept[t] = q
        for name, new in step.code.step(p[t], q, old, step.f).items():
            states[name][t + 1] = new if mask is None else np.where(mask[t], new, old[name])
    outputs = states[step.definition.output][1:]
    if mask is not None:
        outputs = np.where(mask, outputs, np.zeros((), p.dtype))
    tape = Tape(step, states, p if keep else None, kept, mask, recurrent_weight, factors)
    return outputs, {name: series[-1] for name, series in states.items()}, tape


def backward(tape: Tape, d_outputs: Array, d_final: States) -> tuple[Array, Array, States]:
    """Gradients of p and q, (T, B, G*H) each, and of the initial states, (B, H) by name."""
    step, output = tape.step, tape.step.definition.output
    steps, batch = d_outputs.shape[:2]
    d_p = np.empty((steps, batch, tape.recurrent_weight.shape[0]), d_outputs.dtype)
    d_q = d_p if step.code.ADDITIVE else np.empty_like(d_p)
    zero = np.zeros((), d_outputs.dtype)
    d_states = dict(d_final)
    for t in reversed(range(steps)):
        old = {name: series[t] for name, series in tape.states.items()}
        new = {name: series[t + 1] for name, series in tape.states.items()}
        p, q = (None, None) if tape.p is None or tape.q is None else (tape.p[t], tape.q[t])
        d_new = {**d_states, output: d_states[output] + d_outputs[t]}
        d_p[t], d_q[t], d_old = step.code.step_gradient(p, q, old, new, d_new, step.f)
        if tape.mask is not None:
            d_p[t] = np.where(tape.mask[t], d_p[t], zero)
            d_q[t] = np.where(tape.mask[t], d_q[t], zero)
        d_h = d_q[t] @ tape.recurrent_weight  # (B, H)
        d_old[output] = d_old[output] + (d_h if tape.factors is None else d_h * tape.factors)
        if tape.mask is not None:
            d_old = {name: np.where(tape.mask[t], d, d_states[name]) for name, d in d_old.items()}
        d_states = d_old
    return d_p, d_q, d_states
