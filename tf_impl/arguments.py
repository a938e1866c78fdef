"""What the Keras objects are given, checked: dtypes, masks and lengths, states (SPEC.md, 6 and 7).

Shapes are checked where they are known; values only eagerly, as a graph cannot raise.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from ..spec.encoder_decoder import AnySpec, Source
from ..spec.errors import InputError, UnsupportedError, listed
from ..spec.inputs import Inputs
from ..spec.model import ModelSpec
from ..spec.parameters import check_dtype

Tensor = Any
Tensors = dict[str, Any]


def checked_dtype(dtype: Any) -> str:
    """`float32` or `float64` out of a name, a dtype or a Keras policy.

    Raises:
        UnsupportedError: mixed precision or quantization, of this policy or of Keras' global one.
        WeightError: another dtype.
    """
    policy = keras.dtype_policies.get(getattr(dtype, "name", dtype) if not isinstance(dtype, dict) else dtype)
    for where, found in (("dtype", policy), ("Keras' global policy", keras.config.dtype_policy())):
        if found.compute_dtype != found.variable_dtype or found.quantization_mode is not None:
            raise UnsupportedError(
                f"{where} {found.name!r}: expected float32 or float64 throughout, got mixed precision; "
                "build the model before keras.config.set_dtype_policy, or under the policy 'float32'"
            )
    return check_dtype(policy.name)


def check_shape(shape: Any, spec: ModelSpec) -> None:
    """Raises InputError unless what is known of the shape fits (B, T, I), or (B, T) where there is an embedding."""
    rank = 2 if spec.embedding else 3
    if len(shape) != rank or 0 in tuple(shape) or (rank == 3 and shape[2] not in (None, spec.input_size)):
        wanted = f"(B, T, {spec.input_size})" if rank == 3 else "(B, T) tokens"
        raise InputError(f"inputs: expected shape {wanted} with B and T at least 1, got {tuple(shape)}")


def check_inputs(inputs: Tensor, spec: ModelSpec) -> None:
    """`check_shape`, and real numbers, or integers where there is an embedding. Raises InputError."""
    check_shape(inputs.shape, spec)
    if spec.embedding and not _dtype(inputs).is_integer:
        raise InputError(
            f"inputs: expected integer tokens (B, T), as the model has an embedding, got {_dtype(inputs).name}; "
            "convert them, or give keras.Input a dtype of integers"
        )
    if not spec.embedding and not _dtype(inputs).is_floating:
        raise InputError(f"inputs: expected floating-point numbers, got {_dtype(inputs).name}; convert them first")


def valid_steps(inputs: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Tensor | None:
    """The mask (B, T) that lengths, a mask or the mask that Keras has put on the inputs stand for.

    Raises:
        InputError: there are lengths and a mask, a shape or dtype is wrong, or (eagerly) a length is outside 0 .. T.
    """
    mask = getattr(inputs, "_keras_mask", None) if mask is None else mask
    if lengths is not None and mask is not None:
        raise InputError("lengths and mask: expected one of them, got both; lengths are the mask t < length")
    if lengths is not None:
        return _mask_of(inputs, tf.convert_to_tensor(lengths))
    if mask is None:
        return None
    mask = tf.convert_to_tensor(mask)
    if mask.dtype != tf.bool:
        raise InputError(f"mask: expected bool, True where a step is valid, got {mask.dtype.name}; give mask != 0")
    _check_shape("mask", mask, inputs.shape[:2])
    return mask


def _mask_of(inputs: Tensor, lengths: Tensor) -> Tensor:
    if not lengths.dtype.is_integer:
        raise InputError(f"lengths: expected integers (B,), got {lengths.dtype.name}")
    _check_shape("lengths", lengths, inputs.shape[:1])
    if tf.executing_eagerly() and not (
        0 <= int(tf.reduce_min(lengths)) <= int(tf.reduce_max(lengths)) <= inputs.shape[1]
    ):
        raise InputError(f"lengths: expected values from 0 to T = {inputs.shape[1]}, got {lengths.numpy().tolist()}")
    return tf.range(tf.shape(inputs)[1], dtype=lengths.dtype) < lengths[:, None]


def states_by_name(spec: ModelSpec, given: Any, inputs: Tensor, dtype: str) -> Tensors:
    """States (L*D, B, H) by name, for inputs (B, ...): zeros where none are given. Raises InputError."""
    names, rows = spec.cell_definition.states, spec.num_layers * spec.num_directions
    if given is None:
        B = tf.shape(inputs)[0] if inputs.shape[0] is None else inputs.shape[0]
        return {name: tf.zeros([rows, B, spec.hidden_size], dtype) for name in names}
    if not isinstance(given, Mapping):
        if len(names) > 1:
            raise InputError(f"state: cell {spec.cell} has the states {listed(names)}; give a dict with each of them")
        given = {names[0]: given}
    if set(given) != set(names):
        raise InputError(f"state: expected the states {listed(names)}, got {listed(given)}")
    shape = (rows, inputs.shape[0], spec.hidden_size)
    return {name: real(f"state {name}", given[name], shape, dtype) for name in names}


def real(where: str, given: Any, shape: Any, dtype: str) -> Tensor:
    """Real numbers of this shape, None where it is unknown, as a tensor of the dtype. Raises InputError."""
    tensor = tf.cast(given, dtype) if hasattr(given, "dtype") else tf.convert_to_tensor(given, dtype)
    _check_shape(where, tensor, shape)
    return tf.ensure_shape(tensor, shape)  # a graph may know less of it


def context_of(given: Mapping[str, Tensor]) -> Any:
    """The context among tensors by name: a vector, a `Source`, or None."""
    if "source.inputs" in given:
        return Source(given["source.inputs"], mask=given.get("source.mask"))
    return given.get("context")


def tensors_of(given: Inputs) -> dict[str, Any]:
    """The arguments of a run by name, those that are not given as None."""
    found = {"inputs": given.inputs, "mask": given.mask, "context": given.context}
    found |= {f"initial.{name}": state for name, state in (given.initial_states or {}).items()}
    if given.source is not None:
        found |= {"source.inputs": given.source.inputs, "source.mask": given.source.mask}
    return found


def single_or_all(states: dict[str, Any]) -> Any:
    """The only state itself, or the dict of several."""
    return next(iter(states.values())) if len(states) == 1 else states


def named_states(spec: AnySpec, states: Any) -> Tensors:
    """The states by name, whether there is one or a dict of several."""
    return states if isinstance(states, dict) else {spec.cell_definition.states[0]: states}


def _dtype(given: Tensor) -> Any:
    return tf.as_dtype(given.dtype)


def _check_shape(where: str, tensor: Tensor, expected: Any) -> None:
    if not tf.TensorShape(expected).is_compatible_with(tensor.shape):
        raise InputError(f"{where}: expected shape {tuple(expected)}, got {tuple(tensor.shape)}")
