"""Keras' models and files for tests: what they are, how they are saved, and what is found in them."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras.src.legacy.saving import legacy_h5_format

from rnnzoo.spec import Contents, Context, Embedding, Head, ModelSpec, load_backend, parameters
from rnnzoo.spec.found import FoundLayer, Hints
from rnnzoo.spec.parts import StoredWeights
from rnnzoo.tf_impl.files import FILES

I, H, O, T = 3, 4, 2, 5  # noqa: E741
NONE = Hints()
L = keras.layers
KINDS = (".keras", ".h5", ".weights.h5")
CLASSIFIER = ModelSpec("bi_rnn", I, H, embedding=Embedding(7), head=Head(O, reads="final"))
CAPTIONER = ModelSpec("stacked_rnn", I, H, 2, head=Head(O), context=Context(8))
DOUBLE = ModelSpec("stacked_bi_rnn", I, H, 2, bias="double")


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
