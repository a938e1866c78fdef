"""Layers whose cell is h' = f(p + q), in place, forward and backward: what `recurrent` does with the plain loop.

Projections become states where they stand; cotangents become the gradients of f's argument, in pieces that fit into a
cache; each weight's gradient is one product for a piece.

Rows stand step after step. Steps may have fewer and fewer rows, or more and more: row r of a step is row r of all
others, so that a row begins from its initial state where steps have grown to it, and ends where they have shrunk to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..spec.dropout import Masks
from ..spec.model import ModelSpec
from ..spec.parameters import Weights
from . import dropout
from .blas import Adding
from .merging import merge
from .nonlinearities import IN_PLACE
from .packing import Rows
from .steps import Piece, Steps, blocks

Array = Any


@dataclass(frozen=True)
class Tape:
    """What the backward pass reads again.

    Attributes:
        rows: which steps are valid.
        initial: (L*D, B, H), in their order.
        x: what each layer read: the inputs (B, T, I) as they were given, and (N, F).
        series: the states of each layer, (N, D*H).
        factors: of dropout, (N, F), by which each layer's merged outputs were multiplied, or None.
    """

    rows: Rows
    initial: Array
    x: list[Array]
    series: list[Array]
    factors: list[Array | None]


def forward(
    spec: ModelSpec, weights: Weights, inputs: Array, rows: Rows, initial: Array, masks: Masks | None, *, outputs: bool
) -> tuple[Array | None, Array, Tape]:
    """Outputs (B, T, F) if they are wanted, final states (L*D, B, H), and the tape.

    inputs (B, T, I); initial states (L*D, B, H).
    """
    x, D = inputs, spec.num_directions
    tape, final = Tape(rows, rows.states_taken(initial), [], [], []), np.empty_like(initial)
    for number in range(spec.num_layers):
        tape.x.append(x)
        own = slice(number * D, (number + 1) * D)
        final[own] = tape.initial[own]
        series = layer(x, Parts(spec, weights, number), final[own], rows, spec.nonlinearity)
        tape.series.append(series)
        x = series if D == 1 or spec.merge == "concat" else merge(spec.merge, np.split(series, D, axis=1))  # (N, F)
        tape.factors.append(_between_layers(spec, masks, number, rows, x.dtype))
        x = x if tape.factors[-1] is None else x * tape.factors[-1]
    return rows.put_back(x) if outputs else None, rows.states_put_back(final), tape


def _between_layers(spec: ModelSpec, masks: Masks | None, number: int, rows: Rows, dtype: Any) -> Array | None:
    if masks is None or number == spec.num_layers - 1:
        return None
    (B, T) = rows.shape
    factors = dropout.factors(spec, masks, "between_layers", number, 0, (T, B, spec.output_size), dtype)
    return None if factors is None else rows.taken(factors.transpose(1, 0, 2))


def backward(
    spec: ModelSpec, weights: Weights, tape: Tape, d_outputs: Array, d_final: Array
) -> tuple[Weights, Array, Array]:
    """Gradients of the weights by name, of the inputs (B, T, I), and of the initial states (L*D, B, H)."""
    gradients: Weights = {}
    rows, d_y, d_states, D = tape.rows, d_outputs, tape.rows.states_taken(d_final).copy(), spec.num_directions
    for number in reversed(range(spec.num_layers)):
        factors = tape.factors[number]
        d_y = d_y if factors is None else np.multiply(d_y, factors, d_y)
        own = slice(number * D, (number + 1) * D)
        found, d_y = layer_gradient(
            d_y, d_states[own], tape.series[number], tape.x[number], Parts(spec, weights, number), tape.initial[own],
            rows, spec.nonlinearity,
        )  # fmt: skip
        gradients |= found
    return gradients, rows.put_back(d_y), rows.states_put_back(d_states)


class Parts(NamedTuple):
    """The weights of a layer."""

    spec: ModelSpec
    weights: Weights
    number: int

    def of(self, name: str) -> list[Array]:
        """The weight of that name of each direction."""
        return [self.weights[f"layers.{self.number}.{direction}.{name}"] for direction in self.spec.directions]

    def joined(self, name: str) -> Array:
        """The same, one below the other."""
        found = self.of(name)
        return found[0] if len(found) == 1 else np.concatenate(found)

    @property
    def biases(self) -> tuple[str, ...]:
        """The names of what is added to the argument of f."""
        return BIASES[self.spec.bias]


BIASES = {"none": (), "single": ("bias",), "double": ("input_bias", "recurrent_bias")}


def layer(x: Array, parts: Parts, states: Array, rows: Rows, nonlinearity: str) -> Array:
    """States after each step, (N, D*H); x is (N, I) or (B, T, I); states (D, B, H), the initial ones, become the final.

    Rows are numbered in the order of `rows`.
    """
    H = states.shape[2]
    weight = np.ascontiguousarray(parts.joined("input_weight").T)  # (I, D*H); contiguous ones are faster
    biases = [parts.joined(name) for name in parts.biases]
    series = np.empty((rows.pieces[-1].places.stop, weight.shape[1]), x.dtype)
    room = np.empty(rows.largest * len(weight), x.dtype)
    for piece in rows.pieces:
        p = np.dot(rows.piece(x, piece, room), weight, series[piece.places])
        for bias in biases:
            np.add(p, bias, p)
    for d, weight in enumerate(parts.of("recurrent_weight")):
        steps = blocks(series[:, d * H : (d + 1) * H], rows.sizes, reverse=d == 1)
        _run(steps, Adding(weight.T, min(rows.sizes)), states[d], IN_PLACE[nonlinearity].value)
    return series


def _run(steps: list[Array], product: Adding, states: Array, f: Callable[[Array, Array], Any]) -> None:
    """Turn projections (k, n, H) into states; the product of a state is added to the next projection.

    states (B, H) holds the initial states of rows that have not begun, and the final ones of rows that have ended.
    """
    for block in steps:
        n = block.shape[1]
        views, add = product.to(block)
        (before,) = views(states[None, :n])
        for a in views(block):
            add(a, before)
            f(a, a)
            before = a
        states[:n] = block[-1]


def layer_gradient(
    d_y: Array, d_states: Array, series: Array, x: Array, parts: Parts, initial: Array, rows: Rows, nonlinearity: str
) -> tuple[Weights, Array]:
    """Gradients of the layer's weights by name, and of x, (N, I).

    d_y: of the merged outputs, (N, F) or (B, T, F). d_states (D, B, H): of the final states, and when done of the
    initial ones. x: (N, I) or (B, T, I). initial: (D, B, H).
    """
    gradients: Weights = {}
    H, I, derivative = initial.shape[2], x.shape[-1], IN_PLACE[nonlinearity].derivative  # noqa: E741
    d_x, units = np.empty((len(series), I), x.dtype), np.empty(rows.largest * H, x.dtype)
    inputs = np.empty((len(initial), rows.largest * I), x.dtype)
    room = np.empty(H * max(rows.largest, H, I), x.dtype)  # of slopes, and then of products that are added to sums
    kind = parts.spec.merge if len(initial) == 2 else "sum"
    for i, direction in enumerate(parts.spec.directions):
        names = ("input_weight", "recurrent_weight", *parts.biases)
        W_x, W_h = (parts.weights[f"layers.{parts.number}.{direction}.{name}"] for name in names[:2])
        steps, product = Steps(series[:, i * H : (i + 1) * H], rows.sizes, reverse=i == 1), Adding(W_h, min(rows.sizes))
        d_W_x, d_W_h, d_b = Sum(W_x, room), Sum(W_h, room), Sum(W_h[:, 0], room)
        for piece in reversed(rows.pieces) if i == 0 else rows.pieces:
            d = _own(kind, rows.piece(_part(kind, d_y, H, i), piece, units), series, piece, i, units)  # (R, H)
            slopes = derivative(steps.series[piece.places], _like(d, room)) if derivative else None
            _run_back(d, slopes, rows.sizes[piece.times], product, d_states[i], reverse=i == 1)
            read = rows.piece(x, piece, inputs[0])
            d_W_x.add(d.T, read)
            d_b.add(np.ones(len(d), d.dtype), d)
            for own, before in steps.before(piece, initial[i]):
                d_W_h.add(d[own].T, before)
            if i == 0:
                np.dot(d, W_x, d_x[piece.places])
            else:
                d_x[piece.places] += np.dot(d, W_x, _like(read, inputs[1]))
        found = (d_W_x.total, d_W_h.total, d_b.total, d_b.total.copy())
        gradients |= {f"layers.{parts.number}.{direction}.{name}": a for name, a in zip(names, found, strict=False)}
    return gradients, d_x


def _like(a: Array, room: Array) -> Array:
    """An array of that shape, where there is room for it."""
    return room[: a.size].reshape(a.shape)


def _part(kind: str, d_y: Array, H: int, i: int) -> Array:
    """What of the merged outputs' cotangents is of a direction."""
    return d_y[..., i * H : (i + 1) * H] if kind == "concat" else d_y


