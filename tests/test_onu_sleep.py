"""Optical network units: their traffic, the sleep controller by hand, the oracle, and what a forecast saves."""

from itertools import product

import numpy as np
import pytest

from rnnzoo.spec import Adam, ClipByGlobalNorm, TrainingSpec, load_backend
from rnnzoo.tasks import traffic
from rnnzoo.tasks.onu_sleep import THRESHOLDS, OnuSleep
from rnnzoo.tasks.task import model_spec
from rnnzoo.tasks.traffic import SOURCES, arrivals, best_possible, controlled, idle_times, pareto


def test_a_source_is_never_off_or_on_for_less_than_its_shortest_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "SOURCES", 1)
    monkeypatch.setattr(traffic, "SHORTEST_ON", 3.0)
    found = arrivals(0, "test", 50, 400)
    assert found.shape == (50, 400) and found.min() == 0 and found.max() == 1
    for row in found > 0:
        ends = np.flatnonzero(np.diff(row.astype(int)))
        if len(ends) < 3:
            continue
        runs = np.diff(ends)
        on = runs[0::2] if row[ends[0] + 1] else runs[1::2]
        off = runs[1::2] if row[ends[0] + 1] else runs[0::2]
        assert on.min() >= 3 and off.min() >= 3  # a pause of 4 covers 3 whole intervals at least


def test_pareto_times_have_the_exponent_four_thirds() -> None:
    times = pareto(np.array([1.0, 0.5, 1 / 16, 2.0**-40]))
    assert list(times) == [1.0, 1722 / 1024, 8.0, 2.0**30]  # u^(-3/4), the second of 1024 * 1.6818 parts


def test_traffic_is_self_similar() -> None:
    """Means over m intervals vary as m^(2H - 2): H = 0.5 without memory, (3 - 4/3)/2 = 0.83 in the limit here."""
    found = arrivals(0, "test", 100, 4000)
    sizes = np.array([10, 20, 50, 100])
    variances = [found.reshape(100, -1, size).mean(axis=2).var(axis=1).mean() for size in sizes]
    hurst = 1 + np.polyfit(np.log(sizes), np.log(variances), 1)[0] / 2
    assert 0.7 < hurst < 0.95


def test_idle_times_count_the_empty_intervals() -> None:
    assert idle_times(np.array([[0.0, 0.0, 2.0, 0.0, 0.0, 0.5, 0.0]])).tolist() == [[1, 2, 0, 1, 2, 0, 1]]


def test_what_a_controller_costs_is_what_one_counts_by_hand() -> None:
    """Asleep in intervals 1 and 2, awake in 3: 1 waits half an interval and then one more, 2 half of one; both wait
    half an interval for the wake-up, in which 4 * 0.5 arrive and wait a quarter."""
    unit = np.array([[5.0, 1.0, 2.0, 4.0, 3.0]])
    forecasts = np.array([[0.5, 0.5, 9.0, 9.0, 0.0]])
    found = controlled(unit, forecasts, np.array([2.0, 0.0]))
    energy, delay = 2 * 0.1 + 1.5 + 1.0, 1 * 0.5 + 1 * 1 + 2 * 0.5 + 3 * 0.5 + 4 * 0.5 * 0.25
    assert found.saved.tolist() == [1 - energy / 4, 0.0] and found.delay.tolist() == [delay / 10, 0.0]
    assert found.cost(2.0).tolist() == [energy / 4 + 2.0 * (delay / 10), 1.0]


def test_what_waits_wakes_a_unit_up() -> None:
    found = controlled(np.array([[1.0, 1.0, 1.0, 1.0]]), np.zeros((1, 4)), np.array([1.5, 0.5, 9.0]))
    energy = [0.1 + 0.1 + 1.5, 0.1 + 1.5 + 0.1, 3 * 0.1]
    assert np.array_equal(found.saved, 1 - np.array(energy) / 3)


def test_no_schedule_is_cheaper_than_the_oracles() -> None:
    """All 2^7 schedules of each unit; the sums have at most 30 terms, none above 30."""
    found = arrivals(0, "test", 6, 8) + 0.125  # so that each unit has some traffic
    for price in (0.05, 1.0):
        cheapest = np.full(6, np.inf)
        scale = price * found[:, 1:].size / found[:, 1:].sum()
        for schedule in product((0.0, 9.0), repeat=7):
            # The controller adds what waits to the forecast, which must not wake the unit up.
            forecasts = np.where(np.array([*schedule, 0.0]) > 0, 1e6, -1e6)
            for unit in range(6):
                outcome = controlled(found[unit : unit + 1], forecasts[None], np.array([0.0]))
                energy = (1 - outcome.saved[0]) * 7
                waited = outcome.delay[0] * found[unit, 1:].sum()
                cheapest[unit] = min(cheapest[unit], energy + scale * waited)
        cost = best_possible(found, price).cost(price)[0] * found[:, 1:].size
        assert abs(cost - cheapest.sum()) <= 30 * 30 * 6 * 2.0**-53


def test_the_threshold_is_chosen_on_other_traffic_than_the_test() -> None:
    """Where that is never below any threshold, all of them cost the same, and the first is taken."""
    task, busy = OnuSleep(delay_price=0.1), OnuSleep(delay_price=0.1)
    busy.tuning = np.full_like(task.tuning, SOURCES)
    assert not np.array_equal(task.tuning, task.test)
    first = controlled(task.test, task.test, THRESHOLDS[:1])
    assert busy.simple_controllers["last_interval"].saved == first.saved
    assert task.simple_controllers["last_interval"].saved > first.saved


def test_inputs_and_targets_are_an_interval_apart() -> None:
    batch = OnuSleep(length=12).drawn(0, "stream", 5)
    assert batch.inputs.shape == batch.targets.shape == (5, 12, 1)
    assert np.array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_a_forecast_is_cheaper_than_a_timer_and_dearer_than_the_oracle() -> None:
    task, backend = OnuSleep(), load_backend("numpy")
    model = backend.build(model_spec(task, {"variant": "simple_rnn", "hidden_size": 16}), seed=0)
    trainer = backend.trainer(model, TrainingSpec(task.loss, Adam(0.005), ClipByGlobalNorm(1.0)))
    for number in range(1, 7):
        for batch in task.epoch(number, 32, 0):
            trainer.step(batch)
    evaluation = task.evaluate(backend, model)
    metrics = evaluation.metrics
    assert metrics["oracle_cost"] < evaluation.value < evaluation.baseline
    assert evaluation.baseline == min(metrics["timer_cost"], metrics["last_interval_cost"])
    # One rounding each of the product and of the two sums, of numbers below 2.
    assert abs(evaluation.value - (1 - metrics["energy_saved"] + metrics["mean_delay"])) <= 3 * 2.0**-53
    assert evaluation.predictions.shape == task.test.shape
