"""What a proof runs: the source in its own words, so that a reader's mistake ends without a target."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import torch

from rnnzoo.conformance.convert import Conversion, convert
from rnnzoo.conformance.onnx_format import nodes, trails
from rnnzoo.spec import Contents, ModelSpec, initial_weights, save
from rnnzoo.spec.errors import ConformanceError
from rnnzoo.spec.found import FoundLayer, Hints
from rnnzoo.tf_impl import finding, options
from rnnzoo.torch_impl import naming

# Keras 3.15 hands its variables to NumPy 2.4 in the old way when it saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

I, H = 3, 4  # noqa: E741 (the spec's symbol)
L = keras.layers
AS_READ = "(the layer as it was read)"
OWN = {
    "torch": "(the file's own tensors under their own names)",
    "keras": "(the file's own configuration)",
    "onnx": "(the file's own nodes)",
}


def of_torch(module: torch.nn.Module) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save({"net": module.state_dict()}, folder / "source.pt")
        return folder / "source.pt"

    return write


def of_keras(*layers: Any, suffix: str = ".keras") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        model = keras.Sequential([keras.Input((None, I)), *layers])
        for number, variable in enumerate(model.weights):
            variable.assign(np.random.default_rng(number).normal(size=variable.shape))
        path = folder / f"source{suffix}"
        model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
        return path

    return write


def of_onnx(*lines: str, D: int = 2, kind: Any = np.float32, **how: Any) -> Callable[[Path], Path]:
    """Nodes in ONNX' textual syntax; W, R and B are of a layer that reads X, V, S and C of one that reads its sums."""

    def write(folder: Path) -> Path:
        numbers = np.random.default_rng(0)
        shapes = {"W": (D, H, I), "R": (D, H, H), "B": (D, 2 * H), "V": (D, H, H), "S": (D, H, H)}
        shapes |= {"C": (D, 2 * H)}
        constants: dict[str, Any] = {name: numbers.normal(size=shape).astype(kind) for name, shape in shapes.items()}
        constants |= {"i1": np.array([1]), "i2": np.array([2])}
        text = '<ir_version: 8, opset_import: ["": 18]> g (float[T,B,3] X) => (float Z) { ' + " ".join(lines) + " }"
        model = onnx.parser.parse_model(text)
        model.graph.initializer.extend(onnx.numpy_helper.from_array(one, name) for name, one in constants.items())
        onnx.save(model, folder / "source.onnx", **how)
        return folder / "source.onnx"

    return write


BOTH = 'RNN <direction = "bidirectional", hidden_size = 4'
SUMMED = "Y2 = ReduceSum <keepdims = 0> (Y, i1)"
STACK = (f"Y, Z = {BOTH}> (X, W, R, B)", SUMMED, f"U = {BOTH}> (Y2, V, S, C)", "U2 = ReduceSum <keepdims = 0> (U, i1)")
BATCHES = (
    f"Y = {BOTH}, layout = 1> (X, W, R)", "Y2 = ReduceMean <keepdims = 0> (Y, i2)",
    f"U = {BOTH}, layout = 1> (Y2, V, S)",
)  # fmt: skip
SOURCES: Mapping[str, tuple[str, Callable[[Path], Path], str | None]] = {
    "torch, a stack": ("torch", of_torch(torch.nn.RNN(I, H, 2, bidirectional=True)), None),
    "torch, a cell": ("torch", of_torch(torch.nn.RNNCell(I, H, bias=False, dtype=torch.float64)), None),
    "torch, half precision": ("torch", of_torch(torch.nn.RNN(I, H, dtype=torch.bfloat16)), None),
    "Keras, a layer": ("keras", of_keras(L.SimpleRNN(H, "sigmoid", use_bias=False)), None),
    "Keras, cells": ("keras", of_keras(L.RNN([L.SimpleRNNCell(H), L.SimpleRNNCell(H)]), suffix=".h5"), None),
    "Keras, a stack": (
        "keras",
        of_keras(
            L.Bidirectional(L.SimpleRNN(H, return_sequences=True, name="a"), merge_mode="sum", name="lower"),
            L.Bidirectional(
                L.SimpleRNN(H, name="b"), "sum", backward_layer=L.SimpleRNN(H, go_backwards=True, name="c"), name="top"
            ),
        ),
        "lower..top",
    ),
    "ONNX, a stack": ("onnx", of_onnx(*STACK), "Y..U"),
    "ONNX, a layer of a stack": ("onnx", of_onnx(*STACK), "U"),
    "ONNX, batches first": ("onnx", of_onnx(*BATCHES), "Y..U"),
    "ONNX, one direction": ("onnx", of_onnx("Y = RNN <hidden_size = 4> (X, W, R)", D=1), None),
    "ONNX, float64": ("onnx", of_onnx("Y = RNN <hidden_size = 4> (X, W, R, B)", D=1, kind=np.float64), None),
    "ONNX, numbers elsewhere": (
        "onnx", of_onnx(*STACK, save_as_external_data=True, location="numbers", size_threshold=100), "Y..U",
    ),
}  # fmt: skip


def proven(folder: Path, name: str) -> Conversion:
    _, write, layer = SOURCES[name]
    return convert(write(folder), folder / "target.npz", layer=layer)


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_run_in_its_own_words(name: str, tmp_path: Path, in_this_process: None) -> None:
    proof = proven(tmp_path, name).proof
    assert proof.ran[0].startswith(SOURCES[name][0]) and proof.ran[0].endswith(OWN[SOURCES[name][0]])
    assert proof.ran[1].startswith("numpy") and proof.ran[1].endswith(AS_READ)
    assert all(one.ratio <= 1 and one.decidable for one in proof.comparisons if one.quantity == "outputs")


