"""The character language model: its text, its streams, its baseline, its metric, and the text it writes."""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.conformance.bounds import Quantities, results
from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.tape import Value
from rnnzoo.conformance.training import TrainingCase, quantities
from rnnzoo.spec import INITIALIZERS, Batch, ClipByValue, Contents, TrainingSpec, initial_weights, load, load_backend
from rnnzoo.spec.errors import FileError, InputError, SpecError
from rnnzoo.spec.inputs import Inputs
from rnnzoo.tasks import char_lm
from rnnzoo.tasks.char_lm import CharLM
from rnnzoo.tasks.evaluate import evaluate
from rnnzoo.tasks.markov import Markov
from rnnzoo.tasks.metrics import read_metrics
from rnnzoo.tasks.sample import sample
from rnnzoo.tasks.task import model_spec
from rnnzoo.tasks.train import main

BACKENDS = {"numpy": "numpy", "torch": "torch", "tf": "tensorflow"}
SIZES = {"variant": "stacked_rnn", "hidden_size": 6, "num_layers": 2}


def brackets(lines: int) -> str:
    """Lines that end in the bracket, mirrored, that they begin with: what three characters cannot tell."""
    draw = random.Random(3)
    words = ["red", "green", "blue", "grey", "white"]
    pairs = [draw.choice(["()", "[]", "{}", "<>"]) for _ in range(lines)]
    return "".join(f"{a}{draw.choice(words)} {draw.choice(words)}{b}\n" for a, b in pairs)


def written(folder: Path, text: str) -> str:
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return str(folder / "text.txt")


def contents_of(task: CharLM, seed: int = 1) -> Contents:
    spec = model_spec(task, SIZES)
    return Contents(spec, initial_weights(spec, seed), {"task": task.settings()})


def test_without_a_file_the_text_is_pythons_topics() -> None:
    from pydoc_data.topics import topics

    task = CharLM()
    assert task.text == "".join(topics[name] for name in sorted(topics))
    assert task.settings()["sha256"] == hashlib.sha256(task.text.encode()).hexdigest()
    assert task.alphabet == "".join(sorted(set(task.text)))


def test_targets_are_the_next_characters_and_streams_continue(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + i) for i in range(203))
    task = CharLM(written(tmp_path, text), window=7)
    batches = list(task.epoch(1, 5, 0))
    assert task.held_out == 183 and len(batches) == task.steps_per_epoch(5) == 36 // 7
    assert [batch.continues for batch in batches] == [False, True, True, True, True]
    inputs = np.concatenate([batch.inputs for batch in batches], axis=1)  # (5, 35)
    targets = np.concatenate([batch.targets for batch in batches], axis=1)
    assert np.array_equal(inputs, 36 * np.arange(5)[:, None] + np.arange(35))
    assert np.array_equal(targets, inputs + 1) and targets.max() < task.held_out


