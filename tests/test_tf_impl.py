"""What is particular to TensorFlow and Keras; what all backends share is in the conformance suite."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.conformance.bounds import Quantities, gradients, results
from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.items import item
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.tape import Value, pulled_back
from rnnzoo.conformance.training import TrainingCase, quantities
from rnnzoo.spec import (
    SGD,
    Adagrad,
    Adam,
    Batch,
    ClipByGlobalNorm,
    Context,
    CrossEntropy,
    Embedding,
    Head,
    MeanSquaredError,
    ModelSpec,
    RMSprop,
    TrainingSpec,
    WarmUp,
    load_backend,
)
from rnnzoo.spec.errors import InputError, SpecError, UnsupportedError, WeightError
from rnnzoo.spec.inputs import Cotangents, checked_inputs
from rnnzoo.spec.parameters import Weights
from rnnzoo.tf_impl import Recurrent, SequenceModel, fast, optimizers
from rnnzoo.tf_impl.cells import load_cell
from rnnzoo.tf_impl.nonlinearities import NONLINEARITIES
from rnnzoo.tf_impl.training import Trainer
from rnnzoo.tf_impl.weights import turned, variables

# Keras 3.15 hands its variables to NumPy 2.4 in the old way when it saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

B, T, I, H, O = 4, 6, 3, 5, 2  # noqa: E741
LENGTHS = np.array([6, 0, 4, 1])
VALID = np.arange(T) < LENGTHS[:, None]
CORE = ModelSpec("stacked_bi_rnn", I, H, 2, bias="double")
LABELLER = ModelSpec("stacked_bi_rnn", I, H, 2, head=Head(O))
LABELLER_CORE = ModelSpec("stacked_bi_rnn", I, H, 2)
CLASSIFIER = ModelSpec("bi_rnn", I, H, embedding=Embedding(7), head=Head(O, reads="final"))
STREAMING = ModelSpec("stacked_rnn", I, H, 2, embedding=Embedding(7), head=Head(O))
CAPTIONER = ModelSpec("stacked_rnn", I, H, 2, head=Head(O), context=Context(8))


def pooled(model: Any, what: str, inputs: Any) -> Quantities:
    """The mean over the valid steps of the rows that have any."""
    given = checked_inputs(model.spec, "float32", inputs, lengths=LENGTHS)
    run = results(model.spec, load_backend("tf").to_spec(model), given)
    some = LENGTHS > 0

    def mean(ops: Exact) -> dict[str, np.ndarray]:
        total = ops.sum(run(ops)[what][:, some], 2)[:, :, 0]
        return {"pooled": ops.divide(total, ops.constant(LENGTHS[some, None]))}

    return mean


def steps(seed: int = 0, shape: tuple[int, ...] = (B, T, I), dtype: str = "float64") -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def tokens(seed: int = 0, shape: tuple[int, ...] = (B, T)) -> Any:
    return np.random.default_rng(seed).integers(1, 7, shape)


def states(spec: ModelSpec = CORE, batch: int = B, dtype: str = "float64") -> Any:
    return steps(9, (spec.num_layers * spec.num_directions, batch, H), dtype)


# Against Keras' own layers


def test_without_a_mask_it_is_keras_simple_rnn(assert_run: Callable[..., None]) -> None:
    ours = Recurrent(ModelSpec("simple_rnn", I, H), seed=3, dtype="float64", return_state=True)
    theirs = keras.layers.SimpleRNN(H, return_sequences=True, return_state=True, dtype="float64")
    theirs.build((B, T, I))
    theirs.set_weights(ours.get_weights())
    start = states(ours.spec)
    their_outputs, their_state = theirs(steps(), initial_state=tf.constant(start[0]))
    for outputs, state in (ours(steps(), initial_state=start), (their_outputs, their_state[None])):
        assert_run({"outputs": outputs, "final_state.h": state}, ours, steps(), initial_state=start)


@pytest.mark.parametrize(("merge", "theirs"), [("concat", "concat"), ("average", "ave"), ("multiply", "mul")])
def test_with_a_mask_it_is_keras_bidirectional(merge: str, theirs: str, assert_run: Callable[..., None]) -> None:
    ours = Recurrent(ModelSpec("bi_rnn", I, H, merge=merge, nonlinearity="sigmoid"), seed=3, dtype="float64")
    layer = keras.layers.SimpleRNN(H, activation="sigmoid", return_sequences=True, dtype="float64")
    both = keras.layers.Bidirectional(layer, merge_mode=theirs, dtype="float64")
    both.build((B, T, I))
    both.set_weights(ours.get_weights())
    left_padded = VALID[:, ::-1]
    for layer in (ours, both):
        assert_run({"outputs": layer(steps(), mask=tf.constant(left_padded))}, ours, steps(), mask=left_padded)


# Keras objects


def test_mask_of_an_embedding_reaches_the_layer_and_those_above(assert_right: Callable[..., None]) -> None:
    words = np.where(VALID, tokens(), 0)
    embedding = keras.layers.Embedding(7, I, mask_zero=True)
    layer = Recurrent(LABELLER_CORE, seed=1)
    model = keras.Sequential([embedding, layer, keras.layers.GlobalAveragePooling1D()])
    found, vectors = model(words).numpy()[LENGTHS > 0], embedding(words).numpy()
    assert_right({"pooled": found}, pooled(layer, "outputs", vectors), "float32")
    assert not layer(vectors, lengths=LENGTHS).numpy()[~VALID].any()


def test_functional_model_with_initial_state_keeps_the_mask(assert_run: Callable[..., None]) -> None:
    words, start = keras.Input((None,), dtype="int64"), keras.Input((B, H), batch_size=4)
    embedded = keras.layers.Embedding(7, I, mask_zero=True, name="words")(words)
    outputs, final = Recurrent(LABELLER_CORE, seed=1, return_state=True)(embedded, initial_state=start)
    assert outputs.shape == (None, None, 2 * H) and final.shape == (4, None, H)
    model = keras.Model([words, start], [outputs, final])
    initial = states(dtype="float32")
    got = model([np.where(VALID, tokens(), 0), initial])
    layer = next(layer for layer in model.layers if isinstance(layer, Recurrent))
    found = {"outputs": got[0], "final_state.h": got[1]}
    assert_run(found, layer, model.get_layer("words")(tokens()), lengths=LENGTHS, initial_state=initial)


def test_lengths_and_a_mask_are_refused() -> None:
    embedding, layer = keras.layers.Embedding(7, I, mask_zero=True), Recurrent(LABELLER_CORE)
    with pytest.raises(InputError, match="got both"):
        layer(embedding(tokens()), lengths=LENGTHS)
    with pytest.raises(InputError, match=r"from 0 to T = 6, got \[7, 0, 1, 2\]"):
        layer(steps(), lengths=np.array([7, 0, 1, 2]))
    with pytest.raises(InputError, match=r"expected shape \(B, T, 3\)"):
        layer(steps(shape=(B, T, 2)))
    with pytest.raises(InputError, match=r"state h: expected shape \(4, 4, 5\), got \(1, 4, 5\)"):
        layer(steps(), initial_state=np.zeros((1, B, H)))


def test_lengths_are_the_mask_of_what_has_steps(assert_right: Callable[..., None]) -> None:
    model = SequenceModel(LABELLER, seed=1)
    scores, outputs, _ = model(steps(), lengths=LENGTHS, return_state=True)
    models = (model, SequenceModel(CORE), Recurrent(LABELLER_CORE))
    for series in (scores, outputs, *(each(steps(), lengths=LENGTHS) for each in models)):
        assert np.array_equal(series._keras_mask, VALID)
    found = keras.layers.GlobalAveragePooling1D()(model(steps(), lengths=LENGTHS)).numpy()[LENGTHS > 0]
    assert_right({"pooled": found}, pooled(model, "scores", steps()), "float32")
    assert getattr(SequenceModel(CLASSIFIER)(tokens(), lengths=LENGTHS), "_keras_mask", None) is None


@pytest.mark.parametrize(
    ("spec", "x", "arguments", "message"),
    [
        (
            LABELLER,
            steps(),
            {"initial_state": states(batch=2)},
            r"state h: expected shape \(4, 4, 5\), got \(4, 2, 5\)",
        ),
        (LABELLER, np.ones((B, T, I), np.int32), {}, "inputs: expected floating-point numbers, got int32"),
        (LABELLER, np.ones((B, 0, I)), {}, r"B and T at least 1, got \(4, 0, 3\)"),
        (CLASSIFIER, np.ones((B, 0), np.int64), {}, r"B and T at least 1, got \(4, 0\)"),
        (LABELLER, steps(), {"mask": VALID.astype(np.int32)}, "mask: expected bool, .* got int32"),
        (LABELLER, steps(), {"lengths": LENGTHS / 1.0}, "lengths: expected integers"),
        (CLASSIFIER, tokens() / 1.0, {}, "inputs: expected integer tokens .* got float"),
        (CAPTIONER, steps(), {"context": steps(2, (B, 3))}, r"context: expected shape \(None, 8\), got \(4, 3\)"),
        (CAPTIONER, steps(), {"context": steps(2, (2, 8))}, r"context: expected shape \(4, None\), got \(2, 8\)"),
    ],
)
def test_arguments_that_do_not_fit_are_named(spec: ModelSpec, x: Any, arguments: Any, message: str) -> None:
    models = [SequenceModel(spec)] + ([Recurrent(LABELLER_CORE)] if spec is LABELLER else [])
    for model in models:
        with pytest.raises(InputError, match=message):
            model(x, **arguments)


@pytest.mark.parametrize(
    ("spec", "x", "state", "message"),
    [
        (STREAMING, tokens()[:, 0], states(STREAMING, 2), r"state h: expected shape \(2, 4, 5\), got \(2, 2, 5\)"),
        (STREAMING, tokens()[:, 0] / 1.0, None, "integer tokens"),
        (STREAMING, tokens()[0, 0], None, "expected shape"),
        (CAPTIONER, np.ones((B, I), np.int64), states(CAPTIONER), "floating-point"),
    ],
)
def test_steps_that_do_not_fit_are_named(spec: ModelSpec, x: Any, state: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SequenceModel(spec).step(x, state)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_fit_and_predict_take_what_keras_hands_on() -> None:
    model, y = SequenceModel(ModelSpec("simple_rnn", I, H, head=Head(O, reads="final"))), np.array([0, 1, 1, 0])
    fitted(model, optimizers.SGD(0.1), steps(), y)
    assert model.predict(steps(), verbose=0, batch_size=3).shape == (B, O)
    words = SequenceModel(CLASSIFIER)
    for kind in (np.int32, np.int64):
        fitted(words, optimizers.SGD(0.1), tokens().astype(kind), y)
        assert words.predict(tokens().astype(kind), verbose=0).shape == (B, O)


@pytest.mark.parametrize("cell", ["rnn", "toy"])
def test_a_cell_says_0_where_nothing_but_q_reaches_its_output_state(cell: str, toy_cell: Callable[[str], None]) -> None:
    toy_cell("tf_impl")
    code, names = load_cell(cell), ("c", "h") if cell == "toy" else ("h",)
    p, given = tf.ones((B, 2 * H if cell == "toy" else H)), {name: tf.ones((B, H)) for name in names}
    d_states = code.step_gradient(p, p, given, given, given, NONLINEARITIES["tanh"])[2]
    assert type(d_states["h"]) is float and d_states["h"] == 0.0


def test_tensorflow_names_the_weights_of_every_layer_alike() -> None:
    first, second = Recurrent(CORE, name="first"), Recurrent(CORE, name="second")
    assert [v.value.name for v in first.weights] == [v.value.name for v in second.weights]
    assert [v.path for v in first.weights] == [f"first/{v.name}" for v in first.weights]


def test_saved_model_file_gives_the_model_back(tmp_path: Path) -> None:
    for spec, x in ((CORE, steps()), (LABELLER, steps()), (CLASSIFIER, tokens())):
        model = SequenceModel(spec, seed=4, dtype="float64")
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert type(again) is SequenceModel and again.spec == spec and again.dtype == "float64" and again.seed == 4
        assert np.array_equal(again(x), model(x))


def test_functional_model_with_our_layer_is_saved_and_cloned(tmp_path: Path) -> None:
    inputs = keras.Input((None, I), dtype="float64")
    model = keras.Model(inputs, Recurrent(CORE, seed=2, dtype="float64")(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(again(steps()), model(steps()))
    assert np.array_equal(keras.models.clone_model(model)(steps()), model(steps()))
    own = SequenceModel(LABELLER, seed=2, dtype="float64")
    assert np.array_equal(keras.models.clone_model(own)(steps()), own(steps()))


@pytest.mark.filterwarnings("ignore")  # of Keras' export, about its own internals
@pytest.mark.parametrize("spec", [LABELLER, CLASSIFIER, CAPTIONER], ids=lambda spec: spec.variant)
def test_exported_model_takes_any_batch_and_length(
    spec: ModelSpec, tmp_path: Path, assert_run: Callable[..., None]
) -> None:
    model = SequenceModel(spec, seed=5, dtype="float64")
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    for batch, length in ((4, 6), (2, 9)):
        x = tokens(1, (batch, length)) if spec.embedding else steps(1, (batch, length, I))
        more = {"context": steps(2, (batch, 8))} if spec.context else {}
        scores = loaded.serve(*map(tf.constant, (x, *more.values())))
        assert_run({"scores": scores}, model, x, **more)


def test_graph_of_dynamic_shape_is_traced_once_and_agrees_with_eager_and_xla(assert_right: Callable[..., None]) -> None:
    model = SequenceModel(LABELLER, seed=6, dtype="float64")
    weights, traces = variables(model), []

    def scores_and_gradients(x: Any, lengths: Any, cotangent: Any) -> Any:
        traces.append(x.shape)
        sources = {"inputs": x, **{name: variable.value for name, variable in weights.items()}}
        with tf.GradientTape() as tape:
            tape.watch(x)
            scores = model(x, lengths=lengths)
        return scores, tape.gradient(scores, sources, cotangent)

    vectors, scores_like = (tf.TensorSpec([None, None, size], tf.float64) for size in (I, O))
    signature = [vectors, tf.TensorSpec([None], tf.int64), scores_like]
    graph = tf.function(scores_and_gradients, input_signature=signature)
    compiled = tf.function(scores_and_gradients, jit_compile=True)
    for batch, length in ((4, 6), (2, 9)):
        x, lengths, cotangent = steps(1, (batch, length, I)), LENGTHS[-batch:], steps(2, (batch, length, O))
        given = LABELLER, load_backend("tf").to_spec(model), checked_inputs(LABELLER, "float64", x, lengths=lengths)
        wanted, slopes = results(*given), gradients(*given, Cotangents(None, None, cotangent))
        for each in (scores_and_gradients, graph, compiled) if batch == 4 else (graph,):
            scores, found = each(*map(tf.constant, (x, lengths, cotangent)))
            assert_right({"scores": scores}, wanted)
            assert_right({n: turned(n, g.numpy()) if n in weights else g for n, g in found.items()}, slopes)
    assert traces.count(tf.TensorShape([None, None, I])) == 1


def test_nan_in_padding_reaches_neither_outputs_nor_gradients() -> None:
    layer = Recurrent(CORE, seed=7, dtype="float64")
    clean = np.where(VALID[..., None], steps(), 0.0)

    def outputs_and_gradients(x: Any) -> Any:
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, lengths=LENGTHS)
        return outputs, *tape.gradient(outputs, [x, *(v.value for v in layer.weights)])

    dirty = outputs_and_gradients(np.where(VALID[..., None], clean, np.nan))
    for got, expected in zip(dirty, outputs_and_gradients(clean), strict=True):
        assert np.array_equal(got, expected)
    assert not dirty[1].numpy()[~VALID].any() and dirty[1].numpy()[VALID].all()


@pytest.mark.parametrize("worth", [fast.WORTH, 0], ids=["plain", "compiled"])
@pytest.mark.parametrize("graph", [False, True])
def test_gradients_of_gradients_are_right(
    graph: bool, worth: int, assert_right: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "WORTH", worth)
    layer = Recurrent(ModelSpec("bi_rnn", I, H, bias="double"), seed=8, dtype="float64")
    x, direction, kernel = tf.constant(steps()), steps(3), layer.weights[1].value

    def second(x: Any) -> Any:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                outputs = layer(x, mask=VALID)
                loss = tf.reduce_sum(outputs * outputs * outputs)
            slope = tf.reduce_sum(inner.gradient(loss, x) * direction)
        return outer.gradient(slope, [x, kernel])

    by_x, by_kernel = (tf.function(second) if graph else second)(x)
    weights = load_backend("tf").to_spec(layer)
    expected = second_derivatives(weights, x.numpy(), direction)
    assert_right({"inputs": by_x, "recurrent_weight": tf.transpose(by_kernel)}, expected)


def second_derivatives(weights: Weights, x: np.ndarray, direction: np.ndarray) -> Quantities:
    """Of the sum of the cubes of a layer's outputs: the derivative along a direction of the inputs, differentiated."""

    def computed(ops: Exact) -> dict[str, np.ndarray]:
        own = {name: Value(ops.constant(np.atleast_2d(array)), ops, wanted=True) for name, array in weights.items()}
        series = [Value(ops.constant(x[:, t]), ops, wanted=True) for t in range(T)]
        terms = []
        for way, times in (("forward", range(T)), ("backward", range(T)[::-1])):
            parts = [value for name, value in own.items() if way in name]
            terms += first_derivatives(*parts, series, times, direction)
        leaves = [*series, own["layers.0.forward.recurrent_weight"]]
        *by_x, by_kernel = pulled_back([(term, ops.constant(1.0)[:, None, None]) for term in terms], leaves)
        return {"inputs": np.stack(np.broadcast_arrays(*by_x), axis=2), "recurrent_weight": by_kernel}

    return computed


