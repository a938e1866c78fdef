"""Captioning: pictures of two handwritten digits, and their number in words."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from ..spec.data import check_size
from ..spec.encoder_decoder import AnySpec
from ..spec.model import Context, Embedding, Head
from ..spec.training import Batch, CrossEntropy
from .decoding import decoded
from .digits import Digits, Sequences
from .drawn import ROWS_AT_ONCE, TEST_ROWS, TEST_SEED, Drawn, batches
from .task import Array, Evaluation, ModelParts

ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
WORDS = ("<start>", "<end>", *ONES, *TENS)
START, END = 0, 1
LONGEST = 3  # words, with the end
PLACES = np.array([10, 1])  # what the left and the right digit are worth
Tokens = NDArray[np.int64]


class Captioning(Drawn):
    """Two of scikit-learn's digits side by side are a number from 0 to 99; its words are the caption, one to many.

    An affine map of the picture gives the initial state. In training the model reads the true words and is to give
    the next ones ("<start> forty two" and "forty two <end>"); in the evaluation it reads its own likeliest words.
    The metric is the share of captions that are right from the first word to the end. Pictures of the test are of
    digits that no picture of the training has; they are those of the task `digits`.

    Args:
        embedding_size: width of a word's vector.
        sha256: of the digits, as `settings` gives it; others are then refused.

    Raises:
        SpecError: the size is below 1.
        FileError: the digits are not the expected ones.
        BackendError: scikit-learn, which brings the digits, is not installed.
    """

    name = "captioning"
    metric = "exact_captions"
    goal = "maximize"
    loss = CrossEntropy()

    def __init__(self, embedding_size: int = 16, sha256: str | None = None) -> None:
        check_size("task.embedding_size", embedding_size)
        self._width = embedding_size
        digits = Digits(sha256=sha256)
        self._sha256 = digits.settings()["sha256"]
        self._training, self._held_out = digits.training, digits.test
        self.test = self.draw_test()

    @property
    def parts(self) -> ModelParts:
        """An embedding of the words, a score for each word after every step, and a picture as context."""
        pixels = 2 * self._training.inputs[0].size
        return ModelParts(self._width, Head(len(WORDS)), Embedding(len(WORDS)), Context(pixels))

    def settings(self) -> dict[str, Any]:
        """What `load_task` takes."""
        return {"name": self.name, "embedding_size": self._width, "sha256": self._sha256}

    def reason_against(self, spec: AnySpec) -> str | None:
        """A model that reads backward has seen the word it is to give."""
        if spec.num_directions == 2:
            return (
                f"{spec.variant} reads backward as well, and so sees the words it is to give; "
                "take simple_rnn or stacked_rnn"
            )
        return None

    def drawn(self, seed: int, stream: str, count: int) -> Batch:
        """Words before and after (N, 3) with their number (N,), and as context the pictures (N, 128)."""
        return _captioned(self._training, seed, stream, count)

    def draw_test(self) -> Batch:
        """Pictures of held-out digits."""
        return _captioned(self._held_out, TEST_SEED, f"{self.name}.test", TEST_ROWS)

    def evaluate(self, backend: Any, model: Any) -> Evaluation:
        """The share of whole captions that are right, and of their words with the end."""
        parts = batches(self.test, ROWS_AT_ONCE)
        predictions = np.concatenate([captions(backend, model, rows.context) for rows in parts])
        right = predictions == self.test.targets
        valid = np.arange(LONGEST) < self.test.lengths[:, None]
        metrics = {"exact_captions": float(right.all(axis=1).mean()), "accuracy": float(right[valid].mean())}
        return Evaluation(self.metric, metrics, predictions, self._baseline(), "the nearest mean of each digit")

    def _baseline(self) -> float:
        digits, images = self._training.targets, self._training.inputs.reshape(len(self._training.inputs), -1)
        means = np.stack([images[digits == digit].mean(axis=0) for digit in range(10)])
        halves = self.test.context.reshape(TEST_ROWS, 2, 1, -1)
        nearest = ((halves - means) ** 2).sum(axis=3).argmin(axis=2)  # (N, 2)
        return float((CAPTIONS[nearest @ PLACES] == self.test.targets).all(axis=1).mean())


def captions(backend: Any, model: Any, pictures: Array, *, temperature: float = 0.0, seed: int = 0) -> Tokens:
    """The words of each picture, (N, 3): the likeliest after every word, or drawn, as `decoded` says."""
    return decoded(
        backend, model, pictures, START, END, LONGEST, temperature=temperature, seed=seed, stream="captioning.sample"
    )


def text_of_caption(words: Tokens) -> str:
    """The words of a caption (3,), up to the end."""
    numbers = words.tolist()
    return " ".join(WORDS[number] for number in numbers[: numbers.index(END) if END in numbers else None])


def words_of(number: int) -> list[str]:
    """A number from 0 to 99 in words."""
    tens, ones = divmod(number, 10)
    return [ONES[number]] if number < 20 else [TENS[tens - 2], *([ONES[ones]] if ones else [])]


def _captioned(digits: Sequences, seed: int, stream: str, count: int) -> Batch:
    chosen = (draws.uniform(seed, stream, 2 * count) * len(digits.inputs)).astype(np.int64)
    numbers = digits.targets[chosen].reshape(count, 2) @ PLACES
    targets = CAPTIONS[numbers]
    inputs = np.concatenate([np.full((count, 1), START), targets[:, :-1]], axis=1)
    lengths = 1 + (targets != END).sum(axis=1)
    return Batch(inputs, targets, lengths=lengths, context=digits.inputs[chosen].reshape(count, -1))


def _captions() -> Tokens:
    """Of each number, (100, 3); after its words there are only ends."""
    found = np.full((100, LONGEST), END)
    for number in range(100):
        words = words_of(number)
        found[number, : len(words)] = [WORDS.index(word) for word in words]
    return found


CAPTIONS = _captions()
