"""What a task is: data, a metric and the parts of a model around the recurrent core, the same for every backend."""

import hashlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..spec.backend import Contents
from ..spec.data import check_choice
from ..spec.definitions import load_variant, variant_names, variant_of
from ..spec.dropout import Dropout
from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec, final_state_size
from ..spec.errors import BackendError, FileError, InputError, SpecError, listed
from ..spec.model import Context, Embedding, Head, ModelSpec
from ..spec.training import Batch, Loss

Array = NDArray[Any]
TASKS: Mapping[str, str] = {
    "digits": ".digits:Digits", "char_lm": ".char_lm:CharLM", "adding": ".adding:Adding", "copy": ".copying:Copy",
    "forecast": ".forecast:Forecast", "tagging": ".tagging:Tagging", "onu_sleep": ".onu_sleep:OnuSleep",
    "captioning": ".captioning:Captioning", "translate": ".translate:Translate",
}  # fmt: skip


@dataclass(frozen=True)
class SourceParts:
    """The fields of an encoder that the data decides.

    Attributes:
        decoder: the variant of the decoder beside it; None for the encoder's without the backward direction.
    """

    input_size: int
    embedding: Embedding | None = None
    decoder: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ModelParts:
    """The fields of a `ModelSpec` that the data decides; of a decoder, where there is a source for an encoder."""

    input_size: int
    head: Head
    embedding: Embedding | None = None
    context: Context | None = None
    source: SourceParts | None = None

    @classmethod
    def of(cls, spec: AnySpec) -> "ModelParts | None":
        """Those of a model; None where it has no head."""
        if spec.head is None:
            return None
        if isinstance(spec, ModelSpec):
            return cls(spec.input_size, spec.head, spec.embedding, spec.context)
        source = SourceParts(spec.encoder.input_size, spec.encoder.embedding)
        return cls(spec.input_size, spec.head, spec.embedding, source=source)


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a task's test data.

    Attributes:
        metric: the name of the task's own metric.
        metrics: all of them by name, that one first.
        predictions: for each test example, for a language model each character: the class of the largest score, or
            the number itself.
        baseline: the metric of something simple fitted on the same training data.
        baseline_name: what that is.
    """

    metric: str
    metrics: Mapping[str, float]
    predictions: Array
    baseline: float
    baseline_name: str

    @property
    def value(self) -> float:
        """The task's own metric."""
        return self.metrics[self.metric]

    def text(self) -> str:
        """One line for a person."""
        found = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        return f"{found} ({self.baseline_name}: {self.metric} {self.baseline:.4f}), {len(self.predictions)} predictions"


