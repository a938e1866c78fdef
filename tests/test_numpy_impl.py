"""The NumPy reference: a cell is a file, its steps are its runs, its state is all of its state."""

import dataclasses
import zipfile
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, localcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rnnzoo.conformance import numbers
from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.conformance.bounds import bounds
from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.formats import read
from rnnzoo.conformance.items import item
from rnnzoo.conformance.oracle import DIGITS, Oracle
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.training import TrainingCase, quantities
from rnnzoo.spec import (
    SGD,
    Adagrad,
    Adam,
    Batch,
    ClipByGlobalNorm,
    ClipByValue,
    Contents,
    Context,
    CrossEntropy,
    Embedding,
    Head,
    MeanSquaredError,
    ModelSpec,
    RMSprop,
    StepDecay,
    TrainingSpec,
    WarmUp,
    initial_weights,
    load_backend,
    npz,
)
from rnnzoo.spec.errors import FileError, InputError, SpecError, UnsupportedError, WeightError
from rnnzoo.spec.optimizers import Optimizer
from rnnzoo.spec.training import REDUCTIONS

BACKEND = load_backend("numpy")
B, T, I, H, V, C, O = 3, 4, 2, 5, 7, 6, 4  # noqa: E741 (the spec's symbols)
LENGTHS = [2, 0, 4]


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("sequences", ["full", "empty_row"])
@pytest.mark.parametrize(
    "change",
    [
        {"variant": "simple_rnn", "bias": "double", "nonlinearity": "sigmoid"},
        {"variant": "bi_rnn", "merge": "multiply", "head": Head(O, reads="final")},
        {"variant": "stacked_rnn", "num_layers": 2, "context": Context(C), "bias": "none", "head": Head(O)},
        {"variant": "stacked_bi_rnn", "num_layers": 2, "embedding": Embedding(V)},
    ],
    ids=lambda change: change["variant"],
)
def test_a_cell_of_two_gates_and_two_states_is_one_file(
    toy_cell: Callable[[str], None], change: dict[str, object], sequences: str
) -> None:
    toy_cell("numpy_impl")
    spec = ModelSpec(input_size=I, hidden_size=H, cell="toy", **change)
    case = Case(spec, B, T, sequences, initial=spec.context is None)
    for check in ("results", "gradients"):
        outcome = run(BACKEND, item(check, case, "float64"))
        assert outcome.verdict == "passed", outcome.message


def test_a_cell_without_a_file_is_refused_by_name(toy_cell: Callable[[str], None]) -> None:
    with pytest.raises(UnsupportedError, match=r"cell 'toy': the numpy backend has no file cells/toy\.py"):
        BACKEND.build(ModelSpec("simple_rnn", I, H, cell="toy"))
    assert BACKEND.supports(ModelSpec("simple_rnn", I, H)) is None


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("stacked_rnn", I, H, 3, bias="double"),
        ModelSpec("stacked_rnn", I, H, 2, embedding=Embedding(V), head=Head(O), nonlinearity="relu"),
    ],
    ids=["core", "tokens and scores"],
)
def test_steps_one_after_the_other_are_the_run(spec: ModelSpec, named: bool, assert_run: Callable[..., None]) -> None:
    model = BACKEND.build(spec, seed=3, dtype="float64")
    inputs = np.arange(B * T).reshape(B, T) % V if spec.embedding else random(0, B, T, I)
    start = random(1, spec.num_layers, B, H)
    state, found = {"h": start} if named else start, []
    for t in range(T):
        y, state = model.step(inputs[:, t], state)
        found.append(y)
    series = {"scores" if spec.head else "outputs": np.stack(found, axis=1)}
    assert_run(series | {"final_state.h": state["h"] if named else state}, model, inputs, initial_state=start)


def test_a_stream_may_start_from_nothing_or_from_a_context(assert_run: Callable[..., None]) -> None:
    core = BACKEND.build(ModelSpec("simple_rnn", I, H), dtype="float64")
    x = random(0, B, I)
    assert_run({"outputs": core.step(x)[0][:, None]}, core, x[:, None])
    caption = BACKEND.build(ModelSpec("stacked_rnn", I, H, 2, context=Context(C)), dtype="float64")
    context = random(1, B, C)
    y, _ = caption.step(x, caption.initial_state(context))
    assert_run({"outputs": y[:, None]}, caption, x[:, None], context=context)