def first_derivatives(
    W: Value, R: Value, b: Value, c: Value, series: list[Value], times: range, direction: np.ndarray
) -> list[Value]:
    """By the inputs of each step, times the direction: the backward pass, written out."""
    h = zero = Value(W.ops.zeros((1, B, H)), W.ops)
    passed, terms = [], []
    for t in times:
        valid = VALID[:, t, None] * 1.0
        y = (W @ series[t] + b + R @ h + c).tanh()
        h = y * valid + h * (1 - valid)
        passed.append((t, valid, y))
    d_h = zero
    for t, valid, y in reversed(passed):
        d_a = (3.0 * y * y + d_h) * valid * (1.0 - y * y)
        terms.append((transposed(W) @ d_a * direction[:, t]).sum(1).sum(2))
        d_h = transposed(R) @ d_a + d_h * (1 - valid)
    return terms


def transposed(matrix: Value) -> Value:
    return Value(np.swapaxes(matrix.array, 1, 2), matrix.ops, [(matrix, lambda g: np.swapaxes(g, 1, 2))])


@pytest.mark.parametrize("sequences", ["full", "empty_row"])
def test_cell_of_two_gates_and_two_states_fits_in(
    sequences: str, toy_cell: Callable[[str], None], assert_run: Callable[..., None]
) -> None:
    toy_cell("tf_impl")
    spec = ModelSpec("stacked_bi_rnn", I, H, 2, bias="double", cell="toy", head=Head(O, reads="final"))
    for check in ("results", "gradients"):
        outcome = run(load_backend("tf"), item(check, Case(spec, B, T, sequences, initial=True), "float64"))
        assert outcome.verdict == "passed", outcome.message
    core, found, state = Recurrent(ModelSpec("stacked_rnn", I, H, 2, cell="toy"), dtype="float64"), [], None
    for t in range(T):
        y, state = core.step(steps()[:, t], state)
        found.append(y)
    final = {f"final_state.{name}": value for name, value in state.items()}
    assert_run({"outputs": np.stack(found, 1), **final}, core, steps())


