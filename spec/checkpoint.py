"""The canonical file: safetensors with one metadata key, `rnnzoo` (SPEC.md, 14)."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.numpy

from .backend import Contents
from .data import VERSION, check_version
from .errors import FileError, SpecError
from .model import ModelSpec
from .parameters import checked_weights, weights_dtype

T = TypeVar("T")
KEY = "rnnzoo"
SUFFIX = ".safetensors"


def envelope(spec: ModelSpec, provenance: Mapping[str, Any] | None = None) -> str:
    """The JSON that every file of ours carries: spec, version, provenance; keys sorted."""
    return json.dumps(
        {"provenance": dict(provenance or {}), "spec": spec.to_data(), "version": VERSION}, sort_keys=True
    )


def read_envelope(text: str, where: str) -> tuple[ModelSpec, dict[str, Any]]:
    """The spec and the provenance out of that JSON.

    Raises:
        FileError: not such a JSON, a newer version, or a spec that contradicts itself.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or not isinstance(data.get("provenance", {}), dict):
            raise SpecError("expected an object with spec, version and provenance")
        check_version(data.get("version"), "metadata")
        return ModelSpec.from_data(data.get("spec")), data.get("provenance", {})
    except (ValueError, RecursionError) as error:  # SpecError is a ValueError
        raise FileError(f"{where}: the metadata '{KEY}' cannot be read: {error}") from error


def provenance(**details: Any) -> dict[str, Any]:
    """A provenance record: who wrote the file, and what the caller adds."""
    return {"written_by": f"rnnzoo {metadata.version('rnnzoo')}", **details}


def save(path: Path, contents: Contents) -> None:
    """Write the canonical file, whole or not at all.

    Raises:
        WeightError: the weights do not fit the spec.
        FileError: the file cannot be written.
    """
    data = to_bytes(contents)
    write_atomically(path, lambda temporary: _write_bytes(temporary, data))


def to_bytes(contents: Contents) -> bytes:
    """The canonical file's bytes: the same for the same contents. Raises WeightError when the weights do not fit."""
    weights = checked_weights(contents.spec, contents.weights, weights_dtype(contents.weights))
    return safetensors.numpy.save(
        {name: array.copy(order="C") for name, array in weights.items()},
        metadata={KEY: envelope(contents.spec, contents.provenance)},
    )


def load(path: Path, spec: ModelSpec | None = None) -> Contents:
    """Read a canonical file; `spec` is needed where the file does not carry one, and wins where it does.

    Raises:
        FileError: not a safetensors file, damaged, or without a spec.
        WeightError: the weights do not fit the spec.
    """
    weights, text = read_safetensors(path)
    found, record = (spec, {}) if text is None else read_envelope(text, str(path))
    spec = spec or found
    if spec is None:
        raise FileError(f"{path}: carries no spec (no metadata '{KEY}'); give one with --spec FILE")
    return Contents(spec, checked_weights(spec, weights, weights_dtype(weights)), record)


def read_safetensors(path: Path) -> tuple[dict[str, Any], str | None]:
    """All tensors of a safetensors file, and its metadata `rnnzoo`. Raises FileError."""
    return _opened(path, lambda file: ({name: file.get_tensor(name) for name in file.keys()}, _text(file)))  # noqa: SIM118


def is_canonical(path: Path) -> bool:
    """Whether a safetensors file has layers under canonical names; only its header is read. Raises FileError."""
    return _opened(path, lambda file: any(name.startswith("layers.") for name in file.keys()))  # noqa: SIM118


def _text(file: Any) -> str | None:
    text: str | None = (file.metadata() or {}).get(KEY)
    return text


def _opened(path: Path, use: Callable[[Any], T]) -> T:
    check_readable(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return use(file)
    except (safetensors.SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:  # or no NumPy dtype
        raise FileError(f"{path}: not a whole safetensors file: {error}") from error


def check_readable(path: Path) -> None:
    """Raises FileError unless the path is a file that can be opened."""
    try:
        if not path.exists():
            raise FileError(f"{path}: no such file")
        if not path.is_file():
            raise FileError(f"{path}: expected a file, got {'a folder' if path.is_dir() else 'a device or a pipe'}")
        with path.open("rb"):
            pass
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_writable(path: Path, *, force: bool) -> None:
    """Raises FileError where a file would be overwritten without `force`, or its folder is missing."""
    if path.is_dir():
        raise FileError(f"{path}: expected a file name, got a folder")
    if path.exists() and not force:
        raise FileError(f"{path}: exists already; pass --force to replace it")
    if not path.parent.is_dir():
        raise FileError(f"{path}: its folder {path.parent} does not exist; make it first")


def write_atomically(path: Path, write: Callable[[Path], None], *, replace: bool = True) -> None:
    """Let `write` fill a temporary file in the same folder, then give it its name: whole or not at all.

    The temporary name keeps the suffixes of the path, since writers choose their format by them. Where the path
    is a symbolic link, the file that it points to is written.

    Raises:
        FileError: the disk is full, the folder is missing, there is no permission; or `replace` is False and
            another file has the name by now.
    """
    target = Path(os.path.realpath(path))
    try:
        folder = Path(tempfile.mkdtemp(prefix=".rnnzoo-", dir=target.parent))
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    temporary = folder / path.name
    try:
        write(temporary)
        _sync(temporary)
        _rename(temporary, target, replace)
    except FileExistsError as error:
        raise FileError(f"{path}: exists by now; pass --force to replace it") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}; nothing was left behind") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # the file is there; some file systems cannot sync a folder
        _sync(target.parent)


def _rename(temporary: Path, target: Path, replace: bool) -> None:
    if not replace:
        try:
            os.link(temporary, target)  # unlike a rename, refuses a name that is taken
            return
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if target.exists():
                raise FileExistsError(target) from None
    os.replace(temporary, target)


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
