"""What a training run computes by the letter of the spec, in any arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..spec.data import Described, check_flag
from ..spec.errors import SpecError
from ..spec.inputs import Inputs
from ..spec.model import Context, Embedding, Head, ModelSpec
from ..spec.parameters import Weights
from ..spec.training import (
    SGD,
    Adam,
    Batch,
    Clip,
    ClipByGlobalNorm,
    ClipByValue,
    CrossEntropy,
    Loss,
    MeanSquaredError,
    Optimizer,
    TrainingSpec,
)
from .arithmetic import Exact
from .case_table import covering
from .cases import Case
from .oracle import Named, Oracle, Run
from .tape import Value, total

Array = NDArray[Any]
STEPS = 3


@dataclass(frozen=True)
class TrainingCase(Described):
    """A model, a training spec, and three batches; from the second on they carry the state if `carries`."""

    case: Case
    training: TrainingSpec
    carries: bool = False

    KIND: ClassVar[str] = "training_case"
    PARTS: ClassVar[Mapping[str, type[Described]]] = {"case": Case, "training": TrainingSpec}

    def __post_init__(self) -> None:
        head = self.case.spec.head
        if head is None or (isinstance(self.training.loss, CrossEntropy) and head.size < 2):
            raise SpecError("training case: expected a model with a head, of at least 2 classes for cross_entropy")
        check_flag("training case carries", self.carries)

    @property
    def name(self) -> str:
        """A name that tells the case apart from all others."""
        training = self.training
        clip = training.clip.KIND if training.clip else "unclipped"
        slots = "momentum" if isinstance(training.optimizer, SGD) and training.optimizer.momentum else "plain"
        rule = f"{training.loss.KIND}_{training.loss.reduction}-{training.optimizer.KIND}_{slots}-{clip}"
        return f"{rule}-{'carried-' if self.carries else ''}{self.case.name}"

    def batches(self) -> list[Batch]:
        """The batches, all of one shape."""
        return [self._batch(step) for step in range(STEPS)]

    def _batch(self, step: int) -> Batch:
        case, head = self.case, self.case.spec.head
        assert head is not None
        B, T = case.rows, case.steps
        shape = (B, T) if head.reads == "steps" else (B,)
        if isinstance(self.training.loss, CrossEntropy):
            targets: Array = ((case.numbers(f"targets {step}", *shape) + 1) / 2 * head.size).astype(np.int64)
            targets = np.minimum(targets, head.size - 1)  # a number may have been rounded up to 1
        else:
            targets = case.numbers(f"targets {step}", *shape, head.size)
        inputs = np.roll(case.inputs, step, axis=-1)
        continues = self.carries and step > 0
        starts = (
            {} if continues else {k: case.arguments[k] for k in ("initial_state", "context") if k in case.arguments}
        )
        masks = {k: case.arguments[k] for k in ("lengths", "mask") if k in case.arguments}
        return Batch(inputs, targets, continues=continues, **starts, **masks)


def training_cases() -> list[TrainingCase]:
    """Every loss, reduction, optimizer and clip, each with several of the others."""
    steps, final = Head(3), Head(3, reads="final")
    simple = ModelSpec("simple_rnn", 2, 3, head=steps)
    bi = ModelSpec("bi_rnn", 2, 3, bias="double", merge="average", head=final)
    stacked = ModelSpec("stacked_rnn", 2, 3, 2, bias="double", head=steps)
    stacked_bi = ModelSpec("stacked_bi_rnn", 2, 3, 2, nonlinearity="sigmoid", head=steps)
    rows: list[tuple[ModelSpec, str, Loss, Optimizer, Clip | None, bool]] = [
        (simple, "full", CrossEntropy("mean"), SGD(0.1), None, True),
        (simple, "empty_row", CrossEntropy("sum"), SGD(0.1, 0.9), ClipByGlobalNorm(0.5), True),
        (bi, "lengths", CrossEntropy("mean"), Adam(0.01), ClipByGlobalNorm(0.05), False),
        (bi, "full", MeanSquaredError("sum"), SGD(0.05, 0.5), ClipByValue(0.1), False),
        (stacked, "left_padding", CrossEntropy("batch_mean"), Adam(0.02, 0.8, 0.9, 1e-3), None, True),
        (stacked, "nan_padding", MeanSquaredError("mean"), SGD(0.2), ClipByGlobalNorm(0.1), False),
        (stacked_bi, "holes", MeanSquaredError("batch_mean"), Adam(0.05), ClipByValue(0.01), False),
        (stacked_bi, "empty_row", CrossEntropy("mean"), SGD(0.1, 0.9), ClipByGlobalNorm(100.0), False),
    ]
    tokens = ModelSpec("stacked_rnn", 2, 3, 2, "identity", bias="none", embedding=Embedding(3), head=steps)
    about = ModelSpec("bi_rnn", 2, 3, 1, "sigmoid", merge="multiply", context=Context(2), head=final)
    large = ModelSpec("simple_rnn", 2, 3, 1, "identity", head=steps)
    rows += [
        (tokens, "lengths", CrossEntropy("mean"), SGD(0.1, 0.9), ClipByGlobalNorm(0.2), True),
        (about, "full", CrossEntropy("batch_mean"), Adam(0.01), ClipByGlobalNorm(0.01), False),
    ]
    scaled = Case(large, 3, 4, "empty_row", True, scale=1000.0)
    thousands = TrainingCase(scaled, TrainingSpec(CrossEntropy("mean"), SGD(1e-4)), False)
    return [thousands] + [
        TrainingCase(
            Case(spec, 3, 4, kind, spec.context is None),
            TrainingSpec(loss, rule, clip),
            carries,
        )
        for spec, kind, loss, rule, clip, carries in rows
    ]


def quick_training_cases() -> list[TrainingCase]:
    """A few that still touch every value of every factor."""
    return covering(training_cases(), _factors)


def _factors(case: TrainingCase) -> set[tuple[str, str]]:
    training = case.training
    values = {("loss", f"{training.loss.KIND} {training.loss.reduction}"), ("carries", str(case.carries))}
    momentum = isinstance(training.optimizer, SGD) and training.optimizer.momentum > 0
    values |= {("optimizer", f"{training.optimizer.KIND} {momentum}"), ("scale", str(case.case.scale))}
    return values | {("clip", str(training.clip)), ("tokens", str(case.case.spec.embedding))}


def quantities(training_case: TrainingCase, ops: Exact) -> Named:
    """`loss` and `gradient norm` of each step, (S, steps); weights and the trainer's state after the last, by name."""
    spec, training = training_case.case.spec, training_case.training
    update = _Update(training.optimizer, ops, training_case.case.weights)
    losses, norms = [], []
    carried: Named | None = None
    for batch in training_case.batches():
        given = replace(training_case.case.understood, inputs=np.asarray(batch.inputs))
        if batch.continues:
            given = replace(given, initial_states=None, context=None)
        run = Oracle(spec, update.weights, ops, "weights").run(given, carried if batch.continues else None)
        loss = _loss(training_case, run, given, np.asarray(batch.targets))
        gradients = run.derivatives([(loss, ops.constant(1.0)[:, None, None])])
        losses.append(loss.array[:, 0, 0])
        norms.append(_norm(ops, gradients))
        update(_clipped(training.clip, ops, gradients, norms[-1]))
        carried = {name: run.arrays()[f"final_state.{name}"] for name in spec.cell_definition.states}
    traces = {"loss": _side_by_side(losses), "gradient norm": _side_by_side(norms)}
    return traces | update.weights | update.state() | {f"carried.{name}": a for name, a in (carried or {}).items()}


