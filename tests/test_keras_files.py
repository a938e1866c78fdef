"""Keras' files: what is found in anybody's, what ours give back and to whom, and what hostile ones end in."""

import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from rnnzoo.conformance.bounds import gradients, results
from rnnzoo.conformance.equivalence import random_arguments
from rnnzoo.spec import Contents, Context, Embedding, Head, ModelSpec, load_backend, parameters, sandbox
from rnnzoo.spec.errors import FileError, UnsupportedError, WeightError
from rnnzoo.spec.inputs import Cotangents, checked_inputs
from rnnzoo.spec.stored import FoundLayer, Hints, StoredTensor, StoredWeights
from rnnzoo.tf_impl import Recurrent, SequenceModel, examining, files
from rnnzoo.tf_impl.files import FILES
from rnnzoo.tf_impl.plain import BACKEND as PLAIN

# Keras 3.15 hands its variables to NumPy 2.4 in the old way when it saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

I, H, O, T = 3, 4, 2, 5  # noqa: E741
NONE = Hints()
L = keras.layers
KINDS = (".keras", ".h5", ".weights.h5")
CLASSIFIER = ModelSpec("bi_rnn", I, H, embedding=Embedding(7), head=Head(O, reads="final"))
CAPTIONER = ModelSpec("stacked_rnn", I, H, 2, head=Head(O), context=Context(8))
DOUBLE = ModelSpec("stacked_bi_rnn", I, H, 2, bias="double")