@pytest.fixture
def bits(log_softmax: Callable[..., np.ndarray]) -> Callable[..., Quantities]:
    """`bits(model, inputs, targets, counts)`: bits per character, of those (B, T) that count."""

    def of(model: Any, inputs: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> Quantities:
        weights = load_backend(model.backend_name).to_spec(model)
        scores = results(model.spec, weights, Inputs(inputs, None, None, None))

        def mean(ops: Exact) -> dict[str, np.ndarray]:
            logarithms = log_softmax(ops, scores(ops)["scores"][:, counts])
            picked = -logarithms[:, np.arange(counts.sum()), targets[counts]]
            divisor = ops.multiply(ops.constant(counts.sum()), ops.function("log", ops.constant(2.0)))
            return {"bits": ops.divide(ops.sum(picked, 1)[:, 0], divisor)}

        return mean

    return of


@pytest.mark.parametrize("name", BACKENDS)
def test_evaluation_in_streams_is_that_of_one_pass(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    bits: Callable[..., Quantities],
    assert_right: Callable[..., None],
) -> None:
    """Streams that begin early enough predict as one that reads all, and no held-out character is lost.

    Recurrent weights are large, but below the diagonal alone: a state of the second layer holds 11 characters.
    """
    pytest.importorskip(BACKENDS[name])
    monkeypatch.setattr(char_lm, "EVALUATION_STREAMS", 3)
    monkeypatch.setattr(char_lm, "EVALUATION_WINDOW", 5)
    monkeypatch.setattr(char_lm, "WARM_UP", 10)
    task, backend = CharLM(written(tmp_path, brackets(40))), load_backend(name)
    model = backend.build(model_spec(task, SIZES), dtype="float64")
    weights = backend.to_spec(model)
    backend.from_spec(model, {n: np.tril(8 * a, -1) if "recurrent" in n else a for n, a in weights.items()})
    tokens = np.array([[task.alphabet.index(c) for c in task.text]])
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    counts = np.arange(1, tokens.size)[None] >= task.held_out
    evaluation = task.evaluate(backend, model)
    assert_right({"bits": evaluation.value}, bits(model, inputs, targets, counts))
    predictions = backend.run(model, inputs).scores.argmax(axis=2)[counts]
    assert np.array_equal(evaluation.predictions, predictions)
    assert evaluation.metrics["accuracy"] == np.mean(predictions == targets[counts])


def test_the_baseline_gives_probabilities() -> None:
    text = brackets(30)
    alphabet = sorted({*text, "never seen"[0], "%"})
    model = Markov(text, len(alphabet))
    for context in ("", "(", "red", "(red g", "%%%"):
        probabilities = [model.probability(context, character) for character in alphabet]
        # Five roundings at each of the orders 0 to 3 and one of 1/V, of positive numbers all; fsum makes one more.
        assert min(probabilities) > 0 and abs(math.fsum(probabilities) - 1) <= (5 * 4 + 2) * 2.0**-53


def test_the_baseline_counts_as_kneser_and_ney(assert_right: Callable[..., None]) -> None:
    """By hand, order 1, on "abacab": n(ab) = 2, n(ba) = n(ac) = n(ca) = 1; before a stand {b, c}, b {a}, c {a}."""

    def p(ops: Exact) -> dict[str, np.ndarray]:
        three, two = (Value(ops.constant(number), ops) for number in (3.0, 2.0))
        high, low = three / (3.0 + 2.0 * 1.0), two / (2.0 + 2.0 * 1.0)
        p_b = (1.0 - low) / 4.0 + low * 3.0 / 4.0 / 3.0
        return {"p": ((2.0 - high) / 3.0 + high * 2.0 / 3.0 * p_b).array}

    assert_right({"p": Markov("abacab", 3, order=1).probability("a", "b")}, p)


def test_the_baseline_is_strong_on_a_text_it_can_know() -> None:
    """Three characters were followed by the same at least 79 times, and the discount is a half."""
    text = "abcde" * 100
    assert Markov(text[:400], 5).bits(text, 400) < -math.log2(1 - 0.5 / 79)
    assert Markov("abcd", 8).bits("zz", 0) == 3  # nothing seen, nothing known: one of 8


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"\xff" * 200, "expected UTF-8 text, got other bytes at 0"), (b"short", "at least 100 characters, got 5")],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "text").write_bytes(text)
    with pytest.raises(FileError, match=message):
        CharLM(str(tmp_path / "text"))


def test_a_text_too_short_for_its_streams_is_refused(tmp_path: Path) -> None:
    task = CharLM(written(tmp_path, brackets(20)), window=50)
    with pytest.raises(InputError, match=r"too few for trainer\.batch_size = 16 streams with windows of 50 steps"):
        task.steps_per_epoch(16)
    with pytest.raises(SpecError, match=r"task\.window: expected an integer of at least 1, got 0"):
        CharLM(window=0)


def test_a_changed_text_and_unknown_characters_are_refused(tmp_path: Path) -> None:
    contents = contents_of(CharLM(written(tmp_path, brackets(40))))
    evaluate(contents, "numpy")
    other = tmp_path / "other.txt"
    other.write_text("(red blue)\n" * 20, encoding="utf-8")
    assert evaluate(contents, "numpy", text=str(other)).value > 0
    written(tmp_path, brackets(41))
    with pytest.raises(FileError, match=r"expected the data of the training.*'rnnzoo evaluate FILE text=PATH'"):
        evaluate(contents, "numpy")
    other.write_text("(red ~ blue)\n" * 20, encoding="utf-8")
    with pytest.raises(InputError, match=r"characters of the model's alphabet alone, got 1 others: '~'; take them out"):
        evaluate(contents, "numpy", text=str(other))


def test_sampling_follows_its_seed_its_temperature_and_its_seed_text(tmp_path: Path) -> None:
    contents = contents_of(CharLM(written(tmp_path, brackets(40))))
    first = sample(contents, "numpy", length=60, seed=4)
    assert len(first) == 60 and first == sample(contents, "numpy", length=60, seed=4)
    assert first != sample(contents, "numpy", length=60, seed=5)
    assert first != sample(contents, "numpy", length=60, seed=4, seed_text="(red")
    assert first != sample(contents, "numpy", length=60, seed=4, temperature=0.1)
    cold = sample(contents, "numpy", length=60, seed=4, temperature=0)
    assert cold == sample(contents, "numpy", length=60, seed=9, temperature=0)


