"""Where a backend broke, in words: what it raised, and the end of the traceback."""

import re
import traceback
from collections.abc import Sequence
from pathlib import Path

from ..spec import backend, contract
from ..spec.errors import RnnZooError

OWN = Path(__file__).parent
ASKING = {backend.__file__, contract.__file__}  # through which the suite calls a backend
LAST = 6  # calls of a traceback that are shown, besides the first


def described(error: BaseException, said: str = "") -> str:
    """The error, and below it the calls from the one into the backend to where it was raised, files and lines."""
    said, calls = said or f"{type(error).__name__}: {error}", traceback.extract_tb(error.__traceback__)
    if isinstance(error, RnnZooError) and not _theirs(calls):
        return said  # a message of ours, which tells the place by itself
    return f"{said}\n{_calls(calls)}"


def dumped(text: str) -> str:
    """The calls that `faulthandler` wrote of a process that crashed or hung; empty where it wrote none."""
    found = re.findall(r'^  File "(.*)", line (\d+) in (.*)$', text, re.MULTILINE)
    return _calls([traceback.FrameSummary(file, int(line), name) for file, line, name in reversed(found)])


def _theirs(calls: Sequence[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """The calls that the suite made into a backend, from the first to the last that is not of the suite."""
    ours = [Path(call.filename).parent == OWN or call.filename in ASKING for call in calls]
    if True not in ours or False not in ours[ours.index(True) :]:
        return []
    first = ours.index(False, ours.index(True))
    return list(calls[first : len(ours) - ours[::-1].index(False)])


def _calls(calls: Sequence[traceback.FrameSummary]) -> str:
    shown = _theirs(calls) or list(calls)
    lines = [f'  File "{call.filename}", line {call.lineno}, in {call.name}\n    {call.line}' for call in shown]
    return "\n".join(lines if len(lines) <= LAST + 1 else [lines[0], "  ...", *lines[-LAST:]])
