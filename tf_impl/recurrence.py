"""The loop over time, forward and backward in time order: one direction of one layer (SPEC.md, 3 and 6).

It owns the product with the recurrent kernel, the mask and the order of the steps; the cell is elementwise. Each loop
is one graph for every B, T and H, traced once in a process, so that eager calls run a graph too; long ones are
compiled by XLA (`fast`).

Arguments stand in a dict: `p` (B, T, G*H), `recurrent_kernel` (H, G*H), `initial.{state}` (B, H) each, and where
there are any, `recurrent_bias` (G*H,), `mask` (B, T, 1), `factors` (B, H), of dropout: the recurrent kernel reads the
state times these; `ends` (1,), how many steps there are where T is filled up. Packed series, (1, L, ...), come with
`ends` (S,), `places` (B, T) and `before` (L,) of `packing`, and without factors.
"""

from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import tensorflow as tf

from ..spec.errors import UnsupportedError
from ..spec.model import ModelSpec
from . import fast, packing
from .cells import load_cell
from .nonlinearities import NONLINEARITIES, Nonlinearity
from .series import ARRAYS, Storage

Tensor = Any
Tensors = dict[str, Any]
CONSTANT = ("mask", "factors", "ends", "places", "before")  # arguments that nothing is derived by


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
        unwatched = map(tf.stop_gradient, values)  # else a tape derives the graph too, and XLA has no rule
        given = dict(zip(names, unwatched, strict=True)) | constant
        results, tape = loop.forward(compiled, given)

        @tf.custom_gradient
        def gradient(*values_and_cotangents: Tensor) -> Any:
            given = dict(zip(names, values_and_cotangents, strict=False))
            d_results = values_and_cotangents[len(names) :]
            unwatched = tf.nest.map_structure(tf.stop_gradient, (given | constant, tape, d_results))
            d_given = loop.backward(compiled, *unwatched)

            def gradient_of_gradient(*cotangents: Tensor) -> Any:
                _check_tapes_record(cotangents[0])
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
    keep = step.code.KEEPS_PROJECTIONS
    p, mask = storage.opened(given["p"]), storage.opened(given.get("mask"))
    initial = {name: given[f"initial.{name}"] for name in step.states}
    stages = _stages(step, given)
    kept = {name: storage.empty(given["p"], start, stages[-1].high) for name, start in initial.items()}
    kept |= {"q": _nothing(step, storage, given)} if keep else {}

    def body(rows: Any, t: Tensor, states: Tensors, kept: Tensors) -> Any:
        q = _times(states[step.output], given) @ given["recurrent_kernel"]  # (B, G*H)
        if "recurrent_bias" in given:
            q += given["recurrent_bias"]
        new = step.code.step(storage.read(p, t, rows), q, states, step.f)
        if mask is not None:
            new = {name: tf.where(storage.read(mask, t, rows), value, states[name]) for name, value in new.items()}
        values = new | ({"q": q} if keep else {})
        return new, {name: storage.written(series, t, values[name]) for name, series in kept.items()}

    final, kept = _looped(body, stages, step.reverse, initial, kept)
    return tuple(final[name] for name in step.states), {name: storage.closed(series) for name, series in kept.items()}


