"""Two models, in any frameworks: do they compute the same?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from ..spec.backend import Result, load_backend
from ..spec.errors import ConformanceError, InputError, listed
from ..spec.inputs import Cotangents, checked_inputs
from ..spec.model import ModelSpec
from ..spec.parameters import weights_dtype
from .bounds import Named, bounds, gradients, results
from .comparison import Comparison
from .precision import precision_of

Array = NDArray[Any]
ROWS, STEPS = 3, 7


def assert_equivalent(a: Any, b: Any, inputs: Any = None) -> list[Comparison]:
    """Prove that two models compute the same: outputs, final states, scores, and the gradients they share.

    Each may be off from the truth by what rounding can do in its precision (SPEC.md, 11), and so the two may
    differ by the sum.

    Args:
        a, b: models that a backend of this package built, in any frameworks and precisions.
        inputs: (B, T, I) or tokens (B, T); or a dict of the arguments of `run` (`inputs`, `lengths`,
            `initial_state`, ...); None for random ones with uneven lengths and an initial state.

    Returns:
        What was compared. A gradient that is not `decidable` agrees, but so would any other.

    Raises:
        ConformanceError: they differ by more than the bound allows, or rounding alone can be as large as the
            results; the message says where.
        InputError: the inputs fit neither model.
    """
    found = compare(a, b, inputs)
    names = f"the {a.backend_name} and the {b.backend_name} model"
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


def compare(a: Any, b: Any, inputs: Any = None) -> list[Comparison]:
    """Run both models and compare all that they give. Raises ConformanceError where shapes or parts differ."""
    _check_comparable(a, b)
    arguments = random_arguments(a.spec) if inputs is None else _arguments(inputs)
    arguments = _representable(arguments, coarser(_dtype(a), _dtype(b)))
    cotangents = _cotangents(a, arguments)
    sides = [_everything(model, arguments, cotangents) for model in (a, b)]
    allowed, gains = _allowed(a, b, arguments, cotangents)
    found = []
    for name in [name for name in sides[0] if name in sides[1]]:
        first, second = (side[name].astype(np.float64) for side in sides)
        if first.shape != second.shape:
            raise ConformanceError(f"{name}: shapes differ, {first.shape} and {second.shape}")
        found.append(Comparison(name, first, second, allowed[name], gains[name]))
    return found


def coarser(*dtypes: str) -> str:
    """The dtype with the larger roundoff."""
    return max(dtypes, key=lambda dtype: precision_of(dtype).roundoff)


def random_arguments(spec: ModelSpec, rows: int = ROWS, steps: int = STEPS) -> dict[str, Any]:
    """Arguments of `run` that leave nothing out: uneven lengths, one of them 0, and a context or initial state."""
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


def _check_comparable(a: Any, b: Any) -> None:
    for model in (a, b):
        if not hasattr(model, "backend_name") or not isinstance(getattr(model, "spec", None), ModelSpec):
            raise InputError(
                f"assert_equivalent: expected models that a backend of rnnzoo built, got {type(model).__name__}; "
                "take one from load_backend(...).build(spec)"
            )
    differing = [
        n for n in ("input_size", "embedding", "head", "context", "cell") if getattr(a.spec, n) != getattr(b.spec, n)
    ]
    if differing:
        raise ConformanceError(f"the models cannot be compared: their specs differ in {listed(differing)}")


def _arguments(inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        if "inputs" not in inputs:
            raise InputError(f"inputs: expected a dict with the key 'inputs', got {listed(inputs)}")
        return dict(inputs)
    return {"inputs": inputs}


def _representable(arguments: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The arguments in numbers that both models can hold, so that both compute with the same."""

    def rounded(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: rounded(part) for name, part in value.items()}
        array = np.asarray(value)
        return array.astype(dtype) if array.dtype.kind == "f" else value

    return {name: rounded(value) for name, value in arguments.items()}


def _cotangents(model: Any, arguments: Mapping[str, Any]) -> Cotangents:
    result = load_backend(model.backend_name).run(model, **arguments)

    def random(name: str, like: Array) -> Array:
        numbers = (2.0 * draws.uniform(1, name, like.size) - 1.0).reshape(like.shape)
        return numbers.astype(np.float32).astype(np.float64)

    states = {name: random(name, state) for name, state in result.final_states.items()}
    scores = None if result.scores is None else random("scores", result.scores)
    return Cotangents(random("outputs", result.outputs), states, scores)


def _everything(model: Any, arguments: Mapping[str, Any], cotangents: Cotangents) -> Named:
    backend = load_backend(model.backend_name)
    result: Result = backend.run(model, **arguments)
    slopes = backend.gradients(
        model,
        arguments["inputs"],
        cotangents.outputs,
        cotangents.final_states,
        cotangents.scores,
        **{name: value for name, value in arguments.items() if name != "inputs"},
    )
    return result.arrays() | {f"gradient of {name}": gradient for name, gradient in slopes.items()}


def _allowed(a: Any, b: Any, arguments: Mapping[str, Any], cotangents: Cotangents) -> tuple[Named, dict[str, float]]:
    """The sum of both models' bounds, and the larger of their gains."""
    sides = [_bounds(model, arguments, cotangents) for model in (a, b)]
    names = [name for name in sides[0][0] if name in sides[1][0]]
    allowed = {name: sides[0][0][name] + sides[1][0][name] for name in names}
    return allowed, {name: max(sides[0][1][name], sides[1][1][name]) for name in names}


def _bounds(model: Any, arguments: Mapping[str, Any], cotangents: Cotangents) -> tuple[Named, dict[str, float]]:
    weights, dtype = load_backend(model.backend_name).to_spec(model), _dtype(model)
    given = checked_inputs(model.spec, dtype, **arguments)
    found = bounds(results(model.spec, weights, given), dtype)
    slopes = bounds(gradients(model.spec, weights, given, cotangents), dtype)
    allowed = found.allowed | {f"gradient of {name}": array for name, array in slopes.allowed.items()}
    return allowed, {**found.gains, **{f"gradient of {name}": gain for name, gain in slopes.gains.items()}}


def _dtype(model: Any) -> str:
    return weights_dtype(load_backend(model.backend_name).to_spec(model))
