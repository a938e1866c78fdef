"""Losses, optimizers, clipping as descriptions; batches and trainer states are checked once, for all backends."""

import dataclasses
import math

import numpy as np
import pytest

from rnnzoo.spec import (
    SGD,
    Adagrad,
    Adam,
    Batch,
    ClipByGlobalNorm,
    ClipByValue,
    Cosine,
    CrossEntropy,
    Head,
    MeanSquaredError,
    ModelSpec,
    RMSprop,
    StepDecay,
    TrainingSpec,
    WarmUp,
)
from rnnzoo.spec.errors import InputError, SpecError
from rnnzoo.spec.optimizers import OPTIMIZERS
from rnnzoo.spec.training import checked_batch, checked_state
from rnnzoo.tasks.configs import AdagradConfig, AdamConfig, RMSpropConfig, SGDConfig

B, T, I, H, O = 3, 5, 4, 6, 7  # noqa: E741 (the spec's symbols)
STEPS = ModelSpec("simple_rnn", I, H, head=Head(O))
FINAL = ModelSpec("bi_rnn", I, H, head=Head(O, reads="final"))
X = np.random.default_rng(0).normal(size=(B, T, I))
CLASSES = np.arange(B * T).reshape(B, T) % O
NUMBERS = np.random.default_rng(1).normal(size=(B, T, O))


@pytest.mark.parametrize("loss", [CrossEntropy(), MeanSquaredError("sum"), CrossEntropy("batch_mean")])
@pytest.mark.parametrize("optimizer", [
    SGD(0.1), SGD(0.5, 0.9, nesterov=True), Adam(0.01, 0.0, 0.5, 1e-3, "hat", weight_decay=0.1, decoupled=True),
    RMSprop(0.1, 0.5, 1e-3, 0.9, True, "inside"), Adagrad(0.1, 1e-3, 0.1, "inside"),
])  # fmt: skip
@pytest.mark.parametrize("schedule", [None, StepDecay(3), Cosine(7, 0.1), WarmUp(2), WarmUp(2, Cosine(5))])
@pytest.mark.parametrize("clip", [None, ClipByGlobalNorm(5.0), ClipByValue(0.1)])
def test_a_training_spec_survives_plain_data(loss: object, optimizer: object, clip: object, schedule: object) -> None:
    spec = TrainingSpec(loss, optimizer, clip, schedule, seed=int(clip is None))
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
        (lambda: SGD(0.1, nesterov=True), "sgd nesterov: expected a momentum above 0"),
        (lambda: SGD(0.1, 0.9, nesterov=1), "sgd nesterov: expected true or false"),
        (lambda: SGD(0.1, weight_decay=-1), r"sgd weight_decay: expected a number in \[0, inf\), got -1"),
        (lambda: Adam(decoupled="yes"), "adam decoupled: expected true or false"),
        (lambda: Adam(epsilon_place="inside"), "adam epsilon_place: expected one of 'hat', 'outside', got 'inside'"),
        (lambda: RMSprop(epsilon_place="hat"), "rmsprop epsilon_place: expected one of 'inside', 'outside'"),
        (lambda: RMSprop(alpha=1.0), "rmsprop alpha"),
        (lambda: RMSprop(momentum=1.0), "rmsprop momentum"),
        (lambda: RMSprop(centred=None), "rmsprop centred: expected true or false"),
        (lambda: Adagrad(initial_accumulator=-1), "adagrad initial_accumulator"),
        (lambda: Adagrad(epsilon=0), r"adagrad epsilon: expected a number in \(0, inf\), got 0"),
        (lambda: StepDecay(0), "step schedule every: expected an integer of at least 1, got 0"),
        (lambda: StepDecay(1, -1), "step schedule decay"),
        (lambda: Cosine(None), "cosine schedule steps: expected an integer of at least 1, got None"),
        (lambda: Cosine(3, -0.1), "cosine schedule minimum"),
        (lambda: WarmUp(0), "warm_up schedule steps"),
        (lambda: WarmUp(1, WarmUp(1)), "warm_up schedule then: expected StepDecay, Cosine or None, got WarmUp"),
        (lambda: TrainingSpec(CrossEntropy(), SGD(0.1), None, 0.5), "schedule: expected StepDecay or Cosine or WarmUp"),
        (lambda: TrainingSpec(CrossEntropy(), SGD(0.1), seed=-1), "training seed: expected an integer of at least 0"),
        (lambda: TrainingSpec(CrossEntropy(), SGD(0.1), seed=2**64), r"training seed: .* below 2\^64"),
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


def test_optimizers_name_what_they_keep_and_where_it_starts() -> None:
    assert SGD(0.1).slots == {}
    assert SGD(0.1, 0.5).slots == {"momentum": 0.0}
    assert Adam().slots == {"first_moment": 0.0, "second_moment": 0.0}
    assert RMSprop().slots == {"square_average": 0.0}
    assert set(RMSprop(momentum=0.5, centred=True).slots) == {"square_average", "gradient_average", "momentum"}
    assert Adagrad(initial_accumulator=0.25).slots == {"square_sum": 0.25}


def test_the_fields_of_every_optimizer_are_options_of_the_configs() -> None:
    configs = (SGDConfig, AdamConfig, RMSpropConfig, AdagradConfig)
    names = {config().kind: {field.name for field in dataclasses.fields(config)} for config in configs}
    assert names == {rule.KIND: {"kind", *(field.name for field in dataclasses.fields(rule))} for rule in OPTIMIZERS}


def test_the_learning_rate_of_an_update_follows_the_schedule() -> None:
    def rates(schedule: object) -> list[float]:
        return [TrainingSpec(CrossEntropy(), SGD(0.5), None, schedule).learning_rate(t) for t in range(1, 8)]

    assert rates(None) == [0.5] * 7
    assert rates(StepDecay(3, 0.5)) == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    assert rates(WarmUp(4)) == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5]
    assert rates(WarmUp(2, StepDecay(2, 0.5))) == [0.25, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert rates(Cosine(4, 0.5))[::2] == [0.5, 0.375, 0.25, 0.25], "where cos is 1, 0, -1"
    assert all(np.diff(rates(Cosine(6))) < 0), "it is at its minimum after 6 updates, not before"


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
