"""Long training runs on the tasks' own batches, in which every update is looked at.

The complete product of optimizer, variant and task takes minutes; the suite has a part of it, in which every
optimizer trains every variant, on one of the tasks. Schedules, clips and dropout are spread over both.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..spec.data import Described, check_choice, check_size
from ..spec.dropout import Dropout
from ..spec.encoder_decoder import AnySpec, Source
from ..spec.errors import BackendError
from ..spec.inputs import Inputs
from ..spec.optimizers import OPTIMIZERS, SGD, Adagrad, Adam, Optimizer, RMSprop
from ..spec.parameters import Weights, initial_weights
from ..spec.schedules import SCHEDULES, Cosine, Schedule, StepDecay, WarmUp
from ..spec.training import Batch, Clip, ClipByGlobalNorm, ClipByValue, TrainingSpec
from ..tasks.task import Task, load_task, model_spec
from .arithmetic import Exact
from .descent import descent, side_by_side
from .oracle import Named
from .training import label

Array = NDArray[Any]
UPDATES = 50
TASKS: Mapping[str, Mapping[str, Any]] = {
    "digits": {}, "forecast": {"window": 5}, "char_lm": {"window": 4, "embedding_size": 2},
    "tagging": {"embedding_size": 2}, "translate": {"embedding_size": 2},
}  # fmt: skip
MODELS: Mapping[str, Mapping[str, Any]] = {
    "simple_rnn": {"num_layers": 1},
    "bi_rnn": {"num_layers": 1, "bias": "double"},
    "stacked_rnn": {"num_layers": 2, "bias": "double"},
    "stacked_bi_rnn": {"num_layers": 2, "merge": "sum"},
}
RULES: tuple[Optimizer, ...] = (
    SGD(0.05, 0.9), SGD(0.05, 0.9, nesterov=True), Adam(0.01), Adam(0.01, weight_decay=0.1, decoupled=True),
    RMSprop(0.005), RMSprop(0.002, momentum=0.5, centred=True), Adagrad(0.1),
)  # fmt: skip
RATES: tuple[Schedule | None, ...] = (StepDecay(20), None, Cosine(UPDATES, 0.1), WarmUp(10))
CLIPS: tuple[Clip | None, ...] = (None, ClipByGlobalNorm(0.5), ClipByValue(0.05))
VARIATIONAL, BETWEEN = Dropout(inputs=0.3, state=0.2), Dropout(between_layers=0.3)
DROPS: tuple[Dropout | None, ...] = (None, VARIATIONAL, None, BETWEEN, None)
SPREAD: Mapping[str, Sequence[str]] = {  # tasks of the suite's runs, by rule; those that take longest are few
    "simple_rnn": ("translate", "forecast", "char_lm", "digits", "forecast", "forecast", "tagging"),
    "bi_rnn": ("forecast", "digits", "digits", "forecast", "digits", "forecast", "digits"),
    "stacked_rnn": ("digits", "forecast", "forecast", "digits", "forecast", "forecast", "forecast"),
    "stacked_bi_rnn": ("forecast", "digits", "digits", "forecast", "digits", "forecast", "forecast"),
}


@dataclass(frozen=True)
class Trajectory(Described):
    """A training run on the first batches of a task, by the task's loss, from the spec's initial weights.

    All numbers that it starts from and reads are those of float32, so that both precisions follow the same run.

    Attributes:
        task, variant: names out of `TASKS` and `MODELS`, which say the rest of their settings.
        optimizer, clip, schedule: as in a `TrainingSpec`.
        dropout: of the model; of an encoder and of its decoder too.
        rows: of a batch; smaller ones at the end of an epoch are left out.
        updates: how many.
    """

    task: str
    variant: str
    optimizer: Optimizer
    clip: Clip | None = None
    schedule: Schedule | None = None
    dropout: Dropout | None = None
    rows: int = 2
    updates: int = UPDATES

    KIND: ClassVar[str] = "trajectory"
    PARTS: ClassVar[Mapping[str, type[Described] | tuple[type[Described], ...]]] = {
        "optimizer": OPTIMIZERS, "clip": (ClipByGlobalNorm, ClipByValue), "schedule": SCHEDULES,
        "dropout": Dropout,
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_choice("trajectory task", self.task, tuple(TASKS))
        check_choice("trajectory variant", self.variant, tuple(MODELS))
        check_size("trajectory rows", self.rows)
        check_size("trajectory updates", self.updates)

    @property
    def name(self) -> str:
        """A name that tells the run apart from all others."""
        parts = [part.KIND for part in (self.clip, self.schedule) if part]
        parts += ["_".join(["dropout", *self.dropout.to_data(complete=False)])] if self.dropout else []
        return "-".join([self.task, self.variant, label(self.optimizer), *parts, f"{self.updates}x{self.rows}"])

    @property
    def missing(self) -> str | None:
        """Why the task's data cannot be had here, or None."""
        try:
            _task(self.task)
        except BackendError as error:
            return str(error)
        return None

    @property
    def spec(self) -> AnySpec:
        """The model. Raises SpecError where the variant makes no sense for the task."""
        fields = {"variant": self.variant, "hidden_size": 3, **MODELS[self.variant]}
        return model_spec(_task(self.task), {**fields, "dropout": self.dropout and self.dropout.to_data()})

    @property
    def training(self) -> TrainingSpec:
        """How it is trained."""
        return TrainingSpec(_task(self.task).loss, self.optimizer, self.clip, self.schedule)

    @cached_property
    def weights(self) -> Weights:
        """The initial weights."""
        return {name: array.astype(np.float64) for name, array in initial_weights(self.spec, 1, "float32").items()}

    @cached_property
    def batches(self) -> list[Batch]:
        """One for each update, without the padding that all their rows have."""
        epochs = (_task(self.task).epoch(number, self.rows, 0) for number in itertools.count(1))
        whole = (batch for epoch in epochs for batch in epoch if len(batch.inputs) == self.rows)
        return [_shortened(batch) for batch in itertools.islice(whole, self.updates)]


