"""Dropout: the masks are those of the spec in every backend, and nothing but an update drops."""

import importlib
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance import converted
from rnnzoo.conformance.convert import convert
from rnnzoo.conformance.dropout import hashed, mixed
from rnnzoo.spec import (
    SGD,
    Batch,
    Contents,
    Context,
    CrossEntropy,
    Dropout,
    EncoderDecoderSpec,
    Head,
    Masks,
    ModelSpec,
    TrainingSpec,
    initial_weights,
    load_backend,
    save,
)
from rnnzoo.spec.dropout import KINDS, STEPWISE
from rnnzoo.spec.errors import InputError

B, T, I, H = 3, 4, 2, 5  # noqa: E741 (the spec's symbols)
EVERY = Dropout(0.3, 0.4, 0.5)
DEEP = ModelSpec("stacked_bi_rnn", I, H, 2, dropout=EVERY)
PLAIN = ModelSpec("stacked_bi_rnn", I, H, 2)
TRAINED = ModelSpec("stacked_rnn", I, H, 2, dropout=EVERY, head=Head(3))
PACKAGES = {"numpy": "numpy_impl", "torch": "torch_impl", "tf": "tf_impl"}
PLACES = [
    (Masks(0, 1), "between_layers", 0, 0),
    (Masks(7, 2), "inputs", 1, 1),
    (Masks(2**40 + 7, 3, 5), "state", 2, 0),
    (Masks(2**64 - 1, 2**32 + 1, 2**32 - 1), "between_layers", 3, 0),
    (Masks(7, 2, first_layer=2), "inputs", 1, 0),
    (Masks(7, 2).of(1, 1), "inputs", 0, 0),
]
GOLDEN = [
    827007469,
    4066528562,
    1881416321,
    1006774577,
    757708670,
    4066528562,
]  # of the places with two more words, 1 and 2


@pytest.fixture(params=PACKAGES)
def backend_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def module_of(backend_name: str) -> Any:
    load_backend(backend_name)
    return importlib.import_module(f"rnnzoo.{PACKAGES[backend_name]}.dropout")


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def like(backend_name: str, dtype: str) -> Any:
    """What the implementation takes a dtype from."""
    return (
        importlib.import_module("torch").empty(0, dtype=getattr(importlib.import_module("torch"), dtype))
        if (backend_name == "torch")
        else dtype
    )


# --- masks ---


def test_the_finaliser_is_the_published_one():
    assert mixed(0) == 0 and mixed(1) == 0x514E28B7 and mixed(0xFFFFFFFF) == 0x81F16F39  # of "", seeds 0, 1 and -1


def test_hashes_are_the_golden_ones():
    found = [hashed(*place(masks, kind, layer, d), 1, 2) for masks, kind, layer, d in PLACES]
    assert found == GOLDEN


def place(masks: Masks, kind: str, layer: int, direction: int) -> tuple[Masks, str, int, int]:
    """In the whole model."""
    return masks, kind, masks.first_layer + layer, masks.first_direction + direction


