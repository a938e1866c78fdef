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
    if outcome.verdict == "failed":
        for row in known:
            if fnmatchcase(outcome.item.name, row.pattern):
                return replace(outcome, verdict="known failure", message=f"{row.reason} ({outcome.message})")
    return outcome


def mistakes(known: Sequence[Known], outcomes: Sequence[Outcome], table: Sequence[Item]) -> list[str]:
    """What is wrong with a list, given what came of it: lines that match no item, or one that passes."""
    found = []
    for row in known:
        if not any(fnmatchcase(item.name, row.pattern) for item in table):
            found.append(f"line {row.line}: {row.pattern!r} matches no item")
        passing = [o.item.name for o in outcomes if o.verdict == "passed" and fnmatchcase(o.item.name, row.pattern)]
        if passing:
            found.append(f"line {row.line}: {row.pattern!r} matches {passing[0]}, which did not fail")
    return found
