"""The bounds: sound, sharp, honest about what cannot be decided."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance import numbers, precision, summation
from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.conformance.bounds import bounds, everything, gradients, results, truth
from rnnzoo.conformance.case_table import quick_cases
from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.descent import descent
from rnnzoo.conformance.items import item
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.perturbed import Perturbed
from rnnzoo.conformance.precision import PRECISIONS, allowed_error, factor, precision_of
from rnnzoo.conformance.random_cases import random_items
from rnnzoo.conformance.updates import Update
from rnnzoo.numpy_impl.backend import NumpyBackend
from rnnzoo.spec import Head, ModelSpec, Result, load_backend
from rnnzoo.spec.errors import InputError
from rnnzoo.spec.initializers import INITIALIZERS, Draw
from rnnzoo.spec.inputs import Cotangents, Inputs
from rnnzoo.spec.optimizers import SGD
from rnnzoo.spec.training import Batch, MeanSquaredError, TrainingSpec

MANY = 20_000  # samples
FOUR_ERRORS = 4 / MANY**0.5  # of the ratio of two spreads, of which each has the standard error 1 / sqrt(2 MANY)


@pytest.mark.parametrize("backend", ["numpy", "torch", "tf"])
def test_a_correct_backend_stays_within_the_bounds_of_random_cases(backend: str):
    _check_random(backend, 25)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["numpy", "torch", "tf"])
def test_a_correct_backend_stays_within_the_bounds_of_a_thousand_random_cases(backend: str):
    _check_random(backend, 1000)


def _check_random(backend: str, count: int) -> None:
    outcomes = [run(load_backend(backend), one) for one in random_items(count)]
    wrong = [f"{o.item.name}: {o.message}" for o in outcomes if o.verdict not in ("passed", "ill-conditioned")]
    assert not wrong, wrong[:3]
    ratios = np.concatenate([c.ratios[c.allowed > 0] for o in outcomes for c in o.comparisons])
    print(f"{backend}: {len(ratios)} numbers, error/bound: median {np.median(ratios):.4f}, largest {ratios.max():.3f}")
    assert np.median(ratios) >= 0.02
    assert sum(o.verdict == "passed" for o in outcomes) >= 0.95 * len(outcomes)


def _emulated(case: Case, dtype: str) -> dict[str, np.ndarray]:
    """The outputs of a simple tanh network whose every result is rounded to a dtype of 16 bits."""
    round_to = _bfloat16 if dtype == "bfloat16" else lambda a: a.astype(np.float16).astype(np.float32)
    weights = {name.rpartition(".")[2]: array.astype(np.float32) for name, array in case.weights.items()}
    h = np.zeros((case.rows, case.spec.hidden_size), np.float32)
    outputs = []
    for x in np.moveaxis(case.inputs.astype(np.float32), 1, 0):
        p = round_to(round_to(x @ weights["input_weight"].T) + weights["bias"])
        h = round_to(np.tanh(round_to(p + round_to(h @ weights["recurrent_weight"].T))))
        outputs.append(h)
    return {"outputs": np.stack(outputs, axis=1), "final_state.h": h[None]}


def _bfloat16(a: np.ndarray) -> np.ndarray:
    """The nearest number with 8 bits, ties away from even being of no matter here."""
    mantissa, exponent = np.frexp(a)
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_storage_in_sixteen_bits_stays_within_its_bounds(dtype: str):
    for seed in range(1, 21):
        case = Case(ModelSpec("simple_rnn", 3, 5), 4, 12, bits=8, seed=seed)
        wanted = results(case.spec, case.weights, case.understood)
        allowed, expected = bounds(wanted, dtype).allowed, truth(wanted)
        for name, got in _emulated(case, dtype).items():
            assert np.all(np.abs(got - expected[name].nearest) <= allowed[name]), (seed, name)
            assert np.any(np.abs(got - expected[name].nearest) > bounds(wanted, "float32").allowed[name])


def _chaotic(steps: int) -> Case:
    initializer = replace(INITIALIZERS["torch"], recurrent_weight=Draw("orthogonal", 2.5))
    return Case(ModelSpec("simple_rnn", 3, 16, initializer=initializer), 2, steps)


def test_a_chaotic_case_is_reported_as_ill_conditioned_with_its_gain():
    outcome = run(load_backend("numpy"), item("results", _chaotic(300), "float32"))
    assert outcome.verdict == "ill-conditioned"
    assert "outputs (" in outcome.message and max(c.gain for c in outcome.comparisons) > 1e5
    short = run(load_backend("numpy"), item("results", _chaotic(3), "float32"))
    assert short.verdict == "passed" and max(c.gain for c in short.comparisons) < 100


class _Off(NumpyBackend):
    """Outputs that are off by a thousandth of the largest."""

    def run(self, *args: Any, **kwargs: Any) -> Result:
        result = super().run(*args, **kwargs)
        return replace(result, outputs=result.outputs + 1e-3 * np.abs(result.outputs).max())


def test_a_wrong_result_fails_in_a_case_of_large_gain_too():
    """Where the bound is large, it still is one."""
    one = item("results", _chaotic(40), "float64")
    right = run(NumpyBackend(), one)
    assert right.verdict == "passed" and max(c.gain for c in right.comparisons) > 1e4
    assert run(_Off(), one).verdict == "failed"


def test_chaos_gives_no_verdict_in_float64_either():
    """Errors made larger, to be seen in float64 numbers, would have saturated here, and scaled back been too small."""
    assert run(NumpyBackend(), item("results", _chaotic(250), "float64")).verdict == "ill-conditioned"


def test_a_relu_within_its_error_in_float64_is_as_open_as_in_float32():
    spec = ModelSpec("simple_rnn", 2, 2, nonlinearity="relu", bias="none")
    case = Case(spec, 1, 1, bits=53)
    case.__dict__["weights"] = {
        "layers.0.forward.input_weight": np.array([[1.0, -1.0 + 2.0**-53], [0.5, 0.25]]),
        "layers.0.forward.recurrent_weight": np.zeros((2, 2)),
    }
    case.__dict__["inputs"] = np.ones((1, 1, 2))
    wanted = gradients(case.spec, case.weights, case.understood, case.cotangents)
    slope = np.abs(truth(wanted)["layers.0.forward.input_weight"].nearest[0])
    assert np.all(bounds(wanted, "float64").allowed["layers.0.forward.input_weight"][0] > slope)


def test_the_value_of_a_relu_within_its_error_errs_as_its_argument_does():
    """The sum is a few roundoffs below 0, so that the truth is 0; a correct implementation may find it above."""

    def sums(ops: Exact) -> dict[str, np.ndarray]:
        a = ops.add(ops.constant([1.0]), ops.constant([-1.0 - 3 * 2.0**-24]))
        product = ops.add(ops.multiply(ops.constant([1.0]), ops.constant([3.0])), ops.constant([-3.0 - 2.0**-21]))
        return {"value": ops.maximum(product, ops.constant([0.0]))[0], "argument": product, "exact": a}

    found = bounds(sums, "float32").allowed
    assert found["value"][0] == found["argument"][0] > 0


def test_a_relu_within_its_error_widens_the_gradients_that_depend_on_it_alone():
    """Unit 0's sum is one roundoff of its terms: in float32 nobody can tell its sign, in float64 everybody can."""
    spec = ModelSpec("simple_rnn", 2, 2, nonlinearity="relu", bias="none")
    case = Case(spec, 1, 1)
    case.__dict__["weights"] = {
        "layers.0.forward.input_weight": np.array([[1.0, -1.0 + 2.0**-24], [0.5, 0.25]]),
        "layers.0.forward.recurrent_weight": np.zeros((2, 2)),
    }
    case.__dict__["inputs"] = np.ones((1, 1, 2))
    wanted = gradients(spec, case.weights, case.understood, case.cotangents)
    narrow, wide = bounds(wanted, "float64"), bounds(wanted, "float32")
    assert (narrow.undecided, wide.undecided) == (0, 1)
    name = "layers.0.forward.input_weight"
    slope = np.abs(truth(wanted)[name].nearest[0])
    assert np.all(wide.allowed[name][0] > slope) and np.all(narrow.allowed[name][0] < 1e-9 * slope)
    assert np.all(wide.allowed[name][1] < 1e-5)


