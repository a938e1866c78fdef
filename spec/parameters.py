"""Names, shapes and initial values of a model's parameters: the canonical weights (SPEC.md, 9 to 11)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .encoder_decoder import AnySpec, EncoderDecoderSpec
from .errors import WeightError, listed
from .initializers import draw
from .model import ModelSpec

Weights = dict[str, NDArray[Any]]
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Parameter:
    """One parameter: its canonical name, its shape, and the kind its initializer goes by."""

    name: str
    shape: tuple[int, ...]
    role: str

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape))


def parameters(spec: AnySpec) -> tuple[Parameter, ...]:
    """All parameters of a model in canonical order: embedding, context, layers from the bottom, head.

    Those of an encoder come before those of its decoder.
    """
    if isinstance(spec, EncoderDecoderSpec):
        sides = spec.sides.items()
        return tuple(replace(own, name=f"{side}.{own.name}") for side, part in sides for own in parameters(part))
    H, F = spec.hidden_size, spec.output_size
    found = []
    if spec.embedding:
        found.append(Parameter("embedding.weight", (spec.embedding.vocabulary_size, spec.input_size), "embedding"))
    if spec.context:
        rows = spec.num_layers * spec.num_directions * H
        found.append(Parameter("context.weight", (rows, spec.context.size), "context"))
        found.append(Parameter("context.bias", (rows,), "bias"))
    for layer in range(spec.num_layers):
        for direction in spec.directions:
            found += _direction_parameters(spec, layer, direction)
    if spec.head:
        found.append(Parameter("head.weight", (spec.head.size, F), "head"))
        if spec.head.bias:
            found.append(Parameter("head.bias", (spec.head.size,), "bias"))
    return tuple(found)


def _direction_parameters(spec: ModelSpec, layer: int, direction: str) -> list[Parameter]:
    cell = spec.cell_definition
    sizes = {"G*H": len(cell.gates) * spec.hidden_size, "H": spec.hidden_size, "I": spec.layer_input_size(layer)}
    return [
        Parameter(
            f"layers.{layer}.{direction}.{name}",
            tuple(sizes[symbol] for symbol in symbols),
            name if name in ("input_weight", "recurrent_weight") else "bias",
        )
        for name, symbols in cell.parameters_for(spec.bias).items()
    ]


def initial_weights(spec: AnySpec, seed: int, dtype: str = "float32") -> Weights:
    """The initial values of all parameters: the same bits for the same seed on every machine.

    float32 values are the float64 values, rounded.
    """
    check_dtype(dtype)
    if isinstance(spec, ModelSpec):
        return _drawn(spec, seed, dtype, "")
    return {name: a for side, part in spec.sides.items() for name, a in _drawn(part, seed, dtype, f"{side}.").items()}


def _drawn(spec: ModelSpec, seed: int, dtype: str, prefix: str) -> Weights:
    """The same of one network, under names with a prefix, each of which has a stream of its own."""
    widths = {"embedding": spec.input_size, "head": spec.output_size}
    if spec.context:
        widths["context"] = spec.context.size
    values = {}
    for parameter in parameters(spec):
        width = widths.get(parameter.name.split(".")[0], spec.hidden_size)
        rule = getattr(spec.initializer, parameter.role)
        name = prefix + parameter.name
        values[name] = draw(rule, seed, name, parameter.shape, width).astype(dtype)
    return values


def check_dtype(dtype: object) -> str:
    """The name of a supported dtype. Raises WeightError."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", getattr(dtype, "__name__", str(dtype)))
    if name not in DTYPES:
        raise WeightError(f"dtype: expected one of {listed(DTYPES)}, got {name!r}")
    return name


def weights_dtype(weights: Mapping[str, NDArray[Any]]) -> str:
    """The one dtype of all weights. Raises WeightError when there are several, none, or an unsupported one."""
    found = sorted({array.dtype.name for array in weights.values()})
    if len(found) != 1:
        raise WeightError(f"weights: expected one dtype for all, got {listed(found)}; convert them to one")
    return check_dtype(found[0])


def checked_weights(spec: AnySpec, weights: Mapping[str, ArrayLike], dtype: str, *, cast: bool = False) -> Weights:
    """The weights in canonical order, checked against the spec; the arrays are not copied unless converted.

    Raises:
        WeightError: a name is missing or surplus, a shape or dtype is another; with `cast` a float dtype is converted.
    """
    expected = {parameter.name: parameter for parameter in parameters(spec)}
    missing, surplus = set(expected) - set(weights), set(weights) - set(expected)
    if missing or surplus:
        raise WeightError(f"weights of a {spec.title}: missing {listed(missing)}; surplus {listed(surplus)}")
    return {name: _checked(parameter, np.asarray(weights[name]), dtype, cast) for name, parameter in expected.items()}


def _checked(parameter: Parameter, array: NDArray[Any], dtype: str, cast: bool) -> NDArray[Any]:
    if array.shape != parameter.shape:
        raise WeightError(f"weight {parameter.name}: expected shape {parameter.shape}, got {array.shape}")
    if array.dtype == np.dtype(dtype):
        return array
    if array.dtype.newbyteorder("=") == np.dtype(dtype):
        return array.astype(dtype)
    if cast and array.dtype.kind == "f":
        return array.astype(dtype)
    way_out = "pass cast=True to convert" if array.dtype.kind == "f" else "give floating-point numbers"
    raise WeightError(f"weight {parameter.name}: expected dtype {dtype}, got {array.dtype.name}; {way_out}")
