"""Sentences whose words are coloured by the slots that the model gives them."""

from typing import Any

import numpy as np

from ..task import Evaluation
from .style import COLOURS, RED, YELLOW, figure

SHOWN = 12  # sentences
GAP = 1.4  # characters between words
TINTS = (*COLOURS[:6], YELLOW)


def draw(task: Any, backend: Any, model: Any, evaluation: Evaluation) -> Any:
    """Up to 12 sentences, those with mistakes first; below a wrong tag stands the true one."""
    test, found = task.test, evaluation.predictions
    valid = np.arange(found.shape[1]) < test.lengths[:, None]
    mistakes = ((found != test.targets) & valid).sum(axis=1)
    chosen = np.argsort(-np.minimum(mistakes, 1), kind="stable")[:SHOWN]
    slots = list(dict.fromkeys(tag[2:] for tag in task.tags if tag != "O"))
    wrong = np.count_nonzero(mistakes)
    title = f"tagging: slot F1 {evaluation.value:.4f}; {wrong} of {len(found)} sentences with a mistake"
    width = (
        max(sum(len(task.words[word]) + GAP for word in test.inputs[row, : test.lengths[row]]) for row in chosen) + 4
    )
    made = figure(0.088 * width, 0.45 * len(chosen) + 1.2, title)
    place = made.add_subplot()
    place.set_axis_off()
    place.set(xlim=(0, width), ylim=(len(chosen) + 0.3, -1.2))
    _legend(place, slots)
    for line, row in enumerate(chosen):
        _sentence(place, line, task, slots, int(test.lengths[row]), test.inputs[row], found[row], test.targets[row])
    return made


def _legend(place: Any, slots: list[str]) -> None:
    x = 0.0
    for number, slot in enumerate(slots):
        _word(place, x, -0.8, slot, TINTS[number % len(TINTS)])
        x += len(slot) + 3


def _sentence(
    place: Any, line: int, task: Any, slots: list[str], length: int, words: Any, found: Any, truth: Any
) -> None:
    x = 0.0
    for step in range(length):
        word, tag, true = (task.words[words[step]], task.tags[found[step]], task.tags[truth[step]])
        _word(place, x, line, word, TINTS[slots.index(tag[2:]) % len(TINTS)] if tag != "O" else None, wrong=tag != true)
        if tag != true:
            place.text(x, line + 0.42, true, fontsize=7, color=RED, family="monospace", va="center")
        x += max(len(word), len(true) * 0.8 if tag != true else 0) + GAP


def _word(place: Any, x: float, y: float, word: str, colour: str | None, wrong: bool = False) -> None:
    box = {"boxstyle": "round,pad=0.2", "facecolor": f"{colour}55" if colour else "none",
           "edgecolor": RED if wrong else "none", "linewidth": 1.5}  # fmt: skip
    place.text(x, y, word, fontsize=10, family="monospace", va="center", bbox=box)
