"""The options of `rnnzoo check`, apart from the suite: what shows the help loads none of it."""

import argparse
import math
from pathlib import Path

from ..spec.backend import BUILT_IN
from .adapters import ADAPTERS


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of `rnnzoo check`."""
    known = ", ".join([*BUILT_IN, *ADAPTERS])
    command.add_argument(
        "--backend", action="append", default=[], metavar="NAME",
        help=f"{known}, or package.module:OBJECT; may be repeated (default: {', '.join(BUILT_IN)})",
    )  # fmt: skip
    command.add_argument(
        "--process", action="append", default=[], metavar="COMMAND",
        help="a program in any language that speaks the protocol (conformance/PROTOCOL.md); may be repeated",
    )  # fmt: skip
    command.add_argument("--everything", action="store_true", help="all implementations that are installed")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="a few cases that still touch every value of every factor")
    which.add_argument(
        "--item", action="append", default=[], metavar="NAME",
        help="only items of this name, or pattern with * and ?, or one as JSON; may be repeated",
    )  # fmt: skip
    command.add_argument(
        "--known-failures", type=Path, metavar="FILE",
        help="patterns of items that are known to fail, with reasons (default: the list that comes with rnnzoo)",
    )  # fmt: skip
    which.add_argument("--random", type=_count, metavar="N", help="random cases instead of the table")
    command.add_argument("--report", type=Path, metavar="DIR", help="write report.json, junit.xml and index.html there")
    command.add_argument("--table", type=Path, metavar="FILE", help="write implementations by clause, in Markdown")
    which.add_argument("--teeth", action="store_true", help="seed known faults instead, and see that each is caught")
    command.add_argument(
        "--item-seconds", type=_seconds, metavar="N",
        help="that an implementation has for an item (default: 300; a program 60 for an answer); one that takes longer "
        "in two items is given up",
    )  # fmt: skip
    command.add_argument("--jobs", type=_count, metavar="N", help="processes at a time (default: one a core)")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return seconds


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)
