"""Every published figure from one command: all experiments in all three backends, and the variants beside them.

It sweeps with `rnnzoo train -m`, and writes what came of it into the README, between two marks. Exit status 1 where an
experiment misses the value it is published to reach, or its baseline, or reaches what is known to fail.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import yaml

from ..spec.backend import BUILT_IN
from ..spec.definitions import variant_names
from ..spec.errors import FileError
from .outcomes import OUTCOME, Outcome
from .run_folder import CONFIG
from .task import goal_of
from .train import main as train

BEGIN, END = "<!-- results: written by `make results` -->", "<!-- end of results -->"
CONFIGS = Path(__file__).parent / "conf" / "experiment"
VARIANTS = {"digits": 10, "tagging": 3}  # tasks in which the variants are held beside each other, and epochs for it
CHAOTIC = ("min_char_rnn",)  # run with the first seed alone: another may end in a state that it cannot predict from
SWEEPS = ("experiments", "chaotic", "variants")  # folders


class Result(NamedTuple):
    """A run of a sweep: what it was asked for, what it came to, and what it had to reach or miss."""

    asked: dict[str, str]
    outcome: Outcome
    reaches: float | None
    misses: float | None

    @property
    def failure(self) -> str | None:
        """Why this is not as published, or None."""
        summary = self.outcome.summary
        if summary is None:
            return self.outcome.error
        sign = 1 if goal_of(summary.task) == "maximize" else -1
        value, baseline = sign * summary.value, sign * summary.baseline
        if self.reaches is not None and value < sign * self.reaches:
            return f"{summary.metric} {summary.value:.4f}, published to reach {self.reaches:g}"
        if self.reaches is not None and value <= baseline:
            return f"{summary.metric} {summary.value:.4f} does not beat {summary.baseline_name}, {summary.baseline:.4f}"
        if self.misses is not None and value >= sign * self.misses:
            return f"{summary.metric} {summary.value:.4f}, known not to reach {self.misses:g}"
        return None


def experiments() -> list[str]:
    """The names of all of them."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def read_results(sweep: Path) -> list[Result]:
    """Of every job in a sweep's folder, in its order."""
    found = []
    for path in sweep.rglob(OUTCOME):
        outcome = Outcome.read(path.read_bytes())
        asked = dict(part.split("=", 1) for part in outcome.overrides.split())
        config = yaml.safe_load((path.parent / CONFIG).read_text(encoding="utf-8")) if outcome.summary else {}
        found.append(Result(asked, outcome, config.get("reaches"), config.get("misses")))
    return sorted(found, key=lambda result: result.outcome.number)


def experiments_table(results: Sequence[Result]) -> list[str]:
    """A row for each experiment, a cell for each backend with the values of its seeds."""
    seeds = list(dict.fromkeys(result.asked["trainer.seed"] for result in results))
    backends = list(dict.fromkeys(result.asked["backend"] for result in results))
    lines = _header("`experiment=`", "metric", "expected", *backends, "baseline", "longest run")
    for name in dict.fromkeys(result.asked["experiment"] for result in results):
        runs = {(r.asked["backend"], r.asked["trainer.seed"]): r for r in results if r.asked["experiment"] == name}
        cells = [
            " ".join(_value(runs[backend, seed]) for seed in seeds if (backend, seed) in runs) for backend in backends
        ]
        some = next((run for run in runs.values() if run.outcome.summary), None)
        if some and some.outcome.summary:
            summary, times = (
                some.outcome.summary,
                [r.outcome.summary.seconds for r in runs.values() if r.outcome.summary],
            )
            sign = "≥" if goal_of(summary.task) == "maximize" else "≤"
            wanted = f"not {sign} {some.misses:g}" if some.misses is not None else f"{sign} {some.reaches:g}"
            metric, known = summary.metric.replace("_", " "), f"{summary.baseline:.4f}, {summary.baseline_name}"
            lines.append(_row(f"`{name}`", metric, wanted, *cells, known, f"{max(times):.0f} s"))
    return lines


