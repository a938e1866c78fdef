"""Loss and metric of one or several runs over their updates."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .runs import RecordedRun, labels
from .style import GREY, axes, figure, line, words


def draw(runs: Sequence[RecordedRun]) -> Any:
    """Left the loss of the updates, as a running mean of a fiftieth of them; right the metric with the baseline."""
    tasks = dict.fromkeys(run.task for run in runs)
    metrics = dict.fromkeys(metric_of(run) for run in runs)
    made = figure(11, 4.2 + 0.16 * max(0, len(runs) - 6), f"{', '.join(tasks)}: {len(runs)} run{'s' * (len(runs) > 1)}")
    left, right = made.subplots(1, 2)
    axes(left, "update", "loss (running mean)")
    axes(right, "update", ", ".join(words(metric) for metric in metrics))
    for number, (run, label) in enumerate(zip(runs, labels(runs), strict=True)):
        draw_loss(left, run, **line(number))
        draw_metric(right, run, **line(number), label=label)
    for baseline in sorted({found["baseline"] for run in runs for found in run.lines if "baseline" in found}):
        right.axhline(baseline, color=GREY, linewidth=1)
        right.annotate("baseline", (1, baseline), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                       fontsize=8, color=GREY)  # fmt: skip
    made.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(runs)), fontsize=8,
                frameon=False)  # fmt: skip
    return made


def draw_loss(place: Any, run: RecordedRun, **look: Any) -> None:
    """A running mean over a fiftieth of the run; on a logarithmic axis, as losses span decades."""
    steps, losses = run.numbers("update", "loss")
    width = max(1, len(losses) // 50)
    if len(losses) >= width > 0:
        means = np.convolve(losses, np.ones(width) / width, mode="valid")
        place.plot(steps[width - 1 :], means, linewidth=1.2, **look)
        place.set_yscale("log")


def draw_metric(place: Any, run: RecordedRun, **look: Any) -> None:
    """The task's metric at each evaluation."""
    steps, values = run.numbers("evaluation", metric_of(run))
    place.plot(steps, values, linewidth=1.4, marker="o" if len(steps) < 30 else None, markersize=3, **look)


def metric_of(run: RecordedRun) -> str:
    """The first number of an evaluation is the task's own metric."""
    for recorded in run.lines:
        if recorded["event"] == "evaluation":
            return next(name for name in recorded if name not in ("event", "step", "epoch"))
    return "no evaluation"
