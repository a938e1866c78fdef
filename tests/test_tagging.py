"""Slot filling: the sentences and their tags, spans and their F1, lengths, and what the second direction buys."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.spec import Adam, ClipByGlobalNorm, TrainingSpec, load, load_backend
from rnnzoo.spec.errors import FileError, InputError
from rnnzoo.tasks.conll import UNKNOWN
from rnnzoo.tasks.evaluate import evaluate
from rnnzoo.tasks.flights import CITIES, DAYS, SLOTS, TAGS, WORDS, sentences
from rnnzoo.tasks.tagging import Span, Tagging, f1, spans
from rnnzoo.tasks.task import load_task, model_spec
from rnnzoo.tasks.train import main


def values(words: list[str], tags: list[str]) -> dict[str, str]:
    """What fills each slot."""
    numbers = np.array([[TAGS.index(tag) for tag in tags]])
    return {span.slot: " ".join(words[span.start : span.end]) for span in spans(numbers, np.array([len(tags)]))}


def test_every_sentence_goes_from_one_city_to_another() -> None:
    found = sentences(0, "test", 500)
    slots: Counter[str] = Counter()
    for sentence in found:
        filled = values(*sentence)
        slots.update(filled.keys())
        cities = [filled[slot] for slot in ("from", "to", "via") if slot in filled]
        days = [filled[slot] for slot in ("leave", "back") if slot in filled]
        assert len(cities) >= 2 and len(set(cities)) == len(cities) and set(cities) <= set(CITIES)
        assert len(set(days)) == len(days) and set(days) <= set(DAYS)
        assert set(sentence.words) <= set(WORDS) and len(sentence.words) == len(sentence.tags)
    assert set(slots) == set(SLOTS) and len({" ".join(sentence.words) for sentence in found}) > 450


def test_a_city_is_each_of_three_slots_by_words_before_or_after_it() -> None:
    tags: dict[str, set[str]] = {}
    for sentence in sentences(0, "test", 2000):
        for before, word, tag in zip(["", *sentence.words], sentence.words, sentence.tags, strict=False):
            tags.setdefault(f"{before} {word}", set()).add(tag)
            tags.setdefault(word, set()).add(tag)
    assert tags["boston"] == {"B-from", "B-to", "B-via"} and tags["york"] == {"I-from", "I-to", "I-via"}
    assert tags["from boston"] == {"B-from"} and {"B-from", "B-to"} <= tags["seat boston"]


def test_a_batch_holds_the_words_and_tags_of_the_sentences_up_to_their_lengths() -> None:
    batch = Tagging().drawn(3, "stream", 50)
    for row, sentence in enumerate(sentences(3, "stream", 50)):
        length = batch.lengths[row]
        assert [WORDS[number] for number in batch.inputs[row, :length]] == sentence.words
        assert [TAGS[number] for number in batch.targets[row, :length]] == sentence.tags
    assert batch.lengths.max() == batch.inputs.shape[1] > batch.lengths.min()


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-to I-to O", {(1, 3, "to")}),
        ("B-to B-to I-to", {(0, 1, "to"), (1, 3, "to")}),
        ("B-to I-from I-from", {(0, 1, "to"), (1, 3, "from")}),
        ("I-via O I-via", {(0, 1, "via"), (2, 3, "via")}),
        ("O O", set()),
    ],
)
def test_spans_are_those_of_conlleval(tags: str, expected: set[Any]) -> None:
    numbers = np.array([[TAGS.index(tag) for tag in tags.split()], [TAGS.index("B-to")] * len(tags.split())])
    assert spans(numbers, np.array([len(tags.split()), 0])) == {Span(0, *span) for span in expected}


def test_f1_counts_whole_spans_alone() -> None:
    truth = {Span(0, 1, 3, "to"), Span(0, 4, 5, "from"), Span(1, 0, 1, "to")}
    found = {Span(0, 1, 3, "to"), Span(0, 4, 5, "to"), Span(1, 0, 2, "to"), Span(2, 0, 1, "to"), Span(3, 0, 1, "to")}
    assert f1(truth, truth) == 1 and f1(set(), truth) == 0
    assert f1(found, truth) == 2 * 1 / (5 + 3)


def test_padding_counts_nowhere() -> None:
    task, backend = Tagging(), load_backend("numpy")
    model = backend.build(model_spec(task, {"variant": "bi_rnn", "hidden_size": 4}), seed=1)
    before = task.evaluate(backend, model)
    padding = np.arange(task.test.inputs.shape[1]) >= task.test.lengths[:, None]
    task.test.inputs[padding], task.test.targets[padding] = 7, 3
    assert task.evaluate(backend, model).metrics == before.metrics


def test_two_directions_tag_what_one_cannot_know() -> None:
    task, backend, found = Tagging(), load_backend("numpy"), {}
    for variant in ("simple_rnn", "bi_rnn"):
        model = backend.build(model_spec(task, {"variant": variant, "hidden_size": 16}), seed=0)
        trainer = backend.trainer(model, TrainingSpec(task.loss, Adam(0.01), ClipByGlobalNorm(1.0)))
        for number in (1, 2):
            for batch in task.epoch(number, 32, 0):
                trainer.step(batch)
        found[variant] = task.evaluate(backend, model)
    assert 0.3 < found["bi_rnn"].baseline < found["simple_rnn"].value < 0.95 < found["bi_rnn"].value


CONLL = "-DOCSTART- -X- O O\n\n" + "".join(
    f"fly VB O\nto IN O\n{city} NN B-to\nfrom IN O\nnew NN B-from\n{other} NN I-from\n\n"
    for city in ("rome", "oslo", "bonn", "rome", "oslo") for other in ("york", "delhi")
)  # fmt: skip


def own(folder: Path, text: str = CONLL) -> str:
    (folder / "own.txt").write_text(text, encoding="utf-8")
    return str(folder / "own.txt")


def test_sentences_of_ones_own_are_split_once_and_rare_words_are_one(tmp_path: Path) -> None:
    task = Tagging(data=own(tmp_path, CONLL + "leave O\nnow O\n"))
    assert task.words[0] == UNKNOWN and not {"leave", "now"} & set(task.words) and "rome" in task.words
    assert task.tags == ["O", "B-from", "B-to", "I-from"]
    shown = [batch for epoch in (1, 2) for batch in task.epoch(epoch, 4, 0)]
    assert (len(shown), task.steps_per_epoch(4), len(task.test.inputs)) == (6, 3, 2)
    first, second = (np.concatenate([b.targets.ravel() for b in shown[k : k + 3]]) for k in (0, 3))
    assert np.array_equal(np.bincount(first)[1:], np.bincount(second)[1:])
    again = load_task(task.settings())
    assert again.settings() == task.settings() and np.array_equal(again.test.inputs, task.test.inputs)


def test_a_model_learns_sentences_of_ones_own_and_is_evaluated_on_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["backend=numpy", "trainer.steps=60", "model.hidden_size=8", "hydra.run.dir=run"]
    assert main(["task=tagging", f"task.data={own(tmp_path)}", *options]) == 0
    contents = load(Path("run/model.safetensors"))
    assert contents.provenance["metrics"]["slot_f1"] == 1.0
    other = tmp_path / "other.txt"
    other.write_text(CONLL.replace("rome", "paris"), encoding="utf-8")
    assert evaluate(contents, "numpy", data=str(other)).metrics["accuracy"] > 0.5
    other.write_text(CONLL.replace("B-to", "B-goal"), encoding="utf-8")
    with pytest.raises(InputError, match=r"expected the tags .*'B-to'.* of the model, got 'B-goal'"):
        evaluate(contents, "numpy", data=str(other))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\n", "line 1: expected a word and its tag O, B-slot or I-slot, got 'one'"),
        ("a O\nb NOUN\n", "line 2: expected a word and its tag"),
        ("a O\nb B-\n", "line 2: expected a word and its tag"),
        ("a O\n\nb O\n", "expected at least 5 sentences with empty lines between them, got 2"),
    ],
)
def test_a_file_of_another_form_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        Tagging(data=own(tmp_path, text))
