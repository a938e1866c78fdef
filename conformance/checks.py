"""What is checked of a backend on a case, each check against the oracle or against the backend itself."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..spec.backend import Result
from ..spec.errors import ConformanceError, RnnZooError, listed
from ..spec.initializers import INITIALIZERS
from ..spec.inputs import Cotangents
from ..spec.parameters import initial_weights
from . import oracle, training
from .bounds import allowed, largest_difference, largest_entry, same_bits
from .cases import DTYPES, Case, cases, quick_cases
from .training import Trace, TrainingCase, quick_training_cases, training_cases

Array = NDArray[Any]


class Comparison(NamedTuple):
    """One array against what it should be: the largest error, and what was allowed."""

    quantity: str
    error: float
    allowed: float


@dataclass(frozen=True)
class Item:
    """One check of one case in one precision; `name` tells it apart from all others."""

    check: str
    case: Any
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.check}-{self.dtype}-{self.case.name}"


@dataclass(frozen=True)
class Check:
    """A row of the table of checks: the clause of SPEC.md, the optional part that it needs, and the code."""

    clause: str
    needs: str | None
    run: Callable[[Any, Any, str], Iterable[Comparison]]


def check_weights(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """Initial values are the spec's, conversion there and back keeps every bit, and a wrong weight changes nothing."""
    state = np.random.get_state(legacy=False)["state"]["key"].copy()
    for initializer, seed in ((case.spec.initializer, 5), (INITIALIZERS["keras"], 2**40 + 7)):
        spec = replace(case.spec, initializer=initializer)
        model = backend.build(spec, seed=seed, dtype=dtype)
        yield from _same_bits("initial", backend.to_spec(model), initial_weights(spec, seed, dtype))
    yield from _same_bits("global random state", {"": np.random.get_state(legacy=False)["state"]["key"]}, {"": state})
    weights = {name: array.astype(dtype) for name, array in case.weights.items()}
    name = next(reversed(weights))
    weights[name].flat[0] = -0.0
    given = {key: array.copy() for key, array in weights.items()}
    backend.from_spec(model, given)
    yield from _same_bits("round trip", backend.to_spec(model), weights)
    for array in (*given.values(), *backend.to_spec(model).values()):
        array[...] = 7  # neither what was given nor what was returned is the model's own memory
    yield from _same_bits("after changes outside", backend.to_spec(model), weights)
    other = "float32" if dtype == "float64" else "float64"
    wrong = {key: array + 1 for key, array in weights.items()}
    _refuses(backend, model, f"without {name}", {key: value for key, value in wrong.items() if key != name})
    _refuses(backend, model, "with a surplus name", {**wrong, "surplus": wrong[name]})
    _refuses(backend, model, "of another shape", {**wrong, name: wrong[name][:-1]})
    _refuses(backend, model, f"of dtype {other}", {**wrong, name: wrong[name].astype(other)})
    yield from _same_bits("after refusals", backend.to_spec(model), weights)


