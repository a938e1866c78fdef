"""Faults of dropout: each replaces what an implementation multiplies by, or which steps share a mask."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from ...spec.backend import Result
from ...spec.dropout import STEPWISE
from ...spec.model import ModelSpec
from .fault import Fault
from .replaced import PACKAGES
from .wrapped import Arguments, Array, Model, Wrapped

Factors = Callable[..., Any]  # of spec, masks, kind, layer, direction, shape and dtype
Replacement = Callable[[Any], dict[str, Any]]  # of an implementation's `dropout`: what stands in it instead


def drops(spec: ModelSpec) -> bool:
    """Whether a model has dropout."""
    return spec.dropout is not None


class DropsInRuns(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        if drops(model.spec):
            inputs = inputs * (np.arange(inputs.size).reshape(inputs.shape) % 2) * 2
        return super().results(model, inputs, arguments)


def with_factors(change: Callable[[Factors, tuple[Any, ...]], Any]) -> Replacement:
    """A replacement of `factors`, given the right ones and their arguments."""
    return lambda module: {"factors": lambda *given, right=module.factors: change(right, given)}


def unscaled(right: Factors, given: tuple[Any, ...]) -> Any:
    found, (spec, _, kind, *_) = right(*given), given
    return None if found is None else found * (1 - spec.dropout.rate(kind))


def scaled_by_rate(right: Factors, given: tuple[Any, ...]) -> Any:
    found, (spec, _, kind, *_) = right(*given), given
    return None if found is None else found * ((1 - spec.dropout.rate(kind)) / spec.dropout.rate(kind))


def rate_kept(right: Factors, given: tuple[Any, ...]) -> Any:
    spec, *others = given
    kept = {kind: 1 - rate for kind, rate in (spec.dropout.to_data() if spec.dropout else {}).items() if rate}
    return right(replace(spec, dropout=replace(spec.dropout, **kept)) if kept else spec, *others)


def last_layer_too(right: Factors, given: tuple[Any, ...]) -> Any:
    spec, masks, kind, *others = given
    if kind == "between_layers":
        spec = replace(spec, num_layers=spec.num_layers + (spec.num_layers > 1))
    return right(spec, masks, kind, *others)


def one_for_all_rows(right: Factors, given: tuple[Any, ...]) -> Any:
    found = right(*given)
    return None if found is None else found[..., :1, :]


def one_for_all_layers(right: Factors, given: tuple[Any, ...]) -> Any:
    spec, masks, kind, layer, *others = given
    top = kind == "between_layers" and layer == spec.num_layers - 1
    return right(spec, masks, kind, layer if top else 0, *others)


def one_for_both_directions(right: Factors, given: tuple[Any, ...]) -> Any:
    spec, masks, kind, layer, _, *others = given
    return right(spec, masks, kind, layer, 0, *others)


def with_masks(**words: Any) -> Replacement:
    """A replacement of `factors` that are given other masks; each word is computed from the right one."""

    def changed(right: Factors, given: tuple[Any, ...]) -> Any:
        spec, masks, *others = given
        if masks is not None:
            masks = masks._replace(**{name: change(getattr(masks, name)) for name, change in words.items()})
        return right(spec, masks, *others)

    return with_factors(changed)


def replacing(own: str, replacement: Replacement) -> Callable[[Any], Any]:
    """What makes the context in which an implementation's module `dropout` is a changed one."""

    @contextmanager
    def apply(backend: Any) -> Iterator[Any]:
        module = importlib.import_module(f"{__package__.rsplit('.', 2)[0]}.{PACKAGES[own]}.dropout")
        with mock.patch.multiple(module, **replacement(module)):
            yield backend

    return apply


def _faults(name: str, story: str, replacement: Replacement, thread: str | None = None) -> Iterator[Fault]:
    """The fault for each implementation."""
    for own in PACKAGES:
        yield Fault(f"{name} ({own})", story, "training", replacing(own, replacement), thread, only=own, acts=drops)


FAULTS = (
    Fault(
        "dropping at evaluation",
        "A run drops as an update does.",
        "results", DropsInRuns, "https://github.com/karpathy/nanoGPT/pull/240", acts=drops,
    ),
    *_faults(
        "dropout mask per step instead of per sequence",
        "The inputs of each step have a mask of their own.",
        lambda module: {"STEPWISE": (*STEPWISE, "inputs")}, "https://github.com/pytorch/pytorch/issues/37731",
    ),
    *_faults(
        "dropout mask per sequence instead of per step",
        "One mask between two layers serves all steps.",
        lambda module: {"STEPWISE": ()}, "https://github.com/tensorflow/tensorflow/issues/2789",
    ),
    *_faults("dropout not scaled", "What is kept is not divided by 1 - p.", with_factors(unscaled)),
    *_faults(
        "dropout scaled by the rate",
        "What is kept is divided by p.",
        with_factors(scaled_by_rate), "https://github.com/kaldi-asr/kaldi/issues/2814",
    ),
    *_faults(
        "rate taken for the share that is kept",
        "Units are kept with the probability p.",
        with_factors(rate_kept), "https://github.com/hunkim/DeepLearningZeroToAll/issues/122",
    ),
    *_faults(
        "outputs of the last layer dropped",
        "Dropout between layers follows the last one too.",
        with_factors(last_layer_too), "https://github.com/OpenNMT/OpenNMT-py/issues/6",
    ),
    *_faults("same mask in both directions", "Forward and backward drop the same units.",
             with_factors(one_for_both_directions)),
    *_faults("same mask in all layers", "Every layer drops the same units.", with_factors(one_for_all_layers)),
    *_faults(
        "same mask for all rows",
        "A batch has one mask.",
        with_factors(one_for_all_rows), "https://github.com/clab/dynet/pull/812",
    ),
    *_faults(
        "mask kept from update to update",
        "What the first update drops is dropped for ever.",
        with_masks(update=lambda word: 0 * word + 1), "https://github.com/abr/keras-lmu/pull/29",
    ),
    *_faults(
        "same masks for all batches of an update",
        "Rows that are added to an update begin at 0 again.",
        with_masks(first_row=lambda word: 0 * word), "https://github.com/huggingface/transformers/issues/31412",
    ),
    *_faults("same masks in an encoder and its decoder", "The decoder's layers are counted from 0 again.",
             with_masks(first_layer=lambda word: 0 * word)),
    *_faults("seed cut to 32 bits", "Seeds that differ in their upper half drop the same.",
             with_masks(seed=lambda word: word % 2**32)),
)  # fmt: skip
