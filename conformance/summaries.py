"""What came of a run of the suite, as tables for people and as data for reports."""

import json
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from ..tasks.tables import table
from .checks import CHECKS
from .declared import untested
from .implementations import Implementation
from .known_failures import Known
from .outcomes import Outcome
from .precision import COMPARED

Outcomes = Sequence[tuple[Implementation, Outcome]]
_PAGE = """# Implementations by clause

Made by `make implementations`, which runs the {items} items of the suite on everything that is installed. Each column
is a clause of [SPEC.md](../spec/SPEC.md); each item counts for the clause that it is there for. *yes*: every item that
the implementation supports holds; *12 of 40*: so many do; **no**: none does; nothing: it has no such part, or does not
support it. Below stands what fails, and why.
"""
VERDICTS = ("passed", "failed", "known failure", "ill-conditioned", "skipped")


def by_check(outcomes: Outcomes) -> str:
    """One row for each backend, check and precision: the verdicts, and how the errors compare with their bounds."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for implementation, outcome in outcomes:
        groups.setdefault((implementation.name, outcome.item.check, outcome.item.dtype), []).append(outcome)
    header = ("backend", "check", "dtype", *VERDICTS, "median error/bound", "largest", "updates")
    return table(header, [(*key, *_counts(group), *_spread(group), _updates(group)) for key, group in groups.items()])


def totals(outcomes: Outcomes) -> str:
    """One line: the verdicts, and the median and largest ratio of error to bound of all numbers with a bound."""
    found = [outcome for _, outcome in outcomes]
    counts = [f"{count} {verdict}" for verdict, count in zip(VERDICTS, _counts(found), strict=True) if count != "0"]
    ratios = _ratios(found)
    if not len(ratios):
        return ", ".join(counts)
    spread = f"of {len(ratios)} numbers, error/bound: median {np.median(ratios):.3f}, largest {ratios.max():.3f}"
    more = f"; more numbers than the {COMPARED:,} of SPEC.md, 11.5: a correct backend may exceed a bound"
    return f"{', '.join(counts)}; {spread}{more if len(ratios) > COMPARED else ''}"


def clause_page(outcomes: Outcomes, checked: Sequence[Implementation], known: Mapping[str, Sequence[Known]]) -> str:
    """Implementations by clauses of SPEC.md as a page of Markdown: what holds, on which versions, and why not."""
    clauses = sorted({outcome.item.clause for _, outcome in outcomes}, key=_clause_order)
    rows, reasons = [["implementation", *clauses], ["---"] * (1 + len(clauses))], []
    for one in checked:
        own = [outcome for other, outcome in outcomes if other == one]
        rows.append([one.name, *(_cell([o for o in own if o.item.clause == clause]) for clause in clauses)])
        versions = ", ".join(f"{package} {version}" for package, version in one.versions().items())
        failing = [f"- {reason}" for reason in dict.fromkeys(row.reason for row in known[one.name])]
        reasons += ["", f"**{one.name}**{f' ({versions})' if versions else ''}", "", *(failing or ["Nothing fails."])]
    head = _PAGE.format(items=len({outcome.item.name for _, outcome in outcomes}))
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows), *reasons]) + "\n"


def declared_but(values: Iterable[str], outcomes: Outcomes, name: str) -> list[str]:
    """The values that the implementation of that name declares, and no item touched which it passed."""
    return untested(values, [outcome for one, outcome in outcomes if one.name == name])


def report(
    outcomes: Outcomes,
    facts: Mapping[str, Any],
    checked: Sequence[Implementation],
    declared_not_tested: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The data of `reports/report.schema.json`; facts: when, how long, with which arguments, and what was left out."""
    return {
        "version": 1,
        "rnnzoo": metadata.version("rnnzoo"),
        **facts,
        "machine": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count() or 1,
            "numpy": np.__version__,
        },
        "backends": [
            {"name": one.name, "versions": one.versions(), "declared_not_tested": declared_not_tested.get(one.name)}
            for one in checked
        ],
        "checks": [
            {"name": name, "clause": row.clause or "3 to 8", "title": _title(name)} for name, row in CHECKS.items()
        ],
        "outcomes": [_outcome(implementation, outcome) for implementation, outcome in outcomes],
    }


