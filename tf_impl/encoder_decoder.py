"""`EncoderDecoder`: two networks, of which the second starts from the final state of the first (SPEC.md, 8)."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from ..spec.dropout import Masks
from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec, Source, final_state_size
from ..spec.errors import InputError, listed
from ..spec.parameters import initial_weights
from ..spec.recomputing import checked_recompute
from .arguments import checked_dtype, named_states
from .dropout import counter, masks_of_call
from .model import SequenceModel
from .recurrent import Recurrent, config_of, from_data
from .weights import from_spec

Tensor = Any
OF_FIT = ("inputs", "source", "source_lengths")  # by name, as Keras hands one argument on


@keras.saving.register_keras_serializable(package="rnnzoo")
class EncoderDecoder(keras.Model):
    """An encoder that reads a source, and a decoder that starts from what it has read.

        c = the encoder's final state, (B, L*D*H)    h_0 = context.weight c + context.bias

    Args:
        spec: what the model is.
        seed: of the initial weights, which the spec draws, and of the masks of dropout (see `Recurrent`).
        dtype: `float32` or `float64`, for weights and computation.
        recompute: as for `SequenceModel`, of both.

    Attributes:
        encoder, decoder: `SequenceModel`s, which may be run by themselves.

    Raises:
        UnsupportedError: as for `SequenceModel`.
    """

    backend_name = "tf"

    def __init__(
        self, spec: EncoderDecoderSpec, *, seed: int = 0, dtype: Any = "float32", recompute: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(dtype=checked_dtype(dtype), **kwargs)
        self.spec, self.seed = spec, seed
        options: dict[str, Any] = {"seed": seed, "dtype": self.dtype, "recompute": recompute}
        self.encoder = SequenceModel(spec.encoder, name="encoder", **options)
        self.decoder = SequenceModel(spec.decoder, name="decoder", **options)
        self.dropout_calls = counter() if spec.dropout else None
        from_spec(self, initial_weights(spec, seed, self.dtype))
        self.supports_masking = True
        self.built = True

    def call(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
        initial_state: Any = None,
        context: Any = None,
        return_state: bool = False,
        training: bool | None = None,
        dropout: Masks | None = None,
    ) -> Any:
        """What the decoder gives, as a `SequenceModel`, after the encoder has read the context.

        context is `Source(inputs, lengths, mask)` of tensors, or inputs alone; not with an initial state of the
        decoder. training and dropout as for `Recurrent`. For `fit`, `evaluate` and `predict`, which hand one argument
        on, inputs may be a dict of `inputs`, `source` and, where they differ, `source_lengths`. Raises InputError.
        """
        if isinstance(inputs, Mapping):
            inputs, mask, context = _of_fit(inputs, context)
        masks = masks_of_call(self, training, dropout)
        options = {"mask": mask, "lengths": lengths, "initial_state": initial_state, "return_state": return_state}
        return self.decoder(inputs, **options, **self._after_reading(context, masks))

    def scored(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        initial_state: Any = None,
        context: Any = None,
        dropout: Masks | None = None,
    ) -> tuple[Any, Tensor | None]:
        """The final state and scores alone, as for a call; a model that recomputes then keeps no outputs."""
        given = self._after_reading(context, dropout)
        return self.decoder.scored(inputs, mask=mask, initial_state=initial_state, **given)

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One time step of the decoder, for streaming from `initial_state(source)`; as for a `SequenceModel`."""
        return self.decoder.step(x, state)

    def initial_state(self, context: Any) -> Tensor:
        """The decoder's initial state (L*D, B, H) after the encoder has read the source. Raises InputError."""
        return self.decoder.initial_state(self._read(context, None))

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> Tensor | None:
        """The decoder's; None for inputs by name."""
        return None if isinstance(inputs, Mapping) else self.decoder.compute_mask(inputs, previous_mask)

    @property
    def recompute(self) -> bool:
        """As for `Recurrent`, of both."""
        return bool(self.encoder.recompute and self.decoder.recompute)

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self.encoder.recompute = self.decoder.recompute = checked_recompute(self.spec, recompute)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` builds the model from again: plain data."""
        return config_of(self)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "EncoderDecoder":
        """The model of that configuration, with its initial weights."""
        return cls(**from_data(config))

    def _after_reading(self, context: Any, masks: Masks | None) -> dict[str, Any]:
        """What the decoder is given besides its inputs; the calls are counted by the whole model."""
        read = None if context is None else self._read(context, masks)
        return {"context": read, "training": False, "dropout": masks and masks.above(self.spec.encoder.num_layers)}

    def _read(self, given: Any, masks: Masks | None) -> Tensor:
        """The encoder's final state as vectors (B, L*D*H)."""
        source = given if isinstance(given, Source) else Source(given)
        final, _ = self.encoder.scored(
            source.inputs, mask=source.mask, lengths=source.lengths, training=False, dropout=masks
        )
        state = next(iter(named_states(self.spec.encoder, final).values()))
        state = tf.transpose(state, [1, 0, 2])
        return tf.reshape(state, [tf.shape(state)[0], final_state_size(self.spec.encoder)])


def _of_fit(given: Mapping[str, Tensor], context: Any) -> tuple[Tensor, None, Source]:
    """Inputs, no mask and the source out of tensors by name. Raises InputError."""
    unknown, missing = set(given) - set(OF_FIT), set(OF_FIT[:2]) - set(given)
    if unknown or missing or context is not None:
        got = "a context beside them" if context is not None else listed(sorted(given))
        raise InputError(f"inputs: expected a dict of 'inputs', 'source' and, if any, 'source_lengths', got {got}")
    return given["inputs"], None, Source(given["source"], given.get("source_lengths"))


Model = Recurrent | SequenceModel | EncoderDecoder


def build(spec: AnySpec, seed: int, dtype: str, *, recompute: bool = False) -> Model:
    """`EncoderDecoder` of two specs, `Recurrent` where the spec is the core alone, else `SequenceModel`."""
    if isinstance(spec, EncoderDecoderSpec):
        return EncoderDecoder(spec, seed=seed, dtype=dtype, recompute=recompute)
    return (Recurrent if spec.is_core else SequenceModel)(spec, seed=seed, dtype=dtype, recompute=recompute)
