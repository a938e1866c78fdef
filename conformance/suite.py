"""The suite, run by the command line or by pytest, here or in somebody else's project."""

from collections.abc import Callable, Iterable, Iterator

from ..spec.backend import BUILT_IN, load_backend
from ..spec.errors import BackendError, ConformanceError
from ..tasks.tables import table
from .checks import CHECKS, Item, Outcome, items, run


def conformance_tests(target: str, *, quick: bool = False) -> Callable[[Item], None]:
    """A pytest test that checks a backend against the spec: `test_rnn = conformance_tests("package.module:OBJECT")`.

    Args:
        target: a built-in name, an entry point of group `rnnzoo.backends`, or `package.module:OBJECT`.
        quick: a few cases that still touch every value of every factor.
    """
    import pytest

    @pytest.mark.parametrize("item", items(quick=quick), ids=lambda item: item.name)
    def test(item: Item) -> None:
        outcome = run(load_backend(target), item)
        if outcome.verdict == "skipped":
            pytest.skip(outcome.message)
        if outcome.verdict == "failed":
            raise ConformanceError(f"{target}, {item.name} (SPEC.md, {CHECKS[item.check].clause}): {outcome.message}")

    return test


def installed_backends() -> tuple[list[str], list[str]]:
    """The built-in backends that load here, and the reasons why the others do not."""
    found, reasons = [], []
    for name in BUILT_IN:
        try:
            load_backend(name)
        except BackendError as error:
            reasons.append(str(error))
        else:
            found.append(name)
    return found, reasons


def run_suite(names: Iterable[str], *, quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Every outcome as it comes. All backends take an item in turn, so that the oracle computes it once."""
    backends = [(name, load_backend(name)) for name in names]
    for item in items(quick=quick):
        for name, backend in backends:
            yield name, run(backend, item)


def summary(outcomes: list[tuple[str, Outcome]]) -> str:
    """One row for each backend, check and precision: how many passed, failed, were skipped, and the worst error."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for name, outcome in outcomes:
        groups.setdefault((name, outcome.item.check, outcome.item.dtype), []).append(outcome)
    header = ("backend", "check", "dtype", "clause", "passed", "failed", "skipped", "worst error/allowed")
    rows = [(*key, CHECKS[key[1]].clause, *_counts(group), _worst(group)) for key, group in sorted(groups.items())]
    return table(header, rows)


def _counts(group: list[Outcome]) -> list[str]:
    return [str(sum(outcome.verdict == verdict for outcome in group)) for verdict in ("passed", "failed", "skipped")]


def _worst(group: list[Outcome]) -> str:
    ratios = [o.worst.error / o.worst.allowed for o in group if o.worst and o.worst.allowed]
    return f"{max(ratios):.4f}" if ratios else "exact" if any(o.worst for o in group) else ""
