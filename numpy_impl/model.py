"""`Recurrent`, the core, and `SequenceModel`, the core with embedding, context and head (SPEC.md, 5 to 9)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..spec.backend import Result
from ..spec.dropout import Masks
from ..spec.errors import InputError, SpecError
from ..spec.inputs import Cotangents, Inputs, as_array, checked_context, checked_inputs, checked_states, state_gradients
from ..spec.model import ModelSpec
from ..spec.parameters import Weights, initial_weights
from ..spec.recomputing import checked_recompute
from . import merging, recomputing, recurrent

Array = Any
States = dict[str, Any]


@dataclass(frozen=True)
class Tape:
    """What the backward pass reads again."""

    arguments: Inputs
    layers: Any  # of `recurrent`, or of `recomputing`
    final: States  # (L*D, B, H) by name
    read: Array | None  # what the head read, (B, T, F) or (B, F)


class SequenceModel:
    """Embedding, context, recurrent core and head; the parts that the spec leaves out are absent.

    Args:
        spec: what the model is.
        seed: of the initial weights, which the spec draws; None leaves them to the caller, who sets `weights`.
        dtype: `float32` or `float64`.
        recompute: gradients take less memory and a forward pass more; results are the same (SPEC.md, 13.4).

    Attributes:
        weights: the spec's own names and shapes; change the arrays in place to change the model.

    Raises:
        UnsupportedError: `recompute` of a model that cannot be run part by part.
    """

    backend_name = "numpy"

    def __init__(
        self, spec: ModelSpec, *, seed: int | None = 0, dtype: str = "float32", recompute: bool = False
    ) -> None:
        self.spec = spec
        self.dtype = dtype
        self.recompute = recompute
        self.weights: Weights = {} if seed is None else initial_weights(spec, seed, dtype)

    def __call__(
        self, inputs: Any, *, lengths: Any = None, mask: Any = None, initial_state: Any = None, context: Any = None
    ) -> Result:
        """Run on inputs (B, T, I), or tokens (B, T); drops nothing. Raises InputError."""
        given = checked_inputs(
            self.spec, self.dtype, inputs, lengths=lengths, mask=mask, initial_state=initial_state, context=context
        )
        return self.forward(given)[0]

    @property
    def recompute(self) -> bool:
        """Whether gradients are had by recomputing; may be set. Raises SpecError, UnsupportedError."""
        return self._recompute

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self._recompute = checked_recompute(self.spec, recompute)

    def step(self, x: Array, state: Array | Mapping[str, Array] | None = None) -> tuple[Array, Array | States]:
        """One time step, for streaming: x (B, I) or tokens (B,), state (L*D, B, H) or a dict of them, None for zeros.

        Returns the scores (B, O), or the outputs (B, F) without a head, and the new state.

        Raises:
            SpecError: the model reads backward as well, its head reads the final states, or it has a context and no
                state is given.
        """
        self.spec.check_streams(state_given=state is not None)
        x = as_array("step inputs", x)
        if x.ndim == 0:
            raise InputError("step inputs: expected shape (B, I), or tokens (B,), got a single number")
        states = None if state is None else checked_states(self.spec, self.dtype, len(x), state, "state")
        given = checked_inputs(self.spec, self.dtype, x[:, None], initial_state=states or self._zeros(len(x)))
        result = self.forward(given)[0]
        y = result.outputs if result.scores is None else result.scores
        return y[:, 0], dict(result.final_states) if isinstance(state, Mapping) else result.final_state

    def initial_state(self, context: Array) -> Array:
        """The initial state (L*D, B, H) of a context (B, C), to begin streaming with. Raises InputError."""
        context = checked_context(self.spec, self.dtype, len(context), context)
        start = context @ self.weights["context.weight"].T + self.weights["context.bias"]  # (B, L*D*H)
        return np.ascontiguousarray(start.reshape(len(context), -1, self.spec.hidden_size).transpose(1, 0, 2))

    def forward(self, given: Inputs, masks: Masks | None = None, *, outputs: bool = True) -> tuple[Result, Tape]:
        """The result, and what `backward` needs; masks of dropout, None to drop nothing.

        outputs: they are wanted; else a model without a head that reads them may give none.
        """
        spec = self.spec
        x = self._embedded(given)
        initial = given.initial_states or self._zeros(len(x))
        if given.context is not None:
            initial[spec.cell_definition.states[0]] = self.initial_state(given.context)
        y, final, layers = self._layers(x, given.mask, initial, masks, outputs or self._reads_steps)
        read, scores = self._scores(given, y, final)
        return Result(y, final, scores), Tape(given, layers, final, read)

    @property
    def _reads_steps(self) -> bool:
        return self.spec.head is not None and self.spec.head.reads == "steps"

    def _layers(
        self, x: Array, mask: Array | None, initial: States, masks: Masks | None, outputs: bool
    ) -> tuple[Any, States, Any]:
        if self.recompute:
            return recomputing.forward(self.spec, self.weights, x, mask, initial, masks, outputs=outputs)
        return recurrent.forward(self.spec, self.weights, x, mask, initial, masks, outputs=outputs)

    def backward(self, tape: Tape, cotangents: Cotangents) -> dict[str, Array]:
        """Gradients of every weight, of the inputs unless they are tokens, of the context or the initial states."""
        spec, given = self.spec, tape.arguments
        batch, d_outputs = len(given.inputs), cotangents.outputs
        d_final = {name: d.copy() for name, d in (cotangents.final_states or self._zeros(batch)).items()}
        gradients: dict[str, Array] = {}
        if spec.head:
            d_outputs = self._head_backward(tape, cotangents.scores, d_outputs, d_final, gradients)
        if d_outputs is None and not self.recompute:
            d_outputs = np.zeros((*given.inputs.shape[:2], spec.output_size), self.dtype)
        differentiate = recomputing.backward if self.recompute else recurrent.backward
        weights, d_x, d_initial = differentiate(spec, self.weights, tape.layers, d_outputs, d_final)
        gradients.update(weights)
        if spec.context:
            d_start = d_initial[spec.cell_definition.states[0]].transpose(1, 0, 2).reshape(batch, -1)
            context = np.zeros((batch, spec.context.size), self.dtype) if given.context is None else given.context
            d_start = (
                np.zeros_like(d_start) if given.context is None else d_start
            )  # the state was given: no way to here
            gradients["context.weight"] = d_start.T @ context
            gradients["context.bias"] = d_start.sum(axis=0)
        if given.context is None:
            gradients.update(state_gradients(spec, d_initial))
        else:
            gradients["context"] = d_start @ self.weights["context.weight"]
        self._inputs_backward(given, d_x, gradients)
        return gradients

    def _embedded(self, given: Inputs) -> Array:
        if not self.spec.embedding:
            return given.inputs
        return self.weights["embedding.weight"][self._tokens(given)]  # (B, T, E)

    def _tokens(self, given: Inputs) -> Array:
        return given.inputs if given.mask is None else np.where(given.mask, given.inputs, 0)

    def _inputs_backward(self, given: Inputs, d_x: Array, gradients: dict[str, Array]) -> None:
        if not self.spec.embedding:
            gradients["inputs"] = d_x
            return
        gradients["embedding.weight"] = np.zeros_like(self.weights["embedding.weight"])
        np.add.at(gradients["embedding.weight"], self._tokens(given), d_x)  # 0 is added where a step is invalid

    def _scores(self, given: Inputs, outputs: Array, final: States) -> tuple[Array | None, Array | None]:
        head = self.spec.head
        if head is None:
            return None, None
        read = outputs if head.reads == "steps" else merging.merge(self.spec.merge, self._top_states(final))
        scores = read @ self.weights["head.weight"].T
        if head.bias:
            scores += self.weights["head.bias"]
        if head.reads == "steps" and given.mask is not None:
            scores = np.where(given.mask[:, :, None], scores, np.zeros((), scores.dtype))
        return read, scores

    def _head_backward(
        self, tape: Tape, d_scores: Array | None, d_outputs: Array | None, d_final: States, gradients: dict[str, Array]
    ) -> Array | None:
        """Adds the head's part to d_final, returns d_outputs with it added."""
        head, weight = self.spec.head, self.weights["head.weight"]
        assert head is not None and tape.read is not None
        if d_scores is None:
            d_scores = np.zeros((*tape.read.shape[:-1], head.size), self.dtype)
        if head.reads == "steps" and tape.arguments.mask is not None:
            d_scores = np.where(tape.arguments.mask[:, :, None], d_scores, np.zeros((), d_scores.dtype))
        flat = d_scores.reshape(-1, head.size)
        gradients["head.weight"] = flat.T @ tape.read.reshape(len(flat), -1)
        if head.bias:
            gradients["head.bias"] = flat.sum(axis=0)
        d_read = d_scores @ weight
        if head.reads == "steps":
            return d_read if d_outputs is None else d_outputs + d_read
        output = self.spec.cell_definition.output
        top = self._top_states(tape.final)
        for index, d in enumerate(
            merging.merge_gradient(self.spec.merge, top, d_read), start=-self.spec.num_directions
        ):
            d_final[output][index] += d
        return d_outputs

    def _top_states(self, final: States) -> list[Array]:
        return list(final[self.spec.cell_definition.output][-self.spec.num_directions :])

    def _zeros(self, batch: int) -> States:
        return {name: np.zeros(self.spec.state_shape(batch), self.dtype) for name in self.spec.cell_definition.states}


class Recurrent(SequenceModel):
    """The core alone: a `SequenceModel` whose spec has no embedding, head or context."""

    def __init__(
        self, spec: ModelSpec, *, seed: int | None = 0, dtype: str = "float32", recompute: bool = False
    ) -> None:
        if not spec.is_core:
            raise SpecError("Recurrent: expected a spec without embedding, head and context; use SequenceModel")
        super().__init__(spec, seed=seed, dtype=dtype, recompute=recompute)
