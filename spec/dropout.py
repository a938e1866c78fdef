"""Dropout as a frozen description (SPEC.md, 12.14): what is dropped and how often; and which masks a batch gets."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from .data import Described, check_number

KINDS = ("between_layers", "inputs", "state")  # a kind's place is its word in the hash
STEPWISE = ("between_layers",)  # those with a mask for each time step, not one for all


@dataclass(frozen=True)
class Dropout(Described):
    """Rates p of what an update drops; what is kept is multiplied by 1/(1 - p). A run and its gradients drop nothing.

        between_layers: y_t = m_t * y_t, the merged outputs of every layer but the last; a mask for each step
        inputs:         W_x (m * x_t), of each layer and direction; one mask for all steps of a sequence
        state:          W_h (m * h_{t-1}), of each layer and direction; one mask for all steps of a sequence

    `between_layers` is the `dropout` of `torch.nn.RNN`; `inputs` and `state` are `dropout` and `recurrent_dropout` of
    Keras' layers, the variational dropout of Gal and Ghahramani (arXiv 1512.05287). The state that is carried on is
    whole: a unit is dropped where the recurrent weight reads it.

    Raises:
        SpecError: a rate is not in [0, 1).
    """

    between_layers: float = 0.0
    inputs: float = 0.0
    state: float = 0.0

    def __post_init__(self) -> None:
        for kind in KINDS:
            check_number(f"dropout {kind}", getattr(self, kind), 0.0, 1.0)

    @property
    def rates(self) -> tuple[float, ...]:
        """The rates in the order of the kinds."""
        return tuple(self.rate(kind) for kind in KINDS)

    def rate(self, kind: str) -> float:
        """p of a kind."""
        return float(getattr(self, kind))

    def threshold(self, kind: str) -> int:
        """floor(p 2^32): a unit is kept where its hash is at least this."""
        return int(self.rate(kind) * 2**32)

    def scale(self, kind: str) -> float:
        """1/(1 - p), in double precision: what a kept number is multiplied by."""
        return 1.0 / (1.0 - self.rate(kind))


class Masks(NamedTuple):
    """Which masks a batch gets: equal ones name equal masks, in every backend.

    Attributes:
        seed: from 0 to 2^64 - 1.
        update: from 1, as an optimizer counts; an integer, or a framework's own of no dimension.
        first_row: rows of the update that came in batches before this one.
        first_layer: layers of the encoder, in a decoder; else 0.
        first_direction: 1 where the backward direction of a layer is run by itself; else 0.
    """

    seed: int
    update: Any
    first_row: Any = 0
    first_layer: Any = 0
    first_direction: Any = 0

    def above(self, layers: int) -> "Masks":
        """Those of a decoder whose encoder has so many layers."""
        return self._replace(first_layer=self.first_layer + layers)

    def of(self, layer: int, direction: int) -> "Masks":
        """Those of a direction of a layer that is run by itself."""
        return self.above(layer)._replace(first_direction=direction)
