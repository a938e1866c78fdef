"""A trainer outside of the backend, over the gradients that it gives: what faults of training are made of."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ...spec.backend import StepResult
from ...spec.training import (
    Adam,
    Batch,
    CheckedBatch,
    ClipByGlobalNorm,
    CrossEntropy,
    TrainingSpec,
    checked_batch,
    checked_state,
    optimizer_slots,
)
from .wrapped import Array, Model, Wrapped

Named = dict[str, Array]


class Trainer:
    """Right as it stands, but for rounding: a fault overrides one of the steps below (SPEC.md, 12)."""

    def __init__(self, backend: Wrapped, model: Model, training: TrainingSpec) -> None:
        self.backend, self.model, self.training = backend, model, training
        zeros = {name: np.zeros_like(a) for name, a in backend.to_spec(model).items()}
        self.slots = {slot: dict(zeros) for slot in optimizer_slots(training.optimizer)}
        self.t = 0
        self.carried: Named | None = None

    def step(self, batch: Batch) -> StepResult:
        model, checked = self.model, self.checked(batch)
        given, arguments = checked.arguments, self.arguments(checked)
        result = self.backend.run(model, given.inputs, **arguments)
        loss, d_scores = self.loss(np.asarray(result.scores), checked)
        every = self.backend.gradients(model, given.inputs, scores_cotangent=d_scores, **arguments)
        weights = self.backend.to_spec(model)
        gradients = {name: every[name] for name in weights}
        norm = self.norm(gradients, checked, d_scores)
        self.t += 1
        clipped = self.clipped(gradients, norm)
        self.backend.from_spec(model, {name: self.updated(name, a, clipped[name]) for name, a in weights.items()})
        self.carried = dict(result.final_states)
        return StepResult(loss, self.reported(norm, clipped))

    def state(self) -> Named:
        found: Named = {"step": np.asarray(self.t, np.int64)}
        found |= {f"{slot}.{name}": a.copy() for slot, arrays in self.slots.items() for name, a in arrays.items()}
        return found | {f"carried.{name}": a.copy() for name, a in (self.carried or {}).items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        shapes = {name: a.shape for name, a in self.backend.to_spec(self.model).items()}
        arrays = checked_state(self.model.spec, self.training, self.model.dtype, state, shapes)
        self.t = int(arrays["step"])
        self.slots = {slot: {name: arrays[f"{slot}.{name}"] for name in shapes} for slot in self.slots}
        carried = {n.removeprefix("carried."): a for n, a in arrays.items() if n.startswith("carried.")}
        self.carried = carried or None

    def checked(self, batch: Batch) -> CheckedBatch:
        return checked_batch(self.model.spec, self.model.dtype, self.training.loss, batch, self.carried)

    def arguments(self, checked: CheckedBatch) -> dict[str, Any]:
        given = checked.arguments
        found = {"mask": given.mask, "initial_state": given.initial_states, "context": given.context}
        return {name: value for name, value in found.items() if value is not None}

    def loss(self, scores: Array, checked: CheckedBatch) -> tuple[float, Array]:
        """The loss, and its gradient by the scores."""
        wide = np.asarray(scores, np.float64)
        if isinstance(self.training.loss, CrossEntropy):
            losses, d_scores = self.cross_entropy(wide, checked.targets)
        else:
            losses, d_scores = ((wide - checked.targets) ** 2).sum(axis=-1), 2 * (wide - checked.targets)
        entries, divisor = self.entries(checked), self.divisor(checked)
        total = float(np.where(entries, losses, 0.0).sum() / divisor)
        return total, (np.where(entries[..., None], d_scores, 0.0) / divisor).astype(scores.dtype)

    def cross_entropy(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        shifted = scores - scores.max(axis=-1, keepdims=True)
        return cross_entropy(shifted, targets)

    def entries(self, checked: CheckedBatch) -> Array:
        return checked.entries

    def divisor(self, checked: CheckedBatch) -> float:
        return checked.divisor

    def norm(self, gradients: Named, checked: CheckedBatch, d_scores: Array) -> float:
        return norm_of(gradients.values())

    def reported(self, norm: float, clipped: Named) -> float:
        return norm

    def clipped(self, gradients: Named, norm: float) -> Named:
        clip = self.training.clip
        if clip is None:
            return gradients
        if isinstance(clip, ClipByGlobalNorm):
            return {name: g * g.dtype.type(self.factor(clip.maximum, norm)) for name, g in gradients.items()}
        return {name: g.clip(-clip.maximum, clip.maximum) for name, g in gradients.items()}

    def factor(self, maximum: float, norm: float) -> float:
        return maximum / norm if norm > maximum else 1.0

    def updated(self, name: str, weight: Array, g: Array) -> Array:
        rule = self.training.optimizer
        if isinstance(rule, Adam):
            m, v = self.slots["first_moment"], self.slots["second_moment"]
            m[name] = (rule.beta1 * m[name] + (1 - rule.beta1) * g).astype(g.dtype)
            v[name] = (rule.beta2 * v[name] + (1 - rule.beta2) * g * g).astype(g.dtype)
            return (weight - self.adam(rule, m[name], v[name])).astype(weight.dtype)
        if not rule.momentum:
            return (weight - self.rate * g).astype(weight.dtype)
        slot = self.slots["momentum"]
        slot[name] = self.momentum(rule.momentum, slot[name], g).astype(g.dtype)
        return (weight - self.momentum_step(slot[name])).astype(weight.dtype)

    @property
    def rate(self) -> float:
        return self.training.optimizer.learning_rate

    def momentum(self, momentum: float, v: Array, g: Array) -> Array:
        return momentum * v + g

    def momentum_step(self, v: Array) -> Array:
        return self.rate * v

    def adam(self, rule: Adam, m: Array, v: Array) -> Array:
        root = np.sqrt(v) / np.sqrt(1 - rule.beta2**self.t)
        step: Array = self.rate / (1 - rule.beta1**self.t) * m / (root + rule.epsilon)
        return step


class Trained(Wrapped):
    """A backend whose trainer is one of ours."""

    def __init__(self, backend: Any, trainer: type[Trainer] = Trainer) -> None:
        super().__init__(backend)
        self._trainer = trainer

    def trainer(self, model: Model, training: TrainingSpec) -> Trainer:
        return self._trainer(self, model, training)


def cross_entropy(scores: Array, targets: Array) -> tuple[Array, Array]:
    """-ln softmax(scores)[target] and its gradient, as they stand."""
    exponentials = np.exp(scores)
    sums = exponentials.sum(axis=-1, keepdims=True)
    picked = np.take_along_axis(scores, targets[..., None], axis=-1)
    one_hot = np.arange(scores.shape[-1]) == targets[..., None]
    return (np.log(sums) - picked)[..., 0], exponentials / sums - one_hot


def norm_of(gradients: Iterable[Array]) -> float:
    """The 2-norm of all gradients together."""
    return float(np.sqrt(sum(np.sum(np.asarray(g, np.float64) ** 2) for g in gradients)))
