"""Gradients with less memory: right, for less, and refused where a model cannot be run part by part."""

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.items import item
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.training import training_cases
from rnnzoo.spec import Context, Dropout, Embedding, EncoderDecoderSpec, Head, ModelSpec, load_backend
from rnnzoo.spec.errors import SpecError, UnsupportedError
from rnnzoo.spec.recomputing import parts

B, T, I, H = 4, 13, 3, 5  # noqa: E741 (the spec's symbol)
CASES = [
    Case(ModelSpec("simple_rnn", I, H), B, T, "full", True),
    Case(ModelSpec("stacked_rnn", I, H, 3, "relu", "double"), B, T, "empty_row", True),
    Case(ModelSpec("stacked_rnn", I, H, 2, head=Head(2)), B, T, "left_padding", True),
    Case(ModelSpec("simple_rnn", I, H, embedding=Embedding(7), head=Head(2, reads="final")), B, T, "holes", True),
    Case(ModelSpec("bi_rnn", I, H), B, T, "full", True),
    Case(ModelSpec("stacked_bi_rnn", I, H, 3, "relu", "double"), B, T, "empty_row", True),
    Case(ModelSpec("stacked_bi_rnn", I, H, 2, merge="multiply", head=Head(2)), B, T, "left_padding", True),
    Case(ModelSpec("bi_rnn", I, H, embedding=Embedding(7), head=Head(2, reads="final")), B, T, "holes", True),
]
RUNS = [
    *((name, case, dtype) for name in ("numpy", "torch") for case in CASES for dtype in ("float32", "float64")),
    *(("tf", case, "float64") for case in CASES[1::2]),
]
LONG_RUNS = [("tf", case, dtype) for case in CASES for dtype in ("float32", "float64")]
TRAINED_BY_TF = ("context", "dropout_0_0_0.4")  # a graph takes seconds to trace


