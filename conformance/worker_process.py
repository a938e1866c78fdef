"""A process that runs items of one implementation (`worker.py`), and what becomes of it."""

import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..spec.errors import RnnZooError
from .implementations import Implementation
from .items import Item
from .raised import dumped

LOADING = 300.0  # seconds to begin, a framework's start included


@dataclass(frozen=True)
class Work:
    """What a process does.

    Attributes:
        items: to run.
        table: of which the implementation is asked what it supports; empty where it is not.
        chosen: all items that the implementation runs, in other processes too.
        quick: whether it may need more than those.
        diagnose: failures to look into.
        seconds: that a person set for an item; None where nobody did.
        folder: for what processes share.
    """

    implementation: Implementation
    items: tuple[Item, ...]
    table: tuple[Item, ...]
    chosen: tuple[Item, ...]
    quick: bool
    diagnose: int
    seconds: float | None
    folder: Path


@dataclass(frozen=True)
class Ended:
    """The end of a process that owed an answer: in words, and `hung` or `crashed`."""

    message: str
    how: str


class Worker:
    """The process. It sends an answer for each thing to do, and before that the seconds which it may take."""

    def __init__(self, work: Work, stopped: threading.Event) -> None:
        self._stopped, self._allowed = stopped, LOADING
        number, name = tempfile.mkstemp(dir=work.folder)
        os.close(number)
        self._dump = Path(name)  # for the calls that a crash or a hang was in
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **work.implementation.environment}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-P", "-m", f"{__package__}.worker", name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdin is not None
        try:
            pickle.dump(work, self._process.stdin)
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already, which `receive` reports

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def receive(self) -> Any:
        """The next answer, or Ended. Raises BackendError where it cannot load the implementation."""
        try:
            while isinstance(answer := self._message(), float):
                self._allowed = answer
        except EOFError:
            if self._stopped.is_set():
                return Ended("stopped", "crashed")
            ending = _ending(self._process.wait())
            return Ended(self._told(f"the backend's process ended with {ending}"), "crashed")
        except TimeoutError:
            self._process.send_signal(signal.SIGUSR1)  # it writes down where it is
            end = time.monotonic() + 1.0
            while not self._dump.stat().st_size and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(0.05)
            return Ended(self._told(f"no result in {self._allowed:g} seconds; the process was stopped"), "hung")
        if isinstance(answer, RnnZooError):
            raise answer
        return answer

    def _told(self, what: str) -> str:
        calls = dumped(self._dump.read_text("utf-8", errors="replace"))
        return f"{what}\n{calls}" if calls else what

    def _message(self) -> Any:
        (size,) = struct.unpack("<Q", self._read(8))
        return pickle.loads(self._read(size))

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        number, data = self._process.stdout.fileno(), b""
        while len(data) < size:
            end = time.monotonic() + self._allowed
            while not select.select([number], [], [], 0.2)[0]:
                if self._stopped.is_set():
                    raise EOFError
                if time.monotonic() > end:
                    raise TimeoutError
            part = os.read(number, size - len(data))
            if not part:
                raise EOFError
            data += part
        return data


def _ending(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"
