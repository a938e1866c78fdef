"""`torch.nn.RNN` with all layers and directions; lengths are packed sequences.

A single bias is the input bias, and the recurrent one stays 0.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ...spec.backend import Result
from ...spec.inputs import Cotangents, Inputs
from ...spec.model import ModelSpec
from ..stateless import DifferentiatingStatelessBackend, StatelessModel
from .plain import (
    Array,
    beyond_layers,
    cotangent_arrays,
    initial_state,
    initial_state_or_zeros,
    lengths,
    named_gradients,
    result,
)

NAMES = {
    "input_weight": "weight_ih", "recurrent_weight": "weight_hh",
    "bias": "bias_ih", "input_bias": "bias_ih", "recurrent_bias": "bias_hh",
}  # fmt: skip


class TorchRNN(DifferentiatingStatelessBackend):
    """Inference, and gradients by autograd."""

    name = "torch.nn.RNN"
    masks = False

    def supports(self, spec: ModelSpec) -> str | None:
        """None, or why the model cannot be run."""
        if spec.nonlinearity not in ("tanh", "relu"):
            return f"torch.nn.RNN has tanh and relu, not {spec.nonlinearity}"
        if spec.merge != "concat":
            return f"torch.nn.RNN concatenates its directions, it has no {spec.merge}"
        return beyond_layers(spec)

    def results(self, model: StatelessModel, given: Inputs) -> Result:
        """Outputs and final state of the module."""
        with torch.no_grad():
            return result(model, *_run(_module(model), _tensor(given.inputs), _tensor(initial_state(given)), given))

    def derivatives(self, model: StatelessModel, given: Inputs, cotangents: Cotangents) -> dict[str, Array]:
        """Gradients of everything."""
        module, inputs = _module(model), _tensor(given.inputs).requires_grad_()
        state = _tensor(initial_state_or_zeros(model, given)).requires_grad_()
        arguments = [*(module.get_parameter(name) for name in _names(model)), inputs, state]
        weights = [_tensor(array) for array in cotangent_arrays(model, given, cotangents)]
        *found, of_inputs, of_state = torch.autograd.grad(_run(module, inputs, state, given), arguments, weights)
        return named_gradients(model.weights, found, of_inputs, of_state)


def _tensor(array: Array | None) -> Any:
    return None if array is None else torch.tensor(array)


def _module(model: StatelessModel) -> nn.RNN:
    spec = model.spec
    module = nn.RNN(
        spec.input_size, spec.hidden_size, spec.num_layers, nonlinearity=spec.nonlinearity, bias=spec.bias != "none",
        batch_first=True, bidirectional=spec.num_directions == 2, dtype=getattr(torch, model.dtype), device="meta",
    ).to_empty(device="cpu")  # fmt: skip
    values = {name: torch.tensor(array) for name, array in zip(_names(model), model.weights.values(), strict=True)}
    zeros = {name: torch.zeros_like(parameter) for name, parameter in module.named_parameters()}
    module.load_state_dict(zeros | values)
    return module


def _names(model: StatelessModel) -> Iterator[str]:
    """The module's names of the model's weights."""
    for canonical in model.weights:
        _, layer, direction, name = canonical.split(".")
        yield f"{NAMES[name]}_l{layer}{'_reverse' if direction == 'backward' else ''}"


def _run(module: nn.RNN, inputs: Any, state: Any, given: Inputs) -> Any:
    """Outputs (B, T, D*H) and final state (L*D, B, H)."""
    sizes = lengths(given)
    if sizes is None:
        return module(inputs, state)
    packed = pack_padded_sequence(inputs, torch.tensor(sizes), batch_first=True, enforce_sorted=False)
    outputs, final_state = module(packed, state)
    return pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])[0], final_state


BACKEND = TorchRNN()
