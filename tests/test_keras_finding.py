"""Every recurrent layer in anybody's Keras files, alone and as stacks; what is none of the spec is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from keras_models import (
    KINDS,
    LAYERS,
    H,
    I,
    L,
    T,
    arrays,
    assert_weights,
    cells,
    edited,
    found,
    save,
    sequential,
    spec_of,
)

from rnnzoo.spec import ModelSpec
from rnnzoo.spec.errors import UnsupportedError, WeightError
from rnnzoo.spec.found import FoundLayer, Hints
from rnnzoo.spec.stored import StoredTensor
from rnnzoo.tf_impl.files import FILES
from rnnzoo.tf_impl.plain import BACKEND as PLAIN

# Keras 3.15 hands its variables to NumPy 2.4 in the old way when it saves them.
pytestmark = [
    pytest.mark.usefixtures("in_this_process"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

# What Keras saves is found


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


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16"])
def test_layers_in_memory_of_another_precision_are_refused(policy: str) -> None:
    layer = L.Bidirectional(L.SimpleRNN(H, recurrent_initializer="zeros", dtype=policy))
    layer.build((None, None, I))
    with pytest.raises(WeightError, match=f"a layer of float32 or float64, got '{policy}'; make it with dtype"):
        PLAIN.spec_of(layer)


def test_a_call_that_was_replaced_is_refused() -> None:
    layer = L.SimpleRNN(H)
    layer.build((None, None, I))
    layer.call = print
    with pytest.raises(UnsupportedError, match="has a call of its own"):
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
