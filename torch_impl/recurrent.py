"""`Recurrent`, the core: layers, directions and merging (SPEC.md, 4 and 5)."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..spec.dropout import Masks
from ..spec.errors import InputError, SpecError, listed
from ..spec.model import ModelSpec
from ..spec.parameters import check_dtype, initial_weights, parameters
from ..spec.recomputing import check_recomputes
from . import cudnn, dropout, fast
from .arguments import check_inputs, check_tensor, one_step, valid_steps
from .cells import load_cell
from .dropout import count_calls, masks_of_call
from .merging import merge
from .packing import Rows, reads_values, valid_rows
from .recomputing import recomputed
from .recurrence import recurrence, times, without_autocast
from .weights import dtype_name, from_spec, names_of

States = dict[str, Tensor]


class Recurrent(nn.Module):
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
    core_prefix = ""  # of the core's names in the state dict

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
        if not spec.is_core:
            raise SpecError("Recurrent: expected a spec without embedding, head and context; use SequenceModel")
        if recompute:
            check_recomputes(spec)
        self.spec = spec
        self.recompute = recompute
        self._in_place, self._native = load_cell(spec.cell).IN_PLACE, cudnn.has(spec)
        # Read once, as torch.compile does not follow the spec into its YAML files.
        self._state_names, self._output = spec.cell_definition.states, spec.cell_definition.output
        self._directions, self._output_size = spec.directions, spec.output_size
        self._names = names_of(self)
        name = check_dtype(dtype_name(dtype))
        for parameter in parameters(spec):
            values = torch.empty(parameter.shape, dtype=getattr(torch, name), device=device)
            self.register_parameter(self._names[parameter.name], nn.Parameter(values))
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

    def _layers(
        self, inputs: Tensor, valid: Tensor | None, initial: States, masks: Masks | None
    ) -> tuple[Tensor, States]:
        inputs, dropped = inputs.to(self._weight(0, "forward", "recurrent_weight").dtype), self.spec.dropout
        if self._in_place and not (masks and dropped and (dropped.inputs or dropped.state)):
            native = self._native and cudnn.at_hand(inputs)
            rows = valid_rows(valid) if valid is not None and (native or reads_values(valid)) else None
            if valid is None or rows is not None:
                run = self._cudnn_layers if native and cudnn.takes(rows) else self._fast_layers
                outputs, state = run(inputs, rows, initial[self._output], masks)
                return outputs, {self._output: state}
        return self._plain_layers(inputs, valid, initial, masks)

    def _fast_layers(
        self, inputs: Tensor, rows: Rows | None, initial: Tensor, masks: Masks | None
    ) -> tuple[Tensor, Tensor]:
        states = initial if rows is None else rows.states_taken(initial)
        x, finals, D = inputs, [], len(self._directions)
        whole, last = D == 1 or self.spec.merge == "concat", len(states) // D - 1
        for layer, start in enumerate(states.split(D)):
            series, final = fast.layer(
                x,
                self._joined(layer, "input_weight", self._directions),
                self._bias(layer),
                [self._weight(layer, direction, "recurrent_weight") for direction in self._directions],
                start,
                rows,
                self.spec.nonlinearity,
                put_back=rows is None or (layer == last and whole),
            )
            finals.append(final)
            x = series if whole else merge(self.spec.merge, list(series.chunk(2, dim=-1)))
            x = times(x, self._between_layers(inputs, rows, layer, masks))
        if rows is None:
            return x, torch.cat(finals)  # (L*D, B, H)
        return x if whole else rows.put_back(x), rows.states_put_back(torch.cat(finals))

    def _cudnn_layers(
        self, inputs: Tensor, rows: Rows | None, initial: Tensor, masks: Masks | None
    ) -> tuple[Tensor, Tensor]:
        D, L = len(self._directions), len(initial) // len(self._directions)
        x, states = (inputs, initial) if rows is None else (rows.taken(inputs), rows.states_taken(initial))
        weights = [self._all_weights(layer, direction) for layer in range(L) for direction in self._directions]
        together, finals = D if masks else L * D, []  # what is dropped between layers is dropped between calls
        for first in range(0, L * D, together):
            own = slice(first, first + together)
            x, final = cudnn.layers(x, weights[own], D == 2, states[own], rows, self.spec.nonlinearity)
            finals.append(final)
            x = times(x, self._between_layers(inputs, rows, first // D, masks))
        if rows is None:
            return x, torch.cat(finals)  # (L*D, B, H)
        return rows.put_back(x), rows.states_put_back(torch.cat(finals))

    def _all_weights(self, layer: int, direction: str) -> list[Tensor]:
        """The input weight, the recurrent weight, and two biases, of which a single one is the first, or none."""
        biases = {"none": (), "single": ("bias",), "double": ("input_bias", "recurrent_bias")}[self.spec.bias]
        found = [self._weight(layer, direction, name) for name in ("input_weight", "recurrent_weight", *biases)]
        return [*found, torch.zeros_like(found[-1])] if self.spec.bias == "single" else found

    def _between_layers(self, inputs: Tensor, rows: Rows | None, layer: int, masks: Masks | None) -> Tensor | None:
        """The factors of dropout of a layer's merged outputs, in their order."""
        shape = (inputs.shape[1], inputs.shape[0], self._output_size)
        factors = dropout.factors(self.spec, masks, "between_layers", layer, 0, shape, inputs)
        if factors is None:
            return None
        batch = factors.expand(shape).transpose(0, 1)  # (B, T, F)
        return batch if rows is None else rows.taken(batch)

    def _bias(self, layer: int) -> Tensor | None:
        """All that is added to the argument of f, for both directions, (D*H,), or None."""
        names = {"none": (), "single": ("bias",), "double": ("input_bias", "recurrent_bias")}[self.spec.bias]
        biases = [self._joined(layer, name, self._directions) for name in names]
        return sum(biases[1:], biases[0]) if biases else None

    def _plain_layers(
        self, inputs: Tensor, valid: Tensor | None, initial: States, masks: Masks | None
    ) -> tuple[Tensor, States]:
        x = inputs.transpose(0, 1)  # (T, B, I)
        mask = None if valid is None else valid.t()  # (T, B)
        if mask is not None:
            x = torch.where(mask[:, :, None], x, 0.0)
        final: dict[str, list[Tensor]] = {name: [] for name in self._state_names}
        for layer in range(len(initial[self._output]) // len(self._directions)):
            outputs = []
            for series, end in self._layer(layer, x, mask, initial, masks):
                y = series[self._output]  # (T, B, H)
                outputs.append(y if mask is None else torch.where(mask[:, :, None], y, 0.0))
                for name, states in series.items():
                    final[name].append(states[end])
            x = merge(self.spec.merge, outputs)  # (T, B, F)
            x = times(x, dropout.factors(self.spec, masks, "between_layers", layer, 0, x.shape, x))
        return x.transpose(0, 1), {name: torch.stack(states) for name, states in final.items()}

    def _layer(
        self, layer: int, x: Tensor, mask: Tensor | None, initial: States, masks: Masks | None
    ) -> Iterator[tuple[States, int]]:
        """For each direction the series of states, (T, B, H) by name, and the place of the last of them."""
        (T, B, _), D, H = x.shape, len(self._directions), self.spec.hidden_size
        projections = self._projections(layer, x, masks)
        for d, direction in enumerate(self._directions):
            series = recurrence(
                projections[d],
                self._weight(layer, direction, "recurrent_weight"),
                self._weight(layer, direction, "recurrent_bias") if self.spec.bias == "double" else None,
                {name: states[layer * D + d] for name, states in initial.items()},
                mask,
                factors=dropout.factors(self.spec, masks, "state", layer, d, (T, B, H), x),
                cell=self.spec.cell,
                nonlinearity=self.spec.nonlinearity,
                reverse=direction == "backward",
            )
            yield series, 0 if direction == "backward" else -1

    def _projections(self, layer: int, x: Tensor, masks: Masks | None) -> Sequence[Tensor]:
        """The input projections of all steps, (T, B, G*H) for each direction: one product where both read the same."""
        D = len(self._directions)
        kept = [dropout.factors(self.spec, masks, "inputs", layer, d, x.shape, x) for d in range(D)]
        if kept[0] is None:
            return self._project(layer, x, self._directions).chunk(D, dim=2)
        pairs = zip(kept, self._directions, strict=True)
        return [self._project(layer, times(x, m), (direction,)) for m, direction in pairs]

    def _project(self, layer: int, x: Tensor, directions: tuple[str, ...]) -> Tensor:
        """The input projections of all steps and some directions as one product, (T, B, D*G*H)."""
        name = {"none": None, "single": "bias", "double": "input_bias"}[self.spec.bias]
        bias = None if name is None else self._joined(layer, name, directions)
        return nn.functional.linear(x, self._joined(layer, "input_weight", directions), bias)

    def _joined(self, layer: int, name: str, directions: tuple[str, ...]) -> Tensor:
        parts = [self._weight(layer, direction, name) for direction in directions]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _weight(self, layer: int, direction: str, name: str) -> Tensor:
        weight: Tensor = getattr(self, self._names[f"layers.{layer}.{direction}.{name}"])
        return weight

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
