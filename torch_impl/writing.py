"""The archive that `torch.save` writes, written without torch, one array after the other."""

import math
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..spec.archives import LOCAL_HEADER, add_member
from ..spec.streaming import Rows, write_rows
from .checkpoint import DTYPES, PICKLE
from .records import ORDERED_DICT, Global, Held, Storage, Tensor

ALIGNMENT = 64  # bytes; what is mapped into memory is used where it lies
LARGE = 2**31  # bytes, from which on sizes take a field of their own
STORAGES = {dtype: storage for storage, dtype in DTYPES.items()}


def state_dict(tensors: Mapping[str, tuple[str, tuple[int, ...]]], **attributes: str) -> Held:
    """The record of a state dict, whose tensors stand in the archive in this order."""
    items = {
        name: Tensor(Storage(str(key), STORAGES[dtype], math.prod(shape)), 0, shape, _strides(shape))
        for key, (name, (dtype, shape)) in enumerate(tensors.items())
    }
    return Held(ORDERED_DICT, items, attributes or None)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def write_checkpoint(path: Path, value: Any, storages: Iterable[Rows]) -> None:
    """Write a file that `torch.load(weights_only=True, mmap=True)` reads: the same bytes for the same contents.

    Args:
        value: what `pickled` takes.
        storages: their numbers, in the order of their keys from 0.
    """
    with zipfile.ZipFile(path, "w") as archive:
        _add(archive, PICKLE, _bytes(pickled(value)))
        _add(archive, "byteorder", _bytes(b"little"))
        for key, rows in enumerate(storages):
            _add(archive, f"data/{key}", rows)
        _add(archive, "version", _bytes(b"3\n"))


def _bytes(data: bytes) -> Rows:
    return Rows.of(np.frombuffer(data, np.uint8))


def _add(archive: zipfile.ZipFile, name: str, rows: Rows) -> None:
    info, large = zipfile.ZipInfo(f"archive/{name}"), rows.nbytes >= LARGE
    start = archive.start_dir + LOCAL_HEADER.size + len(info.filename) + (20 if large else 0)
    padding = -(start + 4) % ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)  # as torch itself pads
    add_member(archive, info, rows.nbytes, lambda file: write_rows(file, rows, summed=True), large=large)


def pickled(value: Any) -> bytes:
    """A pickle of texts, whole numbers, False, tuples, dicts and the records above; `unpickled` gives it back."""
    return b"\x80\x02" + _encoded(value) + b"."


def _encoded(value: Any) -> bytes:
    match value:
        case False:
            return b"\x89"
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case str():
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        case tuple():
            return b"(" + b"".join(map(_encoded, value)) + b"t"
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Storage():
            return _encoded(("storage", Global("torch", value.kind), value.key, "cpu", value.count)) + b"Q"
        case Tensor():
            arguments = (value.storage, value.offset, value.shape, value.strides, False, Held(ORDERED_DICT))
            return _encoded(Global("torch._utils", "_rebuild_tensor_v2")) + _encoded(arguments) + b"R"
        case Held():
            attributes = b"" if value.state is None else _encoded(value.state) + b"b"
            return _encoded(Global(*value.kind.rsplit(".", 1))) + b")R" + _items(value) + attributes
        case dict():
            return b"}" + _items(value)
    raise TypeError(f"no pickle of {type(value).__name__}")


def _items(value: dict[Any, Any]) -> bytes:
    return b"(" + b"".join(_encoded(key) + _encoded(item) for key, item in value.items()) + b"u"
