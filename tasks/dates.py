"""Dates as people write them, and as ISO 8601 does: every form names one day."""

import datetime
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..spec import draws

FIRST = datetime.date(1950, 1, 1)
DAYS = (datetime.date(2050, 1, 1) - FIRST).days  # a hundred years, so that two digits name a year
MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip


class Pair(NamedTuple):
    """What a person wrote, and the same day as ISO 8601 writes it."""

    text: str
    iso: str


def _ordinal(day: int) -> str:
    ending = "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"


FORMS: tuple[Callable[[datetime.date, str], str], ...] = (
    lambda d, month: f"{_ordinal(d.day)} of {month} {d.year}",
    lambda d, month: f"{d.day} {month} {d.year}",
    lambda d, month: f"{month} {d.day}, {d.year}",
    lambda d, month: f"{month} {_ordinal(d.day)} {d.year}",
    lambda d, month: f"{month[:3]} {d.day} {d.year}",
    lambda d, month: f"{d.day} {month[:3]} '{d.year % 100:02}",
    lambda d, month: f"{d.year}/{d.month}/{d.day}",
    lambda d, month: f"{d.day}.{d.month}.{d.year}",  # with points the day comes first, by any custom
)
WRITTEN = "".join(sorted({*" ,.'/0123456789", *"of st nd rd th", *"".join(MONTHS)}))
ISO = "-0123456789"
ISO_LENGTH = 10


def pairs(seed: int, stream: str, days: Sequence[int] | NDArray[np.int64], count: int) -> list[Pair]:
    """So many dates out of these days, counted from the first, each in a form drawn for it."""
    numbers = draws.uniform(seed, stream, 2 * count).reshape(count, 2)
    return [_pair(int(days[int(day * len(days))]), int(form * len(FORMS))) for day, form in numbers]


def _pair(day: int, form: int) -> Pair:
    date = FIRST + datetime.timedelta(days=day)
    return Pair(FORMS[form](date, MONTHS[date.month - 1]), date.isoformat())
