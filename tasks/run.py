"""One run: the loop that drives a backend's trainer through a task, with metrics, evaluations and checkpoints."""

import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ..spec.backend import Contents, load_backend, unsupported
from ..spec.checkpoint import provenance
from ..spec.data import check_choice, check_size
from ..spec.encoder_decoder import AnySpec
from ..spec.errors import BackendError, RnnZooError, SpecError
from ..spec.parameters import check_dtype
from ..spec.run_state import RunState
from ..spec.training import Batch, ClipByGlobalNorm, ClipByValue, TrainingSpec
from .metrics import Metrics
from .resume import check_fixed, check_longer, resumed_task
from .run_folder import RunFolder, Start
from .task import Evaluation, Task, load_task, model_spec, needed

NORMS_TOLD = 5  # of the last updates, where training diverges


class DivergedError(RnnZooError, ArithmeticError):
    """Training came to a loss, a gradient or a weight that is not a finite number."""


class Length(NamedTuple):
    """Updates in a run, between two evaluations, and between two checkpoints."""

    steps: int
    evaluate_every: int
    checkpoint_every: int


def training_spec(
    task: Task, optimizer: Mapping[str, Any], schedule: Mapping[str, Any] | None, trainer: Mapping[str, Any]
) -> TrainingSpec:
    """The task's loss, and optimizer, schedule, clipping and seed of the config. Raises SpecError."""
    check_choice("trainer.clip_kind", trainer["clip_kind"], (ClipByGlobalNorm.KIND, ClipByValue.KIND))
    clip = None if trainer["clip"] is None else {"kind": trainer["clip_kind"], "maximum": trainer["clip"]}
    if schedule and schedule.get("steps", 0) is None:  # what cosine has where trainer.steps is null
        raise SpecError("schedule.steps: expected a number of updates, got none; give schedule.steps or trainer.steps")
    parts = {"loss": task.loss.to_data(), "optimizer": dict(optimizer), "clip": clip, "schedule": schedule}
    parts["seed"] = trainer["seed"]
    return TrainingSpec.from_data(parts, "config")