def backward(step: Step, storage: Storage, given: Tensors, tape: Tensors, d_results: tuple[Tensor, ...]) -> Tensors:
    """Gradients of `p`, of the initial states, and of `q` where it is not that of p, for cotangents of the results."""
    keep, additive = step.code.KEEPS_PROJECTIONS, step.code.ADDITIVE
    zero = tf.zeros([], given["p"].dtype)
    d_outputs, mask = storage.opened(d_results[0]), storage.opened(given.get("mask"))
    p, q = (storage.opened(given["p"]), storage.opened(tape["q"])) if keep else (None, None)
    before = {name: _before(step, tape[name], name, given) for name in step.states}
    series = {name: (storage.opened(before[name]), storage.opened(tape[name])) for name in step.states}
    transposed = tf.transpose(given["recurrent_kernel"])
    d_final = dict(zip(step.states, d_results[1:], strict=True))

    def body(rows: Any, t: Tensor, d_states: Tensors, written: Tensors) -> Any:
        old, new = ({name: storage.read(pair[k], t, rows) for name, pair in series.items()} for k in (0, 1))
        valid = None if mask is None else storage.read(mask, t, rows)
        d_y = storage.read(d_outputs, t, rows)
        d_y = d_y if valid is None else tf.where(valid, d_y, zero)
        d_new = d_states | {step.output: d_states[step.output] + d_y}
        projections = (None if each is None else storage.read(each, t, rows) for each in (p, q))
        d_p, d_q, d_old = step.code.step_gradient(*projections, old, new, d_new, step.f)
        if valid is not None:
            d_p, d_q = (tf.where(valid, d, zero) for d in (d_p, d_q))
        d_h = _times(d_q @ transposed, given)  # (B, H)
        d_old = d_old | {step.output: d_old[step.output] + d_h if tf.is_tensor(d_old[step.output]) else d_h}
        if valid is not None:
            d_old = {name: tf.where(valid, d, d_states[name]) for name, d in d_old.items()}
        values = {"p": d_p, "q": d_q}
        return d_old, {name: storage.written(array, t, values[name]) for name, array in written.items()}

    empty = {name: _nothing(step, storage, given) for name in (("p",) if additive else ("p", "q"))}
    d_initial, written = _looped(body, _stages(step, given), not step.reverse, d_final, empty)
    initial = {f"initial.{name}": d for name, d in d_initial.items()}
    return {name: storage.closed(series) for name, series in written.items()} | initial


def second(step: Step, given: Tensors, constant: Tensors, d_results: tuple[Tensor, ...], cotangents: Tensors) -> Any:
    """Derivative of the gradients by the arguments and by the results' cotangents: TensorFlow's, of the plain loop."""
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch([given, d_results])
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(given)
            results = _plain_results(step, given | constant)
        gradients = inner.gradient(results, given, list(d_results), tf.UnconnectedGradients.ZERO)
    return outer.gradient(gradients, (given, d_results), cotangents, tf.UnconnectedGradients.ZERO)


