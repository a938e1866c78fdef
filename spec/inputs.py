"""What a model is run on: arrays checked once, at the seam, for all backends (SPEC.md, 6 and 7)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .encoder_decoder import AnySpec, EncoderDecoderSpec, Source
from .errors import InputError, listed
from .model import ModelSpec

Array = NDArray[Any]
States = dict[str, Array]


@dataclass(frozen=True)
class Inputs:
    """Checked arguments of a run.

    Attributes:
        inputs: (B, T, I) in the model's dtype, or tokens (B, T) of int64.
        mask: (B, T) bool, True where a step is valid; None where all are.
        initial_states: by state name, (L*D, B, H) each; None for zeros (or for what the context gives).
        context: (B, C), or None.
        source: what an encoder reads, or None.
    """

    inputs: Array
    mask: NDArray[np.bool_] | None
    initial_states: States | None
    context: Array | None
    source: "Inputs | None" = None


def checked_inputs(
    spec: AnySpec,
    dtype: str,
    inputs: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    initial_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
    context: ArrayLike | Source | None = None,
) -> Inputs:
    """Arguments in the form that every backend computes with; numbers are converted to the model's dtype.

    Raises:
        InputError: a shape, a dtype, a length, a token or a combination that the model has no meaning for.
    """
    array = as_array("inputs", inputs)
    rank = 2 if spec.embedding else 3
    wanted = "(B, T) tokens" if spec.embedding else f"(B, T, {spec.input_size})"
    if array.ndim != rank or (rank == 3 and array.shape[2] != spec.input_size) or 0 in array.shape:
        raise InputError(f"inputs: expected shape {wanted} with B and T at least 1, got {array.shape}")
    batch, steps = array.shape[:2]
    valid = checked_mask(batch, steps, lengths, mask)
    array = _tokens(array, spec.embedding.vocabulary_size, valid) if spec.embedding else numbers("inputs", array, dtype)
    states = None if initial_state is None else checked_states(spec, dtype, batch, initial_state, "initial_state")
    _check_start(spec, states, context)
    if context is None:
        return Inputs(array, valid, states, None)
    if isinstance(spec, EncoderDecoderSpec):
        return Inputs(array, valid, None, None, checked_source(spec, dtype, batch, context))
    return Inputs(array, valid, states, checked_context(spec, dtype, batch, context))


def checked_source(spec: EncoderDecoderSpec, dtype: str, batch: int, given: ArrayLike | Source) -> Inputs:
    """What the encoder reads, in as many rows as the decoder; an array alone is a source without padding.

    Raises:
        InputError: as `checked_inputs`, or there are other rows.
    """
    source = given if isinstance(given, Source) else Source(given)
    try:
        found = checked_inputs(spec.encoder, dtype, source.inputs, lengths=source.lengths, mask=source.mask)
    except InputError as error:
        raise InputError(f"source: {error}") from error
    if len(found.inputs) != batch:
        raise InputError(f"source: expected the {batch} rows of the inputs, got {len(found.inputs)}")
    return found


def checked_mask(batch: int, steps: int, lengths: ArrayLike | None, mask: ArrayLike | None) -> NDArray[np.bool_] | None:
    """The mask (B, T) that lengths or a mask stand for; None where every step is valid.

    Raises:
        InputError: both are given, a shape or dtype is wrong, or a length is outside 0 .. T.
    """
    if lengths is not None and mask is not None:
        raise InputError("lengths and mask: expected one of them, got both; lengths are the mask t < length")
    if lengths is not None:
        array = as_array("lengths", lengths)
        if array.shape != (batch,) or array.dtype.kind not in "iu":
            raise InputError(f"lengths: expected {batch} integers, got shape {array.shape} of {array.dtype}")
        if array.min() < 0 or array.max() > steps:
            raise InputError(f"lengths: expected values from 0 to T = {steps}, got {array.min()} to {array.max()}")
        valid = np.arange(steps) < array[:, None]
    elif mask is not None:
        valid = as_array("mask", mask)
        if valid.shape != (batch, steps) or valid.dtype != np.bool_:
            raise InputError(f"mask: expected bool of shape {(batch, steps)}, got {valid.dtype} of shape {valid.shape}")
    else:
        return None
    return None if valid.all() else valid


def checked_states(
    spec: AnySpec, dtype: str, batch: int, given: ArrayLike | Mapping[str, ArrayLike], where: str
) -> States:
    """States by name, (L*D, B, H) each; a single array stands for the cell's only state. Raises InputError."""
    names = spec.cell_definition.states
    if not isinstance(given, Mapping):
        if len(names) > 1:
            cell = spec.cell_definition.name
            raise InputError(f"{where}: cell {cell} has the states {listed(names)}; give a dict with each of them")
        given = {names[0]: given}
    if set(given) != set(names):
        raise InputError(f"{where}: expected the states {listed(names)}, got {listed(given)}")
    shape = spec.state_shape(batch)
    return {name: _shaped(f"{where} {name}", numbers(f"{where} {name}", given[name], dtype), shape) for name in names}


