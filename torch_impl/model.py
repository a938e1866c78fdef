"""`SequenceModel`: the core with embedding, context and head (SPEC.md, 7 to 9)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from ..spec.dropout import Masks
from ..spec.errors import InputError
from ..spec.model import ModelSpec
from ..spec.parameters import check_dtype, initial_weights
from .arguments import check_inputs, check_tensor, one_step, valid_steps
from .dropout import masks_of_call
from .layers import States
from .merging import merge
from .recurrence import without_autocast
from .recurrent import Recurrent
from .weights import dtype_name, from_spec


class SequenceOutput(NamedTuple):
    """What a `SequenceModel` gives: outputs (B, T, F), the final state(s), scores (B, T, O), (B, O) or None."""

    outputs: Tensor
    final_state: Tensor | States
    scores: Tensor | None


# torch.export.save refuses a named tuple that it has no name for.
_pytree._register_namedtuple(SequenceOutput, serialized_type_name="rnnzoo.torch_impl.SequenceOutput")


class SequenceModel(nn.Module):
    """Embedding, context, recurrent core and head; the parts that the spec leaves out are None.

        embedding.weight (V, I)   context.weight (L*D*H, C), context.bias   head.weight (O, F), head.bias
        core.{name}: as in `Recurrent`

    V vocabulary, C context size, O scores; the others as in `Recurrent`, which also says what holds for lengths,
    padding, precision, second derivatives and dropout (whose calls `core` counts).

    Args:
        spec, seed, dtype, device, recompute: as for `Recurrent`; any spec.

    Raises:
        WeightError: another dtype; convert with `.to()` after.
        UnsupportedError: this backend has not got the cell.
    """

    backend_name = "torch"
    core_prefix = "core."  # of the core's names in the state dict

    def __init__(
        self,
        spec: ModelSpec,
        *,
        seed: int | None = 0,
        dtype: str | torch.dtype = "float32",
        device: torch.device | str | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.spec = spec
        name = check_dtype(dtype_name(dtype))
        options: dict[str, Any] = {"dtype": getattr(torch, name), "device": device or torch.get_default_device()}
        self.embedding = self.context = self.head = None
        if spec.embedding:
            self.embedding = _empty(nn.Embedding, spec.embedding.vocabulary_size, spec.input_size, **options)
        if spec.context:
            rows = spec.num_layers * spec.num_directions * spec.hidden_size
            self.context = _empty(nn.Linear, spec.context.size, rows, **options)
        core = replace(spec, embedding=None, context=None, head=None)
        self.core = Recurrent(core, seed=None, recompute=recompute, **options)
        self.core.dropout_seed = seed or 0
        if spec.head:
            self.head = _empty(nn.Linear, spec.output_size, spec.head.size, bias=spec.head.bias, **options)
        if seed is not None:
            from_spec(self, initial_weights(spec, seed, name))

    def forward(
        self,
        inputs: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        initial_state: Tensor | Mapping[str, Tensor] | None = None,
        context: Tensor | None = None,
        dropout: Masks | bool | None = None,
    ) -> SequenceOutput:
        """Run on whole sequences.

        Args:
            inputs: (B, T, I), or tokens (B, T) of integers; any token may stand at an invalid step.
            lengths, mask, initial_state, dropout: as for `Recurrent`.
            context: (B, C), in the place of an initial state.

        Returns:
            outputs (B, T, F) and scores (B, T, O), 0 at invalid steps (scores (B, O) where the head reads the final
            states); final_state as for `Recurrent`.

        Raises:
            InputError: a shape, dtype or type does not fit, or arguments that exclude each other.
            UnsupportedError: as for `Recurrent`.
        """
        return SequenceOutput(*self._whole(inputs, lengths, mask, initial_state, context, dropout, outputs=True))

    def scored(
        self,
        inputs: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        initial_state: Tensor | Mapping[str, Tensor] | None = None,
        context: Tensor | None = None,
        dropout: Masks | bool | None = None,
    ) -> tuple[Tensor | States, Tensor | None]:
        """The final state and scores alone, as for a call; a model that recomputes then keeps no outputs."""
        return self._whole(inputs, lengths, mask, initial_state, context, dropout, outputs=False)[1:]

    @property
    def recompute(self) -> bool:
        """Whether gradients are had by recomputing; may be set. Raises SpecError, UnsupportedError."""
        return self.core.recompute

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self.core.recompute = recompute

    def _whole(
        self, inputs: Tensor, lengths: Any, mask: Any, initial_state: Any, context: Any, dropout: Any, *, outputs: bool
    ) -> tuple[Any, Tensor | States, Tensor | None]:
        check_tensor("inputs", inputs)
        self._check_start(initial_state, context)
        with without_autocast(inputs.device):
            valid = valid_steps(inputs, lengths, mask)
            if context is not None:
                initial_state = self._start(context)
            if self.core.recompute and torch.is_grad_enabled():
                return self._in_parts(inputs, valid, initial_state, dropout, outputs=outputs)
            return self._run(inputs, valid, initial_state, dropout)

    def step(self, x: Tensor, state: Tensor | Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor | States]:
        """One time step, for streaming: x (B, I) or tokens (B,), state as from the step before, None for zeros.

        It drops nothing. Returns the scores (B, O), or the outputs (B, F) without a head, and the new state.

        Raises:
            SpecError: the model reads backward as well, its head reads the final states, or it has a context and no
                state is given.
            InputError: a shape or dtype does not fit.
        """
        self.spec.check_streams(state_given=state is not None)
        inputs = one_step(x)
        with without_autocast(inputs.device):
            outputs, final, scores = self._run(inputs, None, state, dropout=False)
        return (outputs if scores is None else scores).squeeze(1), final

    def initial_state(self, context: Tensor) -> Tensor:
        """The initial state (L*D, B, H) that a context (B, C) stands for, to begin streaming with.

        Raises:
            InputError: the context does not fit, or the model has none.
        """
        if self.context is None:
            raise InputError("context: this model has none; build it with context=Context(size), or leave it None")
        check_tensor("context", context)
        if context.dim() != 2 or context.shape[1] != self.context.in_features:
            raise InputError(f"context: expected shape (B, {self.context.in_features}), got {tuple(context.shape)}")
        with without_autocast(context.device):
            start = self.context(context.to(self.context.weight.dtype))  # (B, L*D*H)
        state: Tensor = start.unflatten(1, (-1, self.spec.hidden_size)).transpose(0, 1)
        return state

    def _check_start(self, initial_state: Any, context: Tensor | None) -> None:
        if self.context is not None and (context is None) == (initial_state is None):
            raise InputError("context and initial_state: a model with a context takes exactly one of them")
        if self.context is None and context is not None:
            raise InputError("context: this model has none; build it with context=Context(size), or leave it None")

    def _start(self, context: Tensor) -> States:
        start = self.initial_state(context)
        first, *others = self.spec.cell_definition.states
        return {first: start, **{name: torch.zeros_like(start) for name in others}}

    def _run(
        self, inputs: Tensor, valid: Tensor | None, initial_state: Any, dropout: Any
    ) -> tuple[Tensor, Tensor | States, Tensor | None]:
        outputs, final = self.core(self._read(inputs, valid), None, valid, initial_state, dropout)
        return outputs, final, self._scores(outputs, final, valid)

    def _in_parts(
        self, inputs: Tensor, valid: Tensor | None, initial_state: Any, dropout: Any, *, outputs: bool
    ) -> tuple[Tensor | None, Tensor | States, Tensor | None]:
        """The same with recomputing, embedding and head included: outputs are None unless they are wanted."""
        core, spec = self.core, self.spec
        if spec.embedding is None:
            check_inputs(inputs, spec.input_size)
        states, masks = core.checked_states(initial_state, inputs.shape[0]), masks_of_call(core, dropout)
        scored = spec.head is not None and spec.head.reads == "steps"

        def leave(y: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
            scores: Any = self._scores(y, y, mask) if scored else None
            return (*[y] * outputs, *[scores] * scored)

        found, named = core.in_parts(inputs, valid, states, masks, self._read, leave)
        final = named if len(named) > 1 else named[spec.cell_definition.output]
        scores = found[-1] if scored else self._scores(inputs, final, valid)
        return found[0] if outputs else None, final, scores

    def _read(self, inputs: Tensor, valid: Tensor | None) -> Tensor:
        """What the core reads, (B, T, I)."""
        return inputs if self.embedding is None else self._embedded(inputs, valid)

    def _embedded(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        assert self.embedding is not None
        if tokens.dim() != 2 or tokens.is_floating_point() or tokens.dtype == torch.bool:
            got = f"{tokens.dtype} of shape {tuple(tokens.shape)}"
            raise InputError(f"inputs: expected integer tokens (B, T), as the model has an embedding, got {got}")
        rows = tokens.long() if valid is None else torch.where(valid, tokens.long(), 0)
        embedded: Tensor = self.embedding(rows)  # (B, T, I)
        return embedded

    def _scores(self, outputs: Tensor, final: Tensor | States, valid: Tensor | None) -> Tensor | None:
        head, spec = self.head, self.spec
        if head is None or spec.head is None:
            return None
        if spec.head.reads == "final":
            top = final if isinstance(final, Tensor) else final[spec.cell_definition.output]
            states = list(top[-spec.num_directions :].unbind(0))  # D times (B, H)
            merged: Tensor = head(merge(spec.merge, states))
            return merged
        scores: Tensor = head(outputs)  # (B, T, O)
        return scores if valid is None else torch.where(valid[:, :, None], scores, 0.0)


def _empty(kind: type[nn.Module], *sizes: int, **options: Any) -> Any:
    """The module with its parameters unset, so that no global generator is used."""
    return nn.utils.skip_init(kind, *sizes, **options)
