"""One engine in a process of its own: requests come as lines of JSON on standard input, answers go to another file.

A request is `{"problem": {...}, "mode": "f"}`, which prepares and answers the seconds of the first call, or the same
with `"calls": n`, which answers the seconds of each of n calls.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from .engines import load_engine
from .problem import Problem


def main(name: str) -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print as they like
    prepared: dict[str, Any] = {}
    for line in sys.stdin:
        answers.write(json.dumps(_answer(name, json.loads(line), prepared)) + "\n")
        answers.flush()


def _answer(name: str, request: dict[str, Any], prepared: dict[str, Any]) -> Any:
    key = json.dumps(request["problem"])
    if key not in prepared:
        prepared.clear()
        prepared[key] = load_engine(name)(Problem(**request["problem"]))
    timed = prepared[key].get(request["mode"])
    if timed is None:
        return None
    clock = time.process_time if request["clock"] == "cpu" else time.perf_counter
    return [_seconds(timed, clock)] if "calls" not in request else _repeated(timed, clock, request["calls"])


def _repeated(timed: Callable[[], object], clock: Callable[[], float], calls: int) -> list[float]:
    timed()  # warm
    gc.disable()
    found = [_seconds(timed, clock) for _ in range(calls)]
    gc.enable()
    return found


def _seconds(timed: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    timed()
    return clock() - start


if __name__ == "__main__":
    main(sys.argv[1])
