"""Names, shapes, counts and initial values of a model's parameters, against formulas written anew."""

import dataclasses
import itertools

import numpy as np
import pytest

from rnnzoo.spec import INITIALIZERS, Context, Draw, Embedding, Head, ModelSpec, initial_weights, parameters
from rnnzoo.spec.errors import WeightError
from rnnzoo.spec.parameters import check_dtype, checked_weights, weights_dtype

I, H, L, V, O, C = 3, 5, 3, 11, 7, 2  # noqa: E741 (the spec's symbols)
CASES = [
    (variant, bias, merge)
    for variant, bias, merge in itertools.product(
        ["simple_rnn", "bi_rnn", "stacked_rnn", "stacked_bi_rnn"],
        ["none", "single", "double"],
        ["concat", "sum", "average", "multiply"],
    )
    if "bi" in variant or merge == "concat"
]


def model(variant: str, bias: str = "single", merge: str = "concat", **parts: object) -> ModelSpec:
    return ModelSpec(variant, I, H, L if "stacked" in variant else 1, "tanh", bias, merge, **parts)


@pytest.mark.parametrize(("variant", "bias", "merge"), CASES)
def test_the_core_has_the_canonical_names_and_shapes(variant: str, bias: str, merge: str) -> None:
    layers, directions = L if "stacked" in variant else 1, ["forward", "backward"] if "bi" in variant else ["forward"]
    merged = len(directions) * H if merge == "concat" else H
    expected = []
    for layer in range(layers):
        for direction in directions:
            prefix = f"layers.{layer}.{direction}"
            expected.append((f"{prefix}.input_weight", (H, I if layer == 0 else merged)))
            expected.append((f"{prefix}.recurrent_weight", (H, H)))
            if bias == "single":
                expected.append((f"{prefix}.bias", (H,)))
            if bias == "double":
                expected += [(f"{prefix}.input_bias", (H,)), (f"{prefix}.recurrent_bias", (H,))]
    found = parameters(model(variant, bias, merge))
    assert [(parameter.name, parameter.shape) for parameter in found] == expected
    per_step = H * H + H * {"none": 0, "single": 1, "double": 2}[bias]
    count = len(directions) * (H * I + per_step + (layers - 1) * (H * merged + per_step))
    assert sum(parameter.count for parameter in found) == count


@pytest.mark.parametrize("head_bias", [True, False])
@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_the_parts_around_the_core_come_first_and_last(merge: str, head_bias: bool) -> None:
    spec = model("stacked_bi_rnn", merge=merge, embedding=Embedding(V), head=Head(O, head_bias), context=Context(C))
    shapes = [(parameter.name, parameter.shape) for parameter in parameters(spec)]
    assert shapes[:3] == [
        ("embedding.weight", (V, I)), ("context.weight", (L * 2 * H, C)), ("context.bias", (L * 2 * H,)),
    ]  # fmt: skip
    after = [("head.weight", (O, 2 * H if merge == "concat" else H)), *([("head.bias", (O,))] if head_bias else [])]
    assert shapes[-len(after) :] == after
    assert len({name for name, _ in shapes}) == len(shapes)


def test_a_cell_of_two_gates_has_twice_the_rows(toy_cell: object) -> None:
    shapes = {p.name: p.shape for p in parameters(ModelSpec("bi_rnn", I, H, bias="double", cell="toy"))}
    assert shapes["layers.0.backward.input_weight"] == (2 * H, I)
    assert shapes["layers.0.backward.recurrent_weight"] == (2 * H, H)
    assert shapes["layers.0.backward.recurrent_bias"] == (2 * H,)


@pytest.mark.parametrize("name", list(INITIALIZERS))
def test_every_initializer_fills_every_parameter(name: str) -> None:
    spec = model("stacked_bi_rnn", "double", "sum", embedding=Embedding(V), head=Head(O), context=Context(C))
    weights = initial_weights(dataclasses.replace(spec, initializer=name), 1, "float64")
    assert list(weights) == [parameter.name for parameter in parameters(spec)]
    assert {n: array.shape for n, array in weights.items()} == {p.name: p.shape for p in parameters(spec)}
    assert all(array.dtype == np.float64 and np.isfinite(array).all() for array in weights.values())


