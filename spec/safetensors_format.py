"""safetensors files: the header, read without the numbers, and files written one tensor at a time.

The format: the header's length as 8 little-endian bytes, a JSON object from names to dtype, shape and offsets, then the
numbers in row-major order, without holes. https://huggingface.co/docs/safetensors
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import FileError
from .stored import StoredTensor, check_names
from .streaming import Rows, write_rows

MAXIMUM_HEADER = 2**22  # bytes, of thirty thousand tensors: JSON takes 40 times its size in memory
MAXIMUM_SHARDS = 1000
METADATA, INDEX = "__metadata__", "weight_map"
SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8,
}  # fmt: skip
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CODES = {**{name: code for code, name in DTYPES.items()}, "uint8": "U8"}  # of what is written


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of a file by name, unread, and its metadata.

    Raises:
        FileError: a length, a name or an offset is not what the format says; the numbers are not looked at.
    """
    if not path.is_file():  # a pipe would be waited for
        raise FileError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            header, start = _header(file)
            size = file.seek(0, 2) - start
        metadata = header.pop(METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise FileError(f"{METADATA}: expected texts by name")
        check_names(path, header)
        tensors = {name: _tensor(path, name, entry, start) for name, entry in header.items()}
        _check_places({name: header[name]["data_offsets"] for name in tensors}, size)
    except FileError as error:
        raise FileError(f"{path}: not a whole safetensors file: {error}") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    return tensors, metadata


def read_shards(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The same of a file `*.safetensors.index.json`, which says in which file beside it each tensor is."""
    try:
        data = json.loads(path.read_bytes()[: MAXIMUM_HEADER + 1], object_pairs_hook=_without_duplicates)
        places: dict[str, str] = data[INDEX]
        names = set(places.values())
        if not all(isinstance(name, str) and Path(name).name == name for name in names) or len(names) > MAXIMUM_SHARDS:
            raise FileError(f"expected names of at most {MAXIMUM_SHARDS} files in the same folder")
        headers = sum((path.parent / name).is_file() and _header_size(path.parent / name) for name in names)
        if headers > MAXIMUM_HEADER:
            raise FileError(f"expected shards whose headers have at most {MAXIMUM_HEADER:,} bytes, got {headers:,}")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path}: expected JSON with {INDEX!r}, tensors to files: {error}") from error
    shards = {name: read_header(path.parent / name)[0] for name in sorted(set(places.values()))}
    if missing := [name for name, shard in places.items() if name not in shards[shard]]:
        raise FileError(f"{path}: {missing[0]!r} is not in {places[missing[0]]}; it is of another model")
    return {name: shards[shard][name] for name, shard in places.items()}, {}


def write_safetensors(
    path: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    rows: Callable[[str], Rows],
    metadata: Mapping[str, str],
) -> None:
    """Write a file, each tensor as it is read: bytes as the library `safetensors` writes them.

    Args:
        tensors: dtype and shape by name.
        rows: gives those of a name.
    """
    order = sorted(tensors, key=lambda name: (-np.dtype(tensors[name][0]).itemsize, name))
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        dtype, shape = tensors[name]
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            write_rows(file, rows(name))


def _header_size(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def _header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    first = file.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or not 2 <= length <= MAXIMUM_HEADER:
        raise FileError(f"expected a header of 2 to {MAXIMUM_HEADER:,} bytes, got {length:,}")
    text = file.read(length)
    if len(text) < length:
        raise FileError(f"the header says {length:,} bytes, and {len(text):,} are there")
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # FileError is a ValueError
        raise FileError(f"the header is no JSON object of its kind: {error}") from error
    if not isinstance(header, dict):
        raise FileError(f"the header: expected an object, got {type(header).__name__}")
    return header, 8 + length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise FileError("a key stands twice in one object")
    return found


def _tensor(path: Path, name: str, entry: Any, start: int) -> StoredTensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FileError(f"tensor {name!r}: expected dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    known = isinstance(code, str) and code in SIZES
    if not known or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise FileError(f"tensor {name!r}: expected a known dtype, a shape and two offsets, got {str(entry)[:80]}")
    if offsets[1] - offsets[0] != math.prod(shape) * SIZES[code]:
        raise FileError(f"tensor {name!r}: {code} of shape {shape} does not take {offsets[1] - offsets[0]:,} bytes")
    return StoredTensor(path, start + offsets[0], DTYPES.get(str(code), str(code)), tuple(shape))


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _check_places(offsets: Mapping[str, list[int]], size: int) -> None:
    """Raises FileError where tensors overlap, or leave bytes between them or after them."""
    end = 0
    for name, (start, stop) in sorted(offsets.items(), key=lambda item: item[1]):
        if start != end:
            raise FileError(f"tensor {name!r} starts at {start:,}, expected {end:,}, where the one before it ends")
        end = stop
    if end != size:
        raise FileError(f"its tensors end at byte {end:,}, and the file has {size:,}")
