"""What was asked for, what was measured, and whether it is met."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ..spec.backend import Contents
from ..spec.checkpoint import save
from ..spec.parameters import initial_weights
from .engines import load_memory
from .measuring import OURS, SWEEPS, Measured
from .problem import SHAPES, Problem
from .step import update
from .timing import ratio

TORCH_GAIN, TF_GAIN = (2.5, 1.5, 1.1, 1.25), (2.0, 1.8, 1.3, 1.15)
NUMPY_FLOOR = (1.6, 1.6, 1.3, 1.3)
SHORT = {"rnnzoo numpy": 0.65, "rnnzoo torch": 0.65, "rnnzoo tf": 0.8}
FLOORS = {"rnnzoo torch": "floor, torch", "rnnzoo tf": "floor, TensorFlow"}
LINEAR = 1.25  # the cost of a step at the largest size by that at the second largest
KEEPING = (SHAPES[3], SHAPES[3].changed(short=True), SHAPES[3].changed(D=2), SHAPES[3].changed(T=100, L=3))
LONG = Problem(4, 2000, 16, 32)
LARGE = LONG.changed(B=32, H=128)  # to be seen in the memory of a process
RECOMPUTING = {  # a module of torch returns its outputs, which a single layer cannot have for less; a trainer has none
    "rnnzoo numpy fb": (LONG, LONG.changed(L=4), LONG.changed(D=2), LONG.changed(L=2, D=2)),
    "rnnzoo torch fb": (LONG.changed(L=2), LONG.changed(L=4)),
    "rnnzoo torch update": (LONG, LONG.changed(D=2), LONG.changed(L=2, D=2)),
    "rnnzoo tf update": (LARGE, LARGE.changed(D=2), LARGE.changed(L=2, D=2)),
}  # fmt: skip


class Figure(NamedTuple):
    """A number that should be at least or at most another."""

    what: str
    asked: float
    measured: float
    least: bool

    @property
    def met(self) -> bool:
        return self.measured >= self.asked if self.least else self.measured <= self.asked

    def row(self) -> str:
        """A row of a table."""
        sign = ">=" if self.least else "<="
        return f"{self.what:86} {sign} {self.asked:5.2f} {self.measured:8.2f}   {'met' if self.met else 'MISSED'}"


MODES = {"rnnzoo torch": ("rnnzoo torch",), "rnnzoo tf": ("rnnzoo tf", "rnnzoo tf XLA")}
RIVALS = {"rnnzoo torch": ("torch.nn.RNN",), "rnnzoo tf": ("keras graph", "keras XLA")}
GAINS = {"rnnzoo torch": TORCH_GAIN, "rnnzoo tf": TF_GAIN}


def gain(own: str, measured: Measured) -> float:
    """How many times faster the best mode is than the best one of the framework's own layer."""
    modes = [measured.times[mode] for mode in MODES[own] if mode in measured.times]
    return max(min(ratio(measured.times[rival], times) for rival in RIVALS[own]) for times in modes)


def gains(measured: list[Measured]) -> Iterator[Figure]:
    """Against each framework's own layer, at the four shapes."""
    for each in measured:
        for own, wanted in GAINS.items():
            asked = wanted[SHAPES.index(each.problem)] if each.mode == "fb" else 0.97
            text = f"{own} {each.mode}, times faster than its rival, {each.problem.text}"
            yield Figure(text, asked, gain(own, each), True)


def variants(measured: list[Measured]) -> Iterator[Figure]:
    """The same with two directions, two layers, and both."""
    for each in measured:
        for own in GAINS:
            yield Figure(f"{own} fb, times faster than its rival, {each.problem.text}", 1.0, gain(own, each), True)


def on_device(measured: list[Measured]) -> Iterator[Figure]:
    """Against torch's own layer on a device that has a kernel for it."""
    for each in measured:
        text = f"rnnzoo torch {each.mode} on {each.problem.device}, times faster than its rival, {each.problem.text}"
        yield Figure(text, 0.95, gain("rnnzoo torch", each), True)


