"""Times of several engines, each in its process, taken in turns so that whatever else runs slows all alike."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from types import TracebackType

from .problem import Problem

ROUND = 0.1  # seconds of an engine in a round


class Worker:
    """A process that runs one engine on a number of threads."""

    def __init__(self, engine: str, threads: int, clock: str = "wall") -> None:
        self.clock = clock
        command = [sys.executable, "-P", "-m", f"{__package__}.worker", engine]
        self.process = subprocess.Popen(
            command, env=environment(threads), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, problem: Problem, mode: str, calls: int | None = None) -> list[float] | None:
        """Seconds of each call, of the first one where no number is given; None where the engine lacks the mode."""
        request = {"problem": asdict(problem), "mode": mode, "clock": self.clock} | (
            {} if calls is None else {"calls": calls}
        )
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: list[float] | None = json.loads(self.process.stdout.readline() or "null")
        return answer

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()


def environment(threads: int) -> dict[str, str]:
    """The variables of a process on that many threads, whichever library runs in it."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC", "TF_NUM_INTRAOP_THREADS")
    flags = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "XLA_FLAGS": flags, "KERAS_BACKEND": "tensorflow"}
    return {**os.environ, **dict.fromkeys(names, str(threads)), "TF_NUM_INTEROP_THREADS": "1", **quiet}


@dataclass(frozen=True)
class Times:
    """Of one engine: seconds of the first call, and the median of each round."""

    first: float
    rounds: list[float]

    @property
    def seconds(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)


def ratio(first: Times, second: Times) -> float:
    """How many times longer the first takes: the median of the rounds' ratios."""
    return median(a / b for a, b in zip(first.rounds, second.rounds, strict=True))


def compare(workers: Mapping[str, Worker], problem: Problem, mode: str, rounds: int = 7) -> dict[str, Times]:
    """The times of every engine that has the mode."""
    firsts = {name: worker.ask(problem, mode) for name, worker in workers.items()}
    has = {name: first[0] for name, first in firsts.items() if first}
    calls = {name: _calls(workers[name].ask(problem, mode, 3)) for name in has}
    found: dict[str, list[float]] = {name: [] for name in has}
    for _ in range(rounds):
        for name, taken in found.items():
            taken.append(median(workers[name].ask(problem, mode, calls[name]) or []))
    return {name: Times(has[name], taken) for name, taken in found.items()}


def _calls(trial: list[float] | None) -> int:
    return max(3, min(200, int(ROUND / min(trial or [1.0]))))
