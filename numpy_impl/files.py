"""`.npz`: one array a weight under its canonical name, and the text `rnnzoo` (SPEC.md, 14)."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..spec.archives import add_member
from ..spec.backend import Contents
from ..spec.checkpoint import KEY, NO_HINTS, described, envelope, found_by_names
from ..spec.encoder_decoder import AnySpec
from ..spec.found import FoundFile, Hints
from ..spec.npz import find_npz
from ..spec.streaming import Rows, joined, rows_of, write_rows


class NumpyFiles:
    """Reads and writes `.npz` files; nothing in them is ever unpickled."""

    suffixes = (".npz",)

    def find(self, path: Path, hints: Hints = NO_HINTS) -> FoundFile:
        """The models in the file. Raises FileError or WeightError."""
        arrays, texts = find_npz(path)
        return found_by_names("NumPy file", path, arrays, texts.get(KEY), hints)

    def holds(self, spec: AnySpec, *, plain: bool = False) -> str | None:
        """None: a file of arrays holds any model."""
        return None

    def write(self, path: Path, contents: Contents, *, plain: bool = False, prefix: str = "") -> None:
        """Write the file without compression, one weight at a time. Raises WeightError where they do not fit."""
        names, text = described(contents), np.array(envelope(contents.spec, contents.provenance))
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open(f"{KEY}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, text, allow_pickle=False)
            for name in names:
                _add(archive, name, rows_of(contents.weights, name))


def _add(archive: zipfile.ZipFile, name: str, rows: Rows) -> None:
    header, descr = io.BytesIO(), np.lib.format.dtype_to_descr(np.dtype(rows.dtype))
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": rows.shape})
    start = header.getvalue()

    def write(file: BinaryIO) -> int:
        file.write(start)
        return joined(zlib.crc32(start), write_rows(file, rows, summed=True), rows.nbytes)

    add_member(archive, zipfile.ZipInfo(f"{name}.npy"), len(start) + rows.nbytes, write, large=True)


FILES = NumpyFiles()