@pytest.mark.parametrize("x", [random(0, B, I + 1), random(0, I), 3.0, np.ones((0, I)), [["a"] * I] * B])
def test_a_step_refuses_inputs_that_do_not_fit(x: object) -> None:
    model = BACKEND.build(ModelSpec("simple_rnn", I, H))
    with pytest.raises(InputError):
        model.step(x)


def test_backward_models_do_not_stream() -> None:
    with pytest.raises(SpecError, match="step: bi_rnn reads backward"):
        BACKEND.build(ModelSpec("bi_rnn", I, H)).step(random(0, B, I))


def test_what_stands_in_the_padding_reaches_nothing() -> None:
    spec = ModelSpec("stacked_bi_rnn", I, H, 2, head=Head(O))
    model, x, state = BACKEND.build(spec, dtype="float64"), random(0, B, T, I), random(1, 4, B, H)
    spoiled = np.where(np.arange(T)[None, :, None] < np.array(LENGTHS)[:, None, None], x, np.nan)
    options = {"lengths": LENGTHS, "initial_state": state}
    clean, dirty = BACKEND.run(model, x, **options), BACKEND.run(model, spoiled, **options)
    assert np.array_equal(clean.outputs, dirty.outputs) and np.array_equal(clean.scores, dirty.scores)
    assert not clean.outputs[1].any() and np.array_equal(clean.final_state[:, 1], state[:, 1])
    cotangents = (random(2, B, T, 2 * H), random(3, 4, B, H), random(4, B, T, O))
    one, two = (
        BACKEND.gradients(model, x, *cotangents, **options),
        BACKEND.gradients(model, spoiled, *cotangents, **options),
    )
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not one["inputs"][1].any() and not one["inputs"][0, 2:].any() and one["inputs"][0, :2].all()


def test_building_a_model_leaves_the_global_random_state_alone() -> None:
    before = np.random.get_state()[1].copy()
    BACKEND.build(ModelSpec("simple_rnn", I, H), seed=3)
    assert np.array_equal(before, np.random.get_state()[1])


def test_weights_go_out_as_copies_and_come_in_checked() -> None:
    spec = ModelSpec("bi_rnn", I, H)
    model, other = BACKEND.build(spec, seed=1), BACKEND.build(spec, seed=2)
    weights = BACKEND.to_spec(model)
    BACKEND.from_spec(other, weights)
    weights["layers.0.forward.bias"][:] = 9
    assert all(np.array_equal(model.weights[name], other.weights[name]) for name in weights)
    assert not (model.weights["layers.0.forward.bias"] == 9).any()
    with pytest.raises(WeightError, match="expected dtype float32, got float64"):
        BACKEND.from_spec(other, initial_weights(spec, 1, "float64"))
    BACKEND.from_spec(other, initial_weights(spec, 3, "float64"), cast=True)
    assert np.array_equal(other.weights["layers.0.forward.bias"], initial_weights(spec, 3)["layers.0.forward.bias"])


# --- training ---

TARGETS = np.arange(B * T).reshape(B, T) % O
TRAININGS = {
    "sgd": TrainingSpec(CrossEntropy(), SGD(0.3)),
    "momentum, norm": TrainingSpec(CrossEntropy("sum"), SGD(0.1, 0.8), ClipByGlobalNorm(0.5)),
    "adam, value": TrainingSpec(CrossEntropy("batch_mean"), Adam(0.01), ClipByValue(0.02)),
    "squares": TrainingSpec(MeanSquaredError(), Adam(0.05, 0.5, 0.7, 1e-2)),
    "nesterov": TrainingSpec(CrossEntropy(), SGD(0.1, 0.8, True, weight_decay=0.25), schedule=StepDecay(1, 0.5)),
    "adamw": TrainingSpec(
        CrossEntropy(), Adam(0.05, epsilon=1e-2, epsilon_place="hat", weight_decay=0.5, decoupled=True)
    ),
    "rmsprop": TrainingSpec(CrossEntropy(), RMSprop(0.01, 0.75, 1e-2, 0.5), schedule=WarmUp(2)),
    "centred": TrainingSpec(CrossEntropy(), RMSprop(0.01, 0.75, 1e-2, centred=True, epsilon_place="inside")),
    "adagrad": TrainingSpec(CrossEntropy(), Adagrad(0.1, 1e-2, 0.25), schedule=StepDecay(2)),
    "adagrad inside": TrainingSpec(CrossEntropy(), Adagrad(0.1, 1e-2, epsilon_place="inside")),
}
STREAM = ModelSpec("stacked_rnn", I, H, 2, head=Head(O))
DECIMALS, STEP = numbers.decimal(DIGITS), Decimal(10) ** -20  # a quotient is right to about 20 digits


