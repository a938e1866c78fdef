"""Weights to the spec and back: the table of names, and copies that keep every bit.

The layouts are the spec's own, so that a name is all that differs. The core's names are those of `torch.nn.RNN`,
and `bias_l{k}` for the single bias, which it does not have.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ..spec.model import ModelSpec
from ..spec.parameters import Weights, check_dtype, checked_weights, parameters

CORE_NAMES = {
    "input_weight": "weight_ih",
    "recurrent_weight": "weight_hh",
    "bias": "bias",
    "input_bias": "bias_ih",
    "recurrent_bias": "bias_hh",
}
DIRECTION_SUFFIXES = {"forward": "", "backward": "_reverse"}


def state_dict_names(spec: ModelSpec, core_prefix: str | None = None) -> dict[str, str]:
    """The name in the state dict for each canonical name, in canonical order.

    The core's names have the prefix `core.` in a `SequenceModel`, none in a `Recurrent`; None: as `build` decides.
    """
    prefix = ("" if spec.is_core else "core.") if core_prefix is None else core_prefix
    return {parameter.name: _state_dict_name(parameter.name, prefix) for parameter in parameters(spec)}


def _state_dict_name(name: str, prefix: str) -> str:
    if not name.startswith("layers."):
        return name  # embedding, context and head are modules of these names
    _, layer, direction, part = name.split(".")
    return f"{prefix}{CORE_NAMES.get(part, part)}_l{layer}{DIRECTION_SUFFIXES[direction]}"


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters by canonical name."""
    return {name: model.get_parameter(own) for name, own in names_of(model).items()}


def names_of(model: nn.Module) -> dict[str, str]:
    """The name in the model's state dict for each canonical name."""
    return state_dict_names(spec_of(model), str(model.core_prefix))


def to_spec(model: nn.Module) -> Weights:
    """A copy of the weights under their canonical names. Raises WeightError for half precision."""
    model_dtype(model)
    return {name: to_array(parameter) for name, parameter in named_parameters(model).items()}


def from_spec(model: nn.Module, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None:
    """Set all weights. Raises WeightError unless every name, shape and dtype fits."""
    own = named_parameters(model)
    with torch.no_grad():
        for name, array in checked_weights(spec_of(model), weights, model_dtype(model), cast=cast).items():
            own[name].copy_(to_tensor(array))


def spec_of(model: nn.Module) -> ModelSpec:
    """What the model is."""
    spec: Any = model.spec
    assert isinstance(spec, ModelSpec)
    return spec


def model_dtype(model: nn.Module) -> str:
    """`float32` or `float64`. Raises WeightError for a model in another dtype: NumPy's seam knows these two."""
    return check_dtype(dtype_name(next(model.parameters()).dtype))


def dtype_name(dtype: str | torch.dtype) -> str:
    """`float32` for "float32" and for torch.float32."""
    return str(dtype).removeprefix("torch.")


def to_array(tensor: Tensor) -> NDArray[Any]:
    """A copy, in C order."""
    return np.array(tensor.detach().cpu().numpy(), order="C")


def to_tensor(array: NDArray[Any], device: torch.device | None = None) -> Tensor:
    """A copy, on the device."""
    return torch.tensor(np.ascontiguousarray(array), device=device).reshape(array.shape)