@pytest.fixture(autouse=True)
def in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files apart here, as a child process takes a second; tests with `sandbox` in their names have one."""
    if "sandbox" not in request.node.name:
        monkeypatch.setattr(files, "examined", lambda _, path: json.loads(json.dumps(examining.examine(path))))


def sequential(*layers: Any) -> Any:
    return keras.Sequential([keras.Input((None, I)), *layers])


def save(model: Any, path: Path) -> Path:
    """Save a model as the suffix says, with weights that differ everywhere."""
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if variable.dtype.startswith("float"):
            variable.assign(generator.normal(size=variable.shape))
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    elif path.suffix == ".weights-only":
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    else:
        model.save(path)
    return path


def found(path: Path, hints: Hints = NONE) -> dict[str, FoundLayer]:
    return {layer.path: layer for layer in FILES.find(path, hints).layers}


def spec_of(layer: FoundLayer) -> ModelSpec:
    assert layer.refusal is None and layer.spec is not None, layer.refusal
    return layer.spec


def arrays(layer: FoundLayer) -> list[Any]:
    weights = StoredWeights(layer.parts)
    return [weights[parameter.name] for parameter in parameters(spec_of(layer))]


def assert_weights(layer: FoundLayer, *theirs: Any) -> None:
    """The found weights are those of the Keras layers, in Keras' order, which is the spec's."""
    expected = [array.T for keras_layer in theirs for array in keras_layer.get_weights()]
    assert len(arrays(layer)) == len(expected)
    assert all(np.array_equal(ours, array) for ours, array in zip(arrays(layer), expected, strict=True))


# What Keras saves is found


def cells(number: int, **options: Any) -> list[Any]:
    return [L.SimpleRNNCell(H, **options) for _ in range(number)]


LAYERS: dict[str, tuple[Callable[[], Any], ModelSpec]] = {
    "SimpleRNN": (lambda: L.SimpleRNN(H), ModelSpec("simple_rnn", I, H)),
    "relu": (lambda: L.SimpleRNN(H, "relu", use_bias=False), ModelSpec("simple_rnn", I, H, 1, "relu", "none")),
    "sigmoid": (lambda: L.SimpleRNN(H, "sigmoid", return_sequences=True), ModelSpec("simple_rnn", I, H, 1, "sigmoid")),
    "linear": (lambda: L.SimpleRNN(H, None, True, dtype="float64"), ModelSpec("simple_rnn", I, H, 1, "identity")),
    "unrolled": (lambda: L.SimpleRNN(H, unroll=True), ModelSpec("simple_rnn", I, H)),
    "initialized": (
        lambda: L.SimpleRNN(H, kernel_regularizer="l2", kernel_constraint="non_neg", zero_output_for_mask=True),
        ModelSpec("simple_rnn", I, H),
    ),
    "RNN of a cell": (lambda: L.RNN(L.SimpleRNNCell(H, "relu")), ModelSpec("simple_rnn", I, H, 1, "relu")),
    "RNN of cells": (lambda: L.RNN(cells(12)), ModelSpec("stacked_rnn", I, H, 12)),
    "StackedRNNCells": (
        lambda: L.RNN(L.StackedRNNCells(cells(2, use_bias=False))), ModelSpec("stacked_rnn", I, H, 2, bias="none"),
    ),
    "Bidirectional": (lambda: L.Bidirectional(L.SimpleRNN(H)), ModelSpec("bi_rnn", I, H)),
    "sum": (lambda: L.Bidirectional(L.SimpleRNN(H), merge_mode="sum"), ModelSpec("bi_rnn", I, H, merge="sum")),
    "ave": (
        lambda: L.Bidirectional(L.RNN(L.SimpleRNNCell(H)), merge_mode="ave"),
        ModelSpec("bi_rnn", I, H, merge="average"),
    ),
    "mul": (
        lambda: L.Bidirectional(L.SimpleRNN(H, use_bias=False, return_sequences=True), merge_mode="mul"),
        ModelSpec("bi_rnn", I, H, bias="none", merge="multiply"),
    ),
    "backward_layer": (
        lambda: L.Bidirectional(
            L.SimpleRNN(H, "relu"), backward_layer=L.SimpleRNN(H, "relu", go_backwards=True, name="turned")
        ),
        ModelSpec("bi_rnn", I, H, 1, "relu"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_every_option_of_keras_layers_is_found_bit_for_bit(name: str, kind: str, tmp_path: Path) -> None:
    make, spec = LAYERS[name]
    layer = make()
    path = save(sequential(layer, L.Dense(2)), tmp_path / f"model{kind}")
    hints = Hints(nonlinearity=spec.nonlinearity) if kind == ".weights.h5" else Hints()
    [only] = found(path, hints).values()
    assert only.path == layer.name
    if kind == ".weights.h5" and spec.num_directions == 2:
        assert (only.assumed, spec_of(only).merge) == (("nonlinearity", "merge"), "concat")
        assert spec_of(found(path, Hints(spec))[layer.name]) == spec
    else:
        assert (only.assumed, only.spec) == (("nonlinearity",) if kind == ".weights.h5" else (), spec)
    assert_weights(only, layer)
    assert {array.dtype.name for array in arrays(only)} == {layer.dtype}
    assert sorted(tensor.shape for tensor in FILES.find(path).rest.values())[0] == (2,)


def test_layers_in_models_in_models_are_found_by_their_names(tmp_path: Path) -> None:
    inner = sequential(L.SimpleRNN(H, return_sequences=True, name="deep"))
    inner.name = "inner"
    x = keras.Input((None, I))
    shared = L.SimpleRNN(H, name="shared")
    y = L.TimeDistributed(L.Dense(I, name="dense"), name="each")(inner(x))
    model = keras.Model(x, [shared(y), shared(x), L.Bidirectional(L.SimpleRNN(H), name="both")(y)])
    expected = {"inner.deep": inner.get_layer("deep"), "shared": shared, "both": model.get_layer("both")}
    for kind in KINDS:
        layers = found(save(model, tmp_path / f"model{kind}"))
        assert set(layers) == set(expected)
        for name, layer in layers.items():
            assert_weights(layer, expected[name])


def test_weights_of_the_oldest_format_are_found_without_a_configuration(tmp_path: Path) -> None:
    simple, both, stack = L.SimpleRNN(H, return_sequences=True), L.Bidirectional(L.SimpleRNN(H)), L.RNN(cells(11))
    x = keras.Input((None, I))
    path = save(keras.Model(x, [simple(x), both(x), stack(x)]), tmp_path / "model.weights-only")
    layers = {layer.path: layer for layer in FILES.find(path).layers}
    assert set(layers) == {simple.name, both.name, stack.name}
    for layer in (simple, both, stack):
        assert_weights(layers[layer.name], layer)
    assert layers[both.name].assumed == ("nonlinearity", "merge")
    assert "forward is assumed" in layers[simple.name].notes[0]


def test_cells_of_the_oldest_format_come_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    stack, x = L.RNN([L.SimpleRNNCell(I, name="z_cell"), L.SimpleRNNCell(I, name="a_cell")]), keras.Input((None, I))
    path = save(keras.Model(x, stack(x)), tmp_path / "model.weights-only")
    assert_weights(found(path)[stack.name], stack)


def test_weights_of_models_with_code_of_their_own_are_found_by_attribute(tmp_path: Path) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.many = L.SimpleRNN(H, name="reader"), [L.Bidirectional(L.SimpleRNN(H)), L.Dense(2)]

    model = Own()
    model.encoder.build((None, None, I))
    model.many[0].build((None, None, I))
    model.built = True
    layers = found(save(model, tmp_path / "model.keras"), Hints(nonlinearity="relu"))
    assert spec_of(layers["reader"]) == ModelSpec("simple_rnn", I, H, 1, "relu")
    assert_weights(layers["reader"], model.encoder)
    assert_weights(layers[model.many[0].name], model.many[0])


def test_what_a_layer_leaves_behind_is_noted(tmp_path: Path) -> None:
    layer = L.SimpleRNN(H, dropout=0.1, recurrent_dropout=0.2, dtype="mixed_float16")
    path = save(sequential(L.Masking(name="gaps"), layer), tmp_path / "model.keras")
    notes = " ".join(found(path)[layer.name].notes)
    assert all(
        word in notes for word in ("dropout is", "recurrent_dropout is", "mixed precision", "'gaps' masks steps")
    )


def test_optimizer_and_other_layers_are_the_rest(tmp_path: Path) -> None:
    model = sequential(L.SimpleRNN(H), L.Dense(2))
    model.compile("adam", "mse")
    model.fit(np.ones((2, T, I)), np.ones((2, 2)), verbose=0)
    for kind in KINDS:
        rest = FILES.find(save(model, tmp_path / f"model{kind}")).rest
        assert any("optimizer" in name for name in rest) and any("dense" in name for name in rest)
        assert not any("simple_rnn" in name and not name.startswith("optimizer") for name in rest)


def test_bfloat16_and_the_other_byte_order_are_read_exactly(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(I, H))
    path = tmp_path / "model.weights.h5"
    for dtype in (ml_dtypes.bfloat16, ">f4", ">f2", "<f8"):
        with h5py.File(path, "w") as file:
            for number, part in enumerate((numbers, numbers[:1].T * numbers[:1], numbers[0])):
                stored = file.create_dataset(f"layers/simple_rnn/cell/vars/{number}", data=part.astype(dtype))
                if dtype is ml_dtypes.bfloat16:
                    stored.attrs["dtype"] = "bfloat16"
        kernel, *_ = arrays(found(path)["simple_rnn"])
        assert np.array_equal(kernel, numbers.astype(dtype).astype("f8").T)


# Stacks


def test_layers_that_read_one_another_are_also_one_stack(tmp_path: Path) -> None:
    one, two, three = (L.Bidirectional(L.SimpleRNN(H, return_sequences=more), merge_mode="sum") for more in (1, 1, 0))
    for between in ([], [L.Dropout(0.5)]):
        model = sequential(one, *between, two, three, L.Dense(2))
        for kind in (".keras", ".h5"):
            layers = found(save(model, tmp_path / f"model{kind}"))
            assert set(layers) == {one.name, two.name, three.name, f"{one.name}..{three.name}"}
            stack = layers[f"{one.name}..{three.name}"]
            assert stack.spec == ModelSpec("stacked_bi_rnn", I, H, 3, merge="sum")
            assert_weights(stack, one, two, three)
            assert_weights(layers[two.name], two)


def test_functional_models_have_stacks_too(tmp_path: Path) -> None:
    x = keras.Input((None, I))
    one, two = L.SimpleRNN(H, return_sequences=True), L.SimpleRNN(H)
    stack = found(save(keras.Model(x, two(one(x))), tmp_path / "model.keras"))[f"{one.name}..{two.name}"]
    assert_weights(stack, one, two)


@pytest.mark.parametrize(
    "between",
    [[L.Dense(H)], [L.Masking()], [L.LayerNormalization()], [L.Activation("relu")], None],
    ids=["Dense", "Masking", "LayerNormalization", "Activation", "last outputs"],
)
def test_what_acts_between_layers_keeps_them_apart(between: Any, tmp_path: Path) -> None:
    first = L.SimpleRNN(H, return_sequences=between is not None)
    others = [L.RepeatVector(T)] if between is None else between
    layers = found(save(sequential(first, *others, L.SimpleRNN(H)), tmp_path / "model.keras"))
    assert len(layers) == 2 and not any(".." in name for name in layers)


@pytest.mark.parametrize("options", [{"units": 6}, {"activation": "relu"}, {"use_bias": False}], ids=str)
def test_layers_that_differ_are_no_stack(options: dict[str, Any], tmp_path: Path) -> None:
    second = L.SimpleRNN(**{"units": H, **options})
    assert len(found(save(sequential(L.SimpleRNN(H, return_sequences=True), second), tmp_path / "model.keras"))) == 2


def test_masks_of_functional_models_are_no_second_input(tmp_path: Path) -> None:
    x, mask = keras.Input((None,)), keras.Input((None,), dtype="bool")
    one, two = L.Bidirectional(L.SimpleRNN(H, return_sequences=True)), L.Bidirectional(L.SimpleRNN(H))
    model = keras.Model(x, two(L.Dropout(0.1)(one(L.Embedding(7, I, mask_zero=True)(x)))))
    for kind in (".keras", ".h5"):
        stack = found(save(model, tmp_path / f"model{kind}"))[f"{one.name}..{two.name}"]
        assert spec_of(stack).num_layers == 2 and "masks steps" in stack.notes[0]
        assert_weights(stack, one, two)
    x, (one, two) = keras.Input((None, I)), (L.SimpleRNN(H, return_sequences=True) for _ in range(2))
    same = save(keras.Model([x, mask], two(one(x, mask=mask), mask=mask)), tmp_path / "same.keras")
    assert "called with a mask" in found(same)[f"{one.name}..{two.name}"].notes[0]
    other = keras.Input((None,), dtype="bool")
    model = keras.Model([x, mask, other], two(one(x, mask=mask), mask=other))
    assert len(found(save(model, tmp_path / "other.keras"))) == 2
    with pytest.raises(UnsupportedError, match="each reads the one below alone"):
        PLAIN.spec_of(model)


def test_initial_states_and_second_readers_keep_layers_apart(tmp_path: Path) -> None:
    x, state = keras.Input((None, I)), keras.Input((H,))
    first, second = L.SimpleRNN(H, return_sequences=True), L.SimpleRNN(H)
    model = keras.Model([x, state], second(first(x), initial_state=state))
    assert len(found(save(model, tmp_path / "model.keras"))) == 2
    merged = keras.Model(x, L.SimpleRNN(H)(L.Add()([first(x), first(x)])))
    assert len(found(save(merged, tmp_path / "model.keras"))) == 2


def test_a_hint_says_that_weights_alone_are_a_stack(tmp_path: Path) -> None:
    one, two = L.SimpleRNN(H, return_sequences=True), L.SimpleRNN(H)
    path = save(sequential(one, two), tmp_path / "model.weights.h5")
    assert len(found(path)) == 2
    spec = ModelSpec("stacked_rnn", I, H, 2, "relu")
    stack = found(path, Hints(spec))[f"{one.name}..{two.name}"]
    assert stack.spec == spec
    assert_weights(stack, one, two)


# What cannot be converted is refused by name


@keras.saving.register_keras_serializable(package="other")
class OtherRNN(L.SimpleRNN):
    """Somebody's own."""


