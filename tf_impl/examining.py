"""Takes a file of Keras' apart: what a child process with limits runs, so that nothing that it meets matters here.

The kind of a file is told by its first bytes: a `.keras` is a zip archive of JSON and HDF5, all others are HDF5.
"""

import io
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py

from ..spec.archives import Member, members
from ..spec.checkpoint import KEY
from ..spec.errors import FileError, RnnZooError
from . import hdf5
from .configuration import Layers, layers, parsed

CONFIG, METADATA, OWN, WEIGHTS = "config.json", "metadata.json", "rnnzoo.json", "model.weights.h5"
MAXIMUM_JSON = 2**24  # bytes
MAXIMUM_CHECKED = 2**28  # bytes of weights whose checksum is worth 0.2 s
DAMAGED = (
    OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, MemoryError, RuntimeError, RecursionError,
    NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class Window(io.RawIOBase):
    """Some bytes of a file, as a file that can only be read."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self._size, self._at = path.open("rb"), start, size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset from the start, from here or from the end."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or what there is of it."""
        view = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view[: max(0, self._size - self._at)])
        self._at += count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def examine(path: Path) -> dict[str, Any]:
    """What is in a file, as JSON holds it.

    Returns:
        `format`; `own`, the JSON of this package, or None; `records` and `own_classes` out of the configuration, where
        there is one; `tensors` by name; `names` of layers by the path of their variables; `facts`.

    Raises:
        FileError: damaged, of another kind, or made to do harm.
    """
    try:
        with path.open("rb") as file:
            first = file.read(8)
        return _archive(path) if first[:2] == b"PK" else _file(path)
    except RnnZooError as error:
        raise FileError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
    except DAMAGED as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileError(f"{path}: not a whole file of Keras': {reason}") from error


def _archive(path: Path) -> dict[str, Any]:
    found = members(path, deflated=True)
    if WEIGHTS not in found:
        raise FileError(f"{path}: expected the member {WEIGHTS}; not a Keras model")
    weights = found[WEIGHTS]
    if weights.deflated:
        raise FileError(f"{path}: the member {WEIGHTS} is compressed; save the model with Keras, which compresses none")
    texts = {name: _text(path, name, found.get(name)) for name in (CONFIG, METADATA, OWN)}
    _check_sum(path, weights)
    facts = _facts(parsed(texts[METADATA] or "{}", METADATA))
    config = parsed(texts[CONFIG] or "{}", CONFIG)
    with Window(path, weights.offset, weights.size) as window, h5py.File(window, "r") as file:
        return _found("Keras model", file, path, weights.offset, layers(config), facts) | {"own": texts[OWN]}


def _text(path: Path, name: str, member: Member | None) -> str | None:
    if member is None:
        return None
    if member.size > MAXIMUM_JSON:
        raise FileError(f"member {name}: expected at most {MAXIMUM_JSON:,} bytes, got {member.size:,}")
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        return file.read(MAXIMUM_JSON).decode()


def _check_sum(path: Path, member: Member) -> None:
    """Raises FileError where the weights are damaged; larger ones are taken as they are."""
    if member.size > MAXIMUM_CHECKED:
        return
    found = 0
    with Window(path, member.offset, member.size) as window:
        while data := window.read(2**20):
            found = zlib.crc32(data, found)
    if found != member.crc32:
        raise FileError(f"member {WEIGHTS}: damaged: it has another checksum")


def _file(path: Path) -> dict[str, Any]:
    with h5py.File(path, "r") as file:
        text = hdf5.text(file, "model_config")
        config = parsed(text or "{}", "attribute model_config")
        facts = _facts({name: hdf5.text(file, name) for name in ("keras_version", "backend")})
        kind = (
            "legacy Keras model" if text else "legacy Keras weights" if "layer_names" in file.attrs else "Keras weights"
        )
        return _found(kind, file, path, 0, layers(config), facts) | {"own": hdf5.text(file, KEY)}


def _facts(given: Any) -> dict[str, str]:
    items = given.items() if isinstance(given, dict) else ()
    return {str(name): value for name, value in items if isinstance(value, str)}


def _found(
    kind: str, file: h5py.File, path: Path, start: int, config: Layers,
    facts: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    tensors = hdf5.tensors(file, path, start)
    return {
        "format": kind,
        "records": [asdict(record) for record in config.records],
        "own_classes": config.own_classes,
        "tensors": {name: tensor.to_data() for name, tensor in tensors.items()},
        "names": hdf5.layer_names(file),
        "facts": facts,
    }
