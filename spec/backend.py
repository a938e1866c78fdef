"""What a backend is, and how one is found (SPEC.md, 13).

All arrays at this seam are NumPy's; inside, each backend is native.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from numpy.typing import ArrayLike, NDArray

from .contract import asked, check_backend, said
from .encoder_decoder import AnySpec, EncoderDecoderSpec, Source
from .errors import BackendError, UnsupportedError, listed
from .found import FoundFile, Hints
from .model import ModelSpec
from .parameters import Weights
from .training import Batch, TrainingSpec

ENTRY_POINTS = "rnnzoo.backends"
Array = NDArray[Any]


@dataclass(frozen=True)
class Result:
    """What a run gives.

    Attributes:
        outputs: (B, T, D*H) with concat, else (B, T, H); 0 at invalid steps.
        final_states: by state name, (L*D, B, H) each, index l*D + d.
        scores: (B, T, O), 0 at invalid steps; (B, O) where the head reads the final states; None without a head.
    """

    outputs: Array
    final_states: Mapping[str, Array]
    scores: Array | None = None

    @property
    def final_state(self) -> Array:
        """The cell's first state, (L*D, B, H)."""
        return next(iter(self.final_states.values()))

    def arrays(self) -> dict[str, Array]:
        """Everything by name: `outputs`, `final_state.{name}`, and `scores` where there are any."""
        found = {"outputs": self.outputs, **{f"final_state.{name}": state for name, state in self.final_states.items()}}
        return found if self.scores is None else {**found, "scores": self.scores}


