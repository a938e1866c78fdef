"""The recurrent core: layers, directions and merging, and the Keras layer `Recurrent` (SPEC.md, 4 to 6)."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.eager import record  # the only place that tells whether a tape records

from ..spec.dropout import Masks
from ..spec.encoder_decoder import spec_from_text
from ..spec.errors import SpecError, WeightError, listed
from ..spec.model import ModelSpec
from ..spec.parameters import initial_weights
from . import dropout, fast, recurrence, streaming
from .arguments import check_inputs, check_shape, checked_dtype, single_or_all, states_by_name, valid_steps
from .dropout import counter, masks_of_call
from .graphs import Graph
from .merging import merge
from .packing import packing, permuted
from .weights import place, turned

Array = Any
Tensor = Any
Tensors = dict[str, Any]


def forward(
    spec: ModelSpec,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    mask: Tensor | None,
    initial: Tensors,
    masks: Masks | None = None,
) -> tuple[Tensor, Tensors]:
    """Outputs (B, T, F) and final states (L*D, B, H) by name.

    weights as the layer names them; inputs (B, T, I); mask (B, T) or None; initial states (L*D, B, H) by name; masks of
    dropout, None to drop nothing.
    """
    B, T, _ = _shape(inputs)
    compiled = worth_compiling(spec, B, T)
    if mask is not None:
        inputs = tf.where(mask[:, :, None], inputs, tf.zeros([], inputs.dtype))
        if compiled is True and masks is None:  # what is dropped depends on where a row stands
            return _packed(spec, weights, inputs, mask, initial)
    length = fast.filled(T, compiled)
    given = {} if mask is None else {"mask": fast.longer(mask[:, :, None], length)}
    if not (length is T or (isinstance(length, int) and length == T)):
        given["ends"] = tf.stack([T])
    both = dict.fromkeys(spec.directions, given)
    x, final = _called(spec, weights, fast.longer(inputs, length), both, initial, masks, compiled)
    return fast.shorter(x, T), final


def _packed(
    spec: ModelSpec, weights: Mapping[str, Tensor], inputs: Tensor, mask: Tensor, initial: Tensors
) -> tuple[Tensor, Tensors]:
    """The same, of the steps alone that are valid, or nearly so."""
    rows = packing(mask)
    given = {"mask": rows.packed(mask[:, :, None]), "ends": rows.ends, "places": rows.places}
    both = {"forward": given | {"before": rows.before}, "backward": given | {"before": rows.after}}
    start = {name: permuted(states, rows.order, rows.inverse) for name, states in initial.items()}
    x, final = _called(spec, weights, rows.packed(inputs), both, start, None, True)
    final = {name: permuted(states, rows.inverse, rows.order) for name, states in final.items()}
    return rows.unpacked(x), final


def _called(
    spec: ModelSpec,
    weights: Mapping[str, Tensor],
    x: Tensor,
    given: Mapping[str, Tensors],
    initial: Tensors,
    masks: Masks | None,
    compiled: Any,
) -> tuple[Tensor, Tensors]:
    """`_layers`; called eagerly as one graph, where the loops are compiled: the calls around them take longer.

    A tape has the calls one by one, as TensorFlow cannot derive a graph twice whose gradients are its own.
    """
    if compiled is not True or masks is not None or not tf.executing_eagerly() or record.could_possibly_record():
        return _layers(spec, weights, x, given, initial, masks, compiled)
    parts = {"x": {"": x}, "weights": weights, "initial": initial, **given}
    return _graph(spec)({f"{part}/{name}": value for part, named in parts.items() for name, value in named.items()})


@cache
def _graph(spec: ModelSpec) -> Graph:
    """The layers as a graph of what stands before and after each slash."""

    def layers(found: Tensors) -> tuple[Tensor, Tensors]:
        parts = defaultdict[str, Tensors](dict)
        for name, value in found.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        return _layers(spec, parts["weights"], parts["x"][""], parts, parts["initial"], None, True)

    return Graph(layers, exact=True)


def _layers(
    spec: ModelSpec,
    weights: Mapping[str, Tensor],
    x: Tensor,
    given: Mapping[str, Tensors],
    initial: Tensors,
    masks: Masks | None,
    compiled: Any,
) -> tuple[Tensor, Tensors]:
    """Outputs and final states of all layers; given: what the loops of each direction are given besides."""
    rows = {name: tf.unstack(states, spec.num_layers * spec.num_directions) for name, states in initial.items()}
    finals = []
    for layer in range(spec.num_layers):
        outputs, final = _layer(spec, weights, layer, x, given, rows, masks, compiled)
        finals += final
        x = merge(spec.merge, outputs)  # (B, T, F)
        x = _times(x, _factors(spec, masks, "between_layers", layer, 0, x))
    return x, {name: tf.stack([final[name] for final in finals]) for name in initial}


def worth_compiling(spec: ModelSpec, rows: Any, steps: Any) -> Any:
    """Whether the loops of a model are, for so many rows and steps: a bool, or a tensor of one in a graph."""
    return fast.worth(rows, steps, len(spec.cell_definition.gates) * spec.hidden_size)


def _layer(
    spec: ModelSpec,
    weights: Mapping[str, Tensor],
    layer: int,
    x: Tensor,
    given: Mapping[str, Tensors],
    initial: Tensors,
    masks: Masks | None,
    compiled: Any,
) -> tuple[list[Tensor], list[Tensors]]:
    """Of each direction the outputs (B, T, H) and the final states (B, H) by name."""
    (B, T, _), H = _shape(x), spec.hidden_size
    projections = _projections(spec, weights, layer, x, masks)
    outputs, finals = [], []
    for d, direction in enumerate(spec.directions):
        prefix, index = f"layers.{layer}.{direction}.", layer * spec.num_directions + d
        arguments = given[direction] | {
            "p": projections[d],
            "recurrent_kernel": weights[prefix + "recurrent_kernel"],
        }
        arguments |= {f"initial.{name}": states[index] for name, states in initial.items()}
        if spec.bias == "double":
            arguments["recurrent_bias"] = weights[prefix + "recurrent_bias"]
        if (factors := dropout.factors(spec, masks, "state", layer, d, (T, B, H), x.dtype)) is not None:
            arguments["factors"] = factors
        y, final = recurrence.run(recurrence.step_of(spec, direction), arguments, compiled)
        y.set_shape((*x.shape[:2], H))  # a graph of any shape has lost what is known
        for state in final.values():
            state.set_shape((initial[spec.cell_definition.output][index].shape[0], H))
        outputs.append(y)
        finals.append(final)
    return outputs, finals


def _projections(
    spec: ModelSpec, weights: Mapping[str, Tensor], layer: int, x: Tensor, masks: Masks | None
) -> list[Tensor]:
    """The input projections of all steps, (B, T, G*H) for each direction: one product where both read the same."""
    D = spec.num_directions
    kept = [_factors(spec, masks, "inputs", layer, d, x) for d in range(D)]
    if kept[0] is None:
        joint = _project(spec, weights, layer, x, spec.directions)
        return [joint] if D == 1 else tf.split(joint, D, axis=2)
    pairs = zip(kept, spec.directions, strict=True)
    return [_project(spec, weights, layer, x * factors, (direction,)) for factors, direction in pairs]


def _project(
    spec: ModelSpec, weights: Mapping[str, Tensor], layer: int, x: Tensor, directions: tuple[str, ...]
) -> Tensor:
    """The input projections of all steps and some directions as one product, (B, T, D*G*H)."""
    kernel = _joined(directions, weights, layer, "kernel")  # (I_l, D*G*H)
    p = tf.reshape(x, [-1, spec.layer_input_size(layer)]) @ kernel
    if spec.bias != "none":
        p = tf.nn.bias_add(p, _joined(directions, weights, layer, "bias" if spec.bias == "single" else "input_bias"))
    return tf.reshape(p, [*_shape(x)[:2], kernel.shape[1]])


def _joined(directions: tuple[str, ...], weights: Mapping[str, Tensor], layer: int, name: str) -> Tensor:
    parts = [weights[f"layers.{layer}.{direction}.{name}"] for direction in directions]
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)


def _times(x: Tensor, factors: Tensor | None) -> Tensor:
    return x if factors is None else x * factors


def _factors(spec: ModelSpec, masks: Masks | None, kind: str, layer: int, direction: int, x: Tensor) -> Tensor | None:
    """What a series (B, T, N) is multiplied by, (B, T, N) or (B, 1, N); None where nothing is dropped."""
    B, T, N = _shape(x)
    found = dropout.factors(spec, masks, kind, layer, direction, (T, B, N), x.dtype)
    if found is None:
        return None
    return tf.transpose(found, [1, 0, 2]) if len(found.shape) == 3 else found[:, None]


def _shape(x: Tensor) -> tuple[Any, Any, Any]:
    """B, T and N; of an unknown size its tensor."""
    known = tuple(x.shape)
    if None not in known:
        return known
    sizes = tf.shape(x)
    return tuple(sizes[k] if known[k] is None else known[k] for k in range(3))


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

    Raises:
        SpecError: the spec has more than the core.
        UnsupportedError: the dtype, or Keras' global policy, is of mixed precision or quantized.
    """

    backend_name = "tf"

    def __init__(
        self, spec: ModelSpec, *, seed: int = 0, dtype: Any = "float32", return_state: bool = False, **kwargs: Any
    ) -> None:
        if not spec.is_core:
            raise SpecError("Recurrent: expected a spec without embedding, head and context; use SequenceModel")
        super().__init__(dtype=checked_dtype(dtype), **kwargs)
        self.spec, self.seed, self.return_state = spec, seed, return_state
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
        weights = {variable.name: tf.convert_to_tensor(variable) for variable in self.weights}
        initial = states_by_name(self.spec, initial_state, inputs, self.dtype)
        return forward(self.spec, weights, inputs, mask, initial, masks)

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


def _outside_scopes(create: Callable[..., Any], **options: Any) -> Any:
    """A variable whose TensorFlow name lacks the layer's: each name costs a kernel, 0.6 ms and 35 kB kept for good."""
    with tf.name_scope(""):
        return create(**options)


def config_of(layer: Any) -> dict[str, Any]:
    """Name, spec, seed and dtype of a layer or model of ours, as plain data."""
    spec = json.loads(layer.spec.to_json())
    return {"name": layer.name, "trainable": layer.trainable, "spec": spec, "seed": layer.seed, "dtype": layer.dtype}


def from_data(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its spec as an object. Raises SpecError."""
    return config | {"spec": spec_from_text(json.dumps(config["spec"]))}
