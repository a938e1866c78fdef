"""`.npz`: one array a weight under its canonical name, and the text `rnnzoo` (SPEC.md, 14)."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..spec.backend import Contents
from ..spec.checkpoint import KEY, check_readable, envelope, read_envelope
from ..spec.errors import FileError
from ..spec.model import ModelSpec
from ..spec.parameters import checked_weights, weights_dtype

# What zipfile, zlib and NumPy's header reader raise over bytes that are no such file; RuntimeError is an encrypted
# or unsupported entry, MemoryError a header that claims more than there is.
DAMAGED = (
    OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, SyntaxError, MemoryError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class NumpyFiles:
    """Reads and writes `.npz` files; nothing in them is ever unpickled."""

    suffixes = (".npz",)

    def read(self, path: Path, spec: ModelSpec | None = None) -> Contents:
        """The spec, weights and provenance of the file. Raises FileError or WeightError."""
        arrays = _arrays(path)
        text = arrays.pop(KEY, None)
        found, record = (None, {}) if text is None else read_envelope(str(text), str(path))
        spec = spec or found
        if spec is None:
            raise FileError(f"{path}: carries no spec (no entry '{KEY}'); give one with --spec FILE")
        return Contents(spec, checked_weights(spec, arrays, weights_dtype(arrays)), record)

    def write(self, path: Path, contents: Contents) -> None:
        """Write the file, without compression. Raises WeightError when the weights do not fit the spec."""
        weights = checked_weights(contents.spec, contents.weights, weights_dtype(contents.weights))
        text = np.array(envelope(contents.spec, contents.provenance))
        np.savez(path, allow_pickle=False, **{KEY: text}, **weights)


def _arrays(path: Path) -> dict[str, Any]:
    check_readable(path)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:  # np.load would leak its own
            arrays = {name: file[name] for name in file.files}
    except DAMAGED as error:
        raise FileError(f"{path}: not a whole .npz file: {error}") from error
    if strange := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise FileError(f"{path}: expected only arrays in an .npz file, got the entry {strange[0]!r}")
    return arrays
