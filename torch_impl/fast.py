"""A layer whose cell is h' = f(p + q), in place: two operations a step, and one product for each weight's gradient.

`rnnzoo::layer` and `rnnzoo::layer_gradient` are operators of torch, as those of the plain loop. Projections become
states where they stand; cotangents become the gradients of f's argument, in pieces that fit into a cache.

Rows stand step after step. Steps may have fewer and fewer rows, or more and more: row r of a step is row r of all
others, so that a row begins from its initial state where steps have grown to it, and ends where they have shrunk to it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..spec.errors import UnsupportedError
from .recurrence import without_autocast
from .steps import Piece, Steps
from .transforms import refuse_transforms


class InPlace(NamedTuple):
    """f written over its argument, and f'(a) where y = f(a), None where it is 1."""

    value: Callable[[Tensor], Any]
    derivative: Callable[[Tensor], Tensor | None]


IN_PLACE = {
    "tanh": InPlace(torch.tanh_, lambda y: torch.addcmul(y.new_ones(()), y, y, value=-1)),
    "relu": InPlace(torch.relu_, lambda y: (y > 0).to(y.dtype)),
    "sigmoid": InPlace(torch.sigmoid_, lambda y: y * (1 - y)),
    "identity": InPlace(lambda a: a, lambda y: None),
}


def layer(
    x: Tensor,
    input_weight: Tensor,
    bias: Tensor | None,
    recurrent_weights: Sequence[Tensor],
    initial: Tensor,
    sizes: Sequence[int] | None,
    nonlinearity: str,
) -> tuple[Tensor, Tensor]:
    """States after each step, (T, B, D*H) or (N, D*H) as x is, and the final ones (D, B, H).

    Args:
        x: (T, B, I), or (N, I) where the steps have different numbers of rows.
        input_weight: (D*H, I), of the forward direction and, if there is one, of the backward direction.
        bias: (D*H,) or None.
        recurrent_weights: D times (H, H).
        initial: (D, B, H).
        sizes: the number of rows of each step, N together, never growing or never shrinking; None for T times B.

    Raises:
        UnsupportedError: a transform of torch is at work on an argument.
    """
    refuse_transforms(x, input_weight, bias, *recurrent_weights, initial)
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        series, final = _layer(x, input_weight, bias, recurrent_weights, initial, sizes, nonlinearity)
    else:
        series, final = _Layer.apply(x, input_weight, bias, initial, sizes, nonlinearity, *recurrent_weights)
    return series, final


def _forward(
    x: Tensor,
    input_weight: Tensor,
    bias: Tensor | None,
    recurrent_weights: Sequence[Tensor],
    initial: Tensor,
    sizes: Sequence[int] | None,
    nonlinearity: str,
) -> tuple[Tensor, Tensor]:
    rows, transposed = x.flatten(0, -2), input_weight.t().contiguous()  # products of contiguous matrices are faster
    series = rows @ transposed if bias is None else torch.addmm(bias, rows, transposed)  # (N, D*H)
    sizes_or_all, final, H = _sizes(x, sizes), initial.clone(), initial.shape[2]
    for d, weight in enumerate(recurrent_weights):
        steps = Steps(series[:, d * H : (d + 1) * H], sizes_or_all, reverse=d == 1)
        _run(steps, weight.t().contiguous(), final[d], IN_PLACE[nonlinearity].value)
    return series.view(*x.shape[:-1], -1), final


def _run(steps: Steps, weight: Tensor, states: Tensor, f: Callable[[Tensor], Any]) -> None:
    """Turn projections (n, H) into states; weight (H, H) maps a state to what is added to the next projection.

    states (B, H) holds the initial states of rows that have not begun, and the final ones of rows that have ended.
    """
    before, m = states, 0
    for a, n in zip(steps.rows, steps.sizes, strict=True):
        if n == m:
            a.addmm_(before, weight)
        elif n > m:  # rows begin
            if m:
                a[:m].addmm_(before, weight)
            a[m:].addmm_(states[m:n], weight)
        else:  # rows have ended
            states[n:m] = before[n:]
            a.addmm_(before[:n], weight)
        f(a)
        before, m = a, n
    states[:m] = before


def _backward(
    d_series: Tensor,
    d_final: Tensor,
    series: Tensor,
    x: Tensor,
    input_weight: Tensor,
    recurrent_weights: Sequence[Tensor],
    initial: Tensor,
    sizes: Sequence[int] | None,
    nonlinearity: str,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor]:
    """Gradients of x, the input weight, the bias, the recurrent weights, and the initial states."""
    with without_autocast(x.device):
        d_x, d_initial = x.new_empty((series.shape[:-1].numel(), x.shape[-1])), d_final.clone()
        d_input_weight, d_bias = torch.zeros_like(input_weight), input_weight.new_zeros(len(input_weight))
        d_weights = [torch.zeros_like(weight) for weight in recurrent_weights]
        sizes_or_all, H = _sizes(x, sizes), initial.shape[2]
        for i, weight in enumerate(recurrent_weights):
            own = slice(i * H, (i + 1) * H)  # of the D*H units
            steps = Steps(series.flatten(0, -2)[:, own], sizes_or_all, reverse=i == 1)
            for piece in reversed(steps.pieces()):
                d = _copy(_taken(d_series, piece)[..., own])  # (R, H)
                _run_back(piece, d, IN_PLACE[nonlinearity].derivative(piece.rows), weight, d_initial[i])
                d_weights[i].addmm_(d.t(), piece.before(initial[i]))
                d_input_weight[own].addmm_(d.t(), _taken(x, piece).flatten(0, -2))
                d_bias[own] += d.sum(0)
                d_x[piece.start : piece.end].addmm_(d, input_weight[own], beta=i)  # of both directions
        return d_x.view(x.shape), d_input_weight, d_bias, d_weights, d_initial