def test_float32_values_are_the_float64_values_rounded() -> None:
    spec = model("bi_rnn", head=Head(O))
    narrow, wide = initial_weights(spec, 4, "float32"), initial_weights(spec, 4, "float64")
    assert all(np.array_equal(narrow[name], wide[name].astype(np.float32)) for name in wide)


def test_seed_and_name_choose_the_stream() -> None:
    spec = model("bi_rnn")
    first, again, other = initial_weights(spec, 0), initial_weights(spec, 0), initial_weights(spec, 1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert all(not np.array_equal(first[name], other[name]) for name in first)
    assert not np.array_equal(first["layers.0.forward.recurrent_weight"], first["layers.0.backward.recurrent_weight"])


def test_torch_rule_takes_its_bound_from_the_hidden_size_or_the_columns() -> None:
    spec = ModelSpec(
        "simple_rnn", 400, 100, embedding=Embedding(50), head=Head(30), context=Context(9),
        initializer=dataclasses.replace(INITIALIZERS["torch"], embedding=Draw("scaled_uniform")),
    )  # fmt: skip
    columns = {"embedding": 400, "layers": 100, "head": 100, "context": 9}
    for name, array in initial_weights(spec, 0, "float64").items():
        bound = columns[name.split(".")[0]] ** -0.5
        assert np.abs(array).max() <= bound, name
        assert np.abs(array).max() > 0.8 * bound, name


GOOD = initial_weights(model("simple_rnn"), 0)
ONE = "layers.0.forward.bias"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({ONE: None}, f"bias 'single': missing '{ONE}'; surplus none"),
        ({"extra": GOOD[ONE]}, "missing none; surplus 'extra'"),
        ({ONE: np.zeros((H, 1), np.float32)}, rf"{ONE}: expected shape \(5,\), got \(5, 1\)"),
        ({ONE: np.zeros(H)}, f"{ONE}: expected dtype float32, got float64; pass cast=True"),
        ({ONE: np.zeros(H, np.int32)}, f"{ONE}: expected dtype float32, got int32; give floating-point"),
        ({ONE: np.zeros(H, np.complex64)}, f"{ONE}: expected dtype float32, got complex64"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change: dict[str, object], words: str) -> None:
    given = {name: array for name, array in {**GOOD, **change}.items() if array is not None}
    with pytest.raises(WeightError, match=words):
        checked_weights(model("simple_rnn"), given, "float32")


def test_cast_converts_floats_and_nothing_else() -> None:
    wide = {name: array.astype(np.float64) for name, array in GOOD.items()}
    cast = checked_weights(model("simple_rnn"), wide, "float32", cast=True)
    assert all(np.array_equal(cast[name], GOOD[name]) and cast[name].dtype == np.float32 for name in GOOD)
    with pytest.raises(WeightError, match="int64; give floating-point numbers"):
        checked_weights(model("simple_rnn"), {**wide, ONE: np.zeros(H, np.int64)}, "float32", cast=True)


def test_the_other_byte_order_is_the_same_dtype() -> None:
    swapped = {name: array.astype(array.dtype.newbyteorder()) for name, array in GOOD.items()}
    found = checked_weights(model("simple_rnn"), swapped, weights_dtype(swapped))
    assert all(found[name].dtype.isnative and np.array_equal(found[name], GOOD[name]) for name in GOOD)


def test_weights_come_back_in_canonical_order_and_uncopied() -> None:
    found = checked_weights(model("simple_rnn"), dict(reversed(GOOD.items())), "float32")
    assert list(found) == list(GOOD)
    assert all(found[name] is GOOD[name] for name in GOOD)


def test_one_supported_dtype_for_all_weights() -> None:
    assert weights_dtype(GOOD) == "float32"
    with pytest.raises(WeightError, match="one dtype for all, got 'float32', 'float64'"):
        weights_dtype({**GOOD, ONE: np.zeros(H)})
    with pytest.raises(WeightError, match="got none"):
        weights_dtype({})
    with pytest.raises(WeightError, match="'float32', 'float64', got 'float16'"):
        weights_dtype({ONE: np.zeros(H, np.float16)})
    for bad in ("int32", "float", None, 3, np.float16):
        with pytest.raises(WeightError, match="dtype: expected one of"):
            check_dtype(bad)
    assert check_dtype(np.dtype("float64")) == "float64"
