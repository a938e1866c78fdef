"""A case: a model and what it is run on. All numbers are drawn by the spec, so that it is the same everywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from ..spec.data import Described, check_choice, check_flag, check_number, check_size
from ..spec.errors import SpecError
from ..spec.inputs import Cotangents, Inputs
from ..spec.model import ModelSpec
from ..spec.parameters import Weights, initial_weights
from .arithmetic import Exact
from .numbers import float64
from .oracle import Oracle

Array = NDArray[Any]
DTYPES = ("float64", "float32")
TOLD = {  # by which array a run is told of sequences
    "lengths": "lengths", "empty_row": "lengths", "nan_padding": "lengths", "left_padding": "mask", "holes": "mask",
}  # fmt: skip
SEQUENCES = ("full", "lengths", "empty_row", "nan_padding", "left_padding", "holes")


@dataclass(frozen=True)
class Case(Described):
    """A model and what it is run on.

    Attributes:
        rows, steps: of the batch.
        sequences: `full`; `lengths`, uneven; `empty_row`, the same with a row that has no valid step; `nan_padding`,
            lengths with NaN (or tokens out of range) in the padding; `left_padding`; `holes`.
        initial: whether an initial state is given.
        scale: of the inputs.
        bits: of the significand of every number: 53 shows a detour through float32, which is exact up to 24.
        seed: of the numbers.
    """

    spec: ModelSpec
    rows: int
    steps: int
    sequences: str = "full"
    initial: bool = False
    scale: float = 1.0
    bits: int = 24
    seed: int = 1

    KIND: ClassVar[str] = "case"
    PARTS: ClassVar[Mapping[str, type[Described]]] = {"spec": ModelSpec}

    def __post_init__(self) -> None:
        check_size("case rows", self.rows)
        check_size("case steps", self.steps)
        check_choice("case sequences", self.sequences, SEQUENCES)
        check_flag("case initial", self.initial)
        check_number("case scale", self.scale, 0.0, np.inf)
        check_size("case bits", self.bits)
        if self.bits > 53:
            raise SpecError(f"case bits: expected at most 53, as float64 has, got {self.bits}")
        check_size("case seed", self.seed, minimum=0)

    @property
    def name(self) -> str:
        """A name that tells the case apart from all others."""
        spec = self.spec
        parts = [spec.variant, spec.nonlinearity, spec.bias, *([spec.merge] if spec.num_directions == 2 else [])]
        parts += ["embedding"] if spec.embedding else []
        parts += [f"head_{spec.head.reads}{'' if spec.head.bias else '_plain'}"] if spec.head else []
        parts += ["context"] if spec.context else []
        parts += ["_".join(["dropout", *(f"{rate:g}" for rate in spec.dropout.rates)])] if spec.dropout else []
        parts += [f"times_{self.scale:g}"] if self.scale != 1.0 else []
        parts += [f"seed_{self.seed}"] if self.seed != 1 else []
        parts += [self.sequences, "state" if self.initial else "zero"]
        parts += ["x".join(map(str, (self.rows, self.steps, spec.input_size, spec.hidden_size, spec.num_layers)))]
        return "-".join(parts)

    @property
    def clause(self) -> str:
        """The clause of SPEC.md that the case is there for: of all that it needs, the one that is least common."""
        spec = self.spec
        return next(clause for clause, needed in (
            ("12.14 dropout", spec.dropout is not None),
            ("6.1 masks", self.sequences in ("left_padding", "holes")),
            ("6.3 empty rows", self.sequences == "empty_row"),
            ("6.4 padding", self.sequences == "nan_padding"),
            ("6.2 lengths", self.sequences == "lengths"),
            ("8 parts", not spec.is_core),
            ("7.2 initial state", self.initial),
            ("5 merging", spec.num_directions == 2 and spec.merge != "concat"),
            ("4.2 stacking", spec.num_layers > 1),
            ("4.1 direction", spec.num_directions == 2),
            ("3 step", True),
        ) if needed)  # fmt: skip

    @cached_property
    def weights(self) -> Weights:
        """float64 weights: every number random, biases too.

        They are drawn again while any sum that goes into a relu is exactly 0, as the derivative is then a
        matter of definition (small layers without bias die easily); but not forever, as some always do.
        """
        for seed in range(self.seed, self.seed + 20):
            found = {name: self._rounded(array) for name, array in initial_weights(self.spec, seed, "float64").items()}
            ops = Exact(float64())
            Oracle(self.spec, {name: ops.constant(array) for name, array in found.items()}, ops).run(self.understood)
            if not ops.undecided:
                break
        return found

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of a backend's `run`, apart from `inputs`."""
        mask = self._mask()
        found: dict[str, Any] = {}
        if self.sequences in ("lengths", "empty_row", "nan_padding"):
            found["lengths"] = mask.sum(axis=1)
        elif self.sequences != "full":
            found["mask"] = mask
        if self.initial:
            shape = self.spec.state_shape(self.rows)
            states = {name: self.numbers(f"initial {name}", *shape) for name in self.spec.cell_definition.states}
            found["initial_state"] = states if len(states) > 1 else next(iter(states.values()))
        elif self.spec.context:
            found["context"] = self.numbers("context", self.rows, self.spec.context.size)
        return found

    @cached_property
    def inputs(self) -> Array:
        """(B, T, I), or tokens (B, T); the padding holds what a model must not see."""
        return self._filled(np.nan if self.sequences == "nan_padding" else 3.0)

    def with_other_padding(self) -> dict[str, Any]:
        """All arguments of `run`, with something else in the padding."""
        return {"inputs": self._filled(-5.0), **self.arguments}

    def with_bits(self, bits: int) -> "Case":
        """The same case with numbers of so many bits."""
        return replace(self, bits=bits)

    @property
    def kinds_of_sequences(self) -> tuple[str, ...]:
        """All that it has."""
        return (self.sequences,)

    @property
    def takes(self) -> set[str]:
        """The optional arrays of its run."""
        told = TOLD.get(self.sequences)
        return {*([told] if told else []), *(["initial_state"] if self.initial else [])}

    @cached_property
    def understood(self) -> Inputs:
        """What the arguments mean, for the oracle: put together here, and not by the code that backends use."""
        states = self.arguments.get("initial_state")
        if states is not None and not isinstance(states, dict):
            states = {self.spec.cell_definition.states[0]: states}
        mask = None if self.sequences == "full" else self._mask()
        return Inputs(self.inputs, mask, states, self.arguments.get("context"))

    @cached_property
    def cotangents(self) -> Cotangents:
        """Random cotangents of everything that a run gives."""
        B, T, head = self.rows, self.steps, self.spec.head
        states = {
            name: self.numbers(f"cotangent {name}", *self.spec.state_shape(B))
            for name in self.spec.cell_definition.states
        }
        shape = () if head is None else (B, T, head.size) if head.reads == "steps" else (B, head.size)
        outputs = self.numbers("cotangent outputs", B, T, self.spec.output_size)
        return Cotangents(outputs, states, self.numbers("cotangent scores", *shape) if head else None)

    def numbers(self, name: str, *shape: int) -> Array:
        """Random numbers in [-1, 1)."""
        return self._rounded(2.0 * draws.uniform(self.seed, f"{self.name} {name}", int(np.prod(shape))) - 1.0).reshape(
            shape
        )

    def _rounded(self, array: Array) -> Array:
        mantissa, exponent = np.frexp(array)
        found: Array = np.ldexp(np.rint(np.ldexp(mantissa, self.bits)), exponent - self.bits)
        return found

    def _mask(self) -> NDArray[np.bool_]:
        """(B, T); lengths T, 1, T-1, 2 in turn, the second 0 where a row is to be empty."""
        B, T = self.rows, self.steps
        short = 0 if self.sequences == "empty_row" else 1
        lengths = np.minimum([T, short, max(T - 1, 1), 2] if B > 1 else [max(T - 1, short)], T)[:B]
        mask: NDArray[np.bool_] = np.arange(T) < lengths[:, None]
        if self.sequences == "left_padding":
            return mask[:, ::-1]
        if self.sequences == "holes":
            mask = (np.arange(T) + np.arange(B)[:, None]) % 3 != 1
        return mask

    def _filled(self, padding: float) -> Array:
        B, T = self.rows, self.steps
        valid = np.ones((B, T), bool) if self.sequences == "full" else self._mask()
        if self.spec.embedding:
            V = self.spec.embedding.vocabulary_size
            tokens = (draws.uniform(self.seed, f"{self.name} tokens", B * T) * V).astype(np.int64).reshape(B, T)
            return np.where(valid, tokens, V + 10**9 if np.isnan(padding) else int(padding) % V)
        return np.where(valid[:, :, None], self.scale * self.numbers("inputs", B, T, self.spec.input_size), padding)
