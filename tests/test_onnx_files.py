"""ONNX: what is written is what any runtime runs, what is found is what is there, and nothing hostile gets through."""

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance.equivalence import random_arguments
from rnnzoo.conformance.onnx_format import FILES
from rnnzoo.conformance.onnx_format.files import found_in
from rnnzoo.conformance.onnx_format.wire import FIELDS, decoded
from rnnzoo.spec import Context, Embedding, Head, ModelSpec, load_backend
from rnnzoo.spec.backend import Contents
from rnnzoo.spec.definitions import variant_of
from rnnzoo.spec.errors import FileError, UnsupportedError
from rnnzoo.spec.found import FoundFile, FoundLayer
from rnnzoo.spec.model import NONLINEARITIES
from rnnzoo.spec.parameters import initial_weights, parameters
from rnnzoo.spec.parts import StoredWeights

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, TensorProto = onnx.helper, onnx.TensorProto

RUNTIME = load_backend("rnnzoo.conformance.onnx_format.plain:BACKEND")
VARIANTS = {"simple_rnn": 1, "bi_rnn": 1, "stacked_rnn": 3, "stacked_bi_rnn": 2}
MERGES = ("concat", "sum", "average", "multiply")
CORES = [
    ModelSpec(variant, 5, 4, layers, nonlinearity, bias, merge)
    for (variant, layers), nonlinearity, bias in itertools.product(
        VARIANTS.items(), NONLINEARITIES, ("none", "single", "double")
    )
    for merge in (MERGES if "bi" in variant else ("concat",))
]
WHOLE = [
    ModelSpec("bi_rnn", 5, 4, merge="sum", embedding=Embedding(7), head=Head(5)),
    ModelSpec("stacked_bi_rnn", 5, 4, 2, embedding=Embedding(7), head=Head(5, reads="final", bias=False)),
    ModelSpec("stacked_rnn", 5, 4, 2, bias="double", context=Context(2), head=Head(5, bias=False)),
    ModelSpec("simple_rnn", 5, 4, context=Context(2), head=Head(5, reads="final")),
]


def label(spec: ModelSpec) -> str:
    """A spec in a test's name."""
    parts = [name for name in ("embedding", "head", "context") if getattr(spec, name)]
    return "-".join([spec.variant, spec.nonlinearity, spec.bias, spec.merge, *parts])


def found(path: Path) -> FoundFile:
    """What is in a file, read in this process, which is quicker."""
    return found_in(path, decoded(path))


def written(folder: Path, spec: ModelSpec, dtype: str = "float32") -> Path:
    """A file with a spec's initial weights."""
    FILES.write(folder / "model.onnx", Contents(spec, initial_weights(spec, 0, dtype), {"made": "here"}))
    return folder / "model.onnx"


def weights_of(layer: FoundLayer) -> dict[str, bytes]:
    """The bits of a layer's weights."""
    return {name: array.tobytes() for name, array in StoredWeights(layer.parts).items()}


# --- what is written


@pytest.mark.parametrize("spec", [*CORES, *WHOLE], ids=label)
def test_onnxruntime_computes_what_the_spec_says(
    spec: ModelSpec, tmp_path: Path, assert_run: Callable[..., None]
) -> None:
    arguments = random_arguments(spec, rows=3, steps=2)
    assert {0, 1, 2} == set(arguments["lengths"])
    model = RUNTIME.loaded(written(tmp_path, spec), spec)
    assert_run(RUNTIME.run(model, **arguments).arrays(), model, **arguments)


@pytest.mark.parametrize("spec", [*CORES, *WHOLE], ids=label)
def test_a_written_model_is_valid_and_reads_back(spec: ModelSpec, tmp_path: Path) -> None:
    path = written(tmp_path, spec)
    onnx.checker.check_model(path, full_check=True)
    file = found(path)
    (layer,) = file.layers
    assert (layer.path, layer.kind, layer.spec, layer.refusal) == ("", "rnnzoo", spec, None)
    assert (file.spec, file.provenance, file.rest) == (spec, {"made": "here"}, {})
    assert list(layer.parts) == [parameter.name for parameter in parameters(spec)]
    assert weights_of(layer) == {name: array.tobytes() for name, array in initial_weights(spec, 0).items()}


@pytest.mark.parametrize("spec", [spec for spec in CORES if spec.bias != "single"], ids=label)
def test_the_nodes_alone_tell_what_the_model_is(spec: ModelSpec, tmp_path: Path) -> None:
    path = written(tmp_path, spec)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    layer = found(path).layers[-1]
    assert (layer.spec, layer.assumed, layer.notes) == (spec, (), ())
    assert weights_of(layer) == {name: array.tobytes() for name, array in initial_weights(spec, 0).items()}


