"""`.npz`: one array a weight under its canonical name, and the text `rnnzoo` (SPEC.md, 14)."""

from pathlib import Path

import numpy as np

from ..spec.backend import Contents
from ..spec.checkpoint import KEY, envelope, read_envelope
from ..spec.errors import FileError
from ..spec.foreign import refuse_other_cells
from ..spec.model import ModelSpec
from ..spec.npz import read_npz
from ..spec.parameters import checked_weights, weights_dtype


class NumpyFiles:
    """Reads and writes `.npz` files; nothing in them is ever unpickled."""

    suffixes = (".npz",)

    def read(self, path: Path, spec: ModelSpec | None = None) -> Contents:
        """The spec, weights and provenance of the file. Raises FileError, WeightError or UnsupportedError."""
        arrays = read_npz(path)
        text = arrays.pop(KEY, None)
        found, record = (None, {}) if text is None else read_envelope(str(text), str(path))
        spec = spec or found
        refuse_other_cells(path, {name: array.shape for name, array in arrays.items()}, spec)
        if spec is None:
            raise FileError(f"{path}: carries no spec (no entry '{KEY}'); give one with --spec FILE")
        return Contents(spec, checked_weights(spec, arrays, weights_dtype(arrays)), record)

    def write(self, path: Path, contents: Contents) -> None:
        """Write the file, without compression. Raises WeightError when the weights do not fit the spec."""
        weights = checked_weights(contents.spec, contents.weights, weights_dtype(contents.weights))
        text = np.array(envelope(contents.spec, contents.provenance))
        np.savez(path, allow_pickle=False, **{KEY: text}, **weights)
