"""What the outputs of `RNN` nodes turn into, followed by the meaning of their axes.

It goes through the nodes that exporters write behind such a node: those that move axes, and those that put two
directions together. Where anything else happens to an output, its trail ends.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ...spec.errors import UnsupportedError
from ...spec.model import MERGES
from .graph import Graph, Node

TIME, BATCH, DIRECTION, UNIT = "time", "batch", "direction", "unit"
OUTPUT_AXES = ((TIME, DIRECTION, BATCH, UNIT), (BATCH, TIME, DIRECTION, UNIT))  # by layout
INPUT_AXES = ((TIME, BATCH, UNIT), (BATCH, TIME, UNIT))
OF_TWO = {"Add": "sum", "Sum": "sum", "Mul": "multiply", "Mean": "average"}
REDUCED = {"ReduceSum": "sum", "ReduceMean": "average", "ReduceProd": "multiply"}
HALVING = {"Div": 2.0, "Mul": 0.5}


@dataclass(frozen=True)
class View:
    """What became of the output of a node.

    Attributes:
        source: the node, as its place in the graph.
        axes: what each axis means.
        state: `both` directions, `forward`, `backward`, or how they were merged; of one direction always `concat`.
        size: of the axis of directions, where there is one.
    """

    source: int
    axes: tuple[str, ...]
    state: str
    size: int

    def at(self, index: int) -> str:
        """What an axis means; empty for one that is not there."""
        rank = len(self.axes)
        return self.axes[index] if -rank <= index < rank else ""


@dataclass
class Trails:
    """Views by the name of the value, and the names that became another view."""

    views: dict[str, View] = field(default_factory=dict)
    followed: set[str] = field(default_factory=set)

    def merges(self) -> dict[int, set[str]]:
        """In which ways the directions of each node were merged in the end."""
        found: dict[int, set[str]] = {}
        for name, view in self.views.items():
            if name not in self.followed and view.state in MERGES:
                found.setdefault(view.source, set()).add(view.state)
        return found

    def merged(self) -> dict[tuple[int, str], tuple[str, tuple[str, ...]]]:
        """By a node and a way to merge, the name and the axes of the first value in which it has its directions so."""
        found: dict[tuple[int, str], tuple[str, tuple[str, ...]]] = {}
        for name, view in self.views.items():
            if DIRECTION not in view.axes:
                found.setdefault((view.source, view.state), (name, view.axes))
        return found


def trails(graph: Graph, directions: Mapping[int, int]) -> Trails:
    """Follow the outputs of some nodes, given how many directions each has."""
    found = Trails()
    for index, node in enumerate(graph.nodes):
        if D := directions.get(index):
            axes = OUTPUT_AXES[node.attribute("layout", 0)]
            made = [View(index, axes, "both" if D == 2 else "concat", D)]
        else:
            known = [name for name in node.inputs if name in found.views]
            made = _after(graph, node, [found.views[name] for name in known])
            found.followed |= set(known if made else ())
        found.views |= {name: view for name, view in zip(node.outputs, made, strict=False) if name}
    return found


def input_view(node: Node, found: Trails) -> View | None:
    """The view that a recurrent node reads as a sequence, all directions merged; None where it reads anything else."""
    view = found.views.get(node.input(0))
    fits = view and view.axes == INPUT_AXES[node.attribute("layout", 0)] and view.state in MERGES
    return view if fits else None


def _after(graph: Graph, node: Node, views: list[View]) -> list[View]:
    """The views that a node gives; none where it does anything else to them."""
    try:
        if len(views) == 2:
            return list(_of_two(node, *views))
        if len(views) == 1 and node.kind in RULES:
            return list(RULES[node.kind](graph, node, views[0]))
    except UnsupportedError:  # an attribute of a wrong type
        pass
    return []


def _of_two(node: Node, first: View, second: View) -> Iterator[View]:
    """Both directions in one: added, multiplied, one behind the other."""
    alike = (first.source, first.axes, first.size) == (second.source, second.axes, second.size)
    if not alike or {first.state, second.state} != {"forward", "backward"} or len(node.inputs) != 2:
        return
    if node.kind in OF_TWO:
        yield replace(first, state=OF_TWO[node.kind])
    elif node.kind == "Concat" and first.at(node.attribute("axis", 0)) == UNIT and first.state == "forward":
        yield replace(first, state="concat")


def _same(graph: Graph, node: Node, view: View) -> Iterator[View]:
    if not node.input(2):  # whether it trains
        yield view


def _transpose(graph: Graph, node: Node, view: View) -> Iterator[View]:
    rank = len(view.axes)
    order = graph.integers(node, "perm", len(node.inputs), range(rank)[::-1])
    if sorted(order) == list(range(rank)):
        yield replace(view, axes=tuple(view.axes[axis] for axis in order))


def _squeeze(graph: Graph, node: Node, view: View) -> Iterator[View]:
    if _axes(graph, node, view) == [DIRECTION] and view.size == 1:
        yield _without_directions(view)


def _reshape(graph: Graph, node: Node, view: View) -> Iterator[View]:
    """(.., D, H) to (.., D*H)."""
    shape = graph.integers(node, "shape", 1)
    keeps = len(shape) == 3 and shape[0] == 0 and shape[1] in (0, -1) and not node.attribute("allowzero", 0)
    if keeps and view.axes[2:] == (DIRECTION, UNIT) and view.state in ("both", "concat"):
        yield replace(_without_directions(view), state="concat")


def _split(graph: Graph, node: Node, view: View) -> Iterator[View]:
    sizes = graph.integers(node, "split", 1, [1, 1])
    if view.at(node.attribute("axis", 0)) == DIRECTION and view.state == "both" and sizes == [1, 1]:
        yield replace(view, state="forward", size=1)
        yield replace(view, state="backward", size=1)


def _slice(graph: Graph, node: Node, view: View) -> Iterator[View]:
    starts, ends = graph.integers(node, "starts", 1), graph.integers(node, "ends", 2)
    axes, steps = graph.integers(node, "axes", 3, [0]), graph.integers(node, "steps", 4, [1])
    if len(starts) == len(ends) == 1 and steps == [1] and [view.at(axis) for axis in axes] == [DIRECTION]:
        taken = ("forward", "backward")[starts[0] : ends[0]]
        if len(taken) == 1 and view.state == "both":
            yield replace(view, state=taken[0], size=1)


def _gather(graph: Graph, node: Node, view: View) -> Iterator[View]:
    place, numbers = graph.tensor(node.input(1)), graph.numbers(node.input(1))
    if view.at(node.attribute("axis", 0)) == DIRECTION and view.state == "both" and numbers in ([0], [1], [-1]):
        one = replace(view, state=("forward", "backward")[int(numbers[0])], size=1)
        yield one if place is not None and place.shape else _without_directions(one)


def _reduce(graph: Graph, node: Node, view: View) -> Iterator[View]:
    if _axes(graph, node, view) == [DIRECTION] and view.state == "both":
        merged = replace(view, state=REDUCED[node.kind], size=1)
        yield merged if node.attribute("keepdims", 1) else _without_directions(merged)


def _halve(graph: Graph, node: Node, view: View) -> Iterator[View]:
    """Half the sum is the average."""
    others = [graph.numbers(name) for name in node.inputs[1 if node.kind == "Div" else 0 :]]
    if view.state == "sum" and [HALVING[node.kind]] in others:
        yield replace(view, state="average")


def _axes(graph: Graph, node: Node, view: View) -> list[str]:
    return [view.at(axis) for axis in graph.integers(node, "axes", 1)]


def _without_directions(view: View) -> View:
    return replace(view, axes=tuple(axis for axis in view.axes if axis != DIRECTION))


RULES: Mapping[str, Callable[[Graph, Node, View], Iterator[View]]] = {
    "Dropout": _same, "Transpose": _transpose, "Squeeze": _squeeze, "Reshape": _reshape, "Split": _split,
    "Slice": _slice, "Gather": _gather, **dict.fromkeys(REDUCED, _reduce), **dict.fromkeys(HALVING, _halve),
}  # fmt: skip