def _own(kind: str, d_y: Array, series: Array, piece: Piece, i: int, room: Array) -> Array:
    """A piece's cotangents of a direction's outputs (R, H) from those of the merged ones, in memory of their own."""
    d, H = _like(d_y, room), d_y.shape[1]
    if kind == "multiply":
        return np.multiply(d_y, series[piece.places, (1 - i) * H : (2 - i) * H], d)
    if kind == "average":
        return np.multiply(d_y, d_y.dtype.type(0.5), d)
    if d_y.base is not room:
        np.copyto(d, d_y)
    return d


class Sum:
    """A sum of products of the shape of `like`; what is added stands in `room` first."""

    def __init__(self, like: Array, room: Array) -> None:
        self.total, self._room, self._empty = np.empty_like(like), _like(like, room), True

    def add(self, a: Array, b: Array) -> None:
        """a @ b."""
        if self._empty:
            np.dot(a, b, self.total)
        else:
            self.total += np.dot(a, b, self._room)
        self._empty = False


def _run_back(
    d_rows: Array, slopes: Array | None, sizes: list[int], product: Adding, d_states: Array, *, reverse: bool
) -> None:
    """Turn cotangents of a piece's states into gradients of f's argument, from the step that was read last.

    slopes are f' at each row, None for 1. d_states (B, H) holds the gradients of the states after the piece, and
    then of those before it.
    """
    steps = blocks(d_rows, sizes, reverse=not reverse)
    factors = steps if slopes is None else blocks(slopes, sizes, reverse=not reverse)
    multiply = np.multiply
    for block, own in zip(steps, factors, strict=True):
        d_h = d_states[: block.shape[1]]
        block[0] += d_h
        if slopes is not None:
            block[0] *= own[0]
        if len(block) > 1:
            views, add = product.to(block)
            for (later, d), factor in zip(pairwise(views(block)), views(own[1:]), strict=True):
                add(d, later)
                if slopes is not None:
                    multiply(d, factor, d)
        np.dot(block[-1], product.weight, d_h)
