"""The Keras layer `Recurrent`: the recurrent core (SPEC.md, 4 to 6)."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..spec.dropout import Masks
from ..spec.encoder_decoder import spec_from_text
from ..spec.errors import SpecError, WeightError, listed
from ..spec.model import ModelSpec
from ..spec.parameters import initial_weights
from ..spec.recomputing import checked_recompute
from . import layers, recomputing, streaming
from .arguments import check_inputs, check_shape, checked_dtype, single_or_all, states_by_name, valid_steps
from .dropout import counter, masks_of_call
from .graphs import Graph
from .weights import place, turned

Array = Any
Tensor = Any
Tensors = dict[str, Any]


@keras.saving.register_keras_serializable(package="rnnzoo")
class Recurrent(keras.layers.Layer):
    """The recurrent core as a Keras layer: inputs (B, T, I) to outputs (B, T, F), and final states if asked for.

    Its weights are there from the start, as `layers.{l}.{direction}.kernel` (I_l, G*H), `.recurrent_kernel` (H, G*H)
    and biases. Invalid steps give 0 and keep the state; `keras.layers.SimpleRNN` alone repeats its last output there.

    A spec with dropout drops where Keras trains (`fit`, or a call with `training=True`), not in `predict`, `evaluate`
    or `step`. The first such call has the masks of update 1, the next one those of update 2: `fit` drops what a trainer
    drops whose seed is the layer's. No generator of Keras is used. Another start is `layer.dropout_calls.assign(n)`,
    which no file holds; calls that are to repeat a mask or to share an update name it, `dropout=Masks(seed, update,
    first_row)`.

    Args:
        spec: a `ModelSpec` without embedding, head and context.
        seed: of the initial weights, which the spec draws, and of the masks.
        dtype: `float32` or `float64`, for weights and computation.
        return_state: also return the final states.
        recompute: gradients take less memory and a forward pass more; results are the same (SPEC.md, 13.4).

    Raises:
        SpecError: the spec has more than the core.
        UnsupportedError: the dtype, or Keras' global policy, is of mixed precision or quantized; `recompute` of a model
            that cannot be run part by part.
    """

    backend_name = "tf"

    def __init__(
        self,
        spec: ModelSpec,
        *,
        seed: int = 0,
        dtype: Any = "float32",
        return_state: bool = False,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        if not spec.is_core:
            raise SpecError("Recurrent: expected a spec without embedding, head and context; use SequenceModel")
        super().__init__(dtype=checked_dtype(dtype), **kwargs)
        self.spec, self.seed, self.return_state, self.recompute = spec, seed, return_state, recompute
        with tf.variable_creator_scope(_outside_scopes):
            for name, array in initial_weights(spec, seed, self.dtype).items():
                self._add(name, turned(name, array))
        self.dropout_calls = counter() if spec.dropout else None
        self._step_graph = Graph(self.step_of, worth=lambda given: False)  # one step
        self.supports_masking = True
        self.build((None, None, spec.input_size))

    def _add(self, name: str, value: Array) -> None:
        variable = place(name).variable
        self.add_weight(shape=value.shape, initializer=lambda shape, dtype: value, dtype=self.dtype, name=variable)

    def call(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
        initial_state: Any = None,
        training: bool | None = None,
        dropout: Masks | None = None,
    ) -> Any:
        """Outputs (B, T, F), or (outputs, final state) with `return_state`.

        inputs (B, T, I); mask (B, T) bool or lengths (B,), not both; states (L*D, B, H), a dict of them where the
        cell has several; the masks of this call, None for the next update's where Keras trains. Raises InputError.
        """
        check_inputs(inputs, self.spec)
        valid = valid_steps(inputs, mask, lengths)
        outputs, final = self.outputs_and_states(inputs, valid, initial_state, masks_of_call(self, training, dropout))
        if lengths is not None:
            outputs._keras_mask = valid  # what Keras does for a mask, for the layers above
        return (outputs, single_or_all(final)) if self.return_state else outputs

    def outputs_and_states(
        self, inputs: Tensor, mask: Tensor | None, initial_state: Any, masks: Masks | None = None
    ) -> tuple[Tensor, Tensors]:
        """Outputs (B, T, F) and final states (L*D, B, H) by name, whatever `return_state` is."""
        check_inputs(inputs, self.spec)
        initial = states_by_name(self.spec, initial_state, inputs, self.dtype)
        if self.recompute and recomputing.due(inputs):
            (outputs,), final = self.in_parts([], inputs, mask, initial, masks, lambda _, x, mask: x, _alone, 1)
            return outputs, final
        return layers.forward(self.spec, self._tensors(), inputs, mask, initial, masks)

    @property
    def recompute(self) -> bool:
        """Whether gradients are had by recomputing; may be set, for graphs that are traced after.

        Raises SpecError, UnsupportedError.
        """
        return self._recompute

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self._recompute = checked_recompute(self.spec, recompute)
        self.supports_jit = not recompute  # Keras asks for it before it compiles a model's training with XLA

    def in_parts(
        self,
        more: Sequence[Tensor],
        inputs: Tensor,
        mask: Tensor | None,
        initial: Tensors,
        masks: Masks | None,
        enter: Callable[[Any, Tensor, Tensor | None], Tensor],
        leave: Callable[[Any, Tensor, Tensor | None], tuple[Tensor, ...]],
        series: int,
    ) -> tuple[list[Tensor], Tensors]:
        """What `leave` gives of the outputs for what `enter` gives of the inputs, and final states, with recomputing.

        Both take more weights, (B, t, ...) of a part of the steps, and its mask (B, t) or None; `leave` gives a
        number of series.
        """
        rows = self.spec.num_layers * self.spec.num_directions

        def run(weights: Any, x: Tensor, mask: Tensor | None, starts: Tensors, room: Any) -> Any:
            own, more = weights
            y, final = layers.forward(self.spec, own, enter(more, x, mask), mask, starts, masks, room)
            return leave(more, y, mask) if starts[self.spec.cell_definition.output].shape[0] == rows else (), final

        weights = self._tensors(), more
        return recomputing.recomputed(run, weights, inputs, mask, initial, self.spec.num_directions, series)

    def _tensors(self) -> Tensors:
        return {variable.name: tf.convert_to_tensor(variable) for variable in self.weights}

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One time step, for streaming: x (B, I), state (L*D, B, H) or a dict of them, None for zeros.

        Returns the outputs (B, F) and the new state. Raises SpecError when the model reads backward as well.
        """
        return streaming.step(self, self._step_graph, x, state)

    def step_of(self, given: Tensors) -> list[Tensor]:
        """Outputs (B, F) and the new states in the cell's order, of `x` (B, I) and the states by name."""
        states = {name: given[name] for name in self.spec.cell_definition.states}
        outputs, final = self.outputs_and_states(given["x"][:, None], None, states)
        return [outputs[:, 0], *final.values()]

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> Tensor | None:
        """The outputs have the mask of the inputs."""
        return previous_mask

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B, T, F), and (L*D, B, H) for each state with `return_state`."""
        check_shape(input_shape, self.spec)
        batch, steps = input_shape[:2]
        outputs = (batch, steps, self.spec.output_size)
        state = (self.spec.num_layers * self.spec.num_directions, batch, self.spec.hidden_size)
        states = dict.fromkeys(self.spec.cell_definition.states, state)
        return (outputs, single_or_all(states)) if self.return_state else outputs

    def get_config(self) -> dict[str, Any]:
        """What `from_config` builds the layer from again: plain data."""
        return config_of(self) | {"return_state": self.return_state}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Recurrent":
        """The layer of that configuration, with its initial weights."""
        return cls(**from_data(config))

    def save_own_variables(self, store: Any) -> None:
        """Write the weights under their names."""
        for variable in self.weights:
            store[variable.name] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Read the weights by their names. Raises WeightError when others stand there."""
        names = {variable.name for variable in self.weights}
        if names != set(store.keys()):
            raise WeightError(f"{self.name}: expected the weights {listed(names)}, got {listed(store.keys())}")
        for variable in self.weights:
            variable.assign(store[variable.name])


def _alone(weights: Any, y: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
    return (y,)


def _outside_scopes(create: Callable[..., Any], **options: Any) -> Any:
    """A variable whose TensorFlow name lacks the layer's: each name costs a kernel, 0.6 ms and 35 kB kept for good."""
    with tf.name_scope(""):
        return create(**options)


def config_of(layer: Any) -> dict[str, Any]:
    """Name, spec, seed, dtype and whether it recomputes, of a layer or model of ours, as plain data."""
    spec = json.loads(layer.spec.to_json())
    found = {"name": layer.name, "trainable": layer.trainable, "spec": spec, "seed": layer.seed, "dtype": layer.dtype}
    return found | ({"recompute": True} if layer.recompute else {})


def from_data(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its spec as an object. Raises SpecError."""
    return config | {"spec": spec_from_text(json.dumps(config["spec"]))}