def test_the_relative_bound_of_a_single_product_is_a_few_roundoffs():
    for dtype, kind in PRECISIONS.items():
        found = bounds(lambda ops: {"product": ops.multiply(ops.constant([3.0]), ops.constant([0.7]))}, dtype)
        assert 1 <= found.allowed["product"][0] / (2.1 * kind.roundoff) <= factor(), dtype


def test_bounds_grow_with_the_square_root_of_the_terms_of_a_sum():
    """The sum itself is 100 times larger; so in the following."""
    few, many = np.linspace(0.5, 1, 10), np.linspace(0.5, 1, 1000)
    assert abs(_spread_of_sum(many) / (100 * _spread_of_sum(few)) / (999 / 9) ** 0.5 - 1) < FOUR_ERRORS


def test_bounds_grow_with_the_number_of_like_terms_of_a_sum_in_any_order():
    for terms in (np.full(10_000, 0.7), np.tile([0.7, 0.3], 5_000)):
        assert abs(_spread_of_sum(terms) / (100 * _spread_of_sum(terms[:100])) / 100 - 1) < FOUR_ERRORS


def test_numbers_that_are_alike_need_not_err_alike():
    """Of two units with the same weights and results, one may be computed in another order."""
    bits = np.float32(0.1), np.float32(0.7)

    def difference(ops: Exact) -> dict[str, np.ndarray]:
        products = ops.multiply(ops.constant([bits[0]] * 2), ops.constant([bits[1]] * 2))
        return {"difference": products[:, 0] - products[:, 1]}

    assert bounds(difference, "float32").allowed["difference"] > bits[0] * bits[1] * 2.0**-24


