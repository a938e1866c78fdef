"""Layers of a graph put together: how each merges its directions, and which are one stack."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...spec.definitions import variant_of
from ...spec.found import FoundLayer
from ...spec.model import ModelSpec
from .excerpt import excerpt
from .graph import Graph
from .trails import Trails, input_view, trails

Layers = Mapping[int, FoundLayer]  # by place in the graph
Values = Mapping[tuple[int, str], tuple[str, tuple[str, ...]]]


def joined(graph: Graph, layers: Layers) -> list[FoundLayer]:
    """The layers with their merges, and behind them the stacks that they make up."""
    directions = {index: layer.network.num_directions for index, layer in layers.items() if layer.network}
    found = trails(graph, directions)
    merges = found.merges()
    merged = {index: _merged(layer, merges.get(index, set())) for index, layer in layers.items()}
    values = found.merged()
    alone = [_with_original(graph, layer, [index], values) for index, layer in merged.items()]
    chains = [(_members(merged, *chain), chain[1]) for chain in _chains(graph, merged, found)]
    stacks = [
        _with_original(graph, _stack([merged[index] for index in members], merge), members, values)
        for members, merge in chains if len(members) > 1
    ]  # fmt: skip
    return [*alone, *stacks]


def _with_original(graph: Graph, layer: FoundLayer, members: list[int], values: Values) -> FoundLayer:
    """The layer with what a runtime runs of the file."""
    if layer.network is None:
        return layer
    told = layer.network.num_directions == 2 and not layer.assumed
    merged = values.get((members[-1], layer.network.merge)) if told else None
    return replace(layer, original=excerpt(graph, members, layer.network.merge, merged))


def _merged(layer: FoundLayer, merges: set[str]) -> FoundLayer:
    if layer.network is None or layer.network.num_directions == 1:
        return layer
    if len(merges) != 1:
        return replace(layer, assumed=("merge",))
    return replace(layer, spec=replace(layer.network, merge=merges.pop()))


def _chains(graph: Graph, layers: Layers, found: Trails) -> Iterator[tuple[list[int], str]]:
    """Layers from the bottom, each the only one that reads the one below, and how all but the top one merge."""
    below = {index: view for index in layers if (view := input_view(graph.nodes[index], found))}
    readers = Counter(view.source for view in below.values())
    chains: dict[int, tuple[list[int], str]] = {}  # by the layer at the top
    for index, layer in layers.items():
        view = below.get(index)
        chain, merge = chains.get(view.source, ([], "")) if view and readers[view.source] == 1 else ([], "")
        if view and chain and merge in ("", view.state) and _fits(graph, layers, view.source, index, view.state):
            del chains[view.source]
            chains[index] = [*chain, index], view.state
        elif layer.network:
            chains[index] = [index], ""
    yield from chains.values()


def _fits(graph: Graph, layers: Layers, lower: int, upper: int, merge: str) -> bool:
    """Whether two layers are of one stack: alike but for their inputs, run over the same lengths."""
    first, second = layers[lower].network, layers[upper].network
    if first is None or second is None or graph.nodes[lower].input(4) != graph.nodes[upper].input(4):
        return False
    dtypes = {part.tensor.dtype for index in (lower, upper) for part in layers[index].parts.values()}
    first = replace(first, merge=merge)
    alike = replace(second, merge=merge, input_size=first.input_size) == first
    return alike and second.input_size == first.output_size and len(dtypes) == 1


def _members(layers: Layers, members: list[int], merge: str) -> list[int]:
    """The layers of a stack: without the top one where that merges in another way."""
    top = layers[members[-1]]
    other = len(members) > 1 and top.network and not top.assumed and top.network.merge != merge
    return members[:-1] if other else members


def _stack(chain: list[FoundLayer], merge: str) -> FoundLayer:
    return FoundLayer(
        f"{chain[0].path}..{chain[-1].path}", f"{len(chain)} x {chain[0].kind}", _stacked_spec(chain, merge),
        {name.replace("layers.0", f"layers.{number}"): part for number, layer in enumerate(chain)
         for name, part in layer.parts.items()},
        assumed=chain[-1].assumed, notes=tuple(dict.fromkeys(note for layer in chain for note in layer.notes)),
    )  # fmt: skip


def _stacked_spec(chain: list[FoundLayer], merge: str) -> ModelSpec:
    spec = chain[0].network
    assert spec is not None
    variant = variant_of(len(chain), spec.num_directions)
    return replace(spec, variant=variant, num_layers=len(chain), merge=merge)
