"""Losses, clipping and the trainer; a whole update is one graph (SPEC.md, 12)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ..spec.backend import StepResult
from ..spec.dropout import Masks
from ..spec.encoder_decoder import networks
from ..spec.errors import UnsupportedError, listed
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
from .arguments import context_of, named_states, tensors_of
from .dropout import int64
from .encoder_decoder import EncoderDecoder
from .graphs import Graph
from .layers import worth_compiling
from .model import SequenceModel
from .optimizers import dense, optimizer_of
from .weights import turned, variables

Tensor = Any
Array = Any


def loss_value(loss: Loss, scores: Tensor, targets: Tensor, entries: Tensor, scale: Tensor) -> Tensor:
    """The sum over the entries that count, times scale; 0 where none does.

    scores (..., O); targets classes (...) or numbers (..., O); entries (...) bool.
    """
    zero = tf.zeros([], scores.dtype)
    if isinstance(loss, CrossEntropy):
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, scores)
        return tf.reduce_sum(tf.where(entries, losses, zero)) * scale
    difference = tf.where(entries[..., None], scores - targets, zero)
    return tf.reduce_sum(difference * difference) * scale


def global_norm(gradients: list[Tensor]) -> Tensor:
    """The 2-norm of all gradients together."""
    return tf.sqrt(tf.add_n([tf.reduce_sum(g * g) for g in gradients]))


def clipped(clip: Clip | None, gradients: list[Tensor], norm: Tensor) -> list[Tensor]:
    """The gradients after clipping."""
    if clip is None:
        return gradients
    maximum = tf.constant(clip.maximum, norm.dtype)
    if isinstance(clip, ClipByGlobalNorm):
        factor = tf.where(norm <= maximum, tf.ones([], norm.dtype), maximum / norm)
        return [g * factor for g in gradients]
    return [tf.clip_by_value(g, -maximum, maximum) for g in gradients]


class Trainer:
    """Updates a model in place, one batch at a time.

    Raises:
        UnsupportedError: a weight is frozen (`trainable = False`).
    """

    def __init__(self, model: SequenceModel | EncoderDecoder, training: TrainingSpec) -> None:
        self.model = model
        self.training = training
        self._weights = variables(model)
        trainable = {id(variable) for variable in model.trainable_variables}
        if frozen := [name for name, variable in self._weights.items() if id(variable) not in trainable]:
            raise UnsupportedError(f"trainer: expected all weights trainable, got frozen {listed(frozen)}; use fit")
        self._optimizer = optimizer_of(training.optimizer)
        self._optimizer.build(list(self._weights.values()))
        self._carried: dict[str, Array] | None = None
        self._drops = model.spec.dropout is not None
        self.graph = Graph(self._update, self._worth)
        self._slopes = Graph(self._gradients, self._worth)  # of an update by several batches
        self._applied = Graph(self._apply)

    def step(self, batch: Batch, *more: Batch) -> StepResult:
        """One update by all batches; the loss before it and the gradients' global norm before clipping.

        Raises InputError.
        """
        model, training = self.model, self.training
        checked = checked_update(model.spec, model.dtype, training.loss, (batch, *more), lambda: self._carried)
        if training.schedule:
            self._optimizer.learning_rate = training.learning_rate(int(self._optimizer.iterations.numpy()) + 1)
        if more:
            return self._accumulated(checked)
        loss, norm, final = self.graph(self._tensors(next(checked)))
        self._carry(final)
        return StepResult(float(loss), float(norm))

    def _accumulated(self, batches: Iterator[CheckedBatch]) -> StepResult:
        loss, gradients = 0.0, {name: tf.zeros_like(variable.value) for name, variable in self._weights.items()}
        for batch in batches:
            part, found, final = self._slopes(self._tensors(batch))
            loss += float(part)
            gradients = {name: total + found[name] for name, total in gradients.items()}
            self._carry(final)
        return StepResult(loss, float(self._applied(gradients)))

    def _carry(self, final: Mapping[str, Tensor]) -> None:
        self._carried = {name: state.numpy() for name, state in final.items()}

    def _tensors(self, batch: CheckedBatch) -> dict[str, Any]:
        masks = self.training.masks(int(self._optimizer.iterations.numpy()) + 1, batch)
        found = {
            "targets": batch.targets,
            "entries": batch.entries,
            "scale": np.asarray(1 / batch.divisor, self.model.dtype),
        }
        found |= {f"masks.{name}": int64(word) for name, word in masks._asdict().items()} if self._drops else {}
        return tensors_of(batch.arguments) | found

    def _worth(self, given: dict[str, Tensor]) -> bool | None:
        """Whether the loops are worth compiling; None where those of an encoder are and those of a decoder are not."""
        read = [given[name] for name in ("source.inputs", "inputs") if name in given]  # a carried state has no source
        sizes = zip(networks(self.model.spec)[-len(read) :], read, strict=True)
        found = {worth_compiling(spec, *inputs.shape[:2]) for spec, inputs in sizes}
        return found.pop() if len(found) == 1 else None

    def _update(self, given: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        loss, gradients, final = self._gradients(given)
        return loss, self._apply(gradients), final

    def _gradients(self, given: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        names = self.model.spec.cell_definition.states
        initial = {name: given[f"initial.{name}"] for name in names if f"initial.{name}" in given}
        masks = Masks(*(given[f"masks.{name}"] for name in Masks._fields)) if self._drops else None
        with tf.GradientTape() as tape:
            final, scores = self.model.scored(
                given["inputs"],
                mask=given.get("mask"),
                initial_state=initial or None,
                context=context_of(given),
                dropout=masks,
            )
            loss = loss_value(self.training.loss, scores, given["targets"], given["entries"], given["scale"])
        sources = {name: variable.value for name, variable in self._weights.items()}
        found = tape.gradient(loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, {name: dense(g) for name, g in found.items()}, named_states(self.model.spec, final)

    def _apply(self, given: dict[str, Tensor]) -> Tensor:
        gradients = [given[name] for name in self._weights]
        norm = global_norm(gradients)
        self._optimizer.apply(clipped(self.training.clip, gradients, norm), list(self._weights.values()))
        return norm

    def state(self) -> dict[str, Array]:
        """A copy of the step count, the optimizer's slots and the carried states, in the spec's layout."""
        found: dict[str, Array] = {"step": np.asarray(self._optimizer.iterations.numpy(), np.int64)}
        for slot, name, variable in self._slots():
            found[f"{slot}.{name}"] = np.array(turned(name, variable.numpy()), order="C")
        return found | {f"carried.{name}": array.copy() for name, array in (self._carried or {}).items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken. Raises InputError unless it is whole and fits."""
        model = self.model
        shapes = {name: turned(name, variable.numpy()).shape for name, variable in self._weights.items()}
        arrays = checked_state(model.spec, self.training, model.dtype, state, shapes)
        self._optimizer.iterations.assign(arrays["step"])
        for slot, name, variable in self._slots():
            variable.assign(turned(name, arrays[f"{slot}.{name}"]))
        prefix = "carried."
        self._carried = {n.removeprefix(prefix): a.copy() for n, a in arrays.items() if n.startswith(prefix)} or None

    def _slots(self) -> list[tuple[str, str, Any]]:
        """Slot name, weight name and variable of everything that the optimizer keeps."""
        return [
            (slot, name, variable)
            for slot, kept in self._optimizer.slots.items()
            for name, variable in zip(self._weights, kept, strict=True)
        ]
