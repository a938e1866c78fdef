"""Model files of all formats: a row each, and how a file is recognised by its first bytes and its name."""

import importlib
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..spec import checkpoint
from ..spec.backend import Contents, load_files, load_plain
from ..spec.checkpoint import NO_HINTS
from ..spec.encoder_decoder import AnySpec, spec_from_text
from ..spec.errors import BackendError, FileError, InputError, UnsupportedError, WeightError, listed
from ..spec.found import FoundFile, FoundLayer, Hints
from ..spec.naming import KIND
from ..spec.parts import StoredWeights
from ..spec.stored import check_names

AMPLIFIED = 64  # times that the weights of an honest file are larger than it, compressed ones included
TOP = "."  # what the layer is called whose weights have no prefix
NUMPY, TORCH, KERAS = "numpy", "torch", "tf"  # the backends that run what the formats hold


class Format(NamedTuple):
    """A format.

    Attributes:
        name: in words.
        suffixes: of its files; the longest that fits a name counts.
        backend: that runs the zoo's own layout.
        module: whose `FILES` reads and writes it, None for the backend's own `files`.
        plain: whether there are layers of a framework's own that it can hold.
        read_only: suffixes of files that are not written.
    """

    name: str
    suffixes: tuple[str, ...]
    backend: str
    module: str | None = None
    plain: bool = False
    read_only: tuple[str, ...] = ()

    @property
    def plain_backend(self) -> Any:
        """What runs the framework's own layers. Raises BackendError where it is not installed."""
        if self.module is None:
            return load_plain(self.backend)
        try:
            return importlib.import_module(f"{self.module}.plain", __package__).BACKEND
        except ModuleNotFoundError as error:
            words = f"the package {error.name!r} is not installed; run: pip install 'rnnzoo[onnx]'"
            raise BackendError(words) from error

    @property
    def files(self) -> Any:
        """What reads and writes it; no framework is imported."""
        return importlib.import_module(self.module, __package__).FILES if self.module else load_files(self.backend)


CANONICAL = Format(
    "safetensors", checkpoint.FILES.suffixes, NUMPY, "..spec.checkpoint", read_only=checkpoint.FILES.suffixes[1:]
)
ARRAYS = Format("NumPy", (".npz",), NUMPY)
PYTORCH = Format("PyTorch", (".pt", ".pth", ".bin", ".ckpt", ".torch.safetensors"), TORCH, plain=True)
KERAS_FILE = Format("Keras", (".keras", ".weights.h5", ".h5", ".hdf5"), KERAS, plain=True, read_only=(".h5", ".hdf5"))
ONNX = Format("ONNX", (".onnx",), NUMPY, ".onnx_format", plain=True)
FORMATS = (CANONICAL, ARRAYS, PYTORCH, KERAS_FILE, ONNX)


def format_of(path: Path) -> Format:
    """The format that a file of this name is written in. Raises FileError."""
    suffix = suffix_of(path)
    return next(row for row in FORMATS if suffix in row.suffixes)


def suffix_of(path: Path) -> str:
    """The longest known suffix that fits the name, in whatever case that has it. Raises FileError."""
    known = [suffix for row in FORMATS for suffix in row.suffixes]
    fitting = [suffix for suffix in known if path.name.lower().endswith(suffix)]
    if not fitting:
        raise FileError(f"{path}: the suffix is of no known format; expected one of {', '.join(sorted(known))}")
    return max(fitting, key=len)


def format_in(path: Path) -> Format:
    """The format of an existing file: what its first bytes say, else its name. Raises FileError."""
    checkpoint.check_readable(path)
    with path.open("rb") as file:
        start = file.read(256)
    return _sniffed(start) or format_of(path)


def find(path: Path, hints: Hints = NO_HINTS) -> tuple[Format, FoundFile]:
    """The models in a file, unread, and the format whose names they have. Raises FileError, WeightError, ..."""
    if reason := KERAS_FILE.files.refusal_of(path):
        raise UnsupportedError(reason)
    try:
        form, found = _found(path, format_in(path), hints)
        used = (part.name for layer in found.layers for part in layer.parts.values())
        check_names(path, [*(layer.path for layer in found.layers), *used, *found.rest])
        return form, replace(found, layers=tuple(map(hints.told, found.layers)))
    except (FileError, WeightError) as error:
        raise error if str(error).startswith(f"{path}") else type(error)(f"{path}: {error}") from error


