"""`RNN` nodes as layers of the spec; what the spec has not is refused by name."""

from typing import NamedTuple

from ...spec.errors import SpecError, UnsupportedError
from ...spec.found import FoundLayer
from ...spec.model import ModelSpec
from ...spec.parts import Part
from ...spec.stored import WIDENED, StoredTensor
from .graph import STANDARD, Graph, Node

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h")
ATTRIBUTES = {
    "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "layout",
    "output_sequence",
}  # fmt: skip
ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "affine": "identity"}
VARIANTS = {"forward": "simple_rnn", "bidirectional": "bi_rnn"}
CELLS = ("RNN", "LSTM", "GRU")


class Tensors(NamedTuple):
    """W (D, H, I), R (D, H, H) and B (D, 2H) of a node, and their names."""

    names: tuple[str, str, str]
    W: StoredTensor
    R: StoredTensor
    B: StoredTensor | None


def is_recurrent(node: Node) -> bool:
    """Whether it is a recurrent layer of any kind, of ONNX or of somebody's own domain."""
    return any(cell in node.kind.rpartition(".")[2].upper() for cell in CELLS)


def read_node(graph: Graph, node: Node, path: str) -> FoundLayer:
    """The layer of a recurrent node; `refusal` says why it is none of the spec."""
    kind = f"ONNX {node.kind}"
    try:
        _check_kind(node)
        _check(node)
        tensors = _tensors(graph, node)
        spec = _spec(node, tensors)
        return FoundLayer(path, kind, spec, _parts(spec, tensors), notes=_notes(graph, node))
    except (UnsupportedError, SpecError) as error:
        return FoundLayer(path, kind, refusal=str(error))


def _check_kind(node: Node) -> None:
    if node.domain not in STANDARD:
        raise UnsupportedError(
            f"a node of the domain {node.domain[:80]!r}, which is not ONNX' own; export with standard RNN nodes"
        )
    if node.kind != CELLS[0]:
        raise UnsupportedError(f"{node.kind}: expected a simple recurrent layer (RNN), as the spec has no other cell")


def _check(node: Node) -> None:
    """Raises UnsupportedError for what no layer of the spec does."""
    if unknown := sorted({*node.attributes, *node.inputs[len(INPUTS) :]} - ATTRIBUTES):
        raise UnsupportedError(f"RNN with {unknown[0][:80]!r}, which ONNX' RNN has not; save the model again")
    if "clip" in node.attributes:
        raise UnsupportedError("clip: the spec does not clip; export without it")
    direction, layout = node.attribute("direction", "forward"), node.attribute("layout", 0)
    if direction == "reverse":
        raise UnsupportedError(
            "direction 'reverse': a single layer that reads backward has no place in the spec; "
            "export it as forward, and reverse its inputs and outputs outside"
        )
    if direction not in VARIANTS or layout not in (0, 1):
        raise UnsupportedError(f"direction {direction[:80]!r} and layout {layout}: ONNX has no such thing; save again")


def _tensors(graph: Graph, node: Node) -> Tensors:
    names = node.input(1), node.input(2), node.input(3)
    W, R, B = (graph.tensor(name) for name in names)
    for symbol, name, tensor in zip("WRB", names, (W, R, B), strict=True):
        if tensor is None and (name or symbol != "B"):
            raise UnsupportedError(
                f"{symbol} is {name[:80]!r}, which the graph computes or is given; export with constant weights"
            )
    assert W is not None and R is not None
    _check_shapes(node, W, R, B)
    return Tensors(names, W, R, B)


def _check_shapes(node: Node, W: StoredTensor, R: StoredTensor, B: StoredTensor | None) -> None:
    D = 2 if node.attribute("direction", "forward") == "bidirectional" else 1
    H = node.attribute("hidden_size", R.shape[-1] if R.shape else 0)
    fitting = len(W.shape) == 3 and W.shape[:2] == (D, H) and R.shape == (D, H, H)
    if not fitting or (B is not None and B.shape != (D, 2 * H)):
        raise UnsupportedError(
            f"expected W ({D}, {H}, I), R ({D}, {H}, {H}) and B ({D}, {2 * H}), got {W.shape}, {R.shape} and "
            f"{'none' if B is None else B.shape}; save the model again"
        )
    dtypes = sorted({tensor.dtype for tensor in (W, R, B) if tensor is not None})
    if len(dtypes) != 1 or dtypes[0] not in WIDENED:
        raise UnsupportedError(f"weights of {', '.join(dtypes)}; expected one of {', '.join(WIDENED)} for all of them")


def _spec(node: Node, tensors: Tensors) -> ModelSpec:
    variant = VARIANTS[node.attribute("direction", "forward")]
    return ModelSpec(
        variant, input_size=tensors.W.shape[2], hidden_size=tensors.R.shape[2],
        nonlinearity=_nonlinearity(node, tensors.W.shape[0]), bias="none" if tensors.B is None else "double",
    )  # fmt: skip


def _nonlinearity(node: Node, D: int) -> str:
    names = node.attribute("activations", ["Tanh"] * D)
    found = {str(name).lower() for name in names}
    if len(names) != D or len(found) != 1 or not found <= set(ACTIVATIONS):
        raise UnsupportedError(
            f"activations {str(names)[:80]}: expected {D} times the same of Tanh, Relu, Sigmoid, Affine(1, 0)"
        )
    alpha: list[float] = node.attribute("activation_alpha", [])
    beta: list[float] = node.attribute("activation_beta", [])
    if found == {"affine"} and (alpha, beta) != ([1.0] * D, [0.0] * D):  # what is not given is 0 for onnxruntime
        raise UnsupportedError(f"Affine with alpha {alpha[:2]} and beta {beta[:2]}: the spec has the identity, 1 and 0")
    if found != {"affine"} and (set(alpha) - {1.0} or set(beta) - {0.0}):
        raise UnsupportedError(f"activations with alpha {alpha[:2]} and beta {beta[:2]}: the spec has neither")
    return ACTIVATIONS[found.pop()]


def _parts(spec: ModelSpec, tensors: Tensors) -> dict[str, Part]:
    names, H = tensors.names, spec.hidden_size
    found = {}
    for d, direction in enumerate(spec.directions):
        prefix = f"layers.0.{direction}."
        found[f"{prefix}input_weight"] = Part(names[0], tensors.W, (d,))
        found[f"{prefix}recurrent_weight"] = Part(names[1], tensors.R, (d,))
        if tensors.B is not None:
            found[f"{prefix}input_bias"] = Part(names[2], tensors.B, (d, slice(0, H)))
            found[f"{prefix}recurrent_bias"] = Part(names[2], tensors.B, (d, slice(H, 2 * H)))
    return found


def _notes(graph: Graph, node: Node) -> tuple[str, ...]:
    """What of the node's inputs is left behind. Raises UnsupportedError for an initial state that is a constant."""
    lengths, state = (graph.origin(node.input(index)) for index in (4, 5))
    notes = []
    if lengths in graph.constants:
        notes.append("its sequence_lens are a constant: left behind, give them as lengths")
    if not state or graph.is_zero(state):
        return tuple(notes)
    if state in graph.constants:
        raise UnsupportedError(
            f"initial_h is the constant {state[:80]!r}, which is not 0: the spec has no such weight; "
            "make it an input of the graph"
        )
    if state not in graph.given:
        notes.append("its initial_h is computed in the graph: left behind, give it as initial state")
    return tuple(notes)
