"""`.onnx` files: the recurrent layers in anybody's, and models of this package, written for any runtime."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...spec.backend import Contents
from ...spec.checkpoint import KEY, NO_HINTS, check_readable, read_envelope
from ...spec.encoder_decoder import AnySpec, EncoderDecoderSpec
from ...spec.errors import FileError, UnsupportedError, WeightError
from ...spec.found import FoundFile, FoundLayer, Hints
from ...spec.model import ModelSpec
from ...spec.naming import KIND
from ...spec.parts import Part, check_parts
from ...spec.sandbox import examined
from ...spec.stored import SIZES, StoredTensor
from .graph import Graph, graph_of, inner_nodes, operators
from .model import places, tensors
from .nodes import is_recurrent, read_node
from .stacks import joined
from .writing import too_large, write_model

LAYERS = 2**12  # recurrent nodes of a model
OF_TORCH = re.compile(r"(?P<prefix>|.*\.)(weight|bias)_(ih|hh)(_l\d+(_reverse)?)?")
STEPS = "the exporter wrote its steps one by one, without a node that tells what the layer is"
WAY_OUT = "export it with torch.onnx.export(..., dynamo=False), or convert the state dict"
NOT_TWO = "an ONNX file holds one recurrent network, not an encoder with its decoder"
CORE = ("variant", "input_size", "hidden_size", "num_layers", "nonlinearity", "merge")


class OnnxFiles:
    """Reads without onnx, in a child process; writes with it."""

    suffixes = (".onnx",)
    plain_bias = ("none", "double", "single")

    def holds(self, spec: AnySpec, *, plain: bool = False) -> str | None:
        """None, or why no file can express the spec; plain or not, its nodes are ONNX' own."""
        if isinstance(spec, EncoderDecoderSpec):
            return f"{NOT_TWO}; keep the model in a .safetensors file"
        if spec.cell != "rnn":
            return f"ONNX' RNN is the cell rnn, not {spec.cell}; keep the model in a .safetensors file"
        return too_large(spec)

    def find(self, path: Path, hints: Hints = NO_HINTS) -> FoundFile:
        """The recurrent nodes of a model, each by itself and as stacks; a model of this package as a whole.

        Raises:
            FileError: not an ONNX model, damaged, or more than any honest one.
        """
        check_readable(path)
        data = examined("rnnzoo.conformance.onnx_format.wire:decoded", path)
        if "graph" not in data:
            raise FileError(f"{path}: expected an ONNX model, got one without a graph")
        return found_in(path, data, hints)

    def write(self, path: Path, contents: Contents, *, plain: bool = False, prefix: str = "") -> None:
        """Write a model, one weight at a time.

        Raises:
            WeightError: the weights do not fit the spec.
            UnsupportedError: ONNX cannot express the spec, or a prefix was given.
            BackendError: onnx is not installed.
        """
        if prefix:
            raise UnsupportedError(f"prefix {prefix!r}: an ONNX model has nothing that takes one; leave it out")
        if reason := self.holds(contents.spec, plain=plain):
            raise UnsupportedError(reason)
        write_model(path, contents)


def found_in(path: Path, data: Mapping[str, Any], hints: Hints = NO_HINTS) -> FoundFile:
    """What a decoded model holds. Raises FileError."""
    graph = graph_of(path, data)
    layers = [*joined(graph, _layers(graph)), *_inner_layers(data)]
    layers += [] if layers else _unrolled(graph)
    texts = {entry.get("key"): entry.get("value", "") for entry in data.get("metadata_props", ())}
    own, record = read_envelope(texts[KEY], str(path)) if KEY in texts else (None, None)
    if spec := hints.spec or own:
        if isinstance(spec, EncoderDecoderSpec):
            raise UnsupportedError(f"{path}: {NOT_TWO}")
        whole = _whole(graph, layers, spec)
        layers = [whole] if not whole.refusal else [whole, *layers] if own else layers
    used = {part.name for layer in layers for part in layer.parts.values()}
    return FoundFile("ONNX model", tuple(layers), _rest(graph, used), _facts(data, bool(layers)), own, record)


