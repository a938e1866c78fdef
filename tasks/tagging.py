"""Slot filling: which words of a flight request are its origin, its destination, its days."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from ..spec.data import check_size
from ..spec.errors import InputError, listed
from ..spec.model import Embedding, Head
from ..spec.training import Batch, CrossEntropy
from .conll import read_sentences, tags_of, vocabulary
from .drawn import EPOCH_ROWS, TEST_SEED, Drawn, scores_of
from .flights import TAGS, WORDS, Sentence, sentences
from .task import Evaluation, ModelParts, check_unchanged, file_path

SPLIT_SEED = 0  # the split of a file never changes, so that runs with different seeds can be compared
Tags = NDArray[np.int64]


class Span(NamedTuple):
    """A slot's value: in which row, from which step to before which."""

    row: int
    start: int
    end: int
    slot: str


class Own(NamedTuple):
    """The sentences of a file."""

    training: list[Sentence]
    test: list[Sentence]


class Tagging(Drawn):
    """A tag for each word of a sentence; the metric is the F1 of whole slots.

    A slot counts where its first word, its last word and its kind are right. What a city or a day is good for may
    be said after it ("denver is where i go"), so that a model that reads forward alone cannot know. Sentences have
    their own lengths; what stands behind the last word counts nowhere. Of a file a random fifth of the sentences is
    the test data, and words that the others have less than twice are one word.

    Args:
        data: a UTF-8 file with a word and its tag (`O`, `B-slot`, `I-slot`) on each line and an empty line after each
            sentence, as in CoNLL's tasks: the first column and the last. None for drawn flight requests.
        embedding_size: width of a word's vector.
        words, tags: of a trained model; None to take the training sentences' own.
        sha256: of the file, as `settings` gives it; another is then refused.

    Raises:
        FileError: the file is not of this form, or not the expected one.
        SpecError: the size is below 1.
        InputError: the file has tags that the model does not know.
    """

    name = "tagging"
    source = "data"
    metric = "slot_f1"
    goal = "maximize"
    loss = CrossEntropy()

    def __init__(
        self, data: str | None = None, embedding_size: int = 16, words: Sequence[str] | None = None,
        tags: Sequence[str] | None = None, sha256: str | None = None,
    ) -> None:  # fmt: skip
        check_size("task.embedding_size", embedding_size)
        self._width = embedding_size
        self._path = file_path(self.name, self.source, data)
        self._sha256: str | None = None
        self._own: Own | None = None
        if self._path is not None:
            self._sha256 = hashlib.sha256(self._path.read_bytes()).hexdigest()
            check_unchanged(f"task tagging: {self._path}", self._sha256, sha256)
            self._own = _split(read_sentences(self._path))
        self.words = list(words or (vocabulary(self._own.training) if self._own else WORDS))
        self.tags = list(tags or (tags_of([*self._own.training, *self._own.test]) if self._own else TAGS))
        self.test = self.draw_test()

    @property
    def parts(self) -> ModelParts:
        """An embedding of the words, and a score for each tag after every word."""
        return ModelParts(self._width, Head(len(self.tags)), Embedding(len(self.words)))

    def settings(self) -> dict[str, Any]:
        """What `load_task` takes; the words and tags where they are those of a file."""
        own = {} if self._own is None else {"words": self.words, "tags": self.tags, "sha256": self._sha256}
        return {"name": self.name, "data": self._path and str(self._path), "embedding_size": self._width, **own}

    def drawn(self, seed: int, stream: str, count: int) -> Batch:
        """Words and tags as numbers (N, T), T the length of the longest sentence, and the lengths (N,)."""
        return self._as_batch(sentences(seed, stream, count))

    def draw_test(self) -> Batch:
        """The held-out sentences of the file, or requests of a stream of their own."""
        return super().draw_test() if self._own is None else self._as_batch(self._own.test)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in an epoch; the last may be smaller."""
        return super().steps_per_epoch(batch_size) if self._own is None else -(-len(self._own.training) // batch_size)

    def epoch(self, number: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """Requests of this seed and epoch, or every training sentence of the file once, in an order of these."""
        if self._own is None:
            yield from super().epoch(number, batch_size, seed)
            return
        order = draws.permutation(seed, f"tagging.epoch.{number}", len(self._own.training))
        for start in range(0, len(order), batch_size):
            yield self._as_batch([self._own.training[row] for row in order[start : start + batch_size]])

    def evaluate(self, backend: Any, model: Any) -> Evaluation:
        """F1 of the slots, and the share of the words whose tag is right."""
        predictions = scores_of(backend, model, self.test).argmax(axis=2)
        valid = np.arange(predictions.shape[1]) < self.test.lengths[:, None]
        truth = spans(self.test.targets, self.test.lengths, self.tags)
        metrics = {
            "slot_f1": f1(spans(predictions, self.test.lengths, self.tags), truth),
            "accuracy": float((predictions == self.test.targets)[valid].mean()),
        }
        baseline = f1(spans(self._usual_tags[self.test.inputs], self.test.lengths, self.tags), truth)
        return Evaluation(self.metric, metrics, predictions, baseline, "each word's most frequent tag")

    @cached_property
    def _usual_tags(self) -> Tags:
        """Of each word, in an epoch's training sentences; of a word that is not in them the first."""
        if self._own is None:
            batch = self.drawn(TEST_SEED, f"{self.name}.epoch.1", EPOCH_ROWS)
        else:
            batch = self._as_batch(self._own.training)
        counts = np.zeros((len(self.words), len(self.tags)), np.int64)
        valid = np.arange(batch.inputs.shape[1]) < batch.lengths[:, None]
        np.add.at(counts, (batch.inputs[valid], batch.targets[valid]), 1)
        usual: Tags = counts.argmax(axis=1)
        return usual

    def _as_batch(self, found: Sequence[Sentence]) -> Batch:
        words, tags = ({name: number for number, name in enumerate(names)} for names in (self.words, self.tags))
        if unknown := {tag for sentence in found for tag in sentence.tags} - set(tags):
            raise InputError(f"task tagging: expected the tags {listed(tags)} of the model, got {listed(unknown)}")
        lengths = np.array([len(sentence.words) for sentence in found])
        inputs, targets = np.zeros((2, len(found), lengths.max()), np.int64)
        for row, sentence in enumerate(found):
            inputs[row, : lengths[row]] = [words.get(word, 0) for word in sentence.words]
            targets[row, : lengths[row]] = [tags[tag] for tag in sentence.tags]
        return Batch(inputs, targets, lengths=lengths)


def _split(found: Sequence[Sentence]) -> Own:
    order = draws.permutation(SPLIT_SEED, "tagging.split", len(found))
    held_out = len(order) // 5
    return Own([found[row] for row in order[held_out:]], [found[row] for row in order[:held_out]])


def spans(tags: Tags, lengths: NDArray[np.int64], names: Sequence[str] = TAGS) -> set[Span]:
    """The slots' values that the tags (N, T) mark; an `I-` that goes on with nothing begins one, as in conlleval."""
    found = set()
    for row, (numbers, length) in enumerate(zip(tags, lengths, strict=True)):
        start, slot = 0, ""
        for step, tag in enumerate([*(names[number] for number in numbers[:length]), "O"]):
            if slot and tag != f"I-{slot}":
                found.add(Span(row, start, step, slot))
                slot = ""
            if not slot and tag != "O":
                start, slot = step, tag[2:]
    return found


def f1(found: set[Span], truth: set[Span]) -> float:
    """The harmonic mean of the share of the found that is true and the share of the true that is found."""
    return 2 * len(found & truth) / max(len(found) + len(truth), 1)
