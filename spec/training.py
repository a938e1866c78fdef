"""How a model is trained, as frozen descriptions (SPEC.md, 12). Each backend implements them in its own framework."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .data import Described, check_choice, check_number, check_size
from .dropout import Masks
from .encoder_decoder import AnySpec
from .errors import InputError, SpecError, listed
from .inputs import Inputs, as_array, checked_inputs, numbers
from .optimizers import OPTIMIZERS, Optimizer
from .schedules import SCHEDULES, Schedule

REDUCTIONS = ("mean", "sum", "batch_mean")
Array = NDArray[Any]


@dataclass(frozen=True)
class _Loss(Described):
    reduction: str = "mean"

    def __post_init__(self) -> None:
        check_choice("loss reduction", self.reduction, REDUCTIONS)

    def divisor(self, rows: int, entries: int) -> int:
        """What the sum of the entries' losses is divided by, at least 1."""
        return max({"mean": entries, "sum": 1, "batch_mean": rows}[self.reduction], 1)


@dataclass(frozen=True)
class CrossEntropy(_Loss):
    """-log softmax(scores)[target] of each valid step, or of each row where the head reads the final states.

    Reductions: `mean` over these entries; `sum`; `batch_mean`, the sum divided by the number of rows.
    """

    KIND: ClassVar[str] = "cross_entropy"


@dataclass(frozen=True)
class MeanSquaredError(_Loss):
    """(score - target)^2 of every score of each valid step, or of each row where the head reads the final states.

    Reductions: `mean` over these numbers; `sum`; `batch_mean`, the sum divided by the number of rows.
    """

    KIND: ClassVar[str] = "mean_squared_error"


@dataclass(frozen=True)
class ClipByGlobalNorm(Described):
    """All gradients times min(1, maximum / norm), norm the exact 2-norm of all of them together."""

    maximum: float
    KIND: ClassVar[str] = "global_norm"

    def __post_init__(self) -> None:
        check_number("clip maximum", self.maximum, 0.0, np.inf, open_low=True)


@dataclass(frozen=True)
class ClipByValue(Described):
    """Every number of every gradient limited to [-maximum, maximum]."""

    maximum: float
    KIND: ClassVar[str] = "value"

    def __post_init__(self) -> None:
        check_number("clip maximum", self.maximum, 0.0, np.inf, open_low=True)


Loss = CrossEntropy | MeanSquaredError
Clip = ClipByGlobalNorm | ClipByValue


@dataclass(frozen=True)
class TrainingSpec(Described):
    """Loss, optimizer, clipping and the schedule of the learning rate of a training run, and the seed of its masks.

    Raises:
        SpecError: a value is outside its range, or a part is missing.
    """

    loss: Loss
    optimizer: Optimizer
    clip: Clip | None = None
    schedule: Schedule | None = None
    seed: int = 0

    ADDED: ClassVar[tuple[str, ...]] = ("seed",)
    PARTS: ClassVar[Mapping[str, tuple[type[Described], ...]]] = {
        "loss": (CrossEntropy, MeanSquaredError), "optimizer": OPTIMIZERS, "clip": (ClipByGlobalNorm, ClipByValue),
        "schedule": SCHEDULES,
    }  # fmt: skip

    def __post_init__(self) -> None:
        for name, kinds in self.PARTS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) and not (value is None and name in ("clip", "schedule")):
                raise SpecError(f"{name}: expected {' or '.join(kind.__name__ for kind in kinds)}, got {value!r}")
        check_size("training seed", self.seed, minimum=0)
        if self.seed >= 2**64:
            raise SpecError(f"training seed: expected an integer below 2^64, got {self.seed}")

    def learning_rate(self, t: int) -> float:
        """The learning rate of update t, from 1, in double precision."""
        return float(self.optimizer.learning_rate * (self.schedule.factor(t) if self.schedule else 1.0))

    def masks(self, t: int, batch: "CheckedBatch") -> Masks:
        """Which masks of dropout a batch of update t gets."""
        return Masks(self.seed, t, batch.first_row)


@dataclass(frozen=True)
class Batch:
    """The arrays of one update.

    Attributes:
        inputs: (B, T, I), or tokens (B, T).
        targets: classes (B, T) or (B,) for cross-entropy; numbers shaped as the scores for the squared error.
        lengths, mask, initial_state, context: as for a run; the context of an encoder-decoder is a `Source`.
        continues: start from the final state of the trainer's last batch, taken as a constant
            (truncated backpropagation through time); that batch had as many rows.
    """

    inputs: Any
    targets: Any
    lengths: Any = None
    mask: Any = None
    initial_state: Any = None
    context: Any = None
    continues: bool = False


@dataclass(frozen=True)
class CheckedBatch:
    """A batch whose arrays fit the model and the loss.

    Attributes:
        arguments: as for a run; the carried states stand in `initial_states`.
        targets: int64 classes, 0 at invalid steps; or numbers in the model's dtype, 0 at invalid steps.
        entries: bool, True where an entry counts: (B, T), or (B,) where the head reads the final states.
        count: of the losses that are summed: entries, times the scores of each for the squared error.
        divisor: what the sum over the entries is divided by.
        first_row: rows of the same update in batches before this one.
    """

    arguments: Inputs
    targets: Array
    entries: NDArray[np.bool_]
    count: int
    divisor: int
    first_row: int = 0


