"""The table of cases is complete, and its numbers are fit to tell right from wrong."""

import itertools
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.conformance.case_table import SIZES, bare_cases, cases, other_bare_cases, quick_cases, topologies
from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.checks import CHECKS
from rnnzoo.conformance.items import items
from rnnzoo.conformance.numbers import float64
from rnnzoo.conformance.oracle import Oracle
from rnnzoo.conformance.pair_cases import PairCase
from rnnzoo.conformance.random_cases import random_items
from rnnzoo.conformance.training import TrainingCase, quick_training_cases, training_cases
from rnnzoo.spec.definitions import BIASES, load_variant
from rnnzoo.spec.errors import SpecError
from rnnzoo.spec.model import NONLINEARITIES


def _factors(case: Case) -> dict[str, str]:
    spec = case.spec
    values = {name: getattr(spec, name) for name in ("variant", "nonlinearity", "bias", "merge")}
    values |= {"sequences": case.sequences, "initial": case.initial, "sizes": (case.rows, case.steps)}
    return {name: str(value) for name, value in values.items()}


def test_the_product_of_variant_nonlinearity_bias_and_merge_is_complete():
    found = {(c.spec.variant, c.spec.nonlinearity, c.spec.bias, c.spec.merge) for c in cases() if c.spec.is_core}
    assert found == {tuple(row.values()) for row in topologies()} and len(found) == 2 * 4 * 3 * 1 + 2 * 4 * 3 * 4


def test_one_forward_layer_alone_meets_every_nonlinearity_and_bias_from_zeros_and_from_a_state():
    """What an implementation that supports no more than that is held against: several rows, no lengths, no parts."""
    alone = [c for c in cases() if c.spec.is_core and c.spec.variant == "simple_rnn" and c.sequences == "full"]
    found = {(c.spec.nonlinearity, c.spec.bias, c.initial) for c in alone if c.rows > 1 and c.steps > 1}
    assert found == set(itertools.product(NONLINEARITIES, BIASES, (False, True)))


def test_one_forward_layer_alone_comes_in_two_sizes_that_have_no_number_in_common():
    for first, second in zip(bare_cases()[::2], other_bare_cases(), strict=True):
        assert (first.spec.nonlinearity, first.spec.bias) == (second.spec.nonlinearity, second.spec.bias)
        one, other = ((c.rows, c.steps, c.spec.input_size, c.spec.hidden_size) for c in (first, second))
        assert all(a != b for a, b in zip(one, other, strict=True)) and other[0] == 1
        assert one[2] < one[3] and other[2] > other[3]


def test_every_pair_of_values_of_two_factors_occurs():
    core = [_factors(case) for case in cases() if case.spec.is_core]
    values = defaultdict(set)
    for row in core:
        for name, value in row.items():
            values[name].add(value)
    seen = {(a, row[a], b, row[b]) for row in core for a, b in itertools.combinations(values, 2)}
    for a, b in itertools.combinations(values, 2):
        for x, y in itertools.product(values[a], values[b]):
            impossible = a == "variant" and b == "merge" and len(load_variant(x).directions) == 1 and y != "concat"
            assert impossible or (a, x, b, y) in seen, f"no case with {a} {x} and {b} {y}"


def test_quick_cases_touch_every_value():
    all_values, quick_values = (
        {(n, v) for c in table for n, v in _factors(c).items()} for table in (cases(), quick_cases())
    )
    assert quick_values == all_values and len(quick_cases()) < len(cases()) / 4


def test_quick_training_cases_touch_every_loss_reduction_optimizer_and_clip():
    def values(table):
        rules = [case.training for case in table]
        kinds = {rule.loss.KIND for rule in rules} | {rule.loss.reduction for rule in rules}
        return kinds | {rule.optimizer.KIND for rule in rules} | {rule.clip and rule.clip.KIND for rule in rules}

    assert values(quick_training_cases()) == values(training_cases())


def test_parts_meet_every_variant_nonlinearity_bias_and_merge():
    around = [case for case in cases() if not case.spec.is_core]
    for part in ("embedding", "head", "context"):
        specs = [case.spec for case in around if getattr(case.spec, part)]
        for name in ("variant", "nonlinearity", "bias", "merge"):
            assert {getattr(spec, name) for spec in specs} == {row[name] for row in topologies()}, (part, name)


def test_names_are_unique():
    names = [item.name for item in items()]
    assert len(names) == len(set(names))


def test_every_check_has_items():
    for quick in (False, True):
        assert {item.check for item in items(quick=quick)} == set(CHECKS) - ({"trajectory"} if quick else set())


def test_sizes_are_all_different_but_where_one_row_or_step_is_the_point():
    for sizes in SIZES:
        assert len({sizes.B, sizes.T, sizes.I, sizes.H}) == 4, sizes


def test_weights_are_distinct_and_not_zero():
    for case in cases():
        numbers = np.concatenate([array.ravel() for array in case.weights.values()])
        assert np.unique(numbers).size == numbers.size and np.all(numbers != 0), case.name


def test_no_relu_meets_an_exact_zero():
    for case in cases():
        if case.spec.nonlinearity == "relu" and case.spec.merge != "multiply":  # a product of zeros is zero
            ops = Exact(float64())
            weights = {name: ops.constant(array) for name, array in case.weights.items()}
            Oracle(case.spec, weights, ops).run(case.understood)
            assert ops.undecided == 0, case.name


@pytest.mark.parametrize(("sequences", "least"), [("lengths", 1), ("nan_padding", 1), ("empty_row", 0)])
def test_lengths_are_uneven_and_a_row_is_empty_only_where_that_is_the_point(sequences: str, least: int):
    some = [case for case in cases() if case.sequences == sequences and case.steps > 1 and case.rows > 1]
    rows = [case.understood.mask.sum(axis=1) for case in some]
    assert rows and all(min(lengths) == least and len(set(lengths)) > 1 for lengths in rows)


def test_random_numbers_are_dealt_to_models_pairs_and_runs_that_drop():
    found = [one.case for one in random_items(10)]
    assert {type(case) for case in found} == {Case, PairCase, TrainingCase}
    assert all(case.spec.dropout for case in found if isinstance(case, TrainingCase))


def test_no_batch_whose_steps_are_all_valid_has_nan_in_it():
    case = next(case for case in training_cases() if case.case.sequences == "nan_padding")
    with pytest.raises(SpecError, match="expected no NaN with accumulates"):
        replace(case, accumulates=True)