def _found(path: Path, form: Format, hints: Hints) -> tuple[Format, FoundFile]:
    found: FoundFile = form.files.find(path, hints)
    if found.layers or form not in (CANONICAL, ARRAYS):
        return form, found
    known = replace(hints, spec=hints.spec or found.spec)
    for other in (PYTORCH, KERAS_FILE):
        layers, rest = other.files.layers_in(found.rest, known)
        if layers:
            kind = {"kind": KIND} if found.spec else {}
            own = tuple(replace(layer, **kind) for layer in layers)
            return other, replace(found, layers=own, rest={name: found.rest[name] for name in rest})
    return form, found


def convertible(found: FoundFile) -> list[FoundLayer]:
    """The layers that can be read, without those that are part of another."""
    layers = [layer for layer in found.layers if layer.refusal is None]
    tensors = {id(layer): {part.name for part in layer.parts.values()} for layer in layers}
    return [one for one in layers if not any(tensors[id(one)] < tensors[id(other)] for other in layers)]


def chosen(path: Path, found: FoundFile, name: str | None = None) -> FoundLayer:
    """The layer of that name, or the only one of the file.

    Raises:
        FileError: there is none.
        InputError: there are several, or none of that name.
        UnsupportedError: it is refused.
    """
    if name is not None:
        fitting = [layer for layer in found.layers if layer.path == ("" if name == TOP else name)]
        if not fitting:
            names = listed(layer.path or TOP for layer in found.layers)
            raise InputError(f"{path}: no recurrent layer {name!r}; it has {names}")
        if fitting[0].refusal:
            raise UnsupportedError(f"{path}: {_named(fitting[0])}: {fitting[0].refusal}")
        return fitting[0]
    layers = convertible(found)
    if len(layers) > 1:
        names = ", ".join(f"--layer {shlex.quote(layer.path or TOP)}" for layer in layers)
        raise InputError(f"{path}: has {len(layers)} recurrent layers; name one: {names}; or take --all")
    if layers:
        return layers[0]
    if found.layers:
        raise UnsupportedError(f"{path}: {'; '.join(f'{_named(one)}: {one.refusal}' for one in found.layers)}")
    raise FileError(f"{path}: no recurrent layer found in this {found.format}, and it carries no spec (--spec FILE)")


def contents(path: Path, form: Format, found: FoundFile, layer: FoundLayer) -> Contents:
    """The layer as a model whose weights are read when they are asked for."""
    assert layer.spec is not None
    _check_total(path, layer)
    weights = StoredWeights(layer.parts)
    if found.provenance is not None:
        return Contents(layer.spec, weights, found.provenance)
    told = {"assumed": list(layer.assumed), "given": list(layer.given)}
    dtypes = sorted({part.tensor.dtype for part in layer.parts.values()})
    record = checkpoint.provenance(source=path.name, format=form.name, layer=layer.path, dtype=dtypes[0])
    return Contents(layer.spec, weights, record | {name: value for name, value in told.items() if value})


def read(path: Path, spec: AnySpec | None = None) -> Contents:
    """The one model of a file of any format, read. Raises FileError, WeightError, InputError or UnsupportedError."""
    form, found = find(path, Hints(spec))
    unread = contents(path, form, found, chosen(path, found))
    checkpoint.described(unread)
    return unread._replace(weights=dict(unread.weights))


def read_spec(path: Path | None) -> AnySpec | None:
    """A spec in YAML or JSON. Raises FileError or SpecError."""
    if path is None:
        return None
    checkpoint.check_readable(path)
    try:
        return spec_from_text(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: expected a spec in YAML or JSON, got bytes that are not text") from error


def _check_total(path: Path, layer: FoundLayer) -> None:
    """Raises FileError where a small file stands for many numbers: a tensor that is repeated, or compressed by far."""
    total = sum(8 * math.prod(part.shape) for part in layer.parts.values())
    held = sum(one.stat().st_size for one in {part.tensor.path for part in layer.parts.values()})
    if total > AMPLIFIED * held + 2**26:
        raise FileError(
            f"{path}: {held:,} bytes stand for weights of {total:,}; expected a file that holds its numbers"
        )


def _named(layer: FoundLayer) -> str:
    return f"{layer.path or 'the file'} ({layer.kind})"


def _sniffed(start: bytes) -> Format | None:
    """The format that a file's first bytes belong to; None where they do not tell."""
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return KERAS_FILE
    if start.startswith(b"PK\x03\x04"):
        first = start[30 : 30 + int.from_bytes(start[26:28], "little")]  # the name of the first member
        for ending, row in ((b"data.pkl", PYTORCH), (b".npy", ARRAYS), (b".json", KERAS_FILE), (b".h5", KERAS_FILE)):
            if first.endswith(ending):
                return row
    return CANONICAL if start[5:9] == b"\0\0\0{" else None
