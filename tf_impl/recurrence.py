"""The loop over time, forward and backward in time order: one direction of one layer (SPEC.md, 3 and 6).

It owns the product with the recurrent kernel, the mask and the order of the steps; the cell is elementwise.
A backward direction is the same loop over flipped series. Each loop is one graph for every B, T and H, traced
once in a process, so that eager calls run a graph too; long ones are compiled by XLA (`fast`).

Arguments stand in a dict: `p` (T, B, G*H), `recurrent_kernel` (H, G*H), `initial.{state}` (B, H) each, and where
there are any, `recurrent_bias` (G*H,), `mask` (T, B, 1) and `factors` (B, H), of dropout: the recurrent kernel reads
the state times these.
"""

from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import tensorflow as tf

from ..spec.model import ModelSpec
from . import fast
from .cells import load_cell
from .nonlinearities import NONLINEARITIES, Nonlinearity

Tensor = Any
Tensors = dict[str, Any]


class Step(NamedTuple):
    """What a step computes: the names of the cell's states and of its output, its code, and the nonlinearity."""

    states: tuple[str, ...]
    output: str
    code: ModuleType
    nonlinearity: str

    @property
    def f(self) -> Nonlinearity:
        return NONLINEARITIES[self.nonlinearity]


def step_of(spec: ModelSpec) -> Step:
    """The step of a model's cell. Raises UnsupportedError when this backend lacks the cell."""
    cell = spec.cell_definition
    return Step(cell.states, cell.output, load_cell(cell.name), spec.nonlinearity)


def worth(spec: ModelSpec, rows: int, steps: int) -> bool:
    """Whether the loops of a model are worth compiling for that many rows and steps."""
    return fast.worth(steps, rows, spec.hidden_size, len(spec.cell_definition.gates) * spec.hidden_size)


def run(step: Step, arguments: Tensors) -> tuple[Tensor, Tensors]:
    """Outputs (T, B, H) and final states (B, H) by name.

    The gradients are those of `backward`; gradients of gradients are TensorFlow's own, of the plain loop.
    """
    optional = tuple(name for name in ("recurrent_bias", "mask", "factors") if name in arguments)
    loop = _loop(step, arguments["p"].dtype.name, optional)
    constant = {name: value for name, value in arguments.items() if name in ("mask", "factors")}
    names = [name for name in arguments if name not in constant]

    @tf.custom_gradient
    def outputs_and_final(*values: Tensor) -> Any:
        unwatched = map(tf.stop_gradient, values)  # else a tape derives the loop's graph too, in 0.2 s, for nothing
        results, tape = loop.forward(dict(zip(names, unwatched, strict=True)) | constant)

        @tf.custom_gradient
        def gradient(*values_and_cotangents: Tensor) -> Any:
            given = dict(zip(names, values_and_cotangents, strict=False))
            d_results = values_and_cotangents[len(names) :]
            d_given = loop.backward(given | constant, tape, d_results)

            def gradient_of_gradient(*cotangents: Tensor) -> Any:
                d_d = loop.second(given, constant, d_results, dict(zip(names, cotangents, strict=True)))
                return (*(d_d[0][name] for name in names), *d_d[1])

            return tuple(d_given[name] for name in names), gradient_of_gradient

        return results, lambda *d_results: gradient(*values, *d_results)

    y, *final = outputs_and_final(*(arguments[name] for name in names))
    return y, dict(zip(step.states, final, strict=True))


def forward(step: Step, given: Tensors) -> tuple[tuple[Tensor, ...], Tensors]:
    """Outputs (T, B, H) and final states (B, H) in the cell's order; and the tape: what the backward loop reads again.

    The tape has the states by name, (T+1, B, H), before the first step and after each; and `q` (T, B, G*H) where the
    cell reads it again.
    """
    final, tape = states(step, given)
    return (outputs(step, given, tape), *final), tape


def states(step: Step, given: Tensors) -> tuple[tuple[Tensor, ...], Tensors]:
    """The final states, and the tape."""
    steps, keep = _steps(given), step.code.KEEPS_PROJECTIONS
    p, mask = _series(given["p"]), _series(given.get("mask"))
    initial = {name: given[f"initial.{name}"] for name in step.states}
    kept = {name: _empty(given["p"], 1).write(0, start) for name, start in initial.items()}
    kept |= {"q": _empty(given["p"])} if keep else {}

    def body(t: Tensor, states: Tensors, kept: Tensors) -> Any:
        q = _times(states[step.output], given) @ given["recurrent_kernel"]  # (B, G*H)
        if "recurrent_bias" in given:
            q += given["recurrent_bias"]
        new = step.code.step(p.read(t), q, states, step.f)
        if mask is not None:
            new = {name: tf.where(mask.read(t), value, states[name]) for name, value in new.items()}
        new = _shaped({name: new[name] for name in states}, initial)
        written = {name: kept[name].write(t + 1, value) for name, value in new.items()}
        return t + 1, new, written | ({"q": kept["q"].write(t, q)} if keep else {})

    _, final, kept = tf.while_loop(lambda t, *_: t < steps, body, (0, initial, kept))
    return tuple(final[name] for name in step.states), {name: array.stack() for name, array in kept.items()}