@pytest.mark.parametrize(("rate", "change"), [(1e-4, 0.0), (1e-6, 1e-5), (1e-5, 1e-5)])
def test_updates_with_a_gradient_that_hardly_changes_repeat_their_errors(rate: float, change: float):
    """What is lost of a step beside its weight is the same, though the step is not the same to its last digit."""
    slopes = (0.7 * (1 - change) ** np.arange(1000)).astype(np.float32)
    for start in np.linspace(1, 1.9, 10, dtype=np.float32):

        def weights(ops: Exact, start: np.float32 = start) -> dict[str, np.ndarray]:
            update = Update(SGD(rate), ops, {"b": np.array([float(start)])})
            for slope in slopes:
                update({"b": ops.constant([float(slope)])}, rate)
            return update.weights

        got = start
        for slope in slopes:
            got = got - np.float32(rate) * slope
        exact = truth(weights, numbers.float64())["b"].nearest[0]
        assert abs(got - exact) <= bounds(weights, "float32").allowed["b"][0]


def test_what_nothing_is_added_to_makes_no_error():
    def weights(ops: Exact) -> dict[str, np.ndarray]:
        update = Update(SGD(0.1), ops, {"table": np.array([[1.0], [2.0]])})
        update({"table": ops.constant([[0.0], [0.7]])}, 0.1)
        return update.weights

    assert [bound > 0 for bound in bounds(weights, "float32").allowed["table"].ravel()] == [False, True]


def test_terms_that_are_lost_beside_larger_ones_are_alike():
    """10,000 terms below half a unit in the last place of the sum before them: all of each is lost, in a loop."""
    large, small = np.float32(10), np.float32(1e-5) * np.linspace(0.5, 1.5, 10_000, dtype=np.float32)
    terms = np.concatenate([np.full(100, large), small])
    error = abs(float(np.cumsum(terms)[-1]) - float(terms.astype(np.float64).sum()))
    values = terms.astype(np.float64)
    wanted = {
        "sum": lambda ops: ops.sum(ops.constant(values[None]), 2)[:, 0],
        "product": lambda ops: ops.product(ops.constant(values[None]), ops.constant(np.ones((len(values), 1))))[:, 0],
    }
    for name, quantity in wanted.items():
        assert error <= bounds(lambda ops, q=quantity: {"sum": q(ops)}, "float32").allowed["sum"][0], name


def test_an_accumulator_may_take_all_batches_of_an_update():
    spec = ModelSpec("simple_rnn", 1, 1, nonlinearity="identity", bias="none", head=Head(1, reads="final"))
    weights = {"layers.0.forward.input_weight": 1.0, "layers.0.forward.recurrent_weight": 0.0, "head.weight": 0.0}
    weights = {name: np.full((1, 1), value) for name, value in weights.items()} | {"head.bias": np.zeros(1)}
    nothing, targets = np.zeros((500, 1, 1)), np.full((100, 500, 1), 0.35, np.float32)  # errors repeat
    update = [(Batch(nothing, each.astype(np.float64)), Inputs(nothing, None, None, None)) for each in targets]

    def wanted(ops: Exact) -> dict[str, np.ndarray]:
        (after,) = descent(spec, TrainingSpec(MeanSquaredError("sum"), SGD(1.0)), weights, [update], ops)
        return {"bias": after["head.bias"][:, 0], "loss": after["loss"]}

    allowed, all_rows = bounds(wanted, "float32").allowed, targets.ravel()
    for name, terms in (("bias", 2 * all_rows), ("loss", all_rows * all_rows)):
        error = abs(float(np.cumsum(terms)[-1]) - float(terms.astype(np.float64).sum()))
        assert error <= allowed[name], name