def run_length(task: Task, trainer: Mapping[str, Any]) -> Length:
    """How long a run is: so many steps, or else so many epochs. Raises SpecError."""
    for key in ("batch_size", "accumulate", "epochs" if trainer["steps"] is None else "steps"):
        check_size(f"trainer.{key}", trainer[key])
    per_epoch = -(-task.steps_per_epoch(trainer["batch_size"]) // trainer["accumulate"])
    evaluate_every = per_epoch if trainer["evaluate_every"] is None else trainer["evaluate_every"]
    checkpoint_every = evaluate_every if trainer["checkpoint_every"] is None else trainer["checkpoint_every"]
    check_size("trainer.evaluate_every", evaluate_every)
    check_size("trainer.checkpoint_every", checkpoint_every)
    steps = trainer["epochs"] * per_epoch if trainer["steps"] is None else trainer["steps"]
    return Length(steps, evaluate_every, checkpoint_every)


class TrainingRun:
    """Updates and evaluations of one model, each recorded as a line of `metrics`, and checkpoints.

    A checkpoint is written before the evaluation that is due with it, which a run that goes on from it makes first:
    so the end of a run leaves the same checkpoint as a longer run that passes by.
    """

    metrics: Metrics
    trainer: Any  # of the backend

    def __init__(self, config: Mapping[str, Any], files: RunFolder, start: Start | None) -> None:
        self.config, self._settings, self._files = config, config["trainer"], files
        self._began, self._start = time.perf_counter(), start
        if start:
            check_fixed(config, start.state.config)
        self.task: Task = (
            resumed_task(config, start)
            if start
            else load_task({key: value for key, value in config["task"].items() if key != "suggested"})
        )
        self.spec: AnySpec = start.contents.spec if start else model_spec(self.task, config["model"])
        self._training = training_spec(self.task, config["optimizer"], config["schedule"], self._settings)
        self._build(start)
        self.steps, self._epoch, self._batch, self._seconds = 0, 1, 0, 0.0
        self._before: tuple[Mapping[str, Any], ...] = ()
        if start:
            self._go_on_from(start)
        self._length = run_length(self.task, self._settings)
        if start:
            check_longer(config["resume"], self.steps, self._length.steps)
        self._norms: deque[float] = deque(maxlen=NORMS_TOLD)

    def _build(self, start: Start | None) -> None:
        name = self.config["backend"]["name"]
        backend = load_backend(name)
        if reason := unsupported(backend, self.spec):
            raise BackendError(f"backend {backend.name!r}: {reason}")
        if not hasattr(backend, "trainer"):
            raise BackendError(f"backend {backend.name!r}: it has no trainer, so that it runs models but trains none")
        options = {"recompute": True} if self._settings["recompute"] else {}
        if options and not getattr(backend, "recomputes", False):
            raise BackendError(f"backend {backend.name!r}: it does not recompute; leave trainer.recompute out")
        dtype = check_dtype(self._settings["dtype"])
        model = backend.build(self.spec, seed=self._settings["seed"], dtype=dtype, **options)
        if start:
            backend.from_spec(model, start.contents.weights)
        self._backend, self._model, self.trainer = backend, model, backend.trainer(model, self._training)

    def _go_on_from(self, start: Start) -> None:
        state, made = start.state, start.contents.provenance
        most = self.task.steps_per_epoch(self._settings["batch_size"])
        if state.batch > most:
            raise SpecError(f"{start.path}: expected at most the {most} batches of an epoch as used, got {state.batch}")
        self.trainer.load_state(state.trainer)
        self.steps, self._epoch, self._batch, self._seconds = state.step, state.epoch, state.batch, state.seconds
        self._before = state.before
        now = {"backend": self.config["backend"]["name"], "training": self._training.to_data()}
        then = {key: made[key] for key in now}
        if state.step and then != now:
            self._before = (*state.before, {"steps": state.step, **then})

    @property
    def seconds(self) -> float:
        """That the run has taken, with what it goes on from."""
        return self._seconds + time.perf_counter() - self._began

    def updates(self) -> Evaluation:
        """All updates that are left; the evaluation after the last one. Raises DivergedError."""
        updates, length = self.batches(), self._length
        with self._bar() as bar, np.errstate(all="ignore"):  # `update` looks itself
            while self.steps < length.steps:
                if self.steps and self.steps % length.evaluate_every == 0:
                    self._evaluate()
                self.update(next(updates), bar)
                if self.steps % length.checkpoint_every == 0 or self.steps == length.steps:
                    self._checkpoint()
        return self._evaluate()

    def batches(self) -> Iterator[list[Batch]]:
        """The batches of each update; none has some of two epochs."""
        while True:
            batches = self.task.epoch(self._epoch, self._settings["batch_size"], self._settings["seed"])
            batches = islice(batches, self._batch, None)
            while update := list(islice(batches, self._settings["accumulate"])):
                self._batch += len(update)
                yield update
            self._epoch, self._batch = self._epoch + 1, 0

    def update(self, batches: list[Batch], bar: Any) -> None:
        """One update, a line of metrics and a step of the bar. Raises DivergedError."""
        result = self.trainer.step(*batches)
        self.steps += 1
        self._norms.append(result.gradient_norm)
        if not (math.isfinite(result.loss) and math.isfinite(result.gradient_norm)):
            raise self._diverged(f"the loss is {result.loss:g}")
        self.record("update", loss=result.loss, gradient_norm=result.gradient_norm)
        bar.set_postfix(loss=f"{result.loss:.3f}", refresh=False)
        bar.update()

    def _evaluate(self) -> Evaluation:
        evaluation = self.task.evaluate(self._backend, self._model)
        self.record("evaluation", **evaluation.metrics)
        return evaluation

    def record(self, event: str, **numbers: float) -> None:
        """Write down numbers of this step."""
        self.metrics.record(event, self.steps, self._epoch, **numbers)

    def contents(self, **details: Any) -> Contents:
        """The model as it is now, and how it came to be."""
        before = {"before": [dict(part) for part in self._before]} if self._before else {}
        record = provenance(
            task=self.task.settings(), backend=self.config["backend"]["name"], training=self._training.to_data(),
            trainer=dict(self._settings), steps=self.steps, **before, **details,
        )  # fmt: skip
        return Contents(self.spec, self._backend.to_spec(self._model), record)

    def _checkpoint(self) -> None:
        contents = self.contents()
        if not all(np.isfinite(array).all() for array in contents.weights.values()):
            raise self._diverged("a weight is not finite")
        config, metrics = {**self.config, "resume": None}, self.metrics.text()
        state = RunState(
            self.trainer.state(), self._epoch, self._batch, config, metrics, self._before, round(self.seconds, 2)
        )
        self._files.save(contents, state)

    def _diverged(self, what: str) -> DivergedError:
        """The error that names the update, the norms, and what there is to go on from."""
        norms = ", ".join(f"{norm:g}" for norm in self._norms)
        kept = self._files.checkpoints() or [start.path for start in [self._start] if start]
        last = f"the last good checkpoint is {kept[0]}" if kept else "there is no checkpoint yet"
        way_out = f"go on from it with resume={kept[0]} and a " if kept else "start again with a "
        return DivergedError(
            f"update {self.steps}: {what}, and the norms of the gradients up to it are {norms}; expected finite "
            f"numbers; the run stopped, and {last}: {way_out}lower optimizer.learning_rate or trainer.clip"
        )

    def _bar(self) -> Any:
        """A progress bar on standard error; a silent one where that is no terminal or none is wanted."""
        shown = self._settings["progress"] and sys.stderr.isatty()
        return needed("tqdm", "tqdm").tqdm(
            total=self._length.steps, initial=self.steps, disable=not shown, unit="update", dynamic_ncols=True
        )
