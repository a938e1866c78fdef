"""An encoder and a decoder by the letter of the spec: two oracles, of which the second starts from the first."""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from numpy.typing import NDArray

from ..spec.dropout import Masks
from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec
from ..spec.inputs import Inputs
from ..spec.model import ModelSpec
from .arithmetic import Exact
from .oracle import Oracle, OracleRun
from .tape import Value

Array = NDArray[Any]


class Pair:
    """An encoder and its decoder under the oracle; arguments as for one model."""

    def __init__(
        self, spec: EncoderDecoderSpec, weights: Mapping[str, Array], ops: Exact, derivatives: str = "everything"
    ) -> None:
        self.first = spec.encoder.cell_definition.states[0]
        self.oracles = {
            side: Oracle(part, _part(weights, f"{side}."), ops, derivatives) for side, part in spec.sides.items()
        }
        values = {side: oracle.weights for side, oracle in self.oracles.items()}
        self.weights = {f"{side}.{name}": value for side, own in values.items() for name, value in own.items()}

    def run(
        self, given: Inputs, carried: Mapping[str, Array] | None = None, *, masks: Masks | None = None
    ) -> OracleRun:
        """What the decoder gives, after the encoder has read the source, if there is one."""
        encoder, decoder = self.oracles["encoder"], self.oracles["decoder"]
        above = masks and masks._replace(first_layer=encoder.spec.num_layers)
        if given.source is None:
            return replace(decoder.run(given, carried, masks=above), weights=self.weights)
        read = encoder.run(given.source, masks=masks)
        context = reduce(Value.joined, read.final_states[self.first])  # (S, B, L*D*H)
        found = decoder.run(given, context=context, masks=above)
        return replace(found, weights=self.weights, states={}, context=None, source=read.inputs)


def oracle(spec: AnySpec, weights: Mapping[str, Array], ops: Exact, derivatives: str = "everything") -> Oracle | Pair:
    """The oracle of a model of either kind; arguments as for `Oracle`."""
    return (Oracle if isinstance(spec, ModelSpec) else Pair)(spec, weights, ops, derivatives)  # type: ignore[arg-type]


def _part(weights: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}
