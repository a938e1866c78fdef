"""What a training run computes by the letter of the spec, in any arithmetic (SPEC.md, 12)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.dropout import Masks
from ..spec.encoder_decoder import AnySpec
from ..spec.inputs import Inputs
from ..spec.model import Head
from ..spec.parameters import Weights
from ..spec.training import Batch, CrossEntropy, Loss, TrainingSpec
from .arithmetic import Exact
from .oracle import Named, OracleRun
from .pairs import oracle
from .tape import Value, sum_of_rows
from .updates import Update, clipped, global_norm

Array = NDArray[Any]
Batches = Sequence[tuple[Batch, Inputs]]  # of one update, each with what its arguments mean


def descent(
    spec: AnySpec, training: TrainingSpec, weights: Weights, updates: Iterable[Batches], ops: Exact
) -> Iterator[Named]:
    """After each update, samples first: `loss`, `gradient norm`, the weights and the trainer's state, by name."""
    update = Update(training.optimizer, ops, weights)
    carried: Named | None = None
    for step, batches in enumerate(updates, start=1):
        model, parts, rows = oracle(spec, update.weights, ops, "weights"), list[Value](), 0
        for batch, inputs in batches:
            masks, before = Masks(training.seed, step, rows), carried if batch.continues else None
            run = model.run(inputs, before, masks=masks)
            rows += len(inputs.inputs)
            parts += _losses(training.loss, run, inputs, np.asarray(batch.targets))
            carried = {name: run.arrays()[f"final_state.{name}"] for name in spec.cell_definition.states}
        divisor = _divisor(training.loss, run.spec.head, [inputs for _, inputs in batches])
        loss = sum_of_rows(parts) / divisor if parts else Value(ops.zeros((1, 1, 1)), ops)
        gradients = run.derivatives([(loss, ops.constant(1.0)[:, None, None])])
        norm = global_norm(ops, gradients)
        update(clipped(training.clip, ops, gradients, norm), training.learning_rate(step))
        after = update.weights | update.state() | {f"carried.{name}": a for name, a in (carried or {}).items()}
        yield {"loss": loss.array[:, 0, 0], "gradient norm": norm, **after}


def side_by_side(columns: Iterable[Array]) -> Array:
    """Arrays (S, ...) of several steps as one, (S, steps, ...)."""
    return np.stack(np.broadcast_arrays(*columns), axis=1)


def _losses(loss: Loss, run: OracleRun, given: Inputs, targets: Array) -> Iterator[Value]:
    """The losses of a batch's entries that count, (S, rows, 1) of each step."""
    head = run.spec.head
    assert head is not None
    valid = _valid(given, head)
    targets = targets[:, None] if head.reads == "final" else targets
    for t, scores in enumerate(run.scores):
        seen = np.flatnonzero(valid[:, t])
        if seen.size:
            yield _entries(loss, scores.take(seen), targets[seen, t])


def _divisor(loss: Loss, head: Head | None, update: list[Inputs]) -> int:
    """By what the sum over all batches of an update is divided (SPEC.md, 12.1, 12.2 and 12.11)."""
    assert head is not None
    numbers_in_mean = sum(int(_valid(each, head).sum()) for each in update)
    numbers_in_mean *= 1 if isinstance(loss, CrossEntropy) else head.size
    rows = sum(len(each.inputs) for each in update)
    return max({"mean": numbers_in_mean, "sum": 1, "batch_mean": rows}[loss.reduction], 1)


def _valid(given: Inputs, head: Head) -> Array:
    """Which entries count, (B, T), or (B, 1) where the head reads the final states."""
    rows, steps = given.inputs.shape[:2]
    if head.reads == "final" or given.mask is None:
        return np.ones((rows, 1 if head.reads == "final" else steps), bool)
    return given.mask


def _entries(loss: Loss, scores: Value, targets: Array) -> Value:
    """The loss of each of some rows, (S, rows, 1)."""
    scores.ops.round_of("loss")
    if isinstance(loss, CrossEntropy):
        shifted = scores - Value(scores.array[:1].max(axis=2, keepdims=True), scores.ops)
        return shifted.exp().sum(2).log() - shifted.unit_of_each(targets)
    difference = scores - targets
    return (difference * difference).sum(2)
