"""Faults of losses, of what they are divided by, and of clipping."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...spec.training import Batch, CheckedBatch, CrossEntropy
from .derivatives import embedded_gradient
from .trainer import Named, Trainer, cross_entropy, norm_of, trained
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


class MeanOfMeans(Trainer):
    def checked(self, batches: Sequence[Batch]) -> Iterator[CheckedBatch]:
        for batch in batches:
            for checked in super().checked([batch]):
                yield replace(checked, divisor=checked.divisor * len(batches))


FAULTS = (
    trained("loss reduction wrong", "The mean is taken whatever reduction is asked for.", MeanForSum),
    trained(
        "padding counted in the mean",
        "The losses of valid steps are divided by the number of all steps.",
        PaddingInTheMean, "https://github.com/tensorflow/tensorflow/issues/39146",
    ),
    trained(
        "width forgotten in the mean",
        "The squared errors of all scores are divided by the number of steps.",
        WidthForgotten, "https://github.com/huggingface/lerobot/pull/3377",
    ),
    trained(
        "padding counted in the loss",
        "The invalid steps have a loss of their own.",
        PaddingInTheLoss, "https://github.com/Kyubyong/transformer/issues/63",
    ),
    trained(
        "softmax without shift",
        "exp of a large score overflows, as the largest is not subtracted first.",
        SoftmaxWithoutShift, "https://github.com/uTensor/uTensor/issues/175",
    ),
    trained(
        "loss in float32",
        "The scores of a float64 model are made float32 for the loss.",
        LossInFloat32, "https://github.com/keras-team/keras-core/issues/922",
    ),
    trained(
        "clip per variable",
        "Every weight's gradient is clipped by its own norm.",
        ClipPerVariable, "https://github.com/keras-team/keras/issues/13575",
    ),
    trained("constant added to the norm", "The clip divides by norm + 1e-6.", ConstantInTheNorm),
    trained("gradients scaled up to the maximum", "The clip multiplies by maximum / norm, small norms too.", ScaledUp),
    trained(
        "sparse gradients in the norm",
        "The slices of a repeated token are squared one by one.",
        NormOfSlices, "https://github.com/google/seq2seq/pull/118",
    ),
    trained("norm taken after clipping", "The norm that is reported is never above the maximum.", NormAfterClipping),
    trained(
        "mean of means",
        "Each batch of an update is divided by its own number of entries, and by the number of batches.",
        MeanOfMeans, "https://github.com/huggingface/transformers/issues/24725",
    ),
)  # fmt: skip
