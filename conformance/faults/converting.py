"""Faults of the converter, in a backend's files or in how they become a model, and a run of the converter with them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np

from ...spec import checkpoint
from ...spec.backend import BUILT_IN, Contents, load_backend, load_files
from ...spec.errors import RnnZooError
from ...spec.found import FoundFile, FoundLayer
from ...spec.model import ModelSpec
from ...spec.parameters import initial_weights
from .. import convert, formats, proof
from ..cases import Case
from .fault import CONVERT, Fault
from .weights import RecurrentWeightTransposed, other_direction
from .wrapped import Array, Wrapped, changed


@dataclass(frozen=True)
class Conversion:
    """An item of the converter: the weights of a case out of a canonical file into a backend's first format."""

    case: Case
    dtype: str
    check: ClassVar[str] = CONVERT

    @property
    def model_case(self) -> Case:
        return self.case

    @property
    def name(self) -> str:
        return f"{self.check}-{self.dtype}-{self.case.name}"

    def prove(self, backend: Any) -> str | None:
        """None where the conversion is proven, else what the converter says, if it left no target behind."""
        weights = {name: array.astype(self.dtype) for name, array in self.case.weights.items()}
        weights[next(reversed(weights))].flat[0] = -0.0
        with tempfile.TemporaryDirectory(prefix="rnnzoo-teeth-") as folder, standing_in(backend):
            source, target = Path(folder, "source.safetensors"), Path(folder, f"target{backend.files.suffixes[0]}")
            checkpoint.save(source, Contents(self.case.spec, weights, {}))
            try:
                convert.convert(source, target)
            except RnnZooError as error:
                return None if target.exists() else str(error)
        return None


def reason_against(backend: Any) -> str | None:
    """Why the converter cannot be tried on a backend, or None."""
    known = backend.name in BUILT_IN and hasattr(backend, "files")
    return None if known else f"{backend.name} has no files that the converter knows"


@contextmanager
def standing_in(backend: Any) -> Iterator[None]:
    """The converter finds this backend under its name."""

    def load(name: str) -> Any:
        return backend if name == backend.name else load_backend(name)

    def load_its_files(name: str) -> Any:
        return backend.files if name == backend.name else load_files(name)

    with mock.patch.object(formats, "load_files", load_its_files), mock.patch.object(proof, "load_backend", load):
        yield


class ConvertedFiles:
    """A backend's files, with the contents changed on the way out, or what is found on the way in."""

    def __init__(self, files: Any, *, write: Any = None, read: Any = None) -> None:
        self._files = files
        self._write, self._read = write or _as_it_is, read or _as_it_is

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def write(self, path: Path, contents: Contents, **options: Any) -> None:
        held = contents._replace(weights=dict(contents.weights))
        self._files.write(path, self._write(held), **options)

    def find(self, path: Path, *hints: Any) -> FoundFile:
        found: FoundFile = self._files.find(path, *hints)
        return replace(found, layers=tuple(map(self._read, found.layers)))


class HalfWritten(ConvertedFiles):
    def write(self, path: Path, contents: Contents, **options: Any) -> None:
        super().write(path, contents, **options)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class NothingWritten(ConvertedFiles):
    def write(self, path: Path, contents: Contents, **options: Any) -> None:
        dict(contents.weights)
        path.touch()


class Converting(Wrapped):
    """A backend with other files."""

    def __init__(self, backend: Any, files: Callable[[Any], ConvertedFiles]) -> None:
        super().__init__(backend)
        self.files = files(backend.files)


def _as_it_is(given: Any) -> Any:
    return given


def _weights(change: Callable[[ModelSpec, dict[str, Array]], dict[str, Array]]) -> Callable[[Contents], Contents]:
    return lambda contents: contents._replace(weights=change(contents.network, dict(contents.weights)))


def _directions_swapped(layer: FoundLayer) -> FoundLayer:
    assert layer.network is not None
    return replace(layer, parts={name: layer.parts[other_direction(layer.network, name)] for name in layer.parts})


def _layers_swapped(spec: ModelSpec, weights: dict[str, Array]) -> dict[str, Array]:
    last = f"layers.{spec.num_layers - 1}."
    pairs = {n: n.replace("layers.0.", last) for n in weights if n.startswith("layers.0.") and "recurrent" in n}
    return {**weights, **{a: weights[b] for a, b in pairs.items()}, **{b: weights[a] for a, b in pairs.items()}}


