"""The command `rnnzoo check`."""

import argparse
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from ..spec.backend import BUILT_IN
from ..spec.checkpoint import write_atomically
from ..spec.errors import InputError
from . import known_failures
from .adapters import ADAPTERS
from .declared import Declaration
from .implementations import Implementation, implementation, installed, program
from .items import Item, items
from .known_failures import Known
from .outcomes import Outcome
from .random_cases import random_items
from .reports import write
from .suite import Plan, run_suite
from .summaries import Outcomes, by_check, clause_page, declared_but, failure, report, totals

SHOWN = 20


def check(options: argparse.Namespace) -> int:
    """Run the suite as the options say; exit status 1 if anything failed."""
    chosen, missing = _implementations(options)
    if options.teeth:
        if options.report or options.table or options.known_failures:
            raise InputError("--teeth: gives a table of its own; leave out --report, --table and --known-failures")
        return _teeth(chosen)
    table = items()
    wanted = _wanted(options, table)
    known = {one.name: _known(options, one) for one in chosen}
    started, start = datetime.now(UTC), time.monotonic()
    outcomes: list[tuple[Implementation, Outcome]] = []
    declared: dict[str, Declaration] = {}
    whole = not (options.item or options.random)
    plan = Plan(wanted, table if whole else (), options.quick, options.jobs, options.item_seconds)
    for one, found in run_suite(chosen, plan):
        if isinstance(found, Declaration):
            declared[one.name] = found
        else:
            outcomes.append((one, known_failures.marked(found, known[one.name])))
        _progress(outcomes, len(chosen) * len(wanted) + sum(len(each.further) for each in declared.values()))
    _show("")
    order = {one.name: number for number, one in reversed(list(enumerate([*wanted, *table])))}
    outcomes.sort(key=lambda pair: (chosen.index(pair[0]), order[pair[1].item.name]))
    facts = {
        "started": started.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "seconds": round(time.monotonic() - start, 1),
        "quick": options.quick,
        "arguments": sys.argv[2:],
        "not_checked": missing,
    }
    mistakes = _mistakes(outcomes, known, [*table, *wanted]) + _unjudged(outcomes, chosen)
    untested = {name: declared_but(each.values, outcomes, name) for name, each in declared.items()}
    print(by_check(outcomes))
    lines = [*_problems(outcomes), *mistakes, *(f"not checked: {reason}" for reason in missing)]
    lines += [
        f"declared, not tested by an item that passed: {name}: {', '.join(found)}"
        for name, found in untested.items()
        if found
    ]
    print("\n".join(["", *lines]).rstrip())
    print(f"\n{totals(outcomes)}, in {facts['seconds']:.0f} s")
    if options.table:
        page = clause_page(outcomes, chosen, known)
        write_atomically(options.table, lambda path: _written(path, page))
    if options.report:
        paths = write(options.report, report(outcomes, facts, chosen, untested))
        print(f"report: {', '.join(map(str, paths))}")
    return 1 if mistakes or any(outcome.verdict == "failed" for _, outcome in outcomes) else 0


def _implementations(options: argparse.Namespace) -> tuple[list[Implementation], list[str]]:
    """What to check, and the reasons why something was left out."""
    programs = [program(_words(command), command, options.item_seconds) for command in options.process]
    if options.backend or programs:
        return [*(implementation(name) for name in dict.fromkeys(options.backend)), *programs], []
    names, missing = installed([*BUILT_IN, *(ADAPTERS if options.everything else ())])
    return [implementation(name) for name in names], missing


def _words(command: str) -> list[str]:
    """A program and its arguments. Raises InputError."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--process {command!r}: {error}; expected a command as a shell reads it") from error
    if not words:
        raise InputError("--process: expected a program and its arguments, got nothing")
    return words


def _wanted(options: argparse.Namespace, table: Sequence[Item]) -> list[Item]:
    if options.random:
        return random_items(options.random)
    return _items(options.item, table) if options.item else items(quick=options.quick)


def _items(given: Sequence[str], table: Sequence[Item]) -> list[Item]:
    """The items of the table that any of the texts names, and those that are written out. Raises InputError."""
    found: list[Item] = []
    for text in given:
        own = [_from_json(text)] if text.startswith("{") else [i for i in table if fnmatchcase(i.name, text)]
        if not own:
            raise InputError(f"no item {text!r}: expected a name such as {table[0].name}, a pattern, or JSON")
        found += [one for one in own if one not in found]
    return found


def _from_json(text: str) -> Item:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"item: expected JSON, got {text[:80]!r}: {error}") from error
    return Item.from_data(data)


def _known(options: argparse.Namespace, one: Implementation) -> list[Known]:
    return known_failures.read(options.known_failures) if options.known_failures else known_failures.of(one.name)


def _mistakes(outcomes: Outcomes, known: Mapping[str, Sequence[Known]], table: Sequence[Item]) -> list[str]:
    """What is wrong with the lists of known failures."""
    found = []
    for name, rows in known.items():
        own = [outcome for one, outcome in outcomes if one.name == name]
        found += [f"known failures of {name}, {text}" for text in known_failures.mistakes(rows, own, table)]
    return found


def _unjudged(outcomes: Outcomes, chosen: Sequence[Implementation]) -> list[str]:
    """The implementations that skipped everything that computes: nothing is known of them."""
    found = []
    for one in chosen:
        own = [outcome for other, outcome in outcomes if other == one and outcome.item.check != "weights"]
        if own and all(outcome.verdict == "skipped" for outcome in own):
            found.append(f"NOTHING CHECKED {one.name}: every item was skipped; the first: {own[0].message}")
    return found


def _problems(outcomes: Outcomes) -> list[str]:
    """Failures in words, the items that were not run, and those without a verdict."""
    failed = [pair for pair in outcomes if pair[1].verdict == "failed" and pair[1].ran]
    found = [failure(one, outcome) for one, outcome in failed[:SHOWN]]
    found += [f"and {len(failed) - SHOWN} more failures"] if len(failed) > SHOWN else []
    waiting = Counter((one.name, outcome.message) for one, outcome in outcomes if not outcome.ran)
    found += [f"NOT RUN {name}: {count} items, {message}" for (name, message), count in waiting.items()]
    unclear = [(one, outcome) for one, outcome in outcomes if outcome.verdict == "ill-conditioned"]
    return found + [
        f"NO VERDICT {one.name}, {outcome.item.name}: {outcome.message}" for one, outcome in unclear[:SHOWN]
    ]


def _teeth(chosen: Sequence[Implementation]) -> int:
    """Every fault in every backend; exit status 1 if one was not caught. Raises InputError for a program."""
    from . import teeth

    names = [one.target for one in chosen if isinstance(one.target, str)]
    if len(names) < len(chosen):
        raise InputError("teeth: expected backends in Python, which faults can be put into, got a program")
    bites = []
    for bite in teeth.run_teeth(names):
        bites.append(bite)
        _show(f"{len(bites)} faults")
    _show("")
    print(teeth.report(bites))
    return 1 if teeth.missed(bites) else 0


def _written(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def _progress(outcomes: Outcomes, total: int) -> None:
    done = len(outcomes)
    if done % 10 == 0 or done == total:
        failed = sum(outcome.verdict == "failed" for _, outcome in outcomes)
        _show("" if done == total else f"{done} of {total} items" + (f", {failed} failed" if failed else ""))


def _show(text: str) -> None:
    """A line that is written over by the next, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
