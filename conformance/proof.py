"""The proof of a conversion: both files' models, each run by its own framework, give the same."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ..spec.backend import load_backend, unsupported
from ..spec.encoder_decoder import AnySpec
from ..spec.errors import BackendError, UnsupportedError
from ..spec.found import Original
from ..spec.model import ModelSpec
from ..spec.parameters import Weights, weights_dtype
from ..spec.stored import Array
from .comparison import Comparison
from .cutting import UNITS, cut, is_large
from .equivalence import Side, are_zero, checked
from .formats import Format
from .reference import BACKEND as ORACLE

AS_READ = "the layer as it was read"
NARROWER = "float32"  # in which models of float64 are run where a framework has no layer of float64


@dataclass(frozen=True)
class Proof:
    """What ran, and how it compares.

    Attributes:
        ran: on both sides, with versions, and the reason where it is not the framework itself.
        comparisons: of all that both sides gave; none where weights are not finite.
        notes: what limits the proof.
        empty: whether running both says nothing, as all weights of the layers are 0.
    """

    ran: tuple[str, str]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    empty: bool = False

    @property
    def worst(self) -> Comparison | None:
        """The comparison with the largest error in units of what is allowed."""
        return max(self.comparisons, key=lambda comparison: comparison.ratio, default=None)


NOT_RUN = Proof(
    ("not run", "not run"), (), ("weights that are not finite: every bit was kept, and neither side was run",)
)


class Half(NamedTuple):
    """A file's model.

    Attributes:
        plain: whether the framework's own layers run it, or the zoo's.
        weights: of the spec, which may be read when they are asked for.
        path, prefix: of a file that the framework itself is to load; None to put the weights into fresh layers.
        original: the layer in the words of somebody's file, which the framework is to run.
    """

    form: Format
    plain: bool
    spec: AnySpec
    weights: Mapping[str, Array]
    path: Path | None = None
    prefix: str = ""
    original: Original | None = None


class Runner(NamedTuple):
    """A backend for a half, and why it is not the framework itself."""

    backend: Any
    reason: str | None = None

    @property
    def text(self) -> str:
        """Its name, with the framework's version."""
        package = self.backend.name.partition(".")[0]
        version = ""
        with contextlib.suppress(metadata.PackageNotFoundError):
            version = f" {metadata.version(package)}"
        return f"{self.backend.name}{version}{f', as {self.reason}' if self.reason else ''}"


def proven(first: Half, second: Half, inputs: Mapping[str, Any] | None = None) -> Proof:
    """Run both halves, whose weights are finite, and compare.

    Raises:
        ConformanceError: they differ, or rounding alone can be as large as the results.
        InputError: the inputs do not fit.
    """
    halves, notes = [first, second], []
    if is_large(first.spec) and inputs is None:
        notes.append(
            f"a large model: every bit was compared, and the first {UNITS} units of each layer were run, as they were "
            "read, so that a misreading would not show (--inputs runs all of it, which takes 64 times its memory)"
        )
        halves = [_cut(one) for one in halves]
    if not first.spec.is_core and any(one.plain and _runs_core_alone(one) for one in halves):
        notes.append("embedding, context and head keep every bit; the recurrent layers alone were run")
        halves = [_core(one) for one in halves]
    halves = [one._replace(weights=dict(one.weights)) for one in halves]
    notes += _one_number(halves[0].weights)
    runners = [_runner(one) for one in halves]
    dtype = weights_dtype(halves[0].weights)
    if any(dtype not in getattr(runner.backend, "dtypes", (dtype,)) for runner in runners):
        notes.append(
            f"run in {NARROWER}, as a side has no layers of {dtype}, and does not load such a file; every bit was kept"
        )
        dtype = NARROWER
    sides = [_side(one, runner, dtype) for one, runner in zip(halves, runners, strict=True)]
    notes += [f"{one.name}: {one.precision} were allowed for" for one in sides if one.precision != one.dtype]
    compared = checked(sides[0], sides[1], inputs)
    return Proof((sides[0].name, sides[1].name), tuple(compared), tuple(notes), are_zero(sides[0].weights))


def _one_number(weights: Mapping[str, Array]) -> list[str]:
    """What a run cannot show of matrices that hold one number throughout."""
    same = [
        name for name, array in weights.items() if array.ndim == 2 and array.size > 1 and (array == array.flat[0]).all()
    ]
    words = "hold one number throughout: whether their rows and columns changed places does not show in a run"
    return [f"{', '.join(same)} {words}"] if same else []


def _runner(one: Half) -> Runner:
    """The framework, or the oracle where it is not installed or has no such layer."""
    try:
        backend = one.form.plain_backend if one.plain else load_backend(one.form.backend)
        reason = unsupported(backend, one.spec)
    except BackendError as error:
        reason = str(error)
    return Runner(ORACLE, reason) if reason else Runner(backend)


def _side(one: Half, runner: Runner, dtype: str) -> Side:
    weights = {name: array.astype(dtype) for name, array in one.weights.items()}
    model, words = _model(one, runner, weights)
    return Side(f"{runner.text} ({words})", runner.backend, model, one.spec, weights)


def _model(one: Half, runner: Runner, weights: Weights) -> tuple[Any, str]:
    """The model: the file's own where the framework takes it, else of the weights that were read; and which it is."""
    backend, dtype, words = runner.backend, weights_dtype(weights), AS_READ
    own = one.plain and runner.reason is None
    if own and one.original:
        try:
            return backend.original(one.original, one.spec, weights), backend.own_words
        except UnsupportedError as error:
            words = f"{AS_READ}, as {error}"
    if own and one.path and dtype == weights_dtype(one.weights):
        return backend.loaded(one.path, one.spec, one.prefix), "the file as it is"
    model = backend.build(one.spec, dtype=dtype)
    backend.from_spec(model, weights)
    return model, words


def _runs_core_alone(one: Half) -> bool:
    """Whether the framework's layers take the recurrent part of a model, and not the parts around it."""
    return _runner(one).reason is not None and _runner(_core(one)).reason is None


def _cut(one: Half) -> Half:
    spec, weights = cut(one.spec, one.weights)
    return one._replace(spec=spec, weights=weights, path=None, original=None)


def _core(one: Half) -> Half:
    """The recurrent layers alone, whose weights are put into fresh ones."""
    assert isinstance(one.spec, ModelSpec)  # no framework has layers for an encoder with its decoder
    spec = replace(one.spec, embedding=None, context=None, head=None)
    weights = {name: one.weights[name] for name in one.weights if name.startswith("layers.")}
    return one._replace(spec=spec, weights=weights, path=None, original=None)