def test_sampling_carries_the_state(tmp_path: Path) -> None:
    """What is written greedily is what a run over all of it would predict at each place."""
    task, backend = CharLM(written(tmp_path, brackets(40))), load_backend("numpy")
    contents = contents_of(task, seed=2)
    draw = np.random.default_rng(8)  # weights so large that every prediction depends on the whole past
    weights = {name: draw.normal(size=a.shape).astype(a.dtype) for name, a in contents.weights.items()}
    contents = contents._replace(weights=weights)
    text = "<blue" + sample(contents, "numpy", length=30, temperature=0, seed_text="<blue")
    model = backend.build(contents.spec)
    backend.from_spec(model, weights)
    scores = backend.run(model, [[task.alphabet.index(c) for c in text]]).scores[0]
    assert "".join(task.alphabet[token] for token in scores.argmax(axis=1)[4:-1]) == text[5:]
    assert len(set(text[5:])) > 2


def test_sampling_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    contents = contents_of(CharLM(written(tmp_path, brackets(40))))
    for options, error in (
        ({"length": 0}, "length: expected an integer of at least 1"),
        ({"temperature": -1.0}, "temperature: expected a number in"),
        ({"seed": -1}, "seed: expected an integer"),
        ({"seed_text": "(né"}, "seed text: expected the .* alphabet alone, got 1 others: 'é'"),
    ):
        with pytest.raises((SpecError, InputError), match=error):
            sample(contents, "numpy", **options)  # type: ignore[arg-type]
    settings = contents.provenance["task"]
    for task, error in (
        (None, "expected a model of the tasks .*'char_lm'.*, got one whose file names no task; train one"),
        ({"name": "digits"}, "expected a model of the tasks .*'char_lm'.*, got one of the task 'digits'; train one"),
        ({**settings, "alphabet": "ab"}, "expected an alphabet with a character for each .* got 'ab'"),
        ({**settings, "alphabet": 5}, "expected an alphabet with a character for each .* got '5'"),
    ):
        with pytest.raises(FileError, match=error):
            sample(contents._replace(provenance={"task": task}), "numpy")
    with pytest.raises(SpecError, match="alphabet: expected text"):
        evaluate(contents._replace(provenance={"task": {**settings, "alphabet": 5}}), "numpy")


def test_a_text_that_moved_is_named_anew(tmp_path: Path) -> None:
    task = CharLM(written(tmp_path, brackets(40)))
    contents = contents_of(task)
    before = evaluate(contents, "numpy").metrics
    moved = str((tmp_path / "text.txt").rename(tmp_path / "moved.txt"))
    with pytest.raises(FileError, match=r"text\.txt: no such file; .*'rnnzoo evaluate FILE text=PATH'"):
        evaluate(contents, "numpy")
    assert evaluate(contents, "numpy", text=moved).metrics == before
    assert evaluate(contents, "numpy", text=moved, sha256=task.settings()["sha256"]).metrics == before
    with pytest.raises(FileError, match="with SHA-256 000000000000"):
        evaluate(contents, "numpy", text=moved, sha256="0" * 64)
    with pytest.raises(SpecError, match=r"task char_lm: .* no override 'window'; known are 'sha256', 'text'"):
        evaluate(contents, "numpy", text=moved, window="32")


def test_sampling_takes_the_overrides_of_evaluation_and_checks_them(tmp_path: Path) -> None:
    contents = contents_of(CharLM(written(tmp_path, brackets(40))))
    moved = str((tmp_path / "text.txt").rename(tmp_path / "moved.txt"))
    plain = sample(contents, "numpy", length=5)
    assert plain == sample(contents, "numpy", length=5, text=moved)
    with pytest.raises(SpecError, match=r"no override 'data'; known are 'sha256', 'text'"):
        sample(contents, "numpy", length=5, data=moved)
    with pytest.raises(FileError, match=r"none\.txt: no such file"):
        sample(contents, "numpy", length=5, text=str(tmp_path / "none.txt"))


def trained(folder: Path, *arguments: Any) -> Contents:
    assert main(["task=char_lm", f"hydra.run.dir={folder}", "trainer.progress=false", *arguments]) == 0
    return load(folder / "model.safetensors")


