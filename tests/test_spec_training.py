"""Losses, optimizers, clipping as descriptions; batches and trainer states are checked once, for all backends."""

import dataclasses
import math

import numpy as np
import pytest

from rnnzoo.spec import (
    SGD,
    Adam,
    Batch,
    ClipByGlobalNorm,
    ClipByValue,
    CrossEntropy,
    Head,
    MeanSquaredError,
    ModelSpec,
    TrainingSpec,
)
from rnnzoo.spec.errors import InputError, SpecError
from rnnzoo.spec.training import checked_batch, checked_state, optimizer_slots

B, T, I, H, O = 3, 5, 4, 6, 7  # noqa: E741 (the spec's symbols)
STEPS = ModelSpec("simple_rnn", I, H, head=Head(O))
FINAL = ModelSpec("bi_rnn", I, H, head=Head(O, reads="final"))
X = np.random.default_rng(0).normal(size=(B, T, I))
CLASSES = np.arange(B * T).reshape(B, T) % O
NUMBERS = np.random.default_rng(1).normal(size=(B, T, O))


@pytest.mark.parametrize("loss", [CrossEntropy(), MeanSquaredError("sum"), CrossEntropy("batch_mean")])
@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(0.5, 0.9), Adam(), Adam(0.01, 0.0, 0.5, 1e-3)])
@pytest.mark.parametrize("clip", [None, ClipByGlobalNorm(5.0), ClipByValue(0.1)])
def test_a_training_spec_survives_plain_data(loss: object, optimizer: object, clip: object) -> None:
    spec = TrainingSpec(loss, optimizer, clip)
    assert TrainingSpec.from_data(spec.to_data()) == spec


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: CrossEntropy("avg"), "loss reduction: expected one of 'batch_mean', 'mean', 'sum', got 'avg'"),
        (lambda: SGD(-1), r"sgd learning_rate: expected a number in \[0, inf\), got -1"),
        (lambda: SGD(math.nan), "sgd learning_rate: .* got nan"),
        (lambda: SGD("0.1"), "sgd learning_rate: .* got '0.1'"),
        (lambda: SGD(0.1, 1.0), r"sgd momentum: expected a number in \[0, 1\), got 1.0"),
        (lambda: Adam(beta1=1), "adam beta1"),
        (lambda: Adam(beta2=-0.1), "adam beta2"),
        (lambda: Adam(epsilon=0), r"adam epsilon: expected a number in \(0, inf\), got 0"),
        (lambda: ClipByGlobalNorm(0), r"clip maximum: expected a number in \(0, inf\), got 0"),
        (lambda: ClipByValue(math.inf), "clip maximum: .* got inf"),
        (lambda: TrainingSpec(None, SGD(0.1)), "loss: expected CrossEntropy or MeanSquaredError, got None"),
        (lambda: TrainingSpec(CrossEntropy(), CrossEntropy()), "optimizer: expected SGD or Adam"),
        (lambda: TrainingSpec(CrossEntropy(), SGD(0.1), 5.0), "clip: expected ClipByGlobalNorm or .*, got 5.0"),
        (lambda: TrainingSpec.from_data({"loss": {"kind": "hinge"}}), r"missing key 'optimizer'"),
        (
            lambda: TrainingSpec.from_data({"loss": {"kind": "hinge"}, "optimizer": {"kind": "sgd"}}),
            r"TrainingSpec\.loss: unknown kind 'hinge'; expected one of 'cross_entropy', 'mean_squared_error'",
        ),
        (lambda: TrainingSpec.from_data({"loss": {"kind": []}, "optimizer": {"kind": "sgd"}}), r"unknown kind \[\]"),
        (lambda: TrainingSpec.from_data({"loss": {}, "optimizer": {}}), "unknown kind None"),
        (lambda: SGD.from_data({"kind": "adam", "learning_rate": 1}), "SGD: expected kind 'sgd', got 'adam'"),
        (lambda: SGD.from_data({"kind": "sgd", "rate": 1}), "SGD: unknown key 'rate'; known are"),
    ],
)  # fmt: skip
def test_descriptions_refuse_by_name(build: object, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        build()  # type: ignore[operator]


def test_each_reduction_divides_by_its_own_number() -> None:
    for loss in (CrossEntropy, MeanSquaredError):
        found = {reduction: loss(reduction).divisor(rows=3, entries=11) for reduction in ("mean", "sum", "batch_mean")}
        assert found == {"mean": 11, "sum": 1, "batch_mean": 3}
    assert CrossEntropy("mean").divisor(rows=3, entries=0) == 1


def test_entries_are_valid_steps_and_targets_are_zero_elsewhere() -> None:
    batch = checked_batch(STEPS, "float32", CrossEntropy(), Batch(X, CLASSES, lengths=[0, 5, 2]), None)
    assert batch.divisor == 7 and batch.entries.sum() == 7
    assert batch.targets.dtype == np.int64
    assert np.array_equal(batch.targets, np.where(batch.entries, CLASSES, 0))
    squared = checked_batch(STEPS, "float32", MeanSquaredError(), Batch(X, NUMBERS, lengths=[0, 5, 2]), None)
    assert squared.divisor == 7 * O and squared.targets.dtype == np.float32
    assert not squared.targets[~squared.entries].any()


def test_entries_are_rows_where_the_head_reads_the_final_states() -> None:
    batch = checked_batch(FINAL, "float64", CrossEntropy(), Batch(X, CLASSES[:, 0], lengths=[0, 5, 2]), None)
    assert batch.entries.tolist() == [True] * B and batch.divisor == B
    assert checked_batch(FINAL, "float64", MeanSquaredError(), Batch(X, NUMBERS[:, 0]), None).divisor == B * O


def test_anything_may_stand_as_the_target_of_an_invalid_step() -> None:
    classes, numbers = CLASSES.copy(), NUMBERS.copy()
    classes[0], numbers[0] = -100, np.nan
    assert (
        checked_batch(STEPS, "float64", CrossEntropy(), Batch(X, classes, lengths=[0, 5, 2]), None).targets.min() == 0
    )
    found = checked_batch(STEPS, "float64", MeanSquaredError(), Batch(X, numbers, lengths=[0, 5, 2]), None)
    assert np.isfinite(found.targets).all()


@pytest.mark.parametrize(
    ("spec", "loss", "batch", "words"),
    [
        (dataclasses.replace(STEPS, head=None), CrossEntropy(), Batch(X, CLASSES), "expected a model with a head"),
        (STEPS, CrossEntropy(), Batch(X, CLASSES[:, 0]), r"classes of shape \(3, 5\), got int64 of shape \(3,\)"),
        (STEPS, CrossEntropy(), Batch(X, CLASSES * 1.0), "targets: expected integer classes .* got float64"),
        (STEPS, CrossEntropy(), Batch(X, CLASSES + 1), "targets: expected classes from 0 to 6, got 1 to 7"),
        (STEPS, CrossEntropy(), Batch(X, CLASSES - 1), "targets: expected classes from 0 to 6, got -1 to 5"),
        (STEPS, CrossEntropy(), Batch(X, [[1], [2, 3]]), "targets: expected an array"),
        (STEPS, MeanSquaredError(), Batch(X, NUMBERS[:, :, :2]), r"expected shape \(3, 5, 7\), got \(3, 5, 2\)"),
        (STEPS, MeanSquaredError(), Batch(X, NUMBERS.astype(str)), "targets: expected real numbers"),
        (FINAL, CrossEntropy(), Batch(X, CLASSES), r"targets: expected integer classes of shape \(3,\)"),
        (STEPS, CrossEntropy(), Batch(X[:, :, :2], CLASSES), "inputs: expected shape"),
        (STEPS, CrossEntropy(), Batch(X, CLASSES, continues=True), "continues=True needs a batch before it"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_refused(spec: ModelSpec, loss: object, batch: Batch, words: str) -> None:
    with pytest.raises(InputError, match=words):
        checked_batch(spec, "float64", loss, batch, None)


def test_a_batch_continues_from_what_was_carried() -> None:
    carried = {"h": np.ones((1, B, H))}
    found = checked_batch(STEPS, "float64", CrossEntropy(), Batch(X, CLASSES, continues=True), carried)
    assert found.arguments.initial_states is not None
    assert np.array_equal(found.arguments.initial_states["h"], carried["h"])
    with pytest.raises(InputError, match="neither initial_state nor context"):
        batch = Batch(X, CLASSES, continues=True, initial_state=carried["h"])
        checked_batch(STEPS, "float64", CrossEntropy(), batch, carried)
    with pytest.raises(InputError, match="initial_state h: expected shape"):
        checked_batch(STEPS, "float64", CrossEntropy(), Batch(X[:2], CLASSES[:2], continues=True), carried)


def test_optimizers_name_what_they_keep() -> None:
    assert optimizer_slots(SGD(0.1)) == ()
    assert optimizer_slots(SGD(0.1, 0.5)) == ("momentum",)
    assert optimizer_slots(Adam()) == ("first_moment", "second_moment")


TRAINING = TrainingSpec(CrossEntropy(), SGD(0.1, 0.5))
STATE = {"step": np.asarray(3), "momentum.w": np.ones((2, 4)), "carried.h": np.ones((1, B, H))}


def test_a_whole_trainer_state_is_accepted_with_or_without_carried_states() -> None:
    assert set(checked_state(STEPS, TRAINING, "float64", STATE, {"w": (2, 4)})) == set(STATE)
    without = {name: array for name, array in STATE.items() if name != "carried.h"}
    assert set(checked_state(STEPS, TRAINING, "float64", without, {"w": (2, 4)})) == set(without)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": None}, "missing 'step'"),
        ({"momentum.w": None}, "missing 'momentum.w'"),
        ({"momentum.v": np.ones(2)}, "surplus 'momentum.v'"),
        ({"carried.c": np.ones(2)}, "surplus 'carried.c'"),
        ({"step": np.asarray(-1)}, "step: expected one integer of at least 0"),
        ({"step": np.asarray(1.0)}, "step: expected one integer"),
        ({"step": np.ones(2, int)}, "step: expected one integer"),
        ({"momentum.w": np.ones((2, 4), np.float32)}, "momentum.w: expected dtype float64, got float32"),
        ({"momentum.w": np.ones((4, 2))}, r"momentum.w: expected shape \(2, 4\), got \(4, 2\)"),
        ({"momentum.w": [[1.0], []]}, "momentum.w: expected an array"),
        ({"carried.h": np.ones((1, B, H), int)}, "carried.h: expected dtype float64"),
        ({"carried.h": np.ones((1, B, H, 2))}, r"carried.h: expected shape \(1, B, 6\), got \(1, 3, 6, 2\)"),
        ({"carried.h": np.ones((2, B, H))}, r"carried.h: expected shape \(1, B, 6\), got \(2, 3, 6\)"),
    ],
)
def test_a_trainer_state_that_does_not_fit_is_refused(change: dict[str, object], words: str) -> None:
    state = {name: value for name, value in {**STATE, **change}.items() if value is not None}
    with pytest.raises(InputError, match=words):
        checked_state(STEPS, TRAINING, "float64", state, {"w": (2, 4)})


def test_two_carried_states_come_together_or_not_at_all(toy_cell: object) -> None:
    spec = ModelSpec("simple_rnn", I, H, cell="toy", head=Head(O))
    with pytest.raises(InputError, match=r"missing 'carried\.c'"):
        checked_state(spec, TRAINING, "float64", STATE, {"w": (2, 4)})
