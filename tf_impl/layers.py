"""All layers of the core as a function of tensors: projections, directions and merging (SPEC.md, 4 to 6)."""

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record  # the only place that tells whether a tape records

from ..spec.dropout import Masks
from ..spec.model import ModelSpec
from . import dropout, fast, recurrence
from .graphs import Graph
from .merging import merge
from .packing import packing, permuted

Tensor = Any
Tensors = dict[str, Any]


def forward(
    spec: ModelSpec,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    mask: Tensor | None,
    initial: Tensors,
    masks: Masks | None = None,
    room: Any = None,
) -> tuple[Tensor, Tensors]:
    """Outputs (B, T, F) and final states (L*D, B, H) by name.

    weights as the layer names them; inputs (B, T, I); mask (B, T) or None; initial states (l*D, B, H) by name, those of
    the first layers where no others are to run; masks of dropout, None to drop nothing; room for so many steps in a
    compiled loop, None for T.
    """
    B, T, _ = _shape(inputs)
    compiled = worth_compiling(spec, B, T)
    if mask is not None:
        inputs = tf.where(mask[:, :, None], inputs, tf.zeros([], inputs.dtype))
        if compiled is True and masks is None:  # what is dropped depends on where a row stands
            return _packed(spec, weights, inputs, mask, initial)
    length = fast.filled(T, T if room is None else room, compiled)
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


@lru_cache(maxsize=32)
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
    """Outputs and final states of the layers; given: what the loops of each direction are given besides."""
    rows = {name: tf.unstack(states) for name, states in initial.items()}
    finals = []
    for layer in range(len(rows[spec.cell_definition.output]) // spec.num_directions):
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
