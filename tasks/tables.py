"""Tables and sizes as text for the command line."""

from collections.abc import Sequence
from pathlib import Path


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, a rule under the header."""
    cells = [[printable(str(cell)) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join(line.rstrip() for line in [lines[0], rule, *lines[1:]])


def printable(text: str) -> str:
    """The text without what a terminal would obey: control characters, as a name in somebody's file may hold them."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def number(value: float) -> str:
    """A small number for a cell: 0, or two digits."""
    return "0" if value == 0 else f"{value:.1e}"


def counted(number: int, what: str) -> str:
    """`1 layer`, `1,000 layers`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def short(path: str | Path) -> str:
    """A path as seen from here, where it lies below."""
    found = Path(path)
    return str(found.relative_to(Path.cwd())) if found.is_relative_to(Path.cwd()) else str(path)
