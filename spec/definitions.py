"""Variants and cells, read from their YAML files (SPEC.md, 2 and 3).

Adding a cell is adding `cells/<name>.yaml`; it is found by its name.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from . import expressions
from .errors import SpecError, listed

FOLDER = Path(__file__).parent
BIASES = ("none", "single", "double")
PRIMITIVES = ("exp", "tanh", "max")  # the functions that an evaluator of expressions has to bring


@dataclass(frozen=True)
class Variant:
    """A topology: the directions of a layer, and how many layers there may be."""

    name: str
    description: str
    directions: tuple[str, ...]
    minimum_layers: int
    maximum_layers: int | None


@dataclass(frozen=True)
class Cell:
    """What happens in one step.

    Attributes:
        states: names of the states a step carries to the next; the first is the one that a single
            array (`initial_state`, `final_state`) and a context vector stand for.
        output: the state that is the output of the step.
        gates: names of the blocks of H rows in the weights, top to bottom.
        parameters: symbolic shape of each parameter, such as `("G*H", "I")`.
        projections: for each bias, the expressions of `p` (of the input) and `q` (of the state).
        step: assignments in order; a state's name stands for its new value, on the right for its old one.
        nonlinearities: expressions in `a`.
        derivatives: of some of them, expressions in their value `y`, where implementations form them from it.
    """

    name: str
    description: str
    states: tuple[str, ...]
    output: str
    gates: tuple[str, ...]
    parameters: Mapping[str, tuple[str, ...]]
    projections: Mapping[str, Mapping[str, ast.expr]]
    step: Mapping[str, ast.expr]
    nonlinearities: Mapping[str, ast.expr]
    derivatives: Mapping[str, ast.expr]

    def __post_init__(self) -> None:
        known = {*self.states, *(f"{side}.{gate}" for side in "pq" for gate in self.gates)}
        for name, tree in self.step.items():
            self._check_names(f"step {name}", tree, known)
            if name not in self.states:
                known.add(name)
        for bias, sides in self.projections.items():
            for side, tree in sides.items():
                self._check_names(f"projection {bias}.{side}", tree, {*self.parameters, *self.states, "x"})
        for name, tree in self.nonlinearities.items():
            self._check_names(f"nonlinearity {name}", tree, {"a"})
        for name, tree in self.derivatives.items():
            self._check_names(f"derivative of {name}", tree, {"y"})
        if missing := set(self.states) - set(self.step):
            raise SpecError(f"cell {self.name}: the step gives no new value for {listed(missing)}")
        if self.output not in self.states:
            raise SpecError(f"cell {self.name}: output {self.output!r} is not one of its states {listed(self.states)}")

    def _check_names(self, where: str, tree: ast.expr, known: set[str]) -> None:
        functions = {*PRIMITIVES, *self.nonlinearities, "f"}
        unknown = [name for name in expressions.names(tree) if name not in known]
        unknown += [name for name in expressions.functions(tree) if name not in functions]
        if unknown:
            raise SpecError(
                f"cell {self.name}, {where}: unknown {listed(unknown)}; known are {listed(known | functions)}"
            )

    def parameters_for(self, bias: str) -> dict[str, tuple[str, ...]]:
        """Names and symbolic shapes of the parameters that a model with this bias has, in canonical order."""
        used = {name for tree in self.projections[bias].values() for name in expressions.names(tree)}
        return {name: shape for name, shape in self.parameters.items() if name in used}


@cache
def variant_names() -> list[str]:
    """The known variants, sorted."""
    return _names("variants")


def variant_of(num_layers: int, num_directions: int) -> str:
    """The variant with so many layers and directions."""
    for name in variant_names():
        variant = load_variant(name)
        most = variant.maximum_layers or num_layers
        if len(variant.directions) == num_directions and variant.minimum_layers <= num_layers <= most:
            return name
    raise SpecError(f"no variant has {num_layers} layers and {num_directions} directions")


def cell_names() -> list[str]:
    """The known cells, sorted."""
    return _names("cells")


@cache
def load_variant(name: str) -> Variant:
    """The variant of that name.

    Raises:
        SpecError: there is none; the message lists the known ones.
    """
    data = _read("variants", name)
    layers = data["layers"]
    return Variant(name, data["description"], tuple(data["directions"]), layers["minimum"], layers["maximum"])


@cache
def load_cell(name: str) -> Cell:
    """The cell of that name.

    Raises:
        SpecError: there is none, or its equations read something that does not exist.
    """
    data = _read("cells", name)
    return Cell(
        name=name,
        description=data["description"],
        states=tuple(data["states"]),
        output=data["output"],
        gates=tuple(data["gates"]),
        parameters={key: tuple(shape) for key, shape in data["parameters"].items()},
        projections={bias: _parsed(data["projections"][bias]) for bias in BIASES},
        step=_parsed(data["step"]),
        nonlinearities=_parsed(data["nonlinearities"]),
        derivatives=_parsed(data["derivatives"]),
    )


def _parsed(texts: Mapping[str, str]) -> dict[str, ast.expr]:
    return {name: expressions.parse(str(text)) for name, text in texts.items()}


def _names(kind: str) -> list[str]:
    return sorted(path.stem for path in (FOLDER / kind).glob("*.yaml"))


def _read(kind: str, name: str) -> dict[str, Any]:
    if name not in _names(kind):
        raise SpecError(f"unknown {kind[:-1]} {name!r}: expected one of {listed(_names(kind))}")
    data: dict[str, Any] = yaml.safe_load((FOLDER / kind / f"{name}.yaml").read_text(encoding="utf-8"))
    return data