def test_streaming_steps_are_the_run(assert_run: Callable[..., None]) -> None:
    for spec, x in ((STREAMING, tokens()), (ModelSpec("simple_rnn", I, H), steps())):
        model = load_backend("tf").build(spec, 3, "float64")
        found, state = [], tf.constant(states(spec))
        for t in range(T):
            y, state = model.step(x[:, t], state)
            found.append(y)
        series = {"scores" if spec.head else "outputs": np.stack(found, 1)}
        assert_run(series | {"final_state.h": state}, model, x, initial_state=states(spec))
    with pytest.raises(SpecError, match="reads backward"):
        Recurrent(CORE).step(steps()[:, 0])


def test_context_starts_a_stream(assert_run: Callable[..., None]) -> None:
    model, context = SequenceModel(CAPTIONER, seed=3, dtype="float64"), steps(2, (B, 8))
    y, _ = model.step(steps()[:, 0], model.initial_state(context))
    assert_run({"scores": y[:, None]}, model, steps()[:, :1], context=context)
    with pytest.raises(InputError, match="exactly one"):
        model(steps())
    with pytest.raises(SpecError, match=r"initial_state\(context\)"):
        model.step(steps()[:, 0])


def test_building_leaves_every_global_random_state_alone() -> None:
    def draws(build: bool) -> list[Any]:
        keras.utils.set_random_seed(11)
        tf.random.set_global_generator(tf.random.Generator.from_seed(11))
        if build:
            for spec in (CORE, CAPTIONER, CLASSIFIER):
                load_backend("tf").build(spec)
        found = [random.random(), np.random.rand(), tf.random.uniform([]), keras.random.uniform([])]
        return [float(x) for x in [*found, tf.random.get_global_generator().uniform([])]]

    assert draws(build=True) == draws(build=False)


