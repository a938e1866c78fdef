"""Real series of numbers over time, from statsmodels or from a column of a user's own CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..spec.errors import FileError
from .task import needed

Series = NDArray[np.float64]
SEASONS = {"sunspots": 11, "co2": 12}  # steps after which each resembles itself: years of a solar cycle, months

UNITS = {"sunspots": "sunspot number", "co2": "CO2 in the air (ppm)"}
STEPS = {"sunspots": "years since 1700", "co2": "months since March 1958"}


def published(name: str) -> Series:
    """Sunspot numbers of the years since 1700, or the air's CO2 in ppm, of the months since 1958; gaps are NaN.

    Raises BackendError where statsmodels, which brings them, is not installed.
    """
    # Read as files, as statsmodels' own functions load pandas.
    path = Path(needed("statsmodels", "statsmodels").__path__[0]) / "datasets" / name / f"{name}.csv"
    _, *rows = _rows(path)
    return _months(rows) if name == "co2" else _numbers(path, rows, 1)


def own(path: Path, column: str | None) -> Series:
    """A column of a CSV file with a header; None for the last. Raises FileError."""
    header, *rows = _rows(path)
    if column is not None and header.count(column) != 1:
        raise FileError(f"{path}: expected one column {column!r}, got {', '.join(header)}; name one with task.column")
    return _numbers(path, rows, len(header) - 1 if column is None else header.index(column))


def filled(series: Series) -> Series:
    """From the first number to the last, with gaps, which are NaN, on a line between their neighbours."""
    known = np.flatnonzero(~np.isnan(series))
    if not len(known):
        return series[:0]
    steps = np.arange(known[0], known[-1] + 1)
    return np.interp(steps, known, series[known])


def _rows(path: Path) -> list[list[str]]:
    """The header and what is below it; blank lines do not count."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path}: expected a CSV file in UTF-8: {error}") from error
    if not rows:
        raise FileError(f"{path}: expected a CSV file with a header, got an empty one")
    return rows


def _numbers(path: Path, rows: Sequence[Sequence[str]], place: int) -> Series:
    found = np.full(len(rows), np.nan)
    for index, row in enumerate(rows):
        cell = row[place] if place < len(row) else ""
        try:
            found[index] = float(cell or "nan")
        except ValueError as error:
            raise FileError(f"{path}: row {index + 1} below the header: expected a number, got {cell!r}") from error
    if np.isinf(found).any():
        raise FileError(f"{path}: row {np.isinf(found).argmax() + 1} below the header: expected a finite number")
    return found


def _months(rows: Sequence[Sequence[str]]) -> Series:
    """Means of the weeks in each month; the dates are written yyyymmdd."""
    weeks: dict[str, list[float]] = {}
    for date, value in rows:
        weeks.setdefault(date[:6], []).extend([float(value)] if value else [])
    return np.array([sum(values) / len(values) if values else np.nan for values in weeks.values()])