def variants_table(results: Sequence[Result]) -> list[str]:
    """A row for each task, a cell for each variant with the values of the backends."""
    models, tasks = (list(dict.fromkeys(result.asked[key] for result in results)) for key in ("model", "task"))
    backends = list(dict.fromkeys(result.asked["backend"] for result in results))
    lines = _header(f"`task=` ({' '.join(backends)})", *(f"`{model}`" for model in models), "longest run")
    for task in tasks:
        runs = {(r.asked["model"], r.asked["backend"]): r for r in results if r.asked["task"] == task}
        cells = [" ".join(_value(runs.get((model, backend))) for backend in backends) for model in models]
        times = [run.outcome.summary.seconds for run in runs.values() if run.outcome.summary]
        lines.append(_row(f"`{task}`, {VARIANTS[task]} epochs", *cells, f"{max(times, default=0):.0f} s"))
    return lines


def missing(results: Sequence[Result]) -> list[str]:
    """The runs that a sweep asked for and that have no outcome."""
    keys = [key for key in ("experiment", "task", "model", "backend", "trainer.seed") if key in results[0].asked]
    asked = product(*(dict.fromkeys(result.asked[key] for result in results) for key in keys))
    there = {tuple(result.asked[key] for key in keys) for result in results}
    return [f"{' '.join(wanted)}: no outcome, the run did not end" for wanted in asked if wanted not in there]


def _value(result: Result | None) -> str:
    summary = result.outcome.summary if result else None
    return f"{summary.value:.4f}" if summary else "-"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _header(*cells: str) -> list[str]:
    return [_row(*cells), "|" + "---|" * len(cells)]


def write_between(path: Path, lines: Sequence[str]) -> None:
    """Put the lines between the two marks of a file. Raises FileError where it has not both."""
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise FileError(f"{path}: expected one line {BEGIN!r} and one {END!r}")
    before, rest = text.split(BEGIN)
    path.write_text(before + "\n".join([BEGIN, *lines, END]) + rest.split(END)[1], encoding="utf-8")


def run(folder: Path, seeds: str, jobs: int, names: Sequence[str]) -> None:
    """All sweeps, into folders below this one."""
    common = [
        "-m", f"backend={','.join(BUILT_IN)}", "trainer.progress=false", "hydra/launcher=joblib",
        f"hydra.launcher.n_jobs={jobs}",
    ]  # fmt: skip
    settled, chaotic = ([name for name in names if (name in CHAOTIC) == kind] for kind in (False, True))
    for group, some, sweep in zip((settled, chaotic), (seeds, seeds.partition(",")[0]), SWEEPS, strict=False):
        if group:
            train([
                *common, f"experiment={','.join(group)}", f"trainer.seed={some}", f"hydra.sweep.dir={folder / sweep}"
            ])  # fmt: skip
    for task, epochs in VARIANTS.items():
        swept = [f"task={task}", f"model={','.join(variant_names())}", f"trainer.epochs={epochs}"]
        train([*common, *swept, f"hydra.sweep.dir={folder / 'variants' / task}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, write the tables, and say what is not as published."""
    parser = argparse.ArgumentParser(prog="python -m rnnzoo.tasks.results", description=__doc__)
    parser.add_argument("folder", type=Path, help="for the runs; what is there already is only told of")
    parser.add_argument("--readme", type=Path, help="a file to write the tables into, between the marks")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--jobs", type=int, default=2, help="at the same time (default: 2)")
    parser.add_argument("--only", default=",".join(experiments()), help="experiments to run (default: all)")
    options = parser.parse_args(arguments)
    folder = options.folder.absolute()
    if not folder.exists():
        run(folder, options.seeds, options.jobs, options.only.split(","))
    settled, chaotic, variants = (read_results(folder / name) for name in SWEEPS)
    lines = [*experiments_table([*settled, *chaotic]), "", *variants_table(variants)]
    print("\n".join(lines))
    if options.readme:
        write_between(options.readme, lines)
    results = [*settled, *chaotic, *variants]
    failures = [f"{result.outcome.overrides}: {result.failure}" for result in results if result.failure]
    failures += [line for found in (settled, chaotic, variants) if found for line in missing(found)]
    print("\n".join(["", *failures] if failures else ["", "every figure is as published"]), file=sys.stderr)
    return 1 if failures or not results else 0


if __name__ == "__main__":
    sys.exit(main())
