"""Weights to the spec and back: copies that keep every bit.

The layouts are the spec's own, so that a name is all that differs; `naming` has the names.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec
from ..spec.errors import WeightError
from ..spec.model import ModelSpec
from ..spec.parameters import DTYPES, Weights, checked_weights
from .naming import state_dict_names as state_dict_names


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters by canonical name."""
    return {name: model.get_parameter(own) for name, own in names_of(model).items()}


def names_of(model: nn.Module) -> dict[str, str]:
    """The name in the model's state dict for each canonical name."""
    return state_dict_names(spec_of(model), str(model.core_prefix))


def to_spec(model: nn.Module) -> Weights:
    """A copy of the weights under their canonical names. Raises WeightError as `model_dtype` does."""
    model_dtype(model)
    return {name: to_array(parameter) for name, parameter in named_parameters(model).items()}


def from_spec(model: nn.Module, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None:
    """Set all weights. Raises WeightError unless every name, shape and dtype fits."""
    own = named_parameters(model)
    with torch.no_grad():
        for name, array in checked_weights(spec_of(model), weights, model_dtype(model), cast=cast).items():
            own[name].copy_(to_tensor(array))


def spec_of(model: nn.Module) -> AnySpec:
    """What the model is."""
    spec: Any = model.spec
    assert isinstance(spec, ModelSpec | EncoderDecoderSpec)
    return spec


def model_dtype(model: nn.Module) -> str:
    """`float32` or `float64`, which NumPy's seam knows.

    Raises:
        WeightError: a model in another dtype or in several, or without numbers.
    """
    kind, found = type(model).__name__, sorted({dtype_name(parameter.dtype) for parameter in model.parameters()})
    if any(parameter.is_meta for parameter in model.parameters()):
        raise WeightError(
            f"{kind}: expected weights with numbers, got the device 'meta', which has none; "
            "call its to_empty(device='cpu'), then load_state_dict"
        )
    if len(found) != 1 or found[0] not in DTYPES:
        raise WeightError(
            f"{kind}: expected weights of {' or '.join(DTYPES)} throughout, got {' and '.join(found) or 'none'}; "
            "give model.float(), which holds every number of float16 and bfloat16"
        )
    return found[0]


def dtype_name(dtype: str | torch.dtype) -> str:
    """`float32` for "float32" and for torch.float32."""
    return str(dtype).removeprefix("torch.")


def to_array(tensor: Tensor) -> NDArray[Any]:
    """A copy, in C order."""
    return np.array(tensor.detach().cpu().numpy(), order="C")


def to_tensor(array: NDArray[Any], device: torch.device | None = None) -> Tensor:
    """A copy, on the device."""
    return torch.tensor(np.ascontiguousarray(array), device=device).reshape(array.shape)
