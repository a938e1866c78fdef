"""`Recurrent`, the core, for use inside any model (SPEC.md, 4 to 6)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..spec.dropout import Masks
from ..spec.errors import InputError, SpecError, listed
from ..spec.model import ModelSpec
from ..spec.parameters import check_dtype, initial_weights
from ..spec.recomputing import checked_recompute
from .arguments import check_inputs, check_tensor, one_step, valid_steps
from .dropout import count_calls, masks_of_call
from .layers import Layers, States
from .recomputing import recomputed
from .recurrence import without_autocast
from .weights import dtype_name, from_spec


class Recurrent(Layers):
    """A recurrent network of any variant, for use inside any model; batch-first.

        h_t = f(W_x x_t + W_h h_{t-1} + b), in each layer and direction

    B batch, T time steps, I input size, H hidden size, L layers, D directions, F = D*H with merge `concat`, else H.

    Parameters, rows are output units (G*H of them for a cell of G gates):
        weight_ih_l{k}[_reverse]: W_x (H, I) for k = 0, (H, F) above.
        weight_hh_l{k}[_reverse]: W_h (H, H).
        bias_l{k}[_reverse]: b (H,), for bias `single`.
        bias_ih_l{k}[_reverse], bias_hh_l{k}[_reverse]: (H,) each, for bias `double`.

    With bias `double`, merge `concat` and tanh or relu the state dict is that of `torch.nn.RNN(batch_first=True)`,
    and loads there and back. Other than there, lengths may be 0, steps may be masked anywhere, and what stands in
    the padding (NaN too) reaches no output and no gradient. The loop runs in the dtype of the weights: inputs are
    converted to it, also under autocast. Second derivatives and the transforms of torch.func are refused.

    A spec with dropout drops in `train()` mode, and not in `eval()` mode or in `step`. The first call in `train()` mode
    has the masks of update 1, the next one those of update 2: a loop of one call an update drops what a trainer drops
    whose seed is `dropout_seed`. No generator of torch is used. Another start is `module.dropout_calls.fill_(n)`,
    which no state dict holds; calls that are to repeat a mask (activation checkpoints) or to share an update
    (accumulation, ranks) name their masks: `module(x, dropout=Masks(seed, update, first_row))`.

    Args:
        spec: what the model is; without embedding, head and context.
        seed: of the initial weights, which the spec draws (torch's generators stay as they are), and of the masks;
            None leaves the weights unset, for a caller who loads them next, and is 0 for the masks.
        dtype: `float32` or `float64`, as text or torch's own.
        device: where the parameters are made.
        recompute: gradients take less memory and a forward pass more; results are the same (SPEC.md, 13.4).

    Raises:
        SpecError: the spec has an embedding, a head or a context; take `SequenceModel`.
        UnsupportedError: `recompute` of a model that cannot be run part by part.
        WeightError: another dtype; convert with `.to()` after.
        UnsupportedError: this backend has not got the cell.
    """

    backend_name = "torch"

    def __init__(
        self,
        spec: ModelSpec,
        *,
        seed: int | None = 0,
        dtype: str | torch.dtype = "float32",
        device: torch.device | str | None = None,
        recompute: bool = False,
    ) -> None:
        if not spec.is_core:
            raise SpecError("Recurrent: expected a spec without embedding, head and context; use SequenceModel")
        name = check_dtype(dtype_name(dtype))
        super().__init__(spec, getattr(torch, name), device)
        self.recompute = recompute
        count_calls(self, spec, seed, device)
        if seed is not None:
            from_spec(self, initial_weights(spec, seed, name))

    def forward(
        self,
        inputs: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        initial_state: Tensor | Mapping[str, Tensor] | None = None,
        dropout: Masks | bool | None = None,
    ) -> tuple[Tensor, Tensor | States]:
        """Run on whole sequences.

        Args:
            inputs: (B, T, I).
            lengths: (B,) integers; a step t >= length is not valid. Their values are not checked: beyond T means T,
                below 0 means 0. On a GPU they are looked at only for cuDNN, which waits for them (SPEC.md, 13.5).
            mask: (B, T) bool, True where a step is valid; instead of lengths.
            initial_state: (L*D, B, H), index l*D + d, or a dict with one for each state; None for zeros.
            dropout: the masks of this call; False drops nothing; None is the next update's masks in `train()` mode.

        Returns:
            outputs: (B, T, F), 0 at invalid steps.
            final_state: (L*D, B, H), after the last valid step in reading order; a dict where the cell has several.

        Raises:
            InputError: a shape, dtype or type does not fit, or lengths and a mask are both given.
            UnsupportedError: a transform of torch.func, or forward-mode differentiation, is at work.
        """
        check_inputs(inputs, self.spec.input_size)
        with without_autocast(inputs.device):
            valid = valid_steps(inputs, lengths, mask)
            states = self.checked_states(initial_state, inputs.shape[0])
            masks = masks_of_call(self, dropout)
            if self.recompute and torch.is_grad_enabled():
                (outputs,), final = self.in_parts(inputs, valid, states, masks, lambda x, _: x, lambda y, _: (y,))
            else:
                outputs, final = self._layers(inputs, valid, states, masks)
        return outputs, final if len(final) > 1 else final[self._output]

    @property
    def recompute(self) -> bool:
        """Whether gradients are had by recomputing; may be set. Raises SpecError, UnsupportedError."""
        return self._recompute

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self._recompute = checked_recompute(self.spec, recompute)

    def in_parts(
        self,
        inputs: Tensor,
        valid: Tensor | None,
        states: States,
        masks: Masks | None,
        enter: Callable[[Tensor, Tensor | None], Tensor],
        leave: Callable[[Tensor, Tensor | None], tuple[Tensor, ...]],
    ) -> tuple[list[Tensor], States]:
        """What `leave` gives of the outputs for what `enter` gives of the inputs, and final states, with recomputing.

        Both take (B, t, ...) of a part of the steps, and its mask (B, t) or None.
        """

        def run(x: Tensor, mask: Tensor | None, starts: States) -> tuple[tuple[Tensor, ...], States]:
            y, final = self._layers(enter(x, mask), mask, starts, masks)
            whole = len(starts[self._output]) == len(states[self._output])
            return leave(y, mask) if whole else (), final

        return recomputed(run, inputs, valid, states, len(self._directions))

    def step(self, x: Tensor, state: Tensor | Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor | States]:
        """One time step, for streaming: x (B, I), state as from the step before, None for zeros. Drops nothing.

        Returns the outputs (B, F) and the new state.

        Raises:
            SpecError: the model reads backward as well.
            InputError: a shape or dtype does not fit.
        """
        self.spec.check_streams(state_given=state is not None)
        outputs, final = self(one_step(x), initial_state=state, dropout=False)
        return outputs.squeeze(1), final

    def extra_repr(self) -> str:
        """The spec in one line."""
        spec = self.spec
        return (
            f"{spec.variant}, {spec.input_size}, {spec.hidden_size}, num_layers={spec.num_layers}, cell={spec.cell}, "
            f"nonlinearity={spec.nonlinearity}, bias={spec.bias}, merge={spec.merge}"
        )

    def checked_states(self, given: Tensor | Mapping[str, Tensor] | None, B: int) -> States:
        """The initial states by name, (L*D, B, H) each, in the dtype of the weights. Raises InputError."""
        weight = self._weight(0, "forward", "recurrent_weight")
        shape = (self.spec.num_layers * len(self._directions), B, self.spec.hidden_size)
        if given is None:
            return {name: weight.new_zeros(shape) for name in self._state_names}
        states = given if isinstance(given, Mapping) else {self._state_names[0]: given}
        if set(states) != set(self._state_names):
            raise InputError(
                f"initial_state: expected the states {listed(self._state_names)}, got {listed(states)}; "
                "give a dict with each of them"
            )
        for name in self._state_names:
            check_tensor(f"initial_state {name}", states[name])
            if tuple(states[name].shape) != shape:
                raise InputError(f"initial_state {name}: expected shape {shape}, got {tuple(states[name].shape)}")
        return {name: states[name].to(weight.dtype) for name in self._state_names}
