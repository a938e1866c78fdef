"""A program that is asked by lines of JSON, and every way in which it can fail to answer (PROTOCOL.md)."""

import contextlib
import itertools
import json
import os
import select
import shlex
import signal
import subprocess
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from ..spec.errors import BackendError, UnsupportedError, shown

PROTOCOL = 1
LONGEST_LINE = 2**20  # bytes
LAST_WORDS = 2000  # characters of a program's own text that a message shows
GRACE = 2.0  # seconds that a program has to end by itself


class LostError(BackendError):
    """The program is gone, and has to be started again: it ended, or was killed for what it did."""


class HangError(LostError):
    """No answer came in time."""


class Program:
    """One run of a program that answers each line on its standard input with one on its standard output.

    It ends with this object and with the interpreter; after a failure at once, with all that it has started.

    Attributes:
        title: what messages call it.
        stop: ends it; `stop.alive` tells whether it can still be asked.
        started: what it says of itself: `name`, `version`, `language`.

    Raises:
        BackendError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self.title, self._timeout, self._numbers = f"process '{shlex.join(command)}'", timeout, itertools.count(1)
        pipe = subprocess.PIPE
        try:  # in a session of its own, so that what it starts can be killed with it
            self._process = subprocess.Popen(
                list(command), bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except (OSError, ValueError, IndexError) as error:
            raise LostError(f"{self.title}: cannot be started: {error}; give a program and its arguments") from None
        self.stop = weakref.finalize(self, _stop, self._process, self._numbers, min(GRACE, timeout))
        assert self._process.stdout and self._process.stderr
        self._output, self._errors = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._kept = {self._output: b"", self._errors: b""}
        self._pipes = select.poll()
        for number in self._kept:
            self._pipes.register(number, select.POLLIN)
        self.started = self.ask("start", protocol=PROTOCOL)

    def ask(self, command: str, **details: Any) -> dict[str, Any]:
        """The result in the answer to one request.

        Raises:
            UnsupportedError: the program says that it does not do this.
            BackendError: it says that it failed, or it did not answer as agreed and was killed.
        """
        seq = next(self._numbers)
        try:
            _send(self._process, {"seq": seq, "command": command, **details})
        except OSError:
            self._closed(command, "input")
        line = self._line(command)
        answer = _parsed(line)
        if not _fits(answer, seq):
            forms = (
                f'{{"seq": {seq}, "result": {{...}}}}, or "unsupported" or "error" and a text in place of the result'
            )
            self._fail(command, f"expected {forms}, got {shown(line)}; a log belongs on the standard error")
        if "unsupported" in answer:
            raise UnsupportedError(readable(answer["unsupported"]))
        if "error" in answer:
            raise BackendError(f"{self.title}, {command}: it reports: {readable(answer['error'])}{self.last_words()}")
        result: dict[str, Any] = answer["result"]
        return result

    def last_words(self) -> str:
        """The end of what the program wrote to its standard error since the last call, for a message."""
        if self._errors in [number for number, _ in self._pipes.poll(0)]:
            self._read(self._errors)
        words, self._kept[self._errors] = self._kept[self._errors], b""
        text = readable(words.decode(errors="replace").strip())
        return f"; its last words on the standard error:\n{text}" if text else ""

    def _line(self, command: str) -> bytes:
        """The next line of the standard output."""
        deadline = time.monotonic() + self._timeout
        while b"\n" not in self._kept[self._output]:
            ended = self._process.poll() is not None
            ready = [number for number, _ in self._pipes.poll(100)]
            # Without an end of the output, something that the program started holds the pipe open.
            if self._output in map(self._read, ready) or (ended and not ready):
                self._closed(command, "output")
            if len(self._kept[self._output]) > LONGEST_LINE:
                got = shown(self._kept[self._output])
                self._fail(command, f"expected a line of at most {LONGEST_LINE} bytes, got {got}")
            if time.monotonic() > deadline:
                what = f"expected an answer within {self._timeout:g} s, got none; it was killed"
                self._fail(command, what, HangError)
        line, _, self._kept[self._output] = self._kept[self._output].partition(b"\n")
        return line

    def _read(self, pipe: int) -> int | None:
        """Take what is there; the pipe itself if this is its end."""
        data = os.read(pipe, 2**16)
        self._kept[pipe] += data
        self._kept[self._errors] = self._kept[self._errors][-LAST_WORDS:]
        if data:
            return None
        self._pipes.unregister(pipe)
        return pipe

    def _closed(self, command: str, pipe: str) -> NoReturn:
        try:
            status = self._process.wait(min(GRACE, self._timeout))
        except subprocess.TimeoutExpired:
            self._fail(command, f"it closed its standard {pipe} and ran on; it was killed")
        number = f"signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"exit status {status}"
        self._fail(command, f"expected an answer, but it ended with {number}")

    def _fail(self, command: str, what: str, error: type[LostError] = LostError) -> NoReturn:
        told = self.last_words()
        self.stop.detach()
        _end(self._process)
        raise error(f"{self.title}, {command}: {what}{told}")


def readable(text: str) -> str:
    """A program's text as a report can hold it: its end, without control characters."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text[-LAST_WORDS:])


def _send(process: "subprocess.Popen[bytes]", message: Mapping[str, Any]) -> None:
    assert process.stdin
    process.stdin.write(json.dumps(message).encode() + b"\n")


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode())
    except (ValueError, RecursionError):
        return None


def _fits(answer: Any, seq: int) -> bool:
    kinds = {"result": dict, "unsupported": str, "error": str}
    if not isinstance(answer, dict) or len(answer) != 2 or type(answer.get("seq")) is not int:
        return False
    given = [kind for key, kind in kinds.items() if isinstance(answer.get(key), kind) and answer[key] != ""]
    return answer["seq"] == seq and bool(given)


def _stop(process: "subprocess.Popen[bytes]", numbers: Iterator[int], grace: float) -> None:
    """Ask the program to end, and make sure of it."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        _send(process, {"seq": next(numbers), "command": "stop"})
        process.stdin.close()  # type: ignore[union-attr]
        process.wait(grace)
    _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill the program and what it started, and leave no zombie."""
    with contextlib.suppress(OSError):  # nothing is left to kill
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()  # type: ignore[union-attr]
    process.wait()
