"""What the jobs of a sweep came to. They may run on other machines, so it lies in their folders."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from .loop import Summary
from .tables import short, table

OUTCOME = "outcome.json"


@dataclass(frozen=True)
class Outcome:
    """Of one job: its summary, or else an error, with the exit status that it means.

    Attributes:
        number: of the job in its sweep.
        overrides: what it was asked for, where there are several.
    """

    number: int
    overrides: str
    summary: Summary | None = None
    error: str | None = None
    status: int = 0

    def write(self, folder: Path) -> None:
        """Leave it in the job's folder."""
        (folder / OUTCOME).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, data: bytes) -> "Outcome":
        """What `write` wrote."""
        found = json.loads(data)
        return cls(**{**found, "summary": found["summary"] and Summary(**found["summary"])})


class Jobs(Callback):  # type: ignore[misc]  # Hydra has no types
    """The jobs of this command. Hydra tells the command's own process, through this, when a sweep begins."""

    sweep: ClassVar[Path | None] = None
    _before: ClassVar[Mapping[Path, bytes]] = {}
    _single: ClassVar[list[Outcome]] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder, and what an earlier sweep may have left there."""
        type(self).sweep = Path(config.hydra.sweep.dir).absolute()
        type(self)._before = self._found()

    @classmethod
    def forget(cls) -> None:
        """None has begun."""
        cls.sweep, cls._before, cls._single = None, {}, []

    @classmethod
    def ended(cls, outcome: Outcome, folder: Path | None) -> None:
        """Keep what a job came to: in its folder, or here where it is the command's only one."""
        if folder:
            outcome.write(folder)
        else:
            cls._single.append(outcome)

    @classmethod
    def outcomes(cls) -> list[Outcome]:
        """Of all jobs that ended, in the order of their numbers."""
        new = [data for path, data in cls._found().items() if cls._before.get(path) != data]
        return cls._single + sorted((Outcome.read(data) for data in new), key=lambda outcome: outcome.number)

    @classmethod
    def _found(cls) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in cls.sweep.rglob(OUTCOME)} if cls.sweep else {}


def summary_table(summaries: list[Summary]) -> str:
    """A line for each run."""
    header = ("task", "model", "backend", "metric", "value", "baseline", "updates", "seconds", "folder")
    rows = [
        (s.task, s.variant, s.backend, s.metric, f"{s.value:.4f}", f"{s.baseline:.4f}", str(s.steps),
         f"{s.seconds:.1f}", short(s.folder))
        for s in summaries
    ]  # fmt: skip
    return table(header, rows)