@keras.saving.register_keras_serializable(package="other")
class OtherCell(L.SimpleRNNCell):
    """Somebody's own."""


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "LSTM": (lambda: L.LSTM(H), "holds LSTM weights"),
    "GRU": (lambda: L.Bidirectional(L.GRU(H)), "holds GRU weights"),
    "LSTMCell": (lambda: L.RNN(L.LSTMCell(H)), "holds LSTM weights"),
    "cells of several kinds": (lambda: L.RNN([L.SimpleRNNCell(H), L.GRUCell(H)]), "holds GRU weights"),
    "activation": (lambda: L.SimpleRNN(H, "elu"), "activation elu; expected one of tanh"),
    "activation layer": (lambda: L.SimpleRNN(H, L.LeakyReLU()), "activation LeakyReLU"),
    "directions differ": (
        lambda: L.Bidirectional(L.SimpleRNN(H), backward_layer=L.SimpleRNN(H, "relu", go_backwards=True)),
        r"differ in activation \(relu and tanh\)",
    ),
    "two stacks": (lambda: L.Bidirectional(L.RNN(cells(2))), "two stacks that do not read one another"),
    "units": (lambda: L.RNN([L.SimpleRNNCell(3), L.SimpleRNNCell(4)]), r"differ in units \(3 and 4\)"),
    "go_backwards": (lambda: L.SimpleRNN(H, go_backwards=True), "go_backwards=False"),
    "merge_mode": (lambda: L.Bidirectional(L.SimpleRNN(H), merge_mode=None), "merge_mode=None"),
    "own class": (lambda: OtherRNN(H), "other>OtherRNN"),
    "own cell": (lambda: L.RNN(OtherCell(H)), "other>OtherCell"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_spec_describes_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, reason = REFUSED[name]
    layer, x = make(), keras.Input((None, I))
    model = keras.Model(x, layer(x))
    for kind in (".keras",) if "own" in name else (".keras", ".h5"):
        [only] = found(save(model, tmp_path / f"model{kind}")).values()
        with pytest.raises(AssertionError, match=reason):
            spec_of(only)
        assert only.spec is None and layer.name in only.path
    with pytest.raises(UnsupportedError, match=reason):
        PLAIN.spec_of(layer)


def test_stateful_layers_are_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input(batch_shape=(2, T, I)), L.SimpleRNN(H, stateful=True)])
    [only] = found(save(model, tmp_path / "model.keras")).values()
    assert only.refusal is not None and "make it with stateful=False" in only.refusal


@pytest.mark.parametrize(("cell", "kind"), [("LSTM", "LSTM"), ("GRU", "GRU"), ("ConvLSTM1D", "unknown")])
def test_other_cells_are_refused_by_their_shapes_alone(cell: str, kind: str, tmp_path: Path) -> None:
    layer = L.ConvLSTM1D(2, 2) if cell == "ConvLSTM1D" else getattr(L, cell)(H)
    x = keras.Input((None, 5, I) if cell == "ConvLSTM1D" else (None, I))
    for name in ("model.weights.h5", "model.weights-only"):
        [only] = found(save(keras.Model(x, layer(x)), tmp_path / name)).values()
        assert only.refusal is not None and kind in only.refusal


def test_a_configuration_that_does_not_fit_the_weights_is_refused(tmp_path: Path) -> None:
    path = save(sequential(L.SimpleRNN(H, name="rnn")), tmp_path / "model.keras")
    edited(path, lambda text: text.replace(b'"units": 4', b'"units": 5'))
    assert "units=5" in str(found(path)["rnn"].refusal)


# Bare names


def tensors(**shapes: tuple[int, ...]) -> dict[str, StoredTensor]:
    return {name: StoredTensor(Path("none"), 0, "float32", shape) for name, shape in shapes.items()}


def layers_in(shapes: dict[str, tuple[int, ...]]) -> tuple[dict[str, FoundLayer], list[str]]:
    layers, rest = FILES.layers_in(tensors(**shapes))
    return {layer.path: layer for layer in layers}, rest


