"""`train`: one run from its config to its folder, which says what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..spec.checkpoint import save
from .metrics import Metrics
from .run import DivergedError as DivergedError
from .run import TrainingRun
from .run_folder import RunFolder, start_of


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


def train(config: Mapping[str, Any], folder: Path) -> Summary:
    """Train as a resolved config says (the keys of `configs.Config`), and fill the run's folder.

    Raises:
        DivergedError: the loss is not finite any more.
        RnnZooError: a value, a file or a backend is not usable.
    """
    files = RunFolder(folder)
    with files.held():
        return _train(config, files)


def _train(config: Mapping[str, Any], files: RunFolder) -> Summary:
    files.check_free(config["resume"])
    start = start_of(Path(config["resume"])) if config["resume"] else None
    run = TrainingRun(config, files, start)
    files.begin(config)
    with Metrics(files.path, config["trainer"]["tensorboard"], start.state.metrics if start else "") as run.metrics:
        evaluation = run.updates()
        summary = Summary(
            run.task.name, run.spec.variant, config["backend"]["name"], run.task.metric, evaluation.value,
            evaluation.baseline, evaluation.baseline_name, run.steps, round(run.seconds, 2), str(files.path),
        )  # fmt: skip
        run.record("summary", **evaluation.metrics, baseline=summary.baseline, seconds=summary.seconds)
    save(files.model, run.contents(metrics=dict(evaluation.metrics), baseline=evaluation.baseline))
    return summary
