"""Sleep of optical network units: a forecast of each one's traffic decides whether it sleeps for the next interval."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.data import check_number, check_size
from ..spec.encoder_decoder import AnySpec
from ..spec.model import Head
from ..spec.training import Batch, MeanSquaredError
from .drawn import TEST_SEED, Drawn, scores_of
from .task import Evaluation, ModelParts
from .traffic import SOURCES, Floats, Outcome, arrivals, best_possible, controlled, idle_times

UNITS, INTERVALS = 100, 1000  # of the evaluation, and as many to choose the thresholds by
THRESHOLDS = np.geomspace(0.01, SOURCES, 40)
BASELINES = {"timer": "a timer", "last_interval": "the last interval as forecast"}
TIMERS = 0.5 - np.arange(1.0, 21.0)  # thresholds for the negated idle time


class OnuSleep(Drawn):
    """A model reads what arrives in each interval and forecasts the next; the metric is the cost of the sleep.

    The cost is the energy used, of a unit that never sleeps, plus `delay_price` times the mean delay in intervals.
    The sleep controller has one threshold, which is chosen on traffic of its own. The baseline is the best of two
    simple controllers with the same choice: a timer, that lets a unit sleep once nothing came for a while, and
    the forecast that the next interval is as the last. An oracle, which knows
    all that is to come and takes the cheapest schedule, shows what could be had.

    Args:
        length: intervals in a training sequence.
        delay_price: cost of a mean delay of one interval.

    Raises:
        SpecError: the length is below 1, or the price is negative.
    """

    name = "onu_sleep"
    metric = "cost"
    goal = "minimize"
    loss = MeanSquaredError()
    parts = ModelParts(1, Head(1))

    def __init__(self, length: int = 60, delay_price: float = 1.0) -> None:
        check_size("task.length", length)
        check_number("task.delay_price", delay_price, 0.0, np.inf)
        self._length, self._price = length, delay_price
        self.tuning = arrivals(TEST_SEED, "onu_sleep.tuning", UNITS, INTERVALS)
        self.test = arrivals(TEST_SEED, "onu_sleep.test", UNITS, INTERVALS)

    def settings(self) -> dict[str, Any]:
        """What `load_task` takes."""
        return {"name": self.name, "length": self._length, "delay_price": self._price}

    def reason_against(self, spec: AnySpec) -> str | None:
        """A model that reads backward has seen the traffic that it is to forecast."""
        if spec.num_directions == 2:
            return (
                f"{spec.variant} reads backward as well, and so sees the traffic it is to forecast; "
                "take simple_rnn or stacked_rnn"
            )
        return None

    def drawn(self, seed: int, stream: str, count: int) -> Batch:
        """Inputs and targets (N, T, 1): what arrives in each interval, and in the one after it, per source."""
        traffic = arrivals(seed, stream, count, self._length + 1)[..., None] / SOURCES
        return Batch(traffic[:, :-1], traffic[:, 1:])

    def evaluate(self, backend: Any, model: Any) -> Evaluation:
        """The cost, the energy saved and the mean delay, with what a timer and an oracle come to."""
        forecasts = self._forecasts(backend, model, self.test)
        found = self._outcome(THRESHOLDS, self._forecasts(backend, model, self.tuning), forecasts)
        metrics = {"cost": float(found.cost(self._price)[0]), **_numbers("", found)}
        for name, outcome in self.simple_controllers.items():
            metrics |= {f"{name}_cost": float(outcome.cost(self._price)[0]), **_numbers(f"{name}_", outcome)}
        best = min(BASELINES, key=lambda name: metrics[f"{name}_cost"])
        return Evaluation(self.metric, metrics, forecasts, metrics[f"{best}_cost"], BASELINES[best])

    @cached_property
    def simple_controllers(self) -> dict[str, Outcome]:
        """What controllers without a model come to on the test traffic."""
        known, test = self.tuning, self.test
        return {
            "timer": self._outcome(TIMERS, -idle_times(known), -idle_times(test)),
            "last_interval": self._outcome(THRESHOLDS, known, test),
            "oracle": best_possible(test, self._price),
        }

    def _outcome(self, thresholds: Floats, known: Any, forecasts: Any) -> Outcome:
        """On the test traffic, with the threshold that costs least on the other."""
        best = controlled(self.tuning, known, thresholds).cost(self._price).argmin()
        return controlled(self.test, forecasts, thresholds[best : best + 1])

    def _forecasts(self, backend: Any, model: Any, traffic: Floats) -> NDArray[np.float64]:
        """Of the interval after each, in the units of the traffic, (N, T)."""
        scores = scores_of(backend, model, Batch(traffic[..., None] / SOURCES, None))
        return scores[..., 0].astype(np.float64) * SOURCES


def _numbers(prefix: str, outcome: Outcome) -> dict[str, float]:
    return {f"{prefix}energy_saved": float(outcome.saved[0]), f"{prefix}mean_delay": float(outcome.delay[0])}
