"""Numbers in Keras' own tests: simple_rnn_test, bidirectional_test and stacked_rnn_cells_test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_models import (
    L,
    found,
    save,
    spec_of,
)

from rnnzoo.conformance.bounds import results
from rnnzoo.spec import ModelSpec, load_backend
from rnnzoo.spec.inputs import checked_inputs
from rnnzoo.spec.parts import StoredWeights

# Keras 3.15 hands its variables to NumPy 2.4 in the old way when it saves them.
pytestmark = [
    pytest.mark.usefixtures("in_this_process"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

CONSTANTS = {"kernel_initializer": 0.01, "recurrent_initializer": 0.02, "bias_initializer": 0.03}
TURNED = {"kernel_initializer": 0.03, "recurrent_initializer": 0.02, "bias_initializer": 0.01}
MASK = np.array([[True, True, False, True], [True, False, False, True]])
STATE = np.arange(8, dtype="float32").reshape(1, 2, 4)


def constant(units: int, values: dict[str, float] = CONSTANTS, **options: Any) -> Any:
    return L.SimpleRNN(units, **{name: keras.initializers.Constant(value) for name, value in values.items()}, **options)


def both(**options: Any) -> Any:
    return L.Bidirectional(constant(2), **options)


PUBLISHED: list[tuple[Callable[[], Any], tuple[int, ...], dict[str, Any], str, Any]] = [
    (lambda: constant(4), (2, 3, 4), {}, "last", [[0.405432] * 4, [0.73605347] * 4]),
    (lambda: constant(4), (2, 4, 3), {"initial_state": STATE}, "last", [[0.33621645] * 4, [0.6262637] * 4]),
    (lambda: constant(4, unroll=True), (2, 4, 3), {"mask": MASK}, "last", [[0.32951632] * 4, [0.61799484] * 4]),
    (
        lambda: constant(2, return_sequences=True, zero_output_for_mask=True), (2, 4, 3), {"mask": MASK}, "outputs",
        [[[v, v] for v in (0.0599281, 0.15122814, 0, 0.32394567)], [[v, v] for v in (0.3969304, 0, 0, 0.608085)]],
    ),
    (both, (2, 3, 4), {}, "last", [[0.39687276] * 2 + [0.10004295] * 2, [0.7237238] * 2 + [0.53391594] * 2]),
    (lambda: both(merge_mode="ave"), (2, 3, 4), {}, "last", [[0.24845785] * 2, [0.6288199] * 2]),
    (
        lambda: both(merge_mode="mul", backward_layer=constant(2, TURNED, go_backwards=True)), (2, 3, 4), {}, "last",
        [[0.08374989] * 2, [0.6740834] * 2],
    ),
]  # fmt: skip


def with_last(spec: ModelSpec, weights: Any, given: Any) -> Any:
    """The results, and what Keras calls the last output: the final states, merged."""
    run = results(spec, weights, given)

    def quantities(ops: Any) -> dict[str, Any]:
        found = run(ops)
        state = found[f"final_state.{spec.cell_definition.states[0]}"]
        return {**found, "last": merged(spec.merge, state, ops)}

    return quantities


def merged(kind: str, state: Any, ops: Any) -> Any:
    forward, backward = state[:, 0], state[:, -1]
    if len(state[0]) == 1:
        return forward
    if kind == "concat":
        return np.concatenate([forward, backward], axis=-1)
    if kind == "multiply":
        return ops.multiply(forward, backward)
    return ops.divide(ops.add(forward, backward), ops.constant(np.array(2.0)))


@pytest.mark.parametrize("number", range(len(PUBLISHED)))
def test_published_numbers_of_keras_come_out_of_every_backend(
    number: int, tmp_path: Path, assert_right: Callable[..., None]
) -> None:
    make, shape, arguments, quantity, expected = PUBLISHED[number]
    x, layer = keras.Input(shape[1:]), make()
    path = tmp_path / "model.keras"
    keras.Model(x, layer(x)).save(path)
    spec, weights = spec_of(found(path)[layer.name]), StoredWeights(found(path)[layer.name].parts)
    inputs = np.arange(24, dtype="float32").reshape(shape)
    given = checked_inputs(spec, "float32", inputs, **arguments)
    right = with_last(spec, weights, given)
    assert_right({quantity: np.array(expected, "float32")}, right, "float32")
    for name in ("numpy", "torch", "tf"):
        backend = load_backend(name)
        model = backend.build(spec)
        backend.from_spec(model, weights)
        assert_right(backend.run(model, inputs, **arguments).arrays(), right, "float32")


REVERSED: list[tuple[tuple[int, ...], dict[str, Any], list[float]]] = [
    ((2, 3, 4), {}, [0.11144729, 0.5528889]),
    ((2, 4, 3), {"initial_state": STATE}, [0.07344437, 0.43043602]),
    ((2, 4, 3), {"mask": MASK[:, ::-1]}, [0.07376196, 0.43645123]),
]


@pytest.mark.parametrize("number", range(len(REVERSED)))
def test_published_numbers_of_a_layer_that_reads_backward_come_out_of_flipped_inputs(
    number: int, tmp_path: Path, assert_right: Callable[..., None]
) -> None:
    """The way out that its refusal names."""
    shape, arguments, expected = REVERSED[number]
    x, backward, forward = keras.Input(shape[1:]), constant(4, go_backwards=True), constant(4)
    path = save(keras.Model(x, backward(x)), tmp_path / "model.keras")
    assert "flip its inputs in time" in str(found(path)[backward.name].refusal)
    keras.Model(x, forward(x)).save(path)
    layer = found(path)[forward.name]
    inputs = np.arange(24, dtype="float32").reshape(shape)[:, ::-1]
    right = with_last(
        spec_of(layer), StoredWeights(layer.parts), checked_inputs(spec_of(layer), "float32", inputs, **arguments)
    )
    assert_right({"last": np.array([[value] * 4 for value in expected], "float32")}, right, "float32")


def test_published_numbers_of_a_stateful_layer_come_out_of_a_state_that_is_handed_on(
    tmp_path: Path, assert_right: Callable[..., None]
) -> None:
    x, layer = keras.Input((3, 4)), constant(4)
    path, inputs = tmp_path / "model.keras", np.arange(24, dtype="float32").reshape(2, 3, 4)
    keras.Model(x, layer(x)).save(path)
    spec, weights = spec_of(found(path)[layer.name]), StoredWeights(found(path)[layer.name].parts)
    for name in ("numpy", "torch", "tf"):
        backend = load_backend(name)
        model = backend.build(spec)
        backend.from_spec(model, weights)
        state = backend.run(model, inputs).final_state
        given = checked_inputs(spec, "float32", inputs, initial_state=state)
        right = with_last(spec, weights, given)
        assert_right({"last": np.array([[v] * 4 for v in (0.40559256, 0.7361247)], "float32")}, right, "float32")
        assert_right(backend.run(model, inputs, initial_state=state).arrays(), right, "float32")


def test_published_stack_of_keras_comes_out_of_every_backend(tmp_path: Path) -> None:
    """Cells of 3 and 2 units, kernels of ones, no activation, no bias: whole numbers, so that nothing is rounded."""
    ones = {"kernel_initializer": "ones", "recurrent_initializer": "ones", "use_bias": False, "activation": None}
    one, two = L.SimpleRNN(3, return_sequences=True, **ones), L.SimpleRNN(2, return_sequences=True, **ones)
    path, x = tmp_path / "model.keras", keras.Input((None, 4))
    keras.Model(x, two(one(x))).save(path)
    for name in ("numpy", "torch", "tf"):
        backend, models = load_backend(name), []
        for layer in (one, two):
            models.append(backend.build(spec_of(found(path)[layer.name])))
            backend.from_spec(models[-1], StoredWeights(found(path)[layer.name].parts))
        outputs, states = np.arange(24.0).reshape(2, 3, 4), []
        for model in models:
            run = backend.run(model, outputs)
            outputs, states = run.outputs, [*states, run.final_state]
        assert outputs.tolist() == [[[v, v] for v in (18, 156, 786)], [[v, v] for v in (162, 1020, 4386)]]
        assert [state[0].tolist() for state in states] == [[[158] * 3, [782] * 3], [[786] * 2, [4386] * 2]]
        outputs = np.arange(24.0).reshape(2, 3, 4)
        for model, state in zip(models, states, strict=True):
            outputs = backend.run(model, outputs, initial_state=state).outputs
        assert outputs[:, -1].tolist() == [[34092] * 2, [173196] * 2]
