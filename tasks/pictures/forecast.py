"""The held-out end of a series with the model's forecasts, and how far off these and the simple ones are."""

from typing import Any

import numpy as np

from ..task import Evaluation
from .style import BLUE, GREY, ORANGE, PALE, axes, figure


def draw(task: Any, backend: Any, model: Any, evaluation: Evaluation) -> Any:
    """Above the series and its forecasts, below their errors, and the mean errors beside the simple forecasts'."""
    steps = np.arange(task.held_out, len(task.values))
    truth, found = task.values[steps], evaluation.predictions
    made = figure(11, 6.4, f"forecast of {task.unit}: mean absolute error {evaluation.value:.3g}")
    grid = made.add_gridspec(2, 2, width_ratios=(3, 2))
    above = axes(made.add_subplot(grid[0, :]), task.steps, task.unit)
    before = np.arange(max(0, task.held_out - len(steps) // 2), task.held_out + 1)
    above.plot(before, task.values[before], color=GREY, linewidth=1, label="training")
    above.plot(steps, truth, color="black", linewidth=1.2, label="held out")
    above.plot(steps, found, color=BLUE, linewidth=1.2, linestyle="--", label="forecast one step ahead")
    above.axvline(task.held_out - 0.5, color=PALE)
    above.legend(fontsize=8, frameon=False)
    below = axes(made.add_subplot(grid[1, 0]), task.steps, "error of the forecast")
    below.axhline(0, color=GREY, linewidth=0.8)
    below.bar(steps, found - truth, color=BLUE, width=0.8)
    _bars(axes(made.add_subplot(grid[1, 1]), "mean absolute error", ""), task, truth, evaluation.value)
    return made


def _bars(place: Any, task: Any, truth: Any, value: float) -> None:
    errors = {name: float(np.abs(simple - truth).mean()) for name, simple in task.simple_forecasts().items()}
    names = [*reversed(errors), "this model"]
    bars = place.barh(names, [*reversed(errors.values()), value], color=[*[ORANGE] * len(errors), BLUE])
    place.bar_label(bars, fmt="%.3g", padding=3, fontsize=9)
    place.grid(False, axis="y")
