"""Pictures with the captions that the model gives them, the wrong ones first."""

from typing import Any

import numpy as np

from ..captioning import text_of_caption
from ..task import Evaluation
from .style import BLUE, RED, figure

SHOWN = 20


def draw(task: Any, backend: Any, model: Any, evaluation: Evaluation) -> Any:
    """20 pictures: half of them mistakes, where there are so many; under a wrong caption stands the true one."""
    found, truth = evaluation.predictions, task.test.targets
    wrong = (found != truth).any(axis=1)
    mistakes, right = np.flatnonzero(wrong)[: SHOWN // 2], np.flatnonzero(~wrong)
    chosen = [*mistakes, *right[: SHOWN - len(mistakes)]]
    title = (
        f"captioning: {100 * evaluation.value:.1f} % of {len(truth)} captions are right from the first word to the last"
    )
    made = figure(11, 6.4, title)
    for place, row in zip(made.subplots(4, 5).flat, chosen, strict=False):
        left, right_half = task.test.context[row].reshape(2, 8, 8)
        place.imshow(np.hstack([left, right_half]), cmap="gray_r")
        place.set(xticks=[], yticks=[])
        place.set_title(text_of_caption(found[row]) or "(nothing)", fontsize=10, color=RED if wrong[row] else BLUE)
        if wrong[row]:
            place.set_xlabel(f"truth: {text_of_caption(truth[row])}", fontsize=9)
    return made