def batches(training: TrainingSpec, count: int) -> list[Batch]:
    squared = isinstance(training.loss, MeanSquaredError)
    return [
        Batch(random(k, B, T, I), random(50 + k, B, T, O) if squared else (TARGETS + k) % O, continues=k > 0)
        for k in range(count)
    ]


@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS.keys())
def test_a_trainer_continues_from_its_state_bit_for_bit(training: TrainingSpec) -> None:
    model = BACKEND.build(STREAM, seed=1)
    trainer = BACKEND.trainer(model, training)
    for batch in batches(training, 3)[:2]:
        trainer.step(batch)
    state, weights = trainer.state(), BACKEND.to_spec(model)
    expected, after = trainer.step(batches(training, 3)[2]), BACKEND.to_spec(model)
    resumed = BACKEND.build(STREAM, seed=2)
    BACKEND.from_spec(resumed, weights)
    second = BACKEND.trainer(resumed, training)
    second.load_state(state)
    assert second.step(batches(training, 3)[2]) == expected
    assert all(np.array_equal(BACKEND.to_spec(resumed)[name], after[name]) for name in after)
    assert int(state["step"]) == 2, "a state that was handed out does not change"


@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS.keys())
def test_updates_follow_the_equations(training: TrainingSpec) -> None:
    """Gradients of the loss by difference quotients at 40 digits, then the spec's equations over decimals."""
    case = TrainingCase(Case(ModelSpec("simple_rnn", I, 3, head=Head(O)), B, T, "empty_row", True, bits=53), training)
    model = BACKEND.build(case.case.spec, dtype="float64")
    BACKEND.from_spec(model, case.case.weights)
    trainer = BACKEND.trainer(model, training)
    losses, norms = zip(*(trainer.step(batch) for batch in case.batches()), strict=True)
    found = {"loss": losses, "gradient norm": norms} | model.weights
    allowed = bounds(lambda ops: quantities(case, ops), "float64").allowed
    with localcontext(prec=DIGITS):
        for name, wanted in plain_training(case).items():
            errors = abs(DECIMALS.array(found[name]) - wanted)
            assert np.all(errors <= DECIMALS.array(allowed[name])), name


def plain_training(case: TrainingCase) -> dict[str, np.ndarray]:
    """Losses and norms of all steps, and the weights after the last."""
    weights = {name: DECIMALS.array(array) for name, array in case.case.weights.items()}
    kept: dict[str, dict[str, np.ndarray]] = {name: {} for name in weights}
    losses, norms = [], []
    for t, batch in enumerate(case.batches(), start=1):
        losses.append(plain_loss(case, weights, batch))
        gradients = {name: np.empty_like(array) for name, array in weights.items()}
        for name, array in weights.items():
            for index in np.ndindex(array.shape):
                before, array[index] = array[index], array[index] + STEP
                gradients[name][index] = (plain_loss(case, weights, batch) - losses[-1]) / STEP
                array[index] = before
        norms.append(sum((g * g).sum() for g in gradients.values()).sqrt())
        for name, g in gradients.items():
            weights[name] = weights[name] + plain_update(case.training, t, weights[name], g, norms[-1], kept[name])
    return {"loss": np.array(losses), "gradient norm": np.array(norms), **weights}


def plain_loss(case: TrainingCase, weights: dict[str, np.ndarray], batch: Batch) -> Decimal:
    samples = {name: array[None] for name, array in weights.items()}
    given = dataclasses.replace(case.case.understood, inputs=batch.inputs)
    scores = Oracle(case.case.spec, samples, Exact(DECIMALS)).run(given).arrays()["scores"][0]
    total, entries = Decimal(0), 0
    for b, t in np.argwhere(case.case.understood.mask):
        row, target = scores[b, t], batch.targets[b, t]
        if isinstance(case.training.loss, CrossEntropy):
            total, entries = total + sum(score.exp() for score in row).ln() - row[target], entries + 1
        else:
            total, entries = total + ((row - DECIMALS.array(target)) ** 2).sum(), entries + O
    return total / {"mean": entries, "sum": 1, "batch_mean": B}[case.training.loss.reduction]


def plain_update(
    training: TrainingSpec, t: int, weight: np.ndarray, g: np.ndarray, norm: Decimal, kept: dict[str, np.ndarray]
) -> np.ndarray:
    clip, rule = training.clip, training.optimizer
    if isinstance(clip, ClipByGlobalNorm):
        g = g * min(1, Decimal(clip.maximum) / norm)
    if isinstance(clip, ClipByValue):
        g = np.minimum(np.maximum(g, -Decimal(clip.maximum)), Decimal(clip.maximum))
    rate, decay = Decimal(training.learning_rate(t)), Decimal(rule.weight_decay)
    shrunk = rate * decay * weight if rule.decoupled else 0 * weight
    return plain_step(rule, t, rate, g if rule.decoupled else g + decay * weight, kept) - shrunk


