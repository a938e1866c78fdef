"""NumPy's `.npz` files, read without unpickling anything."""

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .archives import Member, members
from .checkpoint import check_readable
from .errors import FileError
from .sandbox import examined
from .stored import StoredTensor, check_names

# What zipfile, zlib and NumPy's header reader raise over bytes that are no such file; RuntimeError is an encrypted
# or unsupported entry, MemoryError a header that claims more than there is.
DAMAGED = (
    OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, SyntaxError, MemoryError, RuntimeError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
MAXIMUM_TEXT = 2**24  # bytes of an entry that is text


def read_npz(path: Path) -> dict[str, Any]:
    """The arrays of the file by name. Raises FileError where it is missing, damaged, or holds anything else."""
    check_readable(path)
    if not zipfile.is_zipfile(path):
        raise _damaged(path, ValueError("not a zip file"))
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:  # np.load would leak its own
            arrays = {name: file[name] for name in file.files}
    except DAMAGED as error:
        raise _damaged(path, error) from error
    if strange := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise FileError(
            f"{path}: expected only arrays in an .npz file, got the entry {strange[0]!r}; write it with numpy.savez"
        )
    return arrays


def find_npz(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The arrays of numbers by name, unread, and the texts. Raises FileError where the file is anything else."""
    check_readable(path)
    found = examined(f"{__name__}:examine", path)
    tensors = {name: StoredTensor.from_data(data) for name, data in found["tensors"].items()}
    check_names(path, tensors)
    return tensors, found["texts"]


def examine(path: Path) -> dict[str, Any]:
    """What `find_npz` gives, as JSON holds it; it is run in a child process."""
    tensors, texts = {}, {}
    try:
        places = members(path, deflated=True)
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            for member, place in places.items():
                name = member.removesuffix(".npy")
                with archive.open(member) as entry:
                    array = np.load(entry, allow_pickle=False) if _is_text(entry, place) else None
                if array is not None:
                    texts[name] = str(array)
                    continue
                with archive.open(member) as entry:
                    tensors[name] = _tensor(path, entry, place).to_data()
    except DAMAGED as error:
        raise _damaged(path, error) from error
    return {"tensors": tensors, "texts": texts}


def _is_text(entry: Any, place: Member) -> bool:
    """Whether an entry is a single text; it is left at its start."""
    shape, _, dtype = _header(entry)
    entry.seek(0)
    return bool(dtype.kind == "U" and shape == () and place.size <= MAXIMUM_TEXT)


def _tensor(path: Path, entry: Any, place: Member) -> StoredTensor:
    shape, fortran_order, dtype = _header(entry)
    start = entry.tell()
    entry.seek(0)
    before = zlib.crc32(entry.read(start))
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    if dtype.kind not in "fiub" or place.size != start + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of {dtype} and shape {shape} in {place.size:,} bytes")
    return StoredTensor(
        path,
        place.offset if place.deflated else place.offset + start,
        dtype.newbyteorder("=").name,
        shape,
        strides=tuple(math.prod(shape[:axis]) for axis in range(len(shape))) if fortran_order else None,
        big_endian=dtype.byteorder == ">",
        deflated=(place.stored, start) if place.deflated else None,
        checksum=(before, place.crc32),
    )


def _header(entry: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(entry)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(entry)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(entry)
    raise ValueError(f"an array of version {version}")


def _damaged(path: Path, error: BaseException) -> FileError:
    reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
    return FileError(f"{path}: not a whole .npz file: {reason}; write it with numpy.savez")