def best_of_order_3(text: str, start: int) -> float:
    """Bits per character of the model that has counted the very characters that it is to predict."""
    follow = Counter(text[i - 3 : i + 1] for i in range(start, len(text)))
    before = Counter(text[i - 3 : i] for i in range(start, len(text)))
    return -sum(n * math.log2(n / before[s[:3]]) for s, n in follow.items()) / (len(text) - start)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_learns_what_three_characters_cannot_tell(tmp_path: Path, name: str) -> None:
    pytest.importorskip(BACKENDS[name])
    text = written(tmp_path, brackets(2000))
    contents = trained(
        tmp_path / "run", f"backend={name}", f"task.text={text}", "task.window=32", "task.embedding_size=8",
        "model=simple_rnn", "model.hidden_size=48", "trainer.epochs=3", "optimizer.learning_rate=0.01",
    )  # fmt: skip
    found, task = contents.provenance["metrics"], CharLM(text)
    best = best_of_order_3(task.text, task.held_out)
    assert found["bits_per_character"] < best < contents.provenance["baseline"]
    assert evaluate(contents, name).metrics == found
    assert sample(contents, name, length=40, seed=2) == sample(contents, "numpy", length=40, seed=2)


@pytest.mark.long
@pytest.mark.parametrize("name", BACKENDS)
def test_by_default_every_backend_beats_the_baseline_on_pythons_topics(tmp_path: Path, name: str) -> None:
    pytest.importorskip(BACKENDS[name])
    found = trained(tmp_path / "run", f"backend={name}").provenance
    # 0.054 with NumPy; the standard error of the difference, over 46,497 characters, is 0.0067.
    assert found["metrics"]["bits_per_character"] < found["baseline"] - 0.03


def test_the_recipe_of_min_char_rnn_is_the_one_written_out_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_right: Callable[..., None]
) -> None:
    """Of its experiment at a small size: the losses of a few updates, within what rounding can do to them."""
    text = written(tmp_path, brackets(12))
    options = ["experiment=min_char_rnn", f"task.text={text}", "model.hidden_size=4", "task.window=5"]
    options += ["trainer.steps=4", "backend=numpy", f"hydra.run.dir={tmp_path / 'run'}"]
    assert main(options) == 0
    contents = load(tmp_path / "run" / "model.safetensors")
    training = TrainingSpec.from_data(contents.provenance["training"])
    assert contents.spec.initializer == INITIALIZERS["min_char_rnn"]
    assert training.clip == ClipByValue(5.0)  # at this size no gradient is as large
    batches = list(islice(CharLM(text, window=5, embedding_size=None).epoch(1, 1, 0), 4))
    weights = initial_weights(contents.spec, 0, "float64")
    losses = min_char_rnn(batches, *weights.values())
    recorded = [line["loss"] for line in read_metrics(tmp_path / "run") if line["event"] == "update"]
    monkeypatch.setattr(TrainingCase, "batches", lambda _: batches)
    case = TrainingCase(Case(contents.spec, 1, 5), training)
    case.case.__dict__["weights"] = weights
    for found in (losses, recorded):
        assert_right({"loss": np.array(found)}, lambda ops: quantities(case, ops))


def min_char_rnn(batches: Sequence[Batch], *weights: np.ndarray) -> list[float]:
    """W_x, W_h, b, W_y, c: h = tanh(W_x x + W_h h + b), the sum of -ln softmax(W_y h + c) over the steps; Adagrad."""
    parameters, squares = [np.array(array) for array in weights], [np.zeros_like(array) for array in weights]
    losses, h = [], np.zeros(len(weights[2]))
    for batch in batches:
        W_x, W_h, b, W_y, c = parameters
        states, loss, gradients, carried = [h], 0.0, [np.zeros_like(array) for array in parameters], np.zeros_like(h)
        for x in batch.inputs[0]:
            states.append(np.tanh(W_x @ x + W_h @ states[-1] + b))
        for step in reversed(range(len(states) - 1)):
            scores = np.exp(W_y @ states[step + 1] + c)
            error = scores / scores.sum()
            loss -= math.log(error[batch.targets[0, step]])
            error[batch.targets[0, step]] -= 1.0
            delta = (W_y.T @ error + carried) * (1.0 - states[step + 1] ** 2)
            carried = W_h.T @ delta
            parts = (np.outer(delta, batch.inputs[0, step]), np.outer(delta, states[step]), delta,
                     np.outer(error, states[step + 1]), error)  # fmt: skip
            gradients = [total + part for total, part in zip(gradients, parts, strict=True)]
        h = states[-1]
        losses.append(loss)
        for p, s, g in zip(parameters, squares, (np.clip(g, -5.0, 5.0) for g in gradients), strict=True):
            s += g**2
            p -= 0.1 * g / np.sqrt(s + 1e-8)
    return losses
