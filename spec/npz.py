"""NumPy's `.npz` files, read without unpickling anything."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import check_readable
from .errors import FileError

# What zipfile, zlib and NumPy's header reader raise over bytes that are no such file; RuntimeError is an encrypted
# or unsupported entry, MemoryError a header that claims more than there is.
DAMAGED = (
    OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, SyntaxError, MemoryError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_npz(path: Path) -> dict[str, Any]:
    """The arrays of the file by name. Raises FileError where it is missing, damaged, or holds anything else."""
    check_readable(path)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:  # np.load would leak its own
            arrays = {name: file[name] for name in file.files}
    except DAMAGED as error:
        raise FileError(
            f"{path}: not a whole .npz file: {str(error) or type(error).__name__}; write it with numpy.savez"
        ) from error
    if strange := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise FileError(
            f"{path}: expected only arrays in an .npz file, got the entry {strange[0]!r}; write it with numpy.savez"
        )
    return arrays
