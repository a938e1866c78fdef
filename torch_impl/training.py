"""Losses, clipping and the trainer (SPEC.md, 12). torch's SGD and Adam compute the spec's equations as they are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..spec.backend import StepResult
from ..spec.training import (
    SGD,
    Batch,
    Clip,
    ClipByGlobalNorm,
    CrossEntropy,
    Loss,
    Optimizer,
    TrainingSpec,
    checked_batch,
    checked_state,
    optimizer_slots,
)
from .model import SequenceModel, arguments, named_result
from .recurrent import Recurrent
from .weights import model_dtype, named_parameters, to_array, to_tensor

SLOTS = {"momentum": "momentum_buffer", "first_moment": "exp_avg", "second_moment": "exp_avg_sq"}  # spec's: torch's


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


def torch_optimizer(rule: Optimizer, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    """torch's own optimizer for the rule."""
    if isinstance(rule, SGD):
        return torch.optim.SGD(weights, lr=rule.learning_rate, momentum=rule.momentum)
    return torch.optim.Adam(weights, lr=rule.learning_rate, betas=(rule.beta1, rule.beta2), eps=rule.epsilon)


class Trainer:
    """Updates a model in place, one batch at a time. Weights whose `requires_grad` is False stay as they are."""

    def __init__(self, model: Recurrent | SequenceModel, training: TrainingSpec) -> None:
        self.model = model
        self.training = training
        self._weights = named_parameters(model)
        self._optimizer = torch_optimizer(training.optimizer, list(self._weights.values()))
        self._step = 0
        self._carried: dict[str, Tensor] | None = None

    def step(self, batch: Batch) -> StepResult:
        """One update; the loss before it and the gradients' global norm before clipping. Raises InputError."""
        model, training = self.model, self.training
        carried = self._carried_arrays() if batch.continues else None
        checked = checked_batch(model.spec, model_dtype(model), training.loss, batch, carried)
        trained = [weight for weight in self._weights.values() if weight.requires_grad]
        with torch.inference_mode(False), torch.enable_grad():
            _, final, scores = named_result(model, model(**arguments(model, checked.arguments)))
            assert scores is not None
            targets, entries = (to_tensor(array, scores.device) for array in (checked.targets, checked.entries))
            loss = loss_value(training.loss, scores, targets, entries, checked.divisor)
            gradients = list(torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True))
            result = StepResult(*torch.stack([loss.detach(), global_norm(gradients)]).tolist())  # the one host sync
        self._update(trained, clipped(training.clip, gradients, result.gradient_norm))
        self._carried = {name: state.detach() for name, state in final.items()}
        return result

    def _update(self, weights: list[nn.Parameter], gradients: list[Tensor]) -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._step += 1

    def state(self) -> dict[str, Any]:
        """A copy of the step count, the optimizer's slots and the carried states."""
        found: dict[str, Any] = {"step": np.asarray(self._step, np.int64)}
        for slot in optimizer_slots(self.training.optimizer):
            for name, weight in self._weights.items():
                value = self._optimizer.state[weight].get(SLOTS[slot]) if weight in self._optimizer.state else None
                found[f"{slot}.{name}"] = to_array(torch.zeros_like(weight) if value is None else value)
        return found | {f"carried.{name}": array for name, array in (self._carried_arrays() or {}).items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken. Raises InputError unless it is whole and fits."""
        model = self.model
        shapes = {name: tuple(weight.shape) for name, weight in self._weights.items()}
        arrays = checked_state(model.spec, self.training, model_dtype(model), state, shapes)
        self._step = int(arrays["step"])
        slots = optimizer_slots(self.training.optimizer)
        for name, weight in self._weights.items():
            own = {SLOTS[slot]: to_tensor(arrays[f"{slot}.{name}"], weight.device) for slot in slots}
            if "exp_avg" in own:
                own["step"] = torch.tensor(float(self._step), dtype=torch.float32)
            self._optimizer.state[weight] = own
        names = [name for name in model.spec.cell_definition.states if f"carried.{name}" in arrays]
        device = next(model.parameters()).device
        self._carried = {name: to_tensor(arrays[f"carried.{name}"], device) for name in names} or None

    def _carried_arrays(self) -> dict[str, Any] | None:
        return None if self._carried is None else {name: to_array(state) for name, state in self._carried.items()}
