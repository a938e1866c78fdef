"""Slot filling: which words of a flight request are its origin, its destination, its days."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..spec.data import check_size
from ..spec.model import Embedding, Head
from ..spec.training import Batch, CrossEntropy
from .drawn import EPOCH_ROWS, TEST_SEED, Drawn, scores_of
from .flights import TAGS, WORDS, Sentence, sentences
from .task import Evaluation, ModelParts

Tags = NDArray[np.int64]


class Span(NamedTuple):
    """A slot's value: in which row, from which step to before which."""

    row: int
    start: int
    end: int
    slot: str


class Tagging(Drawn):
    """A tag for each word of a sentence; the metric is the F1 of whole slots.

    A slot counts where its first word, its last word and its kind are right. What a city or a day is good for may
    be said after it ("denver is where i go"), so that a model that reads forward alone cannot know. Sentences have
    their own lengths; what stands behind the last word counts nowhere.

    Args:
        embedding_size: width of a word's vector.

    Raises:
        SpecError: the size is below 1.
    """

    name = "tagging"
    metric = "slot_f1"
    goal = "maximize"
    loss = CrossEntropy()

    def __init__(self, embedding_size: int = 16) -> None:
        check_size("task.embedding_size", embedding_size)
        self._width = embedding_size
        self.test = self.draw_test()

    @property
    def parts(self) -> ModelParts:
        """An embedding of the words, and a score for each tag after every word."""
        return ModelParts(self._width, Head(len(TAGS)), Embedding(len(WORDS)))

    def settings(self) -> dict[str, Any]:
        """What `load_task` takes."""
        return {"name": self.name, "embedding_size": self._width}

    def drawn(self, seed: int, stream: str, count: int) -> Batch:
        """Words and tags as numbers (N, T), T the length of the longest sentence, and the lengths (N,)."""
        return _as_batch(sentences(seed, stream, count))

    def evaluate(self, backend: Any, model: Any) -> Evaluation:
        """F1 of the slots, and the share of the words whose tag is right."""
        predictions = scores_of(backend, model, self.test).argmax(axis=2)
        valid = np.arange(predictions.shape[1]) < self.test.lengths[:, None]
        truth = spans(self.test.targets, self.test.lengths)
        metrics = {
            "slot_f1": f1(spans(predictions, self.test.lengths), truth),
            "accuracy": float((predictions == self.test.targets)[valid].mean()),
        }
        baseline = f1(spans(self._usual_tags[self.test.inputs], self.test.lengths), truth)
        return Evaluation(self.metric, metrics, predictions, baseline, "each word's most frequent tag")

    @cached_property
    def _usual_tags(self) -> Tags:
        """Of each word, in an epoch's training sentences."""
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for sentence in sentences(TEST_SEED, f"{self.name}.epoch.1", EPOCH_ROWS):
            for word, tag in zip(*sentence, strict=True):
                counts[word][tag] += 1
        return np.array([TAGS.index(counts[word].most_common(1)[0][0]) for word in WORDS])


def _as_batch(found: Sequence[Sentence]) -> Batch:
    words, tags = ({name: number for number, name in enumerate(names)} for names in (WORDS, TAGS))
    lengths = np.array([len(sentence.words) for sentence in found])
    inputs, targets = np.zeros((2, len(found), lengths.max()), np.int64)
    for row, sentence in enumerate(found):
        inputs[row, : lengths[row]] = [words[word] for word in sentence.words]
        targets[row, : lengths[row]] = [tags[tag] for tag in sentence.tags]
    return Batch(inputs, targets, lengths=lengths)


def spans(tags: Tags, lengths: NDArray[np.int64]) -> set[Span]:
    """The slots' values that the tags (N, T) mark; an `I-` that goes on with nothing begins one, as in conlleval."""
    found = set()
    for row, (numbers, length) in enumerate(zip(tags, lengths, strict=True)):
        start, slot = 0, ""
        for step, tag in enumerate([*(TAGS[number] for number in numbers[:length]), "O"]):
            if slot and tag != f"I-{slot}":
                found.add(Span(row, start, step, slot))
                slot = ""
            if not slot and tag != "O":
                start, slot = step, tag[2:]
    return found


def f1(found: set[Span], truth: set[Span]) -> float:
    """The harmonic mean of the share of the found that is true and the share of the true that is found."""
    return 2 * len(found & truth) / (len(found) + len(truth))
