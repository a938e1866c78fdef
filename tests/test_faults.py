"""Mistakes that people make, put into the NumPy backend on purpose: the suite must see each of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance.checks import CHECKS, Outcome, items, run
from rnnzoo.numpy_impl import nonlinearities, recurrent, training
from rnnzoo.numpy_impl.backend import NumpyBackend
from rnnzoo.spec import Result


class Transposed(NumpyBackend):
    """Recurrent weights are transposed on the way in, and back on the way out."""

    def from_spec(self, model: Any, weights: Any, *, cast: bool = False) -> None:
        super().from_spec(model, _turned(weights), cast=cast)

    def to_spec(self, model: Any) -> Any:
        return _turned(super().to_spec(model))


def _turned(weights: Any) -> Any:
    return {name: np.asarray(w).T.copy() if "recurrent_weight" in name else w for name, w in weights.items()}


class BiasDropped(NumpyBackend):
    def from_spec(self, model: Any, weights: Any, *, cast: bool = False) -> None:
        super().from_spec(model, weights, cast=cast)
        model.dropped = {name: w.copy() for name, w in model.weights.items()}
        for name in model.weights:
            if name.endswith("recurrent_bias"):
                model.weights[name][:] = 0

    def to_spec(self, model: Any) -> Any:
        return getattr(model, "dropped", None) or super().to_spec(model)


class _ChangedResult(NumpyBackend):
    def run(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Result:
        return self.change(model, super().run(model, inputs, *args, **kwargs))

    def change(self, model: Any, result: Result) -> Result:
        raise NotImplementedError


class BackwardNotFlippedBack(_ChangedResult):
    def change(self, model: Any, result: Result) -> Result:
        if model.spec.num_directions == 1 or model.spec.merge != "concat":
            return result
        forward, backward = np.split(result.outputs, 2, axis=2)
        return replace(result, outputs=np.concatenate([forward, backward[:, ::-1]], axis=2))


class HalvesSwapped(_ChangedResult):
    def change(self, model: Any, result: Result) -> Result:
        if model.spec.num_directions == 1 or model.spec.merge != "concat":
            return result
        return replace(result, outputs=np.concatenate(np.split(result.outputs, 2, axis=2)[::-1], axis=2))


class LastOutputForFinalState(_ChangedResult):
    def change(self, model: Any, result: Result) -> Result:
        if model.spec.num_directions == 2 and model.spec.merge != "concat":
            return result
        state = result.final_state.copy()
        for d, part in enumerate(np.split(result.outputs[:, -1], model.spec.num_directions, axis=1)):
            state[d - model.spec.num_directions] = part
        return replace(result, final_states={"h": state})


class StatesOfLayersMixedUp(_ChangedResult):
    def change(self, model: Any, result: Result) -> Result:
        return replace(result, final_states={"h": result.final_state[::-1].copy()})


class Float32Inside(NumpyBackend):
    def run(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Result:
        result = super().run(model, inputs, *args, **kwargs)
        return replace(result, outputs=result.outputs.astype(np.float32).astype(model.dtype))


class InitialStateIgnored(NumpyBackend):
    def run(self, model: Any, inputs: Any, lengths: Any = None, initial_state: Any = None, **kwargs: Any) -> Result:
        state = None if initial_state is None else np.zeros_like(initial_state)
        return super().run(model, inputs, lengths, state, **kwargs)


class LengthsIgnored(NumpyBackend):
    def run(self, model: Any, inputs: Any, lengths: Any = None, initial_state: Any = None, **kwargs: Any) -> Result:
        tame = np.nan_to_num(np.asarray(inputs)) if model.spec.embedding is None else np.asarray(inputs) % 4
        return super().run(model, tame, None, initial_state, **{**kwargs, "mask": None})


class NoValidStepGivesZeroState(_ChangedResult):
    def change(self, model: Any, result: Result) -> Result:
        state = result.final_state.copy()
        state[:, ~result.outputs.any(axis=(1, 2))] = 0
        return replace(result, final_states={"h": state})


class PaddingLeaks(NumpyBackend):
    """As Keras' SimpleRNN: the last output is repeated over the padding."""

    def run(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Result:
        result = super().run(model, inputs, *args, **kwargs)
        outputs = result.outputs.copy()
        for t in range(1, outputs.shape[1]):
            empty = ~outputs[:, t].any(axis=1)
            outputs[empty, t] = outputs[empty, t - 1]
        return replace(result, outputs=outputs)


class InitialStateGradientMissing(NumpyBackend):
    def gradients(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        found = super().gradients(*args, **kwargs)
        return {name: np.zeros_like(g) if name == "initial_state" else g for name, g in found.items()}


class GradientOfInputsForgotten(NumpyBackend):
    def gradients(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {name: g for name, g in super().gradients(*args, **kwargs).items() if name != "inputs"}


class WritesBeforeItRefuses(NumpyBackend):
    def from_spec(self, model: Any, weights: Any, *, cast: bool = False) -> None:
        for name in model.weights:
            if name in weights and np.shape(weights[name]) == model.weights[name].shape:
                model.weights[name][...] = weights[name]
        super().from_spec(model, weights, cast=cast)


class WeightsThroughFloat32(NumpyBackend):
    def from_spec(self, model: Any, weights: Any, *, cast: bool = False) -> None:
        super().from_spec(model, {n: w.astype(np.float32).astype(w.dtype) for n, w in weights.items()}, cast=cast)


class InputsThroughFloat32(NumpyBackend):
    def run(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Result:
        narrow = inputs if model.spec.embedding else np.asarray(inputs, np.float32)
        return super().run(model, narrow, *args, **kwargs)


class SignOfZeroLost(NumpyBackend):
    def to_spec(self, model: Any) -> Any:
        return {name: array + 0.0 for name, array in super().to_spec(model).items()}


class KeepsTheCallersArrays(NumpyBackend):
    def from_spec(self, model: Any, weights: Any, *, cast: bool = False) -> None:
        super().from_spec(model, weights, cast=cast)
        model.weights.update({name: np.asarray(array) for name, array in weights.items()})


class GivesItsOwnArrays(NumpyBackend):
    def to_spec(self, model: Any) -> Any:
        return dict(model.weights)


class InitializerIgnored(NumpyBackend):
    def build(self, spec: Any, seed: int = 0, dtype: str = "float32") -> Any:
        return super().build(replace(spec, initializer="torch"), seed, dtype)


class SeedsNumPy(NumpyBackend):
    def build(self, spec: Any, seed: int = 0, dtype: str = "float32") -> Any:
        np.random.seed(seed % 2**32)
        return super().build(spec, seed, dtype)


class MissingCotangentIsOne(NumpyBackend):
    def gradients(self, model: Any, inputs: Any, outputs: Any = None, *args: Any, **kwargs: Any) -> dict[str, Any]:
        shape = (*np.shape(inputs)[:2], model.spec.output_size)
        return super().gradients(model, inputs, np.ones(shape) if outputs is None else outputs, *args, **kwargs)


class SupportsRaises(NumpyBackend):
    def supports(self, spec: Any) -> str | None:
        raise RuntimeError("boom")


WRAPPED = {
    WritesBeforeItRefuses: "weights", WeightsThroughFloat32: "results",
    InputsThroughFloat32: "results",
    SignOfZeroLost: "weights", KeepsTheCallersArrays: "weights", GivesItsOwnArrays: "weights",
    InitializerIgnored: "weights",
    SeedsNumPy: "weights", MissingCotangentIsOne: "cotangents", SupportsRaises: "results",
    Transposed: "results", BiasDropped: "results", BackwardNotFlippedBack: "results", HalvesSwapped: "results",
    LastOutputForFinalState: "results", StatesOfLayersMixedUp: "results", Float32Inside: "results",
    InitialStateIgnored: "results", LengthsIgnored: "results", NoValidStepGivesZeroState: "results",
    PaddingLeaks: "padding", InitialStateGradientMissing: "gradients", GradientOfInputsForgotten: "gradients",
}  # fmt: skip


def _red(backend: Any, check: str) -> list[Outcome]:
    outcomes = [run(backend, item) for item in items(quick=True) if item.check == check]
    return [outcome for outcome in outcomes if outcome.verdict == "failed"]


@pytest.mark.parametrize("check", CHECKS)
def test_the_backend_without_a_fault_is_green(check: str):
    assert not _red(NumpyBackend(), check)


@pytest.mark.parametrize("fault", WRAPPED, ids=lambda fault: fault.__name__)
def test_a_fault_turns_its_check_red(fault: type[NumpyBackend]):
    red = _red(fault(), WRAPPED[fault])
    assert red and all(outcome.message for outcome in red)


def _relu_one_at_zero(d_y: Any, y: Any) -> Any:
    return np.where(y >= 0, d_y, 0)


def _one_direction_only(kind: str, outputs: list[Any]) -> Any:
    return outputs[0] if kind == "sum" else recurrent_merge(kind, outputs)


def _mean_for_sum(loss: Any, scores: Any, batch: Any) -> Any:
    return loss_and_gradient(loss, scores, replace(batch, divisor=int(batch.entries.sum())))


def _clip_per_variable(clip: Any, gradients: Any, norm: float) -> Any:
    return {name: clipped(clip, {name: g}, float(np.linalg.norm(g)))[name] for name, g in gradients.items()}


def _state_with_moments_forgotten(self: Any) -> Any:
    return {
        name: a if name == "step" or name.startswith("carried") else np.zeros_like(a) for name, a in state(self).items()
    }


def _cross_entropy_without_shift(scores: Any, targets: Any, entries: Any) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(scores)
        d_scores = e / e.sum(axis=-1, keepdims=True)
        losses = -np.log(np.take_along_axis(d_scores, targets[..., None], -1))[..., 0]
    np.put_along_axis(d_scores, targets[..., None], np.take_along_axis(d_scores, targets[..., None], -1) - 1, axis=-1)
    return np.where(entries, losses, 0).sum(), np.where(entries[..., None], d_scores, 0)


def _sigmoid_that_overflows(a: Any) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(a) / (1 + np.exp(a))


def _norm_of_sparse_slices(gradients: Any) -> float:
    own = {name: g * 0.5 if name == "embedding.weight" else g for name, g in gradients.items()}
    return float(global_norm(own))


def _average_for_sum(kind: str, outputs: list[Any]) -> Any:
    return recurrent_merge("average" if kind == "sum" and outputs[0].ndim == 2 else kind, outputs)


state, global_norm = training.Trainer.state, training.global_norm
recurrent_merge, loss_and_gradient, clipped = recurrent.merge, training.loss_and_gradient, training.clipped
RELU = nonlinearities.NONLINEARITIES["relu"]._replace(times_derivative=_relu_one_at_zero)
OVERFLOWS = nonlinearities.NONLINEARITIES["sigmoid"]._replace(value=_sigmoid_that_overflows)
REPLACED: dict[str, tuple[Any, str, Callable[..., Any], str]] = {
    "relu'(0) = 1": (
        nonlinearities.NONLINEARITIES,
        "relu",
        RELU._replace(times_derivative=_relu_one_at_zero),
        "relu_at_zero",
    ),
    "layers fed by one direction": (recurrent, "merge", _one_direction_only, "results"),
    "mean instead of sum": (training, "loss_and_gradient", _mean_for_sum, "training"),
    "clip per variable": (training, "clipped", _clip_per_variable, "training"),
    "moments forgotten": (training.Trainer, "state", _state_with_moments_forgotten, "training"),
    "softmax without shift": (training, "_cross_entropy", _cross_entropy_without_shift, "training"),
    "sigmoid overflows": (nonlinearities.NONLINEARITIES, "sigmoid", OVERFLOWS, "results"),
    "norm of sparse slices": (training, "global_norm", _norm_of_sparse_slices, "training"),
    "final states averaged, not summed": (recurrent, "merge", _average_for_sum, "results"),
    "norm of the clipped gradients": (training, "global_norm", lambda gradients: 0.5, "training"),
}


@pytest.mark.parametrize("fault", REPLACED)
def test_a_replaced_function_turns_its_check_red(fault: str, monkeypatch: pytest.MonkeyPatch):
    owner, name, function, check = REPLACED[fault]
    if isinstance(owner, dict):
        monkeypatch.setitem(owner, name, function)
    else:
        monkeypatch.setattr(owner, name, function)
    assert _red(NumpyBackend(), check)


def test_a_check_that_compares_nothing_fails(monkeypatch: pytest.MonkeyPatch):
    item = next(item for item in items(quick=True) if item.check == "results")
    empty = CHECKS["results"]
    monkeypatch.setitem(CHECKS, "results", replace(empty, run=lambda *arguments: []))
    assert run(NumpyBackend(), item).verdict == "failed"
