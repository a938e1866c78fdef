"""Schedules of the learning rate as frozen descriptions (SPEC.md, 12.9): a factor of it for each update t, from 1."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .data import Described, check_number, check_size
from .errors import SpecError


@dataclass(frozen=True)
class StepDecay(Described):
    """decay^floor((t - 1) / every): as it is for so many updates, then times `decay` after each so many."""

    every: int
    decay: float = 0.1
    KIND: ClassVar[str] = "step"

    def __post_init__(self) -> None:
        check_size("step schedule every", self.every)
        check_number("step schedule decay", self.decay, 0.0, np.inf)

    def factor(self, t: int) -> float:
        """What the learning rate of update t is multiplied by."""
        return float(self.decay ** ((t - 1) // self.every))


@dataclass(frozen=True)
class Cosine(Described):
    """minimum + (1 - minimum) (1 + cos(pi n / steps)) / 2, n = min(t - 1, steps): from 1 to `minimum`, and stays."""

    steps: int
    minimum: float = 0.0
    KIND: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        check_size("cosine schedule steps", self.steps)
        check_number("cosine schedule minimum", self.minimum, 0.0, np.inf)

    def factor(self, t: int) -> float:
        """What the learning rate of update t is multiplied by."""
        done = min(t - 1, self.steps) / self.steps
        return self.minimum + (1 - self.minimum) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class WarmUp(Described):
    """t / steps up to update `steps`; after it 1, or the schedule `then`, which counts its updates from 1 again."""

    steps: int
    then: StepDecay | Cosine | None = None
    KIND: ClassVar[str] = "warm_up"
    PARTS: ClassVar[Mapping[str, tuple[type[Described], ...]]] = {"then": (StepDecay, Cosine)}

    def __post_init__(self) -> None:
        check_size("warm_up schedule steps", self.steps)
        if self.then is not None and not isinstance(self.then, self.PARTS["then"]):
            raise SpecError(f"warm_up schedule then: expected StepDecay, Cosine or None, got {self.then!r}")

    def factor(self, t: int) -> float:
        """What the learning rate of update t is multiplied by."""
        if t <= self.steps:
            return t / self.steps
        return self.then.factor(t - self.steps) if self.then else 1.0


Schedule = StepDecay | Cosine | WarmUp
SCHEDULES = (StepDecay, Cosine, WarmUp)
