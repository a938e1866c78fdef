"""The traffic of optical network units, and what their sleep saves and delays.

Superposed sources that are on and off for times of heavy tails give traffic that is self-similar, with the Hurst
parameter (3 - a)/2 of the Pareto exponent a (Willinger, Taqqu, Sherman and Wilson 1997). Time is counted in
intervals of the controller, traffic in what one source sends in an interval, power in that of an active unit.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..spec import draws

SHORTEST_ON, SHORTEST_OFF = 1.0, 4.0  # intervals; the means are four times as long
SOURCES = 2  # of each unit
WARM_UP = 200  # intervals before the first that counts, as all sources begin with a pause
SLEEP_POWER, WAKE_UP_ENERGY, WAKE_UP_TIME = 0.1, 0.5, 0.5
RESOLUTION = 2**10  # parts of an interval
Floats = NDArray[np.float64]


class Outcome(NamedTuple):
    """Of a controller, for each of its thresholds: energy saved of all that would be used awake, mean delay."""

    saved: Floats
    delay: Floats

    def cost(self, delay_price: float) -> Floats:
        """Energy used, and what the delay is worth beside it."""
        return 1.0 - self.saved + delay_price * self.delay


def arrivals(seed: int, stream: str, units: int, intervals: int) -> Floats:
    """What arrives for each unit in each interval, (N, T)."""
    cycles = int((WARM_UP + intervals) / (SHORTEST_ON + SHORTEST_OFF)) + 1  # enough even of the shortest
    count = units * SOURCES * cycles * 2
    times = pareto(1.0 - draws.uniform(seed, stream, count)).reshape(units * SOURCES, cycles, 2)
    times *= np.array([SHORTEST_OFF, SHORTEST_ON])
    ends = np.cumsum(times.reshape(len(times), -1), axis=1)  # of each pause and of what is sent after it
    sent = np.repeat(np.cumsum(times[..., 1], axis=1), 2, axis=1)
    sent[:, 0::2] -= times[..., 1]
    edges = np.arange(WARM_UP, WARM_UP + intervals + 1)
    at_edges = np.stack([np.interp(edges, *source) for source in zip(ends, sent, strict=True)])
    found: Floats = np.diff(at_edges, axis=1).reshape(units, SOURCES, intervals).sum(axis=1)
    return found


def pareto(uniform: Floats) -> Floats:
    """Times of at least 1 with the exponent 4/3, u^(-3/4) of numbers in (0, 1], by square roots alone.

    They are whole parts of an interval, so that their sums are exact: an interval without traffic has exactly 0.
    """
    root = np.sqrt(uniform)
    times: Floats = np.floor(RESOLUTION / (root * np.sqrt(root))) / RESOLUTION
    return times


def idle_times(traffic: Floats) -> Floats:
    """For how many intervals nothing has arrived, (N, T)."""
    steps = np.arange(traffic.shape[1])
    last = np.maximum.accumulate(np.where(traffic > 0, steps, -1), axis=1)
    return (steps - last).astype(np.float64)


def controlled(traffic: Floats, forecasts: Any, thresholds: Floats) -> Outcome:
    """What a controller does that lets a unit sleep for the next interval if its forecast and what waits are below.

    In an interval of sleep all that arrives waits. A unit that wakes up needs some energy and time for it, and then
    sends what has waited at once.

    Args:
        traffic: what arrives, (N, T).
        forecasts: of the interval after each, known at its end, (N, T).
        thresholds: to be tried, (K,).
    """
    shape = len(thresholds), len(traffic)
    waiting, asleep = np.zeros(shape), np.zeros(shape, np.bool_)
    energy, delay = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    for step in range(traffic.shape[1]):
        new = traffic[:, step]
        if step:
            before, asleep = asleep, forecasts[:, step - 1] + waiting < thresholds[:, None]
            wakes = before & ~asleep
            energy += np.where(asleep, SLEEP_POWER, 1.0 + WAKE_UP_ENERGY * wakes).sum(axis=1)
            late = WAKE_UP_TIME * waiting + WAKE_UP_TIME**2 / 2 * new
            delay += np.where(asleep, waiting + new / 2, wakes * late).sum(axis=1)
        waiting = np.where(asleep, waiting + new, 0.0)
    sent = traffic[:, 1:]
    return Outcome(1.0 - energy / sent.size, delay / sent.sum())


def best_possible(traffic: Floats, delay_price: float, longest: int = 200) -> Outcome:
    """What can be had by knowing the future: the cheapest schedule of each unit, by dynamic programming.

    A unit is awake in the first interval, and never sleeps for more than `longest` in a row.
    """
    price = delay_price * traffic[:, 1:].size / traffic[:, 1:].sum()  # of waiting, in energy
    costs, delays = np.zeros((2, traffic.shape[1] + 1, len(traffic)))  # of the best way to be awake in an interval
    padded = np.pad(traffic, ((0, 0), (0, 1)))
    for step in range(1, len(costs)):
        awake = float(step < len(costs) - 1)  # after the last interval nothing is left to wake up for
        slept = np.arange(min(longest, step - 1) + 1)[:, None]  # (L, 1), just before this interval
        waits = padded[:, step - len(slept) + 1 : step].T[::-1] * (slept[1:] - 0.5 + awake * WAKE_UP_TIME)
        woken = awake * WAKE_UP_TIME**2 / 2 * padded[:, step] * (slept > 0)  # (L, N)
        delay = np.pad(np.cumsum(waits, axis=0), ((1, 0), (0, 0))) + woken
        energy = slept * SLEEP_POWER + awake * (1.0 + WAKE_UP_ENERGY * (slept > 0))
        before = slice(step - len(slept), step)
        paths = costs[before][::-1] + energy + price * delay
        best = paths.argmin(axis=0)[None]
        costs[step] = np.take_along_axis(paths, best, axis=0)[0]
        delays[step] = np.take_along_axis(delays[before][::-1] + delay, best, axis=0)[0]
    waited = delays[-1].sum(keepdims=True)
    energy_used = costs[-1].sum(keepdims=True) - price * waited
    return Outcome(1.0 - energy_used / traffic[:, 1:].size, waited / traffic[:, 1:].sum())
