"""The loop over time, forward and backward in time order: one direction of one layer (SPEC.md, 3 and 6).

It owns the product with the recurrent weight, the mask and the order of the steps; the cell is elementwise.
Both loops are operators of torch, `rnnzoo::recurrence` and `rnnzoo::recurrence_gradient`: a compiler or an
exporter sees one node for all steps, so that T and B stay free, and nothing is recorded step by step.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..spec import definitions
from ..spec.errors import UnsupportedError
from .cells import load_cell
from .nonlinearities import NONLINEARITIES
from .transforms import refuse_transforms

States = dict[str, Any]


def recurrence(
    p: Tensor,
    recurrent_weight: Tensor,
    recurrent_bias: Tensor | None,
    initial: States,
    mask: Tensor | None,
    *,
    factors: Tensor | None = None,
    cell: str,
    nonlinearity: str,
    reverse: bool,
) -> States:
    """States after each step, by name, (T, B, H) each, at the place of the step also where `reverse` runs from T-1.

    Args:
        p: projected inputs, (T, B, G*H).
        recurrent_weight: (G*H, H).
        recurrent_bias: (G*H,) or None.
        initial: states before the first step by name, (B, H) each, in the cell's order.
        mask: (T, B) bool, True where a step is valid; an invalid one carries the states.
        factors: of dropout, (B, H): the recurrent weight reads the state times these.

    Raises:
        UnsupportedError: a transform of torch is at work on an argument.
    """
    refuse_transforms(p, recurrent_weight, recurrent_bias, *initial.values())
    series, _ = _recurrence(
        p, recurrent_weight, recurrent_bias, list(initial.values()), mask, factors, cell, nonlinearity, reverse
    )
    return dict(zip(initial, series, strict=True))


@torch.library.custom_op("rnnzoo::recurrence", mutates_args=())
def _recurrence(
    p: Tensor,
    recurrent_weight: Tensor,
    recurrent_bias: Tensor | None,
    initial: Sequence[Tensor],
    mask: Tensor | None,
    factors: Tensor | None,
    cell: str,
    nonlinearity: str,
    reverse: bool,
) -> tuple[list[Tensor], Tensor]:
    """The series of states, and q (T, B, G*H) where the cell's derivative reads it again (else empty)."""
    definition, code, f = definitions.load_cell(cell), load_cell(cell), NONLINEARITIES[nonlinearity]
    states: States = dict(zip(definition.states, initial, strict=True))
    series: dict[str, list[Tensor]] = {name: [] for name in states}
    kept = []
    valid = _steps(None if mask is None else mask[:, :, None], len(p), reverse)
    for p_t, valid_t in zip(_steps(p, len(p), reverse), valid, strict=True):
        h = times(states[definition.output], factors)
        q_t = _product(h, recurrent_weight.t(), recurrent_bias)  # (B, G*H)
        new = code.step(p_t, q_t, states, f)
        if mask is not None:
            new = {name: torch.where(valid_t, new[name], old) for name, old in states.items()}
        states = new
        for name, state in states.items():
            series[name].append(state)
        if code.KEEPS_PROJECTIONS:
            kept.append(q_t)
    return [_stacked(series[name], reverse) for name in definition.states], (
        _stacked(kept, reverse) if kept else p.new_empty(0)
    )


