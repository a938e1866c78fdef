"""Faults of optimizers, and of the state that a trainer hands on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...spec.optimizers import SGD, Adagrad, Adam, RMSprop
from ...spec.training import Batch, CheckedBatch
from .trainer import Named, Trainer, trained
from .wrapped import Array


class MomentumHoldsRate(Trainer):
    def momentum(self, momentum: float, v: Array, g: Array) -> Array:
        return momentum * v - self.rate * g

    def momentum_step(self, v: Array) -> Array:
        return -v


class MomentumDamped(Trainer):
    def momentum(self, momentum: float, v: Array, g: Array) -> Array:
        return momentum * v + (1 - momentum) * g


class EpsilonOfKeras(Trainer):
    def adam(self, rule: Adam, m: Array, v: Array) -> Array:
        rate = self.rate * np.sqrt(1 - rule.beta2**self.t) / (1 - rule.beta1**self.t)
        step: Array = rate * m / (np.sqrt(v) + rule.epsilon)
        return step


class EpsilonInTheRoot(Trainer):
    def adam(self, rule: Adam, m: Array, v: Array) -> Array:
        root = np.sqrt(v / (1 - rule.beta2**self.t) + rule.epsilon)
        step: Array = self.rate / (1 - rule.beta1**self.t) * m / root
        return step


class MomentsUncorrected(Trainer):
    def adam(self, rule: Adam, m: Array, v: Array) -> Array:
        step: Array = self.rate * m / (np.sqrt(v) + rule.epsilon)
        return step


class EpsilonElsewhere(Trainer):
    """`which` optimizers add it inside the root instead of outside, and outside instead of inside."""

    which: type[RMSprop] | type[Adagrad]

    def root(self, rule: RMSprop | Adagrad, s: Array) -> Array:
        if isinstance(rule, self.which):
            rule = replace(rule, epsilon_place="outside" if rule.epsilon_place == "inside" else "inside")
        return super().root(rule, s)


class EpsilonOfRMSprop(EpsilonElsewhere):
    which = RMSprop


class EpsilonOfAdagrad(EpsilonElsewhere):
    which = Adagrad


class DecayCoupled(Trainer):
    def decayed(self, weight: Array, g: Array) -> tuple[Array, Array]:
        return weight, g + self.training.optimizer.weight_decay * weight


class DecayDecoupled(Trainer):
    def decayed(self, weight: Array, g: Array) -> tuple[Array, Array]:
        return (weight * (1 - self.rate * self.training.optimizer.weight_decay)).astype(weight.dtype), g


class DecayWithoutRate(Trainer):
    def decayed(self, weight: Array, g: Array) -> tuple[Array, Array]:
        rule = self.training.optimizer
        if rule.decoupled:
            return (weight * (1 - rule.weight_decay)).astype(weight.dtype), g
        return super().decayed(weight, g)


class NesterovPlain(Trainer):
    def nesterov(self, rule: SGD | RMSprop, v: Array, g: Array) -> Array:
        return v


class NotCentred(Trainer):
    def variance(self, kept: Named) -> Array:
        return kept["square_average"]


class AccumulatorFromZero(Trainer):
    def start(self, start: float) -> float:
        return 0.0


class RateConstant(Trainer):
    @property
    def rate(self) -> float:
        return self.training.optimizer.learning_rate


class ScheduleLate(Trainer):
    @property
    def rate(self) -> float:
        return self.training.learning_rate(max(self.t - 1, 1))


class RateInFloat32(Trainer):
    @property
    def rate(self) -> float:
        return float(np.float32(super().rate))


class MomentsForgotten(Trainer):
    def state(self) -> Named:
        slots = tuple(f"{slot}." for slot in self.slots)
        return {name: np.zeros_like(a) if name.startswith(slots) else a for name, a in super().state().items()}


class StepForgotten(Trainer):
    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.t = 0


class StateNotCarried(Trainer):
    def checked(self, batches: Sequence[Batch]) -> Iterator[CheckedBatch]:
        return super().checked([replace(batch, continues=False) for batch in batches])


FAULTS = (
    trained(
        "momentum holding the learning rate",
        "The state is -learning_rate times the spec's, which a changing rate makes another rule.",
        MomentumHoldsRate, "https://github.com/apache/mxnet/issues/15533",
    ),
    trained(
        "momentum damped",
        "The gradient enters the momentum times 1 - momentum.",
        MomentumDamped, "https://github.com/HIPS/autograd/issues/289",
    ),
    trained(
        "epsilon misplaced",
        "It is added before the second moment is corrected, as Keras does.",
        EpsilonOfKeras, "https://github.com/tensorflow/tensorflow/issues/9047",
    ),
    trained("epsilon inside the root", "It is added to the second moment, not to its root.", EpsilonInTheRoot),
    trained(
        "moments not corrected",
        "Adam's moments are used as they are, biased towards 0.",
        MomentsUncorrected, "https://github.com/google-research/bert/issues/153",
    ),
    trained("epsilon misplaced in RMSprop", "It is inside the root where it belongs outside, or the other way round.",
            EpsilonOfRMSprop),
    trained("epsilon misplaced in Adagrad", "It is inside the root where it belongs outside, or the other way round.",
            EpsilonOfAdagrad),
    trained("decay coupled", "Weight decay is added to the gradient where it is to be decoupled.", DecayCoupled),
    trained("decay decoupled", "Weight decay shrinks weights where it is to be added to gradients.", DecayDecoupled),
    trained("decay without the learning rate", "Decoupled decay does not follow the learning rate.", DecayWithoutRate),
    trained("Nesterov taken for plain momentum", "The gradient is not added to the momentum again.", NesterovPlain),
    trained("not centred", "The square of the mean gradient is not subtracted.", NotCentred),
    trained("accumulator from 0", "Adagrad's sum starts at 0, whatever start is asked for.", AccumulatorFromZero),
    trained("learning rate constant", "The schedule is not followed.", RateConstant),
    trained("schedule an update late", "The first update's learning rate is used twice.", ScheduleLate),
    trained("learning rate in float32", "The rate of a float64 model is kept as float32.", RateInFloat32),
    trained(
        "moments forgotten",
        "A resumed run starts with moments of 0.",
        MomentsForgotten, "https://github.com/OpenNMT/OpenNMT-py/issues/617",
    ),
    trained("step count forgotten", "A resumed run corrects its moments as if it were new.", StepForgotten),
    trained("state not carried to the next batch", "Every batch starts from 0, also one that continues.",
            StateNotCarried),
)  # fmt: skip
