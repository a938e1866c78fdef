"""The whole table against implementations: under pytest, or each in a process of its own."""

import os
import pickle
import queue
import select
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ..spec.backend import load_backend
from ..spec.errors import ConformanceError, RnnZooError
from .checks import Item, Outcome, items, run
from .divergence import first_divergence
from .implementations import Implementation
from .shrinking import shrunk

SECONDS = 300.0  # for one item: what takes longer hangs
DIAGNOSED = 10  # failures of an implementation whose first divergence and smaller case are looked for


def conformance_tests(target: str, *, quick: bool = False) -> Callable[..., None]:
    """A pytest test, one for each item, of the backend of that name.

    In a test file: `test_rnn = conformance_tests("package.module:OBJECT")`. Skips carry the backend's reason.
    """
    import pytest

    @pytest.mark.parametrize("item", items(quick=quick), ids=lambda item: item.name)
    def test(item: Item) -> None:
        backend = load_backend(target)
        outcome = run(backend, item)
        if outcome.verdict == "skipped":
            pytest.skip(outcome.message)
        if outcome.verdict == "failed":
            where = diagnosed(backend, outcome, shrink=False).divergence
            details = f"{outcome.message}; {where}" if where else outcome.message
            raise ConformanceError(f"{target}, {item.name} (SPEC.md, {item.clause}): {details}")
        if outcome.verdict == "ill-conditioned":
            raise ConformanceError(f"{target}, {item.name}: no verdict is possible: {outcome.message}")

    return test


def diagnosed(backend: Any, outcome: Outcome, *, shrink: bool = True) -> Outcome:
    """A failure with its first divergence and, on request, a smaller item; what cannot be found stays None."""
    item = outcome.item
    try:
        off = first_divergence(backend, item.model_case, item.dtype, outcome.comparisons)
    except Exception:  # a broken backend may break here as well: the failure itself has been reported
        off = None
    return replace(outcome, divergence=off, smaller=shrunk(backend, outcome) if shrink else None)


def run_suite(
    implementations: Sequence[Implementation], chosen: Sequence[Item], jobs: int | None = None
) -> Iterator[tuple[Implementation, Outcome]]:
    """Every outcome as it comes. Each implementation has a process of its own; `jobs` of them run at a time."""
    found: queue.SimpleQueue[tuple[Implementation, Outcome] | BaseException | None] = queue.SimpleQueue()

    def work(implementation: Implementation) -> None:
        try:
            for outcome in _outcomes(implementation, list(chosen)):
                found.put((implementation, outcome))
            found.put(None)
        except BaseException as error:
            found.put(error)

    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        for implementation in implementations:
            pool.submit(work, implementation)
        running = len(implementations)
        while running:
            next_one = found.get()
            if isinstance(next_one, BaseException):
                raise next_one
            if next_one is None:
                running -= 1
            else:
                yield next_one


def _outcomes(implementation: Implementation, waiting: list[Item]) -> Iterator[Outcome]:
    """The outcomes of one implementation; where its process ends or hangs, that item fails, and another goes on."""
    diagnose = DIAGNOSED
    while waiting:
        with _Worker(implementation, waiting, diagnose) as worker:
            while waiting:
                outcome = worker.receive()
                if isinstance(outcome, str):
                    yield Outcome(waiting.pop(0), "failed", (), outcome)
                    break
                diagnose -= outcome.verdict == "failed"
                waiting.pop(0)
                yield outcome


class _Worker:
    """A process that runs items of one implementation (`worker.py`) and sends an outcome for each."""

    def __init__(self, implementation: Implementation, waiting: list[Item], diagnose: int) -> None:
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **implementation.environment}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-P", "-m", f"{__package__}.worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self.process.stdin is not None
        try:
            pickle.dump((implementation, waiting, diagnose), self.process.stdin)
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
            if not select.select([number], [], [], SECONDS)[0]:
                raise TimeoutError
            part = os.read(number, size - len(data))
            if not part:
                raise EOFError
            data += part
        return data


def _ending(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"