def check_results(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """Shapes, dtypes, outputs, final states and scores."""
    result = _run(backend, _model(backend, case, dtype), case, case.inputs)
    yield from _compared(result.arrays(), _expected_results(case), dtype)


def check_gradients(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """Gradients of every weight, the inputs, the initial state or the context."""
    found = _gradients(backend, _model(backend, case, dtype), case, case.inputs, case.cotangents)
    yield from _compared(found, _expected_gradients(case), dtype)


def check_cotangents(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """A cotangent that is not given counts as zero: the gradients for each alone sum to those for all."""
    model, every = _model(backend, case, dtype), case.cotangents
    alone = [Cotangents(every.outputs, None, None), Cotangents(None, every.final_states, None)]
    alone += [Cotangents(None, None, every.scores)] if case.spec.head else []
    parts = [_gradients(backend, model, case, case.inputs, cotangents) for cotangents in alone]
    total = {name: np.sum([part[name] for part in parts], axis=0, dtype=dtype) for name in parts[0]}
    yield from _compared(total, _expected_gradients(case), dtype)


def check_padding(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """Invalid steps give exactly 0, and what stands in the padding changes no bit of anything."""
    model = _model(backend, case, dtype)
    mask = case.understood.mask
    assert mask is not None
    first, second = case.inputs, case.with_other_padding()
    results = [_run(backend, model, case, inputs).arrays() for inputs in (first, second)]
    gradients = [_gradients(backend, model, case, inputs, case.cotangents) for inputs in (first, second)]
    per_step = ["outputs"] + (["scores"] if case.spec.head and case.spec.head.reads == "steps" else [])
    zeros = {name: results[0][name][~mask] for name in per_step}
    if "inputs" in gradients[0]:
        zeros["gradient of inputs"] = gradients[0]["inputs"][~mask]
    for name, values in zeros.items():
        yield Comparison(f"{name} at invalid steps", largest_difference(values, np.zeros_like(values)), 0.0)
    yield from _same_bits("other padding", results[1], results[0])
    yield from _same_bits("gradients, other padding", gradients[1], gradients[0])


def check_relu_at_zero(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """The derivative of relu at 0 is 0: where every sum is 0, every gradient but the last affine map's is."""
    model = backend.build(case.spec, dtype=dtype)
    backend.from_spec(model, {name: np.zeros_like(array, dtype) for name, array in case.weights.items()})
    cotangents = Cotangents(case.cotangents.outputs, None, None)
    for name, value in _gradients(backend, model, case, case.inputs, cotangents).items():
        yield Comparison(f"gradient of {name}", largest_difference(value, np.zeros_like(value)), 0.0)


def check_training(backend: Any, case: TrainingCase, dtype: str) -> Iterator[Comparison]:
    """Loss and gradient norm of every step, and weights and state after the last; each step by a new trainer.

    A trainer takes over from the one before it by its state, so that the state must be whole.
    """
    model, state, steps = _model(backend, case.case, dtype), None, []
    for batch in case.batches():
        trainer = backend.trainer(model, case.training)
        if state is not None:
            trainer.load_state(state)
        steps.append(trainer.step(batch))
        state = trainer.state()
    expected = _expected_training(case)
    found = {"loss": np.array([s[0] for s in steps]), "gradient norm": np.array([s[1] for s in steps])}
    wanted = {"loss": np.array(expected.losses), "gradient norm": np.array(expected.norms)}
    yield from _compared(found, wanted, dtype, exact_dtype=False)
    yield from _compared(backend.to_spec(model), expected.weights, dtype)
    yield from _compared(state or {}, expected.state, dtype, exact_dtype=False)


CHECKS: Mapping[str, Check] = {
    "weights": Check("9", None, check_weights),
    "results": Check("3 to 8", None, check_results),
    "gradients": Check("11", "gradients", check_gradients),
    "cotangents": Check("11.2", "gradients", check_cotangents),
    "padding": Check("6", "gradients", check_padding),
    "relu_at_zero": Check("3.4", "gradients", check_relu_at_zero),
    "training": Check("12", "trainer", check_training),
}


def items(*, quick: bool = False) -> list[Item]:
    """Every check of every case in both precisions that it applies to."""
    table, runs = (quick_cases(), quick_training_cases()) if quick else (cases(), training_cases())
    # Where directions are multiplied, relu(0) times relu(0) hides what the derivative at 0 is.
    relu = [case for case in cases() if case.spec.nonlinearity == "relu" and case.spec.merge != "multiply"]
    relu = [case for case in relu if case.sequences == "full" and case.spec.is_core]
    found = []
    for dtype in DTYPES:
        for case in table:
            exact = replace(case, long=dtype == "float64")  # 53 bits, to see a detour through float32
            found += [Item("weights", exact, dtype), Item("results", exact, dtype)]
            if case.scale != 1.0:
                continue  # where tanh is saturated, 1 - y^2 has lost its digits: no bound of this kind fits
            found += [Item("gradients", case, dtype)]
            found += [Item("padding", case, dtype)] if case.understood.mask is not None else []
        some = [case for case in table if case.scale == 1.0][:: 3 if quick else 8]
        found += [Item("cotangents", case, dtype) for case in some]
        found += [Item("relu_at_zero", case, dtype) for case in (relu[:2] if quick else relu)]
        found += [Item("training", case, dtype) for case in runs]
    return found


class Outcome(NamedTuple):
    """What came of an item: `passed`, `failed` or `skipped`; the worst comparison; and what there is to say."""

    item: Item
    verdict: str
    worst: Comparison | None
    message: str


def run(backend: Any, item: Item) -> Outcome:
    """Run one item. What a backend does not offer or support is skipped with the reason; an error of any kind fails."""
    try:
        if reason := unsupported(backend, item):
            return Outcome(item, "skipped", None, reason)
        comparisons = list(CHECKS[item.check].run(backend, item.case, item.dtype))
    except ConformanceError as error:
        return Outcome(item, "failed", None, str(error))
    except Exception as error:  # a backend may raise anything: that is a finding, not the end of the suite
        return Outcome(item, "failed", None, f"{type(error).__name__}: {error}")
    if not comparisons:
        return Outcome(item, "failed", None, "the check compared nothing")
    worst = max(comparisons, key=_ratio)
    wrong = [
        f"{c.quantity}: error {c.error:.3g}, allowed {c.allowed:.3g}" for c in comparisons if not c.error <= c.allowed
    ]
    return Outcome(item, "failed" if wrong else "passed", worst, "; ".join(wrong))


def unsupported(backend: Any, item: Item) -> str | None:
    """Why an item does not apply to a backend, or None."""
    needs = CHECKS[item.check].needs
    if needs and not hasattr(backend, needs):
        return f"{backend.name} has no {needs}"
    case: Case = item.case.case if isinstance(item.case, TrainingCase) else item.case
    if case.sequences in ("left_padding", "holes") and not getattr(backend, "masks", True):
        return f"{backend.name} takes lengths, but no mask"
    reason: str | None = backend.supports(case.spec)
    return reason


def _ratio(comparison: Comparison) -> float:
    if comparison.allowed:
        return comparison.error / comparison.allowed
    return 0.0 if comparison.error == 0 else float("inf")


def _model(backend: Any, case: Case, dtype: str) -> Any:
    model = backend.build(case.spec, dtype=dtype)
    backend.from_spec(model, {name: array.astype(dtype) for name, array in case.weights.items()})
    return model


def _run(backend: Any, model: Any, case: Case, inputs: Array) -> Result:
    result: Result = backend.run(model, inputs, **case.arguments)
    return result


def _gradients(backend: Any, model: Any, case: Case, inputs: Array, cotangents: Cotangents) -> dict[str, Array]:
    found: dict[str, Array] = backend.gradients(
        model, inputs, cotangents.outputs, cotangents.final_states, cotangents.scores, **case.arguments
    )
    return found


@cache
def _expected_results(case: Case) -> dict[str, Array]:
    return oracle.run(case.spec, case.weights, case.understood)


@cache
def _expected_gradients(case: Case) -> dict[str, Array]:
    return oracle.gradients(case.spec, case.weights, case.understood, case.cotangents)


@cache
def _expected_training(case: TrainingCase) -> Trace:
    return training.trace(case)


def _compared(
    found: Mapping[str, Array], expected: Mapping[str, Array], dtype: str, *, exact_dtype: bool = True
) -> Iterator[Comparison]:
    _same_names(found, expected)
    for name, wanted in expected.items():
        got = np.asarray(found[name])
        if got.shape != wanted.shape or (exact_dtype and got.dtype != np.dtype(dtype)):
            raise ConformanceError(
                f"{name}: expected {dtype} of shape {wanted.shape}, got {got.dtype} of shape {got.shape}"
            )
        yield Comparison(name, largest_difference(got, wanted), allowed(dtype, largest_entry(wanted)))


def _same_bits(what: str, found: Mapping[str, Array], expected: Mapping[str, Array]) -> Iterator[Comparison]:
    _same_names(found, expected)
    for name, wanted in expected.items():
        got = np.asarray(found[name])
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            raise ConformanceError(
                f"{what}, {name}: expected {wanted.dtype} of shape {wanted.shape}, got {got.dtype} of shape {got.shape}"
            )
        error = 0.0 if same_bits(got, wanted) else largest_difference(got, wanted) or np.finfo(np.float64).tiny
        yield Comparison(f"{what}, {name}", error, 0.0)


def _same_names(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    if set(found) != set(expected):
        missing, surplus = set(expected) - set(found), set(found) - set(expected)
        raise ConformanceError(f"names: missing {listed(missing)}; surplus {listed(surplus)}")


def _refuses(backend: Any, model: Any, what: str, weights: Mapping[str, Array]) -> None:
    try:
        backend.from_spec(model, weights)
    except (RnnZooError, ValueError, KeyError, TypeError):
        return
    raise ConformanceError(f"from_spec: expected an error for weights {what}, got none")
