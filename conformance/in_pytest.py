"""The table of items in somebody's own test file."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..spec.errors import BackendError, ConformanceError
from .declared import declaration
from .diagnosis import DIAGNOSED, diagnosed
from .implementations import Implementation, implementation
from .items import Item, items
from .known_failures import Known, marked, matching_nothing, matching_passed, of, read
from .outcomes import SECONDS, Outcome, run, unsupported
from .patience import Patience
from .raised import described
from .summaries import failure


def conformance_tests(
    target: str, *, quick: bool = False, known_failures: str | Path | None = None, item_seconds: float = SECONDS
) -> Callable[..., None]:
    """A pytest test, one for each item, of what `rnnzoo check --backend` takes by that name.

    In a test file: `test_rnn = conformance_tests("package.module:OBJECT")`. Skips carry the reason: the
    backend's, or that a case is ill-conditioned. What a file of known failures lists, in the form and by the rules of
    the command's, is expected to fail. A failure ends with the command that shows it again.

    The backend runs in pytest's own process. What takes longer than `item_seconds` is interrupted by an alarm, if
    this is the main thread of a Unix system, once it is back in Python: code in C that does not return holds pytest
    up, where `rnnzoo check` stops the process, and a crash ends pytest. After two hangs, the other tests fail unrun.

    Raises:
        BackendError: there is no such backend; or it is an adapter whose environment variables are not set.
        FileError: the known failures cannot be read.
        ConformanceError: a line of theirs matches no item; or the backend supports none of the items.
    """
    import pytest

    tested = _loaded(target)
    known = read(Path(known_failures)) if known_failures else of(tested.name)
    chosen, table = items(quick=quick), items()
    chosen += declaration(tested.load(), chosen, table, quick=quick).further
    if reason := _nothing_checked(tested.load(), chosen):
        raise ConformanceError(f"{target}: nothing would be checked: every item is skipped; the first: {reason}")
    if mistakes := matching_nothing(known, [*table, *chosen]):
        raise ConformanceError(f"known failures of {target}, {'; '.join(mistakes)}")
    runner = _Runner(tested, known, item_seconds)

    @pytest.mark.parametrize("item", chosen, ids=lambda item: item.name)
    def test(item: Item) -> None:
        outcome = runner.outcome(item)
        if outcome.verdict == "known failure":
            pytest.xfail(outcome.message)
        if outcome.verdict in ("skipped", "ill-conditioned"):
            pytest.skip(outcome.message)
        if outcome.verdict == "failed":
            raise ConformanceError(failure(tested, outcome))
        if mistakes := matching_passed(known, [outcome]):
            raise ConformanceError(f"known failures of {target}, {'; '.join(mistakes)}")

    return test


def _loaded(target: str) -> Implementation:
    """The implementation, which can be loaded here. Raises BackendError."""
    found = implementation(target)
    if unset := [f"{name}={value}" for name, value in found.environment.items() if os.environ.get(name) != value]:
        raise BackendError(
            f"backend {target!r}: expected the environment variables {' '.join(unset)} before Python starts; "
            f"set them, or run: rnnzoo check {found.option}"
        )
    found.load()
    return found


def _nothing_checked(backend: Any, chosen: list[Item]) -> str | None:
    """Why the first item that computes is skipped, if all are; what cannot be told before is a test's to say."""
    reasons = []
    for one in chosen:
        if one.check != "weights":
            try:
                reasons.append(unsupported(backend, one))
            except Exception:
                return None
            if reasons[-1] is None:
                return None
    return reasons[0]


class _Runner:
    """Runs the items of an implementation until it has hung too often."""

    def __init__(self, implementation: Implementation, known: list[Known], seconds: float) -> None:
        self._implementation, self._known, self._seconds = implementation, known, seconds
        self._patience = Patience()
        self._diagnose = DIAGNOSED

    def outcome(self, item: Item) -> Outcome:
        """What came of an item; of a failure that is not known, with where it begins and a smaller case."""
        if self._patience.lost:
            return self._patience.not_run(item)
        backend, clock = self._implementation.load(), _Alarm(self._seconds)
        found = marked(self._within(clock, item, partial(run, backend, item, clock.aside)), self._known)
        self._patience.note(found)
        if found.verdict == "failed" and not found.ended and self._diagnose > 0:
            self._diagnose -= 1
            return self._diagnosed(backend, found)
        return found

    def _diagnosed(self, backend: Any, found: Outcome) -> Outcome:
        looked_into = self._within(_Alarm(self._seconds), found.item, partial(diagnosed, backend, found))
        if looked_into.ended:
            self._patience.note(looked_into)
            return found
        return looked_into

    def _within(self, clock: "_Alarm", item: Item, work: Callable[[], Outcome]) -> Outcome:
        try:
            with clock:
                return work()
        except _LateError as error:
            what = f"no result in {self._seconds:g} seconds; it was interrupted"
            return Outcome(item, "failed", (), described(error, what), ended="hung")


class _LateError(BaseException):
    """Raised in a backend by the alarm; no Exception, which the backend might catch."""


class _Alarm:
    """Interrupts what is done in its context once its time is over, where that is possible and nobody else does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        here = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
        self._possible = here and not signal.getitimer(signal.ITIMER_REAL)[0]

    def __enter__(self) -> None:
        if self._possible:
            self._before = signal.signal(signal.SIGALRM, _late)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        if self._possible:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """For a while, no time passes."""
        if self._possible:
            signal.setitimer(signal.ITIMER_REAL, 0)
        yield
        if self._possible:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)


def _late(*_: object) -> None:
    raise _LateError
