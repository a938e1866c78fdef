"""The folder that a run fills, and what of it another run goes on from.

It gets `config.yaml`, `metrics.jsonl` (a JSON object a line: updates, evaluations, the summary), on request
TensorBoard's event files, the last checkpoints in `checkpoints/`, and at the end `model.safetensors`, the model alone.
"""

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..spec.backend import Contents
from ..spec.checkpoint import load_run, save
from ..spec.errors import FileError, RnnZooError, listed
from ..spec.run_state import RunState

CONFIG, MODEL, CHECKPOINTS = "config.yaml", "model.safetensors", "checkpoints"
KEPT = 2  # checkpoints: one may be damaged
GROUPS = {"task": "name", "optimizer": "kind", "schedule": "kind", "backend": "name"}  # what names their option


class Start(NamedTuple):
    """What a run goes on from: a checkpoint's file, its model, and where its training stands."""

    path: Path
    contents: Contents
    state: RunState


class RunFolder:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / MODEL

    def check_free(self, resumed: str | None) -> None:
        """Raises FileError where a run would be lost; the unfinished one of `resumed`, this folder, goes on."""
        if self.model.exists():
            raise FileError(f"{self.model}: exists already; name another folder with hydra.run.dir=FOLDER")
        if self.checkpoints() and not (resumed and self.path.resolve() == Path(resumed).resolve()):
            raise FileError(
                f"{self.path}: holds an unfinished run; go on with it with resume={self.path}, "
                "or name another folder with hydra.run.dir=FOLDER"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """The folder for this process alone. Raises FileError where another one trains in it."""
        lock = os.open(self.path, os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise FileError(f"{self.path}: another process trains in it; wait for its end, or stop it") from error
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            os.close(lock)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Write the config."""
        (self.path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        (self.path / CONFIG).write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")

    def checkpoints(self) -> list[Path]:
        """The checkpoints, newest first."""
        return sorted((self.path / CHECKPOINTS).glob("step_*.safetensors"), reverse=True)

    def save(self, contents: Contents, state: RunState) -> None:
        """Write a checkpoint, and remove those before the last ones. Raises FileError."""
        save(self.path / CHECKPOINTS / f"step_{state.step:09}.safetensors", contents, state)
        for path in self.checkpoints()[KEPT:]:
            path.unlink(missing_ok=True)


def start_of(path: Path) -> Start:
    """The checkpoint of that name, or a run's newest that is whole; a damaged one is told of, and left alone.

    Raises:
        FileError: there is none.
    """
    if not path.is_dir():
        return _start(path)
    found = RunFolder(path).checkpoints()
    for checkpoint in found:
        try:
            return _start(checkpoint)
        except RnnZooError as error:
            print(f"rnnzoo: {error}; looking for an older one", file=sys.stderr)
    words = (
        "none of its checkpoints is whole"
        if found
        else (f"expected the folder of a run, with {CHECKPOINTS} in it, got one without; name that folder, or a file")
    )
    raise FileError(f"{path}: {words}")


def _start(path: Path) -> Start:
    """The checkpoint of that name. Raises FileError where it is none that `rnnzoo train` wrote."""
    contents, state = load_run(path)
    wanted = {group: key for group, key in GROUPS.items() if group != "schedule" or state.config.get(group) is not None}
    nameless = [group for group, key in wanted.items() if not _names(state.config.get(group), key)]
    if missing := nameless or [key for key in ("task", "backend", "training") if key not in contents.provenance]:
        raise FileError(
            f"{path}: expected a checkpoint of 'rnnzoo train', got one that does not tell {listed(missing)}"
        )
    return Start(path, contents, state)


def _names(group: object, key: str) -> bool:
    return isinstance(group, Mapping) and isinstance(group.get(key), str)


def model_file(path: Path) -> Path:
    """The file that has the model: the path itself; of a run's folder the finished model, else the newest checkpoint.

    Raises:
        FileError: a folder that has neither.
    """
    if not path.is_dir():
        return path
    model = path / MODEL
    return model if model.exists() else start_of(path).path
