"""`.keras` and `.weights.h5`: Keras' own files, with the spec in them (SPEC.md, 14).

A `.keras` has it as its member `rnnzoo.json`, a `.weights.h5` as its root attribute `rnnzoo`; Keras reads both as ever.
Loading a `.keras` with Keras has executed code again and again (CVE-2025-1550, CVE-2025-9905, CVE-2026-1462), so that
here nothing of it is made into objects: its JSON and its HDF5 are read as data.
"""

import io
import json
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..spec.backend import Contents
from ..spec.checkpoint import KEY, check_readable, envelope, read_envelope
from ..spec.errors import FileError, RnnZooError, UnsupportedError, WeightError, listed
from ..spec.model import ModelSpec
from ..spec.parameters import checked_weights, parameters, weights_dtype
from . import hdf5
from .model import SequenceModel
from .weights import from_spec, place, turned

MEMBER = "rnnzoo.json"
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
MAXIMUM_JSON = 2**24  # bytes
GATES = {3: "GRU", 4: "LSTM"}  # blocks of columns in a recurrent kernel
DAMAGED = (
    OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, MemoryError, RuntimeError, RecursionError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class KerasFiles:
    """Reads and writes Keras' files."""

    suffixes = (".keras", ".weights.h5")

    def read(self, path: Path, spec: ModelSpec | None = None) -> Contents:
        """The spec, weights and provenance of the file; of a `SequenceModel` that `model.save` wrote, too.

        Raises:
            FileError: damaged, no such file, or without a spec.
            WeightError: the weights do not fit the spec.
            UnsupportedError: the weights of an LSTM or a GRU.
        """
        check_readable(path)
        try:
            return _read_keras(path, spec) if path.suffix == ".keras" else _read_hdf5(path, spec)
        except (UnsupportedError, WeightError):
            raise
        except RnnZooError as error:
            raise FileError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
        except DAMAGED as error:
            raise FileError(f"{path}: not a whole {''.join(path.suffixes[-2:])} file: {_first_line(error)}") from error

    def write(self, path: Path, contents: Contents) -> None:
        """Write the file, as Keras writes a `SequenceModel`. Raises WeightError when the weights do not fit."""
        dtype = weights_dtype(contents.weights)
        checked_weights(contents.spec, contents.weights, dtype)
        model, text = SequenceModel(contents.spec, dtype=dtype), envelope(contents.spec, contents.provenance)
        from_spec(model, contents.weights)
        if path.suffix == ".keras":
            _save(model, path)
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(MEMBER, text)
        else:
            path.write_bytes(_hdf5(model, path, text))


def _save(model: SequenceModel, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras hands its variables to NumPy in the old way
        model.save(path)


def _hdf5(model: SequenceModel, path: Path, text: str) -> bytes:
    """The bytes of a `.weights.h5`: the member of a `.keras`, and the text as its attribute.

    They are put together in memory, as HDF5 brings the process down when the disk fills up under it.
    """
    with tempfile.TemporaryDirectory(prefix=".rnnzoo-", dir=path.parent) as folder:
        whole = Path(folder, "whole.keras")
        _save(model, whole)
        with zipfile.ZipFile(whole) as archive:
            data = io.BytesIO(archive.read(WEIGHTS))
    with h5py.File(data, "a") as file:
        file.attrs[KEY] = np.bytes_(text.encode())
    return data.getvalue()


def _read_keras(path: Path, spec: ModelSpec | None) -> Contents:
    with zipfile.ZipFile(path) as archive:
        config, text = _member(archive, CONFIG, MAXIMUM_JSON), _member(archive, MEMBER, MAXIMUM_JSON)
        found, record = (_own_spec(config), {}) if text is None else read_envelope(text.decode(), str(path))
        spec = spec or found
        _refuse_other_classes(path, config, spec)
        largest = 2**26 + 64 * sum(parameter.count for parameter in parameters(spec)) if spec else 2**31
        data = _member(archive, WEIGHTS, largest)
    if data is None:
        raise FileError(f"{path}: expected the member {WEIGHTS}; not a Keras model")
    with h5py.File(io.BytesIO(data), "r") as file:
        return _contents(path, file, spec, record)


def _read_hdf5(path: Path, spec: ModelSpec | None) -> Contents:
    with h5py.File(path, "r") as file:
        text = _attribute(path, file)
        found, record = (None, {}) if text is None else read_envelope(text.decode(), str(path))
        return _contents(path, file, spec or found, record)


def _attribute(path: Path, file: h5py.File) -> bytes | None:
    """Our JSON. Text of fixed length alone is read: HDF5 loops for ever in a damaged heap of texts of any length."""
    if KEY not in file.attrs:
        return None
    if file.attrs.get_id(KEY).dtype.kind != "S":
        raise FileError(
            f"{path}: the attribute '{KEY}': expected text of fixed length, got {file.attrs.get_id(KEY).dtype}"
        )
    return bytes(file.attrs[KEY])


def _contents(path: Path, file: h5py.File, spec: ModelSpec | None, record: Mapping[str, Any]) -> Contents:
    datasets = hdf5.datasets(file)
    _refuse_other_cells(path, datasets, spec)
    if spec is None:
        raise FileError(f"{path}: carries no spec (no '{KEY}' of ours); give one with --spec FILE")
    where = {p.name: f"{place(p.name).layer}/vars/{place(p.name).key}" for p in parameters(spec)}
    own = {name for name in datasets if not name.startswith("optimizer/")}
    if missing_or_surplus := own ^ set(where.values()):
        missing = missing_or_surplus - own
        raise WeightError(
            f"{path}: Keras file of a {spec.variant} with bias '{spec.bias}': missing {listed(missing)}; "
            f"surplus {listed(missing_or_surplus - missing)}"
        )
    weights = {}
    for parameter in parameters(spec):
        key, shape = where[parameter.name], parameter.shape
        shape = shape[::-1] if place(parameter.name).transposed else shape
        weights[parameter.name] = turned(parameter.name, hdf5.read(key, datasets[key], shape)).copy(order="C")
    return Contents(spec, checked_weights(spec, weights, weights_dtype(weights)), record)


def _member(archive: zipfile.ZipFile, name: str, maximum: int) -> bytes | None:
    """The bytes of a member, None where there is none. Raises FileError when they are more than there should be."""
    if name not in archive.namelist():
        return None
    size = archive.getinfo(name).file_size
    if size > maximum:
        raise FileError(f"member {name}: expected at most {maximum} bytes, got {size}")
    return archive.read(name)


def _own_spec(config: bytes | None) -> ModelSpec | None:
    """The spec out of the configuration that Keras wrote of a `SequenceModel`."""
    data = json.loads(config or b"{}")
    if not isinstance(data, dict) or data.get("registered_name") != "rnnzoo>SequenceModel":
        return None
    return ModelSpec.from_json(json.dumps(data["config"]["spec"]))


def _refuse_other_classes(path: Path, config: bytes | None, spec: ModelSpec | None) -> None:
    """Raises UnsupportedError when the configuration names a layer of another cell."""
    data, names = [json.loads(config or b"{}")], set()
    while data:
        item = data.pop()
        if isinstance(item, dict):
            names.add(str(item.get("class_name")).removesuffix("Cell"))
        data += item.values() if isinstance(item, dict) else item if isinstance(item, list) else []
    for gates, cell in GATES.items():
        if cell in names and (spec is None or len(spec.cell_definition.gates) != gates):
            raise UnsupportedError(f"{path}: holds {cell} weights; expected a simple recurrent network")


def _refuse_other_cells(path: Path, datasets: Mapping[str, Any], spec: ModelSpec | None) -> None:
    """Raises UnsupportedError for the weights of Keras' LSTM or GRU, unless the spec has as many gates."""
    for layer, kernel, recurrent in _kernels(datasets):
        gates = recurrent[1] // max(recurrent[0], 1)
        fits = kernel[1] == recurrent[1] == gates * recurrent[0]
        if fits and gates in GATES and (spec is None or len(spec.cell_definition.gates) != gates):
            raise UnsupportedError(
                f"{path}: {layer} with a recurrent kernel of shape {recurrent} holds {GATES[gates]} weights; "
                "expected a simple recurrent network, whose recurrent kernels are square"
            )


def _kernels(datasets: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Of each layer of Keras' own with two matrices, kernel and recurrent kernel: its path and their shapes."""
    for path, dataset in datasets.items():
        layer, _, key = path.rpartition("/vars/")
        if key == "1" and not layer.startswith("optimizer") and len(dataset.shape) == 2:
            first = datasets.get(f"{layer}/vars/0")
            if first is not None and len(first.shape) == 2:
                yield layer, first.shape, dataset.shape


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
