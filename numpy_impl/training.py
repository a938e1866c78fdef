"""Losses, clipping and the trainer, written out in NumPy (SPEC.md, 12)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..spec.backend import StepResult
from ..spec.inputs import Cotangents
from ..spec.training import (
    Batch,
    CheckedBatch,
    Clip,
    ClipByGlobalNorm,
    CrossEntropy,
    Loss,
    TrainingSpec,
    checked_state,
    checked_update,
)
from .encoder_decoder import EncoderDecoder
from .model import SequenceModel
from .optimizers import update

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

    def __init__(self, model: SequenceModel | EncoderDecoder, training: TrainingSpec) -> None:
        self.model = model
        self.training = training
        self._step = 0
        self._slots = {
            slot: {name: np.full_like(array, start) for name, array in model.weights.items()}
            for slot, start in training.optimizer.slots.items()
        }
        self._carried: dict[str, Array] | None = None

    def step(self, batch: Batch, *more: Batch) -> StepResult:
        """One update by all batches; the loss before it and the gradients' global norm before clipping.

        Raises InputError.
        """
        model, training = self.model, self.training
        loss, gradients = 0.0, {name: np.zeros_like(array) for name, array in model.weights.items()}
        for checked in checked_update(model.spec, model.dtype, training.loss, (batch, *more), lambda: self._carried):
            part, found = self._gradients(checked)
            loss += part
            gradients = {name: g + found[name] for name, g in gradients.items()}
        norm = global_norm(gradients)
        self._update(clipped(training.clip, gradients, norm))
        return StepResult(loss, norm)

    def _gradients(self, batch: CheckedBatch) -> tuple[float, Mapping[str, Array]]:
        """The loss of a batch and its gradients; the final states are carried on."""
        result, tape = self.model.forward(batch.arguments, self.training.masks(self._step + 1, batch))
        loss, d_scores = loss_and_gradient(self.training.loss, result.scores, batch)
        self._carried = dict(result.final_states)
        return loss, self.model.backward(tape, Cotangents(None, None, d_scores))

    def _update(self, gradients: Mapping[str, Array]) -> None:
        self._step += 1
        rule, rate = self.training.optimizer, self.training.learning_rate(self._step)
        for name, gradient in gradients.items():
            slots = {slot: arrays[name] for slot, arrays in self._slots.items()}
            update(rule, self._step, rate, self.model.weights[name], gradient, slots)

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
