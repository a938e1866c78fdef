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
from .packing import InPieces, Rows, all_rows, traced
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
    rows: Rows | None,
    nonlinearity: str,
    *,
    put_back: bool = True,
) -> tuple[Tensor, Tensor]:
    """States after each step, (B, T, D*H), or (N, D*H) unless they are put back; and the final ones (D, B, H).

    Args:
        x: (B, T, I), or (N, I) without the padding.
        input_weight: (D*H, I), of the forward direction and, if there is one, of the backward direction.
        bias: (D*H,) or None.
        recurrent_weights: D times (H, H).
        initial: (D, B, H), in the order of the rows.
        rows: the valid steps; None for all.

    Raises:
        UnsupportedError: a transform of torch is at work on an argument.
    """
    refuse_transforms(x, input_weight, bias, *recurrent_weights, initial)
    if traced():
        series, final = _layer(x, input_weight, bias, recurrent_weights, initial, nonlinearity)
    else:
        options = (rows or all_rows(x), nonlinearity, put_back)
        series, final = _Layer.apply(options, x, input_weight, bias, initial, *recurrent_weights)
    return series, final


def _forward(
    x: Tensor,
    input_weight: Tensor,
    bias: Tensor | None,
    recurrent_weights: Sequence[Tensor],
    initial: Tensor,
    rows: Rows,
    nonlinearity: str,
    put_back: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """States after each step, (N, D*H), the same put back if that is asked for, and the final ones."""
    series, final, H = x.new_empty(sum(rows.sizes), len(input_weight)), initial.clone(), initial.shape[2]
    outputs = rows.shaped(series) if put_back else series
    inputs, places = InPieces(x, rows), InPieces(outputs, rows)
    for d, weight in enumerate(recurrent_weights):
        own = slice(d * H, (d + 1) * H)  # of the D*H units
        to_p, to_q = input_weight[own].t().contiguous(), weight.t().contiguous()  # their products are faster
        for piece in Steps(series[:, own], rows.sizes, reverse=d == 1).pieces_read(x.shape[-1]):
            read, p = inputs.read(piece), piece.rows
            torch.mm(read, to_p, out=p) if bias is None else torch.addmm(bias[own], read, to_p, out=p)
            _run(piece, to_q, final[d], IN_PLACE[nonlinearity].value)
            places.write(piece, p, own)
    return series, outputs, final


def _run(piece: Piece, weight: Tensor, states: Tensor, f: Callable[[Tensor], Any]) -> None:
    """Turn projections (n, H) into states; weight (H, H) maps a state to what is added to the next projection.

    states (B, H) holds the states before the piece, and then those after it: also the initial ones of rows that have
    not begun, and the final ones of rows that have ended.
    """
    before, m = states, 0
    for a, n in zip(*piece.forwards, strict=True):
        if n == m:
            a.addmm_(before, weight)
        elif n > m:  # rows begin, or the piece does
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
    rows: Rows,
    nonlinearity: str,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor]:
    """Gradients of x, the input weight, the bias, the recurrent weights, and the initial states.

    d_series (B, T, D*H) or (N, D*H), as x may be; series (N, D*H).
    """
    with without_autocast(x.device):
        d_x, d_initial, H = rows.empty_like(x), d_final.clone(), initial.shape[2]
        d_input_weight, d_bias = torch.zeros_like(input_weight), input_weight.new_zeros(len(input_weight))
        d_weights = [torch.zeros_like(weight) for weight in recurrent_weights]
        inputs, d_inputs = InPieces(x, rows), InPieces(d_x, rows)
        for i, weight in enumerate(recurrent_weights):
            own = slice(i * H, (i + 1) * H)  # of the D*H units
            steps, d_outputs = Steps(series[:, own], rows.sizes, reverse=i == 1), InPieces(d_series[..., own], rows)
            for piece in reversed(steps.pieces()):
                d = d_outputs.copied(piece)  # (R, H)
                _run_back(piece, d, IN_PLACE[nonlinearity].derivative(piece.rows), weight, d_initial[i])
                for own_rows, before in piece.before(initial[i]):
                    d_weights[i].addmm_(d[own_rows].t(), before)
                d_input_weight[own].addmm_(d.t(), inputs.read(piece))
                d_bias[own].add_(d.sum(0))
                d_read = d_inputs.read(piece) if i else d_inputs.room(piece)
                d_inputs.write(piece, d_read.addmm_(d, input_weight[own], beta=i))  # of both directions
        return d_x, d_input_weight, d_bias, d_weights, d_initial


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


