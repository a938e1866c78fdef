"""The fast loops: taken where they can be, and as near to the truth as the plain ones."""

import functools
import importlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.items import item, items
from rnnzoo.conformance.outcomes import run
from rnnzoo.spec import (
    SGD,
    Batch,
    Context,
    CrossEntropy,
    EncoderDecoderSpec,
    Head,
    ModelSpec,
    Source,
    TrainingSpec,
    load_backend,
)

B, T, I, H = 4, 13, 3, 5  # noqa: E741 (the spec's symbol)
PACKAGES = {"numpy": "numpy_impl", "torch": "torch_impl"}
CASES = [
    Case(ModelSpec(variant, I, H, 2 if "stacked" in variant else 1, nonlinearity, bias, merge), B, T, sequences, True)
    for variant, nonlinearity, bias, merge, sequences in (
        ("simple_rnn", "tanh", "single", "concat", "full"),
        ("simple_rnn", "relu", "none", "concat", "lengths"),
        ("stacked_rnn", "sigmoid", "double", "concat", "left_padding"),
        ("bi_rnn", "identity", "double", "concat", "nan_padding"),
        ("bi_rnn", "tanh", "single", "sum", "left_padding"),
        ("stacked_bi_rnn", "relu", "single", "multiply", "full"),
        ("stacked_bi_rnn", "tanh", "double", "average", "empty_row"),
    )
]
HOLES = Case(ModelSpec("stacked_bi_rnn", I, H, 2), B, T, "holes", True)


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    """An implementation that has a fast loop."""
    return PACKAGES[request.param]