def test_float64_stays_float64_and_runs_in_float32(tmp_path: Path) -> None:
    path = written(tmp_path, CORES[-1], "float64")
    onnx.checker.check_model(path, full_check=True)
    (layer,) = found(path).layers
    expected = initial_weights(CORES[-1], 0, "float64")
    assert weights_of(layer) == {name: array.tobytes() for name, array in expected.items()}
    with pytest.raises(UnsupportedError, match="float32"):
        RUNTIME.build(CORES[-1], dtype="float64")


def test_numbers_that_are_not_finite_are_kept(tmp_path: Path) -> None:
    spec = CORES[1]
    weights = initial_weights(spec, 0)
    weights["layers.0.forward.bias"][:] = np.array([0x7FC01234, 0xFF800000, 0x80000000, 1], np.uint32).view(np.float32)
    FILES.write(tmp_path / "x.onnx", Contents(spec, weights, {}))
    assert weights_of(found(tmp_path / "x.onnx").layers[0]) == {n: array.tobytes() for n, array in weights.items()}


def test_each_weight_is_asked_for_once_and_in_order(tmp_path: Path) -> None:
    asked: list[str] = []

    class Recorded(StoredWeights):
        def rows(self, name: str, *, transposed: bool = False) -> Any:
            asked.append(name)
            return super().rows(name, transposed=transposed)

    spec = WHOLE[1]
    parts = found(written(tmp_path, spec)).layers[0].parts
    FILES.write(tmp_path / "again.onnx", Contents(spec, Recorded(parts), {"made": "here"}))
    assert asked == [parameter.name for parameter in parameters(spec)]
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_whatever_stands_in_the_padding_reaches_nothing(tmp_path: Path) -> None:
    for spec in (WHOLE[0], WHOLE[2]):
        model, arguments = RUNTIME.loaded(written(tmp_path, spec), spec), random_arguments(spec)
        expected = RUNTIME.run(model, **arguments).arrays()
        padding = np.arange(7) >= arguments["lengths"][:, None]
        arguments["inputs"][padding] = 10**6 if spec.embedding else np.nan
        for name, array in RUNTIME.run(model, **arguments).arrays().items():
            assert np.array_equal(array, expected[name]), name
            assert name == "final_state.h" or not array[padding].any(), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"mask": np.array([[False, True], [True, True]])}, "holes"), ({"initial_state": np.zeros((2, 2, 4))}, "context")],
)
def test_what_the_graph_has_no_input_for_is_refused(arguments: dict[str, Any], words: str) -> None:
    spec = WHOLE[2] if "initial_state" in arguments else CORES[0]
    with pytest.raises(UnsupportedError, match=words):
        RUNTIME.run(RUNTIME.build(spec), np.zeros((2, 2, spec.input_size)), **arguments)


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path, toy_cell: Callable[[str], None]) -> None:
    assert "toy" in str(FILES.holds(ModelSpec("simple_rnn", 3, 4, cell="toy")))
    assert "2 GiB" in str(FILES.holds(ModelSpec("simple_rnn", 3, 2**15)))
    contents = Contents(CORES[0], initial_weights(CORES[0], 0), {})
    with pytest.raises(UnsupportedError, match="prefix"):
        FILES.write(tmp_path / "x.onnx", contents, prefix="encoder.")


@pytest.mark.parametrize("changed", ["activation", "weight", "bias"])
def test_a_graph_that_is_no_longer_what_its_metadata_says_is_refused_as_a_whole(changed: str, tmp_path: Path) -> None:
    path = written(tmp_path, ModelSpec("simple_rnn", 3, 4))
    model = onnx.load(path)
    if changed == "activation":
        (node,) = (node for node in model.graph.node if node.op_type == "RNN")
        next(one for one in node.attribute if one.name == "activations").strings[0] = b"Relu"
    initializer = {one.name: one for one in model.graph.initializer}
    if changed == "weight":
        model.graph.initializer.remove(initializer["W_0"])
        model.graph.node.insert(0, helper.make_node("Constant", [], ["W_0"], value=initializer["W_0"]))
        model.graph.node[0].attribute[0].t.dims[:] = [1, 4, 2]
        model.graph.node[0].attribute[0].t.raw_data = b"\0" * 32
    if changed == "bias":
        initializer["B_0"].raw_data = np.ones(8, np.float32).tobytes()
    onnx.save(model, path)
    whole, *nodes = found(path).layers
    assert whole.path == "" and "not the model that rnnzoo wrote" in str(whole.refusal)
    assert [(layer.path, layer.refusal) for layer in nodes] == [("layers.0", None)]