def _loss(training_case: TrainingCase, run: Run, given: Inputs, targets: Array) -> Value:
    """The loss of a batch (SPEC.md, 12.1 and 12.2), (S, 1, 1)."""
    loss, head = training_case.training.loss, training_case.case.spec.head
    assert head is not None
    rows, steps = given.inputs.shape[:2]
    valid = np.ones((rows, steps), bool) if given.mask is None else given.mask
    if head.reads == "final":
        valid, targets = np.ones((rows, 1), bool), targets[:, None]
    numbers_in_mean = int(valid.sum()) * (1 if isinstance(loss, CrossEntropy) else head.size)
    divisor = max({"mean": numbers_in_mean, "sum": 1, "batch_mean": rows}[loss.reduction], 1)
    parts = []
    for t, scores in enumerate(run.scores):
        seen = np.flatnonzero(valid[:, t])
        if seen.size:
            parts.append(_entries(loss, scores.take(seen), targets[seen, t]).sum(1))
    nothing = Value(run.ops.zeros((1, 1, 1)), run.ops)
    return total(parts) / divisor if parts else nothing


def _entries(loss: Loss, scores: Value, targets: Array) -> Value:
    """The loss of each of some rows, (S, rows, 1)."""
    if isinstance(loss, CrossEntropy):
        shifted = scores - Value(scores.array[:1].max(axis=2, keepdims=True), scores.ops)
        return shifted.exp().sum(2).log() - shifted.unit_of_each(targets)
    difference = scores - targets
    return (difference * difference).sum(2)


