"""The command `rnnzoo bench`."""

import argparse
import json
import sys
from pathlib import Path

from ..spec.checkpoint import write_atomically
from ..spec.errors import InputError
from . import figures, measuring
from .engines import check_device
from .figures import Figure
from .measuring import Measured, Settings


def bench(options: argparse.Namespace) -> int:
    """Measure, print, and write what is asked for; 1 where a figure is missed."""
    for name in ("threads", "rounds"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name}: expected at least 1, got {getattr(options, name)}")
    settings = Settings(
        options.threads, options.clock, options.rounds, lambda what: print(what, file=sys.stderr, flush=True)
    )
    if options.device != "cpu":
        check_device(options.device)
        measured = measuring.on_device(settings, options.device)
        return _told(options, settings, measured, measured, list(figures.on_device(measured)))
    shapes, variants = measuring.shapes(settings), measuring.variants(settings)
    lengths, sweeps = measuring.lengths(settings), measuring.sweeps(settings)
    found = [
        *figures.gains(shapes), *figures.variants(variants), *figures.floors(shapes), *figures.lengths(lengths),
        *figures.linear(sweeps), *figures.eager(shapes), *figures.memory(), *figures.around(),
        *figures.start_up(),
    ]  # fmt: skip
    every = [*shapes, *variants, *(each for pair in lengths for each in pair), *(m for s in sweeps.values() for m in s)]
    status = _told(options, settings, shapes, every, found)
    if options.out:
        from .plots import plot

        plot(options.out / "bench.png", shapes, sweeps)
    return status


def _told(
    options: argparse.Namespace, settings: Settings, shown: list[Measured], every: list[Measured], found: list[Figure]
) -> int:
    """Print the table and the figures, write what is asked for, and give the status."""
    print(table(shown, settings))
    print(f"\n{'figure':86} asked      measured\n" + "\n".join(figure.row() for figure in found))
    if options.out:
        _write(options.out, settings, every, found)
    return 0 if all(figure.met for figure in found) else 1


def table(measured: list[Measured], settings: Settings) -> str:
    """Milliseconds of every engine."""
    heads = [f"{each.problem.text} {each.mode}" for each in measured]
    rows = [f"milliseconds, median of {settings.rounds} rounds, {settings.clock} time, threads: {settings.threads}"]
    rows.append(f"{'':18}" + "".join(f"{head:>26}" for head in heads))
    for name in measured[0].times | measured[1].times:
        cells = [f"{1e3 * each.times[name].seconds:.2f}" if name in each.times else "-" for each in measured]
        rows.append(f"{name:18}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(rows)


def _write(out: Path, settings: Settings, every: list[Measured], found: list[Figure]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    data = {
        "threads": settings.threads,
        "clock": settings.clock,
        "rounds": settings.rounds,
        "times": [
            {"problem": vars(each.problem), "mode": each.mode, "engine": name, "first": t.first, "seconds": t.rounds}
            for each in every
            for name, t in each.times.items()
        ],
        "figures": [figure._asdict() | {"met": figure.met} for figure in found],
    }
    write_atomically(out / "bench.json", lambda path: _write_text(path, json.dumps(data, indent=1)))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