def reproduction(implementation: Implementation, outcome: Outcome) -> str:
    """A command that runs the item alone, in its smaller form if one was found."""
    item = outcome.smaller or outcome.item
    return f"rnnzoo check {implementation.option} --item {shlex.quote(json.dumps(item.to_data(complete=False)))}"


def failure(implementation: Implementation, outcome: Outcome) -> str:
    """A failure in words: what was off, where that begins, and how to see it again."""
    lines = [
        f"FAILED {implementation.name}, {outcome.item.name} (SPEC.md, {outcome.item.clause})",
        *_lines(outcome.message),
    ]
    lines += [str(outcome.divergence)] if outcome.divergence else []
    return "\n  ".join([*lines, f"again: {reproduction(implementation, outcome)}"])


def _lines(message: str) -> list[str]:
    """The message as lines; the first may list many numbers, and is cut."""
    first, *others = message.splitlines() or [""]
    return [first[:500], *others]


def _outcome(implementation: Implementation, outcome: Outcome) -> dict[str, Any]:
    item, worst = outcome.item, outcome.worst
    bounded = worst is not None and worst.limit > 0
    return {
        "backend": implementation.name,
        "item": item.name,
        "check": item.check,
        "clause": item.clause,
        "dtype": item.dtype,
        "case": item.case.name,
        "verdict": outcome.verdict,
        "ratio": worst.ratio if worst and (bounded or worst.ratio) else None,
        "quantity": worst.quantity if worst else None,
        "error": worst.error if worst else None,
        "allowed": worst.limit if worst else None,
        "updates": outcome.updates,
        "seconds": round(outcome.seconds, 4),
        "message": outcome.message,
        "divergence": vars(outcome.divergence) if outcome.divergence else None,
        "reproduce": reproduction(implementation, outcome) if outcome.verdict == "failed" else None,
    }


def _title(check: str) -> str:
    return (CHECKS[check].run.__doc__ or "").partition("\n")[0]


def _counts(group: Sequence[Outcome]) -> list[str]:
    return [str(sum(outcome.verdict == verdict for outcome in group)) for verdict in VERDICTS]


def _ratios(group: Sequence[Outcome]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Of every number that has a bound, and was not found wrong, the error by the bound."""
    fine = [outcome for outcome in group if outcome.verdict == "passed"]
    parts = [c.ratios[c.allowed > 0] for outcome in fine for c in outcome.comparisons]
    return np.concatenate([np.empty(0), *parts])


def _spread(group: Sequence[Outcome]) -> tuple[str, str]:
    ratios = _ratios(group)
    if len(ratios):
        return f"{np.median(ratios):.3f}", f"{ratios.max():.3f}"
    return ("exact", "") if any(outcome.comparisons for outcome in group) else ("", "")


def _updates(group: Sequence[Outcome]) -> str:
    """Over how many updates trajectories could be judged, the fewest and the most."""
    counts = sorted({outcome.updates for outcome in group if outcome.updates})
    return " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else ""


def _cell(group: Sequence[Outcome]) -> str:
    """`yes`, or how many of the items that could be judged hold; empty where none could."""
    judged = [outcome for outcome in group if outcome.verdict in ("passed", "failed", "known failure")]
    passed = sum(outcome.verdict == "passed" for outcome in judged)
    if not judged:
        return ""
    return "yes" if passed == len(judged) else f"{passed} of {len(judged)}" if passed else "**no**"


def _clause_order(clause: str) -> tuple[float, str]:
    return float(clause.split()[0]), clause
