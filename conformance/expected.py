"""What is expected of a case: its truth and bounds, computed once for all backends, in one process or several."""

import contextlib
import hashlib
import os
import pickle
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from ..spec.inputs import Cotangents
from .bounds import Bounds, Quantities, Truth, bounds, everything, gradients, truth
from .pair_cases import AnyCase
from .training import quantities as training_quantities
from .trajectories import quantities as trajectory_quantities

Value = TypeVar("Value")
_folder: Path | None = None


def cotangents_alone(case: AnyCase) -> dict[str, Cotangents]:
    """The cotangents of each kind of result, without the others."""
    every = case.cotangents
    found = {
        "outputs": Cotangents(every.outputs, None, None),
        "final states": Cotangents(None, every.final_states, None),
    }
    return found | ({"scores": Cotangents(None, None, every.scores)} if case.spec.head else {})


def expected_results(case: AnyCase, dtype: str) -> tuple[dict[str, Truth], Bounds]:
    """Of everything that a run gives."""
    found, limits = truth_and_bounds("everything", case, dtype)
    results = {name: value for name, value in found.items() if not name.startswith("gradient.")}
    return results, limits


def expected_gradients(case: AnyCase, dtype: str) -> tuple[dict[str, Truth], Bounds]:
    """Of all gradients together, by the names that a backend gives them."""
    found, limits = truth_and_bounds("everything", case, dtype)
    slopes = {name: value for name, value in found.items() if name.startswith("gradient.")}
    return {name.removeprefix("gradient."): value for name, value in slopes.items()}, limits.part("gradient.")


def share(folder: Path | None) -> None:
    """Leave from now on what is computed in a folder, and take from it what another process has left there."""
    global _folder
    _folder = folder


def truth_and_bounds(what: str, case: Any, dtype: str) -> tuple[dict[str, Truth], Bounds]:
    """Of a `training` or a `trajectory`, of `everything` that a run and its gradients give, or for one cotangent."""
    return _truth(what, case), _bounds(what, case, dtype)


@lru_cache(maxsize=8)  # the checks of a case follow each other, and all backends take an item in turn
def _truth(what: str, case: Any) -> dict[str, Truth]:
    return _shared(("truth", what, case), lambda: truth(_quantities(what, case)))


@lru_cache(maxsize=8)
def _bounds(what: str, case: Any, dtype: str) -> Bounds:
    return _shared(("bounds", what, case, dtype), lambda: bounds(_quantities(what, case), dtype))


def _shared(key: tuple[Any, ...], compute: Callable[[], Value]) -> Value:
    """What another process has left under the key, else the value computed, and left for others."""
    if _folder is None:
        return compute()
    path = _folder / hashlib.sha256(repr(key).encode()).hexdigest()
    if path.exists():
        found: Value = pickle.loads(path.read_bytes())
        return found
    value = compute()
    with contextlib.suppress(OSError):  # a full disk costs the others time, no result
        own = path.with_suffix(f".{os.getpid()}")
        own.write_bytes(pickle.dumps(value))
        own.replace(path)
    return value


def _quantities(what: str, case: Any) -> Quantities:
    if what == "training":
        return lambda ops: training_quantities(case, ops)
    if what == "trajectory":
        return lambda ops: trajectory_quantities(case, ops)
    if what == "everything":
        return everything(case.spec, case.weights, case.understood, case.cotangents)
    return gradients(case.spec, case.weights, case.understood, cotangents_alone(case)[what])
