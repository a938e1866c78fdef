"""The archive that `torch.save` writes, written without torch, one array after the other."""

import math
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..spec.archives import LOCAL_HEADER
from ..spec.stored import Array
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


def write_checkpoint(path: Path, value: Any, arrays: Iterable[Array]) -> None:
    """Write a file that `torch.load(weights_only=True, mmap=True)` reads: the same bytes for the same contents.

    Args:
        value: what `pickled` takes.
        arrays: of the storages, in the order of their keys from 0.
    """
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        _add(file, archive, PICKLE, np.frombuffer(pickled(value), np.uint8))
        _add(file, archive, "byteorder", np.frombuffer(b"little", np.uint8))
        for key, array in enumerate(arrays):
            _add(file, archive, f"data/{key}", np.ascontiguousarray(array, array.dtype.newbyteorder("<")))
        _add(file, archive, "version", np.frombuffer(b"3\n", np.uint8))


def _add(file: BinaryIO, archive: zipfile.ZipFile, name: str, array: Array) -> None:
    info, large = zipfile.ZipInfo(f"archive/{name}"), array.nbytes >= LARGE
    start = file.tell() + LOCAL_HEADER.size + len(info.filename) + (20 if large else 0)
    padding = -(start + 4) % ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)  # as torch itself pads
    with archive.open(info, "w", force_zip64=large) as member:
        member.write(array.reshape(-1).view(np.uint8).data)


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
