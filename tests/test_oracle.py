"""The oracle: right at any precision, and alone."""

import ast
from pathlib import Path

import numpy as np
import pytest

from rnnzoo.conformance import numbers, oracle
from rnnzoo.conformance.cases import Case, Sizes, quick_cases
from rnnzoo.spec import Head, ModelSpec
from rnnzoo.spec import definitions as spec_definitions

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("case", quick_cases()[::4], ids=lambda case: case.name)
def test_decimal_mpmath_and_float64_agree(case: Case):
    exact, other, double = (
        oracle.run(case.spec, case.weights, case.understood, kind)
        for kind in (numbers.decimal(40), numbers.mpmath(60), numbers.float64())
    )
    for name, wanted in exact.items():
        assert np.array_equal(other[name], wanted), name
        assert np.abs(double[name] - wanted).max() <= 64 * 2.0**-53 * max(np.abs(wanted).max(), 1.0), name


def test_one_step_by_hand():
    spec = ModelSpec("simple_rnn", 2, 2, bias="double")
    weights = {
        "layers.0.forward.input_weight": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "layers.0.forward.recurrent_weight": np.array([[5.0, 6.0], [7.0, 8.0]]),
        "layers.0.forward.input_bias": np.array([0.1, 0.2]),
        "layers.0.forward.recurrent_bias": np.array([0.3, 0.4]),
    }
    x, h = np.array([0.01, -0.02]), np.array([0.03, 0.04])
    row = {"valid": np.array([True]), "inputs": x[None], "initial_state.h": h[None]}
    found = oracle.Oracle(spec, weights, numbers.float64()).row(row)
    a = [0.01 * 1 - 0.02 * 2 + 0.03 * 5 + 0.04 * 6 + 0.4, 0.01 * 3 - 0.02 * 4 + 0.03 * 7 + 0.04 * 8 + 0.6]
    assert np.abs(found["outputs"][0] - np.tanh(a)).max() < 4 * 2.0**-53


def test_gradients_equal_the_derivative_along_a_line():
    sizes = Sizes(3, 4, 2, 3, 2)
    case = Case(ModelSpec("stacked_bi_rnn", 2, 3, 2, merge="multiply", head=Head(2)), sizes, "lengths", True)
    gradients = oracle.gradients(case.spec, case.weights, case.understood, case.cotangents)
    model = oracle.Oracle(case.spec, case.weights, numbers.decimal(40))
    difference = oracle.Difference(model, case.understood, oracle.contraction(case.cotangents))
    for name, array in case.weights.items():
        direction = case.numbers(f"direction {name}", *array.shape)
        along, wanted = difference.along({name: direction}), float((gradients[name] * direction).sum())
        assert abs(along - wanted) <= 64 * 2.0**-53 * np.abs(gradients[name] * direction).sum(), name


def test_the_oracle_follows_the_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    case = next(case for case in quick_cases() if case.spec.nonlinearity == "tanh")
    before = oracle.run(case.spec, case.weights, case.understood)
    for kind in ("cells", "variants"):
        (tmp_path / kind).mkdir()
        for path in (spec_definitions.FOLDER / kind).glob("*.yaml"):
            text = path.read_text().replace("h: f(p.h + q.h)", "h: f(p.h - q.h)")
            (tmp_path / kind / path.name).write_text(text)
    monkeypatch.setattr(spec_definitions, "FOLDER", tmp_path)
    spec_definitions.load_cell.cache_clear()
    try:
        after = oracle.run(case.spec, case.weights, case.understood)
    finally:
        spec_definitions.load_cell.cache_clear()
    assert not np.array_equal(before["outputs"], after["outputs"])


def test_the_oracle_shares_no_code_with_a_backend():
    for name in ("oracle.py", "numbers.py", "cases.py", "training.py"):
        tree = ast.parse((ROOT / "conformance" / name).read_text())
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [module for module in modules if "impl" in module or module.endswith("backend")], name
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not {found for found in names if found.startswith("checked_")}, name  # what backends read inputs with
