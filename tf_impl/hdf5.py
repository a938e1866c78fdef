"""HDF5 files of Keras', read as data: where each array stands, and nothing that leads out of the file.

HDF5 can hold links to other files and datasets whose numbers stand in other files (CVE-2026-1669); all of that, and
every link but a hard one, is refused before anything is read.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from ..spec.errors import FileError
from ..spec.stored import StoredTensor

MAXIMUM_OBJECTS, MAXIMUM_DEPTH, MAXIMUM_TEXT = 100_000, 64, 2**24


def tensors(file: h5py.File, path: Path, start: int) -> dict[str, StoredTensor]:
    """Every dataset by its path, such as `layers/simple_rnn/cell/vars/0`, unread.

    Args:
        path, start: where its first byte is.

    Raises:
        FileError: links, references to other files, compression, compound types, more than there should be.
    """
    if file.userblock_size:
        raise FileError("expected an HDF5 file from its first byte on, got a user block before it")
    found: dict[str, StoredTensor] = {}
    seen, made = set[int](), list[str]()
    for name, item in _items(file, "", 0):
        address = h5py.h5o.get_info(item.id).addr
        if address in seen or len(seen) >= MAXIMUM_OBJECTS:
            raise FileError(f"HDF5 object {name}: a second name of another, or more than {MAXIMUM_OBJECTS:,} objects")
        seen.add(address)
        if isinstance(item, h5py.Dataset):
            found[name] = _tensor(name, item, path, start)
        else:
            made += _made(name, item)
    return {name: found[name] for name in dict.fromkeys([*made, *found]) if name in found}


def text(holder: Any, name: str) -> str | None:
    """An attribute that is text; None where there is none. Raises FileError for anything else."""
    if name not in holder.attrs:
        return None
    identifier = holder.attrs.get_id(name)
    if identifier.dtype.kind not in "SO" or identifier.shape or identifier.get_storage_size() > MAXIMUM_TEXT:
        raise FileError(f"attribute {name!r}: expected text, got {identifier.dtype} of shape {identifier.shape}")
    value = holder.attrs[name]
    if not isinstance(value, str | bytes):
        raise FileError(f"attribute {name!r}: expected text, got {type(value).__name__}")
    return value if isinstance(value, str) else value.decode()


def layer_names(file: h5py.File) -> dict[str, str]:
    """What Keras calls the layer of each group that holds variables, by the group's path."""
    found = {}
    for path, item in _items(file, "", 0):
        if isinstance(item, h5py.Group) and path.endswith("/vars") and (name := text(item, "name")):
            found[path.removesuffix("/vars")] = name
    return found


def _items(group: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > MAXIMUM_DEPTH:
        raise FileError(f"HDF5 group {prefix}: more than {MAXIMUM_DEPTH} levels deep")
    for name in group:
        path = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise FileError(f"HDF5 object {path}: expected it in the file itself, got a link to elsewhere")
        item = group[name]
        yield path, item
        if isinstance(item, h5py.Group):
            yield from _items(item, f"{path}/", depth + 1)


def _made(path: str, group: Any) -> list[str]:
    """The paths of a layer's variables in the order in which it made them, as Keras' old format tells."""
    if "weight_names" not in group.attrs:
        return []
    identifier = group.attrs.get_id("weight_names")
    if identifier.dtype.kind not in "SO" or identifier.get_storage_size() > MAXIMUM_TEXT:  # no names are float64
        return []
    names = group.attrs["weight_names"].ravel().tolist()
    return [f"{path}/{name.decode() if isinstance(name, bytes) else name}" for name in names]


def _tensor(name: str, dataset: Any, path: Path, start: int) -> StoredTensor:
    if dataset.external or dataset.is_virtual:
        raise FileError(f"HDF5 dataset {name}: expected its numbers in the file itself, got a reference to other files")
    offset, count = dataset.id.get_offset(), 0 if dataset.shape is None else math.prod(dataset.shape)
    dtype = dataset.dtype
    if dataset.chunks is not None or dataset.shape is None or dtype.names or (offset is None and count):
        raise FileError(f"HDF5 dataset {name}: expected numbers in one piece, as Keras writes them")
    kind = dtype.newbyteorder("=").name
    if dtype.kind == "V" and dtype.itemsize == 2 and text(dataset, "dtype") == "bfloat16":
        kind = "bfloat16"
    return StoredTensor(path, start + (offset or 0), kind, dataset.shape, big_endian=dtype.byteorder == ">")
