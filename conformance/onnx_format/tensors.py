"""The tensors of an ONNX model: where their numbers are, in the file or beside it."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...spec.errors import FileError
from ...spec.stored import SIZES, StoredTensor

# https://onnx.ai/onnx/api/classes.html: TensorProto.DataType
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip
PLACES = {"float32": "float_data", "float64": "double_data"}
EXTERNAL = 1
MAXIMUM_RANK, MAXIMUM_SMALL = 32, 64  # axes; numbers of a tensor that is read at once


def stored(path: Path, tensor: Mapping[str, Any]) -> StoredTensor:
    """Where the numbers of a decoded tensor are.

    Raises:
        FileError: sizes that lie, or a file beside the model that is not to be read.
    """
    shape, dtype = _shape(path, tensor), DTYPES.get(tensor.get("data_type", 0), "of a type unknown here")
    if dtype not in SIZES:
        return StoredTensor(path, 0, dtype, shape)
    size = math.prod(shape) * SIZES[dtype]
    if tensor.get("data_location", 0) == EXTERNAL:
        return StoredTensor(*_external(path, tensor, size), dtype, shape)
    places = [tensor["raw_data"]] if "raw_data" in tensor else tensor.get(PLACES.get(dtype, ""), [])
    if size == 0:
        return StoredTensor(path, 0, dtype, shape)
    if not places and tensor.get("int32_data"):
        return StoredTensor(path, 0, f"{dtype} written as int32", shape)
    if len(places) != 1 or places[0][1] != size:
        there = sum(place[1] for place in places)
        raise _error(path, tensor, f"{dtype} of shape {shape} takes {size:,} bytes in one piece, got {there:,}")
    return StoredTensor(path, places[0][0], dtype, shape)


def small_numbers(path: Path, tensor: Mapping[str, Any]) -> list[float]:
    """The numbers of a tensor that is an axis, a shape or the like; none where it is large or of another type."""
    place = stored(path, tensor)
    if place.count > MAXIMUM_SMALL:
        return []
    found = place.array().ravel().tolist() if place.dtype in SIZES else _integers(path, tensor, place.dtype)
    return found if len(found) == place.count else []


def _integers(path: Path, tensor: Mapping[str, Any], dtype: str) -> list[float]:
    if dtype not in ("int64", "int32"):
        return []
    offset, size = tensor.get("raw_data", (0, 0))
    if not size or size > MAXIMUM_SMALL * 8 or size % np.dtype(dtype).itemsize:
        return list(tensor.get(f"{dtype}_data", ()))
    with path.open("rb") as file:
        file.seek(offset)
        return list(map(int, np.frombuffer(file.read(size), np.dtype(dtype).newbyteorder("<"))))


def _shape(path: Path, tensor: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tuple(tensor.get("dims", ()))
    if len(shape) > MAXIMUM_RANK or min(shape, default=0) < 0 or math.prod(shape) >= 2**48:
        raise _error(path, tensor, f"expected at most {MAXIMUM_RANK} sizes, none negative, got {str(shape)[:80]}")
    return shape


def _external(path: Path, tensor: Mapping[str, Any], size: int) -> tuple[Path, int]:
    """The file beside the model that has the numbers, and where in it they start."""
    entries = {entry.get("key"): entry.get("value", "") for entry in tensor.get("external_data", ())}
    file = _beside(path, tensor, entries.get("location", ""))
    texts = entries.get("offset", "0"), entries.get("length", str(size))
    if not all(re.fullmatch("[0-9]{1,15}", text) for text in texts):
        raise _error(path, tensor, f"expected numbers for where it is, got {str(texts)[:80]}")
    offset, length = map(int, texts)
    if length != size or offset + size > file.stat().st_size:
        raise _error(path, tensor, f"its {size:,} bytes are not at byte {offset:,} of {file.name}")
    return file, offset


def _beside(path: Path, tensor: Mapping[str, Any], location: str) -> Path:
    """A file in the model's folder or below, and nowhere else, whatever symbolic links there are."""
    folder = Path(os.path.realpath(path.parent))
    file = Path(os.path.realpath(folder / location)) if location.isprintable() else folder
    if file == folder or not file.is_relative_to(folder):
        raise _error(path, tensor, f"its numbers are said to be in {location[:80]!r}; only files beside it are read")
    try:
        if file.is_file():
            return file
    except OSError:  # a name that is too long
        pass
    raise _error(path, tensor, f"its numbers are in {location[:80]!r}, which is not there; put it beside the model")


def _error(path: Path, tensor: Mapping[str, Any], what: str) -> FileError:
    return FileError(f"{path}: tensor {tensor.get('name', '')[:80]!r}: {what}")
