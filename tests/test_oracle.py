"""The oracle: right at any precision, differentiated correctly, and alone."""

import ast
from dataclasses import replace
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest

from rnnzoo.conformance import bounds, numbers
from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.conformance.case_table import quick_cases
from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.items import items
from rnnzoo.conformance.oracle import DIGITS, Oracle
from rnnzoo.conformance.training import TrainingCase, quick_training_cases
from rnnzoo.conformance.training import quantities as training_quantities
from rnnzoo.spec import Head, ModelSpec
from rnnzoo.spec import definitions as spec_definitions
from rnnzoo.spec.inputs import Inputs

ROOT = Path(__file__).parent.parent


def _run(case: Case, kind: numbers.Numbers | None = None):
    return bounds.truth(bounds.results(case.spec, case.weights, case.understood), kind)


@pytest.mark.parametrize("case", quick_cases()[::4], ids=lambda case: case.name)
def test_decimals_and_mpmath_agree_to_twice_the_digits_of_float64(case: Case):
    """Not always in the nearest float64: a number that lies half-way between two may be rounded either way."""
    exact, other = _run(case), _run(case, numbers.mpmath(60))
    for name, wanted in exact.items():
        difference = (other[name].nearest - wanted.nearest) + (other[name].rest - wanted.rest)
        assert np.all(np.abs(difference) <= np.spacing(np.spacing(np.abs(wanted.nearest)))), name


@pytest.mark.parametrize("case", quick_cases()[::4], ids=lambda case: case.name)
def test_float64_is_within_its_bound_of_the_decimals(case: Case):
    quantities = bounds.results(case.spec, case.weights, case.understood)
    allowed = bounds.bounds(quantities, "float64").allowed
    for name, wanted in _run(case).items():
        double = _run(case, numbers.float64())[name].nearest
        assert np.all(np.abs(double - wanted.nearest - wanted.rest) <= allowed[name]), name


def test_one_step_by_hand():
    spec = ModelSpec("simple_rnn", 2, 2, nonlinearity="identity", bias="double")
    weights = {
        "layers.0.forward.input_weight": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "layers.0.forward.recurrent_weight": np.array([[5.0, 6.0], [7.0, 8.0]]),
        "layers.0.forward.input_bias": np.array([1.0, 2.0]),
        "layers.0.forward.recurrent_bias": np.array([3.0, 4.0]),
    }
    given = Inputs(np.array([[[1.0, -2.0]]]), None, {"h": np.array([[[3.0, 4.0]]])}, None)
    found = bounds.truth(bounds.results(spec, weights, given))
    a = [1 - 2 * 2 + 3 * 5 + 4 * 6 + 1 + 3, 3 - 2 * 4 + 3 * 7 + 4 * 8 + 2 + 4]
    assert found["outputs"].nearest.tolist() == [[a]]


def _value(case: Case, weights: dict[str, np.ndarray], given: Inputs) -> Decimal:
    """The sum of all results times their cotangents."""
    ops = Exact(numbers.decimal(DIGITS))
    found = Oracle(case.spec, {name: array[None] for name, array in weights.items()}, ops).run(given).arrays()
    cotangents = {"outputs": case.cotangents.outputs, "scores": case.cotangents.scores}
    cotangents |= {f"final_state.{name}": array for name, array in case.cotangents.final_states.items()}
    given_to = {name: array for name, array in cotangents.items() if array is not None}
    return sum((found[name][0] * ops.numbers.array(array)).sum() for name, array in given_to.items())


