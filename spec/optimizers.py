"""Optimizers as frozen descriptions (SPEC.md, 12.4 to 12.8): g is a gradient, p its weight, t counts updates from 1."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from .data import Described, check_choice, check_flag, check_number
from .errors import SpecError


@dataclass(frozen=True)
class _Optimizer(Described):
    """Weight decay, which all have: L2, g = g + weight_decay p, unless decoupled; then, before the update,
    p = (1 - learning_rate weight_decay) p.
    """

    weight_decay: float = field(default=0.0, kw_only=True)
    decoupled: bool = field(default=False, kw_only=True)
    EPSILON_PLACES: ClassVar[tuple[str, ...]] = ()

    @property
    def slots(self) -> dict[str, float]:
        """Names of what is kept for each weight, in its shape, with the number that it is filled with at first."""
        return {}

    def __post_init__(self) -> None:
        self._check("learning_rate", "weight_decay")
        check_flag(f"{self.KIND} decoupled", self.decoupled)
        if self.EPSILON_PLACES:
            check_number(f"{self.KIND} epsilon", getattr(self, "epsilon"), 0.0, np.inf, open_low=True)  # noqa: B009
            check_choice(f"{self.KIND} epsilon_place", getattr(self, "epsilon_place"), self.EPSILON_PLACES)  # noqa: B009

    def _check(self, *names: str, high: float = np.inf) -> None:
        for name in names:
            check_number(f"{self.KIND} {name}", getattr(self, name), 0.0, high)


@dataclass(frozen=True)
class SGD(_Optimizer):
    """v = momentum v + g; p = p - learning_rate v; with nesterov p = p - learning_rate (g + momentum v). v starts at 0.

    Raises:
        SpecError: a number is outside its range, or nesterov without momentum.
    """

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    KIND: ClassVar[str] = "sgd"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("momentum", high=1.0)
        check_flag("sgd nesterov", self.nesterov)
        if self.nesterov and not self.momentum:
            raise SpecError("sgd nesterov: expected a momentum above 0 with it, got 0; give momentum, such as 0.9")

    @property
    def slots(self) -> dict[str, float]:
        return {"momentum": 0.0} if self.momentum else {}


@dataclass(frozen=True)
class Adam(_Optimizer):
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    p = p - learning_rate / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon), with
    epsilon_place="hat" (Keras') p = p - learning_rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon).

    AdamW is this with decoupled decay.
    """

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_place: str = "outside"
    KIND: ClassVar[str] = "adam"
    EPSILON_PLACES: ClassVar[tuple[str, ...]] = ("outside", "hat")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("beta1", "beta2", high=1.0)

    @property
    def slots(self) -> dict[str, float]:
        return {"first_moment": 0.0, "second_moment": 0.0}


@dataclass(frozen=True)
class RMSprop(_Optimizer):
    """s = alpha s + (1 - alpha) g^2; q = g / (sqrt(s) + epsilon), with epsilon_place="inside" g / sqrt(s + epsilon);
    v = momentum v + q; p = p - learning_rate v.

    Centred: a = alpha a + (1 - alpha) g, and max(s - a^2, 0) in place of s under the root. All start at 0.
    """

    learning_rate: float = 0.01
    alpha: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    centred: bool = False
    epsilon_place: str = "outside"
    KIND: ClassVar[str] = "rmsprop"
    EPSILON_PLACES: ClassVar[tuple[str, ...]] = ("outside", "inside")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("alpha", "momentum", high=1.0)
        check_flag("rmsprop centred", self.centred)

    @property
    def slots(self) -> dict[str, float]:
        kept = {"square_average": True, "gradient_average": self.centred, "momentum": self.momentum > 0}
        return {name: 0.0 for name, wanted in kept.items() if wanted}


@dataclass(frozen=True)
class Adagrad(_Optimizer):
    """s = s + g^2; p = p - learning_rate g / (sqrt(s) + epsilon), with epsilon_place="inside" g / sqrt(s + epsilon).

    s starts at initial_accumulator.
    """

    learning_rate: float = 0.01
    epsilon: float = 1e-10
    initial_accumulator: float = 0.0
    epsilon_place: str = "outside"
    KIND: ClassVar[str] = "adagrad"
    EPSILON_PLACES: ClassVar[tuple[str, ...]] = ("outside", "inside")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("initial_accumulator")

    @property
    def slots(self) -> dict[str, float]:
        return {"square_sum": self.initial_accumulator}


Optimizer = SGD | Adam | RMSprop | Adagrad
OPTIMIZERS = (SGD, Adam, RMSprop, Adagrad)
