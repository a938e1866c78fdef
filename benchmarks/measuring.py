"""What is measured: every engine at four shapes, and ours with lengths, in all variants, and along each size."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

from .engines import ENGINES
from .problem import SHAPES, Problem
from .timing import Times, Worker, compare

OURS = ("rnnzoo numpy", "rnnzoo torch", "rnnzoo tf")
NATIVE = ("torch.nn.RNN", "keras graph", "keras XLA")
BASE = Problem(16, 64, 32, 64)
SWEEPS = {
    "T": tuple(BASE.changed(T=T) for T in (16, 64, 256, 1000, 10_000)),
    "H": tuple(BASE.changed(H=H) for H in (32, 64, 128, 256, 512)),
    "B": tuple(BASE.changed(B=B) for B in (1, 4, 16, 64, 256)),
    "L": tuple(BASE.changed(L=L) for L in (1, 2, 4, 8, 16)),
}
VARIANTS = tuple(SHAPES[1].changed(L=L, D=D) for L, D in ((1, 2), (2, 1), (2, 2)))


class Settings(NamedTuple):
    """Threads of each engine, `wall` or `cpu` time, rounds of each comparison, and who is told what is measured."""

    threads: int
    clock: str
    rounds: int
    tell: Callable[[str], object]


class Measured(NamedTuple):
    """The times of some engines at one problem."""

    problem: Problem
    mode: str
    times: dict[str, Times]


def shapes(settings: Settings) -> list[Measured]:
    """Every engine in every mode at the four shapes."""
    return list(_measured(settings, tuple(ENGINES), SHAPES, ("f", "fb")))


def variants(settings: Settings) -> list[Measured]:
    """The variants of two directions and of two layers."""
    return list(_measured(settings, (*OURS, *NATIVE), VARIANTS, ("fb",)))


def lengths(settings: Settings) -> list[tuple[Measured, Measured]]:
    """The last two shapes, full and with lengths of which the mean is T/2."""
    pairs = [(problem, problem.changed(short=True)) for problem in SHAPES[2:]]
    found = list(_measured(settings, OURS, tuple(each for pair in pairs for each in pair), ("fb",)))
    return list(zip(found[::2], found[1::2], strict=True))


def on_device(settings: Settings, device: str) -> list[Measured]:
    """torch's layers and ours on another device: the four shapes, all variants, and lengths."""
    problems = (*SHAPES, *VARIANTS, *(problem.changed(short=True) for problem in SHAPES[2:]))
    there = tuple(problem.changed(device=device) for problem in problems)
    return list(_measured(settings, ("rnnzoo torch", "torch.nn.RNN"), there, ("f", "fb")))


def sweeps(settings: Settings) -> dict[str, list[Measured]]:
    """The cost along T, H, B and L."""
    few = settings._replace(rounds=max(1, settings.rounds // 3))
    return {size: list(_measured(few, OURS, problems, ("fb",))) for size, problems in SWEEPS.items()}


def _measured(
    settings: Settings, engines: tuple[str, ...], problems: tuple[Problem, ...], modes: tuple[str, ...]
) -> Iterator[Measured]:
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, settings.threads, settings.clock)) for name in engines}
        for problem in problems:
            for mode in modes:
                settings.tell(f"{problem.text} {mode}")
                yield Measured(problem, mode, compare(workers, problem, mode, settings.rounds))