@pytest.mark.parametrize("distinct", [1, 2, 5, 500])
def test_the_like_terms_of_a_product_are_counted_in_any_order(distinct: int):
    """The estimate is the mean of 64 squares, of which each has the variance 8 N^2 at most."""
    rng, n = np.random.default_rng(distinct), 1000
    a, b = (rng.permutation(np.resize(rng.uniform(0.1, 1, distinct), n)) for _ in range(2))
    order = rng.permutation(n)
    pairs = dict.fromkeys(zip(a, b, strict=True), 0)
    for pair in zip(a, b, strict=True):
        pairs[pair] += 1
    found = summation.products(a[None, order], b[order, None], 2.0**-24)
    wanted = sum(number**2 for number in pairs.values())
    assert abs(found.errors - wanted).item() <= 2 * wanted * (8 / 64) ** 0.5, (found.errors, wanted)


def test_squares_are_alike_where_the_numbers_are():
    numbers_twice = np.repeat(np.random.default_rng(0).uniform(0.1, 1, 500), 2)
    found = summation.products(numbers_twice[None], numbers_twice[:, None], 2.0**-24)
    assert abs(found.errors - 2000).item() <= 2 * 2000 * (8 / 64) ** 0.5


def test_terms_that_are_zero_make_no_error():
    some, rest = np.zeros((1, 100)), np.full((100, 1), 0.3)
    some[0, :3] = 0.1, 0.2, 0.4
    assert summation.products(some, rest, 2.0**-24).errors == 3
    assert summation.terms(some.T * rest, 2.0**-24).errors == 3


def test_an_accumulator_may_take_all_rows_of_all_steps():
    """A loop over both with constant terms errs by more than a sum of rows and then one of steps are allowed to."""
    rows, steps, slope = 500, 100, np.float32(0.7)
    spec = ModelSpec("simple_rnn", 1, 1, nonlinearity="identity", bias="single")
    weights = {"input_weight": np.full((1, 1), 0.5), "recurrent_weight": np.zeros((1, 1)), "bias": np.zeros(1)}
    weights = {f"layers.0.forward.{name}": array for name, array in weights.items()}
    given = Inputs(np.ones((rows, steps, 1)), None, None, None)
    wanted = gradients(spec, weights, given, Cotangents(np.full((rows, steps, 1), float(slope)), None, None))
    exact, allowed = rows * steps * float(slope), bounds(wanted, "float32").allowed
    error = abs(np.cumsum(np.full(rows * steps, slope))[-1] - exact)
    assert error > factor() * 2.0**-24 / 3**0.5 * (rows + steps) * exact
    assert error <= allowed["layers.0.forward.bias"].item() and error <= allowed["layers.0.forward.input_weight"].item()


@pytest.mark.parametrize(
    ("nonlinearity", "gain", "hidden_size", "steps", "period"),
    [
        ("identity", 0.99, 1, 1500, 1),  # at rest, states repeat and so do their errors
        ("identity", 0.999, 1, 1500, 1),  # far from rest, the projection repeats, and what is lost of it in the sum
        ("relu", 0.9, 64, 100, 1),  # all units compute the same
        ("relu", 0.99, 1, 1000, 2),
        ("tanh", 0.99, 2, 1000, 1),
    ],
)
def test_errors_that_a_constant_input_repeats_are_allowed_for(
    nonlinearity: str, gain: float, hidden_size: int, steps: int, period: int
):
    """One operation after the other in float32; all units alike, so that one number stands for each vector."""
    one = np.float32(1)
    w, r, b = (np.float32(value) for value in (0.1, gain / hidden_size, 0.07 * (1 - gain)))
    x = np.where(np.arange(steps) % period, 0, np.float32(2.3 * (1 - gain))).astype(np.float32)

    def all_units(term: np.float32) -> np.float32:
        return np.cumsum(np.full(hidden_size, term))[-1]

    states = [np.float32(0)]
    for at_step in x:
        sum_of_all = (w * at_step + b) + all_units(r * states[-1])
        states.append(np.tanh(sum_of_all) if nonlinearity == "tanh" else sum_of_all)  # positive, as relu leaves it
    d, found = np.float32(0), dict.fromkeys(("input_weight", "recurrent_weight", "bias"), np.float32(0))
    for t in reversed(range(steps)):
        y = states[t + 1]
        d = (all_units(d * r) + one) * (one - y * y if nonlinearity == "tanh" else one)
        terms = {"input_weight": d * x[t], "recurrent_weight": d * states[t], "bias": d}
        found = {name: total + terms[name] for name, total in found.items()}

    spec = ModelSpec("simple_rnn", 1, hidden_size, nonlinearity=nonlinearity)
    shapes = {
        "input_weight": (w, (hidden_size, 1)),
        "recurrent_weight": (r, (hidden_size,) * 2),
        "bias": (b, hidden_size),
    }
    weights = {f"layers.0.forward.{name}": np.full(shape, float(value)) for name, (value, shape) in shapes.items()}
    given = Inputs(x.astype(float).reshape(1, steps, 1), None, None, None)
    ones = Cotangents(np.ones((1, steps, hidden_size)), None, None)
    wanted = everything(spec, weights, given, ones)
    exact, allowed = truth(wanted, numbers.float64()), bounds(wanted, "float32").allowed
    got = {"outputs": np.array(states[1:])[None, :, None]} | {
        f"gradient.layers.0.forward.{name}": g for name, g in found.items()
    }
    for name, array in got.items():
        assert np.all(np.abs(array - exact[name].nearest) <= allowed[name]), name


