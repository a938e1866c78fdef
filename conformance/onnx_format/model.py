"""A spec as an ONNX graph: one standard `RNN` node a layer, and standard nodes around them.

    inputs     inputs (B, T, I) or tokens (B, T); lengths (B,); initial_state (L*D, B, H), or context (B, C)
    outputs    outputs (B, T, F); final_state (L*D, B, H); with a head scores (B, T, O) or (B, O)

The weights are not in it; `places` says which tensor has which of them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ...spec.errors import BackendError
from ...spec.model import ModelSpec
from ...spec.parameters import parameters

ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "identity": "Affine"}
REDUCTIONS = {"sum": "ReduceSum", "average": "ReduceMean", "multiply": "ReduceProd"}
NUMBERS = {"float32": "float", "float64": "double"}
# The lowest opset in which all three reductions take their axes as an input, and the file version that goes with it.
HEADER = '<ir_version: 8, opset_import: ["": 18], producer_name: "rnnzoo">'
CONSTANTS = "int64 zero = {0}, int64 one = {1}, int64[1] axis_0 = {0}, int64[1] axis_1 = {1}, int64[1] axis_2 = {2}"


class Place(NamedTuple):
    """The part of a tensor that is a weight: an index or a slice for each of the first axes."""

    tensor: str
    select: tuple[int | slice, ...] = ()


def tensors(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors that hold the weights: W_0 (D, H, I), R_0 (D, H, H), B_0 (D, 2H), ..."""
    D, H = spec.num_directions, spec.hidden_size
    found = {_around(p.name): p.shape for p in parameters(spec) if not p.name.startswith("layers.")}
    for layer in range(spec.num_layers):
        found |= {f"W_{layer}": (D, H, spec.layer_input_size(layer)), f"R_{layer}": (D, H, H)}
        found |= {} if spec.bias == "none" else {f"B_{layer}": (D, 2 * H)}
    return found


def places(spec: ModelSpec) -> dict[str, Place]:
    """Where each weight is. B has the input bias, or the only one, and then the recurrent bias, or zeros."""
    return {parameter.name: _place(spec, parameter.name) for parameter in parameters(spec)}


def skeleton(spec: ModelSpec, dtype: str, metadata: dict[str, str]) -> Any:
    """The model without its weights, an `onnx.ModelProto`. Raises BackendError where onnx is not installed."""
    try:
        from onnx import helper, parser
    except ModuleNotFoundError as error:
        raise BackendError(f"ONNX: the package {error.name!r} is not installed; pip install 'rnnzoo[onnx]'") from error
    model = parser.parse_model("\n".join(_text(spec, NUMBERS[dtype])))
    _tidy(model.graph)
    helper.set_model_props(model, metadata)
    return model