class Task(Protocol):
    """A task knows no framework: it makes batches of NumPy arrays, and evaluates through `backend.run`."""

    name: str
    source: str | None  # the setting that names its file of data; None where the data are drawn
    metric: str
    goal: str  # of the metric: minimize or maximize
    loss: Loss

    @property
    def parts(self) -> ModelParts: ...

    def settings(self) -> dict[str, Any]:
        """Plain data from which `load_task` makes this task again; it stands in a checkpoint's provenance."""
        ...

    def reason_against(self, spec: AnySpec) -> str | None:
        """Why a model makes no sense here, or None."""
        ...

    def steps_per_epoch(self, batch_size: int) -> int: ...

    def epoch(self, number: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """The batches of an epoch, numbered from 1: the same ones in the same order for every backend."""
        ...

    def evaluate(self, backend: Any, model: Any) -> Evaluation: ...


def load_task(settings: Mapping[str, Any]) -> Task:
    """The task that the settings name and describe. Raises SpecError, FileError or BackendError."""
    kind = _kind(settings.get("name"))
    given = {str(key): value for key, value in settings.items() if key != "name"}
    if unknown := set(given) - set(signature(kind).parameters):
        raise SpecError(
            f"task {kind.name}: no setting {listed(unknown)}; known are {listed(signature(kind).parameters)}"
        )
    task: Task = kind(**given)
    return task


def goal_of(name: str) -> str:
    """Whether a task's metric is to be small or large: minimize or maximize. Raises SpecError."""
    return str(_kind(name).goal)


def _kind(name: object) -> Any:
    if str(name) not in TASKS:
        raise SpecError(f"task: expected one of {listed(TASKS)}, got {str(name)!r}")
    module, _, attribute = TASKS[str(name)].partition(":")
    return getattr(importlib.import_module(module, __package__), attribute)


def source_of(name: str) -> str | None:
    """The setting of a task that names its file of data, or None. Raises SpecError."""
    source: str | None = _kind(name).source
    return source


def task_of(contents: Contents, overrides: Mapping[str, Any]) -> Task:
    """The task that a checkpoint was trained on, with other data where an override names some.

    The overrides are `text` or `data`, whichever names the task's file, and `sha256`. What the data were in
    training is no longer asked where a file is named, unless `sha256` says it.

    Raises:
        FileError: the provenance names no task, or its data are missing or have changed since.
        SpecError: there is no such override.
        InputError: the data do not fit the model.
    """
    recorded = contents.provenance.get("task")
    if not isinstance(recorded, Mapping):
        raise FileError("expected a model that 'rnnzoo train' wrote, got one whose file names no task; train it anew")
    kind = _kind(recorded.get("name"))
    known = {kind.source, "sha256"} if kind.source else set()
    if unknown := set(overrides) - known:
        raise SpecError(
            f"task {kind.name}: a trained model has no override {listed(unknown)}; known are {listed(known)}"
        )
    try:
        task = load_task({**recorded, **({"sha256": None} if kind.source in overrides else {}), **overrides})
    except FileError as error:
        if kind.source is None:
            raise
        raise FileError(f"{error}; name the data's place with 'rnnzoo evaluate FILE {kind.source}=PATH'") from error
    _check_fits(task, contents.spec)
    return task


def _check_fits(task: Task, spec: AnySpec) -> None:
    """Raises InputError where the model has another form than the task's data want; unused classes are fine."""
    parts, found = task.parts, ModelParts.of(spec)
    if found is None or not _holds(found.head, parts.head) or found != replace(parts, head=found.head):
        way_out = f"name other data with 'rnnzoo evaluate FILE {task.source}=PATH'" if task.source else "train it anew"
        raise InputError(f"task {task.name}: its data want {parts}, the model has {found or 'no head'}; {way_out}")


def _holds(head: Head, wanted: Head) -> bool:
    return head.reads == wanted.reads and head.size >= wanted.size


def model_spec(task: Task, fields: Mapping[str, Any]) -> AnySpec:
    """A model for the task: its parts, and the config's `model` group, which says of two networks what both are.

    Raises:
        SpecError: a field is out of its range, or the model makes no sense for the task.
    """
    parts, rates = task.parts, fields.get("dropout")
    given = {**fields, "dropout": None if rates is None else Dropout.from_data(rates, "model.dropout")}
    own = {name: getattr(parts, name) for name in ("input_size", "embedding", "head", "context")}
    spec = ModelSpec(**own, **given) if parts.source is None else _pair(parts.source, own, given)
    if reason := task.reason_against(spec):
        raise SpecError(f"task {task.name}: {reason}")
    return spec


def _pair(source: SourceParts, own: Mapping[str, Any], fields: Mapping[str, Any]) -> EncoderDecoderSpec:
    encoder = ModelSpec(input_size=source.input_size, embedding=source.embedding, **fields)
    variant = source.decoder or variant_of(encoder.num_layers, 1)
    check_choice("decoder", variant, tuple(variant_names()))
    topology, rates = load_variant(variant), encoder.dropout
    stacked = topology.maximum_layers is None
    others = {"variant": variant, "num_layers": encoder.num_layers if stacked else 1}
    others |= {"dropout": rates if stacked or rates is None else replace(rates, between_layers=0.0)}
    others |= {"merge": encoder.merge if len(topology.directions) == 2 else "concat"}
    others |= {"context": Context(final_state_size(encoder))}
    return EncoderDecoderSpec(encoder, ModelSpec(**{**fields, **own, **others}))


def needed(module: str, package: str, extra: str = "tasks") -> ModuleType:
    """A module of an extra. Raises BackendError, naming the extra, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise BackendError(f"the package {package!r} is not installed; run: pip install 'rnnzoo[{extra}]'") from error


def check_unchanged(what: str, found: str, recorded: str | None) -> None:
    """Raises FileError when a recorded SHA-256 is not the one of the data found now."""
    if recorded not in (None, found):
        raise FileError(
            f"{what}: expected the data of the training, with SHA-256 {str(recorded)[:12]}..., got {found[:12]}..."
        )


def file_path(name: str, setting: str, value: object) -> Path | None:
    """The absolute path that a setting names, or None. Raises SpecError or FileError."""
    if value is None:
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        raise SpecError(f"task {name}: {setting}: expected the path of a file, got {value!r}")
    path = Path(value).expanduser().absolute()
    if not path.is_file():
        found = "got a folder" if path.is_dir() else "got a device or a pipe" if path.exists() else "no such file"
        raise FileError(f"task {name}: {setting}: expected a file, {path}: {found}")
    return path


def sha256_of(*arrays: Array) -> str:
    """SHA-256 over dtype, shape and values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def log_softmax(scores: Array) -> NDArray[np.float64]:
    """log softmax over the last axis, in float64."""
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
