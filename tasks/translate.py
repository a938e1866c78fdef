"""Translation: dates written by people to ISO dates, character by character."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from ..spec.data import check_size
from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec, Source
from ..spec.errors import InputError, listed
from ..spec.model import Embedding, Head
from ..spec.training import Batch, CrossEntropy
from .dates import DAYS, ISO, ISO_LENGTH, WRITTEN, Pair, pairs
from .decoding import decoded
from .drawn import EPOCH_ROWS, ROWS_AT_ONCE, TEST_ROWS, TEST_SEED, Drawn, batches
from .task import Evaluation, ModelParts, SourceParts
from .trigrams import Trigrams

START, END = len(ISO), len(ISO) + 1
LONGEST = ISO_LENGTH + 1  # characters, with the end
Tokens = NDArray[np.int64]


class Translate(Drawn):
    """ "3rd of march 1998" becomes "1998-03-03": many to many, unaligned.

    An encoder reads what a person wrote, in one of eight forms; a decoder starts from its final state. In training it
    reads the true characters and is to give the next ones, in the evaluation its own likeliest ones. The metric is the
    share of dates that are right from the first character to the end, of days that no training example has. The
    model's variant is the encoder's: all four make sense. The decoder has as many layers, and reads forward.

    Args:
        embedding_size: width of a character's vector, on both sides.
        decoder: another variant for the decoder; one with two directions is refused.

    Raises:
        SpecError: the size is below 1.
    """

    name = "translate"
    metric = "exact_dates"
    goal = "maximize"
    loss = CrossEntropy()

    def __init__(self, embedding_size: int = 32, decoder: str | None = None) -> None:
        check_size("task.embedding_size", embedding_size)
        self._width, self._decoder = embedding_size, decoder
        order = draws.permutation(TEST_SEED, f"{self.name}.days", DAYS)
        self.held_out, self.training = order[: DAYS // 10], order[DAYS // 10 :]
        self.test_pairs = pairs(TEST_SEED, f"{self.name}.test", self.held_out, TEST_ROWS)
        self.test = as_batch(self.test_pairs)

    @property
    def parts(self) -> ModelParts:
        """Embeddings of both alphabets, and a score for each character of an ISO date, or its end, after every step."""
        size = len(ISO) + 2
        source = SourceParts(self._width, Embedding(len(WRITTEN)), self._decoder)
        return ModelParts(self._width, Head(size), Embedding(size), source=source)

    def settings(self) -> dict[str, Any]:
        """What `load_task` takes."""
        return {"name": self.name, "embedding_size": self._width, "decoder": self._decoder}

    def reason_against(self, spec: AnySpec) -> str | None:
        """A decoder that reads backward has seen the character it is to give."""
        if not isinstance(spec, EncoderDecoderSpec) or spec.decoder.num_directions == 1:
            return None
        return (
            f"a decoder that is a {spec.decoder.variant} reads backward as well, and so sees the characters it is to "
            "give; leave task.decoder out, or take simple_rnn or stacked_rnn"
        )

    def drawn(self, seed: int, stream: str, count: int) -> Batch:
        """ISO characters before and after (N, 11), and as context what was written (N, S), padded to the longest."""
        return as_batch(pairs(seed, stream, self.training, count))

    def evaluate(self, backend: Any, model: Any) -> Evaluation:
        """The share of dates that are right, and of their characters with the end."""
        parts = batches(self.test, ROWS_AT_ONCE)
        predictions = np.concatenate([translated(backend, model, rows.context) for rows in parts])
        right = predictions == self.test.targets
        metrics = {"exact_dates": float(right.all(axis=1).mean()), "accuracy": float(right.mean())}
        return Evaluation(self.metric, metrics, predictions, self._baseline(), "naive Bayes of trigrams for each field")

    def _baseline(self) -> float:
        known = Trigrams(pairs(TEST_SEED, f"{self.name}.epoch.1", self.training, EPOCH_ROWS))
        return float(np.mean([known.guess(text) == iso for text, iso in self.test_pairs]))


def translated(backend: Any, model: Any, source: Source) -> Tokens:
    """The likeliest character after every character, (N, 11)."""
    return decoded(backend, model, source, START, END, LONGEST)


def as_batch(found: Sequence[Pair]) -> Batch:
    """Pairs as numbers, for teacher forcing."""
    targets = np.array([[*map(ISO.index, iso), END] for _, iso in found])
    inputs = np.concatenate([np.full((len(found), 1), START), targets[:, :-1]], axis=1)
    return Batch(inputs, targets, context=source_of([text for text, _ in found]))


def source_of(texts: Sequence[str]) -> Source:
    """Texts as numbers (N, S), with their lengths. Raises InputError for an empty one or unknown characters."""
    for text in texts:
        if unknown := set(text) - set(WRITTEN):
            raise InputError(f"{text!r}: expected a date in the characters {WRITTEN!r}, got {listed(unknown)}")
    lengths = np.array([len(text) for text in texts])
    if lengths.min() == 0:
        raise InputError("expected a date, got an empty text")
    tokens = np.zeros((len(texts), lengths.max()), np.int64)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = list(map(WRITTEN.index, text))
    return Source(tokens, lengths)


def iso_of(tokens: Tokens) -> str:
    """What the decoder wrote, up to the end; the start, which it may give too, as a question mark."""
    numbers = tokens.tolist()
    return "".join((ISO + "?")[number] for number in numbers[: numbers.index(END) if END in numbers else None])
