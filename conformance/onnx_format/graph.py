"""An ONNX graph as it was decoded: its nodes in order, its constants, and where a value comes from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ...spec.errors import FileError, UnsupportedError
from ...spec.stored import SIZES, StoredTensor
from .tensors import small_numbers, stored

T = TypeVar("T")
Decoded = Mapping[str, Any]
STANDARD = ("", "ai.onnx")
VALUES = ("f", "i", "s", "t", "floats", "ints", "strings")
# What gives zeros for zeros, and a part of what it is given.
REARRANGING = {"Cast", "Expand", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
STEPS, READ = 32, 2**16  # nodes from a value to its origin; numbers of a constant that is looked at for zeros


class Node(NamedTuple):
    """A node: its kind with its domain where that is not ONNX' own; the names of its values, an absent one empty.

    As an input, what an Identity gives has the name of what it was given; `written` has the names in the file.
    `extent` is where the node is in the file: offset and length.
    """

    name: str
    kind: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Decoded
    written: tuple[str, ...] = ()
    extent: tuple[int, int] = (0, 0)

    def input(self, index: int) -> str:
        """The name of an input; empty where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def output(self, index: int) -> str:
        """The name of an output; empty where it is left out."""
        return self.outputs[index] if index < len(self.outputs) else ""

    def attribute(self, name: str, default: T) -> T:
        """An attribute of the default's type. Raises UnsupportedError where it is of another."""
        value = self.attributes.get(name, default)
        if not isinstance(value, type(default)):
            raise UnsupportedError(f"{self.kind} with {name!r} of another type than ONNX says; save the model again")
        return value


@dataclass
class Graph:
    """The graph of a model file.

    Attributes:
        nodes: in order.
        constants: decoded tensors by name.
        given: names of values from outside.
        makers: by a value's name the node that gives it.
        operators: the version of ONNX' own; 0 where the file says none.
    """

    path: Path
    given: frozenset[str]
    operators: int = 0
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Decoded] = field(default_factory=dict)
    makers: dict[str, Node] = field(default_factory=dict)

    def tensor(self, name: str) -> StoredTensor | None:
        """Where the numbers of a constant are; None where it is no constant."""
        return stored(self.path, self.constants[name]) if name in self.constants else None

    def numbers(self, name: str) -> list[float]:
        """The numbers of a small constant; none where it is no such constant."""
        return small_numbers(self.path, self.constants[name]) if name in self.constants else []

    def integers(self, node: Node, attribute: str, index: int, default: Sequence[int] = ()) -> list[int]:
        """What older models have as an attribute and newer ones as a constant input. Raises UnsupportedError."""
        found = node.attribute(attribute, self.numbers(node.input(index)) or list(default))
        if not all(isinstance(number, int) for number in found):
            raise UnsupportedError(f"{node.kind} with {attribute!r} that are no integers; save the model again")
        return [int(number) for number in found]

    def origin(self, name: str) -> str:
        """The value that this one is a rearrangement of."""
        for _ in range(STEPS):
            node = self.makers.get(name)
            if node is None or node.kind not in REARRANGING:
                break
            name = node.input(0)
        return name

    def is_zero(self, name: str) -> bool:
        """Whether a value without a rearrangement is a constant 0."""
        node, tensor = self.makers.get(name), self.tensor(name)
        if node is not None and node.kind == "ConstantOfShape":
            value = node.attributes.get("value")
            return value is None or small_numbers(self.path, value) == [0]
        return tensor is not None and tensor.dtype in SIZES and tensor.count <= READ and not tensor.array().any()


def graph_of(path: Path, model: Decoded) -> Graph:
    """The graph of a decoded model. Raises FileError where two values have one name."""
    data = model["graph"]
    graph = Graph(path, frozenset(value.get("name", "") for value in data.get("input", ())), operators(model))
    for tensor in data.get("initializer", ()):
        _name(graph, tensor.get("name", ""), graph.constants, tensor)
    same: dict[str, str] = {}
    for entry in data.get("node", ()):
        node = _node(entry, same)
        constant = node.attributes.get("value") if node.kind == "Constant" else None
        for name in filter(None, node.outputs):
            if isinstance(constant, dict):
                _name(graph, name, graph.constants, {**constant, "name": name})
            else:
                _name(graph, name, graph.makers, node)
        if node.kind == "Identity":
            same[node.output(0)] = node.input(0)
        graph.nodes.append(node)
    return graph


def operators(model: Decoded) -> int:
    """The version of ONNX' own operators that a model is written in; 0 where it says none."""
    versions = {entry.get("domain", ""): entry.get("version", 0) for entry in model.get("opset_import", ())}
    return int(versions.get("", versions.get("ai.onnx", 0)))


def inner_nodes(model: Decoded) -> Iterator[tuple[str, Node]]:
    """The nodes in functions and in the bodies of other nodes (If, Loop, Scan), with the name of the outermost."""
    yield from _in_bodies(model["graph"])
    for function in model.get("functions", ()):
        name = function.get("name", "")
        yield from ((name, _node(entry, {})) for entry in function.get("node", ()))
        yield from _in_bodies(function, name)


def _in_bodies(nodes: Decoded, where: str = "") -> Iterator[tuple[str, Node]]:
    for entry in nodes.get("node", ()):
        outer = where or entry.get("name") or entry.get("op_type", "")
        for attribute in entry.get("attribute", ()):
            for body in (*([attribute["g"]] if "g" in attribute else ()), *attribute.get("graphs", ())):
                yield from ((outer, _node(inner, {})) for inner in body.get("node", ()))
                yield from _in_bodies(body, outer)


def _node(entry: Decoded, same: Mapping[str, str]) -> Node:
    attributes = {attribute.get("name", ""): _value(attribute) for attribute in entry.get("attribute", ())}
    written = tuple(entry.get("input", ()))
    inputs = tuple(same.get(name, name) for name in written)
    kind, domain = entry.get("op_type", ""), entry.get("domain", "")
    kind, extent = kind if domain in STANDARD else f"{domain}.{kind}", tuple(entry["extent"])
    return Node(
        entry.get("name", ""), kind, domain, inputs, tuple(entry.get("output", ())), attributes, written, extent
    )


def _value(attribute: Decoded) -> Any:
    return next((attribute[key] for key in VALUES if key in attribute), None)


def _name(graph: Graph, name: str, values: dict[str, Any], value: Any) -> None:
    if name in graph.constants or name in graph.makers:
        raise FileError(f"{graph.path}: two values are named {name[:80]!r}; expected one, as in any ONNX graph")
    values[name] = value
