"""Layers that the plain frameworks build with every option of their constructors, moved into the other one and back."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

from rnnzoo.conformance import assert_equivalent, converted
from rnnzoo.conformance.cli import main
from rnnzoo.spec.errors import UnsupportedError

# Keras 3.15 hands its variables to NumPy 2.4 in the old way when it saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

I, H = 3, 4  # noqa: E741 (the spec's symbol)
L = keras.layers
NAMES = ("num_layers", "nonlinearity", "bias", "bidirectional")
OF_TORCH = list(product((1, 2), ("tanh", "relu"), (True, False), (True, False)))


@pytest.mark.filterwarnings("ignore:(input_bias|bias became):UserWarning")
@pytest.mark.parametrize("number", range(len(OF_TORCH)))
def test_every_option_of_torchs_layer_goes_to_keras_and_back(number: int) -> None:
    options = dict(zip(NAMES, OF_TORCH[number], strict=True))
    options |= {"batch_first": number % 3 == 0, "dtype": (torch.float32, torch.float64)[number % 5 == 0]}
    module = torch.nn.RNN(I, H, **options, dropout=0.3 * (options["num_layers"] - 1))
    there = converted(module, "tf")
    back = converted(there, "torch")
    assert {type(layer).__module__.partition(".")[0] for layer in there.layers} == {"keras"}
    assert_equivalent(module, back)
    weights = [name for name, _ in module.named_parameters() if "weight" in name]
    assert weights and all(torch.equal(module.get_parameter(name), back.get_parameter(name)) for name in weights)


def simple(**options: Any) -> Any:
    return L.SimpleRNN(H, **options)


ACTIVATIONS = ("tanh", "relu", "sigmoid", "linear")
OF_KERAS: Mapping[str, tuple[Any, str | None]] = {  # and what torch lacks
    **{f"activation {name}": (lambda name=name: simple(activation=name), None if name in ("tanh", "relu") else name)
       for name in ACTIVATIONS},
    "no bias": (lambda: simple(use_bias=False), None),
    "options that do not act here": (
        lambda: simple(
            return_sequences=True, return_state=True, dropout=0.1, recurrent_dropout=0.2, unroll=False, seed=3,
            zero_output_for_mask=True, kernel_regularizer="l2", recurrent_regularizer="l1", bias_regularizer="l2",
            activity_regularizer="l2", kernel_constraint="non_neg", recurrent_constraint="unit_norm",
            bias_constraint="max_norm", kernel_initializer="ones", recurrent_initializer="identity",
            bias_initializer="uniform",
        ), None,
    ),
    "float64": (lambda: simple(dtype="float64"), None),
    "Bidirectional": (lambda: L.Bidirectional(simple()), None),
    **{f"merge_mode {name}": (lambda name=name: L.Bidirectional(simple(use_bias=False), name), other)
       for name, other in (("concat", None), ("sum", "sum"), ("ave", "average"), ("mul", "multiply"))},
    "backward_layer": (
        lambda: L.Bidirectional(simple(), backward_layer=simple(go_backwards=True, name="other"), name="both"), None,
    ),
}  # fmt: skip


def built(name: str) -> Any:
    layer = OF_KERAS[name][0]()
    layer.build((None, None, I))
    for number, variable in enumerate(layer.weights):
        if variable.dtype.startswith("float"):
            variable.assign(np.random.default_rng(number).normal(size=variable.shape))
    return layer


@pytest.mark.filterwarnings("ignore:(input_bias|bias became):UserWarning")
@pytest.mark.parametrize("name", OF_KERAS)
def test_every_option_of_keras_layers_goes_to_torch_and_back(name: str) -> None:
    layer, lacking = built(name), OF_KERAS[name][1]
    if lacking:
        with pytest.raises(UnsupportedError, match={"linear": "identity"}.get(lacking, lacking)):
            converted(layer, "torch")
        return
    there = converted(layer, "torch")
    assert isinstance(there, torch.nn.RNN)
    back = converted(there, "tf")
    assert_equivalent(layer, back)
    kernels = [variable for variable in layer.weights if "kernel" in variable.path]
    again = [variable for variable in back.weights if "kernel" in variable.path]
    assert all(np.array_equal(a, b) for a, b in zip(map(np.asarray, kernels), map(np.asarray, again), strict=True))


def test_what_torch_lacks_goes_through_files_of_onnx_and_back(
    tmp_path: Path, in_this_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [make for name, (make, lacking) in OF_KERAS.items() if lacking or name == "backward_layer"]
    layers, x = [make() for make in rows], keras.Input((None, I))
    keras.Model(x, [layer(x) for layer in layers]).save(tmp_path / "all.keras")
    assert main(["convert", str(tmp_path / "all.keras"), str(tmp_path / "out.onnx"), "--all"]) == 0
    for layer in layers:
        source, target = tmp_path / f"out.{layer.name}.onnx", tmp_path / f"{layer.name}.keras"
        assert main(["convert", str(source), str(target), "--plain"]) == 0
        assert_equivalent(layer, keras.saving.load_model(target))
    assert "oracle" not in capsys.readouterr().out
