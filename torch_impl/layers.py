"""The layers of the core: projections, directions and merging, by the loop that is for them (SPEC.md, 4 and 5)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..spec.dropout import Masks
from ..spec.model import ModelSpec
from ..spec.parameters import parameters
from . import cudnn, dropout, fast
from .cells import load_cell
from .merging import merge
from .packing import Rows, reads_values, valid_rows
from .recurrence import recurrence, times
from .weights import names_of

States = dict[str, Tensor]


class Layers(nn.Module):
    """The parameters of a core, and its layers, run on arguments that are checked."""

    core_prefix = ""  # of the core's names in the state dict

    def __init__(self, spec: ModelSpec, dtype: torch.dtype, device: torch.device | str | None) -> None:
        super().__init__()
        self.spec = spec
        self._in_place, self._native = load_cell(spec.cell).IN_PLACE, cudnn.has(spec)
        # Read once, as torch.compile does not follow the spec into its YAML files.
        self._state_names, self._output = spec.cell_definition.states, spec.cell_definition.output
        self._directions, self._output_size = spec.directions, spec.output_size
        self._names = names_of(self)
        for parameter in parameters(spec):
            values = torch.empty(parameter.shape, dtype=dtype, device=device)
            self.register_parameter(self._names[parameter.name], nn.Parameter(values))

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