def plain_step(rule: Optimizer, t: int, rate: Decimal, g: np.ndarray, kept: dict[str, np.ndarray]) -> np.ndarray:
    if isinstance(rule, SGD):
        momentum = Decimal(rule.momentum)
        kept["v"] = momentum * kept.get("v", 0 * g) + g
        return -rate * (g + momentum * kept["v"] if rule.nesterov else kept["v"])
    epsilon = Decimal(rule.epsilon)
    if isinstance(rule, Adam):
        beta1, beta2 = Decimal(rule.beta1), Decimal(rule.beta2)
        kept["m"] = beta1 * kept.get("m", 0 * g) + (1 - beta1) * g
        kept["s"] = beta2 * kept.get("s", 0 * g) + (1 - beta2) * g * g
        m, s = kept["m"] / (1 - beta1**t), kept["s"] / (1 - beta2**t)
        hat = (1 - beta2**t).sqrt() if rule.epsilon_place == "hat" else 1
        return -rate * m / (np.sqrt(s) + epsilon / hat)
    if isinstance(rule, Adagrad):
        kept["s"] = variance = kept.get("s", 0 * g + Decimal(rule.initial_accumulator)) + g * g
    else:
        alpha = Decimal(rule.alpha)
        kept["s"] = alpha * kept.get("s", 0 * g) + (1 - alpha) * g * g
        kept["a"] = alpha * kept.get("a", 0 * g) + (1 - alpha) * g
        variance = kept["s"] - kept["a"] ** 2 if rule.centred else kept["s"]
    quotient = g / (np.sqrt(variance + epsilon) if rule.epsilon_place == "inside" else np.sqrt(variance) + epsilon)
    kept["v"] = Decimal(getattr(rule, "momentum", 0.0)) * kept.get("v", 0 * g) + quotient
    return -rate * kept["v"]


def test_an_update_by_parts_of_a_batch_is_the_update_by_the_batch(assert_right: Callable[..., None]) -> None:
    case = TrainingCase(Case(STREAM, B, T, "lengths", bits=53), TRAININGS["momentum, norm"])
    whole = case.batches()[0]
    for reduction in REDUCTIONS:
        training = dataclasses.replace(case.training, loss=CrossEntropy(reduction))
        model = BACKEND.build(STREAM, dtype="float64")
        BACKEND.from_spec(model, case.case.weights)
        cut = [
            {name: getattr(whole, name)[rows] for name in ("inputs", "targets", "lengths")} for rows in ([0], [1, 2])
        ]
        found = BACKEND.trainer(model, training).step(*(Batch(**arrays) for arrays in cut))
        once = dataclasses.replace(case, training=training)
        expected = partial(first_update, once)
        assert_right({"loss": np.array(found[:1]), "gradient norm": np.array(found[1:]), **model.weights}, expected)


def first_update(case: TrainingCase, ops: Exact) -> dict[str, np.ndarray]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingCase, "batches", lambda self: [self._batch(0)])
        return quantities(case, ops)


def test_a_batch_that_does_not_fit_leaves_the_model_as_it_was() -> None:
    model = BACKEND.build(STREAM, seed=1)
    before, trainer = BACKEND.to_spec(model), BACKEND.trainer(model, TRAININGS["sgd"])
    good = Batch(random(0, B, T, I), TARGETS)
    with pytest.raises(InputError, match="targets: expected integer classes"):
        trainer.step(good, Batch(random(0, B, T, I), TARGETS[:, 1:]))
    assert all(np.array_equal(before[name], model.weights[name]) for name in before)
    assert int(trainer.state()["step"]) == 0 and not any("carried" in name for name in trainer.state())


def test_a_batch_without_a_valid_step_changes_nothing_under_sgd() -> None:
    model = BACKEND.build(STREAM, seed=1)
    before = BACKEND.to_spec(model)
    result = BACKEND.trainer(model, TRAININGS["sgd"]).step(Batch(random(0, B, T, I), TARGETS, lengths=[0] * B))
    assert result == (0.0, 0.0)
    assert all(np.array_equal(before[name], model.weights[name]) for name in before)


