"""What is measured: a layer or a stack of them on random data of one shape."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..spec.model import ModelSpec
from ..spec.parameters import Weights, initial_weights

Array = Any
SEED = 0


@dataclass(frozen=True)
class Problem:
    """B rows, T steps, I inputs, H units, L layers, D directions; float32, tanh, one bias.

    Attributes:
        short: the lengths are spread evenly from 1 to T, so that their mean is T/2; else all are T.
        device: of torch's engines.
    """

    B: int
    T: int
    I: int  # noqa: E741
    H: int
    L: int = 1
    D: int = 1
    short: bool = False
    device: str = "cpu"

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        variant = ("" if self.L == 1 else "stacked_") + ("rnn" if self.D == 1 else "bi_rnn")
        return ModelSpec("simple_rnn" if variant == "rnn" else variant, self.I, self.H, self.L)

    @property
    def text(self) -> str:
        """Such as (32, 100, 64, 128), with what is not 1."""
        more = [f"L={self.L}"] * (self.L > 1) + [f"D={self.D}"] * (self.D > 1) + ["mean length T/2"] * self.short
        return ", ".join([f"({self.B}, {self.T}, {self.I}, {self.H})", *more])

    def changed(self, **sizes: Any) -> "Problem":
        """The same with other sizes."""
        return replace(self, **sizes)

    def weights(self) -> Weights:
        """The initial values of the spec."""
        return initial_weights(self.spec, SEED)

    @property
    def outputs_nbytes(self) -> int:
        """Bytes of the outputs of all layers and directions."""
        return 4 * self.B * self.T * self.H * self.L * self.D

    def inputs(self) -> Array:
        """(B, T, I)."""
        return _normal(self.B, self.T, self.I)

    def d_outputs(self) -> Array:
        """The outputs' cotangents, (B, T, F)."""
        return _normal(self.B, self.T, self.spec.output_size)

    def lengths(self) -> Array | None:
        """(B,), or None where all are T; in no order."""
        if not self.short:
            return None
        return np.random.default_rng(SEED).permutation(np.linspace(1, self.T, self.B).round().astype(np.int64))


def _normal(*shape: int) -> Array:
    return np.random.default_rng(SEED).standard_normal(shape, np.float32)


SHAPES = (Problem(1, 100, 65, 128), Problem(32, 100, 64, 128), Problem(64, 50, 128, 512), Problem(32, 500, 64, 256))
