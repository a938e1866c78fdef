"""Losses, optimizers, clipping and the trainer, written out in NumPy (SPEC.md, 12)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..spec.backend import StepResult
from ..spec.inputs import Cotangents
from ..spec.training import (
    SGD,
    Batch,
    CheckedBatch,
    Clip,
    ClipByGlobalNorm,
    CrossEntropy,
    Loss,
    TrainingSpec,
    checked_batch,
    checked_state,
    optimizer_slots,
)
from .model import SequenceModel

Array = Any


def loss_and_gradient(loss: Loss, scores: Array, batch: CheckedBatch) -> tuple[float, Array]:
    """The loss, and its gradient with respect to the scores; both 0 where no entry counts."""
    if isinstance(loss, CrossEntropy):
        total, d_scores = _cross_entropy(scores, batch.targets, batch.entries)
    else:
        difference = np.where(batch.entries[..., None], scores - batch.targets, np.zeros((), scores.dtype))
        total, d_scores = (difference * difference).sum(), 2 * difference
    scale = scores.dtype.type(1 / batch.divisor)
    return float(total * scale), d_scores * scale


def _cross_entropy(scores: Array, targets: Array, entries: Array) -> tuple[Any, Array]:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=-1, keepdims=True)
    picked = np.take_along_axis(shifted, targets[..., None], axis=-1)
    losses = (np.log(sums) - picked)[..., 0]
    d_scores = exponentials / sums
    np.put_along_axis(d_scores, targets[..., None], np.take_along_axis(d_scores, targets[..., None], -1) - 1, axis=-1)
    zero = np.zeros((), scores.dtype)
    return np.where(entries, losses, zero).sum(), np.where(entries[..., None], d_scores, zero)


def global_norm(gradients: Mapping[str, Array]) -> float:
    """The 2-norm of all gradients together."""
    return float(np.sqrt(sum(np.vdot(g, g) for g in gradients.values())))


def clipped(clip: Clip | None, gradients: dict[str, Array], norm: float) -> dict[str, Array]:
    """The gradients after clipping."""
    if clip is None or (isinstance(clip, ClipByGlobalNorm) and norm <= clip.maximum):
        return gradients
    if isinstance(clip, ClipByGlobalNorm):
        return {name: g * g.dtype.type(clip.maximum / norm) for name, g in gradients.items()}
    return {name: g.clip(-clip.maximum, clip.maximum) for name, g in gradients.items()}


class Trainer:
    """Updates a model in place, one batch at a time."""

    def __init__(self, model: SequenceModel, training: TrainingSpec) -> None:
        self.model = model
        self.training = training
        self._step = 0
        self._slots = {
            slot: {name: np.zeros_like(array) for name, array in model.weights.items()}
            for slot in optimizer_slots(training.optimizer)
        }
        self._carried: dict[str, Array] | None = None

    def step(self, batch: Batch) -> StepResult:
        """One update; the loss before it and the gradients' global norm before clipping. Raises InputError."""
        model, training = self.model, self.training
        checked = checked_batch(model.spec, model.dtype, training.loss, batch, self._carried)
        result, tape = model.forward(checked.arguments)
        loss, d_scores = loss_and_gradient(training.loss, result.scores, checked)
        every = model.backward(tape, Cotangents(None, None, d_scores))
        gradients = {name: every[name] for name in model.weights}
        norm = global_norm(gradients)
        self._step += 1
        for name, gradient in clipped(training.clip, gradients, norm).items():
            self._update(name, gradient)
        self._carried = dict(result.final_states)
        return StepResult(loss, norm)

    def _update(self, name: str, g: Array) -> None:
        rule, weight = self.training.optimizer, self.model.weights[name]
        if isinstance(rule, SGD):
            if rule.momentum:
                v = self._slots["momentum"][name]
                v *= rule.momentum
                v += g
                g = v
            weight -= rule.learning_rate * g
            return
        m, v = self._slots["first_moment"][name], self._slots["second_moment"][name]
        m += (1 - rule.beta1) * (g - m)
        v *= rule.beta2
        v += (1 - rule.beta2) * (g * g)
        rate = rule.learning_rate / (1 - rule.beta1**self._step)
        weight -= rate * m / (np.sqrt(v) / np.sqrt(1 - rule.beta2**self._step) + rule.epsilon)

    def state(self) -> dict[str, Array]:
        """A copy of the step count, the optimizer's slots and the carried states."""
        found: dict[str, Array] = {"step": np.asarray(self._step, np.int64)}
        found |= {f"{slot}.{name}": a.copy() for slot, arrays in self._slots.items() for name, a in arrays.items()}
        return found | {f"carried.{name}": a.copy() for name, a in (self._carried or {}).items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken. Raises InputError unless it is whole and fits."""
        model = self.model
        shapes = {name: array.shape for name, array in model.weights.items()}
        arrays = checked_state(model.spec, self.training, model.dtype, state, shapes)
        self._step = int(arrays["step"])
        for slot, slots in self._slots.items():
            for name, array in slots.items():
                np.copyto(array, arrays[f"{slot}.{name}"])
        prefix = "carried."
        self._carried = {n.removeprefix(prefix): a.copy() for n, a in arrays.items() if n.startswith(prefix)} or None
