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
        _run(steps, np.ascontiguousarray(weight.T), states[d], IN_PLACE[nonlinearity].value)
    return series


def _run(steps: list[Array], weight: Array, states: Array, f: Callable[[Array, Array], Any]) -> None:
    """Turn projections (k, n, H) into states; weight (H, H) maps a state to what is added to the next projection.

    states (B, H) holds the initial states of rows that have not begun, and the final ones of rows that have ended.
    """
    before, m, product, add = states[:0], 0, np.empty_like(states), np.add
    for block in steps:
        n = block.shape[1]
        states[n:m] = before[n:]  # rows have ended
        before = np.concatenate([before, states[m:n]]) if n > m else before[:n]
        q, m = product[:n], n
        for a in block:
            before.dot(weight, q)
            add(a, q, a)
            f(a, a)
            before = a
    states[:m] = before


def layer_gradient(
    d_y: Array, d_states: Array, series: Array, x: Array, parts: Parts, initial: Array, rows: Rows, nonlinearity: str
) -> tuple[Weights, Array]:
    """Gradients of the layer's weights by name, and of x, (N, I).

    d_y: of the merged outputs, (N, F) or (B, T, F). d_states (D, B, H): of the final states, and when done of the
    initial ones. x: (N, I) or (B, T, I). initial: (D, B, H).
    """
    gradients: Weights = {}
    H, I, derivative = initial.shape[2], x.shape[-1], IN_PLACE[nonlinearity].derivative  # noqa: E741
    d_x = np.empty((len(series), I), x.dtype)
    kind = parts.spec.merge if len(initial) == 2 else "sum"
    for i, direction in enumerate(parts.spec.directions):
        names = ("input_weight", "recurrent_weight", *parts.biases)
        W_x, W_h = (parts.weights[f"layers.{parts.number}.{direction}.{name}"] for name in names[:2])
        sums = Sums(W_x, W_h)
        steps = Steps(series[:, i * H : (i + 1) * H], rows.sizes, reverse=i == 1)
        units, inputs = np.empty((2, rows.largest * H), x.dtype), np.empty((2, rows.largest * I), x.dtype)
        for piece in reversed(rows.pieces) if i == 0 else rows.pieces:
            d = _own(kind, rows.piece(_part(kind, d_y, H, i), piece, units[0]), series, piece, i, units[0])  # (R, H)
            slopes = derivative(steps.series[piece.places], _like(d, units[1])) if derivative else None
            _run_back(d, slopes, rows.sizes[piece.times], W_h, d_states[i], reverse=i == 1)
            read = rows.piece(x, piece, inputs[0])
            sums.add(d, read, steps.before(piece, initial[i]))
            if i == 0:
                np.dot(d, W_x, d_x[piece.places])
            else:
                d_x[piece.places] += np.dot(d, W_x, _like(read, inputs[1]))
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
        self.bias = np.empty(len(recurrent_weight), recurrent_weight.dtype)
        self._room: list[Array] | None = None

    def add(self, d: Array, rows: Array, before: Array) -> None:
        """Of f's argument (R, H), of what its input projection read (R, I), and its recurrent one (R, H)."""
        ones = np.ones(len(d), d.dtype)
        if self._room is None:
            self._room = []
            np.dot(ones, d, self.bias)
            np.dot(d.T, rows, self.input_weight)
            np.dot(d.T, before, self.recurrent_weight)
            return
        self.bias += ones.dot(d)
        totals = (self.input_weight, self.recurrent_weight)
        self._room = self._room or [np.empty_like(total) for total in totals]
        for total, read, room in zip(totals, (rows, before), self._room, strict=True):
            total += np.dot(d.T, read, room)


def _run_back(
    d_rows: Array, slopes: Array | None, sizes: list[int], weight: Array, d_states: Array, *, reverse: bool
) -> None:
    """Turn cotangents of a piece's states into gradients of f's argument, from the step that was read last.

    slopes are f' at each row, None for 1. d_states (B, H) holds the gradients of the states after the piece, and
    then of those before it.
    """
    steps = blocks(d_rows, sizes, reverse=not reverse)
    factors = steps if slopes is None else blocks(slopes, sizes, reverse=not reverse)
    product, m, add, multiply = np.empty_like(d_states), 0, np.add, np.multiply
    for block, own in zip(steps, factors, strict=True):
        n = block.shape[1]
        d_states[n:m] = product[n:m]  # rows that began at the step after
        product[m:n] = d_states[m:n]  # rows that end here, or in the piece after
        d_h, m = product[:n], n
        for d, factor in zip(block, own, strict=True):
            add(d, d_h, d)
            if slopes is not None:
                multiply(d, factor, d)
            d.dot(weight, d_h)
    d_states[:m] = product[:m]
