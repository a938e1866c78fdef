"""What a quantity is, and how far rounding alone can take an implementation from it (SPEC.md, 11).

A quantity is anything that can be written as a function of an arithmetic: results, gradients, losses, updates,
whole training runs. It is computed once in decimals, which is the truth, and once with random errors, whose
spread is the bound. There is no other tolerance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..spec.encoder_decoder import AnySpec
from ..spec.inputs import Cotangents, Inputs
from . import numbers as kinds
from .arithmetic import Exact
from .numbers import Numbers
from .oracle import DIGITS
from .pairs import oracle
from .perturbed import Perturbed
from .precision import SAMPLES, allowed_error, factor, precision_of

Array = NDArray[Any]
Named = dict[str, Array]
Quantities = Callable[[Exact], Named]  # arrays by name, samples first
RESOLVED = 10.0 ** (5 - DIGITS)  # of a number: what is smaller is a rounding error of the decimals
PROPORTIONAL = 2.0**-10  # of the largest number: what is of second order is then smaller by as much again


class Truth(NamedTuple):
    """The exact value of an array: the nearest float64, and the rest."""

    nearest: Array
    rest: Array


@dataclass(frozen=True)
class Bounds:
    """How far each number may be off, by the names of the quantities, and what made it so.

    Attributes:
        allowed: the largest error of each element.
        gains: by how much rounding errors grew: the largest typical deviation of a quantity, in units of the
            roundoff of its largest element.
        undecided: at how many places a relu's argument lies within its own error, so that its derivative may be either.
    """

    allowed: Named
    gains: Mapping[str, float]
    undecided: int

    def part(self, prefix: str) -> "Bounds":
        """The bounds of the quantities whose names begin so, without that beginning."""
        return Bounds(_part(self.allowed, prefix), _part(self.gains, prefix), self.undecided)


def truth(quantities: Quantities, numbers: Numbers | None = None) -> dict[str, Truth]:
    """The quantities in exact arithmetic, or that of the numbers given."""
    kind = numbers or kinds.decimal(DIGITS)
    with kind.precision():
        found = {name: array[0] for name, array in quantities(Exact(kind)).items()}
        return {name: _truth(array, kind) for name, array in found.items()}


def _truth(array: Array, kind: Numbers) -> Truth:
    nearest = _float64(array)
    rest = _float64(array - kind.array(nearest))
    return Truth(nearest, np.where(abs(rest) > RESOLVED * abs(nearest), rest, 0.0))


def bounds(quantities: Quantities, dtype: str, numbers: Numbers | None = None, chunk: int = SAMPLES) -> Bounds:
    """What rounding to a dtype can do to the quantities; of the samples, `chunk` (even) are held at a time.

    Raises:
        InputError: the dtype is unknown.
    """
    kind, precision = numbers or kinds.float64(), precision_of(dtype)
    norms: Named = {}
    with kind.precision(), np.errstate(all="ignore"):
        for stream in range(SAMPLES // chunk):
            ops = Perturbed(kind, precision, chunk, stream)
            found = quantities(ops)
            norms = {name: np.hypot(ops.deviations(array), norms.get(name, 0.0)) for name, array in found.items()}
    sizes = {name: _largest(_float64(array[0])) for name, array in found.items()}
    if ops.scale > 1 and (ops.undecided or _far(norms, sizes, ops.scale)):
        return bounds(quantities, dtype, kinds.decimal(DIGITS))
    allowed = {name: _finite(allowed_error(norm)) for name, norm in norms.items()}
    gains = {
        name: _largest(allowed[name]) / (factor() * precision.roundoff * size) if size else 0.0
        for name, size in sizes.items()
    }
    return Bounds(allowed, gains, ops.undecided)


def results(spec: AnySpec, weights: Mapping[str, Array], given: Inputs) -> Quantities:
    """What a run gives, as a function of the arithmetic: `outputs`, `final_state.{name}`, `scores`."""
    return lambda ops: oracle(spec, _constants(weights, ops), ops, "nothing").run(given).arrays()


def gradients(spec: AnySpec, weights: Mapping[str, Array], given: Inputs, cotangents: Cotangents) -> Quantities:
    """All gradients as a function of the arithmetic, under the names that a backend gives them."""
    return lambda ops: oracle(spec, _constants(weights, ops), ops).run(given).gradients(cotangents)


def everything(spec: AnySpec, weights: Mapping[str, Array], given: Inputs, cotangents: Cotangents) -> Quantities:
    """What a run gives, and as `gradient.{name}` all gradients, from one evaluation."""

    def found(ops: Exact) -> Named:
        run = oracle(spec, _constants(weights, ops), ops).run(given)
        return run.arrays() | {f"gradient.{name}": array for name, array in run.gradients(cotangents).items()}

    return found


def _constants(weights: Mapping[str, Array], ops: Exact) -> Named:
    return {name: ops.constant(array) for name, array in weights.items()}


def _far(norms: Named, sizes: Mapping[str, float], scale: float) -> bool:
    """Whether deviations made larger are so large that they may no longer be proportional to the errors."""
    return any(
        not _largest(norm) * scale <= PROPORTIONAL * sizes[name] * (SAMPLES / 2) ** 0.5 for name, norm in norms.items()
    )


def _finite(array: Array) -> Array:
    """What is no number as an infinite bound."""
    return np.nan_to_num(array, nan=np.inf, posinf=np.inf)


def _part(named: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


def _float64(array: Any) -> Array:
    return np.asarray(array).astype(np.float64)


def _largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))
