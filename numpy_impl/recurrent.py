"""The recurrent core: layers, directions and merging, forward and backward (SPEC.md, 4 and 5)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..spec.dropout import Masks
from ..spec.model import ModelSpec
from ..spec.parameters import Weights
from . import dropout, fast, recurrence
from .cells import load_cell
from .merging import merge, merge_gradient
from .nonlinearities import NONLINEARITIES
from .packing import valid_rows
from .recurrence import Step

Array = Any
States = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """What some directions of a layer read: x (T, B, I_l), the factors (B, I_l) of dropout, if any, multiplied in."""

    directions: tuple[str, ...]
    x: Array
    factors: Array | None


@dataclass(frozen=True)
class LayerTape:
    """What a layer's backward pass reads again.

    Attributes:
        readings: what its directions read, one for all where nothing is dropped.
        outputs: D times (T, B, H), in time order.
        directions: the tape of each.
        factors: of dropout, (T, B, F), by which its merged outputs were multiplied, or None.
    """

    readings: list[Reading]
    outputs: list[Array]
    directions: list[recurrence.Tape]
    factors: Array | None


def forward(
    spec: ModelSpec, weights: Weights, inputs: Array, mask: Array | None, initial: States, masks: Masks | None = None,
    *, outputs: bool = True,
) -> tuple[Any, States, Any]:  # fmt: skip
    """Outputs (B, T, F), final states (L*D, B, H) by name, and what `backward` reads again.

    inputs (B, T, I); mask (B, T) or None; initial states (L*D, B, H) by name; masks of dropout, None to drop nothing;
    outputs: they are wanted, else they may be None.
    """
    code, dropped = load_cell(spec.cell), spec.dropout
    in_place = code.IN_PLACE and not (masks and dropped and (dropped.inputs or dropped.state))
    if in_place and (rows := valid_rows(inputs.shape[:2], mask)):
        ((name, states),) = initial.items()
        y, final, tape = fast.forward(spec, weights, inputs, rows, states, masks, outputs=outputs)
        return y, {name: final}, tape
    return _plain_forward(spec, weights, inputs, mask, initial, masks)


def _plain_forward(
    spec: ModelSpec, weights: Weights, inputs: Array, mask: Array | None, initial: States, masks: Masks | None
) -> tuple[Array, States, list[LayerTape]]:
    step = Step(spec.cell_definition, load_cell(spec.cell), NONLINEARITIES[spec.nonlinearity])
    x = np.ascontiguousarray(inputs.transpose(1, 0, 2))  # (T, B, I)
    valid = None if mask is None else mask.T[:, :, None]  # (T, B, 1)
    if valid is not None:
        x = np.where(valid, x, np.zeros((), x.dtype))
    tapes = []
    final: States = {name: np.empty_like(state) for name, state in initial.items()}
    for layer in range(spec.num_layers):
        tape = _layer_forward(spec, weights, step, layer, x, valid, initial, final, masks)
        tapes.append(tape)
        x = merge(spec.merge, tape.outputs)  # (T, B, F)
        x = x if tape.factors is None else x * tape.factors
    return x.transpose(1, 0, 2), final, tapes


def _layer_forward(
    spec: ModelSpec,
    weights: Weights,
    step: Step,
    layer: int,
    x: Array,
    valid: Array | None,
    initial: States,
    final: States,
    masks: Masks | None,
) -> LayerTape:
    (steps, batch, _), H = x.shape, spec.hidden_size
    readings = _readings(spec, masks, layer, x)
    projections = [p for reading in readings for p in _project(spec, weights, layer, reading)]  # D times (T, B, G*H)
    outputs, tapes = [], []
    for d, direction in enumerate(spec.directions):
        name, index = f"layers.{layer}.{direction}.", layer * spec.num_directions + d
        y, last, tape = recurrence.forward(
            step,
            in_time_order(projections[d], direction),
            weights[name + "recurrent_weight"],
            weights.get(name + "recurrent_bias"),
            {state: values[index] for state, values in initial.items()},
            None if valid is None else in_time_order(valid, direction),
            dropout.factors(spec, masks, "state", layer, d, (steps, batch, H), x.dtype),
        )
        outputs.append(in_time_order(y, direction))
        tapes.append(tape)
        for state, value in last.items():
            final[state][index] = value
    shape = (steps, batch, spec.output_size)
    between = dropout.factors(spec, masks, "between_layers", layer, 0, shape, x.dtype)
    return LayerTape(readings, outputs, tapes, between)


def _readings(spec: ModelSpec, masks: Masks | None, layer: int, x: Array) -> list[Reading]:
    kept = [dropout.factors(spec, masks, "inputs", layer, d, x.shape, x.dtype) for d in range(spec.num_directions)]
    if kept[0] is None:
        return [Reading(spec.directions, x, None)]
    return [Reading((direction,), x * m, m) for direction, m in zip(spec.directions, kept, strict=True)]


def _project(spec: ModelSpec, weights: Weights, layer: int, reading: Reading) -> list[Array]:
    """The input projections of all steps, (T, B, G*H) for each direction that reads the same, as one product."""
    steps, batch, size = reading.x.shape
    weight = _joined(reading, weights, layer, "input_weight")  # (D*G*H, I_l)
    p = reading.x.reshape(steps * batch, size) @ weight.T
    if spec.bias != "none":
        p += _joined(reading, weights, layer, "bias" if spec.bias == "single" else "input_bias")
    return np.split(p.reshape(steps, batch, -1), len(reading.directions), axis=2)


def backward(
    spec: ModelSpec, weights: Weights, tape: Any, d_outputs: Array, d_final: States
) -> tuple[Weights, Array, States]:
    """Gradients of the weights by name, of the inputs (B, T, I), and of the initial states (L*D, B, H) by name."""
    if isinstance(tape, fast.Tape):
        ((name, d_states),) = d_final.items()
        gradients, d_x, d_initial = fast.backward(spec, weights, tape, d_outputs, d_states)
        return gradients, d_x, {name: d_initial}
    return _plain_backward(spec, weights, tape, d_outputs, d_final)


def _plain_backward(
    spec: ModelSpec, weights: Weights, tapes: list[LayerTape], d_outputs: Array, d_final: States
) -> tuple[Weights, Array, States]:
    gradients: Weights = {}
    d_initial: States = {name: np.empty_like(state) for name, state in d_final.items()}
    d_y = d_outputs.transpose(1, 0, 2)  # (T, B, F)
    for layer in reversed(range(spec.num_layers)):
        d_y = _layer_backward(spec, weights, layer, tapes[layer], d_y, d_final, d_initial, gradients)
    return gradients, d_y.transpose(1, 0, 2), d_initial


def _layer_backward(
    spec: ModelSpec, weights: Weights, layer: int, tape: LayerTape, d_y: Array, d_final: States, d_initial: States,
    gradients: Weights,
) -> Array:  # fmt: skip
    d_ps = {}
    d_y = d_y if tape.factors is None else d_y * tape.factors
    for d, (direction, d_direction) in enumerate(
        zip(spec.directions, merge_gradient(spec.merge, tape.outputs, d_y), strict=True)
    ):
        name, index = f"layers.{layer}.{direction}.", layer * spec.num_directions + d
        if tape.directions[d].mask is not None:
            valid = in_time_order(tape.directions[d].mask, direction)
            d_direction = np.where(valid, d_direction, np.zeros((), d_direction.dtype))
        d_p, d_q, d_states = recurrence.backward(
            tape.directions[d], in_time_order(d_direction, direction), {state: v[index] for state, v in d_final.items()}
        )
        h = tape.directions[d].states[spec.cell_definition.output][:-1]  # (T, B, H)
        factors = tape.directions[d].factors
        h = h if factors is None else h * factors
        gradients[name + "recurrent_weight"] = _flat(d_q).T @ _flat(h)
        if spec.bias == "double":
            gradients[name + "recurrent_bias"] = _flat(d_q).sum(axis=0)
        for state, value in d_states.items():
            d_initial[state][index] = value
        d_ps[direction] = in_time_order(d_p, direction)
    d_xs = [_reading_backward(spec, weights, layer, reading, d_ps, gradients) for reading in tape.readings]
    return d_xs[0] if len(d_xs) == 1 else d_xs[0] + d_xs[1]


def _reading_backward(
    spec: ModelSpec, weights: Weights, layer: int, reading: Reading, d_ps: Weights, gradients: Weights
) -> Array:
    """The gradient of the layer's inputs (T, B, I_l) through the directions that read the same."""
    d_p = _flat(np.concatenate([d_ps[direction] for direction in reading.directions], axis=2))  # (T*B, D*G*H)
    _split(reading, gradients, layer, "input_weight", d_p.T @ _flat(reading.x))
    if spec.bias != "none":
        _split(reading, gradients, layer, "bias" if spec.bias == "single" else "input_bias", d_p.sum(axis=0))
    d_x = (d_p @ _joined(reading, weights, layer, "input_weight")).reshape(reading.x.shape)
    return d_x if reading.factors is None else d_x * reading.factors


def in_time_order(series: Array, direction: str) -> Array:
    """A view with the first axis flipped for the backward direction; its own inverse."""
    return series[::-1] if direction == "backward" else series


def _flat(series: Array) -> Array:
    return series.reshape(-1, series.shape[-1])  # (T*B, N)


def _joined(reading: Reading, weights: Weights, layer: int, name: str) -> Array:
    parts = [weights[f"layers.{layer}.{direction}.{name}"] for direction in reading.directions]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _split(reading: Reading, gradients: Weights, layer: int, name: str, joined: Array) -> None:
    for direction, part in zip(reading.directions, np.split(joined, len(reading.directions)), strict=True):
        gradients[f"layers.{layer}.{direction}.{name}"] = part
