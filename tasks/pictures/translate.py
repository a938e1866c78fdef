"""Dates as people write them and as the model does, the wrong ones first."""

from typing import Any

import numpy as np

from ..task import Evaluation
from ..translate import iso_of
from .style import BLUE, RED, figure

SHOWN = 20


def draw(task: Any, backend: Any, model: Any, evaluation: Evaluation) -> Any:
    """A table of 20 dates, up to half of them mistakes."""
    found, truth = evaluation.predictions, task.test.targets
    wrong = (found != truth).any(axis=1)
    mistakes = np.flatnonzero(wrong)[: SHOWN // 2]
    chosen = [*mistakes, *np.flatnonzero(~wrong)[: SHOWN - len(mistakes)]]
    title = f"translate: {100 * evaluation.value:.1f} % of {len(truth)} dates are right as a whole"
    made = figure(9, 0.32 * len(chosen) + 1.2, title)
    place = made.add_subplot()
    place.set_axis_off()
    place.set(xlim=(0, 1), ylim=(len(chosen), -1.2))
    for x, text in ((0, "written by a person"), (0.5, "translated"), (0.75, "truth, where it differs")):
        place.text(x, -0.9, text, fontsize=10, weight="bold", va="center")
    for line, row in enumerate(chosen):
        place.text(0, line, task.test_pairs[row].text, fontsize=10, family="monospace", va="center")
        colour = RED if wrong[row] else BLUE
        place.text(0.5, line, iso_of(found[row]), fontsize=10, family="monospace", va="center", color=colour)
        if wrong[row]:
            place.text(0.75, line, iso_of(truth[row]), fontsize=10, family="monospace", va="center")
    return made