@torch.library.custom_op("rnnzoo::layer", mutates_args=())
def _layer(
    x: Tensor,
    input_weight: Tensor,
    bias: Tensor | None,
    recurrent_weights: Sequence[Tensor],
    initial: Tensor,
    nonlinearity: str,
) -> tuple[Tensor, Tensor]:
    rows = all_rows(x)
    _, outputs, final = _forward(x, input_weight, bias, recurrent_weights, initial, rows, nonlinearity, True)
    return outputs, final


@torch.library.custom_op("rnnzoo::layer_gradient", mutates_args=())
def _layer_gradient(
    d_series: Tensor,
    d_final: Tensor,
    series: Tensor,
    x: Tensor,
    input_weight: Tensor,
    recurrent_weights: Sequence[Tensor],
    initial: Tensor,
    nonlinearity: str,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor]:
    rows = all_rows(x)
    states = rows.taken(series)
    return _backward(d_series, d_final, states, x, input_weight, recurrent_weights, initial, rows, nonlinearity)


@_layer.register_fake
def _(x, input_weight, bias, recurrent_weights, initial, nonlinearity):  # type: ignore[no-untyped-def]
    B, T, _ = x.shape
    return x.new_empty(T, B, input_weight.shape[0]).transpose(0, 1), torch.empty_like(initial)


@_layer_gradient.register_fake
def _(d_series, d_final, series, x, input_weight, recurrent_weights, initial, nonlinearity):  # type: ignore[no-untyped-def]
    B, T, M = x.shape
    d_weights = [torch.empty_like(weight) for weight in recurrent_weights]
    return (
        x.new_empty(T, B, M).transpose(0, 1), torch.empty_like(input_weight), x.new_empty(input_weight.shape[0]),
        d_weights, torch.empty_like(initial),
    )  # fmt: skip


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, input_weight, bias, recurrent_weights, initial, ctx.nonlinearity = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(output[0], x, input_weight, initial, *recurrent_weights)


def _differentiate(ctx: Any, d_series: Tensor, d_final: Tensor) -> tuple[Any, ...]:
    refuse_transforms(d_series, d_final)
    series, x, input_weight, initial, *weights = ctx.saved_tensors
    d_x, d_input_weight, d_bias, d_weights, d_initial = _layer_gradient(
        d_series, d_final, series, x, input_weight, weights, initial, ctx.nonlinearity
    )
    return d_x, d_input_weight, d_bias if ctx.has_bias else None, d_weights, d_initial, None


def _refuse(ctx: Any, *gradients: Any) -> None:
    raise UnsupportedError(
        "rnnzoo::layer: expected to be differentiated once, got a gradient of its gradient (create_graph=True); "
        "take the second derivative by differences of first ones, or compute it with the model in torch.nn.RNN"
    )


_layer.register_autograd(_differentiate, setup_context=_save)
_layer_gradient.register_autograd(_refuse)


class _Layer(torch.autograd.Function):
    """The same for eager calls, where an operator of Python costs as much as a short sequence, and with padding."""

    @staticmethod
    def forward(ctx, options, x, input_weight, bias, initial, *recurrent_weights):  # type: ignore[no-untyped-def]
        rows, nonlinearity, put_back = options
        series, outputs, final = _forward(
            x, input_weight, bias, recurrent_weights, initial, rows, nonlinearity, put_back
        )
        ctx.options, ctx.has_bias = options, bias is not None
        kept = outputs if rows.places is None else series
        ctx.save_for_backward(kept, x, input_weight, initial, *recurrent_weights)
        return outputs, final

    @staticmethod
    def backward(ctx, d_series, d_final):  # type: ignore[no-untyped-def]
        refuse_transforms(d_series, d_final)
        compute = _LayerGradient.apply if torch.is_grad_enabled() else _flat_gradient
        d_x, d_input_weight, d_bias, *others = compute(ctx.options, d_series, d_final, *ctx.saved_tensors)
        return None, d_x, d_input_weight, d_bias if ctx.has_bias else None, *others


def _flat_gradient(options: tuple[Rows, str, bool], d_series: Tensor, d_final: Tensor, *saved: Tensor) -> Any:
    """Gradients of x, the input weight, the bias, the initial states, and the recurrent weights."""
    (rows, nonlinearity, _), (series, x, input_weight, initial, *weights) = options, saved
    states = series if series.dim() == 2 else rows.taken(series)
    d_x, d_input_weight, d_bias, d_weights, d_initial = _backward(
        d_series, d_final, states, x, input_weight, weights, initial, rows, nonlinearity
    )
    return d_x, d_input_weight, d_bias, d_initial, *d_weights


class _LayerGradient(torch.autograd.Function):
    """Gradients that are to be differentiated again (create_graph=True), which is refused."""

    @staticmethod
    def forward(ctx, *arguments):  # type: ignore[no-untyped-def]
        return _flat_gradient(*arguments)

    backward = staticmethod(_refuse)
