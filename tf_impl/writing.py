"""Writes Keras' files without Keras, one weight at a time.

h5py makes the file with its places for the weights, which stay empty; the numbers go there by the file system, as HDF5
brings the process down when the disk fills up under it, and as so the zip member of a `.keras` is written in one go.
"""

import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import h5py
import numpy as np

from ..spec.archives import add_member
from ..spec.backend import Contents
from ..spec.checkpoint import KEY, described, envelope
from ..spec.streaming import joined, rows_of, write_rows
from . import architecture
from .examining import CONFIG, METADATA, OWN, WEIGHTS
from .finding import own_place
from .naming import plain_place


class Row(NamedTuple):
    """A weight: its canonical name, its name and its shape in the file, and whether it is transposed there."""

    name: str
    key: str
    shape: tuple[int, ...]
    transposed: bool


def write(path: Path, contents: Contents, *, plain: bool, prefix: str) -> None:
    """Write a `.keras` or a `.weights.h5`. Raises WeightError where the weights do not fit the spec."""
    found, text = described(contents), envelope(contents.spec, contents.provenance)
    dtype, rows = next(iter(found.values()))[0], []
    for name, (_, shape) in found.items():
        key, transposed = plain_place(contents.network, name) if plain else own_place(name)
        rows.append(Row(name, key, shape[::-1] if transposed else shape, transposed))
    if path.suffix != ".keras":
        places = _make(path, rows, dtype, text)
        with path.open("r+b") as file:
            for row, offset in zip(rows, places, strict=True):
                file.seek(offset)
                write_rows(file, rows_of(contents.weights, row.name, transposed=row.transposed))
        return
    model = (
        architecture.plain_model(contents.network, dtype, prefix)
        if plain
        else architecture.own_model(contents.spec, dtype)
    )
    texts = {CONFIG: json.dumps(model), METADATA: json.dumps({"keras_version": "3"}), OWN: text}
    with (
        tempfile.TemporaryDirectory(prefix=".keras-", dir=path.parent) as folder,
        zipfile.ZipFile(path, "w") as archive,
    ):
        empty = Path(folder, WEIGHTS)
        places = _make(empty, rows, dtype, None)
        for member, data in texts.items():
            archive.writestr(zipfile.ZipInfo(member), data)
        in_order = sorted(zip(places, rows, strict=True))
        with empty.open("rb") as file:
            add_member(
                archive, zipfile.ZipInfo(WEIGHTS), empty.stat().st_size,
                lambda target: _fill(target, file, in_order, contents), large=True,
            )  # fmt: skip


def _make(path: Path, rows: list[Row], dtype: str, text: str | None) -> list[int]:
    """Make the file with places for the weights, and say at which bytes they are."""
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    early.set_obj_track_times(False)  # the same bytes for the same contents
    with h5py.File(path, "w") as file:
        if text is not None:
            file.attrs[KEY] = np.bytes_(text.encode())
        kind = h5py.h5t.py_create(np.dtype(dtype).newbyteorder("<"))
        places = []
        for row in rows:
            group, _, name = row.key.rpartition("/")
            space = h5py.h5s.create_simple(row.shape)
            dataset = h5py.h5d.create(file.require_group(group).id, name.encode(), kind, space, early)
            places.append(dataset.get_offset())
    return places


def _fill(target: BinaryIO, empty: BinaryIO, places: list[tuple[int, Row]], contents: Contents) -> int:
    """Write the file from the first byte to the last, with the numbers in their places; gives its CRC-32."""
    total = 0
    for offset, row in places:
        total = _between(target, empty.read(offset - empty.tell()), total)
        rows = rows_of(contents.weights, row.name, transposed=row.transposed)
        total = joined(total, write_rows(target, rows, summed=True), rows.nbytes)
        empty.seek(rows.nbytes, os.SEEK_CUR)
    return _between(target, empty.read(), total)


def _between(target: BinaryIO, data: bytes, total: int) -> int:
    target.write(data)
    return zlib.crc32(data, total)
