"""Where two computations part: the first number that is off, in the order in which a network computes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.encoder_decoder import networks
from ..spec.inputs import Inputs
from ..spec.model import ModelSpec
from . import answers
from .bounds import Bounds, Truth, bounds, results, truth
from .cases import Case
from .comparison import Comparison, compared
from .expected import expected_results
from .pair_cases import AnyCase

Array = NDArray[Any]
Index = tuple[int, ...]


@dataclass(frozen=True)
class Divergence:
    """The first number that is off.

    Attributes:
        tensor: the name of the array that it stands in.
        layer, direction, step, row, unit: where; None where the array has no such axis.
        update, index: of a training run, after which update, from 1, and where in the array.
        expected, got, allowed: its value, what came, and the error that rounding explains.
    """

    tensor: str
    layer: int | None
    direction: str | None
    step: int | None
    row: int | None
    unit: int | None
    expected: float
    got: float
    allowed: float
    update: int | None = None
    index: Index | None = None

    def __str__(self) -> str:
        named: dict[str, Any] = {"update": self.update, "index": list(self.index) if self.index else None}
        named |= {"layer": self.layer, "direction": self.direction, "time step": self.step}
        named |= {"row": self.row, "unit": self.unit}
        places = [f"{name} {value}".removeprefix("direction ") for name, value in named.items() if value is not None]
        numbers = f"expected {self.expected:.9g}, got {self.got:.9g}, allowed error {self.allowed:.3g}"
        return f"first divergence: {', '.join([self.tensor, *places])}: {numbers}"


def first_divergence(backend: Any, case: AnyCase, dtype: str, failed: tuple[Comparison, ...]) -> Divergence | None:
    """The first number that is off: of the lowest layer whose outputs or states are, else of what failed.

    A model is run with its lowest layer alone, then with two, and so on, so that the layer is known in which an
    error begins. Of an encoder with its decoder, only what failed is looked at.
    """
    if isinstance(case, Case) and (off := _in_a_layer(backend, case, dtype)):
        return off
    wrong = [comparison for comparison in failed if not comparison.ratio <= 1]
    return _earliest(networks(case.spec)[-1], sorted(wrong, key=_order), None) if wrong else None


def _in_a_layer(backend: Any, case: Case, dtype: str) -> Divergence | None:
    """The first number that is off in the outputs and states of the lowest layer in which one is."""
    for layers in range(1, case.spec.num_layers + 1):
        part = lower_part(case, layers)
        if backend.supports(part.spec) is None:
            model = backend.build(part.spec, dtype=dtype)
            backend.from_spec(model, {name: array.astype(dtype) for name, array in part.weights.items()})
            found = answers.results(backend, model, part.spec, {"inputs": case.inputs, **part.arguments})
            off = [c for c in compared(found, *_expected(case, part, dtype)) if not c.ratio <= 1]
            if off:
                return _earliest(part.spec, off, layers - 1)
    return None


def _expected(case: Case, part: "Part", dtype: str) -> tuple[dict[str, Truth], Bounds]:
    """Of the results of a case's lower part. What the whole model gives too has the bounds of the check itself.

    Bounds are drawn, so that another evaluation of the same number would come to a slightly different one.
    """
    whole, limits = expected_results(case, dtype)
    if part.spec.num_layers == case.spec.num_layers:
        names = [name for name in whole if name != "scores"]
        return {name: whole[name] for name in names}, limits
    quantities = results(part.spec, part.weights, part.given)
    own, bounds_of_own = truth(quantities), bounds(quantities, dtype)
    states = [name for name in own if name.startswith("final_state.")]
    lower = slice(len(own[states[0]].nearest))
    allowed = {**bounds_of_own.allowed, **{name: limits.allowed[name][lower] for name in states}}
    return own, replace(bounds_of_own, allowed=allowed)


def first_of_run(failed: tuple[Comparison, ...]) -> Divergence | None:
    """Of a training run the first number that is off: after the earliest update, in the order of computation."""
    found = []
    for comparison in failed:
        wrong = np.argwhere(~(comparison.ratios <= 1))
        if len(wrong):
            found.append((int(wrong[0, 0]), _computed(comparison.quantity), tuple(map(int, wrong[0])), comparison))
    if not found:
        return None
    update, _, index, off = min(found, key=lambda each: each[:3])
    expected, got, allowed = (float(array[index]) for array in (off.expected, off.got, off.allowed))
    nowhere = dict.fromkeys(("layer", "direction", "step", "row", "unit"))
    return Divergence(
        off.quantity, **nowhere, expected=expected, got=got, allowed=allowed, update=update + 1, index=index[1:]
    )


def _computed(name: str) -> int:
    """When a quantity of an update is known: states, loss, norm, what the optimizer keeps, weights."""
    parts = ("carried", "loss", "gradient norm")
    weights = ("layers", "head", "embedding", "context")
    kind = name.partition(".")[0]
    return parts.index(kind) if kind in parts else len(parts) + (kind in weights)


@dataclass(frozen=True)
class Part:
    """The lowest layers of a case, without its head: spec, weights, what its arguments mean, and the arguments."""

    spec: ModelSpec
    weights: dict[str, Array]
    given: Inputs
    arguments: dict[str, Any]


def lower_part(case: Case, layers: int) -> Part:
    """So many of the lowest layers of a case."""
    variant = case.spec.variant.removeprefix("stacked_") if layers == 1 else case.spec.variant
    variant = "simple_rnn" if variant == "rnn" else variant
    spec = replace(case.spec, variant=variant, num_layers=layers, head=None, dropout=None)
    states = spec.num_layers * spec.num_directions

    def kept(name: str) -> bool:
        parts = name.split(".")
        return parts[0] != "head" and (parts[0] != "layers" or int(parts[1]) < layers)

    weights = {name: array for name, array in case.weights.items() if kept(name)}
    for name in [name for name in weights if name.startswith("context.")]:
        weights[name] = weights[name][: states * spec.hidden_size]
    given, arguments = case.understood, dict(case.arguments)
    if given.initial_states is not None:
        lower = {name: array[:states] for name, array in given.initial_states.items()}
        given = replace(given, initial_states=lower)
        arguments["initial_state"] = lower if len(lower) > 1 else next(iter(lower.values()))
    return Part(spec, weights, given, arguments)


def _order(comparison: Comparison) -> tuple[int, str]:
    """Losses and norms come first, then gradients as they arrive: head, layers from the top, the rest."""
    name = comparison.quantity
    for rank, beginning in enumerate(("loss", "gradient norm", "scores", "outputs", "final_state", "head", "layers")):
        if name.startswith(beginning):
            number = name.split(".")[1] if beginning == "layers" else "0"
            return (0 if rank < 2 else rank, "" if rank < 2 else f"{10**6 - int(number)}")
    return (10, name)


def _earliest(spec: ModelSpec, off: list[Comparison], layer: int | None) -> Divergence:
    """The earliest number among arrays in the order given; of one array, in the order of computation."""
    candidates = []
    for order, comparison in enumerate(off):
        for index in zip(*np.nonzero(~(comparison.ratios <= 1)), strict=True):
            place = dict(_place(spec, comparison, tuple(map(int, index)), layer))
            together = layer is not None  # outputs and states of one layer: whichever is read first
            together = together or comparison.quantity in ("loss", "gradient norm")  # whichever step is earlier
            candidates.append((0 if together else order, _reading(place, comparison), index, comparison, place))
    _, _, index, comparison, place = min(candidates, key=lambda candidate: candidate[:3])
    numbers = [float(array[index]) for array in (comparison.expected, comparison.got, comparison.allowed)]
    fields = [place.get(name) for name in ("layer", "direction", "step", "row", "unit")]
    return Divergence(comparison.quantity, *fields, *numbers)  # type: ignore[arg-type]


def _place(spec: ModelSpec, comparison: Comparison, index: Index, layer: int | None) -> Iterator[tuple[str, Any]]:
    """What the axes of an array mean, by its name and rank."""
    name, rank = comparison.quantity.partition(" for ")[0], len(index)
    parts = name.split(".")
    if parts[0] == "layers":
        yield from (("layer", int(parts[1])), ("direction", parts[2]), ("unit", index[0] if index else None))
    elif name.startswith(("initial_state", "final_state", "carried")) and rank == 3:
        yield from (("layer", index[0] // spec.num_directions), ("row", index[1]), ("unit", index[2]))
        yield "direction", spec.directions[index[0] % spec.num_directions]
    elif parts[0] in ("outputs", "inputs", "scores") and rank >= 2:
        yield from (("row", index[0]), ("unit", index[-1]), ("layer", layer))
        if rank == 3:
            yield "step", index[1]
        if parts[0] == "outputs" and (spec.num_directions == 1 or spec.merge == "concat"):
            yield "direction", spec.directions[index[2] // spec.hidden_size]
    elif rank == 1 and name in ("loss", "gradient norm"):
        yield "step", index[0]


def _reading(place: dict[str, Any], comparison: Comparison) -> float:
    """How many steps are read before a number is known; gradients arrive from the last step to the first."""
    if place.get("step") is None:
        return float("inf")
    if place.get("direction") == "backward" or comparison.quantity.startswith("inputs"):
        return float(comparison.expected.shape[1] - 1 - place["step"])
    return float(place["step"])
