"""What a training run computes by the letter of the spec: losses at high precision, updates in float64."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from . import numbers as kinds
from .cases import Case, Sizes, covering
from .numbers import Numbers
from .oracle import DIGITS, Difference, Named, Oracle, RowValue

Array = NDArray[Any]
STEPS = 3


@dataclass(frozen=True)
class TrainingCase:
    """A model, a training spec, and three batches; from the second on they carry the state if `carries`."""

    case: Case
    training: TrainingSpec
    carries: bool

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
        B, T = case.sizes.B, case.sizes.T
        shape = (B, T) if head.reads == "steps" else (B,)
        if isinstance(self.training.loss, CrossEntropy):
            targets: Array = ((case.numbers(f"targets {step}", *shape) + 1) / 2 * head.size).astype(np.int64)
        else:
            targets = case.numbers(f"targets {step}", *shape, head.size)
        inputs = np.roll(case.inputs, step, axis=-1)
        continues = self.carries and step > 0
        starts = (
            {} if continues else {k: case.arguments[k] for k in ("initial_state", "context") if k in case.arguments}
        )
        masks = {k: case.arguments[k] for k in ("lengths", "mask") if k in case.arguments}
        return Batch(inputs, targets, continues=continues, **starts, **masks)


@dataclass(frozen=True)
class Trace:
    """Losses and gradient norms before each step; weights and the trainer's state after the last."""

    losses: Sequence[float]
    norms: Sequence[float]
    weights: Weights
    state: dict[str, Array]