# --- what others write


def constants(directions: int = 1, I: int = 3, H: int = 4, kind: Any = np.float32) -> dict[str, np.ndarray]:  # noqa: E741
    """W, R and B with distinct numbers."""
    numbers = np.random.default_rng(0)
    shapes = {"W": (directions, H, I), "R": (directions, H, H), "B": (directions, 2 * H)}
    return {name: numbers.standard_normal(shape).astype(kind) for name, shape in shapes.items()}


def saved(path: Path, nodes: list[Any], tensors: Mapping[str, Any], names: Sequence[str] = ("X",), **more: Any) -> Path:
    """A model of these nodes; tensors may be TensorProtos."""
    of_array = onnx.numpy_helper.from_array
    protos = [one if isinstance(one, TensorProto) else of_array(one, name) for name, one in tensors.items()]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    graph = helper.make_graph(nodes, "g", inputs, [], protos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], **more), path)
    return path


def foreign(folder: Path, inputs: Sequence[str] = ("X", "W", "R", "B"), directions: int = 1, **attributes: Any) -> Path:
    """A model of one RNN node."""
    node = helper.make_node("RNN", list(inputs), ["Y", "Y_h"], "rnn", **attributes)
    return saved(folder / "foreign.onnx", [node], constants(directions), ("X", "lengths", "state"))


ACCEPTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all left out": ({}, {}),
    "no bias": ({"inputs": ("X", "W", "R")}, {"bias": "none"}),
    "relu": ({"activations": ["Relu"]}, {"nonlinearity": "relu"}),
    "sigmoid in other letters": ({"activations": ["sigmoid"]}, {"nonlinearity": "sigmoid"}),
    "affine": (
        {"activations": ["Affine"], "activation_alpha": [1.0], "activation_beta": [0.0]}, {"nonlinearity": "identity"},
    ),
    "layout 1": ({"layout": 1}, {}),
    "the size": ({"hidden_size": 4, "direction": "forward"}, {}),
    "lengths and state": ({"inputs": ("X", "W", "R", "", "lengths", "state")}, {"bias": "none"}),
    "two directions": (
        {"directions": 2, "direction": "bidirectional", "activations": ["Tanh", "Tanh"]}, {"variant": "bi_rnn"},
    ),
}  # fmt: skip
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "reverse": ({"direction": "reverse"}, "direction 'reverse'"),
    "clip": ({"clip": 1.0}, "clip"),
    "elu": ({"activations": ["Elu"]}, "activations"),
    "several activations": (
        {"directions": 2, "direction": "bidirectional", "activations": ["Tanh", "Relu"]}, "activations",
    ),
    "alpha": ({"activations": ["Affine"], "activation_alpha": [2.0]}, "alpha"),
    "no alpha": ({"activations": ["Affine"]}, "the identity"),
    "beta": ({"activations": ["Affine"], "activation_alpha": [1.0], "activation_beta": [0.5]}, "beta"),
    "another size": ({"hidden_size": 5}, "expected W"),
    "another direction": ({"direction": "sideways"}, "sideways"),
    "a direction that is a number": ({"direction": 1}, "'direction'"),
    "another layout": ({"layout": 2}, "layout 2"),
    "an unknown attribute": ({"peephole": 1}, "'peephole'"),
    "W from outside": ({"inputs": ("X", "state", "R")}, "W is 'state'"),
    "a seventh input": ({"inputs": ("X", "W", "R", "B", "", "", "P")}, "'P'"),
    "too few directions": ({"direction": "bidirectional"}, "expected W"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_rnn_node_is_found_as_what_it_is(name: str, tmp_path: Path) -> None:
    options, fields = ACCEPTED[name]
    (layer,) = FILES.find(foreign(tmp_path, **options)).layers
    expected = {"variant": "simple_rnn", "nonlinearity": "tanh", "bias": "double"} | fields
    assert layer.spec == ModelSpec(input_size=3, hidden_size=4, **expected) and layer.path == "rnn"
    assert layer.assumed == (("merge",) if "directions" in options else ())
    tensors, weights = constants(options.get("directions", 1)), StoredWeights(layer.parts)
    for d, direction in enumerate(layer.spec.directions):
        prefix = f"layers.0.{direction}."
        assert np.array_equal(weights[f"{prefix}input_weight"], tensors["W"][d])
        assert np.array_equal(weights[f"{prefix}recurrent_weight"], tensors["R"][d])
        if layer.spec.bias == "double":
            assert np.array_equal(weights[f"{prefix}input_bias"], tensors["B"][d, :4])
            assert np.array_equal(weights[f"{prefix}recurrent_bias"], tensors["B"][d, 4:])


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_spec_has_not_is_refused_by_name(name: str, tmp_path: Path) -> None:
    options, words = REFUSED[name]
    (layer,) = found(foreign(tmp_path, **options)).layers
    assert layer.spec is None and words in str(layer.refusal), layer.refusal


@pytest.mark.parametrize(
    ("kind", "domain", "words"),
    [
        ("LSTM", "", "LSTM"),
        ("GRU", "", "GRU"),
        ("RNN", "org.example", "org.example"),
        ("AttnLSTM", "com.microsoft", "com.m"),
    ],
)
def test_other_cells_and_other_domains_are_refused_by_name(kind: str, domain: str, words: str, tmp_path: Path) -> None:
    node = helper.make_node(kind, ["X", "W", "R"], ["Y"], domain=domain)
    (layer,) = found(saved(tmp_path / "x.onnx", [node], constants())).layers
    assert layer.path == "Y" and words in str(layer.refusal)


def test_a_node_inside_a_loop_or_a_function_is_named_and_refused(tmp_path: Path) -> None:
    node = helper.make_node("RNN", ["X", "W", "R"], ["Y"], "inner")
    body = helper.make_graph([node], "body", [], [])
    function = helper.make_function("f", "F", ["X", "W", "R"], ["Y"], [node], [helper.make_opsetid("", 22)])
    loop = helper.make_node("Loop", ["n", "", "X"], ["Z"], "outer", body=body)
    file = found(saved(tmp_path / "x.onnx", [loop], constants(), functions=[function]))
    assert [layer.path for layer in file.layers] == ["outer/inner", "F/inner"]
    assert all("export the model without" in str(layer.refusal) for layer in file.layers)
    assert "Loop" in file.facts["loops"]


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16"])
def test_every_precision_is_read_exactly(kind: str, tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2**15, 12 + 16).astype(np.uint16)
    dtype = TensorProto.DataType.Value({"float32": "FLOAT", "float64": "DOUBLE"}.get(kind, kind.upper()))
    stored = bits if "16" in kind else bits.astype(kind)
    tensors = {
        name: helper.make_tensor(name, dtype, shape, part.tobytes(), raw=True)
        for name, shape, part in (("W", (1, 4, 3), stored[:12]), ("R", (1, 4, 4), stored[12:]))
    }
    (layer,) = found(saved(tmp_path / "x.onnx", [helper.make_node("RNN", ["X", "W", "R"], ["Y"])], tensors)).layers
    weights = StoredWeights(layer.parts)
    expected = stored[:12].view(np.float16) if kind == "float16" else stored[:12]
    if kind == "bfloat16":
        expected = (bits[:12].astype(np.uint32) << 16).view(np.float32)
    widened = expected.astype("float64" if kind == "float64" else "float32").reshape(4, 3)
    assert weights["layers.0.forward.input_weight"].tobytes() == widened.tobytes()


def test_several_precisions_in_one_layer_are_refused(tmp_path: Path) -> None:
    tensors = constants() | {"R": constants(kind=np.float64)["R"]}
    (layer,) = found(saved(tmp_path / "x.onnx", [helper.make_node("RNN", ["X", "W", "R"], ["Y"])], tensors)).layers
    assert "float32, float64" in str(layer.refusal)


def test_numbers_in_lists_constant_nodes_and_behind_identities_are_read(tmp_path: Path) -> None:
    tensors = constants()
    W = helper.make_tensor("W", TensorProto.FLOAT, tensors["W"].shape, tensors["W"].ravel())
    nodes = [
        helper.make_node("Constant", [], ["r"], value=onnx.numpy_helper.from_array(tensors["R"])),
        helper.make_node("Identity", ["r"], ["r2"]),
        helper.make_node("Identity", ["r2"], ["R"]),
        helper.make_node("RNN", ["X", "W", "R"], ["Y"]),
    ]
    (layer,) = found(saved(tmp_path / "x.onnx", nodes, {"W": W})).layers
    weights = StoredWeights(layer.parts)
    assert np.array_equal(weights["layers.0.forward.input_weight"], tensors["W"][0])
    assert np.array_equal(weights["layers.0.forward.recurrent_weight"], tensors["R"][0])


def test_numbers_in_a_file_beside_the_model_are_read(tmp_path: Path) -> None:
    path = foreign(tmp_path)
    (tmp_path / "below").mkdir()
    model = onnx.load(path)
    onnx.save(model, tmp_path / "out.onnx", save_as_external_data=True, location="below/numbers", size_threshold=0)
    (layer,) = found(tmp_path / "out.onnx").layers
    assert layer.parts["layers.0.forward.input_weight"].tensor.path == (tmp_path / "below/numbers").resolve()
    assert weights_of(layer) == weights_of(found(path).layers[0])


@pytest.mark.parametrize(
    ("state", "refused"), [(np.zeros((1, 1, 4), np.float32), False), (np.ones((1, 1, 4), np.float32), True)]
)
def test_a_constant_initial_state_is_refused_unless_it_is_0(state: np.ndarray, refused: bool, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Expand", ["h", "shape"], ["h2"]),
        helper.make_node("RNN", ["X", "W", "R", "", "", "h2"], ["Y"]),
    ]
    tensors = constants() | {"h": state, "shape": np.array([1, 5, 4])}
    (layer,) = found(saved(tmp_path / "x.onnx", nodes, tensors)).layers
    assert (layer.refusal is not None) == refused and layer.notes == ()
    assert not refused or "initial_h" in str(layer.refusal)


def test_what_is_left_behind_is_noted(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Tanh", ["X"], ["h"]),
        helper.make_node("RNN", ["X", "W", "R", "", "n", "h"], ["Y"]),
    ]
    (layer,) = found(saved(tmp_path / "x.onnx", nodes, constants() | {"n": np.array([5], np.int32)})).layers
    lengths, state = layer.notes
    assert layer.spec is not None and "sequence_lens" in lengths and "initial_h" in state


# --- stacks


def two_layers(
    folder: Path,
    between: list[Any],
    directions: int = 2,
    I: int = 8,  # noqa: E741
    above: Sequence[Any] = (),
    **second: Any,
) -> FoundFile:
    """Two nodes `a` and `b`, and other nodes from Y of the first to X2 of the second; `second` are its options."""
    common = {"direction": "bidirectional" if directions == 2 else "forward"}
    upper = {f"{name}2": array for name, array in constants(directions, I).items()}
    lengths = second.pop("lengths", "n")
    nodes = [
        helper.make_node("RNN", ["X", "W", "R", "B", "n"], ["Y"], "a", **common),
        *between,
        helper.make_node("RNN", ["X2", "W2", "R2", "B2", lengths], ["Y2"], "b", **(common | second)),
        *above,
    ]
    axes = {f"i{value}": np.array([value]) for value in (-1, 0, 1, 2)}
    shapes = {"joined": np.array([0, 0, -1]), "half": np.array(0.5, np.float32), "two": np.array(2, np.float32)}
    scalars = {"zero": np.array(0), "one": np.array(1), "ones": np.array([1, 1])}
    tensors = constants(directions) | upper | axes | shapes | scalars
    return found(saved(folder / "x.onnx", nodes, tensors, ("X", "n", "m")))


def made(*lines: str) -> list[Any]:
    """Nodes written as in ONNX' textual syntax."""
    text = '<ir_version: 10, opset_import: ["": 22]> g (float X) => (float Z) { ' + " ".join(lines) + " }"
    return list(onnx.parser.parse_model(text).graph.node)


SPLIT = "f, k = Split <axis = 1> (Y, ones)"
SQUEEZED = ("f2 = Squeeze (f, i1)", "k2 = Squeeze (k, i1)")
SLICED = ("f = Slice (Y, i0, i1, i1)", "k = Slice (Y, i1, i2, i1)")
TRAILS = {
    "transpose and reshape": (("t = Transpose <perm = [0, 2, 1, 3]> (Y)", "X2 = Reshape (t, joined)"), "concat"),
    "split and concat": ((SPLIT, *SQUEEZED, "X2 = Concat <axis = 2> (f2, k2)"), "concat"),
    "slice and concat": ((*SLICED, "c = Concat <axis = -1> (f, k)", "X2 = Squeeze (c, i1)"), "concat"),
    "gather and add": (("f = Gather <axis = 1> (Y, zero)", "k = Gather <axis = 1> (Y, one)", "X2 = Add (k, f)"), "sum"),
    "gather a list": (("f = Gather <axis = 1> (Y, i0)", "k = Gather <axis = 1> (Y, i1)", "c = Add (k, f)",
                       "X2 = Squeeze (c, i1)"), "sum"),
    "mul": ((SPLIT, *SQUEEZED, "X2 = Mul (f2, k2)"), "multiply"),
    "mean": ((SPLIT, *SQUEEZED, "X2 = Mean (f2, k2)"), "average"),
    "half the sum": ((SPLIT, *SQUEEZED, "s = Sum (f2, k2)", "X2 = Mul (half, s)"), "average"),
    "the sum by two": ((SPLIT, *SQUEEZED, "s = Add (f2, k2)", "X2 = Div (s, two)"), "average"),
    "reduce and keep": (("s = ReduceProd <keepdims = 1> (Y, i1)", "X2 = Squeeze (s, i1)"), "multiply"),
    "dropout": (("s = ReduceSum <keepdims = 0> (Y, i1)", "X2 = Dropout (s)"), "sum"),
}  # fmt: skip
NO_TRAILS = {
    "backward first": (SPLIT, *SQUEEZED, "X2 = Concat <axis = 2> (k2, f2)"),
    "one direction twice": (SPLIT, *SQUEEZED, "X2 = Concat <axis = 2> (f2, f2)"),
    "time and batch confused": ("t = Transpose <perm = [2, 0, 1, 3]> (Y)", "X2 = Reshape (t, joined)"),
    "something between": ("s = ReduceSum <keepdims = 0> (Y, i1)", "X2 = Tanh (s)"),
    "units and directions confused": ("t = Transpose <perm = [0, 2, 3, 1]> (Y)", "X2 = Reshape (t, joined)"),
    "concatenated in time": (SPLIT, *SQUEEZED, "X2 = Concat <axis = 0> (f2, k2)"),
    "two by the sum": (SPLIT, *SQUEEZED, "s = Add (f2, k2)", "X2 = Div (two, s)"),
    "another domain": ("s = ReduceSum <keepdims = 1> (Y, i1)", "X2 = org.example.Squeeze (s, i1)"),
}


@pytest.mark.parametrize("name", TRAILS)
def test_layers_joined_by_the_usual_nodes_are_one_stack(name: str, tmp_path: Path) -> None:
    lines, merge = TRAILS[name]
    I = 8 if merge == "concat" else 4  # noqa: E741
    first, second, stack = two_layers(tmp_path, made(*lines), I=I).layers
    assert (first.path, second.path, stack.path) == ("a", "b", "a..b")
    assert stack.spec == ModelSpec("stacked_bi_rnn", 3, 4, 2, bias="double", merge=merge)
    assert first.spec == ModelSpec("bi_rnn", 3, 4, bias="double", merge=merge) and first.assumed == ()
    assert stack.assumed == second.assumed == ("merge",)  # nothing tells what becomes of the upper one's outputs
    assert weights_of(stack) == weights_of(first) | {
        name.replace("layers.0", "layers.1"): bits for name, bits in weights_of(second).items()
    }


@pytest.mark.parametrize("name", NO_TRAILS)
def test_layers_joined_in_any_other_way_stand_alone(name: str, tmp_path: Path) -> None:
    size = 4 if "sum" in name or "ReduceSum" in str(NO_TRAILS[name]) else 8
    assert [layer.path for layer in two_layers(tmp_path, made(*NO_TRAILS[name]), I=size).layers] == ["a", "b"]


SUMMED = "X2 = ReduceSum <keepdims = 0> (Y, i1)"


@pytest.mark.parametrize("option", [{"lengths": "m"}, {"activations": ["Relu", "Relu"]}, {"layout": 1}, {"I": 5}])
def test_layers_that_differ_are_no_stack(option: dict[str, Any], tmp_path: Path) -> None:
    assert len(two_layers(tmp_path, made(SUMMED), **({"I": 4} | option)).layers) == 2
    assert len(two_layers(tmp_path, made(SUMMED), I=4).layers) == 3


def test_layers_with_one_direction_and_other_layouts_are_a_stack(tmp_path: Path) -> None:
    *_, stack = two_layers(tmp_path, made("X2 = Squeeze (Y, i1)"), directions=1, I=4).layers
    assert stack.spec == ModelSpec("stacked_rnn", 3, 4, 2, bias="double")


def test_a_top_layer_that_merges_in_another_way_is_not_of_the_stack(tmp_path: Path) -> None:
    file = two_layers(tmp_path, made(SUMMED), above=made("Y3 = ReduceProd <keepdims = 0> (Y2, i1)"), I=4)
    assert [layer.spec.merge for layer in file.layers if layer.spec] == ["sum", "multiply"]
    *_, stack = two_layers(tmp_path, made(SUMMED), above=made("Y3 = ReduceSum <keepdims = 0> (Y2, i1)"), I=4).layers
    assert stack.spec is not None and (stack.spec.merge, stack.assumed) == ("sum", ())


def test_layers_that_share_what_they_read_are_no_stack(tmp_path: Path) -> None:
    third = helper.make_node("RNN", ["X2", "W2", "R2", "B2", "n"], ["Y3"], "c", direction="bidirectional")
    assert [one.path for one in two_layers(tmp_path, [*made(SUMMED), third], I=4).layers] == ["a", "c", "b"]


@pytest.mark.filterwarnings("ignore")  # the exporter is deprecated, and warns of batches of other sizes
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_what_torch_exports_is_the_module(
    layers: int, bidirectional: bool, bias: bool, batch_first: bool, state: bool, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    nonlinearity, D = "relu" if batch_first else "tanh", 1 + bidirectional
    module = torch.nn.RNN(
        3, 4, layers, nonlinearity, bias, batch_first, bidirectional=bidirectional, dropout=0.1 * (layers - 1)
    ).eval()
    example = torch.zeros((2, 5, 3) if batch_first else (5, 2, 3)), *([torch.zeros(layers * D, 2, 4)] * state)
    torch.onnx.export(module, example, tmp_path / "x.onnx", dynamo=False)
    stack = found(tmp_path / "x.onnx").layers[-1]
    assert stack.spec == ModelSpec(
        variant_of(layers, D), 3, 4, layers, nonlinearity, "double" if bias else "none"
    ) and stack.assumed == stack.notes == ()  # fmt: skip
    assert stack.original is not None
    names = {
        "input_weight": "weight_ih", "recurrent_weight": "weight_hh",
        "input_bias": "bias_ih", "recurrent_bias": "bias_hh",
    }  # fmt: skip
    for name, bits in weights_of(stack).items():
        _, layer, direction, part = name.split(".")
        own = module.get_parameter(f"{names[part]}_l{layer}{'_reverse' if direction == 'backward' else ''}")
        assert own.detach().numpy().tobytes() == bits, name


@pytest.mark.filterwarnings("ignore")
def test_what_torchs_other_exporter_writes_is_refused_by_the_names_that_are_left(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    module, example = torch.nn.Sequential(torch.nn.RNN(3, 4, 2)).eval(), (torch.zeros(2, 5, 3),)
    torch.onnx.export(module, example, tmp_path / "x.onnx", dynamo=True, verbose=False)
    (layer,) = found(tmp_path / "x.onnx").layers
    assert layer.path == "0" and "dynamo=False" in str(layer.refusal) and "step" in str(layer.refusal)
    module = torch.nn.RNN(3, 4, bias=False).eval()
    torch.onnx.export(module, example, tmp_path / "y.onnx", dynamo=True, verbose=False)
    file = found(tmp_path / "y.onnx")
    assert file.layers == () and "dynamo=False" in file.facts["steps"]


# --- hostile files


@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/hostname", "link", "below/../../secret", "loop", "", "a\0b", "x" * 5000, "folder", "pipe"],
)
def test_numbers_outside_the_folder_are_never_read(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\1" * 4096)
    folder = tmp_path / "model"
    (folder / "folder").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    tensor = onnx.numpy_helper.from_array(constants()["W"], "W")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    tensors = constants() | {"W": tensor}
    path = saved(folder / "x.onnx", [helper.make_node("RNN", ["X", "W", "R"], ["Y"])], tensors)
    with pytest.raises(FileError, match=r"only files beside it|not there"):
        FILES.find(path)


@pytest.mark.parametrize(
    "entries", [{"offset": "-1"}, {"offset": "1"}, {"offset": "1e3"}, {"length": "47"}, {"offset": "9" * 30}]
)
def test_a_place_in_another_file_that_is_not_there_is_refused(entries: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "numbers").write_bytes(b"\0" * 48)
    tensor = TensorProto(name="W", data_type=1, dims=[1, 4, 3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "numbers", **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    with pytest.raises(FileError, match="tensor 'W'"):
        found(saved(tmp_path / "x.onnx", [], {"W": tensor}))


@pytest.mark.parametrize(
    "dims", [[-1, 4, 3], [2**40, 2**40], [1, 4, 4], [1] * 100, [2**62, 0, -1], [1, 2**63 - 1]], ids=str
)
def test_a_shape_that_lies_is_refused(dims: list[int], tmp_path: Path) -> None:
    tensor = TensorProto(name="W", data_type=1, dims=dims, raw_data=b"\0" * 48)
    with pytest.raises(FileError, match="tensor 'W'"):
        found(saved(tmp_path / "x.onnx", [], {"W": tensor}))


def test_two_values_of_one_name_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("RNN", ["X", "W", "R"], ["Y"])
    for nodes in ([node, node], [helper.make_node("Identity", ["X"], ["W"])]):
        with pytest.raises(FileError, match="two values are named"):
            found(saved(tmp_path / "x.onnx", nodes, constants()))


def test_nodes_that_wait_for_each_other_end(tmp_path: Path) -> None:
    nodes = made("W2 = Identity (W3)", "W3 = Identity (W2)", "h = Reshape (h2, s)", "h2 = Reshape (h, s)")
    nodes.append(helper.make_node("RNN", ["X", "W2", "R", "", "", "h"], ["Y"]))
    (layer,) = found(saved(tmp_path / "x.onnx", nodes, constants())).layers
    assert "W is 'W3'" in str(layer.refusal)


def test_names_of_one_kind_of_node_are_made_different(tmp_path: Path) -> None:
    nodes = [helper.make_node("RNN", ["X", "W", "R"], [f"Y{number}"], "same") for number in range(3)]
    paths = [layer.path for layer in found(saved(tmp_path / "x.onnx", nodes, constants())).layers]
    assert len(set(paths)) == 3 and paths[0] == "same"


def field(number: int, data: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """Seven bits a byte."""
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def nested(depth: int) -> bytes:
    """A graph in an attribute of a node in a graph, and so on."""
    data = b""
    for _ in range(depth):
        data = field(1, field(5, field(6, data)))
    return data


BROKEN = {
    "empty": (b"", "without a graph"),
    "text": (b"hello, world, this is no model", "not a whole ONNX model"),
    "no graph": (b"\x08\x08", "without a graph"),
    "a graph that is longer than the file": (b"\x3a\x7f\x0a", "longer"),
    "a length of 2^63": (b"\x3a" + varint(2**63) + b"\0" * 9, "longer"),
    "a number that does not end": (b"\x08" + b"\xff" * 20, "does not end"),
    "a number cut off": (b"\x08\xff", "does not end"),
    "a group": (b"\x0b\x0c", "wire type 3"),
    "two graphs": (field(7, b"") * 2, "twice"),
    "a graph that is a number": (b"\x38\x01", "wire type 0"),
    "many levels": (field(7, nested(1000)), "levels"),
    "too many nodes": (field(7, b"\x0a\0" * 10**6), "parts"),
    "names without end": (field(7, field(1, field(3, b"x" * 2**20)) * 20), "bytes of names"),
    "half a float": (field(7, field(1, field(5, field(7, b"\0" * 5)))), "longer"),
    "too many recurrent nodes": (field(7, field(1, field(4, b"RNN")) * 5000), "recurrent nodes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_model_ends_in_one_clear_error(name: str, tmp_path: Path) -> None:
    data, words = BROKEN[name]
    (tmp_path / "x.onnx").write_bytes(data)
    start = time.monotonic()
    with pytest.raises(FileError, match=words):
        FILES.find(tmp_path / "x.onnx")
    assert time.monotonic() - start < 10


def test_as_many_parts_as_are_read_fit_into_time_and_memory(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(field(7, b"\x0a\0" * (FIELDS - 2)))
    assert FILES.find(tmp_path / "x.onnx").layers == ()


def test_a_small_layer_in_a_file_of_a_gibibyte_is_found_at_once(tmp_path: Path) -> None:
    size = 2**30
    tensor = TensorProto(name="large", data_type=1, dims=[2**14, 2**14]).SerializeToString() + b"\x4a" + varint(size)
    graph = varint(5 << 3 | 2) + varint(len(tensor) + size) + tensor
    own = field(1, helper.make_node("RNN", ["X", "W", "R"], ["Y"], "small").SerializeToString())
    for name in ("W", "R"):
        own += field(5, onnx.numpy_helper.from_array(constants()[name], name).SerializeToString())
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.write(varint(7 << 3 | 2) + varint(len(graph) + size + len(own)) + graph)
        file.seek(size, 1)
        file.write(own)
    start = time.monotonic()
    decoded(path)
    assert time.monotonic() - start < 1
    (layer,) = FILES.find(path).layers  # within the memory of the child
    assert np.array_equal(StoredWeights(layer.parts)["layers.0.forward.input_weight"], constants()["W"][0])


def test_reading_loads_neither_onnx_nor_onnxruntime(tmp_path: Path, fresh_python: Callable[..., Any]) -> None:
    code = (
        "import sys; from pathlib import Path; from rnnzoo.conformance.onnx_format import FILES; "
        f"print(len(FILES.find(Path({str(foreign(tmp_path))!r})).layers), {{'onnx', 'onnxruntime'}} & set(sys.modules))"
    )
    assert fresh_python(code).stdout.split() == ["1", "set()"]
