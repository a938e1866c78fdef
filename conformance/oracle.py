"""The oracle: what a model computes by the letter of the spec.

It shares no code with any backend. It takes the equations out of the cell's YAML and evaluates them, one layer,
one direction and one step after the other, for the rows whose step is valid. The arithmetic decides what comes
out: the truth, in numbers of 40 digits, or samples of what rounding may make of it. Derivatives are taken
backwards through the equations; a test holds them against difference quotients at high precision.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import expressions
from ..spec.dropout import Masks
from ..spec.inputs import Cotangents, Inputs, state_gradients
from ..spec.model import ModelSpec
from .arithmetic import Exact
from .dropout import factors
from .tape import Value, pulled_back

Array = NDArray[Any]
Named = dict[str, Array]
DIGITS = 40


@dataclass(frozen=True)
class OracleRun:
    """What a run of the oracle gave, and the leaves that it can be differentiated by.

    Attributes:
        outputs: the outputs of each step, (S, B, F).
        final_states: by state name, L*D of them, (S, B, H).
        scores: of each step, (S, B, O); a single one where the head reads the final states; none without a head.
        weights, inputs, states, context: the leaves; inputs by time, (S, B, I), none if they are tokens.
        everything: whether derivatives are taken by all leaves, or by the weights alone.
        source: more leaves, what an encoder has read.
    """

    spec: ModelSpec
    outputs: list[Value]
    final_states: dict[str, list[Value]]
    scores: list[Value]
    weights: dict[str, Value]
    inputs: list[Value]
    states: dict[str, list[Value]]
    context: Value | None
    everything: bool
    source: list[Value] = field(default_factory=list)

    @property
    def ops(self) -> Exact:
        """The arithmetic that it was run in."""
        return self.outputs[0].ops

    def arrays(self) -> Named:
        """`outputs` (S, B, T, F), `final_state.{name}` (S, L*D, B, H) and `scores`."""
        found = {"outputs": _stacked(self.outputs, 2)}
        found |= {f"final_state.{name}": _stacked(values, 1) for name, values in self.final_states.items()}
        if self.spec.head and self.spec.head.reads == "final":
            return {**found, "scores": self.scores[0].array}
        return {**found, "scores": _stacked(self.scores, 2)} if self.spec.head else found

    def gradients(self, cotangents: Cotangents) -> Named:
        """All gradients, samples first, under the names that a backend gives them."""
        array = self.ops.constant
        seeds: list[tuple[Value, Array]] = []
        for values, given, axis in (
            (self.outputs, cotangents.outputs, 1),
            *((self.final_states[name], given, 0) for name, given in (cotangents.final_states or {}).items()),
            (self.scores, cotangents.scores, 1),
        ):
            if given is not None:
                parts = np.moveaxis(given, axis, 0) if given.ndim == 3 else [given]
                seeds += [(value, array(part)) for value, part in zip(values, parts, strict=True)]
        return self.derivatives(seeds)

    def derivatives(self, seeds: list[tuple[Value, Array]]) -> Named:
        """The gradients of the sum of seeds times values."""
        inputs, source = (self.inputs, self.source) if self.everything else ([], [])
        states = self.states if self.everything and self.context is None else {}
        contexts = [self.context] if self.everything and self.context else []
        leaves = [
            *self.weights.values(),
            *inputs,
            *source,
            *(v for values in states.values() for v in values),
            *contexts,
        ]
        waiting = iter(pulled_back(seeds, leaves))
        found = {name: _weight_shaped(name, next(waiting)) for name in self.weights}
        if inputs:
            found["inputs"] = _stacked_arrays([next(waiting) for _ in inputs], 2)
        if source:
            found["source"] = _stacked_arrays([next(waiting) for _ in source], 2)
        of_states = {name: _stacked_arrays([next(waiting) for _ in values], 1) for name, values in states.items()}
        found |= state_gradients(self.spec, of_states) if states else {}
        return found | dict(zip(("context",), waiting, strict=False))


class Oracle:
    """One model under the oracle.

    Args:
        spec: what the model is.
        weights: its canonical weights, samples first, in the arithmetic's numbers.
        ops: the arithmetic.
        derivatives: by what they are to be taken: `everything`, `weights` or `nothing`.
    """

    def __init__(
        self, spec: ModelSpec, weights: Mapping[str, Array], ops: Exact, derivatives: str = "everything"
    ) -> None:
        self.spec, self.ops, self.everything = spec, ops, derivatives == "everything"
        self.cell = spec.cell_definition
        self.weights = {
            name: Value(array if array.ndim == 3 else array[:, None], ops, wanted=derivatives != "nothing")
            for name, array in weights.items()
        }
        named = {name: self._nonlinearity(name, tree) for name, tree in self.cell.nonlinearities.items()}
        self.functions = {**named, **_PRIMITIVES, "f": named[spec.nonlinearity]}

    def run(
        self,
        given: Inputs,
        carried: Mapping[str, Array] | None = None,
        context: Value | None = None,
        masks: Masks | None = None,
    ) -> OracleRun:
        """All rows of the inputs; from carried states (S, L*D, B, H), or from a context that was computed.

        With masks of dropout, where there are any.
        """
        rows, steps = given.inputs.shape[:2]
        mask = np.ones((rows, steps), bool) if given.mask is None else given.mask
        valid = [np.flatnonzero(mask[:, t]) for t in range(steps)]
        inputs, series = self._series(given, valid)
        states, context = self._initial(given, rows, carried, context)
        final: dict[str, list[Value]] = {name: [] for name in self.cell.states}
        for layer in range(self.spec.num_layers):
            series = self._layer(layer, series, valid, states, final, masks)
        scores = self._scores(series, valid, final)
        return OracleRun(self.spec, series, final, scores, self.weights, inputs, states, context, self.everything)

    def _series(self, given: Inputs, valid: list[Array]) -> tuple[list[Value], list[Value]]:
        """The leaves among the inputs, and the vectors that the first layer reads, both by time."""
        rows = len(given.inputs)
        if self.spec.embedding:
            table, empty = self.weights["embedding.weight"], self._zeros(rows, self.spec.input_size)
            return [], [
                empty.put(seen, table.rows_at(given.inputs[seen, t].astype(int))) for t, seen in enumerate(valid)
            ]
        leaves = []
        for t, seen in enumerate(valid):
            vectors = np.zeros((rows, self.spec.input_size))
            vectors[seen] = given.inputs[seen, t]
            leaves.append(self._leaf(self.ops.constant(vectors)))
        return leaves, leaves

    def _initial(
        self, given: Inputs, rows: int, carried: Mapping[str, Array] | None, context: Value | None
    ) -> tuple[dict[str, list[Value]], Value | None]:
        """The states before the first step, index l*D + d, and the context that the first of them came from."""
        count, size = self.spec.num_layers * self.spec.num_directions, self.spec.hidden_size
        if carried is None:
            given_states = given.initial_states or dict.fromkeys(self.cell.states, np.zeros((count, rows, size)))
            carried = {name: self.ops.constant(vectors) for name, vectors in given_states.items()}
        states = {name: [self._leaf(carried[name][:, i]) for i in range(count)] for name in self.cell.states}
        if given.context is not None:
            context = self._leaf(self.ops.constant(given.context))
        if context is None:
            return states, None
        vector = self.weights["context.weight"] @ context + self.weights["context.bias"]
        states[self.cell.states[0]] = [vector.units(i * size, (i + 1) * size) for i in range(count)]
        return states, context

    def _layer(
        self,
        layer: int,
        series: list[Value],
        valid: list[Array],
        initial: dict[str, list[Value]],
        final: dict[str, list[Value]],
        masks: Masks | None,
    ) -> list[Value]:
        rows, size, outputs = series[0].array.shape[1], self.spec.hidden_size, []
        for d, direction in enumerate(self.spec.directions):
            prefix = f"layers.{layer}.{direction}."
            own = {name.removeprefix(prefix): value for name, value in self.weights.items() if name.startswith(prefix)}
            states = {name: values[layer * self.spec.num_directions + d] for name, values in initial.items()}
            inputs, read = (
                factors(self.ops, self.spec.dropout, masks, kind, (layer, d), (rows, units))
                for kind, units in (("inputs", self.spec.layer_input_size(layer)), ("state", size))
            )
            empty = self._zeros(rows, size)
            found = [empty] * len(series)
            times = range(len(series))
            for t in reversed(times) if direction == "backward" else times:
                if valid[t].size:
                    self.ops.round_of(prefix)
                    before = {name: state.take(valid[t]) for name, state in states.items()}
                    x = _times(series[t], inputs).take(valid[t])
                    after = self._step(own, x, before, read and read.take(valid[t]))
                    states = {name: state.put(valid[t], after[name]) for name, state in states.items()}
                    found[t] = empty.put(valid[t], after[self.cell.output])
            outputs.append(found)
            for name, state in states.items():
                final[name].append(state)
        merged = [self._merged([found[t] for found in outputs]) for t in range(len(series))]
        if layer == self.spec.num_layers - 1:
            return merged
        shape = rows, self.spec.output_size
        return [
            _times(y, factors(self.ops, self.spec.dropout, masks, "between_layers", (layer, 0), shape, t))
            for t, y in enumerate(merged)
        ]

    def _step(
        self, own: Mapping[str, Value], x: Value, states: Mapping[str, Value], read: Value | None
    ) -> dict[str, Value]:
        """The cell's equations, evaluated with the parameters of one layer and direction; q reads the dropped state."""
        values: dict[str, Any] = {**own, **states, "x": x}
        dropped = {self.cell.output: _times(states[self.cell.output], read)}
        size = self.spec.hidden_size
        p, q = (
            expressions.compiled(self.cell.projections[self.spec.bias][side])(values | read_by, self.functions)
            for side, read_by in (("p", {}), ("q", dropped))
        )
        if self.spec.bias != "none":
            p = p.reordered(q, own["bias" if self.spec.bias == "single" else "input_bias"])
        for g, gate in enumerate(self.cell.gates):
            for side, projection in (("p", p), ("q", q)):
                values[f"{side}.{gate}"] = projection.units(g * size, (g + 1) * size)
        new: dict[str, Value] = {}
        for name, tree in self.cell.step.items():
            (new if name in states else values)[name] = expressions.compiled(tree)(values, self.functions)
        return new

    def _merged(self, vectors: list[Value]) -> Value:
        if len(vectors) == 1:
            return vectors[0]
        forward, backward = vectors
        self.ops.round_of("merge")
        match self.spec.merge:
            case "concat":
                return forward.joined(backward)
            case "multiply":
                return forward * backward
            case "average":
                return (forward + backward) / 2
        return forward + backward

    def _scores(self, series: list[Value], valid: list[Array], final: dict[str, list[Value]]) -> list[Value]:
        if self.spec.head is None:
            return []
        if self.spec.head.reads == "final":
            return [self._score(self._merged(final[self.cell.output][-self.spec.num_directions :]))]
        empty = self._zeros(series[0].array.shape[1], self.spec.head.size)
        return [
            empty.put(seen, self._score(series[t].take(seen))) if seen.size else empty for t, seen in enumerate(valid)
        ]

    def _score(self, features: Value) -> Value:
        self.ops.round_of("scores")
        scores = self.weights["head.weight"] @ features
        return scores + self.weights["head.bias"] if "head.bias" in self.weights else scores

    def _nonlinearity(self, name: str, tree: ast.expr) -> Any:
        """The function of that name; its derivative is the spec's where that gives one in terms of the value y."""
        function, derivative = expressions.compiled(tree), self.cell.derivatives.get(name)
        if derivative is None:
            return lambda a: function({"a": a}, _PRIMITIVES)
        slope = expressions.compiled(derivative)
        return lambda a: a.through(
            function({"a": Value(a.array, self.ops)}, _PRIMITIVES).array, lambda y: slope({"y": y}, _PRIMITIVES)
        )

    def _leaf(self, array: Array) -> Value:
        return Value(array, self.ops, wanted=self.everything)

    def _zeros(self, rows: int, units: int) -> Value:
        return Value(self.ops.zeros((1, rows, units)), self.ops)


_PRIMITIVES: dict[str, Any] = {
    "exp": Value.exp,
    "tanh": Value.tanh,
    "max": Value.maximum,
}


def _times(value: Value, factors: Value | None) -> Value:
    return value if factors is None else value * factors


def _stacked(values: list[Value], axis: int) -> Array:
    return _stacked_arrays([value.array for value in values], axis)


def _stacked_arrays(arrays: list[Array], axis: int) -> Array:
    return np.stack(np.broadcast_arrays(*arrays), axis=axis)


def _weight_shaped(name: str, array: Array) -> Array:
    return array[:, 0] if name.endswith("bias") else array
