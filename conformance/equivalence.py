"""Two models, in any frameworks: do they compute the same?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from ..spec.backend import Result, load_backend
from ..spec.errors import ConformanceError, InputError, listed
from ..spec.model import ModelSpec
from .bounds import allowed, coarser, largest_difference, largest_entry

Array = NDArray[Any]
ROWS, STEPS = 3, 7


@dataclass(frozen=True)
class Agreement:
    """How one quantity compares: the largest difference between the two models, and what is allowed."""

    quantity: str
    difference: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.allowed


def assert_equivalent(a: Any, b: Any, inputs: Any = None) -> list[Agreement]:
    """Prove that two models compute the same: outputs, final states, scores, and the gradients they share.

    Args:
        a, b: models that a backend of this package built, in any frameworks and precisions.
        inputs: (B, T, I) or tokens (B, T); or a dict of the arguments of `run` (`inputs`, `lengths`,
            `initial_state`, ...); None for random ones with uneven lengths and an initial state.

    Returns:
        What was compared, with the differences.

    Raises:
        ConformanceError: they differ by more than the bound allows; the message says where.
        InputError: the inputs fit neither model.
    """
    found = compare(a, b, inputs)
    if wrong := [agreement for agreement in found if not agreement.holds]:
        details = "; ".join(f"{w.quantity} by {w.difference:.3g}, allowed {w.allowed:.3g}" for w in wrong)
        raise ConformanceError(f"the {a.backend_name} and the {b.backend_name} model differ: {details}")
    return found


def compare(a: Any, b: Any, inputs: Any = None) -> list[Agreement]:
    """Run both models and compare all that they give. Raises ConformanceError where shapes or parts differ."""
    _check_comparable(a, b)
    arguments = random_arguments(a.spec) if inputs is None else _arguments(inputs)
    cotangents = _cotangents(a, arguments)
    first, second = (_everything(model, arguments, cotangents) for model in (a, b))
    dtype = coarser(_dtype(a), _dtype(b))
    found = []
    for name in [name for name in first if name in second]:
        if first[name].shape != second[name].shape:
            raise ConformanceError(f"{name}: shapes differ, {first[name].shape} and {second[name].shape}")
        bound = allowed(dtype, max(largest_entry(first[name]), largest_entry(second[name])))
        found.append(Agreement(name, largest_difference(first[name], second[name]), bound))
    return found


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


def _cotangents(model: Any, arguments: Mapping[str, Any]) -> tuple[Array, dict[str, Array], Array | None]:
    result = load_backend(model.backend_name).run(model, **arguments)

    def random(name: str, like: Array) -> Array:
        return (2.0 * draws.uniform(1, name, like.size) - 1.0).reshape(like.shape)

    states = {name: random(name, state) for name, state in result.final_states.items()}
    return random("outputs", result.outputs), states, None if result.scores is None else random("scores", result.scores)


def _everything(model: Any, arguments: Mapping[str, Any], cotangents: tuple[Any, ...]) -> dict[str, Array]:
    backend = load_backend(model.backend_name)
    result: Result = backend.run(model, **arguments)
    gradients = backend.gradients(
        model,
        arguments["inputs"],
        *cotangents,
        **{name: value for name, value in arguments.items() if name != "inputs"},
    )
    return result.arrays() | {f"gradient of {name}": gradient for name, gradient in gradients.items()}


def _dtype(model: Any) -> str:
    weights = load_backend(model.backend_name).to_spec(model)
    return str(next(iter(weights.values())).dtype)