def _run_back(piece: Piece, d_rows: Tensor, slopes: Tensor | None, weight: Tensor, d_states: Tensor) -> None:
    """Turn cotangents of states into gradients of f's argument, from the piece's last step to its first.

    slopes are f' at each row, None for 1. d_states (B, H) holds the gradients of the states after the piece, and
    then of those before it.
    """
    sizes, steps = piece.backwards(d_rows)
    factors = [None] * len(sizes) if slopes is None else piece.backwards(slopes)[1]
    later, m = d_states, 0
    for d, n, factor in zip(steps, sizes, factors, strict=True):
        if n == m:
            d.addmm_(later, weight)
        elif n > m:  # rows that end here, or in the piece after
            if m:
                d[:m].addmm_(later, weight)
            d[m:] += d_states[m:n]
        else:  # rows that began at the step after
            torch.mm(later[n:], weight, out=d_states[n:m])
            d.addmm_(later[:n], weight)
        if factor is not None:
            d.mul_(factor)
        later, m = d, n
    torch.mm(later, weight, out=d_states[:m])


def _sizes(x: Tensor, sizes: Sequence[int] | None) -> Sequence[int]:
    return [x.shape[1]] * x.shape[0] if sizes is None else sizes


def _copy(series: Tensor) -> Tensor:
    """(R, H) of (T, B, H) or (R, H), in memory of its own."""
    copy = series.new_empty(series.shape)
    return copy.copy_(series).flatten(0, -2)


def _taken(series: Tensor, piece: Piece) -> Tensor:
    """The piece's rows of (T, B, M), as its steps, or of (N, M)."""
    return series[piece.first : piece.last] if series.dim() == 3 else series[piece.start : piece.end]


_layer = torch.library.custom_op("rnnzoo::layer", _forward, mutates_args=())
_layer_gradient = torch.library.custom_op("rnnzoo::layer_gradient", _backward, mutates_args=())


@_layer.register_fake
def _(x, input_weight, bias, recurrent_weights, initial, sizes, nonlinearity):  # type: ignore[no-untyped-def]
    return x.new_empty((*x.shape[:-1], input_weight.shape[0])), torch.empty_like(initial)


@_layer_gradient.register_fake
def _(d_series, d_final, series, x, input_weight, recurrent_weights, initial, sizes, nonlinearity):  # type: ignore[no-untyped-def]
    d_weights = [torch.empty_like(weight) for weight in recurrent_weights]
    return (
        x.new_empty(x.shape), torch.empty_like(input_weight), x.new_empty(input_weight.shape[0]), d_weights,
        torch.empty_like(initial),
    )  # fmt: skip


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, input_weight, bias, recurrent_weights, initial, ctx.sizes, ctx.nonlinearity = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(output[0], x, input_weight, initial, *recurrent_weights)


def _differentiate(ctx: Any, d_series: Tensor, d_final: Tensor) -> tuple[Any, ...]:
    refuse_transforms(d_series, d_final)
    series, x, input_weight, initial, *weights = ctx.saved_tensors
    gradient = _layer_gradient if torch.is_grad_enabled() or torch.compiler.is_compiling() else _backward
    d_x, d_input_weight, d_bias, d_weights, d_initial = gradient(
        d_series, d_final, series, x, input_weight, weights, initial, ctx.sizes, ctx.nonlinearity
    )
    return d_x, d_input_weight, d_bias if ctx.has_bias else None, d_weights, d_initial, None, None


def _refuse(ctx: Any, *gradients: Any) -> None:
    raise UnsupportedError(
        "rnnzoo::layer: expected to be differentiated once, got a gradient of its gradient (create_graph=True); "
        "take the second derivative by differences of first ones, or compute it with the model in torch.nn.RNN"
    )


_layer.register_autograd(_differentiate, setup_context=_save)
_layer_gradient.register_autograd(_refuse)


class _Layer(torch.autograd.Function):
    """The same for eager calls, where an operator of Python costs as much as a short sequence does."""

    @staticmethod
    def forward(ctx, x, input_weight, bias, initial, sizes, nonlinearity, *recurrent_weights):  # type: ignore[no-untyped-def]
        results = _forward(x, input_weight, bias, recurrent_weights, initial, sizes, nonlinearity)
        _save(ctx, (x, input_weight, bias, recurrent_weights, initial, sizes, nonlinearity), results)
        return results

    @staticmethod
    def backward(ctx, d_series, d_final):  # type: ignore[no-untyped-def]
        d_x, d_input_weight, d_bias, d_weights, d_initial, *none = _differentiate(ctx, d_series, d_final)
        return d_x, d_input_weight, d_bias, d_initial, *none, *d_weights
