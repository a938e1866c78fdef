"""A whole update of `rnnzoo train task=char_lm`, and how much of it is the trainer's."""

import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from ..tasks.configs import register
from ..tasks.metrics import Metrics
from ..tasks.run import TrainingRun
from ..tasks.run_folder import RunFolder
from ..tasks.task import needed

UPDATES = 60


class Update(NamedTuple):
    """Seconds of the processor, medians: a batch of data; forward, backward and the optimizer; metrics and progress."""

    data: float
    trainer: float
    record: float

    @property
    def around(self) -> float:
        """The share of what is not the trainer."""
        return 1 - self.trainer / sum(self)


def update(backend: str) -> Update:
    """An update with the task's own sizes, its line of metrics, and a progress bar."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        run = TrainingRun(_config(backend), RunFolder(Path(folder)), None)
        bar = needed("tqdm", "tqdm").tqdm(total=UPDATES, file=nowhere)
        with Metrics(Path(folder)) as run.metrics, bar:
            updates, trainer = run.batches(), _Timed(run.trainer)
            run.trainer = trainer
            found = [_one(run, updates, trainer, bar) for _ in range(UPDATES)]
    return Update(*(median(seconds) for seconds in zip(*found[UPDATES // 6 :], strict=True)))


class _Timed:
    """A trainer that tells how long its last step took."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.seconds = trainer, 0.0

    def step(self, *batches: Any) -> Any:
        start = time.process_time()
        result = self.trainer.step(*batches)
        self.seconds = time.process_time() - start
        return result


def _one(run: TrainingRun, updates: Any, trainer: _Timed, bar: Any) -> tuple[float, float, float]:
    start = time.process_time()
    batches = next(updates)
    drawn = time.process_time()
    run.update(batches, bar)
    end = time.process_time()
    return drawn - start, trainer.seconds, end - drawn - trainer.seconds


def _config(backend: str) -> Any:
    register([])
    with initialize_config_module("rnnzoo.tasks.conf", version_base="1.3"):
        return OmegaConf.to_container(compose("config", [f"backend={backend}", "task=char_lm"]), resolve=True)
