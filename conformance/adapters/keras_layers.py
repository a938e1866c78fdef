"""Keras' own layers: `SimpleRNN`, in `Bidirectional` where there are two directions, one upon the other.

They run on the backend that `KERAS_BACKEND` named when Keras was loaded, by their stateless calls, which take the
weights as arguments.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import keras

from ...spec.backend import Result
from ...spec.inputs import Cotangents, Inputs
from ...spec.model import ModelSpec
from ..stateless import DifferentiatingStatelessBackend, StatelessBackend, StatelessModel
from .autodiff import GRADIENTS
from .plain import (
    Array,
    beyond_layers,
    cotangent_arrays,
    initial_state,
    initial_state_or_zeros,
    named_gradients,
    one_bias,
    result,
)

ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "identity": "linear"}
MERGE_MODES = {"concat": "concat", "sum": "sum", "average": "ave", "multiply": "mul"}
FRAMEWORK: str = keras.backend.backend()


class KerasLayers(StatelessBackend):
    """Layers called one after the other, each with the mask.

    Args:
        unroll: the layers' own option.
    """

    def __init__(self, unroll: bool) -> None:
        self.unroll = unroll
        self.name = f"keras{'-unrolled' if unroll else ''}-{FRAMEWORK}"

    def supports(self, spec: ModelSpec) -> str | None:
        """None, or why the model cannot be run."""
        return beyond_layers(spec) or one_bias(spec)

    def results(self, model: StatelessModel, given: Inputs) -> Result:
        """Outputs and final states of the layers."""
        run = _network(model.spec, model.dtype, self.unroll)
        found = run(_tensor(given.mask), *_kernels(model), _tensor(given.inputs), _tensor(initial_state(given)))
        return result(model, *map(keras.ops.convert_to_numpy, found))


class DifferentiatingKerasLayers(KerasLayers, DifferentiatingStatelessBackend):
    """The same with gradients, by the means of Keras' backend."""

    def derivatives(self, model: StatelessModel, given: Inputs, cotangents: Cotangents) -> dict[str, Array]:
        """Gradients of everything."""
        run = _network(model.spec, model.dtype, self.unroll)
        arguments = [*_kernels(model), _tensor(given.inputs), _tensor(initial_state_or_zeros(model, given))]
        weights = tuple(map(_tensor, cotangent_arrays(model, given, cotangents)))
        found = GRADIENTS[FRAMEWORK](run, _tensor(given.mask), arguments, weights)
        *kernels, inputs, state = map(keras.ops.convert_to_numpy, found)
        return named_gradients(model.weights, [kernel.T for kernel in kernels], inputs, state)


def _tensor(array: Array | None) -> Any:
    return None if array is None else keras.ops.convert_to_tensor(array, dtype=array.dtype.name)


def _kernels(model: StatelessModel) -> list[Any]:
    """The weights in the order of the spec, which is Keras' too; its columns are units."""
    return [_tensor(array.T) for array in model.weights.values()]


@lru_cache(maxsize=16)  # on jax a compiled loop takes megabytes
def _network(spec: ModelSpec, dtype: str, unroll: bool) -> Callable[..., tuple[Any, Any]]:
    """`run(mask, *kernels, inputs, initial state)`, which gives outputs and final state (L*D, B, H)."""
    D, layers = spec.num_directions, [_layer(spec, layer, dtype, unroll) for layer in range(spec.num_layers)]

    def run(mask: Any, *arguments: Any) -> tuple[Any, Any]:
        *kernels, outputs, state = arguments
        final_states, count = [], len(kernels) // len(layers)
        for number, layer in enumerate(layers):
            initial = None if state is None else [state[number * D + d] for d in range(D)]
            others = [variable.value for variable in layer.non_trainable_variables]
            (outputs, *final), _ = layer.stateless_call(
                kernels[number * count : (number + 1) * count], others, outputs, initial_state=initial, mask=mask
            )
            final_states += final
        return outputs, keras.ops.stack(final_states)

    return _compiled(run)


def _layer(spec: ModelSpec, layer: int, dtype: str, unroll: bool) -> Any:
    made = keras.layers.SimpleRNN(
        spec.hidden_size, activation=ACTIVATIONS[spec.nonlinearity], use_bias=spec.bias != "none",
        return_sequences=True, return_state=True, unroll=unroll, dtype=dtype,
    )  # fmt: skip
    if spec.num_directions == 2:
        made = keras.layers.Bidirectional(made, merge_mode=MERGE_MODES[spec.merge], dtype=dtype)
    made.build((None, None, spec.layer_input_size(layer)))
    return made


def _compiled(function: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """As Keras itself runs a model on jax; a call that is not compiled makes every loop over time anew."""
    if FRAMEWORK != "jax":
        return function
    import jax

    compiled: Callable[..., tuple[Any, Any]] = jax.jit(function)
    return compiled


_KIND = KerasLayers if FRAMEWORK == "numpy" else DifferentiatingKerasLayers
BACKEND = _KIND(unroll=False)
UNROLLED = _KIND(unroll=True)
