"""Energy saved against delay: with the model's forecasts, with a timer, and knowing the future."""

from typing import Any

import numpy as np

from ..onu_sleep import THRESHOLDS, TIMERS
from ..task import Evaluation
from ..traffic import controlled, idle_times
from .style import BLUE, GREEN, GREY, ORANGE, PALE, RED, axes, figure

INTERVALS = 120  # of one unit's traffic that are shown


def draw(task: Any, backend: Any, model: Any, evaluation: Evaluation) -> Any:
    """Left the trade of every threshold, with the chosen ones marked; right one unit's traffic and when it sleeps."""
    found, test = evaluation.metrics, task.test
    made = figure(
        12, 4.8, f"onu_sleep: cost {evaluation.value:.4f}, {evaluation.baseline_name} {evaluation.baseline:.4f}"
    )
    left, right = made.subplots(1, 2)
    axes(left, "mean delay (intervals)", "energy saved (%)", "every threshold; the chosen one is marked")
    rows = (
        ("forecast of this model", "", BLUE, "-", "o", THRESHOLDS, evaluation.predictions),
        ("timer", "timer_", ORANGE, "--", "s", TIMERS, -idle_times(test)),
        ("last interval as forecast", "last_interval_", GREEN, ":", "^", THRESHOLDS, test),
    )
    for name, prefix, colour, dashes, marker, thresholds, forecasts in rows:
        trade = controlled(test, forecasts, thresholds)
        order = np.argsort(trade.delay)
        left.plot(trade.delay[order], 100 * trade.saved[order], color=colour, linestyle=dashes)
        point = found[f"{prefix}mean_delay"], 100 * found[f"{prefix}energy_saved"]
        left.plot(*point, marker, color=colour, linestyle=dashes, markersize=8, label=name)
    best = found["oracle_mean_delay"], 100 * found["oracle_energy_saved"]
    left.plot(*best, "*", color=RED, markersize=13, linestyle="none", label="oracle, knowing the future")
    left.set(xlim=(0, 4 * max(found["mean_delay"], found["timer_mean_delay"])), ylim=(0, None))
    left.legend(fontsize=8, frameon=False, loc="lower right")
    _one_unit(right, test, evaluation.predictions)
    return made


def _one_unit(place: Any, test: Any, forecasts: Any) -> None:
    """The unit of the median traffic."""
    unit = int(np.argsort(test.sum(axis=1))[len(test) // 2])
    steps = np.arange(INTERVALS)
    axes(place, "interval", "traffic (what one source sends)", "one unit: traffic and its forecast")
    place.bar(steps, test[unit, steps], color=PALE, edgecolor=GREY, linewidth=0.4, width=1, label="arrives")
    place.plot(steps[1:], forecasts[unit, steps[:-1]], color=BLUE, linewidth=1.2, label="forecast an interval before")
    place.legend(fontsize=8, frameon=False, loc="upper right")
