"""The loop over time, forward and backward in time order: one direction of one layer (SPEC.md, 3 and 6).

It owns the product with the recurrent kernel, the mask and the order of the steps; the cell is elementwise. Each loop
is one graph for every B, T and H, traced once in a process, so that eager calls run a graph too; long ones are
compiled by XLA (`fast`).

Arguments stand in a dict: `p` (B, T, G*H), `recurrent_kernel` (H, G*H), `initial.{state}` (B, H) each, and where
there are any, `recurrent_bias` (G*H,), `mask` (B, T, 1), `factors` (B, H), of dropout: the recurrent kernel reads the
state times these; and `steps`, how many there are of T where the series are longer.
"""

from functools import cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import tensorflow as tf

from ..spec.model import ModelSpec
from . import fast
from .cells import load_cell
from .nonlinearities import NONLINEARITIES, Nonlinearity
from .series import ARRAYS, Storage

Tensor = Any
Tensors = dict[str, Any]
CONSTANT = ("mask", "factors", "steps")  # arguments that nothing is derived by


class Step(NamedTuple):
    """What a step computes: the names of the cell's states and of its output, its code, and the nonlinearity.

    Attributes:
        reverse: the last step comes first.
    """

    states: tuple[str, ...]
    output: str
    code: ModuleType
    nonlinearity: str
    reverse: bool

    @property
    def f(self) -> Nonlinearity:
        return NONLINEARITIES[self.nonlinearity]


def step_of(spec: ModelSpec, direction: str) -> Step:
    """The step of a model's cell. Raises UnsupportedError when this backend lacks the cell."""
    cell = spec.cell_definition
    return Step(cell.states, cell.output, load_cell(cell.name), spec.nonlinearity, direction == "backward")


def run(step: Step, arguments: Tensors, compiled: Any) -> tuple[Tensor, Tensors]:
    """Outputs (B, T, H) and final states (B, H) by name; compiled: whether by XLA, a bool or a tensor of one.

    The gradients are those of `backward`; gradients of gradients are TensorFlow's own, of the plain loop.
    """
    optional = tuple(name for name in ("recurrent_bias", *CONSTANT) if name in arguments)
    loop = _loop(step, arguments["p"].dtype.name, optional)
    constant = {name: value for name, value in arguments.items() if name in CONSTANT}
    names = [name for name in arguments if name not in constant]

    @tf.custom_gradient
    def outputs_and_final(*values: Tensor) -> Any:
        unwatched = map(tf.stop_gradient, values)  # else a tape derives the loop's graph too, in 0.2 s, for nothing
        given = dict(zip(names, unwatched, strict=True)) | constant
        results, tape = loop.forward(compiled, given)

        @tf.custom_gradient
        def gradient(*values_and_cotangents: Tensor) -> Any:
            given = dict(zip(names, values_and_cotangents, strict=False))
            d_results = values_and_cotangents[len(names) :]
            d_given = loop.backward(compiled, given | constant, tape, d_results)

            def gradient_of_gradient(*cotangents: Tensor) -> Any:
                d_d = loop.second(given, constant, d_results, dict(zip(names, cotangents, strict=True)))
                return (*(d_d[0][name] for name in names), *d_d[1])

            return tuple(d_given[name] for name in names), gradient_of_gradient

        return results, lambda *d_results: gradient(*values, *d_results)

    y, *final = outputs_and_final(*(arguments[name] for name in names))
    return y, dict(zip(step.states, final, strict=True))