def outputs(step: Step, given: Tensors, tape: Tensors) -> Tensor:
    """The outputs (T, B, H), of a tape that may be longer."""
    y = tape[step.output][1 : tf.shape(given["p"])[0] + 1]
    return tf.where(given["mask"], y, tf.zeros([], y.dtype)) if "mask" in given else y


def backward(step: Step, given: Tensors, tape: Tensors, d_results: tuple[Tensor, ...]) -> Tensors:
    """Gradients of all arguments but mask and factors, by name, for cotangents of outputs and final states."""
    steps, keep, additive = _steps(given), step.code.KEEPS_PROJECTIONS, step.code.ADDITIVE
    zero = tf.zeros([], given["p"].dtype)
    d_outputs, mask = _series(d_results[0]), _series(given.get("mask"))
    p, q = (_series(given["p"]), _series(tape["q"])) if keep else (None, None)
    series = {name: _series(tape[name]) for name in step.states}
    transposed = tf.transpose(given["recurrent_kernel"])
    d_final = dict(zip(step.states, d_results[1:], strict=True))

    def body(t: Tensor, d_states: Tensors, written: Tensors) -> Any:
        old, new = ({name: array.read(s) for name, array in series.items()} for s in (t, t + 1))
        d_y = d_outputs.read(t) if mask is None else tf.where(mask.read(t), d_outputs.read(t), zero)
        d_new = d_states | {step.output: d_states[step.output] + d_y}
        d_p, d_q, d_old = step.code.step_gradient(
            None if p is None else p.read(t), None if q is None else q.read(t), old, new, d_new, step.f
        )
        if mask is not None:
            d_p, d_q = (tf.where(mask.read(t), d, zero) for d in (d_p, d_q))
        d_h = _times(d_q @ transposed, given)  # (B, H)
        d_old = d_old | {step.output: d_old[step.output] + d_h if tf.is_tensor(d_old[step.output]) else d_h}
        if mask is not None:
            d_old = {name: tf.where(mask.read(t), d, d_states[name]) for name, d in d_old.items()}
        projections = {"p": d_p} | ({} if additive else {"q": d_q})
        return (
            t - 1,
            _shaped({name: d_old[name] for name in d_states}, d_final),
            {name: array.write(t, projections[name]) for name, array in written.items()},
        )

    empty = {name: _empty(given["p"]) for name in (("p",) if additive else ("p", "q"))}
    _, d_initial, written = tf.while_loop(lambda t, *_: t >= 0, body, (steps - 1, d_final, empty))
    d_p = written["p"].stack()  # (T, B, G*H)
    d_q = _flat(d_p if additive else written["q"].stack())  # (T*B, G*H)
    gradients = {"p": d_p, **{f"initial.{name}": d for name, d in d_initial.items()}}
    h = _times(tape[step.output][:-1], given)  # (T, B, H)
    gradients["recurrent_kernel"] = tf.matmul(_flat(h), d_q, transpose_a=True)
    if "recurrent_bias" in given:
        gradients["recurrent_bias"] = tf.reduce_sum(d_q, 0)
    return gradients


def second(step: Step, given: Tensors, constant: Tensors, d_results: tuple[Tensor, ...], cotangents: Tensors) -> Any:
    """Derivative of the gradients by the arguments and by the results' cotangents: TensorFlow's, of the plain loop."""
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch([given, d_results])
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(given)
            results, _ = forward(step, given | constant)
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
    given |= {name: shapes[name] for name in optional}
    tape = dict.fromkeys((*step.states, *(("q",) if step.code.KEEPS_PROJECTIONS else ())), numbers[3])
    d_results = (numbers[3], *(numbers[2] for _ in step.states))
    fastest = fast.Loop(
        partial(states, step),
        partial(outputs, step),
        partial(backward, step),
        lambda: _graph(partial(forward, step), given),
        lambda: _graph(partial(backward, step), given, tape, d_results),
    )
    return _Loop(
        fastest.forward,
        fastest.backward,
        tf.function(lambda *arguments: second(step, *arguments), reduce_retracing=True, autograph=False),
    )


def _graph(function: Callable[..., Any], *signature: Any) -> Any:
    return tf.function(function, autograph=False).get_concrete_function(*signature)


def _times(h: Tensor, given: Tensors) -> Tensor:
    return h * given["factors"] if "factors" in given else h


def _shaped(values: Tensors, start: Tensors) -> Tensors:
    """The values of a loop with what is known of the shapes that they start with; a loop lets none be forgotten."""
    for name, value in values.items():
        value.set_shape(start[name].shape)
    return values


def _series(values: Tensor | None) -> Any:
    if values is None:
        return None
    return tf.TensorArray(values.dtype, tf.shape(values)[0], clear_after_read=False).unstack(values)


def _empty(like: Tensor, more: int = 0) -> Any:
    return tf.TensorArray(like.dtype, tf.shape(like)[0] + more)


def _steps(given: Tensors) -> Tensor:
    """T, or how many of the series' steps there are; the others are 0 in the results."""
    return given["steps"] if "steps" in given else tf.shape(given["p"])[0]


def _flat(series: Tensor) -> Tensor:
    return tf.reshape(series, [-1, tf.shape(series)[2]])  # (T*B, N)