def checked_batch(
    spec: AnySpec, dtype: str, loss: Loss, batch: Batch, carried: Mapping[str, Array] | None
) -> CheckedBatch:
    """The batch in the form that every backend computes with.

    Raises:
        InputError: targets do not fit, the model has no head, or the batch continues where nothing came before.
    """
    if spec.head is None:
        raise InputError(
            "training: expected a model with a head, as the loss reads scores; build it with head=Head(size)"
        )
    initial = batch.initial_state
    if batch.continues:
        if carried is None or initial is not None or batch.context is not None:
            raise InputError("batch: continues=True needs a batch before it, and neither initial_state nor context")
        initial = carried
    arguments = checked_inputs(
        spec, dtype, batch.inputs, lengths=batch.lengths, mask=batch.mask, initial_state=initial, context=batch.context
    )
    rows, steps = arguments.inputs.shape[:2]
    if spec.head.reads == "final":
        entries = np.ones(rows, np.bool_)
    else:
        entries = np.ones((rows, steps), np.bool_) if arguments.mask is None else arguments.mask
    if isinstance(loss, CrossEntropy):
        targets, count = _classes(as_array("targets", batch.targets), entries, spec.head.size), int(entries.sum())
    else:
        targets = _numbers(as_array("targets", batch.targets), entries, spec.head.size, dtype)
        count = int(entries.sum()) * spec.head.size
    return CheckedBatch(arguments, targets, entries, count, loss.divisor(rows, count))


def checked_update(
    spec: AnySpec, dtype: str, loss: Loss, batches: Sequence[Batch], carried: Callable[[], Mapping[str, Array] | None]
) -> Iterator[CheckedBatch]:
    """The batches of one update, one after the other, all divided by what the entries of all of them give.

    `carried` gives the final states of the batch before; it is asked when a batch that continues is due.

    Raises:
        InputError: as `checked_batch`; for all that needs no carried state before the first batch is given.
    """
    divisor, rows = None, 0
    if len(batches) > 1:
        alone = [checked_batch(spec, dtype, loss, batch, _zero_states(spec, dtype, batch)) for batch in batches]
        divisor = loss.divisor(sum(len(b.arguments.inputs) for b in alone), sum(b.count for b in alone))
    for batch in batches:
        checked = checked_batch(spec, dtype, loss, batch, carried() if batch.continues else None)
        yield replace(checked, divisor=divisor or checked.divisor, first_row=rows)
        rows += len(checked.arguments.inputs)


def _zero_states(spec: AnySpec, dtype: str, batch: Batch) -> dict[str, Array] | None:
    """Where a batch could go on from, to be checked by itself; None where it begins."""
    if not batch.continues:
        return None
    shape = spec.state_shape(len(as_array("inputs", batch.inputs)))
    return {name: np.zeros(shape, dtype) for name in spec.cell_definition.states}


def _classes(targets: Array, entries: NDArray[np.bool_], size: int) -> Array:
    if targets.shape != entries.shape or targets.dtype.kind not in "iu":
        raise InputError(
            f"targets: expected integer classes of shape {entries.shape}, got {targets.dtype} of shape {targets.shape}"
        )
    seen = targets[entries]
    if seen.size and (seen.min() < 0 or seen.max() >= size):
        raise InputError(f"targets: expected classes from 0 to {size - 1}, got {seen.min()} to {seen.max()}")
    return np.where(entries, targets, 0).astype(np.int64)


def _numbers(targets: Array, entries: NDArray[np.bool_], size: int, dtype: str) -> Array:
    if targets.shape != (*entries.shape, size):
        raise InputError(f"targets: expected shape {(*entries.shape, size)}, got {targets.shape}")
    return np.where(entries[..., None], numbers("targets", targets, dtype), np.zeros((), dtype))


def checked_state(
    spec: AnySpec, training: TrainingSpec, dtype: str, state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """A trainer's state, whole and of the right shapes: `step`, the slots, and `carried.{name}` or none of them.

    Raises:
        InputError: a name is missing or surplus, or a shape or dtype is another.
    """
    slots = {f"{slot}.{name}": shape for slot in training.optimizer.slots for name, shape in shapes.items()}
    carried = {f"carried.{name}" for name in spec.cell_definition.states}
    missing = {"step", *slots} - set(state)
    surplus = set(state) - {"step", *slots} - carried
    partly = carried - set(state) if carried & set(state) else set()
    if missing or surplus or partly:
        raise InputError(
            f"trainer state: missing {listed(missing | partly)}; surplus {listed(surplus)}; "
            "give what state() of a trainer with the same model and training spec returned"
        )
    arrays = {name: as_array(f"trainer state {name}", value) for name, value in state.items()}
    if arrays["step"].shape != () or arrays["step"].dtype.kind not in "iu" or arrays["step"] < 0:
        raise InputError(f"trainer state step: expected one integer of at least 0, got {arrays['step']!r}")
    rows, _, units = spec.state_shape(1)
    for name, array in arrays.items():
        if name != "step" and array.dtype != np.dtype(dtype):
            raise InputError(f"trainer state {name}: expected dtype {dtype}, got {array.dtype}")
        if name in slots and array.shape != slots[name]:
            raise InputError(f"trainer state {name}: expected shape {slots[name]}, got {array.shape}")
        if name in carried and (array.ndim != 3 or array.shape[::2] != (rows, units)):
            raise InputError(f"trainer state {name}: expected shape ({rows}, B, {units}), got {array.shape}")
    return arrays
