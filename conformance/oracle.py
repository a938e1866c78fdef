"""The oracle: what a model computes by the letter of the spec.

It shares no code with any backend. It takes the equations out of the cell's YAML and evaluates them for
one row, one layer, one direction and one step after the other, over numbers of any precision. Its
gradients are numerical differentiation at a precision so high that nothing is left to choose.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import expressions
from ..spec.inputs import Cotangents, Inputs, state_gradients
from ..spec.model import ModelSpec
from . import numbers as kinds
from .numbers import Numbers

Array = NDArray[Any]
Named = dict[str, Array]
Trail = list[tuple[dict[int, Array], dict[str, list[Array]]]]  # by layer: its inputs by time, the final states so far
RowValue = Callable[[int, Named, Numbers], Any]  # a row's part of a value, of its number and its results
DIGITS = 40


class Oracle:
    """One model under the oracle.

    Args:
        spec: what the model is.
        weights: its canonical weights, any floating-point dtype; taken as exact.
        numbers: the kind of number to compute with.
    """

    def __init__(self, spec: ModelSpec, weights: Mapping[str, Array], numbers: Numbers) -> None:
        self.spec = spec
        self.cell = spec.cell_definition
        self.numbers = numbers
        self.weights: Named = {name: numbers.array(array) for name, array in weights.items()}
        nonlinearities = {name: self._nonlinearity(name) for name in self.cell.nonlinearities}
        self.functions = {**nonlinearities, **self._primitives(), "f": nonlinearities[spec.nonlinearity]}
        self.ties = 0  # how often `max` met two equal numbers, where it has no derivative

    def run(self, given: Inputs) -> Named:
        """`outputs`, `final_state.{name}` and `scores` of all rows, in this oracle's numbers."""
        with self.numbers.precision():
            rows = [self.row(self.arguments(given, b)) for b in range(len(given.inputs))]
        return {
            name: np.stack([row[name] for row in rows], axis=1 if name.startswith("final_state") else 0)
            for name in rows[0]
        }

    def arguments(self, given: Inputs, b: int) -> Named:
        """One row: `inputs` (T, I) or tokens (T,), `valid` (T,), `initial_state.{name}` (L*D, H), `context` (C,)."""
        steps = given.inputs.shape[1]
        row: Named = {"valid": np.ones(steps, bool) if given.mask is None else given.mask[b]}
        row["inputs"] = given.inputs[b] if self.spec.embedding else self.numbers.array(given.inputs[b])
        zeros = np.zeros(self.spec.state_shape(1)[::2])
        for name in self.cell.states:
            state = zeros if given.initial_states is None else given.initial_states[name][:, b]
            row[f"initial_state.{name}"] = self.numbers.array(state)
        if given.context is not None:
            row["context"] = self.numbers.array(given.context[b])
        return row

    def row(self, row: Named, trail: Trail | None = None, start: int = 0) -> Named:
        """`outputs` (T, F), `final_state.{name}` (L*D, H) and `scores` of one row.

        An empty `trail` is filled with what each layer starts from; with a full one, the layers below
        `start` are not run again.
        """
        states = {name: row[f"initial_state.{name}"] for name in self.cell.states}
        if "context" in row:
            vector = self.weights["context.weight"] @ row["context"] + self.weights["context.bias"]
            states[self.cell.states[0]] = vector.reshape(-1, self.spec.hidden_size)
        series = self._embedded(row)
        final: dict[str, list[Array]] = {name: [] for name in self.cell.states}
        steps = len(row["valid"])
        if trail:
            series, final = trail[start][0], _copied(trail[start][1])
        for layer in range(start, self.spec.num_layers):
            if trail is not None and layer == len(trail):
                trail.append((series, _copied(final)))
            series = self._layer(layer, series, states, final)
        if trail is not None and len(trail) == self.spec.num_layers:
            trail.append((series, _copied(final)))
        empty = self.numbers.array(np.zeros(self.spec.output_size))
        found = {"outputs": np.stack([series.get(t, empty) for t in range(steps)])}
        found |= {f"final_state.{name}": np.stack(vectors) for name, vectors in final.items()}
        return found | self._scores(series, final, steps)

    def _embedded(self, row: Named) -> dict[int, Array]:
        """The vectors of the valid steps, by time."""
        times = [int(t) for t in np.flatnonzero(row["valid"])]
        if self.spec.embedding:
            return {t: self.weights["embedding.weight"][int(row["inputs"][t])] for t in times}
        return {t: row["inputs"][t] for t in times}

    def _layer(
        self, layer: int, series: dict[int, Array], initial: Named, final: dict[str, list[Array]]
    ) -> dict[int, Array]:
        outputs = []
        for d, direction in enumerate(self.spec.directions):
            prefix = f"layers.{layer}.{direction}."
            own = {name.removeprefix(prefix): array for name, array in self.weights.items() if name.startswith(prefix)}
            index = layer * self.spec.num_directions + d
            states = {name: values[index] for name, values in initial.items()}
            found = {}
            for t in sorted(series, reverse=direction == "backward"):
                states = self._step(own, series[t], states)
                found[t] = states[self.cell.output]
            outputs.append(found)
            for name, value in states.items():
                final[name].append(value)
        return {t: self._merged([found[t] for found in outputs]) for t in series}

    def _step(self, own: Named, x: Array, states: Named) -> Named:
        """The cell's equations, evaluated with the parameters of one layer and direction."""
        values: dict[str, Any] = {**own, **states, "x": x}
        size = self.spec.hidden_size
        for side, tree in self.cell.projections[self.spec.bias].items():
            projection = expressions.compiled(tree)(values, self.functions)
            for g, gate in enumerate(self.cell.gates):
                values[f"{side}.{gate}"] = projection[g * size : (g + 1) * size]
        new: Named = {}
        for name, tree in self.cell.step.items():
            (new if name in states else values)[name] = expressions.compiled(tree)(values, self.functions)
        return new

    def _merged(self, vectors: list[Array]) -> Array:
        if len(vectors) == 1:
            return vectors[0]
        forward, backward = vectors
        match self.spec.merge:
            case "concat":
                return np.concatenate(vectors)
            case "multiply":
                return forward * backward
            case "average":
                return (forward + backward) / 2
        return forward + backward

    def _scores(self, series: dict[int, Array], final: dict[str, list[Array]], steps: int) -> Named:
        if self.spec.head is None:
            return {}
        if self.spec.head.reads == "final":
            return {"scores": self._score(self._merged(final[self.cell.output][-self.spec.num_directions :]))}
        empty = self.numbers.array(np.zeros(self.spec.head.size))
        return {"scores": np.stack([self._score(series[t]) if t in series else empty for t in range(steps)])}

    def _score(self, features: Array) -> Array:
        scores: Array = self.weights["head.weight"] @ features
        return scores + self.weights["head.bias"] if "head.bias" in self.weights else scores

    def _nonlinearity(self, name: str) -> Any:
        function, primitives = expressions.compiled(self.cell.nonlinearities[name]), self._primitives()
        return lambda a: function({"a": a}, primitives)

    def _primitives(self) -> dict[str, Any]:
        return {**self.numbers.functions, "max": self._max}

    def _max(self, a: Array, b: Any) -> Array:
        other = self.numbers.array(b)
        self.ties += int(np.count_nonzero(a == other))
        return self.numbers.functions["max"](a, other)


