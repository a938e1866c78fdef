"""onnxruntime, on a graph of one standard `RNN` node for each layer; other nodes put the directions together."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ...spec.backend import Result
from ...spec.inputs import Inputs
from ...spec.model import ModelSpec
from ...spec.parameters import Weights
from ..stateless import StatelessBackend, StatelessModel
from .plain import Array, beyond_layers, direction_weights, initial_state, lengths, result

ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "identity": "Affine"}
REDUCTIONS = {"sum": "ReduceSum", "average": "ReduceMean", "multiply": "ReduceProd"}
OPSET, IR_VERSION = 22, 10


class OnnxRuntime(StatelessBackend):
    """Inference on the CPU."""

    name = "onnxruntime"
    dtypes = ("float32",)
    masks = False

    def supports(self, spec: ModelSpec) -> str | None:
        """None, or why the model cannot be run."""
        return beyond_layers(spec)

    def results(self, model: StatelessModel, given: Inputs) -> Result:
        """Outputs and final state of the graph."""
        arrays = dict(_arrays(model.spec, given))
        graph = _graph(model.spec, model.weights, arrays)
        outputs, *final_states = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(
            None, arrays
        )
        return result(model, outputs.swapaxes(0, 1), np.concatenate(final_states))


def _arrays(spec: ModelSpec, given: Inputs) -> Iterator[tuple[str, Array]]:
    """The graph's inputs by name; X is (T, B, I)."""
    yield "X_0", given.inputs.swapaxes(0, 1)
    sizes, state = lengths(given), initial_state(given)
    if sizes is not None:
        yield "sequence_lens", sizes.astype(np.int32)
    if state is not None:
        for layer, part in enumerate(np.split(state, spec.num_layers)):
            yield f"initial_h_{layer}", part


def _graph(spec: ModelSpec, weights: Weights, arrays: dict[str, Array]) -> bytes:
    """A serialized model whose outputs are the last layer's X and each layer's Y_h."""
    layers = range(spec.num_layers)
    constants = {"last": np.array([0, 0, -1])} if spec.merge == "concat" else {"directions": np.array([1])}
    for layer in layers:
        constants |= _constants(spec, weights, layer)
    nodes = [node for layer in layers for node in (_rnn(spec, layer, {*constants, *arrays}), *_merge(spec, layer))]
    outputs = [f"X_{spec.num_layers}", *(f"Y_h_{layer}" for layer in layers)]
    graph = helper.make_graph(
        nodes, "rnn",
        [_value(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.ndim) for name, array in arrays.items()],
        [_value(name, TensorProto.FLOAT, 3) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET)]
    serialized: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()
    return serialized


def _constants(spec: ModelSpec, weights: Weights, layer: int) -> dict[str, Array]:
    """W (D, H, I), R (D, H, H) and B (D, 2H), the input bias before the recurrent one, which `single` leaves 0."""
    directions = direction_weights(spec, weights, layer)
    found = {
        f"W_{layer}": np.stack([own["input_weight"] for own in directions]),
        f"R_{layer}": np.stack([own["recurrent_weight"] for own in directions]),
    }
    if spec.bias != "none":
        zeros = np.zeros(spec.hidden_size, np.float32)
        biases = [[array for name, array in own.items() if name.endswith("bias")] for own in directions]
        found[f"B_{layer}"] = np.stack([np.concatenate([*pair, zeros][:2]) for pair in biases])
    return found


def _rnn(spec: ModelSpec, layer: int, known: set[str]) -> Any:
    D = spec.num_directions
    optional = [f"B_{layer}", "sequence_lens", f"initial_h_{layer}"]
    affine = {"activation_alpha": [1.0] * D, "activation_beta": [0.0] * D} if spec.nonlinearity == "identity" else {}
    return helper.make_node(
        "RNN",
        [f"X_{layer}", f"W_{layer}", f"R_{layer}", *(name if name in known else "" for name in optional)],
        [f"Y_{layer}", f"Y_h_{layer}"],
        hidden_size=spec.hidden_size, direction="forward" if D == 1 else "bidirectional",
        activations=[ACTIVATIONS[spec.nonlinearity]] * D, **affine,
    )  # fmt: skip


def _merge(spec: ModelSpec, layer: int) -> list[Any]:
    """From Y (T, D, B, H) to the next layer's X (T, B, F)."""
    Y, rows, X = f"Y_{layer}", f"rows_{layer}", f"X_{layer + 1}"
    if spec.merge != "concat":
        return [helper.make_node(REDUCTIONS[spec.merge], [Y, "directions"], [X], keepdims=0)]
    return [
        helper.make_node("Transpose", [Y], [rows], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", [rows, "last"], [X]),
    ]


def _value(name: str, kind: int, rank: int) -> Any:
    return helper.make_tensor_value_info(name, kind, [None] * rank)


BACKEND = OnnxRuntime()
