"""A child process with limits, in which the structure of a foreign file is taken apart.

What comes back is JSON: where the tensors are, never objects that a file has named. The child may take 512 MiB and ten
seconds of a processor over what its imports need; whatever befalls it is one error here.
"""

import importlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from . import errors
from .errors import FileError, RnnZooError

MEMORY, SECONDS = 2**29, 10  # bytes, and seconds of a processor, over start-up
WAIT, ANSWER = 60, 2**26  # seconds by the clock, on a machine that is busy; bytes of the answer


def examined(function: str, path: Path, **arguments: Any) -> Any:
    """What `function(path, **arguments)` returns, run in a child process.

    Args:
        function: `package.module:name`; it returns what JSON can hold, and raises errors of this package.
        path: the file.
        arguments: what JSON can hold.

    Raises:
        RnnZooError: what the function raised.
        FileError: it took too long or too much memory, or the child died.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    asked = {"function": function, "path": str(path.absolute()), "arguments": arguments, "seconds": SECONDS}
    command = [sys.executable, "-P", "-m", __spec__.name]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked).encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, timeout=WAIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise FileError(f"{path}: not read within {WAIT} seconds by the clock") from None
    if done.returncode == -signal.SIGXCPU:
        raise FileError(f"{path}: not read within {SECONDS} seconds; it is damaged or made to do harm")
    if status := done.returncode:
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise FileError(f"{path}: the process that read it ended with {how}; it is damaged or made to do harm")
    answer = json.loads(done.stdout)
    if "error" in answer:
        kind = getattr(errors, answer["error"], None)
        if not isinstance(kind, type) or not issubclass(kind, RnnZooError):
            kind = FileError
        raise kind(answer["message"].replace(str(path.absolute()), str(path)))
    return answer["result"]


def _limit(seconds: int) -> None:
    """Limits from here on: the imports are done."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    limit = pages * resource.getpagesize() + MEMORY
    until = math.ceil(time.process_time()) + seconds
    for kind, value in ((resource.RLIMIT_AS, limit), (resource.RLIMIT_CPU, until), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def main() -> None:
    """Answer the request on standard input; nothing that a library prints gets into the answer."""
    warnings.simplefilter("ignore")  # over what is odd in a file
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    module, _, name = request["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    _limit(request["seconds"])
    try:
        answer = {"result": function(Path(request["path"]), **request["arguments"])}
    except MemoryError:
        answer = {"error": "FileError", "message": f"{request['path']}: takes more memory than any honest file"}
    except RnnZooError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    text = json.dumps(answer)
    if len(text) > ANSWER:
        text = json.dumps(
            {"error": "FileError", "message": f"{request['path']}: has more than {ANSWER:,} bytes of names"}
        )
    answers.write(text)
    answers.flush()


if __name__ == "__main__":
    main()