@pytest.mark.parametrize("given", PLACES, ids=str)
def test_a_backend_drops_the_units_of_the_spec(backend_name: str, given: tuple[Masks, str, int, int]):
    masks, kind, layer, direction = given
    hashes = module_of(backend_name).hashes
    device = (importlib.import_module("torch").device("cpu"),) if backend_name == "torch" else ()
    found = np.asarray(hashes(masks, kind, layer, direction, (T, B, H), *device))
    times: list[tuple[int, ...]] = [(t,) for t in range(T)] if kind in STEPWISE else [()]
    expected = [
        [[hashed(*place(masks, kind, layer, direction), masks.first_row + row, *t, unit)
          for unit in range(H)]
         for row in range(B)]
        for t in times
    ]  # fmt: skip
    assert found.tolist() == (expected if kind in STEPWISE else expected[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_kept_is_scaled_by_the_rounded_reciprocal(backend_name: str, dtype: str):
    spec = ModelSpec("stacked_rnn", I, H, 2, dropout=Dropout(0.1))
    given = ("between_layers", 0, 0, (T, B, H), like(backend_name, dtype))
    found = np.asarray(module_of(backend_name).factors(spec, Masks(0, 1), *given))
    assert found.dtype == np.dtype(dtype)
    assert set(np.unique(found)) == {0, np.dtype(dtype).type(1 / 0.9)}


def test_more_rows_and_more_steps_change_no_mask():
    factors = module_of("numpy").factors
    for kind in KINDS:
        small = factors(DEEP, Masks(5, 2), kind, 0, 1, (T, B, H), "float64")
        large = factors(DEEP, Masks(5, 2), kind, 0, 1, (T + 3, B + 2, H), "float64")
        assert np.array_equal(small, large[:T, :B] if kind in STEPWISE else large[:B])


def test_batches_of_one_update_drop_what_one_batch_of_their_rows_drops():
    factors = module_of("numpy").factors
    for kind in KINDS:
        whole = factors(DEEP, Masks(5, 2), kind, 0, 1, (T, 5, H), "float64")
        parts = [factors(DEEP, Masks(5, 2, k), kind, 0, 1, (T, n, H), "float64") for k, n in ((0, 2), (2, 3))]
        assert np.array_equal(np.concatenate(parts, axis=-2), whole)


@pytest.mark.parametrize("rate", [0.01, 0.5, 0.9])
def test_as_many_units_are_dropped_as_the_rate_says(rate: float):
    hashes = module_of("numpy").hashes(Masks(0, 1), "between_layers", 0, 0, (50, 60, 70))
    dropped = float((hashes < Dropout(rate).threshold("between_layers")).mean())
    assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / hashes.size)  # five standard deviations


def test_neighbours_are_dropped_independently():
    def kept(update: int = 1, layer: int = 0, seed: int = 0) -> np.ndarray:
        hashes = module_of("numpy").hashes(Masks(seed, update), "between_layers", layer, 0, (50, 60, 70))
        signs: np.ndarray = np.where(hashes < 2**31, -1.0, 1.0)
        return signs

    one = kept()
    pairs = [(one[1:], one[:-1]), (one[:, 1:], one[:, :-1]), (one[:, :, 1:], one[:, :, :-1])]
    pairs += [(one, kept(update=2)), (one, kept(layer=1)), (one, kept(seed=1)), (one, kept(seed=2**32))]
    for a, b in pairs:
        assert abs((a * b).mean()) < 5 / math.sqrt(a.size)  # five standard deviations of no correlation


def test_the_threshold_is_exact():
    assert Dropout(0.5).threshold("between_layers") == 2**31
    assert Dropout(state=2.0**-33).threshold("state") == 0
    assert Dropout(inputs=1 - 2.0**-53).threshold("inputs") == 2**32 - 1


# --- what drops, and what does not ---


def test_runs_and_gradients_drop_nothing_and_an_update_does(backend_name: str):
    backend = load_backend(backend_name)
    x, targets = numbers(0, B, T, I), np.zeros((B, T), np.int64)
    results, losses = [], []
    for dropout in (EVERY, None):
        spec = ModelSpec("stacked_rnn", I, H, 2, dropout=dropout, head=Head(3))
        model = backend.build(spec, seed=0, dtype="float64")
        run, cotangent = backend.run(model, x), np.ones((B, T, 3))
        slopes = backend.gradients(model, x, scores_cotangent=cotangent)
        losses.append(backend.trainer(model, TrainingSpec(CrossEntropy(), SGD(0.1))).step(Batch(x, targets)).loss)
        results.append({**run.arrays(), **slopes})
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[1])
    assert losses[0] != losses[1]


