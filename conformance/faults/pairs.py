"""Faults of an encoder with its decoder: what the decoder starts from."""

from typing import Any

import numpy as np

from ...spec.backend import Result
from ...spec.encoder_decoder import EncoderDecoderSpec, Source
from ...spec.model import ModelSpec
from .fault import Fault
from .wrapped import Arguments, Array, Model, Wrapped, halves, without_padding


class FromState(Wrapped):
    """Starts the decoder from the state that `start` gives; right, but for rounding, where that is the context's."""

    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        spec: Any = model.spec
        source = arguments.get("context")
        if not isinstance(spec, EncoderDecoderSpec) or source is None:
            return super().results(model, inputs, arguments)
        others = {name: value for name, value in arguments.items() if name != "context"}
        return super().results(model, inputs, {**others, "initial_state": self.start(model, source)})

    def start(self, model: Model, source: Source) -> dict[str, Array]:
        spec: Any = model.spec
        weights = self.to_spec(model)
        vectors = self.vectors(spec.encoder, self._read(spec.encoder, weights, model.dtype, source))  # (B, L*D*H)
        mapped = vectors @ weights["decoder.context.weight"].T + weights["decoder.context.bias"]
        states = {name: np.zeros(spec.state_shape(len(vectors))) for name in spec.cell_definition.states}
        first = next(iter(states))
        states[first] = mapped.reshape(len(vectors), -1, spec.decoder.hidden_size).transpose(1, 0, 2)
        return states

    def vectors(self, spec: ModelSpec, read: Result) -> Array:
        return _vectors(read.final_state)

    def _read(self, spec: ModelSpec, weights: dict[str, Array], dtype: str, source: Source) -> Result:
        model = self.backend.build(spec, dtype=dtype)
        own = {name.removeprefix("encoder."): a for name, a in weights.items() if name.startswith("encoder.")}
        self.backend.from_spec(model, own)
        result: Result = self.backend.run(model, source.inputs, lengths=source.lengths, mask=source.mask)
        return result


class FromZeros(FromState):
    def start(self, model: Model, source: Source) -> dict[str, Array]:
        return {name: np.zeros_like(state) for name, state in super().start(model, source).items()}


class FromLastOutput(FromState):
    def vectors(self, spec: ModelSpec, read: Result) -> Array:
        if spec.num_directions == 2 and spec.merge != "concat":
            return super().vectors(spec, read)
        top = np.stack(halves(spec, read.outputs[:, -1]))  # (D, B, H)
        return _vectors(np.concatenate([read.final_state[: -len(top)], top]))


class FromUnits(FromState):
    def vectors(self, spec: ModelSpec, read: Result) -> Array:
        return read.final_state.transpose(1, 2, 0).reshape(read.final_state.shape[1], -1)


class StatesViewed(FromState):
    def vectors(self, spec: ModelSpec, read: Result) -> Array:
        return read.final_state.reshape(read.final_state.shape[1], -1)


class SourcePaddingRead(Wrapped):
    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        source: Any = arguments.get("context")
        if not isinstance(source, Source):
            return super().results(model, inputs, arguments)
        rows, steps = source.inputs.shape[:2]
        valid = np.ones((rows, steps), bool) if source.mask is None else source.mask
        valid = valid if source.lengths is None else np.arange(steps) < source.lengths[:, None]
        return super().results(model, inputs, {**arguments, "context": Source(without_padding(source.inputs, valid))})


def _vectors(state: Array) -> Array:
    """States (L*D, B, H) as (B, L*D*H)."""
    return state.transpose(1, 0, 2).reshape(state.shape[1], -1)


FAULTS = (
    Fault("decoder started from zeros", "What the encoder has read is thrown away.", "results", FromZeros),
    Fault(
        "decoder started from the last output of its encoder",
        "outputs[:, -1] stands for the final state, which holds for full sequences read forward alone.",
        "results", FromLastOutput,
    ),
    Fault("encoder's states viewed as rows", "The states (L*D, B, H) are viewed as (B, L*D*H), which mixes the rows.",
          "results", StatesViewed),
    Fault("encoder's states ordered by unit", "The context has the index i*L*D + l*D + d.", "results", FromUnits),
    Fault("padding of the source read", "The encoder goes on through the padding.", "results", SourcePaddingRead),
)  # fmt: skip
