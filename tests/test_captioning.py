"""Captions of two digits: numbers in words, pictures, teacher forcing, greedy decoding, what is learned."""

from typing import Any

import numpy as np
import pytest

from rnnzoo.spec import Adam, ClipByGlobalNorm, TrainingSpec, initial_weights, load_backend
from rnnzoo.spec.backend import Contents
from rnnzoo.spec.errors import FileError, SpecError
from rnnzoo.tasks.captioning import CAPTIONS, END, START, WORDS, Captioning, captions, words_of
from rnnzoo.tasks.digits import Digits
from rnnzoo.tasks.sample import sample
from rnnzoo.tasks.task import model_spec

pytest.importorskip("sklearn")
FIELDS = {"variant": "stacked_rnn", "hidden_size": 8, "num_layers": 2}


def test_numbers_are_written_in_words() -> None:
    found = {number: " ".join(words_of(number)) for number in range(100)}
    some = {0: "zero", 7: "seven", 10: "ten", 19: "nineteen", 20: "twenty", 21: "twenty one", 90: "ninety"}
    assert found.items() >= some.items() and len(set(found.values())) == 100


def test_a_caption_says_what_its_picture_shows() -> None:
    task, digits = Captioning(), Digits()
    images, labels, _ = digits.training
    known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    batch = task.drawn(3, "stream", 200)
    for row, length in enumerate(batch.lengths):
        left, right = (known[half.tobytes()] for half in batch.context[row].reshape(2, 8, 8))
        words = words_of(10 * left + right)
        assert [WORDS[number] for number in batch.targets[row, :length]] == [*words, "<end>"]
        assert [WORDS[number] for number in batch.inputs[row, :length]] == ["<start>", *words]
    assert set(batch.lengths) == {2, 3}


def test_no_digit_of_the_test_is_in_the_training() -> None:
    task, digits = Captioning(), Digits()
    halves = {half.tobytes() for half in task.test.context.reshape(-1, 8, 8)}
    assert halves <= {image.tobytes() for image in digits.test.inputs}


def test_decoding_reads_its_own_likeliest_words_until_the_end() -> None:
    task, backend = Captioning(), load_backend("numpy")
    model = backend.build(model_spec(task, FIELDS), seed=1)
    weights = backend.to_spec(model)
    weights["head.bias"][END] += 0.25  # so that captions of several lengths come out
    backend.from_spec(model, weights)
    pictures = task.test.context[:40]
    found, lengths = captions(backend, model, pictures), set()
    for picture, caption in zip(pictures, found, strict=True):
        words: list[int] = []
        while END not in words and len(words) < 3:
            result = backend.run(model, np.array([[START, *words]]), context=picture[None])
            words.append(int(result.scores[0, -1].argmax()))
        lengths.add(len(words))
        assert list(caption) == [*words, END, END, END][:3]
    assert len(lengths) > 1


def test_a_caption_counts_where_all_of_it_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Captioning()
    found = task.test.targets.copy()
    found[:500, 0] = START
    parts = iter(np.split(found, 4))
    monkeypatch.setattr("rnnzoo.tasks.captioning.captions", lambda *_: next(parts))
    evaluation = task.evaluate(None, None)
    assert evaluation.value == 0.5
    assert evaluation.metrics["accuracy"] == (task.test.lengths.sum() - 500) / task.test.lengths.sum()
    assert 0.7 < evaluation.baseline < 0.9


def test_every_number_has_its_caption() -> None:
    assert CAPTIONS.shape == (100, 3) and len({tuple(row) for row in CAPTIONS}) == 100
    assert (CAPTIONS[:, 2] == END).all() and (CAPTIONS[:, 0] != END).all() and not (CAPTIONS == START).any()


def test_other_digits_than_those_of_the_training_are_refused() -> None:
    with pytest.raises(FileError, match=r"the digits of scikit-learn: .* SHA-256 000000000000"):
        Captioning(sha256="0" * 64)


def test_captions_are_learned_beyond_the_nearest_mean() -> None:
    task, backend = Captioning(), load_backend("numpy")
    fields: dict[str, Any] = {"variant": "simple_rnn", "hidden_size": 64}
    model = backend.build(model_spec(task, fields), seed=0)
    trainer = backend.trainer(model, TrainingSpec(task.loss, Adam(0.005), ClipByGlobalNorm(1.0)))
    for number in range(1, 7):
        for batch in task.epoch(number, 32, 0):
            trainer.step(batch)
    evaluation = task.evaluate(backend, model)
    assert evaluation.value > evaluation.baseline


def test_sampled_captions_are_of_their_seed_and_greedy_ones_of_none() -> None:
    task, backend = Captioning(), load_backend("numpy")
    spec = model_spec(task, FIELDS)
    contents = Contents(spec, initial_weights(spec, 1), {"task": task.settings()})
    said = sample(contents, "numpy", count=20, temperature=1.0, seed=4)
    assert said == sample(contents, "numpy", count=20, temperature=1.0, seed=4)
    assert said != sample(contents, "numpy", count=20, temperature=1.0, seed=5)
    greedy = sample(contents, "numpy", count=20)
    assert greedy == sample(contents, "numpy", count=20, temperature=0.0, seed=5) != said
    model = backend.build(spec, seed=1)
    pictures = np.repeat(task.test.context[:1], 4000, axis=0)
    first = captions(backend, model, pictures, temperature=1.0, seed=1)[:, 0]
    scores = backend.run(model, [[START]], context=pictures[:1]).scores[0, 0].astype(np.float64)
    chances = np.exp(scores) / np.exp(scores).sum()
    shares = np.bincount(first, minlength=len(WORDS)) / len(first)
    assert (np.abs(shares - chances) < 5 * np.sqrt(chances / len(first))).all()  # five deviations of a share
    with pytest.raises(
        SpecError, match="task 'captioning' has no option 'inputs'; it has 'count', 'seed', 'temperature'"
    ):
        sample(contents, "numpy", inputs=["x"])


def test_the_initial_state_is_affine_in_the_picture() -> None:
    task, backend = Captioning(), load_backend("numpy")
    model = backend.build(model_spec(task, FIELDS), seed=1, dtype="float64")
    names = [name for name in backend.to_spec(model) if name.startswith("context.")]
    assert names == ["context.weight", "context.bias"]
    assert model.initial_state(task.test.context[:3]).shape == (2, 3, 8)
