"""Forecasts of a series: where the series come from, windows, the held-out part, and what is beaten."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.spec import Adam, Contents, TrainingSpec, initial_weights, load_backend
from rnnzoo.spec.errors import FileError, SpecError
from rnnzoo.tasks.evaluate import evaluate
from rnnzoo.tasks.forecast import Forecast
from rnnzoo.tasks.task import load_task, model_spec

FIELDS = {"variant": "bi_rnn", "hidden_size": 5}


def written(folder: Path, text: str) -> str:
    (folder / "series.csv").write_text(text, encoding="utf-8")
    return str(folder / "series.csv")


def lines(values: Any, header: str = "value") -> str:
    return "\n".join([header, *(str(value) for value in values)])


def test_the_published_series_are_whole() -> None:
    pytest.importorskip("statsmodels")
    sunspots, co2 = Forecast("sunspots"), Forecast("co2")
    assert len(sunspots.values) == 309 and (sunspots.values[0], sunspots.values.max()) == (5.0, 190.2)
    assert len(co2.values) == 526 and (co2.values[0], co2.values[1]) == (316.1, (317.3 + 317.6 + 317.5 + 316.4) / 4)
    assert np.isfinite(co2.values).all()


def test_gaps_lie_on_a_line_between_their_neighbours(tmp_path: Path) -> None:
    text = lines(["a,", "b,2", "c,", "d,", "e,5", *(f"f,{k}" for k in range(9)), "g,"], "name,value")
    assert list(Forecast(data=written(tmp_path, text), window=2).values) == [2, 3, 4, 5, *range(9)]


def test_a_column_is_named_or_the_last(tmp_path: Path) -> None:
    path = written(tmp_path, lines((f"{k},{k * k},{-k * k}" for k in range(20)), "k,square,minus"))
    assert np.array_equal(Forecast(data=path, column="square", window=2).values, np.arange(20.0) ** 2)
    assert np.array_equal(Forecast(data=path, window=2).values, -(np.arange(20.0) ** 2))


def test_windows_end_before_the_value_that_they_forecast(tmp_path: Path) -> None:
    values = np.random.default_rng(3).normal(size=20)
    task = Forecast(data=written(tmp_path, lines(values)), window=3)
    assert (len(task.training.inputs), len(task.test.inputs), task.held_out) == (13, 4, 16)
    unit = np.sqrt(np.mean([(values[k : k + 3] - values[k + 2]) ** 2 for k in range(13)]))
    for k in range(17):
        rows, row = (task.training, k) if k < 13 else (task.test, k - 13)
        assert np.array_equal(rows.inputs[row, :, 0], (values[k : k + 3] - values[k + 2]) / unit)
        assert rows.targets[row, 0] == (values[k + 3] - values[k + 2]) / task.scale


def test_the_held_out_part_has_no_say_in_the_units(tmp_path: Path) -> None:
    values = np.random.default_rng(3).normal(size=20)
    before = Forecast(data=written(tmp_path, lines(values)), window=3)
    values[16:] *= 1000
    after = Forecast(data=written(tmp_path, lines(values)), window=3)
    assert before.scale == after.scale and np.array_equal(before.training.inputs, after.training.inputs)


def test_every_training_window_comes_once_an_epoch_in_an_order_of_seed_and_epoch(tmp_path: Path) -> None:
    task = Forecast(data=written(tmp_path, lines(np.arange(50.0) ** 2)), window=3)

    def order(number: int, seed: int) -> list[bytes]:
        batches = list(task.epoch(number, 10, seed))
        assert len(batches) == task.steps_per_epoch(10) == 4
        return [row.tobytes() for batch in batches for row in np.hstack([batch.inputs[..., 0], batch.targets])]

    assert order(1, 0) == order(1, 0) and order(1, 0) != order(2, 0) and order(1, 0) != order(1, 1)
    assert sorted(order(2, 7)) == sorted(row.tobytes() for row in np.hstack([task.training.inputs[..., 0],
                                                                              task.training.targets]))  # fmt: skip


def test_the_baseline_is_the_best_of_three_simple_forecasts(tmp_path: Path) -> None:
    season = np.tile([0.0, 5.0, 1.0, 7.0], 10)
    walk = np.random.default_rng(1).normal(size=40).cumsum()
    for values, best in (
        (season, "the value a season ago"),
        (season + np.arange(40) ** 2 / 10, "the change a season ago"),
        (walk, "the last value"),
    ):
        task = Forecast(data=written(tmp_path, lines(values)), window=3, season=4)
        backend = load_backend("numpy")
        evaluation = task.evaluate(backend, backend.build(model_spec(task, FIELDS)))
        errors = {
            name: np.abs(found - values[task.held_out :]).mean() for name, found in task.simple_forecasts().items()
        }
        assert (evaluation.baseline_name, evaluation.baseline) == (best, min(errors.values()))


def test_a_model_of_zeros_forecasts_the_last_value(tmp_path: Path) -> None:
    task, backend = Forecast(data=written(tmp_path, lines(np.arange(50.0) ** 2)), window=3), load_backend("numpy")
    model = backend.build(model_spec(task, {**FIELDS, "initializer": "zeros"}))
    evaluation = task.evaluate(backend, model)
    assert np.array_equal(evaluation.predictions, task.simple_forecasts()["the last value"])
    assert evaluation.value == np.abs(np.diff(task.values)[-10:]).mean()


def test_sunspots_are_forecast_better_than_by_any_simple_rule() -> None:
    pytest.importorskip("statsmodels")
    task, backend = Forecast(), load_backend("numpy")
    model = backend.build(model_spec(task, {"variant": "simple_rnn", "hidden_size": 16}))
    trainer = backend.trainer(model, TrainingSpec(task.loss, Adam(0.003)))
    for number in range(1, 21):
        for batch in task.epoch(number, 16, 0):
            trainer.step(batch)
    evaluation = task.evaluate(backend, model)
    assert evaluation.value < 0.8 * evaluation.baseline


def test_a_trained_model_finds_its_series_again_and_refuses_another(tmp_path: Path) -> None:
    task = load_task({"name": "forecast", "data": written(tmp_path, lines(np.arange(50.0) ** 2)), "window": 3})
    spec = model_spec(task, FIELDS)
    contents = Contents(spec, initial_weights(spec, 3), {"task": task.settings()})
    assert len(evaluate(contents, "numpy").predictions) == 10
    path = written(tmp_path, lines(np.arange(60.0)))
    with pytest.raises(FileError, match="expected the data of the training"):
        evaluate(contents, "numpy")
    assert len(evaluate(contents, "numpy", data=path).predictions) == 12


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("", {}, "expected a CSV file with a header, got an empty one"),
        ("value\n", {}, "0 values to train on are too few for a window of 3"),
        (lines(range(5)), {}, "4 values to train on are too few .* and a season of 1; lower task.window"),
        (lines(range(20)), {"season": 15}, "16 values to train on are too few .* season of 15"),
        (lines([1.0] * 20), {}, "expected a series that changes before its last fifth, got a constant"),
        (lines([*range(9), "x", *range(9)]), {}, "row 10 below the header: expected a number, got 'x'"),
        (lines([*range(9), "inf", *range(9)]), {}, "row 10 below the header: expected a finite number"),
        (lines(range(20)), {"column": "price"}, "expected one column 'price', got value; name one with task.column"),
        (lines(["1,2"] * 20, "a,a"), {"column": "a"}, "expected one column 'a', got a, a"),
    ],
)
def test_a_file_that_is_no_series_is_refused(tmp_path: Path, text: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FileError, match=message):
        Forecast(data=written(tmp_path, text), **{"window": 3, **settings})


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "series.csv").write_bytes(b"value\n\xff\xfe")
    with pytest.raises(FileError, match="expected a CSV file in UTF-8"):
        Forecast(data=str(tmp_path / "series.csv"))


def test_settings_without_a_meaning_are_refused() -> None:
    for settings, message in (
        ({"series": "tides"}, "task.series: expected one of 'co2', 'sunspots', got 'tides'"),
        ({"column": "x"}, "column 'x': expected a file to take it from; name it in task.data"),
        ({"window": 0}, "task.window: expected an integer of at least 1"),
        ({"season": 0}, "task.season: expected an integer of at least 1"),
    ):
        with pytest.raises(SpecError, match=message):
            Forecast(**settings)  # type: ignore[arg-type]