def forward(step: Step, storage: Storage, given: Tensors) -> tuple[tuple[Tensor, ...], Tensors]:
    """The final states (B, H) in the cell's order, and the tape: what the backward loop reads again.

    The tape has the states after each step by name, (B, T, H), and `q` (B, T, G*H) where the cell reads it again.
    """
    steps, keep = _steps(given), step.code.KEEPS_PROJECTIONS
    p, mask = storage.opened(given["p"]), storage.opened(given.get("mask"))
    initial = {name: given[f"initial.{name}"] for name in step.states}
    kept = {name: storage.empty(given["p"], start.shape[1]) for name, start in initial.items()}
    if step.reverse and "steps" in given:  # what comes before the first step stands where `_before` looks for it
        last = tf.minimum(steps, tf.shape(given["p"])[1] - 1)
        kept = {name: storage.written(series, last, initial[name]) for name, series in kept.items()}
    kept |= {"q": storage.empty(given["p"], given["p"].shape[2])} if keep else {}

    def body(k: Tensor, states: Tensors, kept: Tensors) -> Any:
        t = steps - 1 - k if step.reverse else k
        q = _times(states[step.output], given) @ given["recurrent_kernel"]  # (B, G*H)
        if "recurrent_bias" in given:
            q += given["recurrent_bias"]
        new = step.code.step(storage.read(p, t), q, states, step.f)
        if mask is not None:
            new = {name: tf.where(storage.read(mask, t), value, states[name]) for name, value in new.items()}
        new = _shaped({name: new[name] for name in states}, initial)
        values = new | ({"q": q} if keep else {})
        return k + 1, new, {name: storage.written(series, t, values[name]) for name, series in kept.items()}

    _, final, kept = tf.while_loop(lambda k, *_: k < steps, body, (0, initial, kept))
    return tuple(final[name] for name in step.states), {name: storage.closed(series) for name, series in kept.items()}


def backward(step: Step, storage: Storage, given: Tensors, tape: Tensors, d_results: tuple[Tensor, ...]) -> Tensors:
    """Gradients of `p`, of the initial states, and of `q` where it is not that of p, for cotangents of the results."""
    steps, keep, additive = _steps(given), step.code.KEEPS_PROJECTIONS, step.code.ADDITIVE
    zero = tf.zeros([], given["p"].dtype)
    d_outputs, mask = storage.opened(d_results[0]), storage.opened(given.get("mask"))
    p, q = (storage.opened(given["p"]), storage.opened(tape["q"])) if keep else (None, None)
    before = {name: _before(step, tape[name], given[f"initial.{name}"]) for name in step.states}
    series = {name: (storage.opened(before[name]), storage.opened(tape[name])) for name in step.states}
    transposed = tf.transpose(given["recurrent_kernel"])
    d_final = dict(zip(step.states, d_results[1:], strict=True))

    def body(k: Tensor, d_states: Tensors, written: Tensors) -> Any:
        t = steps - 1 - k if step.reverse else k
        old, new = ({name: storage.read(pair[after], t) for name, pair in series.items()} for after in (0, 1))
        d_y = storage.read(d_outputs, t)
        d_y = d_y if mask is None else tf.where(storage.read(mask, t), d_y, zero)
        d_new = d_states | {step.output: d_states[step.output] + d_y}
        d_p, d_q, d_old = step.code.step_gradient(
            None if p is None else storage.read(p, t),
            None if q is None else storage.read(q, t),
            old,
            new,
            d_new,
            step.f,
        )
        if mask is not None:
            d_p, d_q = (tf.where(storage.read(mask, t), d, zero) for d in (d_p, d_q))
        d_h = _times(d_q @ transposed, given)  # (B, H)
        d_old = d_old | {step.output: d_old[step.output] + d_h if tf.is_tensor(d_old[step.output]) else d_h}
        if mask is not None:
            d_old = {name: tf.where(storage.read(mask, t), d, d_states[name]) for name, d in d_old.items()}
        projections = {"p": d_p} | ({} if additive else {"q": d_q})
        return (
            k - 1,
            _shaped({name: d_old[name] for name in d_states}, d_final),
            {name: storage.written(array, t, projections[name]) for name, array in written.items()},
        )

    width = given["p"].shape[2]
    empty = {name: storage.empty(given["p"], width) for name in (("p",) if additive else ("p", "q"))}
    _, d_initial, written = tf.while_loop(lambda k, *_: k >= 0, body, (steps - 1, d_final, empty))
    initial = {f"initial.{name}": d for name, d in d_initial.items()}
    return {name: storage.closed(series) for name, series in written.items()} | initial