def _tidy(graph: Any) -> None:
    """Give the layers names, and leave out the constants that no node reads."""
    for number, node in enumerate(node for node in graph.node if node.op_type == "RNN"):
        node.name = f"layers.{number}"
    read = {name for node in graph.node for name in node.input}
    constants = [constant for constant in graph.initializer if constant.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _around(name: str) -> str:
    return name.replace(".", "_")


def _place(spec: ModelSpec, name: str) -> Place:
    if not name.startswith("layers."):
        return Place(_around(name))
    _, layer, direction, last = name.split(".")
    d, H = spec.directions.index(direction), spec.hidden_size
    if not last.endswith("bias"):
        return Place(f"{'W' if last == 'input_weight' else 'R'}_{layer}", (d,))
    return Place(f"B_{layer}", (d, slice(H, 2 * H) if last == "recurrent_bias" else slice(0, H)))


def _text(spec: ModelSpec, number: str) -> Iterator[str]:
    """The graph in ONNX' textual syntax, https://onnx.ai/onnx/repo-docs/Syntax.html."""
    states = spec.num_layers * spec.num_directions
    sequence = "int64[B,T] inputs" if spec.embedding else f"{number}[B,T,{spec.input_size}] inputs"
    state = f"{number}[{states},B,{spec.hidden_size}]"
    begin = f"{number}[B,{spec.context.size}] context" if spec.context else f"{state} initial_state"
    outputs = f"{number}[B,T,{spec.output_size}] outputs, {state} final_state{_scores_type(spec, number)}"
    yield f"{HEADER} rnn ({sequence}, int32[B] lengths, {begin}) => ({outputs})"
    yield f"<{CONSTANTS}, int64[2] flat = {{0, -1}}, int64[3] joined = {{0, 0, -1}}, {number} nothing = {{0}},"
    yield f"int64[3] by_state = {{0, {states}, {spec.hidden_size}}}, int64[1] top = {{-{spec.num_directions}}},"
    yield f"int64[1] end = {{{states}}}> {{"
    yield from _lengths(spec)
    yield from _states(spec)
    yield from _layers(spec)
    yield from _head(spec)
    yield "}"


def _scores_type(spec: ModelSpec, number: str) -> str:
    if spec.head is None:
        return ""
    return f", {number}[B,{'T,' if spec.head.reads == 'steps' else ''}{spec.head.size}] scores"


def _lengths(spec: ModelSpec) -> Iterator[str]:
    """Which rows (B, 1) have a valid step, and where it matters, which steps (B, T) are valid."""
    yield "long_lengths = Cast <to = 7> (lengths)  sizes = Unsqueeze (long_lengths, axis_1)"
    yield "begun = Less (zero, sizes)"
    if spec.embedding or (spec.head and spec.head.reads == "steps"):
        yield "T = Shape <start = 1, end = 2> (inputs)  steps = Squeeze (T)  times = Range (zero, steps, one)"
        yield "valid = Less (times, sizes)"


def _states(spec: ModelSpec) -> Iterator[str]:
    """The initial state h_0, h_1, ... (D, B, H) of each layer."""
    if spec.context:
        yield "affine = Gemm <transB = 1> (context, context_weight, context_bias)"
        yield "rows = Reshape (affine, by_state)  initial_state = Transpose <perm = [1, 0, 2]> (rows)"
    names = ", ".join(f"h_{layer}" for layer in range(spec.num_layers))
    yield f"{names} = Split <axis = 0, num_outputs = {spec.num_layers}> (initial_state)"


def _layers(spec: ModelSpec) -> Iterator[str]:
    """The outputs and the final state. A row without a step keeps its state: of such a row onnxruntime's Y_h is 0."""
    if spec.embedding:  # whatever token stands in the padding
        yield "tokens = Where (valid, inputs, zero)  sequence = Gather (embedding_weight, tokens)"
    yield f"X_0 = Transpose <perm = [1, 0, 2]> ({'sequence' if spec.embedding else 'inputs'})"
    for layer in range(spec.num_layers):
        bias = "" if spec.bias == "none" else f"B_{layer}"
        given = f"X_{layer}, W_{layer}, R_{layer}, {bias}, lengths, h_{layer}"
        yield f"Y_{layer}, Y_h_{layer} = RNN <{_attributes(spec)}> ({given})"
        yield from _merged(spec, f"Y_{layer}", f"X_{layer + 1}", 1)
    finals = ", ".join(f"Y_h_{layer}" for layer in range(spec.num_layers))
    yield f"outputs = Transpose <perm = [1, 0, 2]> (X_{spec.num_layers})"
    yield f"ended = Concat <axis = 0> ({finals})  final_state = Where (begun, ended, initial_state)"


def _attributes(spec: ModelSpec) -> str:
    D = spec.num_directions
    names = ", ".join([f'"{ACTIVATIONS[spec.nonlinearity]}"'] * D)
    constants = f", activation_alpha = {[1.0] * D}, activation_beta = {[0.0] * D}"
    return (
        f'hidden_size = {spec.hidden_size}, direction = "{"forward" if D == 1 else "bidirectional"}", '
        f"activations = [{names}]{constants if spec.nonlinearity == 'identity' else ''}"
    )


def _merged(spec: ModelSpec, both: str, one: str, axis: int) -> Iterator[str]:
    """(.., D, B, H) to (.., B, F), where the directions are on that axis."""
    if spec.num_directions == 1:
        yield f"{one} = Squeeze ({both}, axis_{axis})"
    elif spec.merge == "concat":
        order, shape = ([0, 2, 1, 3], "joined") if axis else ([1, 0, 2], "flat")
        yield f"{both}_rows = Transpose <perm = {order}> ({both})  {one} = Reshape ({both}_rows, {shape})"
    else:
        yield f"{one} = {REDUCTIONS[spec.merge]} <keepdims = 0> ({both}, axis_{axis})"


def _head(spec: ModelSpec) -> Iterator[str]:
    if spec.head is None:
        return
    bias = ", head_bias" if spec.head.bias else ""
    if spec.head.reads == "final":
        yield "last = Slice (final_state, top, end, axis_0)"
        yield from _merged(spec, "last", "summary", 0)
        yield f"scores = Gemm <transB = 1> (summary, head_weight{bias})"
        return
    yield "columns = Transpose <perm = [1, 0]> (head_weight)  products = MatMul (outputs, columns)"
    yield f"sums = {'Add' if bias else 'Identity'} (products{bias})  valid_steps = Unsqueeze (valid, axis_2)"
    yield "scores = Where (valid_steps, sums, nothing)"