def test_what_its_file_does_not_tell_is_run_as_it_was_read(tmp_path: Path, in_this_process: None) -> None:
    path = of_keras(L.SimpleRNN(H), suffix=".weights.h5")(tmp_path)
    assert convert(path, tmp_path / "target.npz").proof.ran[0].endswith(AS_READ)


def test_a_large_source_is_cut_and_run_as_it_was_read(tmp_path: Path, in_this_process: None) -> None:
    done = convert(of_torch(torch.nn.RNN(1024, 1024))(tmp_path), tmp_path / "target.npz")
    assert done.proof.ran[0].endswith(AS_READ) and "a large model" in done.proof.notes[0]


@pytest.mark.parametrize(("suffix", "name"), [(".onnx", "onnx"), (".keras", "keras"), (".pt", "torch")])
@pytest.mark.parametrize("variant", ["bi_rnn", "stacked_bi_rnn"])
def test_standard_layers_that_this_package_wrote_are_run_in_their_own_words(
    variant: str, suffix: str, name: str, tmp_path: Path, in_this_process: None
) -> None:
    merge = "concat" if suffix == ".pt" else "sum"
    spec = ModelSpec(variant, I, H, 1 + variant.startswith("s"), "relu", "none", merge)
    save(tmp_path / "model.safetensors", Contents(spec, initial_weights(spec, 1), {}))
    convert(tmp_path / "model.safetensors", tmp_path / f"model{suffix}", plain=True)
    done = convert(tmp_path / f"model{suffix}", tmp_path / "model.npz")
    assert done.layer.spec == spec and done.proof.ran[0].endswith(OWN[name])


# A reader's mistake


def swapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a function gives, with forward for backward."""

    def other(*arguments: Any) -> dict[str, Any]:
        turned = {"forward": "backward", "backward": "forward"}
        return {
            ".".join(turned.get(word, word) for word in name.split(".")): part
            for name, part in function(*arguments).items()
        }

    return other


def turned(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a function gives, with the recurrent weights transposed."""

    def other(*arguments: Any) -> dict[str, Any]:
        found = function(*arguments)
        return {
            n: replace(part, transposed=not part.transposed) if "recurrent_w" in n else part
            for n, part in found.items()
        }

    return other


def reversed_stack(function: Callable[..., FoundLayer]) -> Callable[..., FoundLayer]:
    """A stack with its upper layer's recurrent weights in the lower one."""

    def other(*arguments: Any) -> FoundLayer:
        layer = function(*arguments)
        names = {n: n.replace("s.0", "s.1") if "s.0" in n else n.replace("s.1", "s.0") for n in layer.parts}
        return replace(layer, parts={n: layer.parts[m if "recurrent_w" in n else n] for n, m in names.items()})

    return other


Patch = pytest.MonkeyPatch


def changed(module: Any, name: str, change: Callable[[Any], Any]) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(module, name, change(getattr(module, name)))


def mistaken(table: Any, name: str, meaning: str) -> Callable[[Patch], None]:
    return lambda patch: patch.setitem(table, name, meaning)


MISTAKES: Mapping[str, tuple[str, Callable[[Patch], None]]] = {
    "directions of torch": (
        "torch, a stack", changed(naming, "DIRECTION_SUFFIXES", lambda _: {"forward": "_reverse", "backward": ""}),
    ),
    "directions of Keras": ("Keras, a stack", changed(finding, "_parts", swapped)),
    "activation of Keras": ("Keras, a layer", mistaken(options.ACTIVATIONS, "sigmoid", "tanh")),
    "merge of Keras": ("Keras, a stack", mistaken(options.MERGES, "sum", "average")),
    "transposition of Keras": ("Keras, cells", changed(finding, "_parts", turned)),
    "order of Keras": ("Keras, a stack", changed(finding, "_stack", reversed_stack)),
    "activation of ONNX": ("ONNX, one direction", mistaken(nodes.ACTIVATIONS, "tanh", "relu")),
    "directions of ONNX": ("ONNX, a stack", changed(nodes, "_parts", swapped)),
    "transposition of ONNX": ("ONNX, batches first", changed(nodes, "_parts", turned)),
    "merge of ONNX": ("ONNX, batches first", mistaken(trails.REDUCED, "ReduceMean", "sum")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_reading_ends_without_a_target(
    mistake: str, tmp_path: Path, in_this_process: None, monkeypatch: Patch
) -> None:
    name, make = MISTAKES[mistake]
    proven(tmp_path, name)
    (tmp_path / "target.npz").unlink()
    make(monkeypatch)
    with pytest.raises(ConformanceError, match=r"differ: outputs at|than what was read"):
        proven(tmp_path, name)
    assert not (tmp_path / "target.npz").exists()


def test_a_nonlinearity_that_is_not_the_modules_is_refused(tmp_path: Path, in_this_process: None) -> None:
    torch.save(torch.nn.RNNCell(I, H, nonlinearity="relu"), tmp_path / "cell.pt")
    done = convert(tmp_path / "cell.pt", tmp_path / "target.npz")
    assert done.spec.nonlinearity == "relu" and done.layer.assumed == ()
    with pytest.raises(ValueError, match="its nonlinearity is relu, not tanh"):
        convert(tmp_path / "cell.pt", tmp_path / "other.npz", hints=Hints(nonlinearity="tanh"))