def _norm(ops: Exact, gradients: Named) -> Array:
    """The 2-norm of all gradients together, (S,)."""
    numbers = np.concatenate(_same_samples([g.reshape(len(g), -1) for g in gradients.values()]), axis=1)
    return ops.function("sqrt", ops.sum(ops.multiply(numbers, numbers), 1))[:, 0]


def _clipped(clip: Clip | None, ops: Exact, gradients: Named, norm: Array) -> Named:
    if isinstance(clip, ClipByGlobalNorm):
        divisor = np.where(norm > 0, norm, ops.constant(1.0))  # where nothing is to be clipped
        ratio = np.minimum(ops.divide(ops.hyperparameter(clip.maximum), divisor), ops.constant(1.0))
        return {name: ops.multiply(g, _like(g, ratio)) for name, g in gradients.items()}
    if isinstance(clip, ClipByValue):
        limit = ops.hyperparameter(clip.maximum)
        return {name: np.minimum(np.maximum(g, _like(g, -limit)), _like(g, limit)) for name, g in gradients.items()}
    return gradients


class _Update:
    """The optimizer's equations of SPEC.md, 12, as they stand there."""

    def __init__(self, rule: Optimizer, ops: Exact, weights: Weights) -> None:
        self.rule, self.ops, self.t = rule, ops, 0
        self.weights = {name: ops.constant(array) for name, array in weights.items()}
        self.m = {name: 0 * array for name, array in self.weights.items()}
        self.v = {name: 0 * array for name, array in self.weights.items()}

    def __call__(self, gradients: Named) -> None:
        self.t += 1
        for name, g in gradients.items():
            self.weights[name] = self.ops.add(self.weights[name], -self._step(name, g))

    def state(self) -> Named:
        """What a trainer's state holds (SPEC.md, 12.7), but for the carried states."""
        slots = {"first_moment": self.m, "second_moment": self.v}
        if isinstance(self.rule, SGD):
            slots = {"momentum": self.v} if self.rule.momentum else {}
        found = {f"{slot}.{name}": array for slot, arrays in slots.items() for name, array in arrays.items()}
        return {"step": self.ops.constant(self.t), **found}

    def _step(self, name: str, g: Array) -> Array:
        rule, ops = self.rule, self.ops
        number = partial(_like, g)
        if isinstance(rule, SGD):
            self.v[name] = ops.add(ops.multiply(number(ops.hyperparameter(rule.momentum)), self.v[name]), g)
            return ops.multiply(number(ops.hyperparameter(rule.learning_rate)), self.v[name])
        self.m[name] = self._mixed(rule.beta1, self.m[name], g)
        self.v[name] = self._mixed(rule.beta2, self.v[name], ops.multiply(g, g))
        unbias = ops.function("sqrt", ops.one_less_power(rule.beta2, self.t))
        root = ops.divide(ops.function("sqrt", self.v[name]), number(unbias))
        rate = ops.divide(ops.hyperparameter(rule.learning_rate), ops.one_less_power(rule.beta1, self.t))
        below = ops.add(root, number(ops.hyperparameter(rule.epsilon)))
        return ops.divide(ops.multiply(number(rate), self.m[name]), below)

    def _mixed(self, beta: float, old: Array, new: Array) -> Array:
        """beta old + (1 - beta) new."""
        kept = self.ops.multiply(_like(new, self.ops.hyperparameter(beta)), old)
        return self.ops.add(kept, self.ops.multiply(_like(new, self.ops.one_less_power(beta, 1)), new))


def _like(array: Array, numbers: Array) -> Array:
    """Numbers (S,) in a shape that fits an array."""
    return numbers.reshape(-1, *[1] * (array.ndim - 1))


def _side_by_side(columns: list[Array]) -> Array:
    return np.stack(np.broadcast_arrays(*columns), axis=1)


def _same_samples(arrays: list[Array]) -> list[Array]:
    samples = max(len(array) for array in arrays)
    return [np.broadcast_to(array, (samples, *array.shape[1:])) for array in arrays]