@pytest.mark.parametrize("compiled", [False, True])
def test_forward_mode_is_refused(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "WORTH", 0 if compiled else 10**9)
    layer, x = Recurrent(ModelSpec("simple_rnn", I, H), dtype="float64"), tf.constant(steps())

    def jacobian_product(layer: Callable[..., Any]) -> Any:
        with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as accumulator:
            y = layer(x)
        return accumulator.jvp(y)

    for product in (jacobian_product, tf.function(jacobian_product, autograph=False)):
        for each in (layer, tf.function(layer, autograph=False)):
            with pytest.raises(UnsupportedError, match="ForwardAccumulator: expected"):
                product(each)


def test_mixed_precision_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="mixed_bfloat16"):
        Recurrent(CORE, dtype="mixed_bfloat16")
    with pytest.raises(WeightError, match="float16"):
        Recurrent(CORE, dtype="float16")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        with pytest.raises(UnsupportedError, match="global policy 'mixed_float16'"):
            SequenceModel(LABELLER)
    finally:
        keras.config.set_dtype_policy(before)


def test_float64_is_float64_throughout() -> None:
    model = SequenceModel(CAPTIONER, dtype="float64")
    results = model(steps(), context=steps(2, (B, 8)), return_state=True)
    assert {t.dtype for t in [*results, *(v.value for v in model.weights)]} == {tf.float64}
    assert keras.config.floatx() == "float32"


