"""Text that a character language model writes, beside what it learned it from."""

import textwrap
from typing import Any

from ..char_lm import tokens_of
from ..sample import continued
from ..task import Evaluation
from .style import figure

LENGTH, TEMPERATURE, COLUMNS, LINES = 1500, 0.7, 80, 34


def draw(task: Any, backend: Any, model: Any, evaluation: Evaluation) -> Any:
    """Left the held-out text, right what the model writes after the same beginning."""
    made = figure(12, 5.6, f"char_lm: {evaluation.value:.3f} bits per character; {evaluation.baseline_name} has "
                           f"{evaluation.baseline:.3f}")  # fmt: skip
    begin = tokens_of(task.text[task.held_out - 60 : task.held_out], task.alphabet, "the text")[None, :]
    written = continued(backend, model, task.alphabet, begin, LENGTH, TEMPERATURE, seed=0)
    texts = (
        ("held-out text", task.text[task.held_out : task.held_out + LENGTH]),
        (f"written by the model at temperature {TEMPERATURE}", written),
    )
    for place, (title, text) in zip(made.subplots(1, 2), texts, strict=True):
        place.set_axis_off()
        place.set_title(title, fontsize=10)
        place.text(0, 1, _folded(text), family="monospace", fontsize=8, va="top", transform=place.transAxes)
    return made


def _folded(text: str) -> str:
    lines = [piece for line in text.splitlines() for piece in textwrap.wrap(line, COLUMNS) or [""]]
    return "\n".join(lines[:LINES]).replace("$", r"\$")