def _biases_summed(spec: ModelSpec, weights: dict[str, Array]) -> dict[str, Array]:
    sums = {n: weights[n] + weights[n.replace("input_", "recurrent_")] for n in weights if n.endswith("input_bias")}
    return {**changed(weights, "recurrent_bias", np.zeros_like), **sums}


def _another_nonlinearity(contents: Contents) -> Contents:
    other = "relu" if contents.network.nonlinearity != "relu" else "tanh"
    return contents._replace(spec=replace(contents.network, nonlinearity=other))


def _left_initial(spec: ModelSpec, weights: dict[str, Array]) -> dict[str, Array]:
    name, *_ = weights
    return {**weights, name: initial_weights(spec, 0, weights[name].dtype.name)[name]}


def _narrowed(spec: ModelSpec, weights: dict[str, Array]) -> dict[str, Array]:
    other = "float32" if next(iter(weights.values())).dtype == np.float64 else "float64"
    return {name: a.astype(other) for name, a in weights.items()}


def _fault(
    name: str, story: str, write: Any = None, thread: str | None = None, *, read: Any = None,
    files: type[ConvertedFiles] = ConvertedFiles,
) -> Fault:  # fmt: skip
    apply = partial(Converting, files=partial(files, write=write, read=read))
    return Fault(name, story, CONVERT, apply, thread, needs=("files", "gradients"))


FAULTS = (
    _fault("weight of a wrong layer written", "First and last layer are mixed up in the file.",
           _weights(_layers_swapped)),
    _fault("forward and backward swapped in the file", "The names of the directions are mixed up.",
           _weights(lambda spec, w: {name: w[other_direction(spec, name)] for name in w})),
    _fault("directions swapped on reading", "The file is right, and is read the wrong way round.",
           read=_directions_swapped),
    _fault(
        "two biases merged without a word",
        "Their sum is written in one place, which changes how the model trains on.",
        _weights(_biases_summed), "https://github.com/keras-team/keras/pull/8307",
    ),
    _fault(
        "transposition missing",
        "A square matrix is written in the other layout.",
        _weights(lambda spec, w: changed(w, "recurrent_weight", lambda a: a.T.copy())),
        "https://github.com/keras-team/keras/issues/8720",
    ),
    _fault("reshaped for transposed in the file", "A matrix is reshaped to the shape of its transpose.",
           _weights(lambda spec, w: changed(w, "input_weight", lambda a: a.reshape(a.shape[::-1]).T.copy()))),
    _fault(
        "order of gates",
        "The blocks of rows stand in another framework's order.",
        _weights(lambda spec, w: changed(w, "", lambda a: np.roll(a, 1, axis=0))),
        "https://github.com/keras-team/keras/issues/8720",
    ),
    _fault("dtype of the file changed", "A file of float64 is written as float32.", _weights(_narrowed),
           "https://github.com/pytorch/pytorch/issues/108381"),
    _fault("numbers rounded in the file", "The dtype is kept, and the numbers are not.",
           _weights(lambda spec, w: changed(w, "", lambda a: a.astype(np.float16).astype(a.dtype), part=""))),
    _fault("metadata of another spec", "The weights are right, and their description is of another model.",
           _another_nonlinearity),
    _fault("-0 lost in the file", "Adding 0 makes 0 of -0.",
           _weights(lambda spec, w: changed(w, "", lambda a: a + a.dtype.type(0), part=""))),
    _fault("a weight left at its initial value", "One weight is never written, and is drawn anew.",
           _weights(_left_initial)),
    _fault(
        "a file written half",
        "The process ends, or the disk is full, in the middle of the file.",
        None, "https://github.com/Lightning-AI/pytorch-lightning/issues/688", files=HalfWritten,
    ),
    _fault("a file without contents", "The name is there, and nothing in it.", files=NothingWritten),
    Fault(
        "right file, wrong model",
        "The weights are transposed on the way from the file into the model.",
        CONVERT, RecurrentWeightTransposed, needs=("files", "gradients"),
        spared={"numpy": "the converter runs the canonical file in it too, so that both sides have the fault"},
    ),
)  # fmt: skip
