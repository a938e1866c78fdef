"""`.npz`: one array a weight under its canonical name, and the text `rnnzoo` (SPEC.md, 14)."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ..spec.backend import Contents
from ..spec.checkpoint import KEY, NO_HINTS, described, envelope, found_by_names
from ..spec.model import ModelSpec
from ..spec.npz import find_npz
from ..spec.stored import FoundFile, Hints


class NumpyFiles:
    """Reads and writes `.npz` files; nothing in them is ever unpickled."""

    suffixes = (".npz",)

    def find(self, path: Path, hints: Hints = NO_HINTS) -> FoundFile:
        """The models in the file. Raises FileError or WeightError."""
        arrays, texts = find_npz(path)
        return found_by_names("NumPy file", path, arrays, texts.get(KEY), hints)

    def holds(self, spec: ModelSpec, *, plain: bool = False) -> str | None:
        """None: a file of arrays holds any model."""
        return None

    def write(self, path: Path, contents: Contents, *, plain: bool = False, prefix: str = "") -> None:
        """Write the file without compression, one weight at a time. Raises WeightError where they do not fit."""
        names, text = described(contents), np.array(envelope(contents.spec, contents.provenance))
        with zipfile.ZipFile(path, "w") as archive:
            _add(archive, KEY, text)
            for name in names:
                _add(archive, name, contents.weights[name])


def _add(archive: zipfile.ZipFile, name: str, array: ArrayLike) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


FILES = NumpyFiles()
