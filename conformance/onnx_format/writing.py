"""The bytes of a model file: what `onnx` makes of the graph, and around it each tensor written where it belongs."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...spec.backend import Contents
from ...spec.checkpoint import KEY, described, envelope
from ...spec.errors import UnsupportedError
from ...spec.model import ModelSpec
from ...spec.parameters import parameters
from ...spec.streaming import rows_of, write_rows
from .model import Place, places, skeleton, tensors

MAXIMUM = 2**31 - 1  # bytes of a protobuf message
GRAPH, INITIALIZER = 7, 5  # fields of ModelProto and GraphProto in onnx.proto3
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9  # fields of TensorProto
DATA_TYPES = {"float32": 1, "float64": 11}


def too_large(spec: ModelSpec, itemsize: int = 4) -> str | None:
    """Why the weights do not fit into one file, or None."""
    size = itemsize * sum(map(math.prod, tensors(spec).values()))
    if size < MAXIMUM - 2**20:  # leaves room for the graph
        return None
    return f"weights of {size:,} bytes: an ONNX file ends at 2 GiB; keep the model in a .safetensors file"


def write_model(path: Path, contents: Contents) -> None:
    """Write a model, one weight at a time. Raises WeightError, UnsupportedError or BackendError."""
    spec = contents.network
    dtype = np.dtype(next(iter(described(contents).values()))[0])
    if reason := too_large(spec, dtype.itemsize):
        raise UnsupportedError(reason)
    model = skeleton(spec, dtype.name, {KEY: envelope(spec, contents.provenance)})
    with path.open("wb") as file:
        starts = dict(_write_frame(file, model, tensors(spec), dtype))
        for parameter in parameters(spec):
            place = places(spec)[parameter.name]
            file.seek(starts[place.tensor] + dtype.itemsize * _first(place, tensors(spec)[place.tensor]))
            write_rows(file, rows_of(contents.weights, parameter.name))


def _write_frame(
    file: BinaryIO, model: Any, shapes: dict[str, tuple[int, ...]], dtype: np.dtype[Any]
) -> Iterator[tuple[str, int]]:
    """Write everything but the numbers, for which zeros are left; gives where those of each tensor start."""
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    openings = {name: _opened(name, shape, dtype) for name, shape in shapes.items()}
    sizes = {name: dtype.itemsize * math.prod(shape) for name, shape in shapes.items()}
    size = len(graph) + sum(len(openings[name]) + sizes[name] for name in shapes)
    file.write(model.SerializeToString() + _opening(GRAPH, size) + graph)
    for name, opening in openings.items():
        file.write(opening)
        yield name, file.tell()
        file.seek(sizes[name], 1)
    file.truncate()


def _opened(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """A tensor up to its numbers."""
    size = dtype.itemsize * math.prod(shape)
    dims = b"".join(_varint(DIMS << 3) + _varint(length) for length in shape)
    kind = _varint(DATA_TYPE << 3) + _varint(DATA_TYPES[dtype.name])
    inside = dims + kind + _opening(NAME, len(name)) + name.encode() + _opening(RAW_DATA, size)
    return _opening(INITIALIZER, len(inside) + size) + inside


def _opening(number: int, size: int) -> bytes:
    """What comes before a field of that many bytes."""
    return _varint(number << 3 | 2) + _varint(size)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    parts = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


def _first(place: Place, shape: tuple[int, ...]) -> int:
    """At which number of its tensor a weight starts."""
    starts = [index if isinstance(index, int) else index.start for index in place.select]
    return sum(start * math.prod(shape[axis + 1 :]) for axis, start in enumerate(starts))
