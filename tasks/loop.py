"""The loop that drives a backend's trainer through a task, and the run's folder that it fills.

The folder gets `config.yaml`, `metrics.jsonl` (a JSON object a line: updates, evaluations, the summary) and
`model.safetensors`, the canonical checkpoint; on request also TensorBoard's event files.
"""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from ..spec.backend import Contents, load_backend
from ..spec.checkpoint import provenance, save
from ..spec.data import check_choice, check_size
from ..spec.errors import BackendError, FileError, RnnZooError
from ..spec.parameters import check_dtype
from ..spec.training import Batch, ClipByGlobalNorm, ClipByValue, TrainingSpec
from .metrics import Metrics
from .task import Evaluation, Task, load_task, model_spec, needed

CONFIG, CHECKPOINT = "config.yaml", "model.safetensors"


class DivergedError(RnnZooError, ArithmeticError):
    """Training came to a loss or a gradient that is not a finite number."""


@dataclass(frozen=True)
class Summary:
    """What a run came to: the task's metric at the end, what it compares with, and where everything is."""

    task: str
    variant: str
    backend: str
    metric: str
    value: float
    baseline: float
    baseline_name: str
    steps: int
    seconds: float
    folder: str


class Length(NamedTuple):
    """Updates in a run, and between two evaluations."""

    steps: int
    evaluate_every: int


def train(config: Mapping[str, Any], folder: Path) -> Summary:
    """Train as a resolved config says (the keys of `configs.Config`), and fill the run's folder.

    Raises:
        DivergedError: the loss is not finite any more.
        RnnZooError: a value, a file or a backend is not usable.
    """
    trainer = config["trainer"]
    if (folder / CHECKPOINT).exists():
        raise FileError(f"{folder / CHECKPOINT}: exists already; name another folder with hydra.run.dir=FOLDER")
    backend = load_backend(config["backend"]["name"])
    task = load_task({key: value for key, value in config["task"].items() if key != "suggested"})
    spec = model_spec(task, config["model"])
    training = training_spec(task, config["optimizer"], config["schedule"], trainer)
    if reason := backend.supports(spec):
        raise BackendError(f"backend {backend.name!r}: {reason}")
    if not hasattr(backend, "trainer"):
        raise BackendError(f"backend {backend.name!r}: it has no trainer, so that it runs models but trains none")
    model = backend.build(spec, seed=trainer["seed"], dtype=check_dtype(trainer["dtype"]))
    length = run_length(task, trainer)
    (folder / CONFIG).write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    began = time.perf_counter()
    with Metrics(folder, trainer["tensorboard"]) as metrics:
        run = Run(task, backend, model, metrics)
        evaluation = run.updates(backend.trainer(model, training), length, trainer)
        summary = Summary(
            task.name, spec.variant, config["backend"]["name"], task.metric, evaluation.value, evaluation.baseline,
            evaluation.baseline_name, run.steps, round(time.perf_counter() - began, 2), str(folder),
        )  # fmt: skip
        run.record("summary", **evaluation.metrics, baseline=summary.baseline, seconds=summary.seconds)
    record = provenance(
        task=task.settings(), backend=summary.backend, training=training.to_data(), trainer=dict(trainer),
        steps=run.steps, metrics=dict(evaluation.metrics), baseline=evaluation.baseline,
    )  # fmt: skip
    save(folder / CHECKPOINT, Contents(spec, backend.to_spec(model), record))
    return summary


def training_spec(
    task: Task, optimizer: Mapping[str, Any], schedule: Mapping[str, Any] | None, trainer: Mapping[str, Any]
) -> TrainingSpec:
    """The task's loss, and optimizer, schedule, clipping and seed of the config. Raises SpecError."""
    check_choice("trainer.clip_kind", trainer["clip_kind"], (ClipByGlobalNorm.KIND, ClipByValue.KIND))
    clip = None if trainer["clip"] is None else {"kind": trainer["clip_kind"], "maximum": trainer["clip"]}
    parts = {"loss": task.loss.to_data(), "optimizer": dict(optimizer), "clip": clip, "schedule": schedule}
    parts["seed"] = trainer["seed"]
    return TrainingSpec.from_data(parts, "config")


def run_length(task: Task, trainer: Mapping[str, Any]) -> Length:
    """How long a run is: so many steps, or else so many epochs. Raises SpecError."""
    for key in ("batch_size", "epochs" if trainer["steps"] is None else "steps"):
        check_size(f"trainer.{key}", trainer[key])
    per_epoch = task.steps_per_epoch(trainer["batch_size"])
    every = per_epoch if trainer["evaluate_every"] is None else trainer["evaluate_every"]
    check_size("trainer.evaluate_every", every)
    return Length(trainer["epochs"] * per_epoch if trainer["steps"] is None else trainer["steps"], every)


class Run:
    """Updates and evaluations of one model, each of them recorded."""

    def __init__(self, task: Task, backend: Any, model: Any, metrics: Metrics) -> None:
        self.steps = 0
        self._task, self._backend, self._model, self._metrics = task, backend, model, metrics
        self._epoch = 0

    def updates(self, trainer: Any, length: Length, settings: Mapping[str, Any]) -> Evaluation:
        """All updates; the evaluation after the last one. Raises DivergedError."""
        with _bar(length.steps, settings["progress"]) as bar, np.errstate(all="ignore"):  # `_update` looks itself
            for batch in islice(self._batches(settings), length.steps):
                self._update(trainer, batch, bar)
                if self.steps % length.evaluate_every == 0 and self.steps < length.steps:
                    self._evaluate()
        return self._evaluate()

    def _batches(self, settings: Mapping[str, Any]) -> Iterator[Batch]:
        while True:
            self._epoch += 1
            yield from self._task.epoch(self._epoch, settings["batch_size"], settings["seed"])

    def _update(self, trainer: Any, batch: Batch, bar: Any) -> None:
        result = trainer.step(batch)
        self.steps += 1
        if not (math.isfinite(result.loss) and math.isfinite(result.gradient_norm)):
            raise DivergedError(
                f"update {self.steps}: the loss is {result.loss:g} and the norm of the gradients "
                f"{result.gradient_norm:g}, expected finite numbers; the run stopped and wrote no checkpoint: "
                "lower optimizer.learning_rate or trainer.clip"
            )
        self.record("update", loss=result.loss, gradient_norm=result.gradient_norm)
        bar.set_postfix(loss=f"{result.loss:.3f}", refresh=False)
        bar.update()

    def _evaluate(self) -> Evaluation:
        evaluation = self._task.evaluate(self._backend, self._model)
        self.record("evaluation", **evaluation.metrics)
        return evaluation

    def record(self, event: str, **numbers: float) -> None:
        """Write down numbers of this step."""
        self._metrics.record(event, self.steps, self._epoch, **numbers)


def _bar(total: int, wanted: bool) -> Any:
    """A progress bar on standard error; a silent one where that is no terminal or none is wanted."""
    shown = wanted and sys.stderr.isatty()
    return needed("tqdm", "tqdm").tqdm(total=total, disable=not shown, unit="update", dynamic_ncols=True)