def _check_tapes_record(x: Tensor) -> None:
    """Raises UnsupportedError within forward mode, where no tape records: what `second` gives would be 0."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.identity(x)
    if tape.gradient(y, x) is None:
        raise UnsupportedError(
            "tf.autodiff.ForwardAccumulator: expected tf.GradientTape, as the layer has a reverse mode alone; "
            "a product with the Jacobian is the derivative of a gradient by its cotangent"
        )


def _plain_results(step: Step, given: Tensors) -> tuple[Tensor, ...]:
    """Outputs and final states by the plain loop, whether the series are packed or filled up or not."""
    plain = {name: value for name, value in given.items() if name not in ("ends", "places", "before")}
    if "places" in given:
        plain |= {name: tf.gather(given[name][0], given["places"]) for name in ("p", "mask")}
    elif "ends" in given:
        plain |= {name: given[name][:, : given["ends"][0]] for name in ("p", "mask") if name in given}
    (y, *final), _ = _results(step, forward(step, ARRAYS, plain), plain)
    L, H = tf.shape(given["p"])[1], tf.shape(y)[2]
    if "places" in given:
        return (tf.scatter_nd(given["places"][:, :, None], y, [L, H])[None], *final)
    return (fast.longer(y, L), *final)


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
    d_results, packed = (numbers[3], *(numbers[2] for _ in step.states)), "places" in optional
    return _Loop(
        fast.Either(partial(forward, step), packed, partial(_results, step), given),
        fast.Either(partial(backward, step), packed, partial(_gradients, step), given, tape, d_results),
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
    h = _before(step, tape[step.output], step.output, given)  # (B, T, H)
    h = h * given["factors"][:, None] if "factors" in given else h
    gradients = found | {"recurrent_kernel": tf.matmul(_flat(h), d_q, transpose_a=True)}
    return gradients | ({"recurrent_bias": tf.reduce_sum(d_q, 0)} if "recurrent_bias" in given else {})


def _before(step: Step, states: Tensor, name: str, given: Tensors) -> Tensor:
    """The states before each step, (B, T, H), of those after each."""
    if "before" in given:
        return tf.gather(states, given["before"], axis=1)
    initial = given[f"initial.{name}"][:, None]
    return tf.concat([states[:, 1:], initial] if step.reverse else [initial, states[:, :-1]], 1)


def _nothing(step: Step, storage: Storage, given: Tensors) -> Any:
    """An empty series as wide as the projections, 0 where no step is written."""
    B, width = tf.shape(given[f"initial.{step.output}"])[0], given["p"].shape[2]
    zeros = tf.zeros([B, tf.shape(given["p"])[2] if width is None else width], given["p"].dtype)
    return storage.empty(given["p"], zeros, _stages(step, given)[-1].high)


class _Stage(NamedTuple):
    """Some rows, from their first step to before `high`, a stride apart."""

    rows: Any
    low: Tensor
    high: Tensor
    stride: Any


def _stages(step: Step, given: Tensors) -> list[_Stage]:
    """The stages in the order of time."""
    start, T = given[f"initial.{step.output}"], tf.shape(given["p"])[1]
    B = tf.shape(start)[0] if start.shape[0] is None else start.shape[0]
    ends = tf.unstack(given["ends"]) if "ends" in given else [T]
    rows = packing.rows(B, len(ends))
    strides = rows if "places" in given else [1]
    return [_Stage(*each) for each in zip(rows, [0, *ends[:-1]], ends, strides, strict=True)]


def _looped(body: Callable[..., Any], stages: list[_Stage], down: bool, start: Tensors, written: Tensors) -> Any:
    """The states after all stages, and what is written.

    Until its first step a row has the state that it starts with, and after its last one what it had then.
    """
    if len(stages) == 1:
        return _stage_looped(partial(body, stages[0].rows), stages[0], down, start, written)
    rows, ended = stages[-1 if down else 0].rows, list[Tensors]()
    states = {name: value[:rows] for name, value in start.items()}
    for stage in reversed(stages) if down else stages:
        if down:
            states = {name: tf.concat([h, start[name][rows : stage.rows]], 0) for name, h in states.items()}
        else:
            ended.append({name: h[stage.rows :] for name, h in states.items()})
            states = {name: h[: stage.rows] for name, h in states.items()}
        rows = stage.rows
        states, written = _stage_looped(partial(body, rows), stage, down, states, written)
    return {name: tf.concat([h, *(rest[name] for rest in reversed(ended))], 0) for name, h in states.items()}, written


def _stage_looped(body: Callable[..., Any], stage: _Stage, down: bool, start: Tensors, written: Tensors) -> Any:
    def one(t: Tensor, states: Tensors, written: Tensors) -> Any:
        new, written = body(t, states, written)
        new = _shaped({name: new[name] for name in states}, start)
        return t + (-stage.stride if down else stage.stride), new, written

    first = stage.high - stage.stride if down else stage.low
    return tf.while_loop(lambda t, *_: t >= stage.low if down else t < stage.high, one, (first, start, written))[1:]


def _times(h: Tensor, given: Tensors) -> Tensor:
    return h * given["factors"] if "factors" in given else h


def _shaped(values: Tensors, start: Tensors) -> Tensors:
    """The values of a loop with what is known of the shapes that they start with; a loop lets none be forgotten."""
    for name, value in values.items():
        value.set_shape(start[name].shape)
    return values


def _flat(series: Tensor) -> Tensor:
    return tf.reshape(series, [-1, tf.shape(series)[2]])  # (B*T, N)
