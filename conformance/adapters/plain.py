"""What the adapters share: which models are plain recurrent layers, and the arrays around a run."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...spec.backend import Result
from ...spec.inputs import Cotangents, Inputs
from ...spec.model import ModelSpec
from ..stateless import StatelessModel

Array = NDArray[Any]


def beyond_layers(spec: ModelSpec) -> str | None:
    """Why a model is not recurrent layers of the cell `rnn` alone, or None."""
    if not spec.is_core:
        return "a plain layer has no embedding, head or context"
    return None if spec.cell == "rnn" else f"the adapter has layers for the cell rnn, not for {spec.cell}"


def one_bias(spec: ModelSpec) -> str | None:
    """Why a layer of one bias cannot be the model, or None."""
    return "a layer has one bias, not two that are trained" if spec.bias == "double" else None


def lengths(given: Inputs) -> Array | None:
    """The lengths (B,) behind the mask, None where every step is valid."""
    return None if given.mask is None else given.mask.sum(axis=1)


def initial_state(given: Inputs) -> Array | None:
    """The initial state (L*D, B, H), None where none was given."""
    return None if given.initial_states is None else next(iter(given.initial_states.values()))


def initial_state_or_zeros(model: StatelessModel, given: Inputs) -> Array:
    """The initial state, for its gradient."""
    state = initial_state(given)
    return np.zeros(model.spec.state_shape(len(given.inputs)), model.dtype) if state is None else state


def cotangent_arrays(model: StatelessModel, given: Inputs, cotangents: Cotangents) -> tuple[Array, Array]:
    """The cotangents of outputs and final state, with zeros for what was not given."""
    spec, (rows, steps) = model.spec, given.inputs.shape[:2]
    outputs, states = cotangents.outputs, cotangents.final_states
    return (
        np.zeros((rows, steps, spec.output_size), model.dtype) if outputs is None else outputs,
        np.zeros(spec.state_shape(rows), model.dtype) if states is None else next(iter(states.values())),
    )


def result(model: StatelessModel, outputs: Any, final_state: Any) -> Result:
    """Outputs (B, T, F) and final state (L*D, B, H), from anything that NumPy reads."""
    return Result(np.asarray(outputs), {model.spec.cell_definition.states[0]: np.asarray(final_state)})


def named_gradients(names: Iterable[str], weights: Iterable[Any], inputs: Any, initial_state: Any) -> dict[str, Array]:
    """Gradients by name, from anything that NumPy reads."""
    found = {**dict(zip(names, weights, strict=True)), "inputs": inputs, "initial_state": initial_state}
    return {name: np.asarray(value) for name, value in found.items()}
