"""The whole table against implementations, each in processes of its own."""

import os
import queue
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from .declared import Declaration
from .diagnosis import DIAGNOSED
from .implementations import Implementation
from .items import Item
from .outcomes import Outcome
from .patience import Patience
from .worker_process import Ended, Work, Worker

Found = tuple[Implementation, Outcome | Declaration]


@dataclass(frozen=True)
class Plan:
    """What is run, and for how long.

    Attributes:
        items: for every implementation.
        table: all items there are, of which each implementation is asked what it supports; empty where none is.
        quick: whether one that supports only part of the items is given more out of the table.
        jobs: processes at a time; as many as there are cores where it is None.
        seconds: that an implementation has for an item; the suite's own number where it is None.
    """

    items: Sequence[Item]
    table: Sequence[Item] = ()
    quick: bool = False
    jobs: int | None = None
    seconds: float | None = None


@dataclass
class _Piece:
    """Items of one implementation that a process takes, and the patience with it."""

    implementation: Implementation
    plan: Plan
    waiting: list[Item]
    table: tuple[Item, ...]
    folder: Path
    patience: Patience
    diagnose: int = field(default=DIAGNOSED)

    def work(self) -> Work:
        """What a process has to do, from here on."""
        plan = self.plan
        return Work(
            self.implementation,
            tuple(self.waiting),
            self.table,
            tuple(plan.items),
            plan.quick,
            self.diagnose,
            plan.seconds,
            self.folder,
        )


def run_suite(implementations: Sequence[Implementation], plan: Plan) -> Iterator[Found]:
    """Every outcome as it comes, and what each declares. Each implementation has `jobs` processes, and so many run.

    They take consecutive items, as the truth of a case serves several, and what a framework compiles does, too.
    What one implementation had to be held against is kept for the others. The last begin: those that load a framework
    take longest, and so are not left alone at the end. One that hangs or crashes again and again is given up.
    """
    jobs = plan.jobs or os.cpu_count() or 1
    found: queue.SimpleQueue[Found | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def work(piece: _Piece) -> None:
        try:
            for outcome in _outcomes(piece, stopped):
                found.put((piece.implementation, outcome))
            found.put(None)
        except BaseException as error:
            found.put(error)

    with (
        tempfile.TemporaryDirectory(prefix="rnnzoo-", ignore_cleanup_errors=True) as folder,
        ThreadPoolExecutor(jobs) as pool,
    ):
        try:
            pieces = [piece for one in reversed(implementations) for piece in _pieces(one, plan, jobs, Path(folder))]
            for piece in pieces:
                pool.submit(work, piece)
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


def _pieces(implementation: Implementation, plan: Plan, jobs: int, folder: Path) -> list[_Piece]:
    """As many as there are processes; the first is asked what the implementation supports."""
    size, hung = -(-len(plan.items) // jobs), list[str]()
    return [
        _Piece(
            implementation,
            plan,
            list(plan.items[k : k + size]),
            tuple(plan.table) if k == 0 else (),
            folder,
            Patience(hung),
        )
        for k in range(0, len(plan.items), size)
    ]


def _outcomes(piece: _Piece, stopped: threading.Event) -> Iterator[Outcome | Declaration]:
    """The outcomes of a piece; where its process ends or hangs, that item fails, and another process goes on."""
    while piece.waiting and not stopped.is_set():
        if piece.patience.lost:
            yield from map(piece.patience.not_run, piece.waiting)
            return
        with Worker(piece.work(), stopped) as worker:
            yield from _of_one_process(piece, worker, stopped)


def _of_one_process(piece: _Piece, worker: Worker, stopped: threading.Event) -> Iterator[Outcome | Declaration]:
    if piece.table:
        piece.table, declared = (), worker.receive()
        if isinstance(declared, Ended):
            yield _broken(piece, declared)
            return
        piece.waiting += declared.further
        yield declared
    while piece.waiting and not stopped.is_set() and not piece.patience.lost:
        outcome = worker.receive()
        if isinstance(outcome, Ended):
            yield _broken(piece, outcome)
            return
        piece.waiting.pop(0)
        piece.patience.note(outcome)
        if outcome.verdict == "failed" and not outcome.ended and piece.diagnose > 0:
            piece.diagnose -= 1
            diagnosis = worker.receive()
            if isinstance(diagnosis, Ended):
                piece.patience.note(replace(outcome, ended=diagnosis.how))
                yield outcome
                return
            outcome = diagnosis
        yield outcome


def _broken(piece: _Piece, ended: Ended) -> Outcome:
    """The item that a process owed."""
    outcome = Outcome(piece.waiting.pop(0), "failed", (), ended.message, ended=ended.how)
    piece.patience.note(outcome)
    return outcome
