"""A trainer outside of the backend, over the gradients that it gives: what faults of training are made of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...spec.backend import StepResult
from ...spec.encoder_decoder import Source
from ...spec.model import ModelSpec
from ...spec.optimizers import SGD, Adagrad, Adam, RMSprop
from ...spec.training import (
    Batch,
    CheckedBatch,
    ClipByGlobalNorm,
    CrossEntropy,
    TrainingSpec,
    checked_state,
    checked_update,
)
from .fault import Fault
from .wrapped import Array, Model, Wrapped

Named = dict[str, Array]


class Trainer:
    """Right as it stands, but for rounding: a fault overrides one of the steps below (SPEC.md, 12)."""

    def __init__(self, backend: Wrapped, model: Model, training: TrainingSpec) -> None:
        self.backend, self.model, self.training = backend, model, training
        weights = backend.to_spec(model)
        self.slots = {
            slot: {name: np.full_like(a, self.start(start)) for name, a in weights.items()}
            for slot, start in training.optimizer.slots.items()
        }
        self.t = 0
        self.carried: Named | None = None

    def step(self, *batches: Batch) -> StepResult:
        model, weights = self.model, self.backend.to_spec(self.model)
        total, gradients = 0.0, {name: np.zeros_like(a) for name, a in weights.items()}
        for checked in self.checked(batches):
            given, arguments = checked.arguments, self.arguments(checked)
            result = self.backend.run(model, given.inputs, **arguments)
            loss, d_scores = self.loss(np.asarray(result.scores), checked)
            every = self.backend.gradients(model, given.inputs, scores_cotangent=d_scores, **arguments)
            total, gradients = total + loss, {name: g + every[name] for name, g in gradients.items()}
            self.carried = dict(result.final_states)
        norm = self.norm(gradients, checked, d_scores)
        self.t += 1
        clipped = self.clipped(gradients, norm)
        self.backend.from_spec(model, {name: self.updated(name, a, clipped[name]) for name, a in weights.items()})
        return StepResult(total, self.reported(norm, clipped))

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

    def checked(self, batches: Sequence[Batch]) -> Iterator[CheckedBatch]:
        model = self.model
        return checked_update(model.spec, model.dtype, self.training.loss, batches, lambda: self.carried)

    def arguments(self, checked: CheckedBatch) -> dict[str, Any]:
        given = checked.arguments
        source = given.source and Source(given.source.inputs, mask=given.source.mask)
        found = {"mask": given.mask, "initial_state": given.initial_states, "context": source or given.context}
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

    def start(self, start: float) -> float:
        return start

    def updated(self, name: str, weight: Array, g: Array) -> Array:
        weight, g = self.decayed(weight, g)
        rule, kept = self.training.optimizer, {slot: arrays[name] for slot, arrays in self.slots.items()}
        if isinstance(rule, Adam):
            self.mix(kept, "first_moment", rule.beta1, g)
            self.mix(kept, "second_moment", rule.beta2, g * g)
            step = self.adam(rule, kept["first_moment"], kept["second_moment"])
        else:
            step = self.momentum_step(self.with_momentum(kept, self.quotient(kept, g)))
        for slot, array in kept.items():
            self.slots[slot][name] = array.astype(g.dtype)
        return (weight - step).astype(weight.dtype)

    @property
    def rate(self) -> float:
        return self.training.learning_rate(self.t)

    def decayed(self, weight: Array, g: Array) -> tuple[Array, Array]:
        rule = self.training.optimizer
        if rule.decoupled:
            return (weight * (1 - self.rate * rule.weight_decay)).astype(weight.dtype), g
        return weight, g + rule.weight_decay * weight

    def quotient(self, kept: Named, g: Array) -> Array:
        rule = self.training.optimizer
        if isinstance(rule, Adagrad):
            kept["square_sum"] = kept["square_sum"] + g * g
            return g / self.root(rule, kept["square_sum"])
        if not isinstance(rule, RMSprop):
            return g
        self.mix(kept, "square_average", rule.alpha, g * g)
        if rule.centred:
            self.mix(kept, "gradient_average", rule.alpha, g)
        return g / self.root(rule, self.variance(kept))

    def variance(self, kept: Named) -> Array:
        if "gradient_average" not in kept:
            return kept["square_average"]
        variance: Array = np.maximum(kept["square_average"] - kept["gradient_average"] ** 2, 0)
        return variance

    def root(self, rule: RMSprop | Adagrad, s: Array) -> Array:
        root: Array = np.sqrt(s + rule.epsilon) if rule.epsilon_place == "inside" else np.sqrt(s) + rule.epsilon
        return root

    def with_momentum(self, kept: Named, g: Array) -> Array:
        rule = self.training.optimizer
        if "momentum" not in kept or not isinstance(rule, SGD | RMSprop):
            return g
        kept["momentum"] = self.momentum(rule.momentum, kept["momentum"], g)
        return self.nesterov(rule, kept["momentum"], g)

    def nesterov(self, rule: SGD | RMSprop, v: Array, g: Array) -> Array:
        return g + rule.momentum * v if isinstance(rule, SGD) and rule.nesterov else v

    def mix(self, kept: Named, slot: str, factor: float, new: Array) -> None:
        kept[slot] = factor * kept[slot] + (1 - factor) * new

    def momentum(self, momentum: float, v: Array, g: Array) -> Array:
        return momentum * v + g

    def momentum_step(self, v: Array) -> Array:
        return self.rate * v

    def adam(self, rule: Adam, m: Array, v: Array) -> Array:
        correction, rate = np.sqrt(1 - rule.beta2**self.t), self.rate / (1 - rule.beta1**self.t)
        if rule.epsilon_place == "hat":
            step: Array = rate * correction * m / (np.sqrt(v) + rule.epsilon)
        else:
            step = rate * m / (np.sqrt(v) / correction + rule.epsilon)
        return step


class Trained(Wrapped):
    """A backend whose trainer is one of ours, and drops nothing."""

    def __init__(self, backend: Any, trainer: type[Trainer] = Trainer) -> None:
        super().__init__(backend)
        self._trainer = trainer

    def supports(self, spec: ModelSpec) -> str | None:
        return "its trainer has no dropout" if spec.dropout else super().supports(spec)

    def trainer(self, model: Model, training: TrainingSpec) -> Trainer:
        return self._trainer(self, model, training)


def trained(
    name: str, story: str, trainer: type[Trainer], thread: str | None = None, *, check: str = "training"
) -> Fault:
    """The fault of a trainer that stands in the place of a backend's own."""
    return Fault(name, story, check, partial(Trained, trainer=trainer), thread, needs=("gradients",))


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