def floors(measured: list[Measured]) -> Iterator[Figure]:
    """Against the products alone, the plain loop of NumPy and torch's layer."""
    for each in (each for each in measured if each.mode == "fb"):
        times, place, text = each.times, SHAPES.index(each.problem), each.problem.text
        numpy = times["rnnzoo numpy"]
        by_floor, by_torch = ratio(numpy, times["floor, NumPy"]), ratio(times["torch.nn.RNN"], numpy)
        yield Figure(f"rnnzoo numpy fb by its floor, {text}", NUMPY_FLOOR[place], by_floor, False)
        yield Figure(f"rnnzoo numpy fb, times faster than torch.nn.RNN, {text}", 1.0, by_torch, True)
        if place == 0:
            by_loop = ratio(times["NumPy loop"], numpy)
            yield Figure(f"rnnzoo numpy fb, times faster than the NumPy loop, {text}", 5.0, by_loop, True)
        for own, floor in FLOORS.items() if place >= 2 else ():
            yield Figure(f"{own} fb by its floor, {text}", 1.25, ratio(times[own], times[floor]), False)


def lengths(pairs: list[tuple[Measured, Measured]]) -> Iterator[Figure]:
    """Half of the steps, on average, by all of them."""
    for full, short in pairs:
        for own, asked in SHORT.items():
            share = short.times[own].seconds / full.times[own].seconds
            yield Figure(f"{own} fb, lengths of mean T/2 by full, {full.problem.text}", asked, share, False)


def linear(sweeps: dict[str, list[Measured]]) -> Iterator[Figure]:
    """The cost of a step or a layer does not grow with their number."""
    for size in ("T", "L"):
        before, last = sweeps[size][-2:]
        steps = getattr(SWEEPS[size][-1], size) / getattr(SWEEPS[size][-2], size)
        for own in OURS:
            growth = last.times[own].seconds / before.times[own].seconds / steps
            yield Figure(
                f"{own} fb, cost for each {size}, {last.problem.text} by {before.problem.text}", LINEAR, growth, False
            )


def eager(measured: list[Measured]) -> Iterator[Figure]:
    """Calls of the Keras layer outside of a graph."""
    for each in measured:
        if each.mode == "f":
            slower = ratio(each.times["rnnzoo tf eager"], each.times["rnnzoo tf"])
            yield Figure(f"rnnzoo tf f, eager by compiled, {each.problem.text}", 3.0, slower, False)


def memory() -> Iterator[Figure]:
    """Of everything whose memory is measured."""
    for own in RECOMPUTING:
        yield from memory_of(own)


def memory_of(own: str) -> Iterator[Figure]:
    """The peak of fb beyond inputs, weights and gradients, by the size of all outputs; and what recomputing leaves."""
    peak = load_memory(own)
    for problem in KEEPING if own.endswith("fb") else ():
        share = peak(problem) / problem.outputs_nbytes
        yield Figure(f"{own}, memory by the outputs of all layers, {problem.text}", 2.0, share, False)
    for problem in RECOMPUTING[own]:
        share = peak(problem, recompute=True) / peak(problem)
        yield Figure(f"{own}, memory with recompute by without, {problem.text}", 0.5, share, False)


def around() -> Iterator[Figure]:
    """What data, metrics and progress take of a whole update."""
    for own in OURS:
        share = update(own.removeprefix("rnnzoo ")).around
        yield Figure(f"{own}, share of data, metrics and progress in an update of char_lm", 0.1, share, False)


def start_up() -> Iterator[Figure]:
    """Seconds of commands that need no framework."""
    command = str(Path(sys.executable).with_name("rnnzoo"))
    with tempfile.TemporaryDirectory() as folder:
        file, spec = Path(folder) / "model.safetensors", SHAPES[0].spec
        save(file, Contents(spec, initial_weights(spec, 0), {}))
        for arguments, asked in ((["--help"], 0.3), (["inspect", str(file)], 0.5)):
            yield Figure(f"seconds of rnnzoo {arguments[0]}", asked, _seconds([command, *arguments]), False)


def _seconds(command: list[str]) -> float:
    found = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        found.append(time.perf_counter() - start)
    return median(found)