# Training


def test_learning_rate_is_exact(assert_right: Callable[..., None]) -> None:
    for optimizer in (optimizers.SGD(0.1), optimizers.Adam(0.1), optimizers.SGD(lambda: 0.1)):
        variable = keras.Variable(1.0, dtype="float64")
        optimizer.build([variable])
        optimizer.apply([tf.constant(1.0, tf.float64)])
        epsilon = getattr(optimizer.rule, "epsilon", 0.0)

        def expected(ops: Exact, epsilon: float = epsilon) -> dict[str, np.ndarray]:
            below = ops.add(ops.constant(1.0), ops.hyperparameter(epsilon))
            return {"weight": ops.add(ops.constant(1.0), -ops.divide(ops.hyperparameter(0.1), below))}

        assert_right({"weight": variable.numpy()}, expected)


def test_optimizer_is_built_again_from_its_config() -> None:
    for optimizer in (
        optimizers.SGD(0.1, 0.9, True, weight_decay=0.1, name="mine"),
        optimizers.Adam(0.1, beta2=0.99, epsilon_place="hat", clipnorm=2.0),
        optimizers.RMSprop(0.1, 0.9, 1e-3, 0.5, True, "inside", weight_decay=0.1, decoupled=True),
        optimizers.Adagrad(0.1, 1e-3, 0.25, "inside"),
    ):
        again = type(optimizer).from_config(optimizer.get_config())
        assert again.get_config() == optimizer.get_config() and again.rule == optimizer.rule
        assert optimizer.get_config()["learning_rate"] == 0.1


