"""`ModelSpec`: it checks itself, and goes to JSON and YAML and back."""

import dataclasses
import json
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnzoo.spec import INITIALIZERS, Context, Draw, Dropout, Embedding, Head, Initializer, ModelSpec, RnnZooError
from rnnzoo.spec.errors import SpecError
from rnnzoo.spec.initializers import DISTRIBUTIONS
from rnnzoo.spec.model import MERGES, NONLINEARITIES

SIZES = st.integers(1, 10**6)
RATES = st.floats(0, 1, exclude_max=True)
VECTOR_DRAWS = st.builds(Draw, st.sampled_from(["zeros", "uniform", "normal"]), st.floats(1e-300, 1e300))
DRAWS = st.builds(Draw, st.sampled_from(DISTRIBUTIONS), st.floats(1e-300, 1e300))
WEIGHT_DRAWS = DRAWS.filter(lambda draw: draw.distribution != "identity")
PARTS = {
    "initializer": st.sampled_from(list(INITIALIZERS.values()))
    | st.builds(Initializer, WEIGHT_DRAWS, DRAWS, VECTOR_DRAWS, WEIGHT_DRAWS, WEIGHT_DRAWS, WEIGHT_DRAWS),
    "dropout": st.none() | st.builds(Dropout, st.just(0.0), RATES, RATES),
    "embedding": st.none() | st.builds(Embedding, SIZES),
    "head": st.none() | st.builds(Head, SIZES, st.booleans(), st.sampled_from(["steps", "final"])),
    "context": st.none() | st.builds(Context, SIZES),
}


@st.composite
def model_specs(draw: st.DrawFn) -> ModelSpec:
    """Any model that the spec allows."""
    variant = draw(st.sampled_from(["simple_rnn", "bi_rnn", "stacked_rnn", "stacked_bi_rnn"]))
    return ModelSpec(
        variant,
        draw(SIZES),
        draw(SIZES),
        draw(st.integers(2, 100)) if "stacked" in variant else 1,
        draw(st.sampled_from(NONLINEARITIES)),
        draw(st.sampled_from(["none", "single", "double"])),
        draw(st.sampled_from(MERGES)) if "bi" in variant else "concat",
        **{name: draw(strategy) for name, strategy in PARTS.items()},
    )


@settings(max_examples=150, deadline=None)
@given(model_specs())
def test_a_spec_survives_json_and_yaml(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert ModelSpec.from_yaml(spec.to_yaml()) == spec
    assert ModelSpec.from_data(spec.to_data()) == spec
    assert ModelSpec.from_yaml(spec.to_json()) == spec


def test_json_is_sorted_and_carries_the_version() -> None:
    text = ModelSpec("bi_rnn", 3, 4, head=Head(2)).to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True)
    assert json.loads(text)["version"] == 1


def test_a_person_writes_names_for_initializers_and_leaves_defaults_out() -> None:
    written = "version: 1\nvariant: stacked_rnn\ninput_size: 3\nhidden_size: 4\nnum_layers: 2\ninitializer: keras\n"
    assert ModelSpec.from_yaml(written) == ModelSpec("stacked_rnn", 3, 4, 2, initializer=INITIALIZERS["keras"])


@pytest.mark.parametrize("written", ["1e-3", "1E-3", "0.001", "1.0e-3"])
def test_yaml_reads_every_way_to_write_a_number(written: str) -> None:
    data = {**ModelSpec("simple_rnn", 3, 4).to_data(), "version": 1}
    data["initializer"] = {**INITIALIZERS["keras"].to_data(), "head": {"distribution": "normal", "scale": "SCALE"}}
    spec = ModelSpec.from_yaml(yaml.safe_dump(data).replace("SCALE", written))
    assert spec.initializer.head == Draw("normal", 0.001)


