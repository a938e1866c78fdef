"""Faults of training: losses, clipping, optimizers, and the state that a trainer hands on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...spec.optimizers import SGD, Adagrad, Adam, RMSprop
from ...spec.training import Batch, CheckedBatch, CrossEntropy
from .derivatives import embedded_gradient
from .fault import Fault
from .trainer import Named, Trained, Trainer, cross_entropy, norm_of
from .wrapped import Array


class MeanForSum(Trainer):
    def divisor(self, checked: CheckedBatch) -> float:
        return max(int(checked.entries.sum()), 1)


class PaddingInTheMean(Trainer):
    def divisor(self, checked: CheckedBatch) -> float:
        ratio = checked.entries.size / max(int(checked.entries.sum()), 1)
        return checked.divisor * (ratio if self.training.loss.reduction == "mean" else 1)


class WidthForgotten(Trainer):
    def divisor(self, checked: CheckedBatch) -> float:
        plain = isinstance(self.training.loss, CrossEntropy) or self.training.loss.reduction != "mean"
        return checked.divisor if plain else max(int(checked.entries.sum()), 1)


class PaddingInTheLoss(Trainer):
    def entries(self, checked: CheckedBatch) -> Array:
        return np.ones_like(checked.entries)


class SoftmaxWithoutShift(Trainer):
    def cross_entropy(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        return cross_entropy(scores.astype(self.model.dtype), targets)


class LossInFloat32(Trainer):
    def loss(self, scores: Array, checked: CheckedBatch) -> tuple[float, Array]:
        loss, d_scores = super().loss(scores.astype(np.float32), checked)
        return float(np.float32(loss)), d_scores.astype(scores.dtype)


class ClipPerVariable(Trainer):
    def clipped(self, gradients: Named, norm: float) -> Named:
        return {
            name: super(ClipPerVariable, self).clipped({name: g}, norm_of([g]))[name] for name, g in gradients.items()
        }


class ConstantInTheNorm(Trainer):
    def factor(self, maximum: float, norm: float) -> float:
        return min(1.0, maximum / (norm + 1e-6))


class ScaledUp(Trainer):
    def factor(self, maximum: float, norm: float) -> float:
        return maximum / norm


class NormOfSlices(Trainer):
    def norm(self, gradients: Named, checked: CheckedBatch, d_scores: Array) -> float:
        found = dict(gradients)
        if "embedding.weight" in found:
            inputs, cotangents = np.asarray(checked.arguments.inputs), {"scores_cotangent": d_scores}
            found["embedding.weight"] = embedded_gradient(
                self.backend, self.model, inputs, cotangents, self.arguments(checked)
            )[1]
        return norm_of(found.values())


class NormAfterClipping(Trainer):
    def reported(self, norm: float, clipped: Named) -> float:
        return norm_of(clipped.values())


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


class MeanOfMeans(Trainer):
    def checked(self, batches: Sequence[Batch]) -> Iterator[CheckedBatch]:
        for batch in batches:
            for checked in super().checked([batch]):
                yield replace(checked, divisor=checked.divisor * len(batches))


def _fault(name: str, story: str, trainer: type[Trainer], thread: str | None = None) -> Fault:
    return Fault(name, story, "training", partial(Trained, trainer=trainer), thread, needs=("gradients",))


FAULTS = (
    _fault("loss reduction wrong", "The mean is taken whatever reduction is asked for.", MeanForSum),
    _fault(
        "padding counted in the mean",
        "The losses of valid steps are divided by the number of all steps.",
        PaddingInTheMean, "https://github.com/tensorflow/tensorflow/issues/39146",
    ),
    _fault(
        "width forgotten in the mean",
        "The squared errors of all scores are divided by the number of steps.",
        WidthForgotten, "https://github.com/huggingface/lerobot/pull/3377",
    ),
    _fault(
        "padding counted in the loss",
        "The invalid steps have a loss of their own.",
        PaddingInTheLoss, "https://github.com/Kyubyong/transformer/issues/63",
    ),
    _fault(
        "softmax without shift",
        "exp of a large score overflows, as the largest is not subtracted first.",
        SoftmaxWithoutShift, "https://github.com/uTensor/uTensor/issues/175",
    ),
    _fault(
        "loss in float32",
        "The scores of a float64 model are made float32 for the loss.",
        LossInFloat32, "https://github.com/keras-team/keras-core/issues/922",
    ),
    _fault(
        "clip per variable",
        "Every weight's gradient is clipped by its own norm.",
        ClipPerVariable, "https://github.com/keras-team/keras/issues/13575",
    ),
    _fault("constant added to the norm", "The clip divides by norm + 1e-6.", ConstantInTheNorm),
    _fault("gradients scaled up to the maximum", "The clip multiplies by maximum / norm, small norms too.", ScaledUp),
    _fault(
        "sparse gradients in the norm",
        "The slices of a repeated token are squared one by one.",
        NormOfSlices, "https://github.com/google/seq2seq/pull/118",
    ),
    _fault("norm taken after clipping", "The norm that is reported is never above the maximum.", NormAfterClipping),
    _fault(
        "momentum holding the learning rate",
        "The state is -learning_rate times the spec's, which a changing rate makes another rule.",
        MomentumHoldsRate, "https://github.com/apache/mxnet/issues/15533",
    ),
    _fault(
        "momentum damped",
        "The gradient enters the momentum times 1 - momentum.",
        MomentumDamped, "https://github.com/HIPS/autograd/issues/289",
    ),
    _fault(
        "epsilon misplaced",
        "It is added before the second moment is corrected, as Keras does.",
        EpsilonOfKeras, "https://github.com/tensorflow/tensorflow/issues/9047",
    ),
    _fault("epsilon inside the root", "It is added to the second moment, not to its root.", EpsilonInTheRoot),
    _fault(
        "moments not corrected",
        "Adam's moments are used as they are, biased towards 0.",
        MomentsUncorrected, "https://github.com/google-research/bert/issues/153",
    ),
    _fault("epsilon misplaced in RMSprop", "It is inside the root where it belongs outside, or the other way round.",
           EpsilonOfRMSprop),
    _fault("epsilon misplaced in Adagrad", "It is inside the root where it belongs outside, or the other way round.",
           EpsilonOfAdagrad),
    _fault("decay coupled", "Weight decay is added to the gradient where it is to be decoupled.", DecayCoupled),
    _fault("decay decoupled", "Weight decay shrinks weights where it is to be added to the gradients.", DecayDecoupled),
    _fault("decay without the learning rate", "Decoupled decay does not follow the learning rate.", DecayWithoutRate),
    _fault("Nesterov taken for plain momentum", "The gradient is not added to the momentum again.", NesterovPlain),
    _fault("not centred", "The square of the mean gradient is not subtracted.", NotCentred),
    _fault("accumulator from 0", "Adagrad's sum starts at 0, whatever start is asked for.", AccumulatorFromZero),
    _fault("learning rate constant", "The schedule is not followed.", RateConstant),
    _fault("schedule an update late", "The first update's learning rate is used twice.", ScheduleLate),
    _fault("learning rate in float32", "The rate of a float64 model is kept as float32.", RateInFloat32),
    _fault(
        "moments forgotten",
        "A resumed run starts with moments of 0.",
        MomentsForgotten, "https://github.com/OpenNMT/OpenNMT-py/issues/617",
    ),
    _fault("step count forgotten", "A resumed run corrects its moments as if it were new.", StepForgotten),
    _fault(
        "mean of means",
        "Each batch of an update is divided by its own number of entries, and by the number of batches.",
        MeanOfMeans, "https://github.com/huggingface/transformers/issues/24725",
    ),
    _fault("state not carried to the next batch", "Every batch starts from 0, also one that continues.",
           StateNotCarried),
)  # fmt: skip