def test_names_of_variables_are_enough() -> None:
    kernels = {"kernel": (I, H), "recurrent_kernel": (H, H), "bias": (H,)}
    for prefix in ("", "encoder/simple_rnn_cell/", "encoder.", "sequential/rnn/"):
        layers, rest = layers_in(
            {f"{prefix}{name}": shape for name, shape in kernels.items()} | {"dense/kernel": (H, 2)}
        )
        assert [spec_of(layer) for layer in layers.values()] == [ModelSpec("simple_rnn", I, H)]
        assert rest == ["dense/kernel"]
    both = {
        f"b/{side}_rnn/simple_rnn_cell/{name}:0": s for side in ("forward", "backward") for name, s in kernels.items()
    }
    assert spec_of(layers_in(both)[0]["b"]) == ModelSpec("bi_rnn", I, H)


def test_one_kernel_of_tensorflow_1_is_taken_apart() -> None:
    names = {"rnn/basic_rnn_cell/kernel:0": (I + H, H), "rnn/basic_rnn_cell/bias:0": (H,)}
    layer = layers_in(names)[0]["rnn"]
    assert spec_of(layer) == ModelSpec("simple_rnn", I, H) and layer.assumed == ("nonlinearity",)
    rules = [layer.parts[f"layers.0.forward.{name}"].rule for name in ("input_weight", "recurrent_weight", "bias")]
    assert rules == ["[:3] transposed", "[3:] transposed", "as it is"]
    sides = {f"birnn/{side}/basic_rnn_cell/kernel": (I + H, H) for side in ("fw", "bw")}
    assert spec_of(layers_in(sides)[0]["birnn"]) == ModelSpec("bi_rnn", I, H, bias="none")
    stack = {f"rnn/multi_rnn_cell/cell_{n}/basic_rnn_cell/kernel": ((H if n else I) + H, H) for n in range(11)}
    assert spec_of(layers_in(dict(sorted(stack.items())))[0]["rnn"]) == ModelSpec("stacked_rnn", I, H, 11, bias="none")


@pytest.mark.parametrize("name", ["rnn/basic_lstm_cell/kernel", "rnn/lstm_cell/kernel", "rnn/gru_cell/gates/kernel"])
def test_other_cells_of_tensorflow_1_are_refused(name: str) -> None:
    [layer] = layers_in({name: (I + H, 4 * H)})[0].values()
    assert layer.refusal is not None and ("GRU" if "gru" in name else "LSTM") in layer.refusal


def test_weights_of_several_dtypes_are_refused() -> None:
    shapes = tensors(kernel=(I, H), recurrent_kernel=(H, H))
    mixed = shapes | {"bias": StoredTensor(Path("none"), 0, "float64", (H,))}
    [layer], _ = FILES.layers_in(mixed)
    assert layer.refusal is not None and "one dtype" in layer.refusal


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: (folder / "saved_model.pb").touch(), "SavedModel"),
        (lambda folder: (folder / "checkpoint").touch(), "tf.train.Checkpoint"),
    ],
)
def test_folders_of_tensorflow_are_refused_by_name(make: Any, reason: str, tmp_path: Path) -> None:
    assert FILES.refusal_of(tmp_path) is None
    make(tmp_path)
    assert reason in str(FILES.refusal_of(tmp_path)) and "numpy.savez" in str(FILES.refusal_of(tmp_path))
    for name in ("ckpt-1.index", "ckpt-1.data-00000-of-00001"):
        assert "tf.train.load_checkpoint" in str(FILES.refusal_of(tmp_path / name))
    assert "one" in str(FILES.refusal_of(tmp_path / "model.weights.json"))
    assert FILES.refusal_of(tmp_path / "model.keras") is None


# Our own files


def contents(spec: ModelSpec, dtype: str = "float64") -> Contents:
    backend = load_backend("numpy")
    return Contents(spec, backend.to_spec(backend.build(spec, 3, dtype)), {"by": "a test"})


def assert_gives_back(path: Path, written: Contents, hints: Hints = NONE) -> None:
    again = FILES.find(path, hints)
    [layer] = again.layers
    assert (layer.path, layer.kind, layer.spec) == ("", "rnnzoo", written.spec)
    for name, array in written.weights.items():
        stored = StoredWeights(layer.parts)[name]
        assert stored.dtype == array.dtype and np.array_equal(stored, array)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("spec", [DOUBLE, CLASSIFIER, CAPTIONER], ids=lambda spec: spec.variant)
