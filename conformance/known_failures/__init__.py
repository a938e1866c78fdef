"""Failures that are known: what an implementation does otherwise than the spec, written down with the reason.

A file `<name>.txt` here has patterns of item names, one a line; the comment lines above a pattern give its
reason. A pattern that matches nothing is an error, and so is one that matches something that passes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from ...spec.errors import FileError
from ..items import Item
from ..outcomes import Outcome

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Known:
    """A pattern, its reason, and where it stands."""

    pattern: str
    reason: str
    line: int


def read(path: Path) -> list[Known]:
    """The patterns of a file. Raises FileError where it cannot be read, or a pattern has no reason."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot be read: {error}; expected a text file of known failures") from error
    found: list[Known] = []
    reason: list[str] = []
    fresh = False
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line.startswith("#"):
            reason, fresh = [*(reason if fresh else []), line.lstrip("# ")], True
        elif line:
            if not reason:
                raise FileError(f"{path}, line {number}: expected a reason above {line!r}; write it as a comment")
            found.append(Known(line, " ".join(reason), number))
            fresh = False
    return found


def of(name: str) -> list[Known]:
    """The known failures of an implementation that this package knows; none where it has no file."""
    path = FOLDER / f"{name}.txt"
    return read(path) if path.is_file() else []


def marked(outcome: Outcome, known: Iterable[Known]) -> Outcome:
    """A failure that is known gets the verdict `known failure` and the reason."""
    if outcome.verdict == "failed" and outcome.ran:
        for row in known:
            if fnmatchcase(outcome.item.name, row.pattern):
                return replace(outcome, verdict="known failure", message=f"{row.reason} ({outcome.message})")
    return outcome


def mistakes(known: Sequence[Known], outcomes: Sequence[Outcome], table: Sequence[Item]) -> list[str]:
    """What is wrong with a list, given what came of it: lines that match no item, or one that passes."""
    return matching_nothing(known, table) + matching_passed(known, outcomes)


def matching_nothing(known: Sequence[Known], table: Sequence[Item]) -> list[str]:
    """The lines that match no item, in words."""
    rows = [row for row in known if not any(fnmatchcase(item.name, row.pattern) for item in table)]
    return [f"line {row.line}: {row.pattern!r} matches no item" for row in rows]


def matching_passed(known: Sequence[Known], outcomes: Sequence[Outcome]) -> list[str]:
    """The lines that match an item which passed, in words."""
    names = [outcome.item.name for outcome in outcomes if outcome.verdict == "passed"]
    found = [(row, [name for name in names if fnmatchcase(name, row.pattern)]) for row in known]
    return [f"line {row.line}: {row.pattern!r} matches {own[0]}, which did not fail" for row, own in found if own]