@pytest.fixture
def calls(package: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The states that the fast loop gives; its pieces are so small that each case has several."""
    fast, found = _module(package, "fast"), []
    layer = fast.layer

    def noted(*arguments: Any, **options: Any) -> Any:
        result = layer(*arguments, **options)
        found.append(result[0] if isinstance(result, tuple) else result)
        return result

    monkeypatch.setattr(fast, "layer", noted)
    steps = _module(package, "steps")
    monkeypatch.setattr(steps, "PIECE", 3 * B * (H if package == "torch_impl" else 1))  # rows, or numbers
    monkeypatch.setattr(steps, "FEW", 2 * B)
    if package == "torch_impl":
        monkeypatch.setattr(steps, "LONG", 2)
    return found


def _module(package: str, name: str) -> Any:
    return importlib.import_module(f"rnnzoo.{package}.{name}")


def _backend(package: str) -> Any:
    return load_backend(next(name for name, found in PACKAGES.items() if found == package))


def _assert_right(package: str, case: Case, dtype: str = "float64") -> None:
    backend = _backend(package)
    for check in ("results", "gradients"):
        outcome = run(backend, item(check, case, dtype))
        assert outcome.verdict == "passed", outcome.message


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_fast_loop_is_right(package: str, case: Case, dtype: str, calls: list[Any]) -> None:
    _assert_right(package, case, dtype)
    assert calls


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_plain_loop_is_right(package: str, case: Case, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_module(package, "cells.rnn"), "IN_PLACE", False)
    _assert_right(package, case)
    assert not calls


def test_steps_with_holes_take_the_plain_loop(package: str, calls: list[Any]) -> None:
    _assert_right(package, HOLES)
    assert not calls


def test_a_cell_that_is_not_in_place_takes_the_plain_loop(
    package: str, calls: list[Any], toy_cell: Callable[[str], None]
) -> None:
    toy_cell(package)
    _assert_right(package, Case(ModelSpec("bi_rnn", I, H, cell="toy", head=Head(2)), B, T, "lengths"))
    assert not calls


def test_padding_is_not_computed(package: str, calls: list[Any]) -> None:
    case = next(case for case in CASES if case.sequences == "empty_row")
    _assert_right(package, case)
    assert {len(states) for states in calls} == {int(case.arguments["lengths"].sum())}


def test_rows_without_a_step_among_rows_of_one_length(package: str, calls: list[Any], assert_run: Callable[..., None]):
    model = _backend(package).build(ModelSpec("bi_rnn", I, H), dtype="float64")
    case = Case(model.spec, B, T, initial=True)
    given = {"lengths": [T, 0, T, T], "initial_state": case.arguments["initial_state"]}
    assert_run(_backend(package).run(model, case.inputs, **given).arrays(), model, case.inputs, **given)
    gradients = _backend(package).gradients(model, case.inputs, np.ones((B, T, 2 * H)), **given)
    assert calls and not gradients.pop("inputs")[1].any()
    others, states = case.inputs[[0, 2, 3]], case.arguments["initial_state"][:, [0, 2, 3]]
    found = _backend(package).gradients(model, others, np.ones((3, T, 2 * H)), initial_state=states)
    for name in gradients.keys() - {"initial_state"}:
        assert np.array_equal(gradients[name], found[name]), name


# TensorFlow: the plain loop itself, compiled


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The loops of TensorFlow, made anew and compiled however short they are: `compiled.loops` are those that ran."""
    fast = _module("tf_impl", "fast")
    monkeypatch.setattr(fast, "WORTH", 0)
    for module, name in (("recurrence", "_loop"), ("layers", "_graph")):
        traced = getattr(_module("tf_impl", module), name)
        monkeypatch.setattr(_module("tf_impl", module), name, functools.cache(traced.__wrapped__))
    loops, call = [], fast.Either.__call__

    def spy(loop: Any, worth: Any, *arguments: Any) -> Any:
        if worth is not False:
            loops.append(loop)
        return call(loop, worth, *arguments)

    monkeypatch.setattr(fast.Either, "__call__", spy)
    return loops


@pytest.mark.parametrize("case", [*CASES, HOLES], ids=lambda case: case.name)
@pytest.mark.parametrize("filled", [3, 0])
def test_the_compiled_loop_is_right(
    case: Case, filled: int, compiled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_module("tf_impl", "fast"), "BUCKETS", [T + filled, 100])
    for check in ("results", "gradients"):
        outcome = run(load_backend("tf"), item(check, case, "float32" if case.spec.num_layers == 1 else "float64"))
        assert outcome.verdict == "passed", outcome.message
    assert compiled


@pytest.mark.parametrize("kind", ["stacked_rnn", "warm_up", "dropout_0_0_0.4", "encoder"])
def test_a_compiled_update_is_right(kind: str, compiled: list[Any]) -> None:
    found = next(item for item in items(quick=True) if item.check == "training" and kind in item.name)
    outcome = run(load_backend("tf"), found)
    assert compiled and outcome.verdict == "passed", outcome.message


def test_second_derivatives_by_the_final_state_leave_filled_steps_out(
    compiled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    backend = load_backend("tf")
    model = backend.build(ModelSpec("simple_rnn", I, H, nonlinearity="identity"), dtype="float64")
    shift = {
        "recurrent_weight": np.roll(np.eye(H), 1, 0),
        "bias": np.zeros(H),
        "input_weight": np.arange(1.0, H * I + 1).reshape(H, I),
    }
    backend.from_spec(model, {f"layers.0.forward.{name}": array for name, array in shift.items()})  # exact in integers
    x, found = tf.constant(np.arange(17.0 * I).reshape(1, 17, I)), []
    for worth in (0, 10**9):
        monkeypatch.setattr(_module("tf_impl", "fast"), "WORTH", worth)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                _, final = model.outputs_and_states(x, None, None)
                loss = tf.reduce_sum(final["h"] ** 3 * np.arange(1.0, H + 1))
            slope = inner.gradient(loss, x)
        found.append(outer.gradient(slope, x).numpy())
    assert compiled and found[0].all() and np.array_equal(*found)


def test_a_cell_of_two_states_is_compiled_too(compiled: list[Any], toy_cell: Callable[[str], None]) -> None:
    toy_cell("tf_impl")
    case = Case(ModelSpec("bi_rnn", I, H, cell="toy"), B, T, "holes")
    outcome = run(load_backend("tf"), item("gradients", case, "float64"))
    assert compiled and outcome.verdict == "passed", outcome.message


def test_most_padding_is_left_out_of_a_compiled_loop(compiled: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    layers, found = _module("tf_impl", "layers"), []
    packing = layers.packing
    monkeypatch.setattr(layers, "packing", lambda mask: found.append(packing(mask)) or found[-1])
    backend, lengths = load_backend("tf"), [3, 8, 1, 6, 5, 4, 2, 7]
    backend.run(backend.build(ModelSpec("simple_rnn", I, H)), np.ones((8, 8, I)), lengths)
    (rows,) = found
    assert rows.ends.numpy().tolist() == [8 * 2, 8 * 2 + 6 * 2, 8 * 2 + 6 * 2 + 4 * 2, 8 * 2 + 6 * 2 + 4 * 2 + 2 * 2]
    x = np.random.default_rng(0).standard_normal((8, 8, 2)) * (np.arange(8) < np.array(lengths)[:, None])[..., None]
    assert np.array_equal(rows.unpacked(rows.packed(np.asarray(x))), x)


def test_a_new_length_in_a_bucket_compiles_nothing(compiled: list[Any], assert_run: Callable[..., None]) -> None:
    backend = load_backend("tf")
    model, fast = backend.build(ModelSpec("bi_rnn", I, H), dtype="float64"), _module("tf_impl", "fast")
    counts = []
    for steps in (41, 42, 43, 44):  # 44 is a bucket: nothing is filled up
        assert fast.bucket(steps) == int(fast.bucket(load_steps(steps))) == 44
        inputs = np.random.default_rng(steps).standard_normal((2, steps, I))
        assert_run(backend.run(model, inputs).arrays(), model, inputs)
        backend.gradients(model, inputs, np.ones((2, steps, 2 * H)))
        counts.append([loop.compiled.experimental_get_tracing_count() for loop in dict.fromkeys(compiled)])
    assert counts == [[1] * 4] * 3 + [[1] * 8]


def test_eager_calls_of_all_models_of_a_spec_share_a_graph_for_each_bucket(
    compiled: list[Any], assert_run: Callable[..., None]
) -> None:
    spec, traced = ModelSpec("simple_rnn", I, H), []
    for seed, dtype in ((0, "float64"), (1, "float64"), (1, "float32")):
        model = load_backend("tf").build(spec, seed, dtype)
        for steps in (41, 42, 44):
            inputs = np.random.default_rng(steps).standard_normal((2, steps, I)).astype(dtype)
            assert_run({"outputs": model(inputs)}, model, inputs)
            traced.append(len(compiled))
    assert traced == [1, 1, 2, 2, 2, 2, 3, 3, 4] and len(_module("tf_impl", "layers")._graph(spec).functions) == 4


def test_so_many_graphs_of_a_function_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = _module("tf_impl", "graphs")
    monkeypatch.setattr(graphs, "KEPT", 2)
    twice = graphs.Graph(lambda given: given["x"] * 2, exact=True)
    found = [[(1,)], [(1,), (2,)], [(2,), (3,)], [(3,), (1,)]]
    for steps in (1, 2, 3, 1):
        assert twice({"x": np.ones(steps)}).numpy().tolist() == [2.0] * steps
        kept = [shapes[2][0] for shapes in twice.functions]
        assert kept == found.pop(0)


def test_the_graph_that_goes_is_the_one_whose_last_call_is_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = _module("tf_impl", "graphs")
    monkeypatch.setattr(graphs, "KEPT", 2)
    twice = graphs.Graph(lambda given: given["x"] * 2, exact=True)
    for steps in (1, 2, 1, 3):
        twice({"x": np.ones(steps)})
    assert [shapes[2][0] for shapes in twice.functions] == [(1,), (3,)]


def test_threads_share_a_graph_and_its_places(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, traced = _module("tf_impl", "graphs"), []

    def function(given: Any) -> Any:
        traced.append(given["x"].shape[0])
        time.sleep(0.2)  # the others come meanwhile
        return given["x"] * 2

    def call(steps: int) -> list[float]:
        found: list[float] = twice({"x": np.ones(steps)}).numpy().tolist()
        return found

    twice = graphs.Graph(function, exact=True)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(call, [1, 1, 1, 1])) == [[2.0]] * 4
        assert traced == [1]
        monkeypatch.setattr(graphs, "KEPT", 1)
        assert list(threads.map(call, [2, 3, 4, 5])) == [[2.0] * steps for steps in (2, 3, 4, 5)]
    assert len(twice.functions) == 1


def load_steps(steps: int) -> Any:
    """The number as a graph knows it."""
    import tensorflow

    return tensorflow.constant(steps)


def test_a_graph_of_any_length_runs_the_compiled_loop(compiled: list[Any], assert_run: Callable[..., None]) -> None:
    import tensorflow as tf

    model = load_backend("tf").build(ModelSpec("bi_rnn", I, H), dtype="float64")
    graph = tf.function(model, input_signature=[tf.TensorSpec([None, None, I], tf.float64)])
    for steps in (5, 19):
        inputs = np.random.default_rng(steps).standard_normal((B, steps, I))
        assert_run({"outputs": graph(inputs).numpy()}, model, inputs)
    assert compiled


LABELLER = ModelSpec("bi_rnn", I, H, head=Head(2))
PAIR = EncoderDecoderSpec(
    ModelSpec("simple_rnn", I, H), ModelSpec("simple_rnn", I, H, head=Head(2), context=Context(H))
)


@pytest.mark.parametrize(
    ("spec", "worth", "key", "loops"),
    [(LABELLER, 10**9, False, 0), (LABELLER, 0, True, 4), (PAIR, 10**9, False, 0), (PAIR, B * T * H, None, 4)],
)
def test_an_update_is_traced_with_the_loops_that_its_sizes_call_for(
    spec: Any, worth: int, key: bool | None, loops: int, compiled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_module("tf_impl", "fast"), "WORTH", worth)
    trainer = load_backend("tf").trainer(load_backend("tf").build(spec), TrainingSpec(CrossEntropy(), SGD(0.1)))
    source = Source(np.ones((B, T, I))) if spec is PAIR else None
    trainer.step(Batch(np.ones((B, T - 1, I)), np.zeros((B, T - 1), int), context=source))
    ((found, _),) = trainer.graph.functions
    (graph,) = trainer.graph.functions.values()
    both = any("worth_compiling" in operation.name for operation in graph.graph.get_operations())
    assert found is key and both == (key is None) and len(compiled) == loops
