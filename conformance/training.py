"""What a training run computes by the letter of the spec: losses at high precision, updates in float64."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.model import Head, ModelSpec
from ..spec.parameters import Weights
from ..spec.training import (
    SGD,
    Adam,
    Batch,
    CheckedBatch,
    Clip,
    ClipByGlobalNorm,
    ClipByValue,
    CrossEntropy,
    Loss,
    MeanSquaredError,
    Optimizer,
    TrainingSpec,
    checked_batch,
)
from . import numbers as kinds
from .cases import Case, Sizes
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
    """Losses and gradient norms before each step, and the weights after the last."""

    losses: Sequence[float]
    norms: Sequence[float]
    weights: Weights


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
    return [
        TrainingCase(Case(spec, sizes._replace(L=spec.num_layers), kind, True), TrainingSpec(loss, rule, clip), carries)
        for spec, kind, loss, rule, clip, carries in rows
    ]


def trace(training_case: TrainingCase) -> Trace:
    """Three steps of the training case."""
    spec, training = training_case.case.spec, training_case.training
    weights = {name: array.copy() for name, array in training_case.case.weights.items()}
    update = _Update(training.optimizer, weights)
    losses, norms = [], []
    carried: dict[str, Array] | None = None
    for batch in training_case.batches():
        checked = checked_batch(spec, "float64", training.loss, batch, carried)
        oracle = Oracle(spec, weights, kinds.decimal(DIGITS))
        difference = Difference(oracle, checked.arguments, _loss(training.loss, checked))
        gradients = {name: difference.of_weight(name) for name in weights}
        final = oracle.run(checked.arguments)
        carried = {name: final[f"final_state.{name}"].astype(np.float64) for name in spec.cell_definition.states}
        losses.append(difference.total())
        norms.append(float(np.sqrt(sum(np.sum(g * g) for g in gradients.values()))))
        update(_clipped(training.clip, gradients, norms[-1]))
    return Trace(losses, norms, weights)


def _loss(loss: Loss, batch: CheckedBatch) -> RowValue:
    """A row's part of the loss."""

    def value(b: int, results: Named, numbers: Numbers) -> Any:
        entries = np.atleast_1d(batch.entries[b])
        scores = results["scores"].reshape(len(entries), -1)
        targets = batch.targets[b].reshape(len(entries), -1)
        parts = [_entry(loss, scores[t], targets[t], numbers) for t in np.flatnonzero(entries)]
        return sum(parts, start=numbers.array(0)[()]) / batch.divisor

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

    def _step(self, name: str, g: Array) -> Any:
        rule = self.rule
        if isinstance(rule, SGD):
            self.v[name] = rule.momentum * self.v[name] + g
            return rule.learning_rate * self.v[name]
        self.m[name] = rule.beta1 * self.m[name] + (1 - rule.beta1) * g
        self.v[name] = rule.beta2 * self.v[name] + (1 - rule.beta2) * g * g
        root = np.sqrt(self.v[name]) / np.sqrt(1 - rule.beta2**self.t)
        return rule.learning_rate / (1 - rule.beta1**self.t) * self.m[name] / (root + rule.epsilon)
