"""Initial values, named by the spec and drawn by the spec (SPEC.md, 10)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from . import draws
from .data import Described, check_choice, check_number
from .draws import Floats
from .errors import SpecError

_IDENTITY_REFUSED = ("input_weight", "embedding", "head", "context")
DISTRIBUTIONS = ("zeros", "uniform", "scaled_uniform", "glorot_uniform", "normal", "orthogonal", "identity")


@dataclass(frozen=True)
class Draw(Described):
    """How one kind of parameter is drawn.

    `zeros`; `uniform` in [-scale, scale); `scaled_uniform` in +-scale/sqrt(n), n the hidden size in the
    layers and the number of columns elsewhere (torch's rule); `glorot_uniform` in
    +-scale sqrt(6/(rows + columns)); `normal` with deviation scale; `orthogonal`, scale times a matrix
    with orthonormal rows or columns; `identity`, scale times the identity for each gate (IRNN,
    arXiv 1504.00941).
    """

    distribution: str
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_choice("initializer distribution", self.distribution, DISTRIBUTIONS)
        check_number("initializer scale", self.scale, 0.0, np.inf, open_low=True)
        object.__setattr__(self, "scale", float(self.scale))


@dataclass(frozen=True)
class Initializer(Described):
    """A draw for each kind of parameter. `bias` stands for every bias."""

    input_weight: Draw
    recurrent_weight: Draw
    bias: Draw
    embedding: Draw
    head: Draw
    context: Draw

    PARTS: ClassVar[Mapping[str, type[Described]]] = dict.fromkeys(
        ("input_weight", "recurrent_weight", "bias", "embedding", "head", "context"), Draw
    )

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                object.__setattr__(self, field.name, Draw(value))
            elif not isinstance(value, Draw):
                raise SpecError(f"initializer {field.name}: expected Draw(...) or a distribution, got {value!r}")
        if wrong := [name for name in _IDENTITY_REFUSED if getattr(self, name).distribution == "identity"]:
            raise SpecError(f"initializer {wrong[0]}: 'identity' is for the recurrent_weight, whose gates are square")
        check_choice("initializer bias", self.bias.distribution, ("zeros", "uniform", "scaled_uniform", "normal"))


INITIALIZERS: Mapping[str, Initializer] = MappingProxyType({
    "torch": Initializer(
        *(Draw("scaled_uniform"),) * 3,
        embedding=Draw("normal"), head=Draw("scaled_uniform"), context=Draw("scaled_uniform"),
    ),
    "keras": Initializer(
        Draw("glorot_uniform"), Draw("orthogonal"), Draw("zeros"),
        embedding=Draw("uniform", 0.05), head=Draw("glorot_uniform"), context=Draw("glorot_uniform"),
    ),
    "irnn": Initializer(
        Draw("normal", 0.001), Draw("identity"), Draw("zeros"), *(Draw("normal", 0.001),) * 3,
    ),
    "min_char_rnn": Initializer(*(Draw("normal", 0.01),) * 2, Draw("zeros"), *(Draw("normal", 0.01),) * 3),
    "zeros": Initializer(*(Draw("zeros"),) * 6),
})  # fmt: skip


def draw(rule: Draw, seed: int, name: str, shape: tuple[int, ...], width: int) -> Floats:
    """The initial values of the parameter `name`, float64; `width` is the n of `scaled_uniform`."""
    return _RULES[rule.distribution](rule.scale, seed, name, shape, width)


def _zeros(scale: float, seed: int, name: str, shape: tuple[int, ...], width: int) -> Floats:
    return np.zeros(shape)


def _uniform(scale: float, seed: int, name: str, shape: tuple[int, ...], width: int) -> Floats:
    return (scale * (2.0 * draws.uniform(seed, name, int(np.prod(shape))) - 1.0)).reshape(shape)


def _scaled_uniform(scale: float, seed: int, name: str, shape: tuple[int, ...], width: int) -> Floats:
    return _uniform(scale / float(np.sqrt(np.float64(width))), seed, name, shape, width)


def _glorot_uniform(scale: float, seed: int, name: str, shape: tuple[int, ...], width: int) -> Floats:
    return _uniform(scale * float(np.sqrt(np.float64(6.0) / sum(shape))), seed, name, shape, width)


def _normal(scale: float, seed: int, name: str, shape: tuple[int, ...], width: int) -> Floats:
    return (scale * draws.normal(seed, name, int(np.prod(shape)))).reshape(shape)


def _identity(scale: float, seed: int, name: str, shape: tuple[int, ...], width: int) -> Floats:
    rows, columns = shape
    ones: Floats = (np.arange(rows)[:, None] % columns == np.arange(columns)).astype(np.float64)
    return scale * ones


def _orthogonal(scale: float, seed: int, name: str, shape: tuple[int, ...], width: int) -> Floats:
    """Householder reflections of normal vectors of falling length (Stewart 1980): uniform over the rotations."""
    long, short = max(shape), min(shape)
    normals = draws.normal(seed, name, long * short - short * (short - 1) // 2)
    starts = np.cumsum([0, *range(long, long - short, -1)])
    matrix = np.eye(long, short)
    for k in range(short - 1, -1, -1):
        v = normals[starts[k] : starts[k + 1]].copy()
        norm = np.sqrt(draws.sequential_sum(v * v))
        sign = 1.0 if v[0] >= 0.0 else -1.0
        v[0] += sign * norm
        block = matrix[k:, k:]
        along = draws.sequential_sum(v[:, None] * block) * (2.0 / draws.sequential_sum(v * v))
        block -= v[:, None] * along
        matrix[k:, k] *= -sign
    return scale * (matrix if shape[0] == long else matrix.T.copy())


_RULES: dict[str, Callable[[float, int, str, tuple[int, ...], int], Floats]] = {
    "zeros": _zeros,
    "uniform": _uniform,
    "scaled_uniform": _scaled_uniform,
    "glorot_uniform": _glorot_uniform,
    "normal": _normal,
    "orthogonal": _orthogonal,
    "identity": _identity,
}