def second(step: Step, given: Tensors, constant: Tensors, d_results: tuple[Tensor, ...], cotangents: Tensors) -> Any:
    """Derivative of the gradients by the arguments and by the results' cotangents: TensorFlow's, of the plain loop."""
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch([given, d_results])
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(given)
            results, _ = _results(step, forward(step, ARRAYS, given | constant), given | constant)
        gradients = inner.gradient(results, given, list(d_results), tf.UnconnectedGradients.ZERO)
    return outer.gradient(gradients, (given, d_results), cotangents, tf.UnconnectedGradients.ZERO)


class _Loop(NamedTuple):
    """The graphs of one step."""

    forward: Any
    backward: Any
    second: Any


@cache
def _loop(step: Step, dtype: str, optional: tuple[str, ...]) -> _Loop:
    numbers = [tf.TensorSpec([None] * rank, dtype) for rank in range(4)]  # by rank
    given = {"p": numbers[3], "recurrent_kernel": numbers[2], **{f"initial.{name}": numbers[2] for name in step.states}}
    shapes = {"recurrent_bias": numbers[1], "mask": tf.TensorSpec([None, None, 1], tf.bool), "factors": numbers[2]}
    given |= {name: shapes[name] for name in optional if name in shapes}
    tape = dict.fromkeys((*step.states, *(("q",) if step.code.KEEPS_PROJECTIONS else ())), numbers[3])
    d_results = (numbers[3], *(numbers[2] for _ in step.states))
    return _Loop(
        fast.Either(partial(forward, step), partial(_results, step), given),
        fast.Either(partial(backward, step), partial(_gradients, step), given, tape, d_results),
        tf.function(lambda *arguments: second(step, *arguments), reduce_retracing=True, autograph=False),
    )


def _results(step: Step, found: Any, given: Tensors) -> tuple[tuple[Tensor, ...], Tensors]:
    """Outputs (B, T, H) and final states, and the tape, of what `forward` gives."""
    final, tape = found
    y = tape[step.output]
    return (tf.where(given["mask"], y, tf.zeros([], y.dtype)) if "mask" in given else y, *final), tape


def _gradients(step: Step, found: Tensors, given: Tensors, tape: Tensors, d_results: Any) -> Tensors:
    """Gradients of all arguments but the constant ones, by name, of what `backward` gives."""
    d_q = _flat(found["p"] if step.code.ADDITIVE else found["q"])  # (B*T, G*H)
    h = _before(step, tape[step.output], given[f"initial.{step.output}"])  # (B, T, H)
    h = h * given["factors"][:, None] if "factors" in given else h
    gradients = found | {"recurrent_kernel": tf.matmul(_flat(h), d_q, transpose_a=True)}
    return gradients | ({"recurrent_bias": tf.reduce_sum(d_q, 0)} if "recurrent_bias" in given else {})


def _before(step: Step, states: Tensor, initial: Tensor) -> Tensor:
    """The states before each step, (B, T, H), of those after each."""
    parts = [states[:, 1:], initial[:, None]] if step.reverse else [initial[:, None], states[:, :-1]]
    return tf.concat(parts, 1)


def _times(h: Tensor, given: Tensors) -> Tensor:
    return h * given["factors"] if "factors" in given else h


def _shaped(values: Tensors, start: Tensors) -> Tensors:
    """The values of a loop with what is known of the shapes that they start with; a loop lets none be forgotten."""
    for name, value in values.items():
        value.set_shape(start[name].shape)
    return values


def _steps(given: Tensors) -> Tensor:
    """T, or how many of the series' steps there are."""
    return given["steps"] if "steps" in given else tf.shape(given["p"])[1]


def _flat(series: Tensor) -> Tensor:
    return tf.reshape(series, [-1, tf.shape(series)[2]])  # (B*T, N)
