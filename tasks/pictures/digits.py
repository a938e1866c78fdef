"""Images with what was read in them, the wrong ones first, and which digit is taken for which."""

from typing import Any

import numpy as np

from ..task import Array, Evaluation
from .style import BLUE, RED, figure, words

SHOWN = 24


def draw(task: Any, backend: Any, model: Any, evaluation: Evaluation) -> Any:
    """Left up to 24 of the test sequences as images, right the matrix of confusions."""
    truth, found = task.test.targets, evaluation.predictions
    made = figure(11, 5.2, f"digits: {words(evaluation.metric)} {evaluation.value:.4f} on {len(truth)} test images")
    left, right = made.subfigures(1, 2)
    left.suptitle("read (truth), mistakes first", fontsize=10)
    chosen = np.argsort(found == truth, kind="stable")[:SHOWN]
    for place, row in zip(left.subplots(4, 6).flat, [*chosen, *[None] * (SHOWN - len(chosen))], strict=True):
        place.set_axis_off()
        if row is not None:
            place.imshow(task.test.inputs[row], cmap="gray_r")
            wrong = found[row] != truth[row]
            place.set_title(
                f"{found[row]} ({truth[row]})" if wrong else str(found[row]), fontsize=10, color=RED if wrong else BLUE
            )
    confusions(right.add_subplot(), truth, found)
    return made


def confusions(place: Any, truth: Array, found: Array) -> None:
    """How often each class was taken for each; the diagonal is what is right."""
    classes = int(max(truth.max(), found.max())) + 1
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, found), 1)
    place.imshow(counts, cmap="Blues", norm="symlog")
    place.set(xlabel="read as", ylabel="truth")
    if classes <= 20:
        place.set(xticks=range(classes), yticks=range(classes))
        dark = counts > np.sqrt(counts.max())
        for row, column in np.argwhere(counts):
            colour = "white" if dark[row, column] else "black"
            place.text(column, row, counts[row, column], ha="center", va="center", fontsize=8, color=colour)
