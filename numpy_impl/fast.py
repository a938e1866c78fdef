"""Layers whose cell is h' = f(p + q), in place, forward and backward: what `recurrent` does with the plain loop.

Projections become states where they stand; cotangents become the gradients of f's argument, in pieces that fit into a
cache; each weight's gradient is one product for a piece.

Rows stand step after step. Steps may have fewer and fewer rows, or more and more: row r of a step is row r of all
others, so that a row begins from its initial state where steps have grown to it, and ends where they have shrunk to it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..spec.dropout import Masks
from ..spec.model import ModelSpec
from ..spec.parameters import Weights
from . import dropout
from .merging import merge, merge_gradient
from .nonlinearities import IN_PLACE
from .packing import Rows
from .steps import Piece, Steps

Array = Any


@dataclass(frozen=True)
class Tape:
    """What the backward pass reads again.

    Attributes:
        rows: which steps are valid.
        initial: (L*D, B, H), in their order.
        x: what each layer read, (N, I_l).
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
    x, D = rows.taken(inputs), spec.num_directions
    tape, finals = Tape(rows, rows.states_taken(initial), [], [], []), []
    for number in range(spec.num_layers):
        tape.x.append(x)
        series, final = layer(
            x, Parts(spec, weights, number), tape.initial[number * D :][:D], rows.sizes, spec.nonlinearity
        )
        tape.series.append(series)
        finals.append(final)
        x = series if spec.merge == "concat" else merge(spec.merge, np.split(series, D, axis=1))  # (N, F)
        tape.factors.append(_between_layers(spec, masks, number, rows, x.dtype))
        x = x if tape.factors[-1] is None else x * tape.factors[-1]
    return rows.put_back(x), rows.states_put_back(np.concatenate(finals)), tape


def _between_layers(spec: ModelSpec, masks: Masks | None, number: int, rows: Rows, dtype: Any) -> Array | None:
    (B, T), top = rows.shape, number == spec.num_layers - 1
    shape = (T, B, spec.output_size)
    factors = None if top else dropout.factors(spec, masks, "between_layers", number, 0, shape, dtype)
    return None if factors is None else rows.taken(factors.transpose(1, 0, 2))


def backward(
    spec: ModelSpec, weights: Weights, tape: Tape, d_outputs: Array, d_final: Array
) -> tuple[Weights, Array, Array]:
    """Gradients of the weights by name, of the inputs (B, T, I), and of the initial states (L*D, B, H)."""
    gradients: Weights = {}
    d_y, d_states, D = tape.rows.steps(d_outputs), tape.rows.states_taken(d_final).copy(), spec.num_directions
    for number in reversed(range(spec.num_layers)):
        factors = tape.factors[number]
        d_y = d_y if factors is None else d_y * tape.rows.in_steps(factors)
        series, own = tape.series[number], slice(number * D, (number + 1) * D)
        d_series = merge_gradient(spec.merge, np.split(tape.rows.in_steps(series), D, axis=-1), d_y)
        found, d_x = layer_gradient(
            d_series, d_states[own], series, tape.x[number], Parts(spec, weights, number), tape.initial[own],
            tape.rows.sizes, spec.nonlinearity,
        )  # fmt: skip
        gradients |= found
        d_y = tape.rows.in_steps(d_x)
    return gradients, tape.rows.put_back(d_x), tape.rows.states_put_back(d_states)


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
    def biases(self) -> list[str]:
        """The names of what is added to the argument of f."""
        return {"none": [], "single": ["bias"], "double": ["input_bias", "recurrent_bias"]}[self.spec.bias]


def layer(x: Array, parts: Parts, initial: Array, sizes: Sequence[int], nonlinearity: str) -> tuple[Array, Array]:
    """States after each step, (N, D*H), and the final ones, (D, B, H); x is (N, I), initial (D, B, H).

    sizes: the number of rows of each step, N together, never growing or never shrinking.
    """
    H = initial.shape[2]
    series = np.dot(x, np.ascontiguousarray(parts.joined("input_weight").T))  # (N, D*H); contiguous ones are faster
    for name in parts.biases:
        series += parts.joined(name)
    final = initial.copy()
    for d, weight in enumerate(parts.of("recurrent_weight")):
        steps = Steps(series[:, d * H : (d + 1) * H], sizes, reverse=d == 1)
        _run(steps, np.ascontiguousarray(weight.T), final[d], IN_PLACE[nonlinearity].value)
    return series, final


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
    d_series: list[Array],
    d_states: Array,
    series: Array,
    x: Array,
    parts: Parts,
    initial: Array,
    sizes: Sequence[int],
    nonlinearity: str,
) -> tuple[Weights, Array]:
    """Gradients of the layer's weights by name, and of x (N, I).

    d_series: D times (N, H), or (T, B, H). d_states (D, B, H): of the final states, and when done of the initial ones.
    """
    gradients: Weights = {}
    H, d_x, derivative = initial.shape[2], np.empty_like(x), IN_PLACE[nonlinearity].derivative
    for i, direction in enumerate(parts.spec.directions):
        names = ("input_weight", "recurrent_weight", *parts.biases)
        W_x, W_h = (parts.weights[f"layers.{parts.number}.{direction}.{name}"] for name in names[:2])
        sums = Sums(W_x, W_h)
        steps = Steps(series[:, i * H : (i + 1) * H], sizes, reverse=i == 1)
        pieces = steps.pieces()
        room = np.empty((2, max(piece.number for piece in pieces), H), x.dtype)
        for piece in reversed(pieces):
            d, rows = room[0, : piece.number], x[piece.places]  # (R, H), (R, I)
            _copy(d, d_series[i], piece)
            slopes = None if derivative is None else derivative(piece.rows, room[1, : piece.number])
            _run_back(piece, d, slopes, W_h, d_states[i])
            sums.add(d, rows, piece.before(initial[i]))
            if i == 0:
                np.dot(d, W_x, d_x[piece.places])
            else:
                d_x[piece.places] += d @ W_x
        found = (sums.input_weight, sums.recurrent_weight, sums.bias, sums.bias.copy())
        gradients |= {f"layers.{parts.number}.{direction}.{name}": a for name, a in zip(names, found, strict=False)}
    return gradients, d_x


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


def _copy(target: Array, series: Array, piece: Piece) -> None:
    """The piece's rows (R, H) of (N, H), or of (T, B, H), which may be a view in another order."""
    if series.ndim == 2:
        np.copyto(target, series[piece.places])
    else:
        np.copyto(target.reshape(-1, *series.shape[1:]), series[piece.times])


def _run_back(piece: Piece, d_rows: Array, slopes: Array | None, weight: Array, d_states: Array) -> None:
    """Turn cotangents of states into gradients of f's argument, from the piece's last step to its first.

    slopes are f' at each row, None for 1. d_states (B, H) holds the gradients of the states after the piece, and
    then of those before it.
    """
    sizes, steps = piece.backwards(d_rows)
    factors = steps if slopes is None else piece.backwards(slopes)[1]
    product, add, multiply = np.empty_like(d_states), np.add, np.multiply
    d_h, later, m = product[:0], d_states, 0
    for d, n, factor in zip(steps, sizes, factors, strict=True):
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