def fitted(model: SequenceModel, optimizer: Any, x: Any, y: Any, jit_compile: bool = False, **options: Any) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=model.dtype)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=jit_compile)
    model.fit(x, y, **{"batch_size": B, "epochs": 3, "shuffle": False, "verbose": 0, **options})


@pytest.mark.parametrize(
    ("rule", "optimizer", "jit"),
    [
        (SGD(0.1, 0.9), lambda: optimizers.SGD(0.1, 0.9, global_clipnorm=0.2), False),
        (Adam(0.01), lambda: optimizers.Adam(0.01, global_clipnorm=0.2), False),
        (Adam(0.01), lambda: optimizers.Adam(0.01, global_clipnorm=0.2), True),
        (
            RMSprop(0.01, weight_decay=0.5, decoupled=True),
            lambda: optimizers.RMSprop(0.01, weight_decay=0.5, decoupled=True, global_clipnorm=0.2),
            False,
        ),
        (
            Adagrad(0.1, initial_accumulator=0.1, weight_decay=0.5),
            lambda: optimizers.Adagrad(0.1, initial_accumulator=0.1, weight_decay=0.5, global_clipnorm=0.2),
            True,
        ),
    ],
)
def test_fit_trains_as_the_spec_says(
    rule: Any, optimizer: Callable[[], Any], jit: bool, assert_right: Callable[..., None]
) -> None:
    training = TrainingSpec(CrossEntropy(), rule, ClipByGlobalNorm(0.2))
    case = TrainingCase(Case(CLASSIFIER, B, T, bits=53), training)
    model, batches = SequenceModel(CLASSIFIER, dtype="float64"), case.batches()
    load_backend("tf").from_spec(model, case.case.weights)
    x, y = (np.concatenate([getattr(batch, part) for batch in batches]) for part in ("inputs", "targets"))
    fitted(model, optimizer(), x, y, epochs=1, jit_compile=jit)
    assert_right(load_backend("tf").to_spec(model), lambda ops: quantities(case, ops))