def _copied(final: dict[str, list[Array]]) -> dict[str, list[Array]]:
    return {name: list(vectors) for name, vectors in final.items()}


def run(spec: ModelSpec, weights: Mapping[str, Array], given: Inputs, numbers: Numbers | None = None) -> Named:
    """The results of the model, rounded to float64: `outputs`, `final_state.{name}`, `scores`."""
    found = Oracle(spec, weights, numbers or kinds.decimal(DIGITS)).run(given)
    return {name: array.astype(np.float64) for name, array in found.items()}


def gradients(spec: ModelSpec, weights: Mapping[str, Array], given: Inputs, cotangents: Cotangents) -> Named:
    """All gradients, rounded to float64, under the names that a backend gives them."""
    difference = Difference(Oracle(spec, weights, kinds.decimal(DIGITS)), given, contraction(cotangents))
    found = {name: difference.of_weight(name) for name in weights}
    if given.context is not None:
        found["context"] = difference.of_argument("context", axis=0)
    else:
        states = {name: difference.of_argument(f"initial_state.{name}", axis=1) for name in spec.cell_definition.states}
        found |= state_gradients(spec, states)
    if not spec.embedding:
        found["inputs"] = difference.of_argument("inputs", axis=0)
    return found


def contraction(cotangents: Cotangents) -> RowValue:
    """The sum of a row's results times its cotangents."""
    named = {"outputs": cotangents.outputs, "scores": cotangents.scores}
    rows = {name: array for name, array in named.items() if array is not None}
    states = {f"final_state.{name}": array for name, array in (cotangents.final_states or {}).items()}

    @cache
    def own(b: int, numbers: Numbers) -> Named:
        named = {name: array[b] for name, array in rows.items()} | {name: array[:, b] for name, array in states.items()}
        return {name: numbers.array(cotangent) for name, cotangent in named.items()}

    def value(b: int, results: Named, numbers: Numbers) -> Any:
        return sum((results[name] * cotangent).sum() for name, cotangent in own(b, numbers).items())

    return value


