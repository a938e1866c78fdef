"""The canonical file: safetensors with one metadata key, `rnnzoo` (SPEC.md, 14)."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from .backend import Contents
from .data import VERSION, check_version
from .encoder_decoder import AnySpec, spec_from_data
from .errors import FileError, SpecError, listed
from .found import FoundFile, Hints
from .naming import canonical_layers
from .parameters import checked_weights, weights_dtype
from .parts import LazyWeights
from .run_state import PREFIX, RunState, check_keys, content_digest
from .safetensors_format import read_header, read_shards, write_safetensors
from .stored import StoredTensor
from .streaming import rows_of
from .temporary import temporary_folder

KEY = "rnnzoo"
SUFFIX = ".safetensors"
NO_HINTS = Hints()
SHOWN = 5  # names of files


def envelope(spec: AnySpec, provenance: Mapping[str, Any] | None = None) -> str:
    """The JSON that every file of ours carries: spec, version, provenance; keys sorted."""
    return json.dumps(_data(spec, provenance or {}), sort_keys=True)


def _data(spec: AnySpec, provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {"provenance": dict(provenance), "spec": spec.to_data(), "version": VERSION}


def read_envelope(text: str, where: str) -> tuple[AnySpec, dict[str, Any]]:
    """The spec and the provenance out of that JSON.

    Raises:
        FileError: not such a JSON, a newer version, or a spec that contradicts itself.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or not isinstance(data.get("provenance", {}), dict):
            raise SpecError("expected an object with spec, version and provenance")
        if unknown := set(data) - {"provenance", "spec", "training", "version"}:
            raise SpecError(f"unknown key {listed(unknown)}")
        check_version(data.get("version"), "metadata")
        return spec_from_data(data.get("spec")), data.get("provenance", {})
    except (ValueError, RecursionError) as error:  # SpecError is a ValueError
        raise FileError(f"{where}: the metadata '{KEY}' cannot be read: {error}") from error


def provenance(**details: Any) -> dict[str, Any]:
    """A provenance record: who wrote the file, and what the caller adds."""
    return {"written_by": f"rnnzoo {metadata.version('rnnzoo')}", **details}


def save(path: Path, contents: Contents, run: RunState | None = None) -> None:
    """Write the canonical file, whole or not at all; with the state of a run, what a training goes on from.

    Raises:
        WeightError: the weights do not fit the spec.
        FileError: the file cannot be written.
    """
    if run is None:
        write_atomically(path, lambda temporary: write(temporary, contents))
    else:
        write_atomically(path, lambda temporary: _write_run(temporary, contents, run))


def write(path: Path, contents: Contents) -> None:
    """Write the canonical file under that very name: the same bytes for the same contents, one weight at a time.

    Raises:
        WeightError: the weights do not fit the spec.
    """
    text = envelope(contents.spec, contents.provenance)
    write_safetensors(path, described(contents), partial(rows_of, contents.weights), {KEY: text})


def _write_run(path: Path, contents: Contents, run: RunState) -> None:
    names = list(described(contents))
    arrays = {name: contents.weights[name] for name in names} | run.tensors()
    data = _data(contents.spec, contents.provenance) | {"training": run.to_data()}
    data["training"]["sha256"] = content_digest(data, arrays)
    tensors = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    write_safetensors(path, tensors, partial(rows_of, arrays), {KEY: json.dumps(data, sort_keys=True)})


def described(contents: Contents) -> dict[str, tuple[str, tuple[int, ...]]]:
    """dtype and shape of each weight in canonical order. Raises WeightError when they do not fit the spec."""
    if isinstance(contents.weights, LazyWeights):
        return contents.weights.described(contents.spec)
    weights = checked_weights(contents.spec, contents.weights, weights_dtype(contents.weights))
    return {name: (array.dtype.name, array.shape) for name, array in weights.items()}


class CanonicalFiles:
    """The canonical file, and any other safetensors file, whole or in shards, whose tensors have canonical names."""

    suffixes = (SUFFIX, f"{SUFFIX}.index.json")

    def find(self, path: Path, hints: Hints = NO_HINTS) -> FoundFile:
        """The models in the file. Raises FileError or WeightError."""
        check_readable(path)
        tensors, metadata = (read_shards if path.suffix.lower() == ".json" else read_header)(path)
        own, _ = _split(path, tensors, metadata)
        return found_by_names("safetensors file", path, own, metadata.get(KEY), hints)

    def holds(self, spec: AnySpec, *, plain: bool = False) -> str | None:
        """None: it holds any model."""
        return None

    def write(self, path: Path, contents: Contents, *, plain: bool = False, prefix: str = "") -> None:
        """Write the file. Raises WeightError when the weights do not fit the spec."""
        write(path, contents)


