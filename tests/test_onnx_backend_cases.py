"""The `RNN` cases that ONNX publishes for its backends, through the import, on every backend of the zoo."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance.bounds import bounds, results
from rnnzoo.conformance.comparison import Comparison
from rnnzoo.conformance.onnx_format import FILES
from rnnzoo.spec import load_backend
from rnnzoo.spec.inputs import checked_inputs
from rnnzoo.spec.parts import StoredWeights

onnx = pytest.importorskip("onnx")

BACKENDS = {"numpy": "numpy", "torch": "torch", "tf": "tensorflow"}  # and their packages
REVERSE = "test_simple_rnn_reverse"


def published() -> list[Any]:
    """ONNX' cases for RNN; one of them draws its weights, which are the same in every run."""
    state = np.random.get_state()
    np.random.seed(0)
    importlib.import_module("onnx.backend.test.case.node.rnn")
    np.random.set_state(state)
    cases = importlib.import_module("onnx.backend.test.case.node")._NodeTestCases
    return [case for case in cases if case.model.graph.node[0].op_type == "RNN"]


CASES = {case.name: case for case in published()}


def saved(case: Any, folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The case's model with its weights in it (they are inputs in the case), and the inputs that are left."""
    model, (inputs, _) = onnx.ModelProto.FromString(case.model.SerializeToString()), case.data_sets[0]
    given = dict(zip([value.name for value in model.graph.input], inputs, strict=True))
    for value in list(model.graph.input):
        if value.name in ("W", "R", "B"):
            model.graph.initializer.append(onnx.numpy_helper.from_array(given.pop(value.name), value.name))
            model.graph.input.remove(value)
    onnx.save(model, folder / "case.onnx")
    return folder / "case.onnx", given


def test_these_are_the_cases_that_onnx_has() -> None:
    assert {
        "test_simple_rnn_defaults", "test_simple_rnn_with_initial_bias", "test_rnn_seq_length",
        "test_simple_rnn_batchwise", "test_simple_rnn_bidirectional", REVERSE,
    } <= set(CASES)  # fmt: skip


@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("name", [name for name in CASES if name != REVERSE])
def test_a_published_case_gives_the_published_numbers(name: str, backend_name: str, tmp_path: Path) -> None:
    pytest.importorskip(BACKENDS[backend_name])
    path, given = saved(CASES[name], tmp_path)
    (layer,) = FILES.find(path).layers
    node = CASES[name].model.graph.node[0]
    backend, by_batch = load_backend(backend_name), any(one.name == "layout" and one.i for one in node.attribute)
    assert layer.spec is not None
    model = backend.build(layer.spec)
    backend.from_spec(model, StoredWeights(layer.parts))
    inputs = given["X"] if by_batch else given["X"].swapaxes(0, 1)
    found = backend.run(model, inputs)
    allowed = bounds(
        results(layer.spec, StoredWeights(layer.parts), checked_inputs(layer.spec, "float32", inputs)), "float32"
    ).allowed
    names = [value.name for value in CASES[name].model.graph.output]
    expected = dict(zip(names, CASES[name].data_sets[0][1], strict=True))
    for output, array in expected.items():
        quantity, of_ours = _in_their_axes(output, by_batch, found.outputs, found.final_state, layer.spec)
        limit = _in_their_axes(output, by_batch, allowed["outputs"], allowed["final_state.h"], layer.spec)[1]
        # Both are results in float32, either of which may be off by as much.
        comparison = Comparison(quantity, array.astype(np.float64), of_ours.astype(np.float64), 2 * limit)
        assert comparison.ratio <= 1 and comparison.decidable, comparison.description()


def _in_their_axes(
    output: str, by_batch: bool, outputs: np.ndarray, final_state: np.ndarray, spec: Any
) -> tuple[str, np.ndarray]:
    """`Y` (T, D, B, H) or (B, T, D, H), or `Y_h` (D, B, H) or (B, D, H), from outputs (B, T, D*H) and final states."""
    if output == "Y_h":
        return "final state", final_state.swapaxes(0, 1) if by_batch else final_state
    split = outputs.reshape(*outputs.shape[:2], spec.num_directions, spec.hidden_size)
    return "outputs", split if by_batch else split.transpose(1, 2, 0, 3)


def test_the_published_case_that_only_reads_backward_is_refused(tmp_path: Path) -> None:
    path, _ = saved(CASES[REVERSE], tmp_path)
    (layer,) = FILES.find(path).layers
    assert layer.spec is None and "direction 'reverse'" in str(layer.refusal)
