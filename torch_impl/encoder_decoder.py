"""`EncoderDecoder`: two networks, of which the second starts from the final state of the first (SPEC.md, 8)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..spec.dropout import Masks
from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec, Source
from ..spec.inputs import Inputs
from ..spec.parameters import check_dtype, initial_weights
from ..spec.recomputing import checked_recompute
from .dropout import count_calls, masks_of_call
from .layers import States
from .model import SequenceModel, SequenceOutput
from .recurrent import Recurrent
from .weights import dtype_name, from_spec, to_tensor


class EncoderDecoder(nn.Module):
    """An encoder that reads a source, and a decoder that starts from what it has read.

        c = the encoder's final state, (B, L*D*H)    h_0 = context.weight c + context.bias

    Args:
        spec, seed, dtype, device, recompute: as for `SequenceModel`; the calls in `train()` mode are counted here.

    Attributes:
        encoder, decoder: `SequenceModel`s, which may be run by themselves.

    Raises:
        WeightError, UnsupportedError: as for `SequenceModel`.
    """

    backend_name = "torch"
    core_prefix = "core."  # of the core's names in each of the two

    def __init__(
        self,
        spec: EncoderDecoderSpec,
        *,
        seed: int = 0,
        dtype: str | torch.dtype = "float32",
        device: torch.device | str | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.spec = spec
        self._first = spec.encoder.cell_definition.states[0]
        self.encoder = SequenceModel(spec.encoder, seed=None, dtype=dtype, device=device, recompute=recompute)
        self.decoder = SequenceModel(spec.decoder, seed=None, dtype=dtype, device=device, recompute=recompute)
        count_calls(self, spec, seed, device)
        from_spec(self, initial_weights(spec, seed, check_dtype(dtype_name(dtype))))

    def forward(
        self,
        inputs: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        initial_state: Tensor | Mapping[str, Tensor] | None = None,
        context: Source | Tensor | None = None,
        dropout: Masks | bool | None = None,
    ) -> SequenceOutput:
        """Run the decoder, after the encoder has read the context.

        Args:
            inputs, lengths, mask, initial_state: of the decoder, as for `SequenceModel`.
            context: `Source(inputs, lengths, mask)` of tensors, or inputs alone; not with an initial state.
            dropout: as for `SequenceModel`.

        Returns:
            As for `SequenceModel`.

        Raises:
            InputError, UnsupportedError: as for `SequenceModel`.
        """
        read, above = self._context(context, dropout)
        output: SequenceOutput = self.decoder(inputs, lengths, mask, initial_state, read, above)
        return output

    def scored(
        self,
        inputs: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        initial_state: Tensor | Mapping[str, Tensor] | None = None,
        context: Source | Tensor | None = None,
        dropout: Masks | bool | None = None,
    ) -> tuple[Tensor | States, Tensor | None]:
        """The final state and scores alone, as for a call; a model that recomputes then keeps no outputs."""
        read, above = self._context(context, dropout)
        return self.decoder.scored(inputs, lengths, mask, initial_state, read, above)

    @property
    def recompute(self) -> bool:
        """Whether gradients of both are had by recomputing; may be set. Raises SpecError, UnsupportedError."""
        return self.encoder.recompute and self.decoder.recompute

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self.encoder.recompute = self.decoder.recompute = checked_recompute(self.spec, recompute)

    def _context(self, given: Source | Tensor | None, dropout: Any) -> tuple[Tensor | None, Masks | bool]:
        """The encoder's final state as vectors, and what the decoder drops."""
        masks = masks_of_call(self, dropout)
        read = None if given is None else self._read(given, masks)
        return read, masks.above(self.spec.encoder.num_layers) if masks else False

    def step(self, x: Tensor, state: Tensor | Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor | States]:
        """One time step of the decoder, for streaming from `initial_state(source)`; as for a `SequenceModel`."""
        return self.decoder.step(x, state)

    def initial_state(self, context: Source | Tensor) -> Tensor:
        """The decoder's initial state (L*D, B, H) after the encoder has read the source. Raises InputError."""
        return self.decoder.initial_state(self._read(context, None))

    def _read(self, given: Source | Tensor, masks: Masks | None) -> Tensor:
        """The encoder's final state as vectors (B, L*D*H)."""
        source = given if isinstance(given, Source) else Source(given)
        final, _ = self.encoder.scored(source.inputs, source.lengths, source.mask, dropout=masks or False)
        state: Tensor = final if isinstance(final, Tensor) else final[self._first]
        return state.transpose(0, 1).flatten(1)


Model = Recurrent | SequenceModel | EncoderDecoder


def build(spec: AnySpec, seed: int, dtype: str, *, recompute: bool = False) -> Model:
    """`EncoderDecoder` of two specs, `Recurrent` where the spec is the core alone, else `SequenceModel`."""
    if isinstance(spec, EncoderDecoderSpec):
        return EncoderDecoder(spec, seed=seed, dtype=dtype, recompute=recompute)
    return (Recurrent if spec.is_core else SequenceModel)(spec, seed=seed, dtype=dtype, recompute=recompute)


def arguments(model: Model, given: Inputs) -> dict[str, Any]:
    """Checked arrays as what the model's `forward` takes, on its device."""
    device = next(model.parameters()).device
    states = given.initial_states
    found: dict[str, Any] = {
        "inputs": to_tensor(given.inputs, device),
        "mask": None if given.mask is None else to_tensor(given.mask, device),
        "initial_state": None if states is None else {name: to_tensor(a, device) for name, a in states.items()},
    }
    if given.context is not None:
        found["context"] = to_tensor(given.context, device)
    if given.source is not None:
        source = given.source
        found["context"] = Source(
            to_tensor(source.inputs, device), mask=None if source.mask is None else to_tensor(source.mask, device)
        )
    return found


def named_result(model: Model, result: Any) -> tuple[Tensor, States, Tensor | None]:
    """Outputs, final states by name, and scores, from what either model's `forward` gave."""
    outputs, final, scores = result if len(result) == 3 else (*result, None)
    return outputs, named_states(model, final), scores


def named_states(model: Model, final: Tensor | States) -> States:
    """States by name, also of a cell with one of them."""
    return dict(final) if isinstance(final, Mapping) else {model.spec.cell_definition.states[0]: final}