def found_by_names(
    format: str, path: Path, tensors: Mapping[str, StoredTensor], text: str | None, hints: Hints
) -> FoundFile:
    """The models among named tensors, given the JSON that a file of ours carries. Raises FileError or WeightError."""
    spec, record = (None, None) if text is None else read_envelope(text, str(path))
    layers, rest = canonical_layers(tensors, replace(hints, spec=hints.spec or spec))
    return FoundFile(format, tuple(layers), {name: tensors[name] for name in rest}, {}, spec, record)


FILES = CanonicalFiles()


def load(path: Path, spec: AnySpec | None = None) -> Contents:
    """Read a canonical file; `spec` is needed where the file does not carry one, and wins where it does.

    Raises:
        FileError: not a safetensors file, damaged, or without a spec.
        WeightError: the weights do not fit the spec.
    """
    return _load(path, spec)[0]


def load_run(path: Path) -> tuple[Contents, RunState]:
    """Read a canonical file that a training goes on from.

    Raises:
        FileError: not such a file, or damaged.
        WeightError: the weights do not fit the spec.
    """
    contents, run = _load(path, None)
    if run is None:
        raise FileError(f"{path}: expected a checkpoint, got a model without the state of its training")
    return contents, run


def _load(path: Path, spec: AnySpec | None) -> tuple[Contents, RunState | None]:
    check_readable(path)
    tensors, metadata = read_header(path)
    found, record = (None, {}) if KEY not in metadata else read_envelope(metadata[KEY], str(path))
    spec = spec or found
    if spec is None:
        raise FileError(f"{path}: carries no spec (no metadata '{KEY}'); give one with --spec FILE")
    own, run = _split(path, tensors, metadata)
    weights = {name: tensor.array() for name, tensor in own.items()}
    return Contents(spec, checked_weights(spec, weights, weights_dtype(weights)), record), run


def _split(
    path: Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]
) -> tuple[Mapping[str, StoredTensor], RunState | None]:
    """The model's tensors, and the state of its training where there is one. Raises FileError where it is damaged."""
    if '"training"' not in metadata.get(KEY, ""):
        return tensors, None
    try:
        data = json.loads(metadata[KEY])
        if not isinstance(data, dict) or "training" not in data:
            return tensors, None
        check_keys(data["training"])
        arrays = {name: one.octets() if one.dtype == "U8" else one.array() for name, one in tensors.items()}
        if content_digest(data, arrays) != data["training"]["sha256"]:
            raise FileError("damaged: its content has another SHA-256 than it says")
        own = {name: array for name, array in arrays.items() if name.startswith(PREFIX)}
        run = RunState.from_parts(data["training"], own)
    except (ValueError, RecursionError) as error:  # FileError, WeightError and SpecError are ValueErrors
        raise FileError(f"{path}: not a whole checkpoint: {error}") from error
    return {name: tensor for name, tensor in tensors.items() if name not in own}, run


def check_readable(path: Path) -> None:
    """Raises FileError unless the path is a file that can be opened."""
    try:
        if not path.exists():
            raise FileError(f"{path}: no such file")
        if not path.is_file():
            raise FileError(f"{path}: expected a file, got {_folder(path) if path.is_dir() else 'a device or a pipe'}")
        with path.open("rb"):
            pass
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _folder(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    return f"a folder; name a file in it, such as {', '.join(names[:SHOWN])}" if names else "a folder without files"


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

    The temporary name keeps the suffixes of the path, in lower case, since writers choose their format by them. Where
    the path is a symbolic link, the file that it points to is written.

    Raises:
        FileError: the disk is full, the folder is missing, there is no permission; or `replace` is False and
            another file has the name by now.
    """
    target = Path(os.path.realpath(path))
    try:
        with temporary_folder(target.parent) as folder:
            temporary = folder / path.name.lower()
            write(temporary)
            _sync(temporary)
            _rename(temporary, target, replace)
    except FileExistsError as error:
        raise FileError(f"{path}: exists by now; pass --force to replace it") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}; nothing was left behind") from error
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
