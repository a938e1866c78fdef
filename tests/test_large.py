"""Large files: what a conversion takes of time, next to a plain copy, and of memory."""

import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance.convert import Source
from rnnzoo.conformance.formats import chosen, find, format_of
from rnnzoo.spec import Contents, ModelSpec, save
from rnnzoo.spec.parameters import parameters

MIB = 2**20
TARGETS = (".safetensors", ".npz", ".pt", ".torch.safetensors", ".keras", ".weights.h5", ".onnx")


def large(folder: Path, units: int, layers: int) -> Path:
    """A canonical file; each of its matrices takes 4 units^2 bytes."""
    spec, random = ModelSpec("stacked_rnn", units, units, layers), np.random.default_rng(0)
    weights = {p.name: 0.01 * random.standard_normal(p.shape, np.float32) for p in parameters(spec)}
    save(folder / "large.safetensors", Contents(spec, weights, {}))
    return folder / "large.safetensors"


def peak(fresh_python: Callable[..., Any], source: Path, target: Path, *, proven: bool) -> tuple[float, float]:
    """The peak memory of a process that converts, and how much of it came after the imports, in MiB.

    Without the proof, which loads frameworks: TensorFlow alone takes 400 MiB.
    """
    done = fresh_python(f"""
import re
from pathlib import Path
from rnnzoo.conformance import convert
from rnnzoo.conformance.cli import main
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
if not {proven}:
    convert.proven = lambda *given: convert.NOT_RUN
before = peak()
status = main(["convert", {str(source)!r}, {str(target)!r}])
print("peak", peak(), peak() - before, status)
""")
    found = re.search(r"^peak (\S+) (\S+) 0$", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return float(found[1]), float(found[2])


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".keras"])
def test_a_few_tensors_are_in_memory_at_a_time(tmp_path: Path, fresh_python: Any, suffix: str) -> None:
    source = large(tmp_path, 1024, 16)
    _, grown = peak(fresh_python, source, tmp_path / f"b{suffix}", proven=False)
    assert source.stat().st_size > 128 * MIB
    assert grown < 3 * 4 + 40


@pytest.mark.long
@pytest.mark.parametrize("suffix", TARGETS)
def test_a_gibibyte_is_written_in_at_most_twice_the_time_of_a_copy(
    tmp_path: Path, fresh_python: Any, suffix: str
) -> None:
    """Neither is flushed to disk: cp never is, a conversion is after its proof."""
    source, target, copy = large(tmp_path, 4096, 8), tmp_path / f"b{suffix}", tmp_path / "copy"
    form, found = find(source)
    one = Source(source, form, found, chosen(source, found))
    times: dict[str, list[float]] = {"cp": [], "written": []}
    for _ in range(5):
        for name, work in (
            ("cp", lambda: subprocess.run(["cp", source, copy], check=True)),
            ("written", lambda: format_of(target).files.write(target, one.contents)),
        ):
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
            (copy if name == "cp" else target).unlink()
            os.sync()  # so that neither waits for the disk to take what the other wrote
    most, _ = peak(fresh_python, source, target, proven=suffix in (".safetensors", ".npz"))
    print(suffix, {name: [round(one, 2) for one in row] for name, row in times.items()}, f"{most:.0f} MiB")
    assert statistics.median(times["written"]) <= 2 * statistics.median(times["cp"])
    assert most < 3 * 64 + 300
