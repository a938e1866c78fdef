"""The whole table against implementations: under pytest, or each in a process of its own."""

import os
import pickle
import queue
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..spec.errors import BackendError, ConformanceError, RnnZooError
from .divergence import first_divergence, first_of_run
from .implementations import Implementation, implementation
from .items import Item, items
from .outcomes import Outcome, run
from .shrinking import shrunk
from .trajectories import Trajectory

SECONDS = 300.0  # for one item: what takes longer hangs
DIAGNOSED = 10  # failures of an implementation whose first divergence and smaller case are looked for


def conformance_tests(target: str, *, quick: bool = False) -> Callable[..., None]:
    """A pytest test, one for each item, of what `rnnzoo check --backend` takes by that name.

    In a test file: `test_rnn = conformance_tests("package.module:OBJECT")`. Skips carry the reason: the
    backend's, or that a case is ill-conditioned.

    Raises:
        BackendError: there is no such backend; or it is an adapter whose environment variables are not set.
    """
    import pytest

    tested = implementation(target)
    if unset := [f"{name}={value}" for name, value in tested.environment.items() if os.environ.get(name) != value]:
        raise BackendError(
            f"backend {target!r}: expected the environment variables {' '.join(unset)} before Python starts; "
            f"set them, or run: rnnzoo check {tested.option}"
        )
    tested.load()

    @pytest.mark.parametrize("item", items(quick=quick), ids=lambda item: item.name)
    def test(item: Item) -> None:
        backend = tested.load()
        outcome = run(backend, item)
        if outcome.verdict in ("skipped", "ill-conditioned"):
            pytest.skip(outcome.message)
        if outcome.verdict == "failed":
            where = diagnosed(backend, outcome, shrink=False).divergence
            details = f"{outcome.message}; {where}" if where else outcome.message
            raise ConformanceError(f"{target}, {item.name} (SPEC.md, {item.clause}): {details}")

    return test


def diagnosed(backend: Any, outcome: Outcome, *, shrink: bool = True) -> Outcome:
    """A failure with its first divergence and, on request, a smaller item; what cannot be found stays None."""
    item = outcome.item
    try:
        if isinstance(item.case, Trajectory):
            off = first_of_run(outcome.comparisons)
        else:
            off = first_divergence(backend, item.model_case, item.dtype, outcome.comparisons)
    except Exception:  # a broken backend may break here as well: the failure itself has been reported
        off = None
    return replace(outcome, divergence=off, smaller=shrunk(backend, outcome) if shrink else None)


def run_suite(
    implementations: Sequence[Implementation], chosen: Sequence[Item], jobs: int | None = None
) -> Iterator[tuple[Implementation, Outcome]]:
    """Every outcome as it comes. Each implementation has `jobs` processes of its own, and so many run at a time.

    They take consecutive items, as the truth of a case serves several, and what a framework compiles does, too.
    What one implementation had to be held against is kept for the others. The last begin: those that load a framework
    take longest, and so are not left alone at the end.
    """
    jobs = jobs or os.cpu_count() or 1
    size = -(-len(chosen) // jobs)
    pieces = [
        (one, list(chosen[k : k + size])) for one in reversed(implementations) for k in range(0, len(chosen), size)
    ]
    found: queue.SimpleQueue[tuple[Implementation, Outcome] | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def work(implementation: Implementation, piece: list[Item]) -> None:
        try:
            for outcome in _outcomes(implementation, piece, Path(folder), stopped):
                found.put((implementation, outcome))
            found.put(None)
        except BaseException as error:
            found.put(error)

    with (
        tempfile.TemporaryDirectory(prefix="rnnzoo-", ignore_cleanup_errors=True) as folder,
        ThreadPoolExecutor(jobs) as pool,
    ):
        try:
            for implementation, piece in pieces:
                pool.submit(work, implementation, piece)
            running = len(pieces)
            while running:
                next_one = found.get()
                if isinstance(next_one, BaseException):
                    raise next_one
                if next_one is None:
                    running -= 1
                else:
                    yield next_one
        finally:
            stopped.set()


def _outcomes(
    implementation: Implementation, waiting: list[Item], folder: Path, stopped: threading.Event
) -> Iterator[Outcome]:
    """The outcomes of one implementation; where its process ends or hangs, that item fails, and another goes on."""
    diagnose = DIAGNOSED
    while waiting and not stopped.is_set():
        with _Worker(implementation, (waiting, diagnose, folder), stopped) as worker:
            alive = True
            while waiting and alive and not stopped.is_set():
                item = waiting.pop(0)
                outcome = worker.receive()
                if isinstance(outcome, str):
                    yield Outcome(item, "failed", (), outcome)
                    break
                if outcome.verdict == "failed" and diagnose > 0:
                    diagnose -= 1
                    diagnosis = worker.receive()
                    outcome, alive = (outcome, False) if isinstance(diagnosis, str) else (diagnosis, True)
                yield outcome


class _Worker:
    """A process that runs items of one implementation (`worker.py`) and sends an outcome for each."""

    def __init__(self, implementation: Implementation, work: tuple[Any, ...], stopped: threading.Event) -> None:
        self._stopped = stopped
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **implementation.environment}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-P", "-m", f"{__package__}.worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self.process.stdin is not None
        try:
            pickle.dump((implementation, *work), self.process.stdin)
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already, which `receive` reports

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def receive(self) -> Outcome | str:
        """The next outcome, or what befell the process. Raises BackendError where it cannot load the implementation."""
        try:
            (size,) = struct.unpack("<Q", self._read(8))
            answer: Outcome | RnnZooError = pickle.loads(self._read(size))
        except EOFError:
            if self._stopped.is_set():
                return "stopped"
            return f"the backend's process ended with {_ending(self.process.wait())}"
        except TimeoutError:
            return f"no result in {SECONDS:.0f} seconds; the process was stopped"
        if isinstance(answer, RnnZooError):
            raise answer
        return answer

    def _read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        number, data = self.process.stdout.fileno(), b""
        while len(data) < size:
            end = time.monotonic() + SECONDS
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
