"""Two models, in any frameworks: do they compute the same?"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from ..spec.backend import BUILT_IN, load_backend, load_plain
from ..spec.encoder_decoder import AnySpec, Source, differing_fields, networks
from ..spec.errors import ConformanceError, InputError, listed
from ..spec.inputs import Cotangents, checked_inputs
from ..spec.model import ModelSpec
from ..spec.parameters import Weights, weights_dtype
from . import answers
from .bounds import Bounds, Named, bounds, everything, results
from .comparison import Comparison, same_bits
from .precision import precision_of

Array = NDArray[Any]
ROWS, STEPS = 3, 7
GRADIENT = "gradient of "
ARGUMENTS = ("inputs", "lengths", "mask", "initial_state", "context")
SOURCE = {"source": "inputs", "source_lengths": "lengths", "source_mask": "mask"}  # of an encoder, in a flat file


@dataclass(frozen=True)
class Side:
    """A model, and the backend that runs it.

    Attributes:
        name: for messages, such as `torch.nn.RNN`.
        spec: what it is.
        weights: of the spec.
    """

    name: str
    backend: Any
    model: Any
    spec: AnySpec
    weights: Weights

    @property
    def dtype(self) -> str:
        return weights_dtype(self.weights)

    @property
    def precision(self) -> str:
        """In which its backend computes: the dtype, or one with larger errors that the backend declares."""
        declared: Mapping[str, str] = getattr(self.backend, "precisions", {})
        return declared.get(self.dtype, self.dtype)


def side(model: Any) -> Side:
    """The side of a model that a backend built, or of a plain layer of a framework.

    Raises:
        InputError: it is neither.
        UnsupportedError: a layer that the spec has no place for.
    """
    if hasattr(model, "backend_name") and isinstance(getattr(model, "spec", None), AnySpec):
        backend = load_backend(model.backend_name)
        return Side(f"the {backend.name} model", backend, model, model.spec, backend.to_spec(model))
    if isinstance(model, list | tuple):
        raise InputError(
            f"expected one model, got a {type(model).__name__} of {len(model)}; give each by itself, or the one "
            "that they make (torch.nn.RNN with num_layers, a keras.Sequential)"
        )
    packages = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    for name, row in BUILT_IN.items():
        if packages & set(row.frameworks) and (backend := load_plain(name)).owns(model):
            return Side(f"the {backend.name} layer", backend, model, backend.spec_of(model), backend.to_spec(model))
    raise InputError(
        f"expected a model that load_backend(...).build(spec) gave, a torch.nn.RNN, or layers of Keras, "
        f"got {type(model).__name__}"
    )


def assert_equivalent(a: Any, b: Any, inputs: Any = None) -> list[Comparison]:
    """Prove that two models compute the same: outputs, final states, scores, and the gradients they share.

    Each may be off from the truth by what rounding can do in its precision (SPEC.md, 11), and so the two may
    differ by the sum.

    Args:
        a, b: models that backends of this package built, or the frameworks' own layers (`torch.nn.RNN`, Keras'
            `SimpleRNN` and what is made of it), in any precisions.
        inputs: (B, T, I) or tokens (B, T); or a dict of the arguments of `run` (`inputs`, `lengths`,
            `initial_state`, ...); None for random ones with uneven lengths and an initial state.

    Returns:
        What was compared. A gradient that is not `decidable` agrees, but so would any other.

    Raises:
        ConformanceError: they differ by more than the bound allows, or rounding alone can be as large as the
            results; the message says where.
        InputError: one is no model, or the inputs fit neither.
        UnsupportedError: a layer that the spec has no place for.
    """
    sides = side(a), side(b)
    warn_of_zeros(*sides)
    return checked(*sides, inputs)


def are_zero(weights: Weights) -> bool:
    """Whether all weights of the layers are 0: every state is the same then, whatever reads what."""
    return not any(array.any() for name, array in weights.items() if ".layers." in f".{name}")


def warn_of_zeros(*sides: Side) -> None:
    """A warning where running both proves nothing."""
    if all(are_zero(one.weights) for one in sides):
        names = " and ".join(one.name for one in sides)
        warnings.warn(f"{names}: all weights of the layers are 0, so that running both proves nothing", stacklevel=3)


def checked(a: Side, b: Side, inputs: Any = None) -> list[Comparison]:
    """What `compare` finds. Raises ConformanceError where they differ, or there is no verdict on a result."""
    found = compare(a, b, inputs)
    names = f"{a.name} and {b.name}"
    if wrong := [c for c in found if not c.ratio <= 1]:
        details = "; ".join(c.description("the first has", "the second") for c in wrong)
        raise ConformanceError(f"{names} differ: {details}")
    if unclear := [
        f"{c.quantity} ({c.gain:.2g} times)" for c in found if not (c.decidable or c.quantity.startswith("gradient"))
    ]:
        raise ConformanceError(
            f"{names} cannot be told apart from other ones: rounding errors grow until they are as large as the "
            f"numbers in {', '.join(unclear)}; compare in float64, or on shorter sequences"
        )
    return found


def compare(a: Side, b: Side, inputs: Any = None) -> list[Comparison]:
    """Run both models and compare all that they give. Raises ConformanceError where shapes or parts differ."""
    _check_comparable(a, b)
    arguments = shared_arguments(a, b) if inputs is None else _arguments(inputs)
    arguments = _representable(arguments, coarser(a.dtype, b.dtype))
    _check_finite(a, arguments)
    differentiate = all(hasattr(one.backend, "gradients") for one in (a, b))
    cotangents = _cotangents(a, arguments) if differentiate else None
    sides = [_everything(one, arguments, cotangents) for one in (a, b)]
    limits = [_bounds(a, arguments, cotangents)]
    limits += limits if _are_one_model(a, b) else [_bounds(b, arguments, cotangents)]
    found = []
    for name in [name for name in sides[0] if name in sides[1]]:
        first, second = (one[name].astype(np.float64) for one in sides)
        if first.shape != second.shape:
            raise ConformanceError(f"{name}: shapes differ, {first.shape} and {second.shape}")
        exact = [getattr(one.backend, "exact", False) for one in (a, b)]
        allowed = [limit.allowed[name] for limit, free in zip(limits, exact, strict=True) if not free]
        gain = max(limit.gains[name] for limit in limits)
        found.append(Comparison(name, first, second, np.add.reduce([np.zeros(first.shape), *allowed]), gain))
    return found


def shared_arguments(a: Side, b: Side) -> dict[str, Any]:
    """Random arguments that both take: no row is empty where a side cannot have one."""
    found = random_arguments(a.spec)
    if not all(getattr(one.backend, "empty_rows", True) for one in (a, b)):
        found["lengths"] = np.maximum(found["lengths"], 1)
    return found


def _are_one_model(a: Side, b: Side) -> bool:
    """Whether both have the same numbers, so that the same is allowed for both."""
    return (
        a.spec == b.spec
        and a.precision == b.precision
        and all(same_bits(a.weights[name], b.weights[name]) for name in a.weights)
    )


def coarser(*dtypes: str) -> str:
    """The dtype with the larger roundoff."""
    return max(dtypes, key=lambda dtype: precision_of(dtype).roundoff)


def random_arguments(spec: AnySpec, rows: int = ROWS, steps: int = STEPS) -> dict[str, Any]:
    """Arguments of `run` that leave nothing out: uneven lengths, one of them 0, and a context or initial state."""
    if isinstance(spec, ModelSpec):
        return _random_arguments(spec, rows, steps)
    read = _random_arguments(spec.encoder, rows, steps + 1)
    source = Source(read["inputs"][::-1], read["lengths"][::-1])  # long ones beside short ones
    return _random_arguments(spec.decoder, rows, steps) | {"context": source}


def _random_arguments(spec: ModelSpec, rows: int, steps: int) -> dict[str, Any]:
    inputs: Array = 2.0 * draws.uniform(0, "inputs", rows * steps * spec.input_size).reshape(rows, steps, -1) - 1.0
    if spec.embedding:
        inputs = (draws.uniform(0, "tokens", rows * steps) * spec.embedding.vocabulary_size).astype(np.int64)
        inputs = inputs.reshape(rows, steps)
    found: dict[str, Any] = {"inputs": inputs, "lengths": np.linspace(steps, 0, rows).astype(np.int64)}
    if spec.context:
        found["context"] = 2.0 * draws.uniform(0, "context", rows * spec.context.size).reshape(rows, -1) - 1.0
    else:
        shape = spec.state_shape(rows)
        names = spec.cell_definition.states
        states = {n: (draws.uniform(0, f"state {n}", int(np.prod(shape))) - 0.5).reshape(shape) for n in names}
        found["initial_state"] = states if len(names) > 1 else states[names[0]]
    return found


def _check_comparable(a: Side, b: Side) -> None:
    parts = ("input_size", "embedding", "head", "context", "cell")
    if differing := [name for name in differing_fields(a.spec, b.spec) if name.rpartition(".")[2] in parts]:
        raise ConformanceError(f"the models cannot be compared: their specs differ in {listed(differing)}")


def _check_finite(one: Side, arguments: Mapping[str, Any]) -> None:
    """Raises InputError for numbers that make all results NaN, so that any two models would agree."""
    given = checked_inputs(one.spec, one.dtype, **arguments)
    read = [one.inputs if one.mask is None else one.inputs[one.mask] for one in (given, given.source) if one]
    states = (given.initial_states or {}).values()
    for array in (*read, *states, *([] if given.context is None else [given.context])):
        if not np.isfinite(array).all():
            raise InputError(
                "inputs: expected finite numbers at valid steps, got NaN or infinity, which proves nothing"
            )


def _arguments(inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        if "inputs" not in inputs:
            raise InputError(f"inputs: expected a dict with the key 'inputs', got {listed(inputs)}")
        if unknown := set(inputs) - {*ARGUMENTS, *SOURCE}:
            raise InputError(f"inputs: unknown {listed(unknown)}; known are {listed([*ARGUMENTS, *SOURCE])}")
        inputs = {name: _detached(value) for name, value in inputs.items()}
        found = {name: value for name, value in inputs.items() if name in ARGUMENTS}
        if source := {SOURCE[name]: value for name, value in inputs.items() if name in SOURCE}:
            if "inputs" not in source:
                raise InputError(f"inputs: expected the key 'source' beside {listed(set(SOURCE) & set(inputs))}")
            found["context"] = Source(**source)
        return found
    return {"inputs": _detached(inputs)}


def _detached(value: Any) -> Any:
    """A tensor that records derivatives as one that does not."""
    return value.detach() if hasattr(value, "detach") else value


def _representable(arguments: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The arguments in numbers that both models can hold, so that both compute with the same."""

    def rounded(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: rounded(part) for name, part in value.items()}
        if isinstance(value, Source):
            return Source(*map(rounded, value))
        array = np.asarray(value)
        return array.astype(dtype) if array.dtype.kind == "f" else value

    return {name: rounded(value) for name, value in arguments.items()}


