"""`.keras`, `.weights.h5` and the older `.h5`: Keras' own files, of this package and of anybody (SPEC.md, 14).

A `.keras` of this package has the spec as its member `rnnzoo.json`, a `.weights.h5` as its root attribute `rnnzoo`;
Keras reads both as ever. Loading a `.keras` with Keras has executed code again and again (CVE-2025-1550, CVE-2025-9905,
CVE-2026-1462), so that here nothing of it is made into objects: its JSON and its HDF5 are read as data, in a child
process with limits. Neither Keras nor TensorFlow is imported, for reading or for writing.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from ..spec.backend import Contents
from ..spec.checkpoint import check_readable, read_envelope
from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec, spec_from_text
from ..spec.errors import BackendError, FileError, SpecError, UnsupportedError
from ..spec.found import FoundFile, FoundLayer, Hints
from ..spec.sandbox import examined
from ..spec.stored import StoredTensor, check_names
from .configuration import Record
from .finding import found_layers, is_own_layout, own_model

READER = f"{__name__.rpartition('.')[0]}.examining:examine"
Tensors = Mapping[str, StoredTensor]


class KerasFiles:
    """Finds recurrent layers in Keras' files, and writes such files.

    Attributes:
        suffixes: that are read; the last two cannot be written.
        plain_bias: what `bias` a file of standard layers can hold.
    """

    suffixes = (".keras", ".weights.h5", ".h5", ".hdf5")
    plain_bias = ("none", "single")

    def find(self, path: Path, hints: Hints = Hints()) -> FoundFile:  # noqa: B008 (frozen)
        """The recurrent layers of a file, and what else is in it; numbers are read later.

        Raises:
            FileError: damaged, of another kind, or made to do harm.
            WeightError: a file of this package whose weights do not fit its spec, or that of the hints.
            BackendError: h5py is not installed.
        """
        check_readable(path)
        _check_h5py()
        data = examined(READER, path)
        tensors = {name: StoredTensor.from_data(tensor) for name, tensor in data["tensors"].items()}
        check_names(path, tensors)
        records = [Record.from_data(record) for record in data["records"]]
        own, record = (None, None) if data["own"] is None else read_envelope(data["own"], str(path))
        if own is None and records and records[0].key == "" and records[0].spec is not None:
            own = _spec(path, records[0])
        spec = hints.spec or own
        layers, rest = found_layers(tensors, hints, records, data["own_classes"], data["names"])
        if spec and (own or is_own_layout(tensors)):
            layer, rest = own_model(spec, tensors)
            original = layers[-1].original if spec.is_core and layers else None
            layers = [replace(layer, original=original)]
        return FoundFile(
            data["format"],
            tuple(layers),
            {name: tensors[name] for name in rest},
            data["facts"],
            own,
            record,
        )

    def layers_in(self, tensors: Tensors, hints: Hints = Hints()) -> tuple[list[FoundLayer], list[str]]:  # noqa: B008
        """The recurrent layers among tensors with Keras' or TensorFlow's names, and the names of all others."""
        return found_layers(tensors, hints)

    def refusal_of(self, path: Path) -> str | None:
        """Why a file or folder of TensorFlow's own cannot be read, None for any other path."""
        name = path.name
        if name == "saved_model.pb" or (path.is_dir() and (path / "saved_model.pb").exists()):
            return (
                f"{path}: a SavedModel holds graphs, not layers; load it with the code that made it, and save it anew "
                "with model.save('model.keras'), or read its variables with tf.train.load_checkpoint('variables/"
                "variables') and write them with numpy.savez under their names"
            )
        if name.endswith(".index") or ".data-0" in name or (path.is_dir() and (path / "checkpoint").exists()):
            return (
                f"{path}: a tf.train.Checkpoint holds variables in a format of TensorFlow's own; read them with "
                "tf.train.load_checkpoint(path).get_tensor(name), and write them with numpy.savez under their names, "
                "or load them into the model, and save that with model.save('model.keras')"
            )
        if name.endswith(".weights.json"):
            return f"{path}: weights in several files; save them in one, with model.save_weights('model.weights.h5')"
        return None

    def holds(self, spec: AnySpec, *, plain: bool = False) -> str | None:
        """None, or why a file cannot hold the model."""
        if not plain:
            return None
        if isinstance(spec, EncoderDecoderSpec):
            return "Keras' standard layers have no encoder with a decoder; write the zoo's own file, without --plain"
        if spec.cell != "rnn":
            return f"Keras' SimpleRNN has the cell rnn, not {spec.cell}; write the zoo's own file, without --plain"
        if spec.context:
            return "a chain of Keras' standard layers has no context; write the zoo's own file, without --plain"
        if spec.bias not in self.plain_bias:
            return "Keras' SimpleRNN has one bias, not two that are trained; add them up first (bias 'single')"
        return None

    def write(self, path: Path, contents: Contents, *, plain: bool = False, prefix: str = "") -> None:
        """Write the file, one weight at a time.

        Args:
            path: a `.keras` or a `.weights.h5`.
            contents: what it is to hold.
            plain: Keras' standard layers, which load without this package, in place of a `SequenceModel`.
            prefix: put before the names of these layers in a `.keras`; a `.weights.h5` has paths of classes alone.

        Raises:
            UnsupportedError: the file cannot hold the model, has no names for a prefix, or is of the older format.
            WeightError: the weights do not fit the spec.
        """
        if reason := self.holds(contents.spec, plain=plain):
            raise UnsupportedError(reason)
        if not path.name.endswith(self.suffixes[:2]):
            raise UnsupportedError(f"{path}: the older HDF5 format is only read; write a .keras or a .weights.h5 file")
        if prefix and not (plain and path.suffix == ".keras"):
            raise UnsupportedError(
                f"prefix {prefix!r}: the names of standard layers in a .keras take one, and nothing else of Keras' has "
                "such names; leave it out"
            )
        _check_h5py()
        from . import writing  # which imports h5py, that reading leaves to the child process

        writing.write(path, contents, plain=plain, prefix=prefix)


def _check_h5py() -> None:
    if find_spec("h5py") is None:
        raise BackendError("Keras' files: the package 'h5py' is not installed; run: pip install 'rnnzoo[tf]'")


def _spec(path: Path, record: Record) -> AnySpec:
    """The spec of the model of this package that Keras saved."""
    try:
        return spec_from_text(json.dumps(record.spec))
    except SpecError as error:
        raise FileError(f"{path}: {error}") from error


FILES = KerasFiles()
