"""`EncoderDecoder`: two networks, of which the second starts from the final state of the first (SPEC.md, 8)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..spec.backend import Result
from ..spec.dropout import Masks
from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec, Source
from ..spec.inputs import Cotangents, Inputs, checked_inputs, checked_source
from ..spec.parameters import Weights, initial_weights
from ..spec.recomputing import checked_recompute
from .model import Recurrent, SequenceModel
from .model import Tape as NetworkTape

Array = Any


class Tape(NamedTuple):
    """What the backward pass reads again; no encoder where the run began from a given state."""

    encoder: NetworkTape | None
    decoder: NetworkTape


class EncoderDecoder:
    """An encoder that reads a source, and a decoder that starts from what it has read.

        c = the encoder's final state, (B, L*D*H)    h_0 = context.weight c + context.bias

    Args:
        spec: what the model is.
        seed: of the initial weights, which the spec draws.
        dtype: `float32` or `float64`.
        recompute: as for `SequenceModel`, of both.

    Attributes:
        encoder, decoder: `SequenceModel`s, which may be run by themselves.
        weights: of both, under the spec's own names; change the arrays in place to change the model.
    """

    backend_name = "numpy"

    def __init__(
        self, spec: EncoderDecoderSpec, *, seed: int = 0, dtype: str = "float32", recompute: bool = False
    ) -> None:
        self.spec = spec
        self.dtype = dtype
        self.weights: Weights = initial_weights(spec, seed, dtype)
        self.encoder = SequenceModel(spec.encoder, seed=None, dtype=dtype, recompute=recompute)
        self.decoder = SequenceModel(spec.decoder, seed=None, dtype=dtype, recompute=recompute)
        for name, array in self.weights.items():
            side, _, own = name.partition(".")
            getattr(self, side).weights[own] = array

    def __call__(
        self, inputs: Any, *, lengths: Any = None, mask: Any = None, initial_state: Any = None, context: Any = None
    ) -> Result:
        """Run the decoder on inputs (B, T, I), or tokens (B, T), after the encoder has read the context, a `Source`.

        With an initial state of the decoder in place of the context, the encoder does not run. Raises InputError.
        """
        given = checked_inputs(
            self.spec, self.dtype, inputs, lengths=lengths, mask=mask, initial_state=initial_state, context=context
        )
        return self.forward(given)[0]

    @property
    def recompute(self) -> bool:
        """Whether gradients of both are had by recomputing; may be set. Raises SpecError, UnsupportedError."""
        return self.encoder.recompute and self.decoder.recompute

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self.encoder.recompute = self.decoder.recompute = checked_recompute(self.spec, recompute)

    def step(self, x: Array, state: Array | Mapping[str, Array] | None = None) -> tuple[Array, Any]:
        """One time step of the decoder, for streaming from `initial_state(source)`; as for a `SequenceModel`."""
        return self.decoder.step(x, state)

    def initial_state(self, context: Source) -> Array:
        """The decoder's initial state (L*D, B, H) after the encoder has read the source. Raises InputError."""
        source = context if isinstance(context, Source) else Source(context)
        read, _ = self.encoder.forward(checked_source(self.spec, self.dtype, len(source.inputs), source))
        return self.decoder.initial_state(as_context(read))

    def forward(self, given: Inputs, masks: Masks | None = None, *, outputs: bool = True) -> tuple[Result, Any]:
        """The decoder's result, and what `backward` needs; arguments as for `SequenceModel`."""
        above = masks and masks.above(self.spec.encoder.num_layers)
        if given.source is None:
            result, tape = self.decoder.forward(given, above, outputs=outputs)
            return result, Tape(None, tape)
        read, first = self.encoder.forward(given.source, masks, outputs=False)
        result, second = self.decoder.forward(
            replace(given, source=None, context=as_context(read)), above, outputs=outputs
        )
        return result, Tape(first, second)

    def backward(self, tape: Any, cotangents: Cotangents) -> dict[str, Array]:
        """Gradients of every weight, of inputs and source unless they are tokens, or of the initial states."""
        found = self.decoder.backward(tape.decoder, cotangents)
        gradients = {f"decoder.{name}": found.pop(name) for name in self.decoder.weights}
        if tape.encoder is None:
            zeros = {f"encoder.{name}": np.zeros_like(array) for name, array in self.encoder.weights.items()}
            return zeros | gradients | found
        d_final = self._final_cotangents(found.pop("context"))
        read = self.encoder.backward(tape.encoder, Cotangents(None, d_final, None))
        gradients = {f"encoder.{name}": read[name] for name in self.encoder.weights} | gradients | found
        return gradients | ({"source": read["inputs"]} if "inputs" in read else {})

    def _final_cotangents(self, d_context: Array) -> dict[str, Array]:
        """Of the encoder's final states, from those of the context (B, L*D*H)."""
        shape = self.spec.encoder.state_shape(len(d_context))
        first, *others = self.spec.encoder.cell_definition.states
        d_first = d_context.reshape(shape[1], shape[0], shape[2]).transpose(1, 0, 2)
        return {first: d_first, **{name: np.zeros(shape, self.dtype) for name in others}}


def as_context(read: Result) -> Array:
    """The final state (L*D, B, H) as vectors (B, L*D*H)."""
    state = read.final_state.transpose(1, 0, 2)
    return np.ascontiguousarray(state).reshape(len(state), -1)


def build(spec: AnySpec, seed: int, dtype: str, *, recompute: bool = False) -> "SequenceModel | EncoderDecoder":
    """`EncoderDecoder` of two specs, `Recurrent` where the spec is the core alone, else `SequenceModel`."""
    if isinstance(spec, EncoderDecoderSpec):
        return EncoderDecoder(spec, seed=seed, dtype=dtype, recompute=recompute)
    return (Recurrent if spec.is_core else SequenceModel)(spec, seed=seed, dtype=dtype, recompute=recompute)
