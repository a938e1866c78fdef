"""The tasks whose examples are drawn: what all of them keep, then the adding problem and the copy problem."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.conformance.bounds import results
from rnnzoo.spec import (
    Adam,
    ClipByGlobalNorm,
    Contents,
    ModelSpec,
    Source,
    TrainingSpec,
    initial_weights,
    load_backend,
)  # fmt: skip
from rnnzoo.spec.errors import InputError, SpecError
from rnnzoo.spec.inputs import Inputs
from rnnzoo.tasks import drawn
from rnnzoo.tasks.adding import Adding
from rnnzoo.tasks.copying import Copy
from rnnzoo.tasks.evaluate import evaluate
from rnnzoo.tasks.task import load_task, model_spec

DRAWN = ("adding", "copy", "tagging", "onu_sleep", "captioning", "translate")
IRNN = {"variant": "simple_rnn", "hidden_size": 32, "nonlinearity": "relu", "initializer": "irnn"}


def is_source(batch: Any) -> bool:
    return isinstance(batch.context, Source)


def rows(batches: Any) -> list[bytes]:
    """Inputs, targets and context of every row."""
    return [
        b"".join(
            np.asarray(array[row]).tobytes()
            for array in (batch.inputs, batch.targets, *(batch.context if is_source(batch) else [batch.context]))
            if array is not None
        )
        for batch in batches
        for row in range(len(batch.inputs))
    ]


def trained(task: Any, fields: dict[str, Any], steps: int, rate: float) -> Any:
    """The evaluation after so many updates of 32 rows."""
    backend = load_backend("numpy")
    model = backend.build(model_spec(task, fields), seed=0)
    trainer = backend.trainer(model, TrainingSpec(task.loss, Adam(rate), ClipByGlobalNorm(1.0)))
    for step in range(steps):
        if step % 100 == 0:
            batches = task.epoch(step // 100 + 1, 32, 0)
        trainer.step(next(batches))
    return task.evaluate(backend, model)


@pytest.mark.parametrize("name", DRAWN)
def test_examples_are_of_their_seed_and_epoch_and_of_no_batch_size(name: str) -> None:
    task = load_task({"name": name})
    first = rows(task.epoch(1, 32, 0))
    assert first == rows(load_task(task.settings()).epoch(1, 1000, 0)) and len(first) == drawn.EPOCH_ROWS
    assert first != rows(task.epoch(2, 32, 0)) and first != rows(task.epoch(1, 32, 1))
    assert task.steps_per_epoch(1000) == 4 == len(list(task.epoch(1, 1000, 0)))


@pytest.mark.parametrize("name", sorted({*DRAWN} - {"onu_sleep"}))
def test_the_test_examples_are_always_the_same_ones(name: str) -> None:
    task: Any = load_task({"name": name})
    again: Any = load_task(task.settings())
    assert rows([task.test]) == rows([again.test]) and len(task.test.inputs) == drawn.TEST_ROWS
    assert len(set(rows([task.test])) & set(rows(task.epoch(1, 32, drawn.TEST_SEED)))) < drawn.TEST_ROWS / 10


def test_two_steps_are_marked_one_in_each_half_and_the_target_is_their_sum() -> None:
    for length in (2, 7, 30):
        test = Adding(length).test
        numbers, markers = test.inputs[..., 0], test.inputs[..., 1]
        half = length // 2
        assert test.inputs.shape == (1000, length, 2) and np.isin(markers, (0.0, 1.0)).all()
        assert (markers[:, :half].sum(axis=1) == 1).all() and (markers[:, half:].sum(axis=1) == 1).all()
        assert markers.any(axis=0).all()  # each step is marked in some row
        exact = [math.fsum(row) for row in numbers * markers]
        assert np.array_equal(test.targets[:, 0], exact)  # one sum of two numbers is rounded once either way


def test_the_baseline_of_adding_is_the_variance_of_the_sum() -> None:
    task, backend = Adding(4), load_backend("numpy")
    model = backend.build(model_spec(task, IRNN))
    weights = backend.to_spec(model)
    weights["head.weight"][:], weights["head.bias"][:] = 0, 1  # the mean of all sums
    backend.from_spec(model, weights)
    evaluation = task.evaluate(backend, model)
    assert evaluation.value == evaluation.baseline
    # The mean of N squares whose fourth moment about 1 is 1/15 deviates from 1/6 by sqrt((1/15 - 1/36)/N).
    assert abs(evaluation.baseline - 1 / 6) < 4 * math.sqrt((1 / 15 - 1 / 36) / 1000)


def test_a_trained_model_of_drawn_examples_is_evaluated_again_and_takes_no_other_data() -> None:
    task = load_task({"name": "adding", "length": 4})
    spec = model_spec(task, IRNN)
    contents = Contents(spec, initial_weights(spec, 3), {"task": task.settings()})
    assert evaluate(contents, "numpy").predictions.shape == (1000, 1)
    with pytest.raises(SpecError, match="adding: a trained model has no override 'data'; known are none"):
        evaluate(contents, "numpy", data="x")
    other = ModelSpec("simple_rnn", 3, 5, head=spec.head)
    with pytest.raises(InputError, match=r"want ModelParts\(input_size=2.*; train it anew"):
        evaluate(contents._replace(spec=other, weights=initial_weights(other, 0)), "numpy")


def test_the_errors_of_adding_are_those_of_the_scores() -> None:
    task, backend = Adding(4), load_backend("numpy")
    model = backend.build(model_spec(task, IRNN), dtype="float64")
    evaluation = task.evaluate(backend, model)
    scores = drawn.scores_of(backend, model, task.test)
    assert np.array_equal(evaluation.predictions, scores)
    assert evaluation.value == np.mean((scores - task.test.targets) ** 2)
    assert evaluation.metrics["accuracy"] == np.mean(np.abs(scores - task.test.targets) < 0.04)


def test_a_short_sum_is_learned_in_a_second() -> None:
    evaluation = trained(Adding(6), {"variant": "bi_rnn", "hidden_size": 32}, 1000, 0.005)
    assert evaluation.value < evaluation.baseline / 10


def test_symbols_come_again_after_the_delay_and_blanks_before() -> None:
    task = Copy(length=3, delay=4, alphabet_size=5)
    tokens, targets = task.test.inputs.argmax(axis=2), task.test.targets
    assert np.array_equal(task.test.inputs.sum(axis=2), np.ones((1000, 10)))
    assert (task.parts.input_size, task.parts.head.size) == (7, 6)
    symbols = tokens[:, :3]
    assert set(symbols.ravel()) == set(range(5))
    assert np.array_equal(tokens[:, 3:], np.tile([5, 5, 5, 6, 5, 5, 5], (1000, 1)))
    assert np.array_equal(targets, np.concatenate([np.full((1000, 7), 5), symbols], axis=1))


def test_the_baseline_of_copying_knows_all_but_the_symbols(
    assert_right: Callable[..., None], log_softmax: Callable[..., np.ndarray]
) -> None:
    task, backend = Copy(length=2, delay=1, alphabet_size=3), load_backend("numpy")
    model = backend.build(model_spec(task, {"variant": "simple_rnn", "hidden_size": 3}), dtype="float64")
    evaluation = task.evaluate(backend, model)
    given, targets = Inputs(task.test.inputs, None, None, None), task.test.targets

    def quantities(ops: Exact) -> dict[str, np.ndarray]:
        scores = results(model.spec, model.weights, given)(ops)["scores"]
        logarithms = log_softmax(ops, scores.reshape(len(scores), -1, 4))
        picked = -logarithms[:, np.arange(targets.size), targets.ravel()]
        loss = ops.divide(ops.sum(picked, 1)[:, 0], ops.constant(targets.size))
        return {"loss": loss, "baseline": ops.function("log", ops.constant(3.0)) * 2 / 5}

    assert_right({"loss": evaluation.value}, quantities)
    assert evaluation.baseline == 2 * math.log(3) / 5
    assert np.array_equal(evaluation.predictions, drawn.scores_of(backend, model, task.test).argmax(axis=2))
    assert evaluation.metrics["remembered"] == np.mean(evaluation.predictions[:, -2:] == targets[:, -2:])


def test_a_short_copy_is_learned_in_a_second() -> None:
    fields = {"variant": "simple_rnn", "hidden_size": 32}
    evaluation = trained(Copy(length=1, delay=2, alphabet_size=3), fields, 400, 0.005)
    assert evaluation.value < evaluation.baseline / 10 and evaluation.metrics["remembered"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adding", "length": 1}, "task.length: expected an integer of at least 2, got 1"),
        ({"name": "adding", "length": 2.5}, r"task.length: .* got 2\.5"),
        ({"name": "copy", "length": 0}, "task.length: expected an integer of at least 1"),
        ({"name": "copy", "delay": 0}, "task.delay: expected an integer of at least 1"),
        ({"name": "copy", "alphabet_size": 1}, "task.alphabet_size: expected an integer of at least 2"),
        ({"name": "tagging", "embedding_size": 0}, "task.embedding_size: expected an integer of at least 1"),
        ({"name": "captioning", "embedding_size": 0}, "task.embedding_size: expected an integer of at least 1"),
        ({"name": "onu_sleep", "length": 0}, "task.length: expected an integer of at least 1"),
        ({"name": "onu_sleep", "delay_price": -1.0}, "task.delay_price: expected a number"),
        ({"name": "copy", "seed": 1}, "copy: no setting 'seed'; known are 'alphabet_size', 'delay', 'length'"),
    ],
)
def test_a_size_that_makes_no_problem_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_task(settings)
