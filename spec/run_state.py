"""Where a training run stands: what the canonical file may hold beside the model (SPEC.md, 14.9)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import check_number, check_size
from .errors import SpecError, listed

Array = NDArray[Any]
PREFIX = "training."  # of the tensors
METRICS = f"{PREFIX}metrics"
KEYS = ("batch", "before", "config", "epoch", "seconds", "sha256", "step")


@dataclass(frozen=True)
class RunState:
    """All that the next update depends on besides the model's weights, and what the run has to show so far.

    Attributes:
        trainer: the state of the trainer (SPEC.md, 12.12).
        epoch: the pass over the data that the run is in, from 1.
        batch: how many batches of that pass it has used. With the seed in the config, this is the state of all
            generators, as the order of the data is a function of seed and epoch.
        config: of the run, resolved.
        metrics: the lines that were recorded, as text.
        before: of the updates that another backend or another training made: how many there were then, and which.
        seconds: that the run has taken.
    """

    trainer: Mapping[str, Array]
    epoch: int
    batch: int
    config: Mapping[str, Any]
    metrics: str = ""
    before: tuple[Mapping[str, Any], ...] = field(default=())
    seconds: float = 0.0

    @property
    def step(self) -> int:
        """Updates so far."""
        return int(self.trainer["step"])

    def to_data(self) -> dict[str, Any]:
        """What JSON can hold of it; the rest are tensors."""
        return {
            "step": self.step, "epoch": self.epoch, "batch": self.batch, "config": dict(self.config),
            "before": [dict(part) for part in self.before], "seconds": self.seconds,
        }  # fmt: skip

    def tensors(self) -> dict[str, Array]:
        """The other part: the trainer's arrays, and the metrics as UTF-8."""
        arrays = {f"{PREFIX}{name}": array for name, array in self.trainer.items() if name != "step"}
        return arrays | {METRICS: np.frombuffer(self.metrics.encode(), np.uint8)}

    @classmethod
    def from_parts(cls, data: Mapping[str, Any], tensors: Mapping[str, Array]) -> "RunState":
        """What `to_data` and `tensors` gave. Raises SpecError, or another ValueError where the metrics are no JSON."""
        check_keys(data)
        check_size("training step", data["step"], 0)
        check_size("training epoch", data["epoch"])
        check_size("training batch", data["batch"], 0)
        check_number("training seconds", data["seconds"], 0.0, np.inf)
        if METRICS not in tensors or not isinstance(data["config"], dict) or not _is_list_of_objects(data["before"]):
            raise SpecError("training: expected a config, a list of what was before, and the metrics")
        trainer = {name.removeprefix(PREFIX): array for name, array in tensors.items() if name != METRICS}
        trainer["step"] = np.asarray(data["step"], np.int64)
        metrics = tensors[METRICS].tobytes().decode()
        for line in map(json.loads, metrics.splitlines()):
            _check_line(line)
        return cls(
            trainer, data["epoch"], data["batch"], data["config"], metrics, tuple(data["before"]), data["seconds"]
        )


def _check_line(line: object) -> None:
    """Raises SpecError unless it is a line of metrics: an event at a step of an epoch, and numbers."""
    numbers = dict(line) if isinstance(line, dict) else {}
    named = isinstance(numbers.pop("event", None), str) and {"step", "epoch"} <= numbers.keys()
    if not named or any(type(value) not in (int, float) for value in numbers.values()):
        raise SpecError(
            f"training metrics: expected on each line an object of event, step, epoch and other numbers, got {line!r}"
        )


def _is_list_of_objects(data: object) -> bool:
    return isinstance(data, list) and all(isinstance(one, dict) for one in data)


def check_keys(data: object) -> None:
    """Raises SpecError unless this is the JSON of a run's state, with the digest of the file."""
    if not isinstance(data, dict) or set(data) != set(KEYS):
        got = listed(data) if isinstance(data, dict) else type(data).__name__
        raise SpecError(f"training: expected the keys {listed(KEYS)}, got {got}")


def content_digest(data: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    """SHA-256 of a file's content: the JSON without its digest, then name, dtype, shape and numbers of each tensor."""
    training = {key: value for key, value in data["training"].items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps({**data, "training": training}, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()
