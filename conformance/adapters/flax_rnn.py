"""Flax: `nnx.RNN` over `nnx.SimpleCell`, in `nnx.Bidirectional` where there are two directions, one upon the other.

A cell always has one bias: 0 in a model without.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ...spec.backend import Result
from ...spec.inputs import Cotangents, Inputs
from ...spec.model import ModelSpec
from ..stateless import DifferentiatingStatelessBackend, StatelessModel
from .autodiff import in_jax
from .plain import (
    Array,
    beyond_layers,
    cotangent_arrays,
    initial_state,
    initial_state_or_zeros,
    lengths,
    named_gradients,
    one_bias,
    result,
)

ACTIVATIONS = {"tanh": nnx.tanh, "relu": nnx.relu, "sigmoid": nnx.sigmoid, "identity": nnx.identity}
MERGES: dict[str, Callable[[Any, Any], Any]] = {
    "concat": lambda y, z: jnp.concatenate([y, z], axis=-1),
    "sum": lambda y, z: y + z,
    "average": lambda y, z: (y + z) / 2,
    "multiply": lambda y, z: y * z,
}


class FlaxRNN(DifferentiatingStatelessBackend):
    """Layers called one after the other, each with the lengths, compiled by `jax.jit`."""

    name = "flax"
    takes = ("lengths", "initial_state")

    def supports(self, spec: ModelSpec) -> str | None:
        """None, or why the model cannot be run."""
        return beyond_layers(spec) or one_bias(spec)

    def results(self, model: StatelessModel, given: Inputs) -> Result:
        """Outputs and final states of the layers."""
        layers, run = _network(model.spec, model.dtype)
        parameters, others = _split(model, layers)
        return result(model, *run((others, lengths(given)), parameters, given.inputs, initial_state(given)))

    def derivatives(self, model: StatelessModel, given: Inputs, cotangents: Cotangents) -> dict[str, Array]:
        """Gradients by `jax.vjp`."""
        layers, run = _network(model.spec, model.dtype)
        parameters, others = _split(model, layers)
        arguments = [parameters, given.inputs, initial_state_or_zeros(model, given)]
        found, of_inputs, of_state = in_jax(
            run, (others, lengths(given)), arguments, cotangent_arrays(model, given, cotangents)
        )
        of_layers = _parameters(model.spec, nnx.merge(nnx.graphdef(layers), found, others))
        return named_gradients(model.weights, [gradient[...].T for gradient in of_layers], of_inputs, of_state)


def _split(model: StatelessModel, layers: Any) -> tuple[Any, Any]:
    """The layers' parameters, set to the model's weights, and what else the layers hold."""
    for parameter, array in zip(_parameters(model.spec, layers), model.weights.values(), strict=True):
        parameter[...] = jnp.asarray(array.T)
    _, parameters, others = nnx.split(layers, nnx.Param, ...)
    return parameters, others


def _parameters(spec: ModelSpec, layers: Any) -> Iterator[Any]:
    """The parameters that the model has, in the order of the spec; columns are units."""
    for layer in layers:
        for rnn in [layer.forward_rnn, layer.backward_rnn] if spec.num_directions == 2 else [layer]:
            yield rnn.cell.dense_i.kernel
            yield rnn.cell.dense_h.kernel
            if spec.bias == "single":
                yield rnn.cell.dense_i.bias


@lru_cache(maxsize=16)  # a compiled loop takes megabytes
def _network(spec: ModelSpec, dtype: str) -> tuple[Any, Callable[..., tuple[Any, Any]]]:
    """The layers, and `run((others, lengths), parameters, inputs, initial state)` for outputs and final state."""
    D, layers = spec.num_directions, nnx.List([_layer(spec, layer, dtype) for layer in range(spec.num_layers)])
    definition, _, _ = nnx.split(layers, nnx.Param, ...)

    def run(fixed: Any, parameters: Any, outputs: Any, state: Any) -> tuple[Any, Any]:
        others, sizes = fixed
        final_states: list[Any] = []
        for number, layer in enumerate(nnx.merge(definition, parameters, others)):
            initial = None if state is None else state[number * D] if D == 1 else tuple(state[number * D :][:D])
            final, outputs = layer(outputs, initial_carry=initial, seq_lengths=sizes)
            final_states += final if D == 2 else [final]
        return outputs, jnp.stack(final_states)

    return layers, jax.jit(run)


def _layer(spec: ModelSpec, layer: int, dtype: str) -> Any:
    rnns = [_rnn(spec, spec.layer_input_size(layer), jnp.dtype(dtype)) for _ in spec.directions]
    return rnns[0] if len(rnns) == 1 else nnx.Bidirectional(*rnns, merge_fn=MERGES[spec.merge], return_carry=True)


def _rnn(spec: ModelSpec, input_size: int, dtype: Any) -> Any:
    zeros = nnx.initializers.zeros_init()  # the default ones take seconds to compile, and the weights are set anyhow
    cell = nnx.SimpleCell(
        input_size, spec.hidden_size, activation_fn=ACTIVATIONS[spec.nonlinearity], dtype=dtype, param_dtype=dtype,
        kernel_init=zeros, recurrent_kernel_init=zeros, rngs=nnx.Rngs(0),
    )  # fmt: skip
    return nnx.RNN(cell, return_carry=True)


BACKEND = FlaxRNN()