@dataclass(frozen=True)
class Cotangents:
    """Checked cotangents of a run's results, each None for zero.

    Attributes:
        outputs: (B, T, F).
        final_states: by state name, (L*D, B, H) each.
        scores: (B, T, O), or (B, O) where the head reads the final states.
    """

    outputs: Array | None
    final_states: States | None
    scores: Array | None


def checked_cotangents(
    spec: AnySpec,
    dtype: str,
    batch: int,
    steps: int,
    *,
    outputs: ArrayLike | None = None,
    final_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
    scores: ArrayLike | None = None,
) -> Cotangents:
    """Cotangents in the form that every backend computes with. Raises InputError."""
    if scores is not None and spec.head is None:
        raise InputError("scores_cotangent: this model has no head and so no scores; leave it None")
    head = spec.head
    score_shape = () if head is None else (batch, steps, head.size) if head.reads == "steps" else (batch, head.size)
    states = None
    if final_state is not None:
        states = checked_states(spec, dtype, batch, final_state, "final_state_cotangent")
    return Cotangents(
        _cotangent("outputs_cotangent", dtype, outputs, (batch, steps, spec.output_size)),
        states,
        _cotangent("scores_cotangent", dtype, scores, score_shape),
    )


def _cotangent(where: str, dtype: str, given: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    return None if given is None else _shaped(where, numbers(where, given, dtype), shape)


def checked_context(spec: ModelSpec, dtype: str, batch: int, context: ArrayLike) -> Array:
    """A context (B, C) in the model's dtype. Raises InputError."""
    if spec.context is None:
        raise InputError("context: this model has none; build it with context=Context(size), or leave it None")
    return _shaped("context", numbers("context", context, dtype), (batch, spec.context.size))


def state_gradients(spec: AnySpec, gradients: States) -> States:
    """Initial states' gradients by name: `initial_state` for the first state, `initial_state.{name}` for others."""
    first = spec.cell_definition.states[0]
    return {"initial_state" if name == first else f"initial_state.{name}": value for name, value in gradients.items()}


def as_array(where: str, given: ArrayLike) -> Array:
    """The array that nested lists or a tensor stand for. Raises InputError where they stand for none.

    A flipped view is copied, as torch takes none.
    """
    try:
        array = np.asarray(given)
        return array.copy() if min(array.strides, default=0) < 0 else array
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{where}: expected an array, got a {type(given).__name__}: {error}") from error


def numbers(where: str, given: ArrayLike, dtype: str) -> Array:
    """Real numbers in the given dtype. Raises InputError for anything else."""
    array = as_array(where, given)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{where}: expected real numbers, got dtype {array.dtype}")
    return np.asarray(array, dtype)


def _shaped(where: str, array: Array, shape: tuple[int, ...]) -> Array:
    if array.shape != shape:
        raise InputError(f"{where}: expected shape {shape}, got {array.shape}")
    return array


def _tokens(array: Array, vocabulary_size: int, valid: NDArray[np.bool_] | None) -> Array:
    if array.dtype.kind not in "iu":
        raise InputError(f"inputs: expected integer tokens, as the model has an embedding, got dtype {array.dtype}")
    seen = array if valid is None else array[valid]
    if seen.size and (seen.min() < 0 or seen.max() >= vocabulary_size):
        raise InputError(
            f"inputs: expected tokens from 0 to {vocabulary_size - 1} at valid steps, got {seen.min()} to {seen.max()}"
        )
    return array.astype(np.int64)


def _check_start(spec: AnySpec, states: States | None, context: object) -> None:
    """Raises InputError unless a model with a context has one or an initial state, and not both."""
    if spec.context is not None and (context is None) == (states is None):
        wanted = "a model with a context takes exactly one of them"
        if isinstance(spec, EncoderDecoderSpec):
            wanted = (
                "an encoder-decoder takes context=Source(inputs, lengths), or the decoder's initial_state, not both"
            )
        raise InputError(f"context and initial_state: {wanted}")
