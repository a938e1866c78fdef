"""Layers whose cell is h' = f(p + q), in place, forward and backward: what `recurrent` does with the plain loop.

Projections become states where they stand; cotangents become the gradients of f's argument, in pieces that fit into a
cache; each weight's gradient is one product for a piece.

Rows stand step after step. Steps may have fewer and fewer rows, or more and more: row r of a step is row r of all
others, so that a row begins from its initial state where steps have grown to it, and ends where they have shrunk to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..spec.dropout import Masks
from ..spec.model import ModelSpec
from ..spec.parameters import Weights
from . import dropout
from .merging import merge
from .nonlinearities import IN_PLACE
from .packing import Rows
from .steps import Piece, Steps, pieces

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
    spec: ModelSpec, weights: Weights, inputs: Array, rows: Rows, initial: Array, masks: Masks | None
) -> tuple[Array, Array, Tape]:
    """Outputs (B, T, F), final states (L*D, B, H), and the tape; inputs (B, T, I), initial states (L*D, B, H)."""
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
    return rows.put_back(x), rows.states_put_back(final), tape


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
    return gradients, d_y, rows.states_put_back(d_states)


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
    series, split = np.empty((sum(rows.sizes), weight.shape[1]), x.dtype), pieces(rows.sizes)
    room = np.empty(max(piece.number for piece in split) * len(weight), x.dtype)
    for piece in split:
        p = np.dot(rows.piece(x, piece, room), weight, series[piece.places])
        for bias in biases:
            np.add(p, bias, p)
    for d, weight in enumerate(parts.of("recurrent_weight")):
        steps = Steps(series[:, d * H : (d + 1) * H], rows.sizes, reverse=d == 1)
        _run(steps, np.ascontiguousarray(weight.T), states[d], IN_PLACE[nonlinearity].value)
    return series


def _run(steps: Steps, weight: Array, states: Array, f: Callable[[Array, Array], Any]) -> None:
    """Turn projections (n, H) into states; weight (H, H) maps a state to what is added to the next projection.

    states (B, H) holds the initial states of rows that have not begun, and the final ones of rows that have ended.
    """
    product, q, add = np.empty_like(states), states[:0], np.add
    before, m = states, 0
    for a, n in zip(steps.rows, steps.sizes, strict=True):
        if n != m:
            q = product[:n]
            if n < m:  # rows have ended
                states[n:m] = before[n:]
                before = before[:n]
            else:  # rows begin
                before = np.concatenate([before[:m], states[m:n]])
        before.dot(weight, q)
        add(a, q, a)
        f(a, a)
        before, m = a, n
    states[:m] = before


def layer_gradient(
    d_y: Array, d_states: Array, series: Array, x: Array, parts: Parts, initial: Array, rows: Rows, nonlinearity: str
) -> tuple[Weights, Array]:
    """Gradients of the layer's weights by name, and of x.

    d_y: of the merged outputs, (N, F) or (B, T, F). d_states (D, B, H): of the final states, and when done of the
    initial ones. x: (N, I) or (B, T, I). initial: (D, B, H).
    """
    gradients: Weights = {}
    H, I, derivative = initial.shape[2], x.shape[-1], IN_PLACE[nonlinearity].derivative  # noqa: E741
    d_x = np.empty_like(x) if rows.places is None or x.ndim == 2 else np.zeros_like(x)
    kind = parts.spec.merge if len(initial) == 2 else "sum"
    for i, direction in enumerate(parts.spec.directions):
        names = ("input_weight", "recurrent_weight", *parts.biases)
        W_x, W_h = (parts.weights[f"layers.{parts.number}.{direction}.{name}"] for name in names[:2])
        sums, split = Sums(W_x, W_h), pieces(rows.sizes, reverse=i == 1)
        steps = Steps(series[:, i * H : (i + 1) * H], rows.sizes, reverse=i == 1)
        most = max(piece.number for piece in split)
        units, inputs = np.empty((2, most * H), x.dtype), np.empty((2, most * I), x.dtype)
        for piece in reversed(split):
            d = _own(kind, rows.piece(_part(kind, d_y, H, i), piece, units[0]), series, piece, i, units[0])  # (R, H)
            slopes = None if derivative is None else derivative(steps.series[piece.places], _like(d, units[1]))
            _run_back(steps, piece, d, slopes, W_h, d_states[i])
            read = rows.piece(x, piece, inputs[0])
            sums.add(d, read, steps.before(piece, initial[i]))
            rows.put_piece(d_x, piece, np.dot(d, W_x, _like(read, inputs[1])), add=i == 1)
        found = (sums.input_weight, sums.recurrent_weight, sums.bias, sums.bias.copy())
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
    if d_y.base is not room.base:
        np.copyto(d, d_y)
    return d


class Sums:
    """The gradients of a direction's weights, summed piece by piece."""

    def __init__(self, input_weight: Array, recurrent_weight: Array) -> None:
        self.input_weight, self.recurrent_weight = np.empty_like(input_weight), np.empty_like(recurrent_weight)
        self.bias = np.zeros(len(recurrent_weight), recurrent_weight.dtype)
        self._room: list[Array] = []

    def add(self, d: Array, rows: Array, before: Array) -> None:
        """Of f's argument (R, H), of what its input projection read (R, I), and its recurrent one (R, H)."""
        self.bias += d.sum(axis=0)
        totals = [self.input_weight, self.recurrent_weight]
        parts = self._room or totals
        for part, read in zip(parts, (rows, before), strict=True):
            np.dot(d.T, read, part)
        for total, part in zip(totals, self._room, strict=False):
            total += part
        self._room = self._room or [np.empty_like(total) for total in totals]


def _run_back(steps: Steps, piece: Piece, d_rows: Array, slopes: Array | None, weight: Array, d_states: Array) -> None:
    """Turn cotangents of states into gradients of f's argument, from the piece's last step to its first.

    slopes are f' at each row, None for 1. d_states (B, H) holds the gradients of the states after the piece, and
    then of those before it.
    """
    sizes, rows = steps.backwards(d_rows, piece)
    factors = rows if slopes is None else steps.backwards(slopes, piece)[1]
    product, add, multiply = np.empty_like(d_states), np.add, np.multiply
    d_h, later, m = product[:0], d_states, 0
    for d, n, factor in zip(rows, sizes, factors, strict=True):
        if m:
            later.dot(weight, d_h)
        if n < m:  # rows that began at the step after
            d_states[n:m] = d_h[n:]
        elif n > m:  # rows that end here, or in the piece after
            product[m:n] = d_states[m:n]
        if n != m:
            d_h = product[:n]
        add(d, d_h, d)
        if slopes is not None:
            multiply(d, factor, d)
        later, m = d, n
    later.dot(weight, d_states[:m])