def _spread_of_sum(terms: np.ndarray) -> float:
    """The 2-norm of so many deviations that it is right within 1 %."""
    ops = Perturbed(numbers.float64(), precision_of("float32"), samples=MANY)
    return float(np.hypot(*ops.deviations(ops.sum(ops.constant(terms[None]), 2)))[0, 0])


@pytest.mark.parametrize("order", ["(wx + b) + rh", "(wx + rh) + b", "wx + (rh + b)"])
def test_the_terms_of_a_step_may_be_added_in_any_order(order: str):
    """A bias that comes last is the same smaller number in every sum, and what is lost of it, too."""
    rng, spec = np.random.default_rng(0), ModelSpec("simple_rnn", 1, 1, nonlinearity="identity", bias="single")
    for _ in range(5):
        w, r = (np.float32(value) for value in (rng.uniform(-0.5, 0.5), rng.uniform(0.987, 0.993)))
        b, xs, h, states = np.float32(rng.uniform(0.05, 0.5)), rng.uniform(0, 0.1, 1000).astype(np.float32), 0, []
        for x in xs:
            wx, rh = w * x, r * np.float32(h)
            h = {"(wx + b) + rh": (wx + b) + rh, "(wx + rh) + b": (wx + rh) + b, "wx + (rh + b)": wx + (rh + b)}[order]
            states.append(h)
        weights = {"input_weight": np.array([[w]], float), "recurrent_weight": np.array([[r]], float)}
        weights = {f"layers.0.forward.{name}": a for name, a in {**weights, "bias": np.array([b], float)}.items()}
        wanted = results(spec, weights, Inputs(xs.astype(float).reshape(1, -1, 1), None, None, None))
        errors = np.abs(np.array(states, float) - truth(wanted, numbers.float64())["outputs"].nearest[0, :, 0])
        assert np.all(errors <= bounds(wanted, "float32").allowed["outputs"][0, :, 0])