def test_schedule_of_the_learning_rate_is_honoured(assert_right: Callable[..., None]) -> None:
    rates, optimizer, model = [0.1, 0.01, 0.3], optimizers.SGD(1, 0.9), SequenceModel(CLASSIFIER, dtype="float64")
    weights, moments = [flat(model.get_weights())], []

    def keep(epoch: int, logs: Any) -> None:
        weights.append(flat(model.get_weights()))
        moments.append(flat(optimizer.slots["momentum"]))

    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: rates[epoch])
    callbacks = [schedule, keras.callbacks.LambdaCallback(on_epoch_end=keep)]
    fitted(model, optimizer, tokens(), np.array([0, 1, 1, 0]), callbacks=callbacks)

    def updates(ops: Exact) -> dict[str, np.ndarray]:
        steps = [ops.multiply(ops.constant(rate), ops.constant(v)) for rate, v in zip(rates, moments, strict=True)]
        return {f"after {n}": ops.add(ops.constant(weights[n]), -step) for n, step in enumerate(steps)}

    assert_right({f"after {n}": found for n, found in enumerate(weights[1:])}, updates)


def flat(arrays: Any) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])


def test_compiled_model_continues_from_its_file(tmp_path: Path) -> None:
    model = SequenceModel(CLASSIFIER, seed=2)  # float32: Keras forgets the dtype of a loss
    x, y = tokens(), np.array([0, 1, 1, 0])
    fitted(model, optimizers.SGD(0.1, 0.9), x, y)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, again):
        each.fit(x, y, batch_size=B, shuffle=False, verbose=0)
    assert type(again.optimizer) is optimizers.SGD
    assert all(np.array_equal(*pair) for pair in zip(again.get_weights(), model.get_weights(), strict=True))


def test_update_is_traced_once_for_all_batch_sizes_and_lengths() -> None:
    trainer = Trainer(SequenceModel(STREAMING), TrainingSpec(CrossEntropy(), Adam(0.01)))
    for batch, length in ((4, 6), (2, 9), (3, 1)):
        trainer.step(Batch(tokens(0, (batch, length)), tokens(1, (batch, length)) % O))
    assert len(trainer.graph.functions) == 1


def test_trainer_state_is_numpys(assert_relay: Callable[..., None]) -> None:
    training = TrainingSpec(MeanSquaredError("sum"), RMSprop(0.01, momentum=0.5, centred=True), None, WarmUp(3))
    case = TrainingCase(Case(STREAMING, B, T, "empty_row", initial=True, bits=53), training, carries=True)
    assert_relay(case, ("tf", "numpy", "tf"))
    assert_relay(case, ("numpy", "tf", "numpy"))


def test_frozen_weights_are_refused_by_the_trainer() -> None:
    model = SequenceModel(CLASSIFIER)
    model.embedding.trainable = False
    with pytest.raises(UnsupportedError, match=r"frozen 'embedding\.weight'"):
        Trainer(model, TrainingSpec(CrossEntropy(), SGD(0.1)))


# The process


def test_other_keras_backends_are_refused(fresh_python: Any) -> None:
    code = "from rnnzoo.spec import load_backend; load_backend('tf')"
    done = fresh_python(code, KERAS_BACKEND="torch")
    assert "expected Keras to run on tensorflow, got 'torch'; set KERAS_BACKEND=tensorflow" in done.stderr


def test_loading_and_running_writes_nothing(fresh_python: Any) -> None:
    done = fresh_python(
        "from rnnzoo.spec import *; import numpy as np; backend = load_backend('tf');"
        "backend.run(backend.build(ModelSpec('bi_rnn', 3, 5)), np.ones((2, 4, 3))); print('done')",
        TF_CPP_MIN_LOG_LEVEL="",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
