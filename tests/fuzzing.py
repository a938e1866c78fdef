"""Reads files that were changed: run by `test_fuzz.py` as a program of its own.

HDF5's library may crash or hang over a damaged file. The sandbox makes that an error; here it ends a worker, and the
next one goes on with the next file.
"""

import importlib
import json
import os
import resource
import signal
import sys
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from mutations import mutated

CPU, MEMORY = 5, 2**29  # seconds of a file; bytes over what a worker starts with


def read(path: Path) -> None:
    """All that `rnnzoo convert` reads of a file. Raises RnnZooError."""
    from rnnzoo.conformance.formats import contents, find

    form, found = find(path)
    for layer in found.layers:
        if layer.refusal is None:
            dict(contents(path, form, found, layer).weights)


def in_this_process() -> None:
    """Take files apart here, not in a child process each."""
    from rnnzoo.spec.errors import FileError

    def examined(function: str, path: Path, **arguments: Any) -> Any:
        module, _, name = function.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)(path.absolute(), **arguments)
        except MemoryError as error:
            raise FileError(f"{path}: takes more memory than any honest file") from error
        return json.loads(json.dumps(found))

    for name in ("spec.npz", "torch_impl.files", "tf_impl.files", "conformance.onnx_format.files"):
        module: Any = importlib.import_module(f"rnnzoo.{name}")
        module.examined = examined
    for name in ("spec.npz", "torch_impl.checkpoint", "tf_impl.examining", "conformance.onnx_format.wire"):
        importlib.import_module(f"rnnzoo.{name}")


def work(seeds: list[Path], folder: Path, numbers: range, pipe: int) -> None:
    """Read the mutants of these numbers; tells each number before, and what came of it."""
    from rnnzoo.spec.errors import RnnZooError

    def tell(text: str) -> None:
        os.write(pipe, f"{text}\n".encode())

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    data = [seed.read_bytes() for seed in seeds]
    for number in numbers:
        seed = seeds[number % len(seeds)]
        path = folder / f"mutant{''.join(seed.suffixes)}"
        path.write_bytes(mutated(seed.suffix, data[number % len(seeds)], Random(number)))
        tell(str(number))
        signal.setitimer(signal.ITIMER_PROF, CPU)
        try:
            read(path)
            tell("read")
        except RnnZooError as error:
            tell("refused" if len(str(error).splitlines()) == 1 else f"several lines: {error!r}")
        signal.setitimer(signal.ITIMER_PROF, 0)


def main(folder: Path, count: int) -> None:
    """Read so many mutants of the seeds in a folder; prints how many were read, were refused, or ended a worker."""
    warnings.simplefilter("ignore")
    in_this_process()
    seeds, made, next_one = sorted((folder / "seeds").iterdir()), folder / "made", 0
    made.mkdir()
    ends: Counter[str] = Counter()
    while next_one < count:
        reading, writing = os.pipe()
        if (worker := os.fork()) == 0:
            work(seeds, made, range(next_one, count), writing)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            for line in told:
                if line[:-1].isdigit():
                    next_one = int(line) + 1
                else:
                    ends[line[:-1]] += 1
        status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        if status:
            ends[f"ended by {status}"] += 1
            for mutant in made.iterdir():  # of which there may be more, of other suffixes
                mutant.rename(folder / f"{next_one - 1}{''.join(mutant.suffixes)}")
    print(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
