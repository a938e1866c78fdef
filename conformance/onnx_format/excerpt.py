"""The part of a graph that a layer is, cut out by the names of its values: bytes of the file, for a runtime to run.

Nothing of what a reader makes of the nodes has a part in it. Of other nodes those between layers are taken, of kinds
that move numbers about or put two directions together, so that nothing else of the file is ever run.
"""

from collections.abc import Sequence
from typing import Any

from ...spec.found import Original
from ...spec.stored import SIZES, StoredTensor
from .graph import Graph, Node
from .tensors import EXTERNAL
from .trails import OF_TWO, RULES

KINDS = {*RULES, *OF_TWO, "Concat", "Constant", "Identity", "Shape", "Unsqueeze"}
MOST = 2**10  # nodes between layers
OLDEST = 9  # operators: the first that have the `Where` of a proof


def excerpt(
    graph: Graph, members: Sequence[int], merge: str, merged: tuple[str, tuple[str, ...]] | None = None
) -> Original | None:
    """What is between the input of the first of these recurrent nodes and the outputs of the last.

    Args:
        members: places of nodes, each of which reads the one before.
        merge: of both directions of the last one, where the graph does not do it.
        merged: the name and the axes of the value in which they are together, where it does.

    Returns:
        None where a value comes from a node of another kind, or from outside; or its numbers are no floating-point
        ones and in another file.
    """
    layers = [graph.nodes[index] for index in members]
    given = {layers[0].written[0], *(node.output(0) for node in layers)}
    weights = [name for node in layers for name in node.written[1:4]]
    wanted = [*weights, *(node.written[0] for node in layers[1:]), *([merged[0]] if merged else [])]
    found = _between(graph, given, wanted)
    if found is None or graph.operators < OLDEST:
        return None
    between, constants = found
    outside = _outside(graph, constants)
    if not all(tensor.dtype in SIZES for tensor in outside.values()):
        return None
    nodes = {extent: place for place, extent in enumerate(sorted({node.extent for node in (*between, *layers)}))}
    told: dict[str, Any] = {
        "path": str(graph.path), "operators": graph.operators, "nodes": list(nodes),
        "layers": [nodes[node.extent] for node in layers],
        "constants": {name: graph.constants[name]["extent"] for name in constants},
        "merge": merge, "merged": merged,
    }  # fmt: skip
    return Original(outside, told)


def _between(graph: Graph, given: set[str], wanted: list[str]) -> tuple[list[Node], list[str]] | None:
    """The nodes and the constants that these values come from, back to those that are given."""
    nodes: dict[tuple[int, int], Node] = {}
    constants: dict[str, None] = {}
    while wanted:
        name = wanted.pop()
        node = graph.makers.get(name)
        if not name or name in given:
            continue
        if name in graph.constants:
            constants[name] = None
        elif node is None or node.kind not in KINDS or len(nodes) > MOST:
            return None
        elif node.extent not in nodes:
            nodes[node.extent] = node
            wanted += node.written
    return list(nodes.values()), list(constants)


def _outside(graph: Graph, constants: list[str]) -> dict[str, StoredTensor]:
    """The constants whose numbers are in another file."""
    names = [name for name in constants if graph.constants[name].get("data_location", 0) == EXTERNAL]
    return {name: tensor for name in names if (tensor := graph.tensor(name))}
