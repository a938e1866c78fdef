"""The adding problem: two of many numbers are marked, and their sum is asked for at the end."""

from typing import Any

import numpy as np

from ..spec import draws
from ..spec.data import check_size
from ..spec.model import Head
from ..spec.training import Batch, MeanSquaredError
from .drawn import Drawn, scores_of
from .task import Evaluation, ModelParts


class Adding(Drawn):
    """Each step has a number, uniform in [0, 1), and a marker, which is 1 at one step of each half and 0 elsewhere.

    The target is the sum of the two marked numbers. Who knows their mean alone has an error of 1/6, which
    is the variance of the sum. Source: Hochreiter and Schmidhuber 1997, as in arXiv 1504.00941.

    Args:
        length: steps in a sequence; the error must reach over half of them and more.

    Raises:
        SpecError: the length is below 2.
    """

    name = "adding"
    metric = "mean_squared_error"
    goal = "minimize"
    loss = MeanSquaredError()
    parts = ModelParts(2, Head(1, reads="final"))

    def __init__(self, length: int = 50) -> None:
        check_size("task.length", length, 2)
        self._length = length
        self.test = self.draw_test()

    def settings(self) -> dict[str, Any]:
        """What `load_task` takes."""
        return {"name": self.name, "length": self._length}

    def drawn(self, seed: int, stream: str, count: int) -> Batch:
        """Inputs (N, T, 2), targets (N, 1)."""
        numbers = draws.uniform(seed, f"{stream}.numbers", count * self._length).reshape(count, self._length)
        half = np.array([self._length // 2, self._length - self._length // 2])
        places = draws.uniform(seed, f"{stream}.places", 2 * count).reshape(count, 2) * half
        steps = places.astype(np.int64) + np.array([0, half[0]])  # (N, 2)
        markers = np.zeros_like(numbers)
        np.put_along_axis(markers, steps, 1.0, axis=1)
        first, second = np.take_along_axis(numbers, steps, axis=1).T
        return Batch(np.stack([numbers, markers], axis=2), (first + second)[:, None])

    def evaluate(self, backend: Any, model: Any) -> Evaluation:
        """Squared error, and how often the sum is hit within 0.04."""
        predictions = scores_of(backend, model, self.test).astype(np.float64)
        errors = (predictions - self.test.targets)[:, 0]
        metrics = {"mean_squared_error": float(np.mean(errors**2)), "accuracy": float(np.mean(np.abs(errors) < 0.04))}
        baseline = float(np.mean((self.test.targets - 1.0) ** 2))
        return Evaluation(self.metric, metrics, predictions, baseline, "the mean of all sums")
