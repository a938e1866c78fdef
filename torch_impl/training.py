"""Losses, clipping and the trainer (SPEC.md, 12)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..spec.backend import StepResult
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
from .encoder_decoder import Model, arguments, named_states
from .optimizers import SLOTS, torch_optimizer
from .recurrent import Recurrent
from .weights import model_dtype, named_parameters, to_array, to_tensor


def loss_value(loss: Loss, scores: Tensor, targets: Tensor, entries: Tensor, divisor: int) -> Tensor:
    """The loss, in the dtype of the scores; 0 where no entry counts.

    scores (B, T, O) or (B, O); targets classes (B, T) or (B,), or numbers shaped as the scores; entries (B, T) or
    (B,), True where one counts.
    """
    if isinstance(loss, CrossEntropy):
        losses = nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten(), reduction="none")
        total = torch.where(entries.flatten(), losses, 0.0).sum()
    else:
        difference = torch.where(entries[..., None], scores - targets, 0.0)
        total = (difference * difference).sum()
    return total * (1 / divisor)


def global_norm(gradients: list[Tensor]) -> Tensor:
    """The 2-norm of all gradients together."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))


def clipped(clip: Clip | None, gradients: list[Tensor], norm: float) -> list[Tensor]:
    """The gradients after clipping."""
    if clip is None or (isinstance(clip, ClipByGlobalNorm) and norm <= clip.maximum):
        return gradients
    if isinstance(clip, ClipByGlobalNorm):
        return [g * (clip.maximum / norm) for g in gradients]
    return [g.clamp(-clip.maximum, clip.maximum) for g in gradients]


class Trainer:
    """Updates a model in place, one batch at a time. Weights whose `requires_grad` is False stay as they are."""

    def __init__(self, model: Model, training: TrainingSpec) -> None:
        self.model = model
        self.training = training
        self._weights = named_parameters(model)
        self._optimizer = torch_optimizer(training.optimizer, list(self._weights.values()))
        self._step = 0
        self._carried: dict[str, Tensor] | None = None

    def step(self, batch: Batch, *more: Batch) -> StepResult:
        """One update by all batches; the loss before it and the gradients' global norm before clipping.

        Raises InputError.
        """
        model, training = self.model, self.training
        dtype, batches = model_dtype(model), (batch, *more)
        trained = [weight for weight in self._weights.values() if weight.requires_grad]
        with torch.inference_mode(False), torch.no_grad():
            loss, gradients = torch.zeros(()), [torch.zeros_like(weight) for weight in trained]
            for checked in checked_update(model.spec, dtype, training.loss, batches, self._carried_arrays):
                part, found = self._gradients(checked, trained)
                loss, gradients = part + loss, [total + g for total, g in zip(gradients, found, strict=True)]
            result = StepResult(*torch.stack([loss, global_norm(gradients)]).tolist())  # the one host sync
        self._update(trained, clipped(training.clip, gradients, result.gradient_norm))
        return result

    def _gradients(self, batch: CheckedBatch, trained: list[nn.Parameter]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss of a batch and its gradients; the final states are carried on."""
        model = self.model
        with torch.enable_grad():
            masks = self.training.masks(self._step + 1, batch)
            assert not isinstance(model, Recurrent)  # which has no scores
            final, scores = model.scored(**arguments(model, batch.arguments), dropout=masks)
            assert scores is not None
            targets, entries = (to_tensor(array, scores.device) for array in (batch.targets, batch.entries))
            loss = loss_value(self.training.loss, scores, targets, entries, batch.divisor)
            gradients = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
        self._carried = {name: state.detach() for name, state in named_states(model, final).items()}
        return loss.detach(), gradients

    def _update(self, weights: list[nn.Parameter], gradients: list[Tensor]) -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        self._step += 1
        for group in self._optimizer.param_groups:
            group["lr"] = self.training.learning_rate(self._step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """A copy of the step count, the optimizer's slots and the carried states."""
        found: dict[str, Any] = {"step": np.asarray(self._step, np.int64)}
        for slot, start in self.training.optimizer.slots.items():
            for name, weight in self._weights.items():
                value = self._optimizer.state[weight].get(SLOTS[slot]) if weight in self._optimizer.state else None
                found[f"{slot}.{name}"] = to_array(torch.full_like(weight, start) if value is None else value)
        return found | {f"carried.{name}": array for name, array in (self._carried_arrays() or {}).items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken. Raises InputError unless it is whole and fits."""
        model = self.model
        shapes = {name: tuple(weight.shape) for name, weight in self._weights.items()}
        arrays = checked_state(model.spec, self.training, model_dtype(model), state, shapes)
        self._step = int(arrays["step"])
        slots = self.training.optimizer.slots
        for name, weight in self._weights.items():
            own = {SLOTS[slot]: to_tensor(arrays[f"{slot}.{name}"], weight.device) for slot in slots}
            if not isinstance(self._optimizer, torch.optim.SGD):  # it counts no steps
                own["step"] = torch.tensor(float(self._step), dtype=torch.float32)
            self._optimizer.state[weight] = own
        names = [name for name in model.spec.cell_definition.states if f"carried.{name}" in arrays]
        device = next(model.parameters()).device
        self._carried = {name: to_tensor(arrays[f"carried.{name}"], device) for name in names} or None

    def _carried_arrays(self) -> dict[str, Any] | None:
        return None if self._carried is None else {name: to_array(state) for name, state in self._carried.items()}