class Recomputing:
    """A backend, all of whose models recompute."""

    def __init__(self, name: str) -> None:
        self.backend = load_backend(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def build(self, *arguments: Any, **options: Any) -> Any:
        return self.backend.build(*arguments, **options, recompute=True)


@pytest.mark.parametrize(
    ("name", "case", "dtype"),
    [*RUNS, *(pytest.param(*each, marks=pytest.mark.long) for each in LONG_RUNS if each not in RUNS)],
    ids=lambda value: getattr(value, "name", value),
)
def test_results_and_gradients_are_right(name: str, case: Case, dtype: str) -> None:
    for check in ("results", "gradients", "padding") if case.sequences != "full" else ("results", "gradients"):
        outcome = run(Recomputing(name), item(check, case, dtype))
        assert outcome.verdict == "passed", outcome.message


@pytest.mark.parametrize("name", ["numpy", "torch", "tf", pytest.param("all of tf", marks=pytest.mark.long)])
def test_training_is_right_and_drops_the_same_when_parts_are_run_again(name: str) -> None:
    dropped = []
    for case in training_cases():
        spec = case.case.spec
        taken = name != "tf" or any(kind in case.name for kind in TRAINED_BY_TF)
        if taken and not (spec.dropout and spec.dropout.between_layers):
            outcome = run(Recomputing(name.removeprefix("all of ")), item("training", case, "float64"))
            assert outcome.verdict == "passed", outcome.message
            dropped.append(spec.dropout)
    assert any(dropped)


def test_parts_cover_every_step_once() -> None:
    for steps in (1, 2, 3, 4, 5, 2000):
        found = parts(steps)
        assert [t for part in found for t in range(part.start, part.stop)] == list(range(steps))
        assert max(len(found), found[0].stop) ** 2 < 4 * steps


@pytest.mark.parametrize("name", ["numpy", "torch", "tf"])
def test_what_cannot_be_run_part_by_part_is_refused_by_name(name: str) -> None:
    backend = load_backend(name)
    with pytest.raises(UnsupportedError, match="recompute: expected no dropout between layers"):
        backend.build(ModelSpec("stacked_rnn", I, H, 2, dropout=Dropout(between_layers=0.5)), recompute=True)


DROPPED = ModelSpec("stacked_rnn", I, H, 2, dropout=Dropout(between_layers=0.5))
OF_BOTH = EncoderDecoderSpec(ModelSpec("simple_rnn", I, H), replace(DROPPED, context=Context(H), head=Head(2)))
PARTWISE = {
    "numpy": "rnnzoo.numpy_impl.recomputing.forward",
    "torch": "rnnzoo.torch_impl.recurrent.recomputed",
    "tf": "rnnzoo.tf_impl.recomputing.recomputed",
}


@pytest.mark.parametrize("name", ["numpy", "torch", "tf"])
@pytest.mark.parametrize("spec", [DROPPED, replace(DROPPED, head=Head(2)), OF_BOTH], ids=["core", "head", "both"])
def test_what_cannot_be_run_part_by_part_is_not_set_later_either(name: str, spec: Any) -> None:
    model = load_backend(name).build(spec)
    with pytest.raises(UnsupportedError, match="recompute: expected no dropout between layers"):
        model.recompute = True
    assert model.recompute is False
    assert spec is not OF_BOTH or model.encoder.recompute is False


@pytest.mark.parametrize("name", ["numpy", "torch", "tf"])
@pytest.mark.parametrize("head", [None, Head(2)], ids=["core", "head"])
def test_a_model_recomputes_once_it_is_set_to(name: str, head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, calls = load_backend(name), []
    monkeypatch.setattr(PARTWISE[name], _counted(PARTWISE[name], calls))
    model = backend.build(ModelSpec("simple_rnn", I, H, head=head))
    cotangent = {"scores_cotangent" if head else "outputs_cotangent": np.ones((B, T, 2 if head else H))}
    for recompute in (False, True, False):
        model.recompute = recompute
        backend.gradients(model, np.ones((B, T, I)), **cotangent)
        assert bool(calls) is model.recompute is recompute
        calls.clear()


def _counted(name: str, calls: list[str]) -> Any:
    module, _, function = name.rpartition(".")
    inner = getattr(importlib.import_module(module), function)

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        return inner(*arguments, **options)

    return counted


@pytest.mark.parametrize("name", ["numpy", "torch", "tf"])
def test_both_of_two_networks_recompute(name: str) -> None:
    model = load_backend(name).build(replace(OF_BOTH, decoder=replace(OF_BOTH.decoder, dropout=None)))
    for recompute in (True, False):
        model.recompute = recompute
        assert model.encoder.recompute is model.decoder.recompute is model.recompute is recompute


@pytest.mark.parametrize("name", ["numpy", "torch", "tf"])
@pytest.mark.parametrize("spec", [CASES[0].spec, CASES[2].spec, OF_BOTH], ids=["core", "head", "both"])
def test_recompute_is_true_or_false(name: str, spec: Any) -> None:
    with pytest.raises(SpecError, match="recompute: expected True or False, got 'no'"):
        load_backend(name).build(spec, recompute="no")
    model = load_backend(name).build(spec)
    with pytest.raises(SpecError, match="recompute: expected True or False, got 1"):
        model.recompute = 1


def test_torch_refuses_to_be_exported_until_it_is_switched_off() -> None:
    model = load_backend("torch").build(ModelSpec("simple_rnn", I, H), recompute=True)
    with pytest.raises(Exception, match=r"module\.recompute = False"):
        torch.export.export(model, (torch.zeros(2, 9, I),))
    model.recompute = False
    torch.export.export(model, (torch.zeros(2, 9, I),))


# TensorFlow


@pytest.fixture(scope="module")
def model() -> Any:
    """A model of TensorFlow's that recomputes."""
    return load_backend("tf").build(ModelSpec("simple_rnn", I, H, head=Head(2)), dtype="float64", recompute=True)


def test_each_part_is_run_again_for_its_gradient(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rnnzoo.tf_impl import layers

    forward, steps = layers.forward, []

    def noted(spec: Any, weights: Any, inputs: Any, *arguments: Any) -> Any:
        steps.append(inputs.shape[1])
        return forward(spec, weights, inputs, *arguments)

    monkeypatch.setattr(layers, "forward", noted)
    backend, x = load_backend("tf"), np.ones((B, T, I))
    backend.gradients(model, x, scores_cotangent=np.ones((B, T, 2)))
    assert steps == [4, 4, 4, 1, 1, 4, 4, 4]
    backend.run(model, x)
    assert steps[8:] == [13]


def test_parts_that_xla_compiles_are_right_and_of_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    from rnnzoo.tf_impl import fast

    call, lengths = fast.Either.__call__, []

    def noted(loop: Any, compiled: Any, given: Any, *more: Any) -> Any:
        lengths.append(given["p"].shape[1])
        return call(loop, compiled, given, *more)

    monkeypatch.setattr(fast, "WORTH", 0)
    monkeypatch.setattr(fast.Either, "__call__", noted)
    outcome = run(Recomputing("tf"), item("gradients", CASES[0], "float64"))
    assert outcome.verdict == "passed", outcome.message
    assert set(lengths) == {4}


def test_a_graph_that_is_compiled_whole_is_refused_until_it_is_switched_off(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    x = tf.ones([2, 9, I], tf.float64)
    with pytest.raises(Exception, match=r"leave jit_compile out, or set layer\.recompute = False"):
        tf.function(model, jit_compile=True)(x)
    monkeypatch.setattr(model, "recompute", False)
    tf.function(model, jit_compile=True)(x)


def test_keras_own_training_recomputes_and_is_not_compiled_whole(model: Any) -> None:
    import keras

    clone = keras.models.clone_model(model)
    with pytest.warns(UserWarning, match="Model doesn't support `jit_compile=True`"):
        clone.compile(keras.optimizers.SGD(0.0), "mean_squared_error", jit_compile=True)
    clone.fit(np.ones((B, T, I)), np.ones((B, T, 2)), verbose=0)
    assert clone.recompute and not clone.jit_compile


def test_derivatives_of_gradients_are_refused_by_name(model: Any) -> None:
    import tensorflow as tf

    x = tf.ones([2, 9, I], tf.float64)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = model(x)
        slope = inner.gradient(y, x)
    with pytest.raises(UnsupportedError, match=r"recompute: expected first derivatives by tf\.GradientTape"):
        outer.gradient(slope, x)
