"""One time step after the other: a graph for each model, as a call of the whole layer costs ten times the step."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from .arguments import check_inputs, single_or_all, states_by_name
from .graphs import Graph

Tensor = Any
Tensors = dict[str, Any]


def step(model: Any, graph: Graph, x: Any, state: Any) -> tuple[Tensor, Any]:
    """What the graph makes of x, (B, I) or tokens (B,), and of the states by name: y and the new states.

    State None stands for zeros. The new states come as the old ones did, in a dict or alone.

    Raises:
        SpecError: the model cannot run step by step, or not from zeros.
        InputError: x or a state has another shape, or x another kind of numbers.
    """
    spec = model.spec
    spec.check_streams(state_given=state is not None)
    x = x if hasattr(x, "dtype") else tf.convert_to_tensor(x, tf.int64 if spec.embedding else model.dtype)
    check_inputs(x[:, None] if len(x.shape) else x, spec)
    x = tf.cast(x, tf.int64 if spec.embedding else model.dtype)
    states = states_by_name(spec, state, x, model.dtype)
    y, *new = graph({"x": x, **states})
    named = dict(zip(states, new, strict=True))
    return y, named if isinstance(state, Mapping) else single_or_all(named)