@pytest.mark.parametrize("case", quick_cases()[::2], ids=lambda case: case.name)
def test_gradients_equal_difference_quotients(case: Case):
    """A step of 10^-20 in one number, at 40 digits: the quotient is right to about 20, more than float64 can hold."""
    h = Decimal(10) ** -20
    expected = bounds.truth(bounds.gradients(case.spec, case.weights, case.understood, case.cotangents))
    with localcontext(prec=DIGITS):
        decimals = numbers.decimal(DIGITS)
        weights = {name: decimals.array(array) for name, array in case.weights.items()}
        base = _value(case, weights, case.understood)
        for name, array in weights.items():
            for index in list(np.ndindex(array.shape))[:: max(1, array.size // 3)]:
                kept = array[index]
                array[index] = kept + h
                quotient = float((_value(case, weights, case.understood) - base) / h)
                array[index] = kept
                wanted = expected[name].nearest[index]
                assert abs(quotient - wanted) <= np.spacing(abs(wanted)) + 10.0**-18, (name, index)


def test_the_gradient_of_the_initial_state_equals_a_difference_quotient():
    spec = ModelSpec("stacked_bi_rnn", 2, 3, 2, merge="multiply", head=Head(2))
    case = Case(spec, 3, 4, "empty_row", True)
    expected = bounds.truth(bounds.gradients(spec, case.weights, case.understood, case.cotangents))["initial_state"]
    with localcontext(prec=DIGITS):
        decimals = numbers.decimal(DIGITS)
        weights = {name: decimals.array(array) for name, array in case.weights.items()}
        base = _value(case, weights, case.understood)
        for index in np.ndindex(expected.nearest.shape):
            states = decimals.array(case.understood.initial_states["h"])
            states[index] += Decimal(10) ** -20
            moved = Inputs(case.understood.inputs, case.understood.mask, {"h": states}, None)
            quotient = float((_value(case, weights, moved) - base) * Decimal(10) ** 20)
            wanted = expected.nearest[index]
            assert abs(quotient - wanted) <= np.spacing(abs(wanted)) + 10.0**-18, index


@pytest.mark.parametrize("case", quick_training_cases()[::3], ids=lambda case: case.name)
def test_the_gradient_norm_of_a_loss_equals_difference_quotients(case: TrainingCase):
    expected = bounds.truth(lambda ops: training_quantities(case, ops))
    decimals = numbers.decimal(DIGITS)

    def loss(weights: dict[str, np.ndarray]) -> Decimal:
        inner = replace(case.case)
        inner.__dict__["weights"] = weights  # where the cached property looks first
        return training_quantities(replace(case, case=inner), Exact(decimals))["loss"][0, 0]

    with localcontext(prec=DIGITS):
        weights = {name: decimals.array(array) for name, array in case.case.weights.items()}
        base, square = loss(weights), Decimal(0)
        for array in weights.values():
            for index in np.ndindex(array.shape):
                kept = array[index]
                array[index] = kept + Decimal(10) ** -20
                square += ((loss(weights) - base) * Decimal(10) ** 20) ** 2
                array[index] = kept
        quotient, wanted = float(square.sqrt()), expected["gradient norm"].nearest[0]
    assert abs(quotient - wanted) <= np.spacing(wanted)


def test_derivatives_in_the_yaml_are_those_of_the_functions():
    cell = spec_definitions.load_cell("rnn")
    assert set(cell.derivatives) == {"tanh", "sigmoid"}
    for nonlinearity in cell.derivatives:
        spec = ModelSpec("simple_rnn", 1, 1, nonlinearity=nonlinearity, bias="none")
        case = Case(spec, 1, 2, "full", True)
        test_gradients_equal_difference_quotients(case)


def test_the_oracle_follows_the_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    case = next(case for case in quick_cases() if case.spec.nonlinearity == "tanh")
    before = _run(case)
    for kind in ("cells", "variants"):
        (tmp_path / kind).mkdir()
        for path in (spec_definitions.FOLDER / kind).glob("*.yaml"):
            text = path.read_text().replace("h: f(p.h + q.h)", "h: f(p.h - q.h)")
            (tmp_path / kind / path.name).write_text(text)
    monkeypatch.setattr(spec_definitions, "FOLDER", tmp_path)
    spec_definitions.load_cell.cache_clear()
    try:
        after = _run(case)
    finally:
        spec_definitions.load_cell.cache_clear()
    assert not np.array_equal(before["outputs"].nearest, after["outputs"].nearest)


def test_the_oracle_shares_no_code_with_a_backend():
    for name in (
        "oracle.py",
        "tape.py",
        "arithmetic.py",
        "totals.py",
        "summation.py",
        "perturbed.py",
        "hashing.py",
        "numbers.py",
        "bounds.py",
        "cases.py",
        "training.py",
    ):
        tree = ast.parse((ROOT / "conformance" / name).read_text())
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [module for module in modules if "impl" in module or module.endswith("backend")], name
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not {found for found in names if found.startswith("checked_")}, name  # what backends read inputs with


def test_an_item_is_the_same_after_a_trip_through_json():
    for item in items(quick=True):
        assert type(item).from_data(item.to_data(complete=False)) == item
