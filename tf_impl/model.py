"""`SequenceModel`, the core with embedding, context and head, as a Keras model (SPEC.md, 5 to 9)."""

from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from ..spec.dropout import Masks
from ..spec.errors import InputError
from ..spec.model import ModelSpec
from ..spec.parameters import initial_weights
from . import streaming
from .arguments import (
    check_inputs,
    checked_dtype,
    named_states,
    real,
    single_or_all,
    states_by_name,
    valid_steps,
)
from .dropout import masks_of_call
from .graphs import Graph
from .merging import merge
from .recomputing import due
from .recurrent import Recurrent, config_of, from_data
from .weights import from_spec

Tensor = Any
Tensors = dict[str, Any]


@keras.saving.register_keras_serializable(package="rnnzoo")
class SequenceModel(keras.Model):
    """Embedding, context, recurrent core and head; the parts that the spec leaves out are None.

    Args:
        spec: what the model is.
        seed: of the initial weights, which the spec draws, and of the masks of dropout (see `Recurrent`).
        dtype: `float32` or `float64`, for weights and computation.
        recompute: as for `Recurrent`; embedding and head are run again too.

    Attributes:
        embedding, context, head: `keras.layers.Embedding`, `Dense` and `Dense`.
        core: `Recurrent`.

    Raises:
        UnsupportedError: the dtype, or Keras' global policy, is of mixed precision or quantized.
    """

    backend_name = "tf"

    def __init__(
        self, spec: ModelSpec, *, seed: int = 0, dtype: Any = "float32", recompute: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(dtype=checked_dtype(dtype), **kwargs)
        self.spec, self.seed = spec, seed
        self.embedding: Any = spec.embedding and _embedding(spec, self.dtype)
        rows = spec.num_layers * spec.num_directions * spec.hidden_size
        self.context: Any = spec.context and _dense("context", spec.context.size, rows, True, self.dtype)
        options: dict[str, Any] = {"dtype": self.dtype, "return_state": True, "recompute": recompute}
        self.core = Recurrent(core_of(spec), seed=seed, name="core", **options)
        self.head: Any = spec.head and _dense("head", spec.output_size, spec.head.size, spec.head.bias, self.dtype)
        from_spec(self, initial_weights(spec, seed, self.dtype))
        self._step_graph = Graph(self._step, worth=lambda given: False)  # one step
        self.supports_masking = True
        self.built = True

    def call(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
        initial_state: Any = None,
        context: Tensor | None = None,
        return_state: bool = False,
        training: bool | None = None,
        dropout: Masks | None = None,
    ) -> Any:
        """Scores; (scores, outputs, final state) with `return_state`. Without a head the outputs stand for the scores.

        inputs (B, T, I), or tokens (B, T); mask (B, T) bool or lengths (B,), not both; states (L*D, B, H), a dict of
        them where the cell has several; context (B, C). Scores are (B, T, O), 0 at invalid steps, or (B, O) where
        the head reads the final states. training and dropout as for `Recurrent`. Raises InputError.
        """
        valid, start = self._checked(inputs, mask, lengths, initial_state, context)
        wanted = return_state or self.head is None
        scores, outputs, final = self._whole(inputs, valid, start, training, dropout, outputs=wanted)
        if lengths is not None:  # what Keras does for a mask, for the layers above
            for series in (outputs,) if self._reads_final else (outputs, scores):
                if series is not None:
                    series._keras_mask = valid
        return (scores, outputs, final) if return_state else scores

    def scored(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
        initial_state: Any = None,
        context: Tensor | None = None,
        training: bool | None = None,
        dropout: Masks | None = None,
    ) -> tuple[Any, Tensor | None]:
        """The final state and scores alone, as for a call; a model that recomputes then keeps no outputs."""
        valid, start = self._checked(inputs, mask, lengths, initial_state, context)
        scores, _, final = self._whole(inputs, valid, start, training, dropout, outputs=False)
        return final, scores

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One time step, for streaming: x (B, I) or tokens (B,), state (L*D, B, H) or a dict of them, None for zeros.

        Returns the scores (B, O), or the outputs (B, F) without a head, and the new state.

        Raises:
            SpecError: the model reads backward as well, its head reads the final states, or it has a context and no
                state is given.
            InputError: a shape or dtype does not fit.
        """
        return streaming.step(self, self._step_graph, x, state)

    def initial_state(self, context: Tensor) -> Tensor:
        """The initial state (L*D, B, H) that a context (B, C) stands for, to begin streaming with."""
        if self.spec.context is None:
            raise InputError("context: this model has none; build it with context=Context(size)")
        context = real("context", context, (None, self.spec.context.size), self.dtype)
        start = self.context(context)  # (B, L*D*H)
        rows = self.spec.num_layers * self.spec.num_directions
        start = tf.reshape(start, [tf.shape(start)[0], rows, self.spec.hidden_size])
        return tf.transpose(start, [1, 0, 2])

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> Tensor | None:
        """The mask of the inputs, where there is a result for each step."""
        return None if self._reads_final else previous_mask

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: Any = None,
        input_signature: Any = None,
        **options: Any,
    ) -> Any:
        """`keras.Model.export`; a SavedModel takes inputs of any B and T, and context where the model has one.

        Another format, or a signature of your own, goes to Keras as it is.
        """
        if format != "tf_saved_model" or input_signature is not None:
            return super().export(filepath, format, verbose=verbose, input_signature=input_signature, **options)
        steps = tf.TensorSpec([None, None, self.spec.input_size], self.dtype, name="inputs")
        signature = [tf.TensorSpec([None, None], tf.int64, name="inputs") if self.embedding else steps]
        if self.spec.context:
            signature.append(tf.TensorSpec([None, self.spec.context.size], self.dtype, name="context"))
        archive = keras.export.ExportArchive()
        archive.track(self)
        archive.add_endpoint(
            "serve", lambda inputs, context=None: self(inputs, context=context), input_signature=signature
        )
        return archive.write_out(filepath, verbose=True if verbose is None else verbose, **options)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` builds the model from again: plain data."""
        return config_of(self)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "SequenceModel":
        """The model of that configuration, with its initial weights."""
        return cls(**from_data(config))

    def _step(self, given: Tensors) -> list[Tensor]:
        outputs, *states = self.core.step_of(given | {"x": self.embedding(given["x"])} if self.embedding else given)
        return [self.head(outputs) if self.head else outputs, *states]

    @property
    def recompute(self) -> bool:
        """As for `Recurrent`."""
        return bool(self.core.recompute)

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self.core.recompute = recompute

    def _whole(
        self, inputs: Tensor, valid: Tensor | None, start: Tensors, training: Any, dropout: Any, *, outputs: bool
    ) -> tuple[Tensor | None, Tensor | None, Any]:
        """Scores, outputs and final state; what nobody wants may be None."""
        if self.core.recompute and due(inputs):
            return self._in_parts(inputs, valid, start, masks_of_call(self.core, training, dropout), outputs=outputs)
        y, final = self.core(
            self._embedded(inputs, valid), mask=valid, initial_state=start, training=training, dropout=dropout
        )
        return y if self.head is None else self._scores(y, final, valid), y, final

    def _in_parts(
        self, inputs: Tensor, valid: Tensor | None, start: Tensors, masks: Masks | None, *, outputs: bool
    ) -> tuple[Tensor | None, Tensor | None, Any]:
        """The same with recomputing, embedding and head included."""
        scored = self.head is not None and not self._reads_final
        ends = [layer for layer in (self.embedding, self.head if scored else None) if layer is not None]
        variables = [variable for layer in ends for variable in layer.variables]

        def enter(weights: Any, x: Tensor, mask: Tensor | None) -> Tensor:
            with keras.StatelessScope(state_mapping=zip(variables, weights, strict=True)):
                return self._embedded(x, mask)

        def leave(weights: Any, y: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
            with keras.StatelessScope(state_mapping=zip(variables, weights, strict=True)):
                return (*[y] * outputs, *([self._scores(y, None, mask)] if scored else []))

        weights, series = [tf.convert_to_tensor(variable) for variable in variables], outputs + scored
        found, named = self.core.in_parts(weights, inputs, valid, start, masks, enter, leave, series)
        y, final = found[0] if outputs else None, single_or_all(named)
        if self.head is None:
            return y, y, final
        return found[-1] if scored else self._scores(None, final, valid), y, final

    @property
    def _reads_final(self) -> bool:
        return self.spec.head is not None and self.spec.head.reads == "final"

    def _embedded(self, inputs: Tensor, valid: Tensor | None) -> Tensor:
        if self.embedding is None:
            return inputs
        tokens = inputs if valid is None else tf.where(valid, inputs, tf.zeros([], inputs.dtype))
        return self.embedding(tokens)  # (B, T, E)

    def _checked(
        self, inputs: Tensor, mask: Any, lengths: Any, initial_state: Any, context: Tensor | None
    ) -> tuple[Tensor | None, Tensors]:
        """Which steps are valid, (B, T) or None for all, and the initial states. Raises InputError."""
        check_inputs(inputs, self.spec)
        return valid_steps(inputs, mask, lengths), self._initial(inputs, initial_state, context)

    def _initial(self, inputs: Tensor, initial_state: Any, context: Tensor | None) -> Tensors:
        if self.context is None and context is not None:
            raise InputError("context: this model has none; build it with context=Context(size), or leave it None")
        if self.context is not None and (context is None) == (initial_state is None):
            raise InputError("context and initial_state: a model with a context takes exactly one of them")
        states = states_by_name(self.spec, initial_state, inputs, self.dtype)
        if context is not None:
            context = real("context", context, (inputs.shape[0], None), self.dtype)
            states[self.spec.cell_definition.states[0]] = self.initial_state(context)
        return states

    def _scores(self, outputs: Tensor | None, final: Any, valid: Tensor | None) -> Tensor:
        if self._reads_final:
            states = named_states(self.spec, final)[self.spec.cell_definition.output]
            top = tf.unstack(states[-self.spec.num_directions :])  # D times (B, H)
            return self.head(merge(self.spec.merge, top))
        scores = self.head(outputs)
        return scores if valid is None else tf.where(valid[:, :, None], scores, tf.zeros([], scores.dtype))


def core_of(spec: ModelSpec) -> ModelSpec:
    """The spec of the core alone."""
    return replace(spec, embedding=None, context=None, head=None)


def _embedding(spec: ModelSpec, dtype: str) -> Any:
    assert spec.embedding is not None
    layer = keras.layers.Embedding(
        spec.embedding.vocabulary_size, spec.input_size, embeddings_initializer="zeros", dtype=dtype, name="embedding"
    )
    layer.build((None, None))
    return layer


def _dense(name: str, inputs: int, outputs: int, bias: bool, dtype: str) -> Any:
    layer = keras.layers.Dense(outputs, use_bias=bias, kernel_initializer="zeros", dtype=dtype, name=name)
    layer.build((None, inputs))
    return layer