def training_cases() -> list[TrainingCase]:
    """Every loss, reduction, optimizer and clip, each with several of the others."""
    steps, final = Head(3), Head(3, reads="final")
    sizes = Sizes(3, 4, 2, 3, 1)
    simple = ModelSpec("simple_rnn", 2, 3, head=steps)
    bi = ModelSpec("bi_rnn", 2, 3, bias="double", merge="average", head=final)
    stacked = ModelSpec("stacked_rnn", 2, 3, 2, bias="double", head=steps)
    stacked_bi = ModelSpec("stacked_bi_rnn", 2, 3, 2, nonlinearity="sigmoid", head=steps)
    rows: list[tuple[ModelSpec, str, Loss, Optimizer, Clip | None, bool]] = [
        (simple, "full", CrossEntropy("mean"), SGD(0.1), None, True),
        (simple, "lengths", CrossEntropy("sum"), SGD(0.1, 0.9), ClipByGlobalNorm(0.5), True),
        (bi, "lengths", CrossEntropy("mean"), Adam(0.01), ClipByGlobalNorm(0.05), False),
        (bi, "full", MeanSquaredError("sum"), SGD(0.05, 0.5), ClipByValue(0.1), False),
        (stacked, "left_padding", CrossEntropy("batch_mean"), Adam(0.02, 0.8, 0.9, 1e-3), None, True),
        (stacked, "nan_padding", MeanSquaredError("mean"), SGD(0.2), ClipByGlobalNorm(0.1), False),
        (stacked_bi, "holes", MeanSquaredError("batch_mean"), Adam(0.05), ClipByValue(0.01), False),
        (stacked_bi, "lengths", CrossEntropy("mean"), SGD(0.1, 0.9), ClipByGlobalNorm(100.0), False),
    ]
    tokens = ModelSpec("stacked_rnn", 2, 3, 2, "identity", bias="none", embedding=Embedding(3), head=steps)
    about = ModelSpec("bi_rnn", 2, 3, 1, "sigmoid", merge="multiply", context=Context(2), head=final)
    large = ModelSpec("simple_rnn", 2, 3, 1, "identity", head=steps)
    rows += [
        (tokens, "lengths", CrossEntropy("mean"), SGD(0.1, 0.9), ClipByGlobalNorm(0.2), True),
        (about, "full", CrossEntropy("batch_mean"), Adam(0.01), ClipByGlobalNorm(0.01), False),
    ]
    scaled = Case(large, sizes, "lengths", True, scale=1000.0)
    thousands = TrainingCase(scaled, TrainingSpec(CrossEntropy("mean"), SGD(1e-4)), False)
    return [thousands] + [
        TrainingCase(
            Case(spec, sizes._replace(L=spec.num_layers), kind, spec.context is None),
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
    values = {("loss", training.loss.KIND), ("reduction", training.loss.reduction), ("carries", str(case.carries))}
    momentum = isinstance(training.optimizer, SGD) and training.optimizer.momentum > 0
    values |= {("optimizer", f"{training.optimizer.KIND} {momentum}"), ("scale", str(case.case.scale))}
    return values | {("clip", training.clip.KIND if training.clip else ""), ("tokens", str(case.case.spec.embedding))}


def trace(training_case: TrainingCase) -> Trace:
    """Three steps of the training case."""
    spec, training = training_case.case.spec, training_case.training
    weights = {name: array.copy() for name, array in training_case.case.weights.items()}
    update = _Update(training.optimizer, weights)
    losses, norms = [], []
    carried: dict[str, Array] | None = None
    for batch in training_case.batches():
        given = _understood(training_case, batch, carried)
        oracle = Oracle(spec, weights, kinds.decimal(DIGITS))
        difference = Difference(oracle, given, _loss(training_case, given, np.asarray(batch.targets)))
        gradients = {name: difference.of_weight(name) for name in weights}
        final = oracle.run(given)
        carried = {name: final[f"final_state.{name}"].astype(np.float64) for name in spec.cell_definition.states}
        losses.append(difference.total())
        norms.append(float(np.sqrt(sum(np.sum(g * g) for g in gradients.values()))))
        update(_clipped(training.clip, gradients, norms[-1]))
    state = update.state() | {f"carried.{name}": array for name, array in (carried or {}).items()}
    return Trace(losses, norms, weights, state)


def _understood(training_case: TrainingCase, batch: Batch, carried: Named | None) -> Inputs:
    """What the batch's arguments mean: the case's own, but for other inputs and a carried state."""
    given = replace(training_case.case.understood, inputs=np.asarray(batch.inputs))
    return replace(given, initial_states=carried, context=None) if batch.continues else given


def _loss(training_case: TrainingCase, given: Inputs, targets: Array) -> RowValue:
    """A row's part of the loss (SPEC.md, 12.1 and 12.2)."""
    loss, head = training_case.training.loss, training_case.case.spec.head
    assert head is not None
    rows, steps = given.inputs.shape[:2]
    valid = np.ones((rows, steps), bool) if given.mask is None else given.mask
    entries = valid if head.reads == "steps" else np.ones((rows, 1), bool)
    numbers_in_mean = int(entries.sum()) * (1 if isinstance(loss, CrossEntropy) else head.size)
    divisor = max({"mean": numbers_in_mean, "sum": 1, "batch_mean": rows}[loss.reduction], 1)

    def value(b: int, results: Named, numbers: Numbers) -> Any:
        scores = results["scores"].reshape(entries.shape[1], -1)
        wanted = targets[b].reshape(entries.shape[1], -1)
        parts = [_entry(loss, scores[t], wanted[t], numbers) for t in np.flatnonzero(entries[b])]
        return sum(parts, start=numbers.array(0)[()]) / divisor

    return value


def _entry(loss: Loss, scores: Array, target: Array, numbers: Numbers) -> Any:
    if isinstance(loss, CrossEntropy):
        total = numbers.functions["exp"](scores).sum()
        return numbers.functions["log"](total) - scores[int(target[0])]
    difference = scores - numbers.array(target)
    return (difference * difference).sum()


def _clipped(clip: Clip | None, gradients: Named, norm: float) -> Named:
    if isinstance(clip, ClipByGlobalNorm):
        return {name: g * min(1.0, clip.maximum / norm) for name, g in gradients.items()}
    if isinstance(clip, ClipByValue):
        return {name: np.clip(g, -clip.maximum, clip.maximum) for name, g in gradients.items()}
    return gradients


class _Update:
    """The optimizer's equations of SPEC.md, 12, as they stand there."""

    def __init__(self, rule: Optimizer, weights: Weights) -> None:
        self.rule, self.weights, self.t = rule, weights, 0
        self.m = {name: np.zeros_like(array) for name, array in weights.items()}
        self.v = {name: np.zeros_like(array) for name, array in weights.items()}

    def __call__(self, gradients: Named) -> None:
        self.t += 1
        for name, g in gradients.items():
            self.weights[name] = self.weights[name] - self._step(name, g)

    def state(self) -> dict[str, Array]:
        """What a trainer's state holds (SPEC.md, 12.7), but for the carried states."""
        slots = {"first_moment": self.m, "second_moment": self.v}
        if isinstance(self.rule, SGD):
            slots = {"momentum": self.v} if self.rule.momentum else {}
        found = {f"{slot}.{name}": array for slot, arrays in slots.items() for name, array in arrays.items()}
        return {"step": np.asarray(self.t), **found}

    def _step(self, name: str, g: Array) -> Any:
        rule = self.rule
        if isinstance(rule, SGD):
            self.v[name] = rule.momentum * self.v[name] + g
            return rule.learning_rate * self.v[name]
        self.m[name] = rule.beta1 * self.m[name] + (1 - rule.beta1) * g
        self.v[name] = rule.beta2 * self.v[name] + (1 - rule.beta2) * g * g
        root = np.sqrt(self.v[name]) / np.sqrt(1 - rule.beta2**self.t)
        return rule.learning_rate / (1 - rule.beta1**self.t) * self.m[name] / (root + rule.epsilon)
