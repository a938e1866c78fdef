"""A run as it lies in its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...spec.errors import FileError
from ..metrics import METRICS, read_metrics
from ..run_folder import CONFIG, MODEL


@dataclass(frozen=True)
class RecordedRun:
    """Its config and the lines of its metrics; one that was stopped has no model."""

    folder: Path
    config: dict[str, Any]
    lines: list[dict[str, Any]]

    @property
    def task(self) -> str:
        """The name of its task."""
        return str(self.config["task"]["name"])

    @property
    def finished(self) -> bool:
        """Whether there is a trained model."""
        return (self.folder / MODEL).is_file()

    def numbers(self, event: str, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a number that was recorded with an event."""
        found = [(line["step"], line[name]) for line in self.lines if line["event"] == event and name in line]
        return [step for step, _ in found], [value for _, value in found]


def read_runs(folders: Sequence[Path]) -> list[RecordedRun]:
    """Of run folders and of all runs below folders of sweeps, by number. Raises FileError where there is none."""
    found = []
    for folder in folders:
        below = [path.parent for path in folder.rglob(METRICS)] if folder.is_dir() else []
        if not below:
            raise FileError(f"{folder}: expected the folder of a run or a sweep, with a {METRICS} in it")
        found += [_read(path) for path in sorted(below, key=_by_number)]
    return found


def labels(runs: Sequence[RecordedRun]) -> list[str]:
    """Of each run what tells it from the others: the values of the keys that differ, backend and model first."""
    flat = [_flat({**run.config, "task": {**run.config["task"], "suggested": None}}) for run in runs]
    keys = ["model.variant", "backend.name", *(key for settings in flat for key in settings)]
    differ = [key for key in dict.fromkeys(keys) if len({repr(settings.get(key)) for settings in flat}) > 1]
    if len(runs) == 1 or not differ:
        return [f"{run.config['model']['variant']} {run.config['backend']['name']}" for run in runs]
    return [", ".join(_shown(key, settings.get(key)) for key in differ[:4]) for settings in flat]


def _shown(key: str, value: object) -> str:
    named = key in ("model.variant", "backend.name", "task.name", "model.initializer", "model.nonlinearity")
    return str(value) if named else f"{key.rpartition('.')[2]} {'none' if value is None else value}"


def _by_number(path: Path) -> tuple[Any, ...]:
    return (path.parent, int(path.name) if path.name.isdecimal() else -1, path.name)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _read(folder: Path) -> RecordedRun:
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        lines = read_metrics(folder)
        run = RecordedRun(folder, config, lines)
        assert run.task and run.config["model"]["variant"] and run.config["backend"]["name"]
    except (OSError, ValueError, yaml.YAMLError, AssertionError, KeyError, TypeError) as error:
        raise FileError(f"{folder}: expected {CONFIG} and {METRICS} as `rnnzoo train` writes them: {error}") from error
    return run