def test_another_seed_drops_other_units_and_the_same_one_the_same(backend_name: str):
    backend, batch = load_backend(backend_name), Batch(numbers(0, B, T, I), np.zeros((B, T), np.int64))

    def loss(seed: int) -> float:
        model = backend.build(TRAINED, seed=0, dtype="float64")
        found: float = backend.trainer(model, TrainingSpec(CrossEntropy(), SGD(0.1), seed=seed)).step(batch).loss
        return found

    assert loss(3) == loss(3) and loss(3) != loss(4)


# --- in plain code of a framework ---


def test_a_torch_module_drops_in_train_mode_the_units_of_update_1_then_2():
    import torch

    module = load_backend("torch").build(DEEP, seed=11, dtype="float64")
    plain = load_backend("torch").build(PLAIN, seed=11, dtype="float64")
    x, before = torch.from_numpy(numbers(0, B, T, I)), torch.get_rng_state()
    for update in (1, 2, 3):
        assert torch.equal(module.train()(x)[0], module(x, dropout=Masks(11, update))[0])
        assert torch.equal(module.eval()(x)[0], plain(x)[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(module(x, dropout=Masks(11, 1))[0], module(x, dropout=Masks(11, 2))[0])
    module.dropout_calls.fill_(1)
    assert torch.equal(torch.nn.Sequential(module).train()(x)[0], module(x, dropout=Masks(11, 2))[0])


def test_a_loop_of_ones_own_in_torch_is_the_trainers():
    import torch

    x, targets = numbers(0, B, T, I), np.arange(B * T).reshape(B, T) % 3
    ours, own = (load_backend("torch").build(TRAINED, seed=2, dtype="float64") for _ in range(2))
    trainer = load_backend("torch").trainer(ours, TrainingSpec(CrossEntropy("sum"), SGD(0.1), seed=2))
    optimizer = torch.optim.SGD(own.train().parameters(), 0.1)
    for _ in range(3):
        trainer.step(Batch(x, targets))
        scores = own(torch.from_numpy(x)).scores
        loss = torch.nn.functional.cross_entropy(
            scores.flatten(0, 1), torch.from_numpy(targets).flatten(), reduction="none"
        )
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), own.parameters(), strict=True))


def test_a_torch_module_in_train_mode_drops_neither_in_the_backend_nor_in_steps():
    import torch

    backend = load_backend("torch")
    spec = ModelSpec("stacked_rnn", I, H, 2, dropout=EVERY)
    module, x = backend.build(spec, dtype="float64").train(), numbers(0, B, 1, I)
    run = backend.run(module, x)
    backend.gradients(module, x, outputs_cotangent=np.ones((B, 1, H)))
    assert np.array_equal(module.step(torch.from_numpy(x[:, 0]))[0].detach().numpy(), run.outputs[:, 0])
    assert module.training and module.dropout_calls == 0


def test_a_torch_state_dict_has_nothing_of_dropout():
    module, plain = (load_backend("torch").build(spec, seed=1) for spec in (DEEP, PLAIN))
    assert list(module.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(module.state_dict())
    with pytest.raises(InputError, match="dropout: expected Masks"):
        module(__import__("torch").zeros(B, T, I), dropout=True)


def test_a_keras_layer_drops_where_keras_trains_the_units_of_update_1_then_2():
    tf = pytest.importorskip("tensorflow")
    layer, plain = (load_backend("tf").build(spec, seed=11, dtype="float64") for spec in (DEEP, PLAIN))
    x = tf.constant(numbers(0, B, T, I))
    for update in (1, 2):
        assert np.array_equal(layer(x, training=True), layer(x, dropout=Masks(11, update)))
        assert np.array_equal(layer(x), plain(x)) and np.array_equal(layer(x, training=False), plain(x))
    assert int(layer.dropout_calls) == 2
    assert [v.path.partition("/")[2] for v in layer.weights] == [v.path.partition("/")[2] for v in plain.weights]


@pytest.mark.parametrize("eagerly", [True, False])
def test_fit_drops_and_predict_does_not(eagerly: bool):
    import keras

    model, plain = (
        load_backend("tf").build(ModelSpec("stacked_rnn", I, H, 2, dropout=dropout, head=Head(3)), seed=4)
        for dropout in (EVERY, None)
    )
    x, y = numbers(0, 4, T, I).astype("float32"), np.zeros((4, T), np.int64)
    assert np.array_equal(model.predict(x, verbose=0), plain.predict(x, verbose=0))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = {name: float(loss(y, model(x, dropout=masks))) for name, masks in (("dropped", Masks(4, 1)), ("", None))}
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, jit_compile=False, run_eagerly=eagerly)
    (found,) = model.fit(x, y, batch_size=4, shuffle=False, verbose=0).history["loss"]
    assert int(model.core.dropout_calls) == 1
    if eagerly:  # a graph may sum in another order
        assert found == expected["dropped"]
    assert abs(found - expected["dropped"]) < abs(found - expected[""])


