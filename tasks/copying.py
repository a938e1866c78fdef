"""The copy problem: symbols are shown, and are to be repeated after a delay."""

import math
from typing import Any

import numpy as np

from ..spec import draws
from ..spec.data import check_size
from ..spec.model import Head
from ..spec.training import Batch, CrossEntropy
from .drawn import Drawn, scores_of
from .task import Evaluation, ModelParts, log_softmax


class Copy(Drawn):
    """S symbols, then blanks until, after a delay of T steps, a go sign is the last; then S steps for the copy.

    The target is blank at every step until the copy begins. Inputs are one-hot. Who counts steps but
    remembers no symbol is left with S ln A of T + 2 S steps, A the size of the alphabet.
    Source: Hochreiter and Schmidhuber 1997, as in arXiv 1511.06464 (S = 10, A = 8).

    Args:
        length: S, symbols to copy.
        delay: T, steps from the last symbol to the first of the copy.
        alphabet_size: A, different symbols.

    Raises:
        SpecError: a size is below 1, or there is one symbol alone, which nobody needs to remember.
    """

    name = "copy"
    metric = "cross_entropy"
    goal = "minimize"
    loss = CrossEntropy()

    def __init__(self, length: int = 5, delay: int = 5, alphabet_size: int = 8) -> None:
        check_size("task.length", length)
        check_size("task.delay", delay)
        check_size("task.alphabet_size", alphabet_size, 2)
        self._length, self._delay, self._alphabet_size = length, delay, alphabet_size
        self.test = self.draw_test()

    @property
    def parts(self) -> ModelParts:
        """Inputs for each symbol, the blank and the go sign, in this order; a score for each but the last."""
        return ModelParts(self._alphabet_size + 2, Head(self._alphabet_size + 1))

    def settings(self) -> dict[str, Any]:
        """What `load_task` takes."""
        return {
            "name": self.name, "length": self._length, "delay": self._delay, "alphabet_size": self._alphabet_size,
        }  # fmt: skip

    def drawn(self, seed: int, stream: str, count: int) -> Batch:
        """Inputs (N, T + 2 S, A + 2), targets (N, T + 2 S)."""
        blank, go = self._alphabet_size, self._alphabet_size + 1
        numbers = draws.uniform(seed, stream, count * self._length).reshape(count, self._length)
        symbols = (numbers * self._alphabet_size).astype(np.int64)
        tokens = np.full((count, self._delay + 2 * self._length), blank)
        targets = tokens.copy()
        tokens[:, : self._length] = targets[:, -self._length :] = symbols
        tokens[:, self._length + self._delay - 1] = go
        return Batch(np.eye(go + 1)[tokens], targets)

    def evaluate(self, backend: Any, model: Any) -> Evaluation:
        """Cross-entropy of all steps in nats, and the share of the symbols that were remembered."""
        logarithms, targets = log_softmax(scores_of(backend, model, self.test)), self.test.targets
        predictions = logarithms.argmax(axis=2)
        copied = predictions[:, -self._length :] == targets[:, -self._length :]
        metrics = {
            "cross_entropy": float(-np.take_along_axis(logarithms, targets[..., None], axis=2).mean()),
            "remembered": float(copied.mean()),
        }
        baseline = self._length * math.log(self._alphabet_size) / targets.shape[1]
        return Evaluation(self.metric, metrics, predictions, baseline, "no memory of the symbols")
