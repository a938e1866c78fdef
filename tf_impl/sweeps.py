"""Layers run on one part of a sequence after the other, with a gradient that runs each part again."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ..spec.errors import UnsupportedError
from .optimizers import dense

Tensor = Any
Tensors = dict[str, Any]
Given = dict[str, Any]
Run = Callable[[Any, Tensor, Tensor | None, Tensors, Any], tuple[Sequence[Tensor], Tensors]]


class Parts:
    """A sequence in K parts of about sqrt(T) steps.

    Args:
        run: of weights, the inputs (B, t, ...) of a part, its mask (B, t), the initial states (l*D, B, H) of the first
            layers, and how many steps the longest part has, what all layers give for each step, tensors (B, t, _), and
            the final states (l*D, B, H).
        inputs: (B, T, ...).
        valid: (B, T), or None.
        names: of the states.
    """

    def __init__(self, run: Run, inputs: Tensor, valid: Tensor | None, names: tuple[str, ...]) -> None:
        self.run, self.inputs, self.valid, self.names = run, inputs, valid, names
        steps = tf.shape(inputs)[1]
        self.size = tf.cast(tf.math.ceil(tf.sqrt(tf.cast(steps, tf.float64))), tf.int32)
        self.count = -(-steps // self.size)

    def part(self, series: Tensor, k: Tensor) -> Tensor:
        """A part of a series (B, T, ...)."""
        return series[:, k * self.size : (k + 1) * self.size]

    def __call__(self, k: Tensor, weights: Any, x: Tensor, starts: Tensors) -> tuple[Sequence[Tensor], Tensors]:
        """What is given for the steps of a part with inputs x, and the states after it from those before, by row."""
        rows, mask = len(starts) // len(self.names), None if self.valid is None else self.part(self.valid, k)
        given, final = self.run(weights, x, mask, self.by_name(starts, rows), self.size)
        ends = self.by_row(final, rows)
        for key, state in ends.items():
            state.set_shape(starts[key].shape)
        return given, ends

    def each(self, body: Callable[..., Any], start: tuple[Any, ...], backward: bool) -> Any:
        """What a body makes of that, called with k for each part; one at a time, as others would take memory early."""

        def one(k: Tensor, *values: Any) -> Any:
            return (k - 1 if backward else k + 1, *body(k, *values))

        first = self.count - 1 if backward else tf.zeros_like(self.count)
        loop = (lambda k, *_: k >= 0) if backward else (lambda k, *_: k < self.count)
        return tf.while_loop(loop, one, (first, *start), parallel_iterations=1)[1:]

    def arrays(self, states: Tensors) -> dict[str, Any]:
        """For states (B, H) before or after each part."""
        return {key: tf.TensorArray(h.dtype, self.count, element_shape=h.shape) for key, h in states.items()}

    def series(self, dtype: Any) -> Any:
        """For a series, in the order of time."""
        return tf.TensorArray(dtype, self.count, infer_shape=False)

    def keys(self, rows: Sequence[int]) -> list[str]:
        """The keys of some rows of all states."""
        return [f"{name}.{row}" for name in self.names for row in rows]

    def by_row(self, states: Tensors, rows: int) -> Tensors:
        """States (rows, B, H) by name as (B, H) by key."""
        return {f"{name}.{row}": h for name, each in states.items() for row, h in enumerate(tf.unstack(each, rows))}

    def by_name(self, states: Tensors, rows: int) -> Tensors:
        """The other way round."""
        return {name: tf.stack([states[f"{name}.{row}"] for row in range(rows)]) for name in self.names}


def sweep(
    parts: Parts, weights: Any, known: Tensors, start: Tensors, series: int, backward: bool
) -> tuple[list[Tensor], Tensors, Tensors]:
    """What is given for each step, and of the own rows the states (K, B, H) before each part, and the final ones.

    Args:
        parts: of which each is run.
        weights: a structure of tensors.
        known: (K, B, H), the states before each part of the rows that are not this sweep's own, by key.
        start: (B, H), the initial states of its own rows, by key.
        series: how many tensors (B, T, _) are given.
        backward: the last part comes first.
    """
    given = {"weights": weights, "known": known, "start": start}
    given |= {"x": parts.inputs} if parts.inputs.dtype.is_floating else {}  # tokens have no gradient
    count = len(tf.nest.flatten(given))

    @tf.custom_gradient
    def swept(*values: Tensor) -> Any:
        results = _run(parts, _unwatched(given, values), series, backward)

        @tf.custom_gradient
        def gradient(*values_and_cotangents: Tensor) -> Any:
            values, cotangents = values_and_cotangents[:count], values_and_cotangents[count:]
            kept = tf.nest.map_structure(tf.stop_gradient, results[1])
            found = _gradient(parts, _unwatched(given, values), kept, _unwatched(results, cotangents), backward)
            return tf.nest.flatten(found), _refuse

        return tf.nest.flatten(results), lambda *cotangents: gradient(*values, *cotangents)

    structure = [0] * series, dict.fromkeys(start, 0), dict.fromkeys(start, 0)
    found, kept, final = tf.nest.pack_sequence_as(structure, swept(*tf.nest.flatten(given)))
    return found, kept, final


def _run(parts: Parts, given: Given, series: int, backward: bool) -> tuple[list[Tensor], Tensors, Tensors]:
    x, start = given.get("x", parts.inputs), given["start"]
    dtype = next(iter(start.values())).dtype

    def one(k: Tensor, states: Tensors, kept: Any, found: Any) -> Any:
        before = states | {key: each[k] for key, each in given["known"].items()}
        new, after = parts(k, given["weights"], parts.part(x, k), before)
        kept = {key: array.write(k, states[key]) for key, array in kept.items()}
        found = [array.write(k, _turned(y)) for array, y in zip(found, new, strict=False)]  # none may be wanted
        return {key: after[key] for key in states}, kept, found

    arrays = parts.arrays(start), [parts.series(dtype) for _ in range(series)]
    final, kept, found = parts.each(one, (start, *arrays), backward)
    return [_turned(array.concat()) for array in found], _stacked(kept), final


def _gradient(parts: Parts, given: Given, kept: Tensors, cotangents: Any, backward: bool) -> Given:
    """What is given, differentiated by."""
    d_found, d_kept, d_final = cotangents
    before, x = given["known"] | kept, given.get("x")

    def one(k: Tensor, d_states: Tensors, sums: Any, d_known: Any, d_x: Any) -> Any:
        own = {"weights": given["weights"], "before": {key: each[k] for key, each in before.items()}}
        own |= {} if x is None else {"x": parts.part(x, k)}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(own)
            inputs = own["x"] if "x" in own else parts.part(parts.inputs, k)
            new, after = parts(k, own["weights"], inputs, own["before"])
            results = {key: after[key] for key in d_states} | {str(i): new[i] for i in range(len(d_found))}
        d_results = d_states | {str(i): parts.part(d, k) for i, d in enumerate(d_found)}
        d = tape.gradient(results, own, d_results, tf.UnconnectedGradients.ZERO)
        sums = tf.nest.map_structure(lambda total, more: total + dense(more), sums, d["weights"])
        d_known = {key: array.write(k, d["before"][key]) for key, array in d_known.items()}
        d_x = [array.write(k, _turned(d["x"])) for array in d_x]
        return {key: d["before"][key] + d_kept[key][k] for key in d_states}, sums, d_known, d_x

    zeros = tf.nest.map_structure(tf.zeros_like, given["weights"])
    arrays = (
        parts.arrays({key: each[0] for key, each in given["known"].items()}),
        [] if x is None else [parts.series(x.dtype)],
    )
    d_start, sums, d_known, d_x = parts.each(one, (d_final, zeros, *arrays), not backward)
    found = {"weights": sums, "known": _stacked(d_known), "start": d_start}
    return found if x is None else found | {"x": _turned(d_x[0].concat())}


def _unwatched(structure: Any, values: Sequence[Tensor]) -> Any:
    """The values in a structure, hidden from tapes, which would derive what has a gradient of its own."""
    return tf.nest.pack_sequence_as(structure, [tf.stop_gradient(value) for value in values])


def _stacked(arrays: dict[str, Any]) -> Tensors:
    return {key: array.stack() for key, array in arrays.items()}


def _turned(series: Tensor) -> Tensor:
    """(B, T, N) as (T, B, N), and back."""
    return tf.transpose(series, [1, 0, 2])


def _refuse(*cotangents: Tensor) -> Any:
    raise UnsupportedError(
        "recompute: expected first derivatives by tf.GradientTape, got a derivative of gradients or one forward; "
        "set layer.recompute = False"
    )