def test_a_spec_is_frozen_and_hashable() -> None:
    spec = ModelSpec("simple_rnn", 3, 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.hidden_size = 5  # type: ignore[misc]
    assert len({spec, ModelSpec("simple_rnn", 3, 4), ModelSpec("simple_rnn", 3, 5)}) == 2


GOOD = {"variant": "bi_rnn", "input_size": 3, "hidden_size": 4}
REFUSED = [
    ({"variant": "tri_rnn"}, ["variant", "'bi_rnn', 'simple_rnn', 'stacked_bi_rnn', 'stacked_rnn'", "'tri_rnn'"]),
    ({"variant": ["bi_rnn"]}, ["variant", "['bi_rnn']"]),
    ({"variant": None}, ["variant", "None"]),
    ({"cell": "lstm2"}, ["cell", "'rnn'", "'lstm2'"]),
    ({"cell": {}}, ["cell", "'rnn'", "{}"]),
    ({"input_size": 0}, ["input_size", "at least 1", "0"]),
    ({"hidden_size": -2}, ["hidden_size", "at least 1", "-2"]),
    ({"hidden_size": 4.0}, ["hidden_size", "integer", "4.0"]),
    ({"hidden_size": True}, ["hidden_size", "integer", "True"]),
    ({"input_size": "3"}, ["input_size", "integer", "'3'"]),
    ({"num_layers": 2}, ["num_layers", "bi_rnn", "2", "stacked"]),
    ({"variant": "stacked_rnn", "num_layers": 1}, ["num_layers", "at least 2", "1", "one layer"]),
    ({"nonlinearity": "gelu"}, ["nonlinearity", "'relu'", "'gelu'"]),
    ({"bias": True}, ["bias", "'single'", "True"]),
    ({"merge": "mean"}, ["merge", "'average'", "'mean'"]),
    ({"variant": "simple_rnn", "merge": "sum"}, ["merge", "one direction", "'concat'"]),
    ({"initializer": "torhc"}, ["initializer", "'torch'", "'torhc'"]),
    ({"initializer": None}, ["initializer", "Initializer", "None"]),
    ({"dropout": 0.5}, ["dropout", "Dropout", "0.5"]),
    ({"dropout": Dropout(0.5)}, ["dropout between_layers", "bi_rnn has one layer"]),
    ({"embedding": 7}, ["embedding", "7"]),
    ({"embedding": "words"}, ["embedding", "Embedding", "'words'"]),
    ({"head": Context(3)}, ["head", "Head", "Context(size=3)"]),
    ({"context": 0.5}, ["context", "0.5"]),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[str(change) for change, _ in REFUSED])
def test_a_contradiction_is_refused_by_name(change: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        ModelSpec(**{**GOOD, **change})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[str(change) for change, _ in REFUSED])
def test_data_is_refused_as_the_constructor_refuses(change: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SpecError):
        ModelSpec.from_data({**GOOD, **change})


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Dropout(1.0), ["dropout between_layers", "[0, 1)", "1.0"]),
        (lambda: Dropout(inputs=-0.1), ["dropout inputs", "[0, 1)", "-0.1"]),
        (lambda: Dropout(state="half"), ["dropout state", "'half'"]),
        (lambda: Embedding(0), ["vocabulary_size", "0"]),
        (lambda: Head(0), ["head size", "0"]),
        (lambda: Head(2, "yes"), ["head bias", "'yes'"]),
        (lambda: Head(2, reads="last"), ["head reads", "'final'", "'last'"]),
        (lambda: Context(-1), ["context size", "-1"]),
        (lambda: Draw("gauss"), ["distribution", "'normal'", "'gauss'"]),
        (lambda: Draw("normal", 0), ["scale", "(0, inf)", "0"]),
        (lambda: Draw("normal", math.inf), ["scale", "inf"]),
        (lambda: Draw("normal", math.nan), ["scale", "nan"]),
        (lambda: Draw("normal", 10**400), ["scale", "expected a number"]),
        (lambda: Draw("normal", "1"), ["scale", "'1'"]),
        (lambda: Draw("normal", True), ["scale", "True"]),
        (lambda: dataclasses.replace(INITIALIZERS["keras"], bias="orthogonal"), ["bias", "'orthogonal'"]),
        (lambda: dataclasses.replace(INITIALIZERS["keras"], bias=None), ["bias", "None"]),
        (lambda: dataclasses.replace(INITIALIZERS["keras"], head=3), ["head", "3"]),
    ],
)
def test_a_part_refuses_by_name(build: object, words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        build()  # type: ignore[operator]
    for word in words:
        assert word in str(caught.value)


def test_unknown_and_missing_keys_are_named() -> None:
    with pytest.raises(SpecError, match=r"ModelSpec: unknown key 'hiden_size'; known are .*'hidden_size'"):
        ModelSpec.from_data({**GOOD, "hiden_size": 4})
    with pytest.raises(SpecError, match=r"ModelSpec\.head: unknown key 'reduction'"):
        ModelSpec.from_data({**GOOD, "head": {"size": 2, "reduction": "mean"}})
    with pytest.raises(SpecError, match="missing key 'hidden_size', 'variant'; got 'input_size'"):
        ModelSpec.from_data({"input_size": 3})


@pytest.mark.parametrize(
    ("version", "words"), [(2, "spec version 2.*newer rnnzoo"), ("1", "'1'"), (None, "None"), (0, "0"), (True, "True")]
)
def test_a_newer_or_missing_version_is_refused(version: object, words: str) -> None:
    data = json.loads(ModelSpec("bi_rnn", 3, 4).to_json()) | {"version": version}
    with pytest.raises(SpecError, match=words):
        ModelSpec.from_json(json.dumps(data))
    with pytest.raises(SpecError, match=words):
        ModelSpec.from_yaml(yaml.safe_dump(data))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[1, 2]", "null", "7", '"text"', "[" * 100_000, "9" * 5000, "a: b: c", "a: 2020-99-99", "\0", 
        "&a [*a]", "!!python/object:os.x {}",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_text_that_is_no_spec_gives_one_error_of_ours(text: str) -> None:
    for read in (ModelSpec.from_json, ModelSpec.from_yaml):
        with pytest.raises(RnnZooError):
            read(text)


def test_dropout_of_nothing_is_none_and_a_spec_without_it_does_not_mention_it() -> None:
    assert ModelSpec("simple_rnn", 3, 4, dropout=Dropout()) == ModelSpec("simple_rnn", 3, 4)
    assert "dropout" not in ModelSpec("simple_rnn", 3, 4).to_json()
    assert ModelSpec("simple_rnn", 3, 4, dropout=Dropout(state=0.5)).differing(ModelSpec("simple_rnn", 3, 5)) == [
        "hidden_size",
        "dropout",
    ]
    with pytest.raises(SpecError, match=r"ModelSpec\.dropout: unknown key 'outputs'"):
        ModelSpec.from_data({**GOOD, "dropout": {"outputs": 0.5}})


def test_sizes_follow_from_variant_and_merge() -> None:
    deep = ModelSpec("stacked_bi_rnn", 3, 4, 2)
    assert (deep.num_directions, deep.output_size, deep.layer_input_size(0), deep.layer_input_size(1)) == (2, 8, 3, 8)
    summed = dataclasses.replace(deep, merge="sum")
    assert (summed.output_size, summed.layer_input_size(1)) == (4, 4)
    assert ModelSpec("simple_rnn", 3, 4).directions == ("forward",)


def test_only_a_model_that_reads_forward_step_by_step_streams() -> None:
    ModelSpec("stacked_rnn", 3, 4, 2, head=Head(5)).check_streams(state_given=False)
    with pytest.raises(SpecError, match="step: bi_rnn reads backward"):
        ModelSpec("bi_rnn", 3, 4).check_streams(state_given=False)
    with pytest.raises(SpecError, match="step: the head reads the final state"):
        ModelSpec("simple_rnn", 3, 4, head=Head(5, reads="final")).check_streams(state_given=False)


def test_streaming_with_a_context_starts_from_its_state() -> None:
    spec = ModelSpec("simple_rnn", 3, 4, context=Context(5))
    spec.check_streams(state_given=True)
    with pytest.raises(SpecError, match=r"start from initial_state\(context\)"):
        spec.check_streams(state_given=False)


def test_the_identity_is_for_the_recurrent_weight_alone() -> None:
    with pytest.raises(SpecError, match="initializer head: 'identity' is for the recurrent_weight"):
        dataclasses.replace(INITIALIZERS["irnn"], head=Draw("identity"))


def test_a_spec_with_any_part_is_not_the_core() -> None:
    assert ModelSpec("simple_rnn", 3, 4).is_core
    for part in ({"head": Head(2)}, {"embedding": Embedding(9)}, {"context": Context(5)}):
        assert not ModelSpec("simple_rnn", 3, 4, **part).is_core