def pair_that_drops() -> EncoderDecoderSpec:
    encoder = ModelSpec("bi_rnn", I, H, dropout=Dropout(inputs=0.5))
    return EncoderDecoderSpec(encoder, replace(TRAINED, context=Context(2 * H)))


def test_an_encoder_and_its_decoder_in_torch_count_their_calls_as_one():
    import torch

    module = load_backend("torch").build(pair_that_drops(), seed=11, dtype="float64")
    x, source = torch.from_numpy(numbers(0, B, T, I)), torch.from_numpy(numbers(1, B, T + 1, I))
    scores = [module.train()(x, context=source).scores for _ in range(2)]
    named = [module(x, context=source, dropout=Masks(11, update)).scores for update in (1, 2)]
    assert all(torch.equal(*pair) for pair in zip(scores, named, strict=True)) and module.dropout_calls == 2
    assert module.encoder.core.dropout_calls == module.decoder.core.dropout_calls == 0
    read = module.encoder(source, dropout=Masks(11, 1)).final_state.transpose(0, 1).flatten(1)
    apart = module.decoder(x, context=read, dropout=Masks(11, 1, first_layer=1)).scores
    assert torch.equal(apart, scores[0])
    assert torch.equal(module(x, context=source, dropout=False).scores, module.eval()(x, context=source).scores)


def test_an_encoder_and_its_decoder_in_keras_count_their_calls_as_one():
    tf = pytest.importorskip("tensorflow")
    model = load_backend("tf").build(pair_that_drops(), seed=11, dtype="float64")
    x, source = tf.constant(numbers(0, B, T, I)), tf.constant(numbers(1, B, T + 1, I))
    for update in (1, 2):
        named = model(x, context=source, dropout=Masks(11, update))
        assert np.array_equal(model(x, context=source, training=True), named)
        assert not np.array_equal(named, model(x, context=source))
    assert [int(one.dropout_calls) for one in (model, model.encoder.core, model.decoder.core)] == [2, 0, 0]


# --- conversion ---


@pytest.mark.parametrize("target", ["plain.pt", "plain.keras", "plain.onnx"])
def test_a_conversion_to_standard_layers_says_that_they_do_not_drop(target: str, tmp_path: Path):
    spec = ModelSpec("stacked_rnn", I, H, 2, dropout=Dropout(0.25))
    save(tmp_path / "a.safetensors", Contents(spec, initial_weights(spec, 0, "float32"), {}))
    done = convert(tmp_path / "a.safetensors", tmp_path / target, plain=True)
    assert any("dropout (between_layers 0.25) is not in the layers" in change for change in done.changes)
    kept = convert(tmp_path / "a.safetensors", tmp_path / "own.pt")
    assert not kept.changes and kept.spec == spec


def test_layers_in_memory_say_so_too():
    module = load_backend("torch").build(ModelSpec("stacked_rnn", I, H, 2, bias="double", dropout=EVERY))
    with pytest.warns(UserWarning, match=r"dropout .* is not in the layers"):
        converted(module, "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert converted(module, "numpy", plain=False).spec.dropout == EVERY