def test_files_hold_every_bit(spec: ModelSpec, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    for dtype in ("float32", "float64"):
        written = contents(spec, dtype)
        FILES.write(path, written)
        assert FILES.find(path).provenance == {"by": "a test"} and FILES.find(path).spec == spec
        assert_gives_back(path, written)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_the_same_contents_are_the_same_bytes_at_any_time(suffix: str, tmp_path: Path) -> None:
    for name in ("first", "second"):
        FILES.write(tmp_path / f"{name}{suffix}", contents(CLASSIFIER))
        time.sleep(1.1)  # HDF5 counts seconds
    assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()


def test_written_files_are_keras_own(tmp_path: Path) -> None:
    written = contents(CLASSIFIER)
    FILES.write(tmp_path / "model.keras", written)
    FILES.write(tmp_path / "model.weights.h5", written)
    model, other = keras.saving.load_model(tmp_path / "model.keras"), SequenceModel(CLASSIFIER, dtype="float64")
    other.load_weights(tmp_path / "model.weights.h5")
    for each in (model, other):
        again = load_backend("tf").to_spec(each)
        assert all(np.array_equal(again[key], written.weights[key]) for key in written.weights)


def test_what_keras_saved_of_ours_is_found(tmp_path: Path) -> None:
    model = SequenceModel(CLASSIFIER, seed=2)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.ones((2, T), int), np.array([0, 1]), verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    expected = Contents(CLASSIFIER, load_backend("tf").to_spec(model), {})
    assert_gives_back(tmp_path / "model.keras", expected)
    assert_gives_back(tmp_path / "model.weights.h5", expected, Hints(CLASSIFIER))
    assert any(name.startswith("optimizer/") for name in FILES.find(tmp_path / "model.keras").rest)
    with pytest.raises(WeightError, match=r"surplus .*'embedding/vars/0'"):
        FILES.find(tmp_path / "model.weights.h5", Hints(DOUBLE))


def test_our_layer_in_somebodys_model_is_found(tmp_path: Path) -> None:
    layer = Recurrent(DOUBLE, seed=4)
    path = save(sequential(layer, L.Dense(2)), tmp_path / "model.keras")
    assert spec_of(found(path)[layer.name]) == DOUBLE
    expected = list(load_backend("tf").to_spec(layer).values())
    assert all(np.array_equal(*pair) for pair in zip(arrays(found(path)[layer.name]), expected, strict=True))


# Files of Keras' standard layers

PLAIN_SPECS = [
    ModelSpec("simple_rnn", I, H, nonlinearity="relu"),
    ModelSpec("bi_rnn", I, H, nonlinearity="sigmoid", merge="sum", bias="none"),
    ModelSpec("stacked_rnn", I, H, 12, head=Head(O)),
    ModelSpec("stacked_bi_rnn", I, H, 2, merge="average", embedding=Embedding(7), head=Head(O)),
    ModelSpec("stacked_bi_rnn", I, H, 2, nonlinearity="identity", merge="multiply", head=Head(O, False, "final")),
    CLASSIFIER,
]
WITHOUT_RNNZOO = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "rnnzoo":
            raise ImportError("blocked")
sys.meta_path.insert(0, Blocked())
import numpy, keras
for number in range(int(sys.argv[1])):
    model = keras.saving.load_model(f"{number}.keras")
    numpy.save(f"{number}.npy", model(numpy.load(f"{number}.inputs.npy")))
    model.load_weights(f"{number}.weights.h5")
"""


def test_plain_files_load_and_run_without_this_package(tmp_path: Path, assert_right: Callable[..., None]) -> None:
    inputs = [random_arguments(spec)["inputs"] for spec in PLAIN_SPECS]
    for number, spec in enumerate(PLAIN_SPECS):
        for suffix in (".keras", ".weights.h5"):
            FILES.write(tmp_path / f"{number}{suffix}", contents(spec), plain=True)
            assert_gives_back(tmp_path / f"{number}{suffix}", contents(spec))
        np.save(tmp_path / f"{number}.inputs.npy", inputs[number])
    command = [sys.executable, "-I", "-c", WITHOUT_RNNZOO, str(len(PLAIN_SPECS))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for number, spec in enumerate(PLAIN_SPECS):
        given = checked_inputs(spec, "float64", inputs[number])
        quantity = "scores" if spec.head else "outputs"
        assert_right({quantity: np.load(tmp_path / f"{number}.npy")}, results(spec, contents(spec).weights, given))


@pytest.mark.parametrize("spec", PLAIN_SPECS, ids=lambda spec: f"{spec.variant} {spec.merge}")
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_loaded_plain_files_are_the_spec_itself(
    spec: ModelSpec, suffix: str, tmp_path: Path, assert_right: Callable[..., None]
) -> None:
    path, written = tmp_path / f"model{suffix}", contents(spec)
    FILES.write(path, written, plain=True, prefix="translator." if suffix == ".keras" else "")
    model = PLAIN.loaded(path, spec)
    assert PLAIN.owns(model) and PLAIN.spec_of(model) == spec
    weights = PLAIN.to_spec(model)
    assert all(np.array_equal(weights[name], array) for name, array in written.weights.items())
    for left_out in ((), ("initial_state",), ("initial_state", "lengths")):
        arguments = {name: value for name, value in random_arguments(spec).items() if name not in left_out}
        given = checked_inputs(spec, "float64", **arguments)
        assert_right(PLAIN.run(model, **arguments).arrays(), results(spec, written.weights, given))


@pytest.mark.parametrize("spec", PLAIN_SPECS, ids=lambda spec: f"{spec.variant} {spec.merge}")
def test_gradients_of_plain_layers_are_right(spec: ModelSpec, assert_right: Callable[..., None]) -> None:
    model, arguments = PLAIN.build(spec, seed=3, dtype="float64"), random_arguments(spec)
    given, result = checked_inputs(spec, "float64", **arguments), PLAIN.run(model, **arguments)
    random_like = np.random.default_rng(0).normal
    scores = None if result.scores is None else random_like(size=result.scores.shape)
    states = {name: random_like(size=state.shape) for name, state in result.final_states.items()}
    cotangents = Cotangents(random_like(size=result.outputs.shape), states, scores)
    slopes = PLAIN.gradients(
        model, arguments["inputs"], cotangents.outputs, states, scores,
        lengths=arguments["lengths"], initial_state=arguments["initial_state"],
    )  # fmt: skip
    assert_right(slopes, gradients(spec, PLAIN.to_spec(model), given, cotangents))


def test_somebodys_layers_and_models_run_as_they_are(assert_right: Callable[..., None]) -> None:
    models = [make() for make, _ in LAYERS.values()]
    models.append(sequential(L.SimpleRNN(H, return_sequences=True), L.Dropout(0.5), L.SimpleRNN(H), L.Dense(O)))
    models.append(keras.Sequential([L.Embedding(7, I), L.Bidirectional(L.SimpleRNN(H))]))
    for model in models:
        model.build(
            (None, None)
            if isinstance(model.layers[0] if hasattr(model, "layers") else 0, L.Embedding)
            else (None, None, I)
        )
        spec, dtype = PLAIN.spec_of(model), str(model.weights[0].dtype)
        arguments = random_arguments(spec)
        given = checked_inputs(spec, dtype, **arguments)
        assert_right(PLAIN.run(model, **arguments).arrays(), results(spec, PLAIN.to_spec(model), given), dtype)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: sequential(L.SimpleRNN(H), L.Dense(2), L.Dense(2)), "Dense"),
        (lambda: sequential(L.SimpleRNN(H), L.Dense(2, "softmax")), "without an activation"),
        (lambda: sequential(L.SimpleRNN(H, return_sequences=True), L.SimpleRNN(6)), "one stack"),
        (lambda: sequential(L.Dense(2)), "recurrent layers"),
        (lambda: keras.Sequential([L.Embedding(7, I, mask_zero=True), L.SimpleRNN(H)]), "mask_zero"),
        (lambda: L.SimpleRNN(H), "no weights yet"),
    ],
)
def test_models_that_no_spec_describes_are_refused(make: Callable[[], Any], reason: str) -> None:
    model = make()
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, None))
    with pytest.raises(UnsupportedError, match=reason):
        PLAIN.spec_of(model)


def test_what_standard_layers_lack_is_refused_by_name(tmp_path: Path) -> None:
    for spec, reason in ((CAPTIONER, "context"), (DOUBLE, "one bias")):
        assert reason in str(FILES.holds(spec, plain=True)) and FILES.holds(spec) is None
        with pytest.raises(UnsupportedError, match=reason):
            FILES.write(tmp_path / "model.keras", contents(spec), plain=True)
    with pytest.raises(UnsupportedError, match="older"):
        FILES.write(tmp_path / "model.h5", contents(CLASSIFIER))
    assert not PLAIN.owns(SequenceModel(CLASSIFIER)) and not PLAIN.owns(np)


# Keras' own tests: the numbers in its files simple_rnn_test, bidirectional_test and stacked_rnn_cells_test

CONSTANTS = {"kernel_initializer": 0.01, "recurrent_initializer": 0.02, "bias_initializer": 0.03}
TURNED = {"kernel_initializer": 0.03, "recurrent_initializer": 0.02, "bias_initializer": 0.01}
MASK = np.array([[True, True, False, True], [True, False, False, True]])
STATE = np.arange(8, dtype="float32").reshape(1, 2, 4)


def constant(units: int, values: dict[str, float] = CONSTANTS, **options: Any) -> Any:
    return L.SimpleRNN(units, **{name: keras.initializers.Constant(value) for name, value in values.items()}, **options)


def both(**options: Any) -> Any:
    return L.Bidirectional(constant(2), **options)


PUBLISHED: list[tuple[Callable[[], Any], tuple[int, ...], dict[str, Any], str, Any]] = [
    (lambda: constant(4), (2, 3, 4), {}, "last", [[0.405432] * 4, [0.73605347] * 4]),
    (lambda: constant(4), (2, 4, 3), {"initial_state": STATE}, "last", [[0.33621645] * 4, [0.6262637] * 4]),
    (lambda: constant(4, unroll=True), (2, 4, 3), {"mask": MASK}, "last", [[0.32951632] * 4, [0.61799484] * 4]),
    (
        lambda: constant(2, return_sequences=True, zero_output_for_mask=True), (2, 4, 3), {"mask": MASK}, "outputs",
        [[[v, v] for v in (0.0599281, 0.15122814, 0, 0.32394567)], [[v, v] for v in (0.3969304, 0, 0, 0.608085)]],
    ),
    (both, (2, 3, 4), {}, "last", [[0.39687276] * 2 + [0.10004295] * 2, [0.7237238] * 2 + [0.53391594] * 2]),
    (lambda: both(merge_mode="ave"), (2, 3, 4), {}, "last", [[0.24845785] * 2, [0.6288199] * 2]),
    (
        lambda: both(merge_mode="mul", backward_layer=constant(2, TURNED, go_backwards=True)), (2, 3, 4), {}, "last",
        [[0.08374989] * 2, [0.6740834] * 2],
    ),
]  # fmt: skip


def with_last(spec: ModelSpec, weights: Any, given: Any) -> Any:
    """The results, and what Keras calls the last output: the final states, merged."""
    run = results(spec, weights, given)

    def quantities(ops: Any) -> dict[str, Any]:
        found = run(ops)
        state = found[f"final_state.{spec.cell_definition.states[0]}"]
        return {**found, "last": merged(spec.merge, state, ops)}

    return quantities


def merged(kind: str, state: Any, ops: Any) -> Any:
    forward, backward = state[:, 0], state[:, -1]
    if len(state[0]) == 1:
        return forward
    if kind == "concat":
        return np.concatenate([forward, backward], axis=-1)
    if kind == "multiply":
        return ops.multiply(forward, backward)
    return ops.divide(ops.add(forward, backward), ops.constant(np.array(2.0)))


@pytest.mark.parametrize("number", range(len(PUBLISHED)))
def test_published_numbers_of_keras_come_out_of_every_backend(
    number: int, tmp_path: Path, assert_right: Callable[..., None]
) -> None:
    make, shape, arguments, quantity, expected = PUBLISHED[number]
    x, layer = keras.Input(shape[1:]), make()
    path = tmp_path / "model.keras"
    keras.Model(x, layer(x)).save(path)
    spec, weights = spec_of(found(path)[layer.name]), StoredWeights(found(path)[layer.name].parts)
    inputs = np.arange(24, dtype="float32").reshape(shape)
    given = checked_inputs(spec, "float32", inputs, **arguments)
    right = with_last(spec, weights, given)
    assert_right({quantity: np.array(expected, "float32")}, right, "float32")
    for name in ("numpy", "torch", "tf"):
        backend = load_backend(name)
        model = backend.build(spec)
        backend.from_spec(model, weights)
        assert_right(backend.run(model, inputs, **arguments).arrays(), right, "float32")


REVERSED: list[tuple[tuple[int, ...], dict[str, Any], list[float]]] = [
    ((2, 3, 4), {}, [0.11144729, 0.5528889]),
    ((2, 4, 3), {"initial_state": STATE}, [0.07344437, 0.43043602]),
    ((2, 4, 3), {"mask": MASK[:, ::-1]}, [0.07376196, 0.43645123]),
]


@pytest.mark.parametrize("number", range(len(REVERSED)))
def test_published_numbers_of_a_layer_that_reads_backward_come_out_of_flipped_inputs(
    number: int, tmp_path: Path, assert_right: Callable[..., None]
) -> None:
    """The way out that its refusal names."""
    shape, arguments, expected = REVERSED[number]
    x, backward, forward = keras.Input(shape[1:]), constant(4, go_backwards=True), constant(4)
    path = save(keras.Model(x, backward(x)), tmp_path / "model.keras")
    assert "flip its inputs in time" in str(found(path)[backward.name].refusal)
    keras.Model(x, forward(x)).save(path)
    layer = found(path)[forward.name]
    inputs = np.arange(24, dtype="float32").reshape(shape)[:, ::-1]
    right = with_last(
        spec_of(layer), StoredWeights(layer.parts), checked_inputs(spec_of(layer), "float32", inputs, **arguments)
    )
    assert_right({"last": np.array([[value] * 4 for value in expected], "float32")}, right, "float32")


def test_published_numbers_of_a_stateful_layer_come_out_of_a_state_that_is_handed_on(
    tmp_path: Path, assert_right: Callable[..., None]
) -> None:
    x, layer = keras.Input((3, 4)), constant(4)
    path, inputs = tmp_path / "model.keras", np.arange(24, dtype="float32").reshape(2, 3, 4)
    keras.Model(x, layer(x)).save(path)
    spec, weights = spec_of(found(path)[layer.name]), StoredWeights(found(path)[layer.name].parts)
    for name in ("numpy", "torch", "tf"):
        backend = load_backend(name)
        model = backend.build(spec)
        backend.from_spec(model, weights)
        state = backend.run(model, inputs).final_state
        given = checked_inputs(spec, "float32", inputs, initial_state=state)
        right = with_last(spec, weights, given)
        assert_right({"last": np.array([[v] * 4 for v in (0.40559256, 0.7361247)], "float32")}, right, "float32")
        assert_right(backend.run(model, inputs, initial_state=state).arrays(), right, "float32")


def test_published_stack_of_keras_comes_out_of_every_backend(tmp_path: Path) -> None:
    """Cells of 3 and 2 units, kernels of ones, no activation, no bias: whole numbers, so that nothing is rounded."""
    ones = {"kernel_initializer": "ones", "recurrent_initializer": "ones", "use_bias": False, "activation": None}
    one, two = L.SimpleRNN(3, return_sequences=True, **ones), L.SimpleRNN(2, return_sequences=True, **ones)
    path, x = tmp_path / "model.keras", keras.Input((None, 4))
    keras.Model(x, two(one(x))).save(path)
    for name in ("numpy", "torch", "tf"):
        backend, models = load_backend(name), []
        for layer in (one, two):
            models.append(backend.build(spec_of(found(path)[layer.name])))
            backend.from_spec(models[-1], StoredWeights(found(path)[layer.name].parts))
        outputs, states = np.arange(24.0).reshape(2, 3, 4), []
        for model in models:
            run = backend.run(model, outputs)
            outputs, states = run.outputs, [*states, run.final_state]
        assert outputs.tolist() == [[[v, v] for v in (18, 156, 786)], [[v, v] for v in (162, 1020, 4386)]]
        assert [state[0].tolist() for state in states] == [[[158] * 3, [782] * 3], [[786] * 2, [4386] * 2]]
        outputs = np.arange(24.0).reshape(2, 3, 4)
        for model, state in zip(models, states, strict=True):
            outputs = backend.run(model, outputs, initial_state=state).outputs
        assert outputs[:, -1].tolist() == [[34092] * 2, [173196] * 2]


# Hostile files


def edited(path: Path, change: Callable[[bytes], bytes], member: str = "config.json") -> None:
    """Change a member of the archive, and put it together anew."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] = change(members[member])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def harmless(path: Path) -> Path:
    return save(sequential(L.SimpleRNN(H, name="rnn")), path)


def test_nothing_that_a_file_names_is_made_or_imported(tmp_path: Path, fresh_python: Any) -> None:
    path, trap = harmless(tmp_path / "model.keras"), tmp_path / "empty" / "trap.py"
    layer = {"module": "trap", "class_name": "Trap", "config": {}, "registered_name": "trap>Trap"}
    code = {"class_name": "__lambda__", "config": {"value": "4wEAAAAA"}}

    def change(text: bytes) -> bytes:
        config = json.loads(text)
        config["config"]["layers"].insert(1, layer)
        config["config"]["layers"].append(
            {"module": "keras.layers", "class_name": "Lambda", "config": {"function": code}}
        )
        config["module"], config["config"]["layers"][2]["config"]["activation"] = "trap", code | {"module": "trap"}
        return json.dumps(config).encode()

    edited(path, change)
    trap.write_text("raise SystemExit('the trap was imported')")
    done = fresh_python(
        f"from rnnzoo.tf_impl.files import FILES; from pathlib import Path; import sys; sys.path.insert(0, '.');"
        f"[layer] = FILES.find(Path({str(path)!r})).layers; print(layer.refusal);"
        "print([name for name in sys.modules if name.partition('.')[0] in ('keras', 'tensorflow', 'h5py', 'trap')])"
    )
    assert done.returncode == 0, done.stderr
    assert "activation" in done.stdout and done.stdout.endswith("[]\n") and "trap was" not in done.stdout


def traversal(archive: zipfile.ZipFile) -> None:
    archive.writestr("../escape", "x")


def symbolic_link(archive: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("assets")
    link.external_attr = 0o120777 << 16
    archive.writestr(link, "/etc/passwd")


def second_member(archive: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")


def text_bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("rnnzoo.json", bytes(2**25), zipfile.ZIP_DEFLATED)


def deep_text(archive: zipfile.ZipFile) -> None:
    archive.writestr("rnnzoo.json", "[" * 100_000)


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (traversal, "inside the archive"),
        (symbolic_link, "got a link"),
        (second_member, "one name"),
        (text_bomb, "at most"),
        (deep_text, "rnnzoo"),
    ],
)
def test_archives_made_to_do_harm_are_refused(
    attack: Callable[[zipfile.ZipFile], None], reason: str, tmp_path: Path
) -> None:
    path = harmless(tmp_path / "model.keras")
    with zipfile.ZipFile(path, "a") as archive:
        attack(archive)
    with pytest.raises(FileError, match=rf"model\.keras.*{reason}"):
        FILES.find(path)


def test_compressed_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2**27))
    with pytest.raises(FileError, match="compressed; save the model with Keras"):
        FILES.find(path)


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.keras")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"model.weights.h5") - 46
    start = int.from_bytes(data[data.index(b"PK\x01\x02") + 42 :][:4], "little")
    data[entry + 42 : entry + 46] = start.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(FileError, match=r"model\.keras"):
        FILES.find(path)