def _layers(graph: Graph) -> dict[int, FoundLayer]:
    """The recurrent nodes by their places."""
    recurrent = [index for index, node in enumerate(graph.nodes) if is_recurrent(node)]
    if len(recurrent) > LAYERS:
        raise FileError(f"{graph.path}: has {len(recurrent):,} recurrent nodes; at most {LAYERS:,} are read")
    names: dict[str, int] = {}
    for index in recurrent:
        node = graph.nodes[index]
        name = node.name or next(filter(None, node.outputs), node.kind)
        names[f"{name}#{index}" if name in names else name] = index
    return {index: read_node(graph, graph.nodes[index], name) for name, index in names.items()}


def _inner_layers(data: Mapping[str, Any]) -> Iterator[FoundLayer]:
    """Recurrent nodes in functions and in the bodies of other nodes, which are refused."""
    for where, node in inner_nodes(data):
        if is_recurrent(node):
            reason = f"it stands in the body of {where!r}, which may run it in any way; export the model without one"
            yield FoundLayer(f"{where}/{node.name or node.kind}", f"ONNX {node.kind}", refusal=reason)


def _unrolled(graph: Graph) -> Iterator[FoundLayer]:
    """Layers of torch whose steps an exporter wrote one by one: of them the names of some weights are left."""
    names = (match["prefix"] for match in map(OF_TORCH.fullmatch, graph.constants) if match)
    for prefix in dict.fromkeys(names):
        yield FoundLayer(prefix.removesuffix("."), "a recurrent layer of torch", refusal=f"{STEPS}; {WAY_OUT}")


def _whole(graph: Graph, layers: list[FoundLayer], spec: ModelSpec) -> FoundLayer:
    """The model as this package lays it out; refused where the graph is not what the spec says."""
    try:
        core = next((layer for layer in layers if _same_core(layer, spec)), None)
        if core is None:
            raise WeightError("the nodes compute something else")
        parts = _parts(graph, spec)
        check_parts(spec, parts)
    except WeightError as error:
        reason = f"it is not the model that rnnzoo wrote: {error}; convert its nodes by their names"
        return FoundLayer("", KIND, refusal=reason)
    return FoundLayer("", KIND, spec, parts, original=core.original if spec.is_core else None)


def _parts(graph: Graph, spec: ModelSpec) -> dict[str, Part]:
    """Where the weights are. Raises WeightError where a model of one bias has another number than 0 for the second."""
    shapes = tensors(spec)
    stored = {name: tensor for name in shapes if (tensor := graph.tensor(name)) and tensor.shape == shapes[name]}
    biases = [tensor for name, tensor in stored.items() if name.startswith("B_")] if spec.bias == "single" else []
    if any(tensor.dtype in SIZES and tensor.array()[:, spec.hidden_size :].any() for tensor in biases):
        raise WeightError("its recurrent bias is not 0")
    return {
        name: Part(place.tensor, stored[place.tensor], place.select)
        for name, place in places(spec).items()
        if place.tensor in stored
    }


def _same_core(layer: FoundLayer, spec: ModelSpec) -> bool:
    names = [name for name in CORE if name not in layer.assumed]
    return layer.spec is not None and all(getattr(layer.spec, name) == getattr(spec, name) for name in names)


def _rest(graph: Graph, used: set[str]) -> dict[str, StoredTensor]:
    """Tensors of weights that no layer has; shapes, axes and single numbers are none."""
    found = {name: tensor for name in graph.constants if name not in used and (tensor := graph.tensor(name))}
    return {name: tensor for name, tensor in found.items() if tensor.dtype in SIZES and tensor.shape}


def _facts(data: Mapping[str, Any], is_found: bool) -> dict[str, str]:
    unrolled = not is_found and data.get("producer_name") == "pytorch"
    loops = sum(node.get("op_type") in ("Loop", "Scan") for node in data["graph"].get("node", ()))
    dropout = sum(node.get("op_type") == "Dropout" for node in data["graph"].get("node", ()))
    return {
        "producer": f"{data.get('producer_name', '')} {data.get('producer_version', '')}".strip() or "unknown",
        "opset": str(operators(data) or "none"),
        **({"dropout": f"{dropout} nodes, which do not act in inference"} if dropout else {}),
        **({"steps": f"a recurrent layer of torch is not found where {STEPS}: {WAY_OUT}"} if unrolled else {}),
        **({"loops": f"{loops}: recurrent layers written as Loop or Scan are not recognised"} if loops else {}),
    }


FILES = OnnxFiles()
