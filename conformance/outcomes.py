"""What comes of an item when it is run on a backend."""

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from ..spec.backend import unsupported as not_a_model
from ..spec.contract import TAKES
from ..spec.errors import ConformanceError, InputError, UnsupportedError
from .cases import DTYPES
from .checks import CHECKS
from .comparison import Comparison
from .divergence import Divergence
from .expected import cotangents_alone, truth_and_bounds
from .items import Item
from .program import HangError, LostError
from .raised import described
from .trajectories import Trajectory

SECONDS = 300.0  # for an item, if nobody says otherwise: what takes longer hangs


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of an item.

    Attributes:
        verdict: `passed`, `failed`, `skipped`, or `ill-conditioned` where rounding alone can be as large as a quantity.
        comparisons: everything that was compared.
        message: what there is to say.
        seconds: that it took, the truth included where it was not known yet.
        divergence: of a failure, where it begins.
        smaller: of a failure, a small item that fails in the same way.
        ended: of a failure, how the process that owed an answer ended: `hung` where none came in time, `crashed`; or
            empty.
        ran: whether the item was run at all.
    """

    item: Item
    verdict: str
    comparisons: tuple[Comparison, ...] = ()
    message: str = ""
    seconds: float = 0.0
    divergence: Divergence | None = None
    smaller: Item | None = None
    ended: str = ""
    ran: bool = True

    @property
    def worst(self) -> Comparison | None:
        """The comparison with the largest error in units of what is allowed."""
        return max(self.comparisons, key=lambda comparison: comparison.ratio, default=None)

    @property
    def updates(self) -> int | None:
        """Of a trajectory, how many updates were compared: those for which the bound means something."""
        if self.item.check != "trajectory":
            return None
        return next((len(c.expected) for c in self.comparisons if c.quantity == "loss"), 0)


def run(backend: Any, item: Item, aside: Callable[[], AbstractContextManager[None]] = nullcontext) -> Outcome:
    """Run one item. What a backend does not offer or support is skipped with the reason; an error of any kind fails.

    The context `aside` is entered for what the suite computes itself, in which the backend's time is not running.

    Raises:
        InputError: the case itself cannot be computed.
    """
    start = time.perf_counter()
    try:
        if reason := unsupported(backend, item):
            return Outcome(item, "skipped", (), reason)
    except (Exception, SystemExit) as error:
        return Outcome(item, "failed", (), described(error), time.perf_counter() - start)
    with aside():
        _prepare(item)
    ended = ""
    try:
        own = copy.deepcopy(item.case)  # whatever a backend writes into it, the truth and other backends do not see
        every = CHECKS[item.check].run(backend, own, item.dtype)
        found = tuple(comparison for comparison in every if comparison.expected.size)
        verdict, message = _judged(found)
    except UnsupportedError as error:  # which a program may know only when it is asked
        verdict, found, message = "skipped", (), str(error)
    except ConformanceError as error:
        verdict, found, message = "failed", (), str(error)
    except (Exception, SystemExit) as error:  # a backend may raise anything: that is a finding, not the suite's end
        verdict, found, message, ended = "failed", (), described(error), _ended(error)
    return Outcome(item, verdict, found, message, time.perf_counter() - start, ended=ended)


def _ended(error: BaseException) -> str:
    if isinstance(error, HangError):
        return "hung"
    return "crashed" if isinstance(error, LostError) else ""


def _prepare(item: Item) -> None:
    """Everything about an item that no backend has a part in; the truth is kept for the check."""
    try:
        if isinstance(item.case, Trajectory):
            truth_and_bounds("trajectory", item.case, item.dtype)
            return
        case = item.model_case
        names = {"results": ["everything"], "gradients": ["everything"], "training": ["training"]}.get(item.check, [])
        for name in list(cotangents_alone(case)) if item.check == "cotangents" else names:
            truth_and_bounds(name, item.case, item.dtype)
        copy.deepcopy((case.weights, case.inputs, case.arguments, case.cotangents, case.understood))
    except (ArithmeticError, MemoryError) as error:
        raise InputError(f"item {item.name}: cannot be computed: {type(error).__name__} {error}".rstrip()) from error


def _judged(found: tuple[Comparison, ...]) -> tuple[str, str]:
    if not found:
        return "failed", "the check compared nothing"
    if wrong := [comparison for comparison in found if not comparison.ratio <= 1]:
        return "failed", "; ".join(comparison.description() for comparison in wrong)
    if unclear := [comparison for comparison in found if not comparison.decidable]:
        gains = ", ".join(f"{c.quantity} ({c.gain:.2g} times)" for c in unclear)
        return "ill-conditioned", f"rounding alone may change the numbers beyond recognition: {gains}"
    return "passed", ""


def unsupported(backend: Any, item: Item) -> str | None:
    """Why an item does not apply to a backend, or None."""
    if item.check == "weights" and not getattr(backend, "holds_weights", True):
        return f"{backend.name} holds no weights: they are given with every run"
    needs = CHECKS[item.check].needs
    if needs and not hasattr(backend, needs):
        return f"{backend.name} has no {needs}"
    if item.dtype not in getattr(backend, "dtypes", DTYPES):
        return f"{backend.name} does not compute in {item.dtype}"
    if isinstance(item.case, Trajectory):
        if item.case.missing:
            return item.case.missing
    elif missing := item.model_case.takes - set(getattr(backend, "takes", TAKES)):
        return f"{backend.name} takes no {' and no '.join(sorted(missing))}"
    return not_a_model(backend, item.case.spec)