@torch.library.custom_op("rnnzoo::recurrence_gradient", mutates_args=())
def _recurrence_gradient(
    d_series: Sequence[Tensor],
    series: Sequence[Tensor],
    initial: Sequence[Tensor],
    recurrent_weight: Tensor,
    p: Tensor | None,
    q: Tensor | None,
    mask: Tensor | None,
    factors: Tensor | None,
    cell: str,
    nonlinearity: str,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Gradients of p (T, B, G*H), the recurrent weight (G*H, H), the recurrent bias (G*H,), the initial states."""
    definition, code, f = definitions.load_cell(cell), load_cell(cell), NONLINEARITIES[nonlinearity]
    names, output = definition.states, definition.output
    T, end = len(series[0]), not reverse  # the gradient runs from the last step in time order to the first
    new = [dict(zip(names, rows, strict=True)) for rows in zip(*(_steps(s, T, end) for s in series), strict=True)]
    old = [*new[1:], dict(zip(names, initial, strict=True))]
    d_new = list(zip(*(_steps(d, T, end) for d in d_series), strict=True))
    p_steps, q_steps = _steps(p, T, end), _steps(q, T, end)
    valid = _steps(None if mask is None else mask[:, :, None], T, end)
    d_states: States = {name: torch.zeros_like(state) for name, state in zip(names, initial, strict=True)}
    d_ps, d_qs = [], []
    with without_autocast(recurrent_weight.device):
        for t in range(T):
            d_states = {name: d_states[name] + d for name, d in zip(names, d_new[t], strict=True)}
            d_p, d_q, d_old = code.step_gradient(p_steps[t], q_steps[t], old[t], new[t], d_states, f)
            if mask is not None:
                d_p = torch.where(valid[t], d_p, 0.0)
                d_q = d_p if code.ADDITIVE else torch.where(valid[t], d_q, 0.0)
            if factors is None:
                d_old[output] = _product(d_q, recurrent_weight, d_old[output])  # (B, H)
            else:
                d_old[output] = (d_q @ recurrent_weight) * factors + d_old[output]
            if mask is not None:
                d_old = {name: torch.where(valid[t], d, d_states[name]) for name, d in d_old.items()}
            d_states = d_old
            d_ps.append(d_p)
            d_qs.append(d_q)
        d_p = _stacked(d_ps, end)
        d_q = d_p if code.ADDITIVE else _stacked(d_qs, end)
        h = names.index(output)
        d_weight = _weight_gradient(d_q, times(series[h], factors), times(initial[h], factors), reverse)
        return d_p, d_weight, d_q.sum((0, 1)), [d_states[name].clone() for name in names]


def _weight_gradient(d_q: Tensor, h: Tensor, initial: Tensor, reverse: bool) -> Tensor:
    """The sum over all steps of d_q[t]^T h before step t, as one product for h_0 and one for the rest."""
    if reverse:
        first, rest, before = d_q[-1], d_q[:-1], h[1:]
    else:
        first, rest, before = d_q[0], d_q[1:], h[:-1]
    return torch.addmm(first.t() @ initial, rest.flatten(0, 1).t(), before.flatten(0, 1))  # (G*H, H)


def _product(a: Tensor, b: Tensor, added: Tensor | float | None) -> Tensor:
    """a b + added, where None and the number 0.0 add nothing."""
    return torch.addmm(added, a, b) if isinstance(added, Tensor) else a @ b


def times(h: Tensor, factors: Tensor | None) -> Tensor:
    """Numbers after dropout, which there may be none of."""
    return h if factors is None else h * factors


def _steps(series: Tensor | None, T: int, reverse: bool) -> Sequence[Any]:
    """T steps in time order, each None where there is no series."""
    if series is None:
        return [None] * T
    return series.unbind(0)[::-1] if reverse else series.unbind(0)


def _stacked(steps: list[Tensor], reverse: bool) -> Tensor:
    """Steps in time order as one tensor, each at its own place."""
    return torch.stack(steps[::-1] if reverse else steps)


@_recurrence.register_fake
def _(p, recurrent_weight, recurrent_bias, initial, mask, factors, cell, nonlinearity, reverse):  # type: ignore[no-untyped-def]
    kept = p.new_empty(p.shape if load_cell(cell).KEEPS_PROJECTIONS else (0,))
    return [p.new_empty((p.shape[0], *state.shape)) for state in initial], kept


@_recurrence_gradient.register_fake
def _(d_series, series, initial, recurrent_weight, p, q, mask, factors, cell, nonlinearity, reverse):  # type: ignore[no-untyped-def]
    T, B, _ = series[0].shape
    rows = recurrent_weight.shape[0]
    d_p = recurrent_weight.new_empty((T, B, rows))
    return d_p, torch.empty_like(recurrent_weight), d_p.new_empty(rows), [torch.empty_like(s) for s in initial]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[list[Tensor], Tensor]) -> None:
    p, recurrent_weight, recurrent_bias, initial, mask, factors, *ctx.names = inputs
    series, q = output
    ctx.count, ctx.has_bias = len(initial), recurrent_bias is not None
    keeps = load_cell(ctx.names[0]).KEEPS_PROJECTIONS
    kept = (p, q) if keeps else (None, None)
    ctx.save_for_backward(*series, *initial, recurrent_weight, *kept, mask, factors)


def _differentiate(ctx: Any, d_series: list[Tensor], d_q: Tensor) -> tuple[Any, ...]:
    refuse_transforms(*d_series)
    saved, n = ctx.saved_tensors, ctx.count
    d_p, d_weight, d_bias, d_initial = _recurrence_gradient(
        d_series, saved[:n], saved[n : 2 * n], *saved[2 * n :], *ctx.names
    )
    return d_p, d_weight, d_bias if ctx.has_bias else None, d_initial, None, None, None, None, None


def _refuse(ctx: Any, *gradients: Any) -> None:
    raise UnsupportedError(
        "rnnzoo::recurrence: expected to be differentiated once, got a gradient of its gradient (create_graph=True); "
        "take the second derivative by differences of first ones, or compute it with the model in torch.nn.RNN"
    )


_recurrence.register_autograd(_differentiate, setup_context=_save)
_recurrence_gradient.register_autograd(_refuse)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which products are computed in the dtype of their operands."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        off: AbstractContextManager[Any] = torch.autocast(device.type, enabled=False)
        return off
    return nullcontext()
