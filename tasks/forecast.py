"""The next value of a series from those before it: sunspots, the air's CO2, or a column of the user's own."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..spec import draws
from ..spec.data import check_choice, check_size
from ..spec.encoder_decoder import AnySpec
from ..spec.errors import FileError, SpecError
from ..spec.model import Head
from ..spec.training import Batch, MeanSquaredError
from .drawn import batches, rows_of, scores_of
from .series import SEASONS, STEPS, UNITS, filled, own, published
from .task import Array, Evaluation, ModelParts, check_unchanged, file_path, sha256_of


class Forecast:
    """The last fifth of the series is held out; the metric is the mean absolute error there, in the series' unit.

    A model reads a window of values and forecasts the change from its last value to the next. It sees
    the values relative to the window's last, so that a series may rise beyond what was seen in training;
    both are divided by their root mean square in the training part.

    Args:
        series: `sunspots` or `co2`.
        data: a CSV file with a header, whose column is taken instead.
        column: of that file; None for its last. Gaps are filled on a line between their neighbours.
        window: values that a model reads.
        season: steps after which the series resembles itself, for the baseline; None for that of the published
            series, and 1 for a file.
        sha256: of the series, as `settings` gives it; another series is then refused.

    Raises:
        FileError: the file has no such column, or is too short, or is not the expected one.
        SpecError: a size is below 1, there is no such series, or a column is named without a file.
        BackendError: statsmodels, which brings the series, is not installed.
    """

    name = "forecast"
    source = "data"
    metric = "mean_absolute_error"
    goal = "minimize"
    loss = MeanSquaredError()
    parts = ModelParts(1, Head(1, reads="final"))

    def __init__(
        self, series: str = "sunspots", data: str | None = None, column: str | None = None, window: int = 24,
        season: int | None = None, sha256: str | None = None,
    ) -> None:  # fmt: skip
        check_choice("task.series", series, tuple(SEASONS))
        check_size("task.window", window)
        self._path = file_path(self.name, self.source, data)
        if column is not None and self._path is None:
            raise SpecError(f"task forecast: column {column!r}: expected a file to take it from; name it in task.data")
        self._series, self._column, self._window = series, column, window
        self._season = season if season is not None else SEASONS[series] if self._path is None else 1
        check_size("task.season", self._season)
        found = published(series) if self._path is None else own(self._path, column)
        self._sha256 = sha256_of(found)
        self.values = filled(found)
        self.held_out = len(self.values) - len(self.values) // 5
        where = str(self._path or series)
        if self.held_out < max(window, self._season) + 2:
            raise FileError(
                f"{where}: {self.held_out} values to train on are too few for a window of {window} and a season of "
                f"{self._season}; lower task.window"
            )
        check_unchanged(f"task forecast: {where}", self._sha256, sha256)
        self._make_rows(where)

    def _make_rows(self, where: str) -> None:
        windows = np.lib.stride_tricks.sliding_window_view(self.values, self._window)[:-1]  # each has a next value
        relative = (windows - windows[:, -1:])[..., None]  # (N, T, 1)
        changes = np.diff(self.values)[self._window - 1 :, None]  # (N, 1)
        count = self.held_out - self._window
        self.scale = float(np.sqrt(np.mean(changes[:count] ** 2)))
        if not self.scale:
            raise FileError(f"{where}: expected a series that changes before its last fifth, got a constant")
        inputs = relative / (np.sqrt(np.mean(relative[:count] ** 2)) or 1.0)
        rows = Batch(inputs, changes / self.scale)
        self.training, self.test = rows_of(rows, slice(count)), rows_of(rows, slice(count, None))

    def settings(self) -> dict[str, Any]:
        """What `load_task` takes."""
        return {
            "name": self.name, "series": self._series, "data": self._path and str(self._path), "column": self._column,
            "window": self._window, "season": self._season, "sha256": self._sha256,
        }  # fmt: skip

    def reason_against(self, spec: AnySpec) -> str | None:
        """None: who reads a window backward too has not seen the value after it."""
        return None

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in an epoch; the last may be smaller."""
        return -(-len(self.training.inputs) // batch_size)

    def epoch(self, number: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """Every training window once, in an order of this seed and epoch."""
        order = draws.permutation(seed, f"forecast.epoch.{number}", len(self.training.inputs))
        yield from batches(rows_of(self.training, order), batch_size)

    def evaluate(self, backend: Any, model: Any) -> Evaluation:
        """Mean absolute and root mean square error of the held-out values, each forecast from the true ones before."""
        before, truth = self.values[self.held_out - 1 : -1], self.values[self.held_out :]
        found = before + self.scale * scores_of(backend, model, self.test)[:, 0].astype(np.float64)
        metrics = {
            "mean_absolute_error": float(np.abs(found - truth).mean()),
            "root_mean_square_error": float(np.sqrt(np.mean((found - truth) ** 2))),
        }
        errors = {name: float(np.abs(simple - truth).mean()) for name, simple in self.simple_forecasts().items()}
        best = min(errors, key=lambda name: errors[name])
        return Evaluation(self.metric, metrics, found, errors[best], best)

    @property
    def unit(self) -> str:
        """What the values are, in words."""
        return UNITS[self._series] if self._path is None else self._column or "values"

    @property
    def steps(self) -> str:
        """What a step of the series is, in words."""
        return STEPS[self._series] if self._path is None else "row of the file"

    def simple_forecasts(self) -> dict[str, Array]:
        """Of the held-out values by name; the best of them is the baseline."""
        steps = np.arange(self.held_out, len(self.values))
        last, season = self.values[steps - 1], self.values[steps - self._season]
        drift = last + season - self.values[steps - self._season - 1]
        return {"the last value": last, "the value a season ago": season, "the change a season ago": drift}