def _cotangents(one: Side, arguments: Mapping[str, Any]) -> Cotangents:
    found = answers.results(one.backend, one.model, one.spec, arguments)

    def random(name: str, like: Array) -> Array:
        numbers = (2.0 * draws.uniform(1, name, like.size) - 1.0).reshape(like.shape)
        return numbers.astype(np.float32).astype(np.float64)

    states = {name: found[f"final_state.{name}"] for name in networks(one.spec)[-1].cell_definition.states}
    of_states = {name: random(name, state) for name, state in states.items()}
    scores = random("scores", found["scores"]) if "scores" in found else None
    return Cotangents(random("outputs", found["outputs"]), of_states, scores)


def _everything(one: Side, arguments: Mapping[str, Any], cotangents: Cotangents | None) -> Named:
    found = answers.results(one.backend, one.model, one.spec, arguments)
    if cotangents is None:
        return found
    slopes = answers.gradients(one.backend, one.model, arguments, cotangents)
    return found | {f"{GRADIENT}{name}": gradient for name, gradient in slopes.items()}


def _bounds(one: Side, arguments: Mapping[str, Any], cotangents: Cotangents | None) -> Bounds:
    given = checked_inputs(one.spec, one.dtype, **arguments)
    if cotangents is None:
        return bounds(results(one.spec, one.weights, given), one.precision)
    found = bounds(everything(one.spec, one.weights, given, cotangents), one.precision)
    names = {name: name.replace("gradient.", GRADIENT) for name in found.allowed}
    allowed = {names[name]: array for name, array in found.allowed.items()}
    return Bounds(allowed, {names[name]: gain for name, gain in found.gains.items()}, found.undecided)