class Difference:
    """Difference quotients of a value that is a sum over rows.

    The step is 10**(-digits/2) in one number at a time, and so is the error. Only the rows that a number
    reaches are run again.
    """

    def __init__(self, oracle: Oracle, given: Inputs, value: RowValue) -> None:
        self.oracle = oracle
        self.value = value
        self.h = oracle.numbers.step
        self.rows = range(len(given.inputs))
        self.arguments = [oracle.arguments(given, b) for b in self.rows]
        self.trails: list[Trail] = [[] for _ in self.rows]
        with oracle.numbers.precision():
            self.base = [self._value(b) for b in self.rows]

    def total(self) -> float:
        """The value itself."""
        with self.oracle.numbers.precision():
            return float(sum(self.base))

    def of_weight(self, name: str) -> Array:
        """The gradient of a weight, in its shape."""
        array = self.oracle.weights[name]
        found = np.zeros(array.shape)
        part, *rest = name.split(".")
        start = int(rest[0]) if part == "layers" else self.oracle.spec.num_layers if part == "head" else 0
        with self.oracle.numbers.precision():
            for index in self._entries(array):
                found[index] = float(self._change(start))
        return found

    def of_argument(self, name: str, axis: int) -> Array:
        """The gradient of an argument, its rows along the given axis."""
        rows = []
        for b in self.rows:
            array = self.arguments[b][name]
            rows.append(np.zeros(array.shape))
            with self.oracle.numbers.precision():
                for index in self._entries(array):
                    rows[b][index] = float((self._value(b) - self.base[b]) / self.h)
        return np.stack(rows, axis=axis)

    def along(self, direction: Mapping[str, Array]) -> float:
        """The derivative along a direction in the space of some weights: one number, for large models."""
        kept = {name: self.oracle.weights[name] for name in direction}
        with self.oracle.numbers.precision():
            for name, vector in direction.items():
                self.oracle.weights[name] = kept[name] + self.oracle.numbers.array(vector) * self.h
            change = float(self._change())
        self.oracle.weights.update(kept)
        return change

    def _change(self, start: int = 0) -> Any:
        return sum(self._value(b, start) - self.base[b] for b in self.rows) / self.h

    def _value(self, b: int, start: int = 0) -> Any:
        """The value of a row, the layers below `start` being unchanged."""
        trail = self.trails[b] if start or not self.trails[b] else None
        return self.value(b, self.oracle.row(self.arguments[b], trail, start), self.oracle.numbers)

    def _entries(self, array: Array) -> Iterator[tuple[int, ...]]:
        """Every index in turn, while the number there is larger by h."""
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + self.h
            yield index
            array[index] = kept
