"""A run's numbers as they come: JSON lines, and TensorBoard's event files where they are asked for."""

import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from .task import needed

METRICS, EVENTS = "metrics.jsonl", "tensorboard"


class Metrics:
    """Writes `metrics.jsonl` into a run's folder, a JSON object a line, and event files into `tensorboard/`.

    Both begin with the lines so far of a run that goes on, and lose what was there.

    Raises:
        BackendError: event files are wanted and tensorboardX, which writes them, is not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool = False, so_far: str = "") -> None:
        self._events: Any = None
        if tensorboard:
            shutil.rmtree(folder / EVENTS, ignore_errors=True)
            self._events = needed("tensorboardX", "tensorboardX", "tensorboard").SummaryWriter(str(folder / EVENTS))
        self._file = (folder / METRICS).open("w+", encoding="utf-8")
        for line in so_far.splitlines():
            self.record(**json.loads(line))

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()
        if self._events:
            self._events.close()

    def record(self, event: str, step: int, epoch: int, **numbers: float) -> None:
        """Write a line; a number of the event's becomes a scalar `event/name` of TensorBoard's."""
        self._file.write(json.dumps({"event": event, "step": step, "epoch": epoch, **numbers}) + "\n")
        if event != "update":
            self._file.flush()
        if self._events:
            for name, value in numbers.items():
                self._events.add_scalar(f"{event}/{name}", value, step)

    def text(self) -> str:
        """All lines so far."""
        self._file.seek(0)
        found = self._file.read()
        self._file.seek(0, 2)
        return found


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run, as many as are whole: the last one of a run that was killed may not be."""
    lines = (folder / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