def test_damaged_weights_in_an_archive_are_refused(tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.keras")
    place = found(path)["rnn"].parts["layers.0.forward.bias"].tensor.offset
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileError, match="another checksum"):
        FILES.find(path)


def nested(depth: int, children: int = 1) -> bytes:
    layer: dict[str, Any] = {"class_name": "Dense", "config": {}}
    for _ in range(depth):
        layer = {"class_name": "Sequential", "config": {"layers": [layer] * children}}
    return json.dumps(layer).encode()


@pytest.mark.parametrize(
    "config",
    [b"{", b"[" * 10**6, b"\xff", nested(80), nested(1, 250_000)],
    ids=["cut", "deep", "text", "levels", "objects"],
)
def test_configurations_made_to_do_harm_are_refused(config: bytes, tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.keras")
    edited(path, lambda _: config)
    with pytest.raises(FileError, match=r"model\.keras"):
        FILES.find(path)


@pytest.mark.parametrize("config", [b"", b"[]", b'{"class_name": "Sequential", "config": NaN}', b'{"class_name": 1}'])
def test_configurations_that_tell_nothing_leave_the_weights(config: bytes, tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.keras")
    edited(path, lambda _: config)
    assert found(path)["rnn"].assumed == ("nonlinearity",)


def external_link(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group["0"] = h5py.ExternalLink(str(secret), "/data")


def soft_link(file: Any, group: Any, secret: Path) -> None:
    file["elsewhere"] = group["0"][()]
    del group["0"]
    group["0"] = h5py.SoftLink("/elsewhere")


def soft_link_loop(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group["0"] = h5py.SoftLink("0")


def hard_link_loop(file: Any, group: Any, secret: Path) -> None:
    group["loop"] = group
    group["again"] = group


def second_name(file: Any, group: Any, secret: Path) -> None:
    group["again"] = group["0"]


def external_storage(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group.create_dataset("0", (I, H), "f4", external=[(str(secret), 0, I * H * 4)])


def virtual(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    layout = h5py.VirtualLayout((I, H), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "data", (I, H))
    group.create_virtual_dataset("0", layout)


def huge_chunked_shape(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group.create_dataset("0", (2**40, 2**20), "f4", chunks=(1, 1))


def huge_empty_shape(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    h5py.h5d.create(group.id, b"0", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((2**30, 2**30)))


def compressed(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group.create_dataset("0", data=np.zeros((I, H), "f4"), compression="gzip")


def compound(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group.create_dataset("0", data=np.zeros((I, H), [("a", "f4"), ("b", "i8")]))


def without_shape(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group["0"] = h5py.Empty("f4")


def deep_groups(file: Any, group: Any, secret: Path) -> None:
    file.create_group("/".join("g" * 200))


ATTACKS = {
    external_link: "a link to elsewhere", soft_link: "a link to elsewhere", soft_link_loop: "a link to elsewhere",
    hard_link_loop: "a second name", second_name: "a second name", external_storage: "a reference to other files",
    virtual: "a reference to other files", huge_chunked_shape: "in one piece", huge_empty_shape: "in one piece",
    compressed: "in one piece", compound: "in one piece", without_shape: "in one piece", deep_groups: "levels deep",
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", [".weights.h5", ".keras"])
def test_hdf5_made_to_do_harm_is_refused(attack: Callable[..., None], kind: str, tmp_path: Path) -> None:
    path, secret, inner = harmless(tmp_path / f"model{kind}"), tmp_path / "secret.h5", tmp_path / "inner.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.ones((I, H), "f4")
    target = path
    if kind == ".keras":
        with zipfile.ZipFile(path) as archive:
            inner.write_bytes(archive.read("model.weights.h5"))
        target = inner
    with h5py.File(target, "a") as file:
        attack(file, file["layers/simple_rnn/cell/vars"], secret)
    if kind == ".keras":
        edited(path, lambda _: inner.read_bytes(), "model.weights.h5")
    with pytest.raises(FileError, match=f"model.*HDF5.*{ATTACKS[attack]}"):
        FILES.find(path)


def test_our_text_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.weights.h5")
    with h5py.File(path, "a") as file:
        file.attrs["rnnzoo"] = np.arange(3)
    with pytest.raises(FileError, match="attribute 'rnnzoo': expected text"):
        FILES.find(path)


def test_arrays_behind_the_end_of_the_file_are_refused(tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.weights.h5")
    place = found(path)["rnn"].parts["layers.0.forward.bias"].tensor.offset
    assert path.read_bytes().count(place.to_bytes(8, "little")) == 1
    path.write_bytes(path.read_bytes().replace(place.to_bytes(8, "little"), (2**40).to_bytes(8, "little")))
    with pytest.raises(FileError, match=r"model\.weights\.h5: not a whole"):
        FILES.find(path)
    path.write_bytes(path.read_bytes()[:place])
    with pytest.raises(FileError, match=r"model\.weights\.h5: not a whole"):
        FILES.find(path)


def test_nan_and_infinity_are_kept(tmp_path: Path) -> None:
    written = contents(ModelSpec("simple_rnn", I, H))
    written.weights["layers.0.forward.bias"][:3] = np.nan, np.inf, -0.0
    for suffix in (".keras", ".weights.h5"):
        FILES.write(tmp_path / f"model{suffix}", written, plain=True)
        [layer] = FILES.find(tmp_path / f"model{suffix}").layers
        again = StoredWeights(layer.parts)["layers.0.forward.bias"]
        assert again.tobytes() == written.weights["layers.0.forward.bias"].tobytes()


def test_a_large_file_costs_the_sandbox_what_its_directory_costs(tmp_path: Path) -> None:
    spec = ModelSpec("simple_rnn", 16_000, 16_000)  # 1 GiB each, which are holes in the file
    path = tmp_path / "model.weights.h5"
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/simple_rnn/cell/vars")
        for number, shape in enumerate(((16_000, 16_000), (16_000, 16_000), (16_000,))):
            h5py.h5d.create(group.id, str(number).encode(), h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple(shape), early)
    assert path.stat().st_size > 2 * 10**9
    layer = found(path)["simple_rnn"]
    assert layer.spec == spec and not StoredWeights(layer.parts)["layers.0.forward.bias"].any()


def test_the_sandbox_says_the_same(tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.keras")
    assert FILES.find(path).layers[0].spec == ModelSpec("simple_rnn", I, H)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FileError, match=r"model\.keras: not a whole"):
        FILES.find(path)


def test_the_sandbox_leaves_a_heap_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 1.14 reads for ever where an object of its global heap says that it is -16 bytes long."""
    path = harmless(tmp_path / "model.h5")
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 24 : heap + 32] = (2**64 - 16).to_bytes(8, "little")
    path.write_bytes(data)
    monkeypatch.setattr(sandbox, "SECONDS", 3)
    with pytest.raises(FileError, match="not read within 3 seconds"):
        FILES.find(path)


def test_other_files_give_one_error(tmp_path: Path) -> None:
    for name in ("model.keras", "model.weights.h5", "model.h5"):
        path = tmp_path / name
        with pytest.raises(FileError, match="no such file"):
            FILES.find(path)
        for data in (b"", b"no such format", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"):
            path.write_bytes(data)
            with pytest.raises(FileError, match=name):
                FILES.find(path)
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("anything", "else")
    with pytest.raises(FileError, match=r"model\.weights\.h5"):
        FILES.find(tmp_path / "other.keras")


def test_a_layer_that_lacks_the_weights_of_a_direction_is_refused(tmp_path: Path) -> None:
    path = save(sequential(L.Bidirectional(L.SimpleRNN(H))), tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        lost = [name for name in all_names(file) if "backward" in name.rpartition("/")[2]]
        del file[lost[0]]
    (layer,) = FILES.find(path).layers
    assert layer.refusal is not None and "has no weights" in layer.refusal


def all_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


def layers_of(kinds: list[str]) -> bytes:
    """The configuration of a chain of so many layers."""
    made = [{"class_name": kind, "config": {"name": f"{kind}{n}", "units": 2}} for n, kind in enumerate(kinds)]
    return json.dumps({"class_name": "Sequential", "config": {"layers": made}}).encode()


@pytest.mark.parametrize(
    "kinds", [["SimpleRNN"] * 20_000, [*["Dropout"] * 20_000, "SimpleRNN"]], ids=["many", "between"]
)
def test_a_configuration_of_many_layers_is_read_or_refused_at_once(kinds: list[str], tmp_path: Path) -> None:
    path = harmless(tmp_path / "a.keras")
    edited(path, lambda _: layers_of(kinds))
    start = time.process_time()
    if kinds.count("SimpleRNN") > 1:
        with pytest.raises(FileError, match="at most 2,048 recurrent layers"):
            examining.examine(path)
    else:
        assert len(examining.examine(path)["records"]) == 1
    assert time.process_time() - start < 5
