"""An optimizer that moves from one framework to another, and why some cannot (SPEC.md, 12.17)."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .data import Described
from .errors import InputError, UnsupportedError, listed
from .optimizers import Optimizer
from .training import Clip

Array = NDArray[Any]
FREE = ("learning_rate", "initial_accumulator")  # neither changes what is kept: the one is set, the other is past


class OptimizerState(NamedTuple):
    """An optimizer without a framework.

    Attributes:
        rule: its equations and numbers; the learning rate is the one in force.
        state: what a trainer's `load_state` takes (SPEC.md, 12.12): `step`, and by canonical name what is kept.
        clip: what a Keras optimizer does to the gradients first; torch's do nothing.
    """

    rule: Optimizer
    state: dict[str, Array]
    clip: Clip | None = None


def check_same_rule(moved: Optimizer, target: Optimizer, where: str) -> None:
    """Raises UnsupportedError where the target computes something else with the state than its source did."""
    if type(moved) is not type(target):
        raise UnsupportedError(f"{where}: expected an optimizer of kind {moved.KIND!r}, got {target.KIND!r}")
    place, other = getattr(moved, "epsilon_place", None), getattr(target, "epsilon_place", None)
    if place != other:
        raise UnsupportedError(
            f"{where}: {moved.KIND} with its epsilon {place!r} cannot go on with it {other!r}: no epsilon of one form "
            "gives the other's updates; take this package's optimizer, which has both (epsilon_place)"
        )
    for name, value, got in _differences(moved, target):
        words = f"the state is of {value!r}, the optimizer has {got!r}"
        raise UnsupportedError(f"{where}: {moved.KIND} {name}: {words}; build it with the first")


def _differences(moved: Described, target: Described) -> list[tuple[str, Any, Any]]:
    decays = getattr(moved, "weight_decay", 0.0) or getattr(target, "weight_decay", 0.0)
    names = [field.name for field in fields(moved) if field.name not in FREE and (field.name != "decoupled" or decays)]
    pairs = [(name, getattr(moved, name), getattr(target, name)) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def check_same_clip(moved: Clip | None, target: Clip | None, where: str) -> None:
    """Raises UnsupportedError where gradients would be clipped otherwise."""
    if moved != target:
        raise UnsupportedError(
            f"{where}: the gradients were clipped by {moved}, the optimizer clips by {target}; build it so, or clip "
            "them yourself and move the state with _replace(clip=None)"
        )


def checked_slots(moved: OptimizerState, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> dict[str, Array]:
    """What is kept for the weights of these shapes, by `{slot}.{name}`, and `step`.

    Raises:
        UnsupportedError: the biases are other ones.
        InputError: the state is not of these weights.
    """
    names = {name.partition(".")[2] for name in moved.state if name.partition(".")[0] in moved.rule.slots}
    _check_biases(names or set(shapes), set(shapes))
    wanted = {f"{slot}.{name}": shape for slot in moved.rule.slots for name, shape in shapes.items()}
    found = {name: array for name, array in moved.state.items() if not name.startswith("carried.")}
    if set(found) != {"step", *wanted}:
        missing, surplus = {"step", *wanted} - set(found), set(found) - {"step", *wanted}
        raise InputError(
            f"optimizer state: missing {listed(missing)}; surplus {listed(surplus)}; it is of another model"
        )
    for name, shape in wanted.items():
        array = found[name]
        if array.shape != shape or array.dtype != np.dtype(dtype):
            raise InputError(
                f"optimizer state {name}: expected {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}"
            )
    return found


def _check_biases(source: set[str], target: set[str]) -> None:
    kinds = [any(name.endswith(".recurrent_bias") for name in names) for names in (source, target)]
    if kinds[0] != kinds[1]:
        words = ("two biases", "one bias") if kinds[0] else ("one bias", "two biases")
        raise UnsupportedError(
            f"optimizer state: of {words[0]} in each layer cannot go on with {words[1]}: each of two is updated, so "
            f"that their sum moves twice as far; take a model with bias={'double' if kinds[0] else 'single'!r}"
        )