def test_a_bound_is_decided_by_the_half_of_the_samples_that_spreads():
    both, one = np.array([[1.0], [1.0]]), np.array([[0.2], [1.4]])  # of the same norm together
    samples = precision.SAMPLES
    for norms, wanted in ((both, factor()), (one, 1.4 * factor(samples // 2))):
        assert abs(allowed_error(norms * (samples / 2) ** 0.5).item() / wanted - 1) < 8 * np.finfo(float).eps


def test_samples_in_chunks_give_the_same_bound():
    case = quick_cases()[0]
    wanted = results(case.spec, case.weights, case.understood)
    whole, parts = bounds(wanted, "float32"), bounds(wanted, "float32", chunk=16)
    for name, array in whole.allowed.items():
        ratio = parts.allowed[name][array > 0] / array[array > 0]
        assert np.array_equal(parts.allowed[name] > 0, array > 0) and ratio.min() > 0.6 and ratio.max() < 1.6


def test_float64_bounds_from_scaled_errors_equal_those_from_decimals():
    case = Case(ModelSpec("bi_rnn", 2, 3), 2, 3, "lengths", True)
    wanted = gradients(case.spec, case.weights, case.understood, case.cotangents)
    scaled, exact = bounds(wanted, "float64"), bounds(wanted, "float64", numbers.decimal(40))
    for name, array in exact.allowed.items():
        assert np.array_equal(array > 0, scaled.allowed[name] > 0)
        off = np.abs(scaled.allowed[name] - array)
        assert np.median(off) <= 1e-3 * np.median(array)  # the scale: 2^-53 of 2^-40
        assert np.all(off <= 6 * array / np.sqrt(2 * precision.SAMPLES))  # a result's last bits draw another error


def test_the_factor_is_the_quantile_of_students_distribution():
    mpmath = pytest.importorskip("mpmath")
    for degrees in (8, precision.SAMPLES):
        x = degrees / (degrees + mpmath.mpf(factor(degrees)) ** 2)
        tail = mpmath.betainc(mpmath.mpf(degrees) / 2, 0.5, 0, x, regularized=True)  # both sides
        assert abs(tail * precision.COMPARED / precision.FALSE_ALARM - 1) < 1e-4  # double precision of 1 - p


def test_the_clause_states_the_factor_that_is_used(root: Path):
    text = (root / "spec" / "SPEC.md").read_text(encoding="utf-8")
    exponents = [round(np.log10(number)) for number in (precision.FALSE_ALARM, precision.COMPARED)]
    assert f"c = {factor():.2f} is the quantile" in text and f"at 10^{exponents[0]} / 10^{exponents[1]}: a run" in text
    assert f"evaluated {precision.SAMPLES} times" in text and f"with {precision.SAMPLES} degrees of freedom" in text


def test_errors_are_drawn_with_the_root_mean_square_that_the_clause_states():
    ops = Perturbed(numbers.float64(), precision_of("float32"), samples=MANY)
    product = ops.multiply(ops.constant([1.5]), ops.constant([1.0]))
    rms = float(np.hypot(*ops.deviations(product))[0]) / np.sqrt(ops.samples)
    assert abs(rms / (1.5 * 2.0**-24 / np.sqrt(3)) - 1) < FOUR_ERRORS
    root = ops.function("tanh", ops.constant([0.6]))  # 0.537: its ulp is 2^-24
    assert abs(float(np.hypot(*ops.deviations(root))[0]) / np.sqrt(ops.samples) / (5 / 4 * 2.0**-24) - 1) < FOUR_ERRORS


def test_what_is_exactly_zero_stays_exactly_zero():
    found = bounds(lambda ops: {"zero": ops.multiply(ops.constant([0.0]), ops.constant([3.0]))}, "float32")
    assert found.allowed["zero"].tolist() == [0.0]


def test_what_underflows_may_be_flushed():
    def tiny(ops: Exact) -> dict[str, np.ndarray]:
        return {"tiny": ops.multiply(ops.constant([1e-30]), ops.constant([1e-15]))}

    def smaller(ops: Exact) -> dict[str, np.ndarray]:
        return {"product": ops.product(ops.constant([[1e-165]]), ops.constant([[0.3]]))}

    assert 1e-45 < 2.0**-126 < bounds(tiny, "float32").allowed["tiny"][0]
    assert 1e-182 < bounds(smaller, "float64").allowed["product"].item() < 1e-179
    assert bounds(tiny, "float64").allowed["tiny"][0] < 1e-58


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="float8"):
        bounds(lambda ops: {}, "float8")


def test_no_bound_is_infinite_or_negative_in_the_suite():
    for case in quick_cases():
        found = bounds(results(case.spec, case.weights, case.understood), "float32")
        assert all(np.all(np.isfinite(array)) and np.all(array >= 0) for array in found.allowed.values()), case.name


def test_what_overflows_gives_no_verdict():
    """States of 1e40, which float64 holds and float32 does not."""
    spec = ModelSpec("simple_rnn", 2, 2, nonlinearity="identity")
    backend, case = load_backend("numpy"), Case(spec, 1, 12, scale=1e33)
    growing = {name: array * (1e2 if "recurrent" in name else 1.0) for name, array in case.weights.items()}
    outcomes = {}
    for dtype in ("float64", "float32"):
        one = item("results", case, dtype)
        one.case.__dict__["weights"] = growing
        with np.errstate(all="ignore"):
            outcomes[dtype] = run(backend, one)
    assert outcomes["float64"].verdict == "passed" and outcomes["float32"].verdict == "ill-conditioned"
    assert np.any(~np.isfinite(outcomes["float32"].comparisons[0].got))
