"""Sequences in parts, each run again when its gradient is due, from the states before it (SPEC.md, 13.4).

With one direction, all layers are run on a part at once. With two, each layer is two chains, of which the backward one
begins a part from the state after it; what a chain reads is had from the chains below, for one part at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..spec.dropout import Masks
from ..spec.model import ModelSpec
from ..spec.parameters import Weights
from ..spec.recomputing import parts
from . import recurrent
from .merging import merge, merge_gradient

Array = Any
States = dict[str, Any]


@dataclass(frozen=True)
class Chain:
    """Layers of one direction, run part by part in their order.

    Attributes:
        spec, weights, masks: of these layers, as a model of their own that reads forward.
        names: of the weights in the whole model, by their names here.
        rows: which of the states (L*D, B, H) are its own.
        reverse: it reads backward.
        starts: the states before each part, by number.
    """

    spec: ModelSpec
    weights: Weights
    masks: Masks | None
    names: dict[str, str]
    rows: slice
    reverse: bool
    starts: dict[int, States] = field(default_factory=dict)

    def order(self, number: int) -> list[int]:
        """So many parts as they are read."""
        return list(range(number))[:: -1 if self.reverse else 1]

    def run(self, x: Array, mask: Array | None, k: int, *, outputs: bool) -> tuple[Array | None, States, Any]:
        """As `recurrent.forward`, on part k (B, t, ...)."""
        mask = None if mask is None or mask.all() else self._turned(mask)
        start = self.starts[k]
        y, final, tape = recurrent.forward(
            self.spec, self.weights, self._turned(x), mask, start, self.masks, outputs=outputs
        )
        return None if y is None else self._turned(y), final, tape

    def gradient(
        self, x: Array, mask: Array | None, k: int, d_y: Array, d_states: States, gradients: Weights
    ) -> tuple[Array, States]:
        """Of the inputs of part k, and of the states before it; those of weights are added to `gradients`."""
        again = self.run(x, mask, k, outputs=False)[2]
        found, d_x, d_states = recurrent.backward(self.spec, self.weights, again, self._turned(d_y), d_states)
        for name, gradient in found.items():
            gradients[self.names[name]] += gradient
        return self._turned(d_x), d_states

    def _turned(self, x: Array) -> Array:
        return x[:, ::-1] if self.reverse else x


@dataclass(frozen=True)
class Tape:
    """What the backward pass reads again: arguments, and the chains with the states before each of their parts."""

    inputs: Array
    mask: Array | None
    merge: str
    levels: list[list[Chain]]

    @property
    def parts(self) -> list[slice]:
        """Of all steps."""
        return parts(self.inputs.shape[1])

    def of(self, k: int, level: int) -> tuple[Array, Array | None]:
        """What the chains of a level read in part k, (B, t, ...), and its mask."""
        part = self.parts[k]
        x, mask = self.inputs[:, part], None if self.mask is None else self.mask[:, part]
        for chains in self.levels[:level]:
            x = merge(self.merge, [chain.run(x, mask, k, outputs=True)[0] for chain in chains])
        return x, mask


def forward(
    spec: ModelSpec, weights: Weights, inputs: Array, mask: Array | None, initial: States, masks: Masks | None,
    *, outputs: bool,
) -> tuple[Array | None, States, Tape]:  # fmt: skip
    """As `recurrent.forward`; outputs are None unless they are wanted."""
    tape = Tape(inputs, mask, spec.merge, list(_levels(spec, weights, masks)))
    numbers, final = range(len(tape.parts)), {name: np.empty_like(states) for name, states in initial.items()}
    found = np.empty((*inputs.shape[:2], spec.output_size), inputs.dtype) if outputs else None
    wanted = outputs and spec.num_directions == 1
    for level, chains in enumerate(tape.levels):
        for chain in chains:
            states = {name: array[chain.rows] for name, array in initial.items()}
            for k in chain.order(len(numbers)):
                chain.starts[k] = states
                y, states, _ = chain.run(*tape.of(k, level), k, outputs=wanted)
                if found is not None and wanted:
                    found[:, tape.parts[k]] = y
            for name, array in states.items():
                final[name][chain.rows] = array
    if found is not None and not wanted:
        for k in numbers:
            found[:, tape.parts[k]] = tape.of(k, spec.num_layers)[0]
    return found, final, tape


def _levels(spec: ModelSpec, weights: Weights, masks: Masks | None) -> Iterator[list[Chain]]:
    """The chains that read the same, from the lowest."""
    core = replace(spec, embedding=None, head=None, context=None)
    if spec.num_directions == 1:
        own = {name: array for name, array in weights.items() if name.startswith("layers.")}
        yield [Chain(core, own, masks, {name: name for name in own}, slice(None), False)]
        return
    for layer in range(spec.num_layers):
        size = spec.input_size if layer == 0 else spec.output_size
        single = replace(core, variant="simple_rnn", num_layers=1, merge="concat", input_size=size)
        yield [_direction(single, weights, masks, layer, d, name) for d, name in enumerate(spec.directions)]


def _direction(single: ModelSpec, weights: Weights, masks: Masks | None, layer: int, d: int, name: str) -> Chain:
    before = f"layers.{layer}.{name}."
    names = {"layers.0.forward." + full.removeprefix(before): full for full in weights if full.startswith(before)}
    rows, own = slice(2 * layer + d, 2 * layer + d + 1), {own: weights[full] for own, full in names.items()}
    return Chain(single, own, masks and masks.of(layer, d), names, rows, d == 1)


def backward(
    spec: ModelSpec, weights: Weights, tape: Tape, d_outputs: Array | None, d_final: States
) -> tuple[Weights, Array, States]:
    """As `recurrent.backward`; cotangents of the outputs are None for zeros."""
    gradients = {name: np.zeros_like(array) for name, array in weights.items() if name.startswith("layers.")}
    d_y, d_initial = d_outputs, {name: np.empty_like(states) for name, states in d_final.items()}
    for level in reversed(range(len(tape.levels))):
        d_y = _level_backward(tape, level, d_y, d_final, d_initial, gradients)
    return gradients, d_y, d_initial


def _level_backward(
    tape: Tape, level: int, d_y: Array | None, d_final: States, d_initial: States, gradients: Weights
) -> Array:
    """The gradient of what the chains of a level read, (B, T, I); weights' and initial states' are filled in."""
    chains = tape.levels[level]
    d_x = np.zeros((*tape.inputs.shape[:2], chains[0].spec.input_size), tape.inputs.dtype)
    for i, chain in enumerate(chains):
        d_states = {name: states[chain.rows] for name, states in d_final.items()}
        for k in reversed(chain.order(len(tape.parts))):
            x, mask = tape.of(k, level)
            d_own = _cotangents(tape, chains, i, k, x, mask, d_y)
            d_read, d_states = chain.gradient(x, mask, k, d_own, d_states, gradients)
            d_x[:, tape.parts[k]] += d_read
        for name, d in d_states.items():
            d_initial[name][chain.rows] = d
    return d_x


def _cotangents(
    tape: Tape, chains: list[Chain], i: int, k: int, x: Array, mask: Array | None, d_y: Array | None
) -> Array:
    """Of the outputs of a chain in part k, from those of the merged outputs of all steps."""
    if d_y is None:
        return np.zeros((*x.shape[:2], chains[i].spec.hidden_size), x.dtype)
    read = len(chains) == 2 and tape.merge == "multiply"
    outputs = [chain.run(x, mask, k, outputs=True)[0] if read else None for chain in chains]
    return merge_gradient(tape.merge, outputs, d_y[:, tape.parts[k]])[i]