def test_a_state_of_another_optimizer_is_refused() -> None:
    model = BACKEND.build(STREAM)
    state = BACKEND.trainer(model, TRAININGS["momentum, norm"]).state()
    with pytest.raises(InputError, match="surplus"):
        BACKEND.trainer(model, TRAININGS["sgd"]).load_state(state)
    with pytest.raises(InputError, match=r"missing .*first_moment"):
        BACKEND.trainer(model, TRAININGS["adam, value"]).load_state(state)


# --- files ---

FILE_SPEC = ModelSpec("bi_rnn", I, H, head=Head(O))


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are taken apart here, and not in a child process each."""
    monkeypatch.setattr(npz, "examined", lambda function, path: npz.examine(path))


def written(path: Path, dtype: str = "float32") -> Contents:
    contents = Contents(FILE_SPEC, initial_weights(FILE_SPEC, 1, dtype), {"task": "ü", "seed": 1})
    BACKEND.files.write(path, contents)
    return contents


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_npz_file_brings_every_bit_back(tmp_path: Path, dtype: str) -> None:
    contents = written(tmp_path / "a.npz", dtype)
    found = read(tmp_path / "a.npz")
    assert (found.spec, found.provenance) == (contents.spec, contents.provenance)
    assert all(found.weights[name].tobytes() == contents.weights[name].tobytes() for name in contents.weights)


def test_an_npz_file_without_a_spec_is_its_layers_or_what_is_said_of_it(tmp_path: Path) -> None:
    weights = initial_weights(FILE_SPEC, 1)
    np.savez(tmp_path / "a.npz", **weights)
    found = BACKEND.files.find(tmp_path / "a.npz")
    assert found.layers[0].spec == replace(FILE_SPEC, head=None) and set(found.rest) == {"head.weight", "head.bias"}
    whole = read(tmp_path / "a.npz", FILE_SPEC)
    assert all(np.array_equal(whole.weights[name], weights[name]) for name in weights)


def test_weights_that_do_not_fit_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="missing"):
        BACKEND.files.write(tmp_path / "a.npz", Contents(FILE_SPEC, {"head.bias": np.zeros(O)}, {}))
    assert list(tmp_path.iterdir()) == []


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def test_nothing_is_ever_unpickled(tmp_path: Path, in_this_process: None) -> None:
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(tmp_path / "a.npz", allow_pickle=True, **{**initial_weights(FILE_SPEC, 1), "head.bias": trap})
    np.save(tmp_path / "b.npz.npy", trap, allow_pickle=True)
    (tmp_path / "b.npz.npy").rename(tmp_path / "b.npz")
    for name in ("a.npz", "b.npz"):
        with pytest.raises(FileError, match=r"not a whole \.npz file"):
            read(tmp_path / name, FILE_SPEC)
    assert not (tmp_path / "sprung").exists()


def foreign_files(folder: Path) -> list[Path]:
    files = {"empty": b"", "text": b"hello", "zip head": b"PK\x03\x04" + bytes(50), "npy head": b"\x93NUMPY\x01\x00"}
    for name, data in files.items():
        (folder / f"{name}.npz").write_bytes(data)
    np.save(folder / "single.npy", np.zeros(3, np.float32))
    with zipfile.ZipFile(folder / "text entry.npz", "w") as file:
        file.writestr("notes.txt", "hello")
    with zipfile.ZipFile(folder / "huge claim.npz", "w") as file:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999,), }"
        file.writestr("head.bias.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with zipfile.ZipFile(folder / "no arrays.npz", "w"):
        pass
    np.savez(folder / "integers.npz", w=np.arange(3))
    np.savez(folder / "newer.npz", rnnzoo=np.array('{"version": 2, "spec": {}}'), w=np.zeros(3, np.float32))
    return sorted(folder.iterdir())


def test_a_foreign_npz_file_gives_one_of_our_errors(tmp_path: Path, in_this_process: None) -> None:
    found = foreign_files(tmp_path)
    assert len(found) == 10
    for path in [*found, tmp_path, tmp_path / "missing.npz"]:
        for spec in (None, FILE_SPEC):
            with pytest.raises((FileError, WeightError)):
                read(path, spec)


def test_a_truncated_npz_file_is_never_read(tmp_path: Path, in_this_process: None) -> None:
    written(tmp_path / "a.npz")
    data = (tmp_path / "a.npz").read_bytes()
    for length in map(int, np.linspace(0, len(data) - 1, 100)):
        (tmp_path / "b.npz").write_bytes(data[:length])
        with pytest.raises(FileError):
            read(tmp_path / "b.npz")
