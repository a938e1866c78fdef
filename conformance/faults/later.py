"""Faults of training that show after many updates alone: a run of three has none of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ...spec.backend import StepResult
from ...spec.optimizers import Adam
from ...spec.training import Batch, CheckedBatch
from .trainer import Trainer, trained
from .wrapped import Array

EPOCH = 20  # updates in what the faults take for an epoch


class MomentumOfKeras(Trainer):
    """m = momentum m - learning_rate g; its state is -m / learning_rate, which is v while the rate is constant."""

    def momentum(self, momentum: float, v: Array, g: Array) -> Array:
        before = self.training.learning_rate(max(self.t - 1, 1))
        m = momentum * -before * v - self.rate * g
        return -m / self.rate


class CorrectionsGivenUp(Trainer):
    def adam(self, rule: Adam, m: Array, v: Array) -> Array:
        if self.t <= EPOCH:
            return super().adam(rule, m, v)
        step: Array = self.rate * m / (np.sqrt(v) + rule.epsilon)
        return step


class OptimizerMadeAnew(Trainer):
    def step(self, *batches: Batch) -> StepResult:
        if self.t and self.t % EPOCH == 0:
            starts = self.training.optimizer.slots
            self.slots = {
                slot: {name: np.full_like(a, starts[slot]) for name, a in arrays.items()}
                for slot, arrays in self.slots.items()
            }
        return super().step(*batches)


class ScheduleStops(Trainer):
    @property
    def rate(self) -> float:
        return self.training.learning_rate(min(self.t, EPOCH))


class StateDropped(Trainer):
    def checked(self, batches: Sequence[Batch]) -> Iterator[CheckedBatch]:
        if self.t % EPOCH:
            return super().checked(batches)
        return super().checked([replace(batch, continues=False) for batch in batches])


class SavedInFloat32(Trainer):
    def updated(self, name: str, weight: Array, g: Array) -> Array:
        found = super().updated(name, weight, g)
        return found if self.t % EPOCH else found.astype(np.float32).astype(found.dtype)


_late = partial(trained, check="trajectory")

FAULTS = (
    _late(
        "momentum of Keras under a schedule",
        "The momentum holds gradients times the learning rates of their time, and is divided by the present one.",
        MomentumOfKeras, "https://github.com/apache/mxnet/issues/15533",
    ),
    _late("corrections given up", "1 - beta^t is taken for 1 after some updates.", CorrectionsGivenUp),
    _late("optimizer made anew", "Each epoch has an optimizer of its own, which starts from 0.", OptimizerMadeAnew),
    _late("schedule stops", "The learning rate stays what it is at the end of the first epoch.", ScheduleStops),
    _late("state dropped now and then", "A window at the start of an epoch begins from 0.", StateDropped),
    _late("saved in float32", "The weights of a float64 model go through a checkpoint of float32.", SavedInFloat32),
)  # fmt: skip
