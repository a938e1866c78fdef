"""An encoder and a decoder as one model: its spec, its names, what it takes, its files, in three frameworks."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance import assert_equivalent
from rnnzoo.conformance.convert import convert
from rnnzoo.conformance.faults.pairs import FromState
from rnnzoo.conformance.formats import read
from rnnzoo.conformance.inspection import describe, difference
from rnnzoo.conformance.items import Item
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.pair_cases import pair_cases
from rnnzoo.spec import (
    Adam,
    Batch,
    Context,
    CrossEntropy,
    Embedding,
    EncoderDecoderSpec,
    Head,
    ModelSpec,
    Source,
    TrainingSpec,
    initial_weights,
    load_backend,
    parameters,
)  # fmt: skip
from rnnzoo.spec.backend import Contents
from rnnzoo.spec.checkpoint import save
from rnnzoo.spec.encoder_decoder import spec_from_data, spec_from_text
from rnnzoo.spec.errors import FileError, InputError, SpecError, UnsupportedError, WeightError

ENCODER = ModelSpec("stacked_bi_rnn", 3, 2, 2, embedding=Embedding(7))
DECODER = ModelSpec("stacked_rnn", 2, 4, 2, bias="double", embedding=Embedding(5), head=Head(5), context=Context(8))
SPEC = EncoderDecoderSpec(ENCODER, DECODER)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
BACKENDS = ("numpy", "torch", "tf")
SOURCE = Source(np.array([[1, 2, 3, 4], [5, 6, 0, 0]]), lengths=np.array([4, 2]))
INPUTS = np.array([[0, 1, 2], [3, 4, 0]])


def test_a_spec_survives_json_and_yaml_and_is_told_from_a_single_model() -> None:
    assert EncoderDecoderSpec.from_json(SPEC.to_json()) == EncoderDecoderSpec.from_yaml(SPEC.to_yaml()) == SPEC
    assert spec_from_text(SPEC.to_yaml()) == spec_from_data(SPEC.to_data()) == SPEC
    assert spec_from_text(DECODER.to_json()) == DECODER
    assert json.loads(SPEC.to_json())["version"] == 1


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (replace(ENCODER, head=Head(2)), DECODER, "encoder: expected no head"),
        (replace(ENCODER, context=Context(2)), DECODER, "encoder: expected no context"),
        (ENCODER, replace(DECODER, context=None), r"expected context=Context\(8\).*got None"),
        (ENCODER, replace(DECODER, context=Context(4)), r"expected context=Context\(8\).*2 layers, 2 directions"),
        (None, DECODER, r"encoder: expected ModelSpec\(...\), got None"),
    ],
)
def test_contradictions_are_refused(encoder: Any, decoder: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        EncoderDecoderSpec(encoder, decoder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"third": {}}, "unknown key 'third'"),
        ({"encoder": {**ENCODER.to_data(), "units": 3}}, "EncoderDecoderSpec.encoder: unknown key 'units'"),
        ({"version": 2}, "written for spec version 2"),
        ({"decoder": 3}, "EncoderDecoderSpec.decoder: expected a mapping"),
    ],
)
def test_reading_is_strict(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec_from_text(json.dumps({**json.loads(SPEC.to_json()), **change}))
    with pytest.raises(SpecError, match="missing key 'decoder'"):
        EncoderDecoderSpec.from_data({"encoder": ENCODER.to_data()})


def test_parameters_have_prefixes_and_streams_of_their_own() -> None:
    names = [parameter.name for parameter in parameters(SPEC)]
    own = {"encoder": parameters(ENCODER), "decoder": parameters(DECODER)}
    assert names == [f"{side}.{parameter.name}" for side, found in own.items() for parameter in found]
    assert dict(zip(names, parameters(SPEC), strict=True))["decoder.context.weight"].shape == (2 * 4, 2 * 2 * 2)
    same = ModelSpec("simple_rnn", 3, 3)
    twins = initial_weights(EncoderDecoderSpec(same, replace(same, context=Context(3))), 1, "float64")
    assert not np.array_equal(
        twins["encoder.layers.0.forward.input_weight"], twins["decoder.layers.0.forward.input_weight"]
    )


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_the_context_is_the_final_state_of_all_layers_and_directions(
    backend_name: str, assert_run: Callable[..., None]
) -> None:
    backend = load_backend(backend_name)
    model = backend.build(SPEC, seed=3, dtype="float64")
    weights = backend.to_spec(model)
    parts = {}
    for side, spec in SPEC.sides.items():
        parts[side] = backend.build(spec, dtype="float64")
        backend.from_spec(
            parts[side], {n.removeprefix(f"{side}."): a for n, a in weights.items() if n.startswith(side)}
        )
    state = backend.run(parts["encoder"], *SOURCE[:2]).final_state  # (L*D, B, H)
    context = np.stack([state[:, row].ravel() for row in range(2)])
    apart = backend.run(parts["decoder"], INPUTS, context=context)
    assert_run(apart.arrays(), model, INPUTS, context=SOURCE)


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_step_by_step_from_the_source_is_the_run(backend_name: str, assert_run: Callable[..., None]) -> None:
    backend = load_backend(backend_name)
    model = backend.build(SPEC, seed=3, dtype="float64")
    given, tokens = SOURCE, INPUTS
    if backend_name == "torch":
        torch = pytest.importorskip("torch")
        given = Source(torch.tensor(SOURCE.inputs), torch.tensor(SOURCE.lengths))
        tokens = torch.tensor(INPUTS)
    state, scores = model.initial_state(given), []
    for step in range(3):
        y, state = model.step(tokens[:, step], state)
        scores.append(y.detach().numpy() if backend_name == "torch" else np.asarray(y))
    assert_run({"scores": np.stack(scores, 1)}, model, INPUTS, context=SOURCE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "an encoder-decoder takes context=Source"),
        ({"context": SOURCE, "initial_state": np.zeros((2, 2, 4))}, "an encoder-decoder takes context=Source"),
        ({"context": SOURCE._replace(lengths=None, inputs=SOURCE.inputs[:1])}, "source: expected the 2 rows"),
        ({"context": SOURCE._replace(lengths=np.array([5, 1]))}, "source: lengths: expected values from 0 to T = 4"),
        ({"context": Source(np.zeros((2, 4)))}, "source: inputs: expected integer tokens"),
        ({"context": Source(np.full((2, 4), 7))}, "source: inputs: expected tokens from 0 to 6"),
        ({"context": SOURCE._replace(mask=np.ones((2, 4), bool))}, "source: lengths and mask"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    backend = load_backend("numpy")
    with pytest.raises(InputError, match=message):
        backend.run(backend.build(SPEC), INPUTS, **arguments)


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_a_decoder_goes_on_from_where_it_was(backend_name: str, assert_run: Callable[..., None]) -> None:
    backend = load_backend(backend_name)
    model = backend.build(SPEC, seed=3, dtype="float64")
    first = backend.run(model, INPUTS[:, :1], context=SOURCE)
    others = backend.run(model, INPUTS[:, 1:], initial_state=first.final_state)
    assert_run({"scores": np.concatenate([first.scores, others.scores], 1)}, model, INPUTS, context=SOURCE)


def test_a_source_alone_needs_no_lengths() -> None:
    backend = load_backend("numpy")
    model = backend.build(SPEC)
    whole = Source(SOURCE.inputs, lengths=np.array([4, 4]))
    np.testing.assert_array_equal(
        backend.run(model, INPUTS, context=SOURCE.inputs).scores, backend.run(model, INPUTS, context=whole).scores
    )


def test_a_backend_that_does_not_say_so_is_not_asked() -> None:
    class Older:
        name = "older"

        def supports(self, spec: Any) -> str | None:
            raise AssertionError

    outcome = run(Older(), Item("results", pair_cases()[0], "float64"))
    assert (outcome.verdict, outcome.message) == ("skipped", "older has no encoder-decoder models")


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_training_reaches_the_encoder(backend_name: str) -> None:
    backend = load_backend(backend_name)
    model = backend.build(SPEC, seed=1)
    before = backend.to_spec(model)
    trainer = backend.trainer(model, TrainingSpec(CrossEntropy(), Adam(0.01)))
    losses = [trainer.step(Batch(INPUTS, INPUTS, lengths=[3, 2], context=SOURCE)).loss for _ in range(30)]
    assert losses[-1] < losses[0] / 2
    after = backend.to_spec(model)
    assert all((after[name] != before[name]).any() for name in before)


def test_the_three_frameworks_agree_and_take_each_others_weights() -> None:
    models = [load_backend(name).build(SPEC, seed=5) for name in BACKENDS]
    assert_equivalent(models[0], models[1])
    assert_equivalent(models[0], models[2])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save(path, Contents(SPEC, initial_weights(SPEC, 2), {"task": "none"}))
    return path


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".torch.safetensors", ".keras", ".weights.h5"])
def test_every_native_layout_keeps_every_bit_and_is_proven(file: Path, tmp_path: Path, suffix: str) -> None:
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.safetensors"
    assert convert(file, there).proof.comparisons
    convert(there, back)
    assert back.read_bytes() == file.read_bytes()
    assert read(there).spec == SPEC
    text, same = difference(file, there)
    assert same, text
    assert "encoder: stacked_bi_rnn" in describe(there) and "decoder.context.weight" in describe(there)


@pytest.mark.parametrize(
    ("name", "plain", "message"),
    [
        ("model.pt", True, "torch has no encoder and decoder in one layer"),
        ("model.keras", True, "Keras' standard layers have no encoder with a decoder"),
        ("model.onnx", False, "an ONNX file holds one recurrent network"),
    ],
)
def test_what_no_standard_layer_can_be_is_refused_by_name(
    file: Path, tmp_path: Path, name: str, plain: bool, message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        convert(file, tmp_path / name, plain=plain)
    assert not (tmp_path / name).exists()


def test_a_file_with_a_weight_missing_is_refused(tmp_path: Path) -> None:
    weights = initial_weights(SPEC, 2)
    del weights["encoder.embedding.weight"]
    with pytest.raises(WeightError, match=r"encoder .stacked_bi_rnn.*missing 'encoder.embedding.weight'"):
        save(tmp_path / "model.safetensors", Contents(SPEC, weights, {}))


def test_a_file_whose_two_parts_contradict_each_other_is_refused(file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(file.read_bytes().replace(b'\\"context\\": {\\"size\\": 8}', b'\\"context\\": {\\"size\\": 9}'))
    assert broken.read_bytes() != file.read_bytes()
    with pytest.raises(FileError, match=r"metadata 'rnnzoo' cannot be read: decoder: expected context=Context.8."):
        read(broken)


def test_keras_saves_and_loads_the_model_itself(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    backend = load_backend("tf")
    model = backend.build(SPEC, seed=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.spec == SPEC
    found = read(tmp_path / "model.keras")
    for name, array in backend.to_spec(model).items():
        np.testing.assert_array_equal(found.weights[name], array)
        np.testing.assert_array_equal(backend.to_spec(loaded)[name], array)


def test_the_wrapper_that_the_faults_are_made_of_is_right() -> None:
    backend = FromState(load_backend("numpy"))
    verdicts = [run(backend, Item("results", case.with_bits(53), "float64")).verdict for case in pair_cases()]
    assert set(verdicts) == {"passed"}


def test_an_item_survives_json() -> None:
    item = Item("results", pair_cases()[0], "float32")
    assert Item.from_data(json.loads(json.dumps(item.to_data()))) == item


def test_cases_have_an_encoder_of_each_variant_and_uneven_sequences_on_both_sides() -> None:
    cases = pair_cases()
    assert len({case.encoder.spec.variant for case in cases}) == 4
    assert {"lengths", "holes", "left_padding", "nan_padding", "empty_row"} <= {
        case.encoder.sequences for case in cases
    }
    assert {bool(case.encoder.spec.embedding) for case in cases} == {True, False}
    assert all(case.encoder.steps != case.decoder.steps for case in cases)


def test_every_case_passes_in_the_reference() -> None:
    from rnnzoo.conformance.items import items

    own = [item for item in items() if "encoder-" in item.name]
    assert {item.check for item in own} == {"weights", "results", "gradients", "cotangents", "padding", "training"}
    some = [item for item in own if item.check in ("cotangents", "training") and item.dtype == "float64"]
    assert [run(load_backend("numpy"), item).verdict for item in some] == ["passed"] * 4