@runtime_checkable
class Backend(Protocol):
    """The required part. `supports` gives None, or the reason why a model cannot be built.

    It is asked for an `EncoderDecoderSpec`, whose context is a `Source`, where `encoder_decoders` is true, and for
    `build(..., recompute=True)` where `recomputes` is.
    """

    name: str

    def supports(self, spec: AnySpec) -> str | None: ...

    def build(self, spec: AnySpec, seed: int = 0, dtype: str = "float32") -> Any: ...

    def run(
        self,
        model: Any,
        inputs: ArrayLike,
        lengths: ArrayLike | None = None,
        initial_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
        *,
        mask: ArrayLike | None = None,
        context: ArrayLike | Source | None = None,
    ) -> Result: ...

    def to_spec(self, model: Any) -> Weights: ...

    def from_spec(self, model: Any, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None: ...


@runtime_checkable
class Differentiates(Protocol):
    """Optional part: gradients of everything, by name."""

    def gradients(
        self,
        model: Any,
        inputs: ArrayLike,
        outputs_cotangent: ArrayLike | None = None,
        final_state_cotangent: ArrayLike | Mapping[str, ArrayLike] | None = None,
        scores_cotangent: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        initial_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
        *,
        mask: ArrayLike | None = None,
        context: ArrayLike | Source | None = None,
    ) -> dict[str, Array]: ...


class StepResult(NamedTuple):
    """What one update reports: the loss before it, and the global norm of the gradients before clipping."""

    loss: float
    gradient_norm: float


class Trainer(Protocol):
    """Updates a model in place. Its state is everything that the next update depends on besides the model's weights."""

    def step(self, batch: Batch, *more: Batch) -> StepResult: ...

    def state(self) -> dict[str, Array]: ...

    def load_state(self, state: Mapping[str, ArrayLike]) -> None: ...


@runtime_checkable
class Trains(Protocol):
    """Optional part: training."""

    def trainer(self, model: Any, training: TrainingSpec) -> Trainer: ...


class Contents(NamedTuple):
    """What a model file holds."""

    spec: AnySpec
    weights: Mapping[str, Array]
    provenance: Mapping[str, Any]

    @property
    def network(self) -> ModelSpec:
        """The spec of one network. Raises UnsupportedError for an encoder with its decoder."""
        if isinstance(self.spec, EncoderDecoderSpec):
            raise UnsupportedError("expected one recurrent network, got an encoder and its decoder")
        return self.spec


@runtime_checkable
class Files(Protocol):
    """Optional part: the framework's files. `find` reads no numbers; `holds` gives None, or why a model does not fit.

    Where `plain` is true, what is written are the framework's standard layers, below the prefix.
    """

    suffixes: tuple[str, ...]

    def find(self, path: Path, hints: Hints = ...) -> FoundFile: ...

    def holds(self, spec: AnySpec, *, plain: bool = False) -> str | None: ...

    def write(self, path: Path, contents: Contents, *, plain: bool = False, prefix: str = "") -> None: ...


class BuiltIn(NamedTuple):
    """A backend of this package: where it is, and what to install for it.

    Attributes:
        folder: below `rnnzoo`; its `backend` has the backend, its `files` reads the framework's files without the
            framework, and its `plain`, where there is a framework, runs the framework's own layers.
        frameworks: the packages that it needs.
        extra: of this distribution, which brings them.
    """

    folder: str
    frameworks: tuple[str, ...]
    extra: str


BUILT_IN: Mapping[str, BuiltIn] = {
    "numpy": BuiltIn("numpy_impl", (), ""),
    "torch": BuiltIn("torch_impl", ("torch",), "torch"),
    "tf": BuiltIn("tf_impl", ("tensorflow", "keras", "h5py"), "tf"),
}


def unsupported(backend: Any, spec: AnySpec) -> str | None:
    """Why the backend does not have the model, or None. Raises BackendError where its `supports` gives neither."""
    if isinstance(spec, EncoderDecoderSpec) and not getattr(backend, "encoder_decoders", False):
        return f"{backend.name} has no encoder-decoder models"
    reason: str | None = asked(backend, "supports", spec)
    if reason is None or isinstance(reason, str):
        return reason
    raise BackendError(
        f"{backend.name}: supports: expected None for a model that it has, or the reason as text, got {reason!r}"
    )


def backend_names() -> list[str]:
    """Built-in backends and those that installed packages register, sorted."""
    return sorted({*BUILT_IN, *(point.name for point in metadata.entry_points(group=ENTRY_POINTS))})


def load_backend(name: str) -> Any:
    """The backend of that name: built in, an entry point of group `rnnzoo.backends`, or `package.module:OBJECT`.

    Raises:
        BackendError: nobody knows the name, its framework is not installed, or the object lacks a required part.
    """
    if name in BUILT_IN:
        return _built_in(BUILT_IN[name], name)
    for point in metadata.entry_points(group=ENTRY_POINTS):
        if point.name == name:
            return checked_backend(_imported(point.value, name), name)
    if ":" in name:
        return checked_backend(_imported(name, name), name)
    raise BackendError(
        f"unknown backend {name!r}: known are {listed(backend_names())}; "
        "one of your own is named 'package.module:OBJECT'"
    )


def checked_backend(backend: Any, name: str) -> Any:
    """The backend itself. Raises BackendError when a required part is missing, or a declaration is none."""
    if isinstance(backend, type):
        raise BackendError(
            f"backend {name!r}: expected an object, got the class {backend.__name__}; name an instance of it"
        )
    check_backend(f"backend {name!r}", backend)
    return backend


def load_files(name: str) -> Any:
    """The built-in backend's reader and writer of its framework's files; the framework is not imported."""
    return importlib.import_module(f"..{BUILT_IN[name].folder}.files", __package__).FILES


def load_plain(name: str) -> Any:
    """The backend whose models are the framework's own layers. Raises BackendError where it is not installed."""
    return _built_in(BUILT_IN[name], name, "plain")


def _built_in(row: BuiltIn, name: str, module: str = "backend") -> Any:
    try:
        return importlib.import_module(f"..{row.folder}.{module}", __package__).BACKEND
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in row.frameworks:
            raise
        raise BackendError(
            f"backend {name!r}: the package {error.name!r} is not installed; run: pip install 'rnnzoo[{row.extra}]'"
        ) from error


def _imported(target: str, name: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (Exception, SystemExit) as error:  # whatever the module does while it is loaded
        raise BackendError(
            f"backend {name!r}: cannot load {target!r}: {said(error)}; expected 'package.module:OBJECT', "
            "installed or in a folder of PYTHONPATH"
        ) from error
