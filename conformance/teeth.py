"""Does the suite see the faults that it is there for?

Each fault of the catalogue is put into a backend, and the items of the check that is meant to see it are run, the
smallest first, until one fails. The same item has to pass without the fault, or its failure would prove nothing.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..spec.backend import load_backend
from ..spec.parameters import parameters
from ..tasks.tables import table
from .checks import CHECKS
from .faults import converting
from .faults.catalogue import CATALOGUE
from .faults.fault import CONVERT, Fault
from .faults.wrapped import Wrapped
from .items import Item, items
from .outcomes import run
from .trajectories import Trajectory

RUNS = {"run", "results", "gradients", "derivatives"}
RAISED = re.compile(r"\w*(Error|Exception|Warning): ")  # an error is no finding about what was computed


class Bite(NamedTuple):
    """What came of one fault in one backend under one check.

    Attributes:
        verdict: `caught`; `missed`; or `spared`, where the fault does not apply.
        item: the name of the first item that failed, None where none did.
        message: what the check said, or why nothing was caught.
    """

    backend: str
    fault: str
    check: str
    verdict: str
    item: str | None
    seconds: float
    message: str


class Tried(NamedTuple):
    """How an item ended: `passed`, `failed`, or another word where it gives no verdict; and what there is to say."""

    verdict: str
    message: str


def run_teeth(
    backends: Iterable[str], *, whole: bool = False, faults: Mapping[str, Fault] = CATALOGUE
) -> Iterator[Bite]:
    """Every fault in every backend, under the check that is meant to see it.

    Args:
        backends: names, as `load_backend` takes them.
        whole: try all other checks of the suite too that can see a fault, and also yield those that do.
        faults: by name.
    """
    loaded = [load_backend(name) for name in backends]
    for check in (*CHECKS, CONVERT):
        hunts = [
            Hunt(backend, fault, check) for backend in loaded for fault in faults.values()
            if fault.check == check or (whole and _may_see(check, fault, backend))
        ]  # fmt: skip
        for bite in _bites(loaded, hunts, smallest_first(check)):
            if bite.verdict == "caught" or faults[bite.fault].check == check:
                yield bite


def _may_see(check: str, fault: Fault, backend: Any) -> bool:
    """Whether a check that a fault is not meant for calls anything of it.

    The trainer is the one of the backend inside, which calls no run of the fault's, or the fault's own, which no other
    check calls.
    """
    if CONVERT in (fault.check, check) or fault.reason_against(backend):
        return False
    made = fault.apply(backend)
    if not isinstance(made, Wrapped):
        return True  # a part of the implementation is another
    if CHECKS[check].needs == "trainer":
        return not made.own <= RUNS
    return not {"trainer"} <= made.own <= {"trainer", "supports"}


def _bites(backends: Sequence[Any], hunts: Sequence["Hunt"], items: Sequence[Any]) -> Iterator[Bite]:
    """The bites as they come; all backends and faults take an item in turn, as its truth is computed once for all."""
    for item in items:
        for backend in backends:
            if hunting := [hunt for hunt in hunts if hunt.backend is backend and hunt.wants(item)]:
                sound = attempt(backend, item)
                yield from (hunt.bite() for hunt in hunting if hunt.catches(item, sound))
    yield from (hunt.bite() for hunt in hunts if not hunt.item)


class Hunt:
    """One fault in one backend under one check."""

    def __init__(self, backend: Any, fault: Fault, check: str) -> None:
        self.backend, self.fault, self.check = backend, fault, check
        self.reason = converting.reason_against(backend) if check == CONVERT else None
        self.reason = self.reason or fault.reason_against(backend)
        self.item: str | None = None
        self.message, self.unsound = "it gave no failure", "there is none"
        self.tried, self.seconds = 0, 0.0

    @property
    def over(self) -> bool:
        return bool(self.reason or self.item)

    def wants(self, item: Any) -> bool:
        """Whether an item is to be tried: nothing is caught yet, and the fault can show in it.

        A check that the fault is not meant for has the quick suite's items alone.
        """
        if self.over or (self.fault.check != self.check and item.name not in _quick_names()):
            return False
        return self.fault.acts is None or self.fault.acts(item.model_case.spec)

    def catches(self, item: Any, sound: Tried) -> bool:
        """Try an item, given how it ends without the fault."""
        if sound.verdict != "passed":
            self.unsound = f"{item.name} {sound.verdict} without the fault: {sound.message}"
            return False
        start = time.perf_counter()
        with self.fault.apply(self.backend) as faulty, np.errstate(all="ignore"):
            found = attempt(faulty, item)
        self.seconds += time.perf_counter() - start
        self.tried += 1
        if found.verdict == "failed":
            self.message = found.message
            self.item = item.name if self.fault.raises or not RAISED.match(found.message) else None
        return self.item is not None

    def bite(self) -> Bite:
        """What came of it."""
        verdict, message = "caught", self.message
        if self.reason or not (self.item or self.tried):
            verdict, message = "spared", self.reason or f"no item to see it in: {self.unsound}"
        elif not self.item:
            verdict, message = "missed", f"{self.tried} items tried: {self.message}"
        return Bite(self.backend.name, self.fault.name, self.check, verdict, self.item, self.seconds, message)


def attempt(backend: Any, item: Any) -> Tried:
    """One item, of the suite or of the converter."""
    if isinstance(item, converting.Conversion):
        message = item.prove(backend)
        return Tried("failed", message) if message else Tried("passed", "")
    outcome = run(backend, item)
    return Tried(outcome.verdict, outcome.message)


@cache
def smallest_first(check: str) -> tuple[Any, ...]:
    """The quick items of a check by size, those in float64 first, as they show more."""
    quick = check not in (
        "training",
        "trajectory",
    )  # each kind of optimizer has faults of its own, and a run that shows them
    found = [item for item in items(quick=quick) if item.check == ("results" if check == CONVERT else check)]
    if check == "trajectory":  # each optimizer on the simplest variant
        found = [item for item in found if item.case.variant == "simple_rnn"]
    found.sort(key=lambda item: (item.dtype != "float64", _size(item)))
    if check == CONVERT:
        return tuple(converting.Conversion(item.case, item.dtype) for item in found)
    return tuple(found)


@cache
def _quick_names() -> frozenset[str]:
    return frozenset(item.name for item in items(quick=True))


def _size(item: Item) -> int:
    if isinstance(item.case, Trajectory):
        return 0  # any will do: they stay in the order of the table
    case = item.model_case
    return sum(parameter.count for parameter in parameters(case.spec)) * case.rows * case.steps


def missed(bites: Iterable[Bite]) -> list[Bite]:
    """The faults that the check meant to see them did not see: exit status 1 where there are any."""
    return [bite for bite in bites if bite.verdict == "missed"]


def report(bites: Iterable[Bite], faults: Mapping[str, Fault] = CATALOGUE) -> str:
    """A table of faults by backend, then what was missed, then the counts."""
    found = {(bite.fault, bite.check, bite.backend): bite for bite in bites}
    backends = list(dict.fromkeys(backend for _, _, backend in found))
    rows = []
    for fault in faults.values():
        verdicts = [found.get((fault.name, fault.check, backend)) for backend in backends]
        others = {check for name, check, _ in found if name == fault.name} - {fault.check}
        rows.append((fault.name, fault.check, *(b.verdict if b else "" for b in verdicts), ", ".join(sorted(others))))
    lines = [table(("fault", "check", *backends, "seen by other checks"), rows), ""]
    lines += [f"MISSED {b.backend}, {b.fault} ({b.check}): {b.message}" for b in missed(found.values())]
    meant = [bite for (name, check, _), bite in found.items() if check == faults[name].check]
    counts = (f"{sum(b.verdict == verdict for b in meant)} {verdict}" for verdict in ("caught", "missed", "spared"))
    return "\n".join([*lines, ", ".join(counts)])
