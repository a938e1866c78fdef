"""A graph around the nodes of somebody's file, which are as they are there but for the names of their values.

It has the inputs and outputs of the graphs that this package writes, so that a runtime takes it for one of them:

    inputs (B, T, I), lengths (B,), initial_state (L*D, B, H)  ->  outputs (B, T, F), final_state (L*D, B, H)

Three things differ from the file: numbers are float32, batches are the second axis (onnxruntime has nothing else), and
every node is given lengths and an initial state.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...spec.found import Original
from ...spec.stored import SIZES, StoredTensor
from .trails import BATCH, TIME, UNIT

THEIRS = "file/"  # before each name of theirs
FLOATS = {onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
MERGING = {"sum": "Add", "average": "Mean", "multiply": "Mul"}
INPUTS = {"inputs": onnx.TensorProto.FLOAT, "lengths": onnx.TensorProto.INT32, "initial_state": onnx.TensorProto.FLOAT}
OUTPUTS = {"outputs": onnx.TensorProto.FLOAT, "final_state": onnx.TensorProto.FLOAT}
FORMAT = 8  # version of a file; that of the operators is theirs


def assembled(layer: Original) -> bytes:
    """The model, serialized."""
    told = layer.told
    with open(told["path"], "rb") as file:
        nodes = [onnx.NodeProto.FromString(_read(file, extent)) for extent in told["nodes"]]
        constants = [
            _constant(name, _read(file, extent), layer.tensors.get(name)) for name, extent in told["constants"].items()
        ]
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [name and THEIRS + name for name in names]
    layers = [nodes[number] for number in told["layers"]]
    body = [*_begun(layers), *_wired(nodes, layers), *_outputs(layers, told), *_final_state(len(layers))]
    read = {name for node in body for name in node.input}
    numbers = [_numbers(name, values) for name, values in _places(layers).items() if name in read]
    graph = helper.make_graph(body, "proof", _values(INPUTS), _values(OUTPUTS), [*constants, *numbers])
    operators = [helper.make_opsetid("", told["operators"])]
    model: bytes = helper.make_model(graph, opset_imports=operators, ir_version=FORMAT).SerializeToString()
    return model


def _values(kinds: Mapping[str, int]) -> list[Any]:
    return [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]


def _read(file: BinaryIO, extent: list[int]) -> bytes:
    file.seek(extent[0])
    return file.read(extent[1])


def _constant(name: str, data: bytes, outside: StoredTensor | None) -> Any:
    tensor = onnx.TensorProto.FromString(data)
    if outside is not None:
        with outside.path.open("rb") as file:
            size = math.prod(outside.shape) * SIZES[outside.dtype]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = _read(file, [outside.offset, size])
    if tensor.data_type in FLOATS:
        tensor = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32))
    tensor.name = THEIRS + name
    return tensor


def _places(layers: list[Any]) -> dict[str, list[int]]:
    """Whole numbers that the graph reads: which states belong to each layer, and shapes."""
    counts = [2 if _attribute(node, "direction") == b"bidirectional" else 1 for node in layers]
    starts = [sum(counts[:number]) for number in range(len(counts))]
    states = {f"states_{n}": list(range(start, start + counts[n])) for n, start in enumerate(starts)}
    return {**states, "joined": [0, 0, -1], "rows": [1, -1, 1], "zero": [0], "is_forward": [0], "is_backward": [1]}


def _numbers(name: str, values: list[int]) -> Any:
    return helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)


def _begun(layers: list[Any]) -> Iterator[Any]:
    yield helper.make_node("Transpose", ["inputs"], ["X"], perm=[1, 0, 2])
    for number in range(len(layers)):
        yield helper.make_node("Gather", ["initial_state", f"states_{number}"], [f"h_{number}"], axis=0)


def _wired(nodes: list[Any], layers: list[Any]) -> Iterator[Any]:
    """Their nodes in order, the recurrent ones between transpositions where they have batches first."""
    for node in nodes:
        number = next((number for number, layer in enumerate(layers) if layer is node), None)
        yield from [node] if number is None else _recurrent(node, number)


def _recurrent(node: Any, number: int) -> Iterator[Any]:
    batches_first = bool(_attribute(node, "layout"))
    outputs = node.output[0] if node.output and node.output[0] else f"Y_{number}"
    inputs = (list(node.input) + [""] * 4)[:4]
    if number == 0:
        inputs[0] = "X"
    elif batches_first:
        yield helper.make_node("Transpose", [inputs[0]], [f"X_{number}"], perm=[1, 0, 2])
        inputs[0] = f"X_{number}"
    node.input[:] = [*inputs, "lengths", f"h_{number}"]
    node.output[:] = [f"Y_turned_{number}" if batches_first else outputs, f"ended_{number}"]
    kept = [attribute for attribute in node.attribute if attribute.name != "layout"]
    del node.attribute[:]
    node.attribute.extend(kept)
    yield node
    if batches_first:
        yield helper.make_node("Transpose", [f"Y_turned_{number}"], [outputs], perm=[2, 0, 1, 3])


def _outputs(layers: list[Any], told: Mapping[str, Any]) -> Iterator[Any]:
    """As the graph merges them, or as is assumed where it does not; (T, D, B, H) are those of the last layer."""
    if told["merged"]:
        name, axes = told["merged"]
        order = [axes.index(axis) for axis in (BATCH, TIME, UNIT)]
        yield helper.make_node("Transpose", [THEIRS + name], ["outputs"], perm=order)
        return
    yield helper.make_node("Transpose", [layers[-1].output[0]], ["by_row"], perm=[2, 0, 1, 3])
    if told["merge"] == "concat":
        yield helper.make_node("Reshape", ["by_row", "joined"], ["outputs"])
        return
    for side in ("forward", "backward"):
        yield helper.make_node("Gather", ["by_row", f"is_{side}"], [f"one_{side}"], axis=2)
        yield helper.make_node("Reshape", [f"one_{side}", "joined"], [side])
    yield helper.make_node(MERGING[told["merge"]], ["forward", "backward"], ["outputs"])


def _final_state(count: int) -> Iterator[Any]:
    """Of a row without a step onnxruntime's final state is 0, where the initial one stays."""
    yield helper.make_node("Concat", [f"ended_{number}" for number in range(count)], ["ended"], axis=0)
    yield helper.make_node("Cast", ["lengths"], ["long_lengths"], to=onnx.TensorProto.INT64)
    yield helper.make_node("Reshape", ["long_lengths", "rows"], ["sizes"])
    yield helper.make_node("Less", ["zero", "sizes"], ["begun"])
    yield helper.make_node("Where", ["begun", "ended", "initial_state"], ["final_state"])


def _attribute(node: Any, name: str) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), None)