def trajectories() -> list[Trajectory]:
    """Every optimizer with every variant."""
    return [
        _trajectory(SPREAD[variant][rule], variant, rule)
        for rule, variant in itertools.product(range(len(RULES)), MODELS)
    ]


def every_trajectory() -> Iterator[Trajectory]:
    """Every optimizer with every variant on every task, where it makes sense for that."""
    for task, variant, rule in itertools.product(TASKS, MODELS, range(len(RULES))):
        if not (task == "char_lm" and "bi" in variant):
            yield _trajectory(task, variant, rule)


def quantities(case: Trajectory, ops: Exact) -> Named:
    """What `descent` gives, of all updates: (S, updates, ...) each."""
    updates = [[(batch, _understood(batch))] for batch in case.batches]
    steps = list(descent(case.spec, case.training, case.weights, updates, ops))
    return {name: side_by_side(step[name] for step in steps) for name in steps[0]}


def _trajectory(task: str, variant: str, rule: int) -> Trajectory:
    place = rule + list(MODELS).index(variant)
    clip, rate, drops = CLIPS[place % len(CLIPS)], RATES[place % len(RATES)], DROPS[place % len(DROPS)]
    if MODELS[variant]["num_layers"] == 1 and drops == BETWEEN:
        drops = None
    return Trajectory(task, variant, RULES[rule], clip, rate, drops)


@cache
def _task(name: str) -> Task:
    return load_task({"name": name, **TASKS[name]})


def _shortened(batch: Batch) -> Batch:
    """As long as its longest row, its source too, and in numbers of float32."""
    inputs, source = _cut(batch.inputs, batch.lengths), batch.context
    targets = (
        batch.targets[:, : inputs.shape[1]] if batch.targets.shape[:2] == batch.inputs.shape[:2] else batch.targets
    )
    if isinstance(source, Source):
        source = source._replace(inputs=_cut(source.inputs, source.lengths))
    return replace(batch, inputs=_single(inputs), targets=_single(targets), context=source)


def _cut(inputs: Array, lengths: Array | None) -> Array:
    return inputs if lengths is None else inputs[:, : lengths.max()]


def _single(array: Array) -> Array:
    return array.astype(np.float32).astype(np.float64) if array.dtype.kind == "f" else array


def _understood(batch: Batch) -> Inputs:
    """What a batch means, for the oracle: put together here, and not by the code that backends use."""
    source = batch.context if isinstance(batch.context, Source) else None
    read = source and Inputs(source.inputs, _mask(source.inputs, source.lengths), None, None)
    context = None if source else batch.context
    return Inputs(batch.inputs, _mask(batch.inputs, batch.lengths), None, context, read)


def _mask(inputs: Array, lengths: Array | None) -> Array | None:
    return None if lengths is None else np.arange(inputs.shape[1]) < np.asarray(lengths)[:, None]
