"""A backend is asked here, always in the same way, and what it answers is checked against SPEC.md, 13.

The model and the inputs, batches or weights are given by position, everything else by name.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.backend import Result
from ..spec.contract import asked
from ..spec.encoder_decoder import AnySpec, networks
from ..spec.errors import ConformanceError, listed
from ..spec.inputs import Cotangents
from ..spec.training import Batch

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]
RESULT = "a Result of rnnzoo.spec: outputs, final_states (arrays by name of state), and scores if the model has a head"


def results(backend: Any, model: Any, spec: AnySpec, given: Mapping[str, Any]) -> dict[str, Array]:
    """Everything that a run gives, by name. Raises ConformanceError where it is no result of such a model."""
    inputs, others = _parted(given)
    found = asked(backend, "run", model, inputs, **others)
    if not isinstance(found, Result):
        raise ConformanceError(f"run: expected {RESULT}, got {_shown(found)}")
    _checked("run, final_states", found.final_states)
    arrays, shapes = _checked("run", found.arrays()), result_shapes(spec, *np.shape(inputs)[:2])
    if set(arrays) != set(shapes):
        raise ConformanceError(f"run: expected {listed(shapes)} in the Result (SPEC.md, 7 and 8), got {listed(arrays)}")
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ConformanceError(f"run, {name}: expected the shape {shape}, got {arrays[name].shape}")
    return arrays


def result_shapes(spec: AnySpec, rows: int, steps: int) -> Shapes:
    """What a run of so many rows and steps gives; of an encoder with its decoder, the latter's results."""
    network, head = networks(spec)[-1], networks(spec)[-1].head
    found: Shapes = {"outputs": (rows, steps, network.output_size)}
    found |= {f"final_state.{name}": network.state_shape(rows) for name in network.cell_definition.states}
    if head:
        found["scores"] = (rows, steps, head.size) if head.reads == "steps" else (rows, head.size)
    return found


def gradients(backend: Any, model: Any, given: Mapping[str, Any], cotangents: Cotangents) -> dict[str, Array]:
    """All gradients by name. Raises ConformanceError where they are none."""
    inputs, others = _parted(given)
    found = asked(
        backend,
        "gradients",
        model,
        inputs,
        outputs_cotangent=cotangents.outputs,
        final_state_cotangent=cotangents.final_states,
        scores_cotangent=cotangents.scores,
        **others,
    )
    return _checked("gradients", found)


def weights(backend: Any, model: Any) -> dict[str, Array]:
    """The weights by their canonical names. Raises ConformanceError where they are none."""
    return _checked("to_spec", asked(backend, "to_spec", model))


def update(trainer: Any, *batches: Batch) -> tuple[float, float]:
    """Loss and gradient norm of one update. Raises ConformanceError where they are no two numbers."""
    found = asked(trainer, "step", *batches)
    try:
        loss, norm = (float(number) for number in found)
    except (TypeError, ValueError):
        raise ConformanceError(
            f"trainer, step: expected a StepResult of rnnzoo.spec: loss and gradient norm, got {_shown(found)}"
        ) from None
    return loss, norm


def state(trainer: Any) -> dict[str, Array]:
    """What a trainer keeps, by name. Raises ConformanceError where that is no mapping of arrays."""
    return _checked("trainer, state", asked(trainer, "state"))


def _parted(given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The inputs, and the other arguments."""
    return given["inputs"], {name: value for name, value in given.items() if name != "inputs"}


def _checked(what: str, found: Any) -> dict[str, Array]:
    if not isinstance(found, Mapping):
        raise ConformanceError(f"{what}: expected a dict of NumPy arrays by name, got {_shown(found)}")
    for name, array in found.items():
        if not isinstance(array, np.ndarray | np.generic) or array.dtype.kind not in "fiu":
            raise ConformanceError(f"{what}, {name}: expected a NumPy array of numbers, got {_shown(array)}")
    return dict(found)


def _shown(value: object) -> str:
    """A value for a message: its type, of arrays their dtype and shape, of mappings their names."""
    if value is None:
        return "None"
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if isinstance(value, Mapping):
        return f"a {kind} of {', '.join(map(repr, list(value)[:8])) or 'nothing'}"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"a {kind} of {dtype}, shape {tuple(shape)}"
    return f"a {kind} of length {len(value)}" if isinstance(value, list | tuple) else f"a {kind}"
