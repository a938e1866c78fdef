"""What is expected on a case: the truth and its bound, computed once for all backends."""

from functools import lru_cache
from typing import Any

from ..spec.inputs import Cotangents
from .bounds import Bounds, Quantities, Truth, bounds, everything, gradients, truth
from .cases import Case
from .training import quantities as training_quantities


def cotangents_alone(case: Case) -> dict[str, Cotangents]:
    """The cotangents of each kind of result, without the others."""
    every = case.cotangents
    found = {
        "outputs": Cotangents(every.outputs, None, None),
        "final states": Cotangents(None, every.final_states, None),
    }
    return found | ({"scores": Cotangents(None, None, every.scores)} if case.spec.head else {})


def expected_results(case: Case, dtype: str) -> tuple[dict[str, Truth], Bounds]:
    """Of everything that a run gives."""
    found, limits = truth_and_bounds("everything", case, dtype)
    results = {name: value for name, value in found.items() if not name.startswith("gradient.")}
    return results, limits


def expected_gradients(case: Case, dtype: str) -> tuple[dict[str, Truth], Bounds]:
    """Of all gradients together, by the names that a backend gives them."""
    found, limits = truth_and_bounds("everything", case, dtype)
    slopes = {name: value for name, value in found.items() if name.startswith("gradient.")}
    return {name.removeprefix("gradient."): value for name, value in slopes.items()}, limits.part("gradient.")


@lru_cache(maxsize=8)  # the checks of a case follow each other, and all backends take an item in turn
def truth_and_bounds(what: str, case: Any, dtype: str) -> tuple[dict[str, Truth], Bounds]:
    """Of `training`, of `everything` that a run and its gradients give, or of the gradients for one cotangent."""
    quantities = _quantities(what, case)
    return truth(quantities), bounds(quantities, dtype)


def _quantities(what: str, case: Any) -> Quantities:
    if what == "training":
        return lambda ops: training_quantities(case, ops)
    if what == "everything":
        return everything(case.spec, case.weights, case.understood, case.cotangents)
    return gradients(case.spec, case.weights, case.understood, cotangents_alone(case)[what])
