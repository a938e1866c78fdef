"""Keras' standard layers, built anew from the options that somebody's file has for them, and filled in its own order.

Nothing is deserialized: each option has to be a plain value of its type, and goes to the constructor of one of four
classes. What is left out is as Keras has it. Options that do not act in inference, or say how a layer runs and not what
it computes (dropout, initializers, unroll), are none of these.
"""

from . import importing as importing  # first: TensorFlow itself

# isort: split

from collections.abc import Mapping
from typing import Any

import keras

from ..spec.errors import ConformanceError, UnsupportedError
from ..spec.found import Original

TYPES: Mapping[str, type] = {"units": int, "use_bias": bool, "go_backwards": bool}
NAMES = {
    "activation": ("tanh", "relu", "sigmoid", "linear", None),
    "merge_mode": ("concat", "sum", "ave", "mul"),
}
Options = Mapping[str, Any]


def rebuilt(layer: Original, dtype: str) -> Any:
    """A model of the layers, one upon the other.

    Raises:
        UnsupportedError: an option is no plain value.
        ConformanceError: a layer has other weights than the file.
    """
    rows = layer.told["layers"]
    layers = [_layer(row["options"], dtype) for row in rows]
    first = layer.tensors[rows[0]["cells"][0][0]]
    model = keras.Sequential([keras.Input((None, first.shape[0]), dtype=dtype), *layers])
    for built, row in zip(layers, rows, strict=True):
        for cell, names in zip(cells(built), row["cells"], strict=True):
            _fill(cell, {name: layer.tensors[name].array() for name in names})
    return model


def cells(layer: Any) -> list[Any]:
    """The cells of both directions, each from the bottom."""
    sides = [layer.forward_layer, layer.backward_layer] if hasattr(layer, "forward_layer") else [layer]
    return [
        cell for side in sides for cell in getattr(getattr(side, "cell", side), "cells", [getattr(side, "cell", side)])
    ]


def _layer(item: Options, dtype: str) -> Any:
    kind, options = item["class_name"], _plain(item)
    if kind == "SimpleRNN":
        return keras.layers.SimpleRNN(**options, return_sequences=True, dtype=dtype)
    if kind == "RNN":
        return keras.layers.RNN(_cell(item["cell"], dtype), **options, return_sequences=True, dtype=dtype)
    backward = item.get("backward_layer")
    return keras.layers.Bidirectional(
        _layer(item["layer"], dtype), **options, backward_layer=backward and _layer(backward, dtype), dtype=dtype
    )


def _cell(item: Options, dtype: str) -> Any:
    if item["class_name"] == "StackedRNNCells":
        return keras.layers.StackedRNNCells([_cell(cell, dtype) for cell in item["cells"]])
    return keras.layers.SimpleRNNCell(**_plain(item), dtype=dtype)


def _plain(item: Options) -> dict[str, Any]:
    """The constructor's arguments. Raises UnsupportedError."""
    found = {name: item[name] for name in (*TYPES, *NAMES) if name in item}
    for name, value in found.items():
        if value not in NAMES[name] if name in NAMES else type(value) is not TYPES[name]:
            raise UnsupportedError(f"its option {name} is {str(value)[:80]!r}, which is no plain value")
    return found


def _fill(cell: Any, arrays: Mapping[str, Any]) -> None:
    """Set each weight by its number among the cell's, or by its name. Raises ConformanceError."""
    if len(arrays) != len(cell.weights):
        raise ConformanceError(f"the source's layer has {len(cell.weights)} weights, and {len(arrays)} were read")
    for name, array in arrays.items():
        last = name.replace(".", "/").rpartition("/")[2].partition(":")[0]
        variable = cell.weights[int(last)] if last.isdigit() else getattr(cell, last)
        if tuple(variable.shape) != array.shape:
            raise ConformanceError(f"the source's {name} has the shape {array.shape}, and its layer {variable.shape}")
        variable.assign(array)
