"""Keras' HDF5 weight files, read as data: plain datasets alone, and nothing that leads out of the file.

HDF5 can hold links to other files and datasets whose numbers stand in other files (CVE-2026-1669); all of that, and
every link but a hard one, is refused before anything is read.
"""

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from ..spec.errors import FileError
from ..spec.parameters import DTYPES

MAXIMUM_OBJECTS = 100_000
MAXIMUM_DEPTH = 32


def datasets(file: h5py.File) -> dict[str, Any]:
    """Every dataset by its path, `layer/vars/key`, unread. Raises FileError for what a weight file has no need of."""
    found = {}
    for count, (path, item) in enumerate(_items(file, "", 0)):
        if count >= MAXIMUM_OBJECTS:
            raise FileError(f"more than {MAXIMUM_OBJECTS} objects in the HDF5 file")
        if isinstance(item, h5py.Dataset):
            _check_plain(path, item)
            found[path] = item
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


def _check_plain(path: str, dataset: Any) -> None:
    if dataset.external or dataset.is_virtual:
        raise FileError(f"HDF5 dataset {path}: expected its numbers in the file itself, got a reference to other files")
    if dataset.chunks is not None or dataset.shape is None:
        raise FileError(f"HDF5 dataset {path}: expected an array in one piece, as Keras writes it")


def read(path: str, dataset: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The numbers of a dataset of this shape. Raises FileError for another shape or dtype, without reading."""
    if dataset.shape != shape:
        raise FileError(f"weight {path}: expected shape {shape}, got {dataset.shape}")
    if dataset.dtype.newbyteorder("=").name not in DTYPES:
        raise FileError(f"weight {path}: expected {' or '.join(DTYPES)}, got {dataset.dtype}")
    return np.asarray(dataset[()], dataset.dtype.newbyteorder("="))
