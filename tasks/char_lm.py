"""A character language model: predict each character of a text from those before it."""

import hashlib
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.data import check_size
from ..spec.encoder_decoder import AnySpec
from ..spec.errors import FileError, InputError, SpecError
from ..spec.model import Embedding, Head
from ..spec.training import Batch, CrossEntropy
from .markov import Markov
from .task import Array, Evaluation, ModelParts, check_unchanged, file_path, log_softmax

EVALUATION_STREAMS = 64
EVALUATION_WINDOW = 128
WARM_UP = 64  # steps that a stream reads before the first one that counts
Tokens = NDArray[np.int64]


class CharLM:
    """The last tenth of the text is held out; the metric is bits per character there.

    The alphabet is that of the whole text, so that no held-out character is unknown to the model or to the
    baseline; both give characters that the training text lacks some probability. Another text, evaluated
    with the alphabet of a trained model, is refused where it has a character outside it.

    Training cuts the text into `batch_size` streams of equal length and reads them side by side, `window`
    steps an update; the state is carried from update to update and starts at zero in each epoch. What does
    not fill a stream or a window is left out.

    Args:
        text: the path of a UTF-8 file; None for the topics of Python's `help()`, in sorted order, which
            differ between Python versions.
        window: steps between two updates.
        embedding_size: width of a character's vector; None for one-hot inputs without an embedding.
        reduction: of the loss over the steps of an update, as for `CrossEntropy`.
        order: characters that the baseline looks back.
        alphabet: of a trained model; None to take the text's own.
        sha256: of the text, as `settings` gives it; another text is then refused.

    Raises:
        FileError: the file cannot be read, is too short, or is not the expected one.
        SpecError: a size is below 1, there is no such reduction, or the alphabet is no text.
        InputError: the text has characters outside the alphabet.
    """

    name = "char_lm"
    source = "text"
    metric = "bits_per_character"
    goal = "minimize"

    def __init__(
        self, text: str | None = None, window: int = 64, embedding_size: int | None = 64, reduction: str = "mean",
        order: int = 3, alphabet: str | None = None, sha256: str | None = None,
    ) -> None:  # fmt: skip
        check_size("task.window", window)
        check_size("task.order", order, 0)
        if embedding_size is not None:
            check_size("task.embedding_size", embedding_size)
        self.loss = CrossEntropy(reduction)
        self._order = order
        self._path = file_path(self.name, self.source, text)
        self._window, self._width = window, embedding_size
        self._where = str(self._path or "the topics of this Python")
        self.text = _topics() if self._path is None else _read(self._path)
        self._sha256 = hashlib.sha256(self.text.encode()).hexdigest()
        check_unchanged(f"task char_lm: {self._where}", self._sha256, sha256)
        if not isinstance(alphabet, str | None):
            raise SpecError(f"task char_lm: alphabet: expected text, one character after the other, got {alphabet!r}")
        self.alphabet = alphabet or "".join(sorted(set(self.text)))
        self.held_out = len(self.text) - len(self.text) // 10
        if len(self.text) < 100:
            raise FileError(
                f"{self._where}: expected at least 100 characters, got {len(self.text)}; name a longer text"
            )
        self._tokens = tokens_of(self.text, self.alphabet, self._where)

    @property
    def parts(self) -> ModelParts:
        """An embedding of the alphabet or one-hot inputs, and a score for each character after every step."""
        size = len(self.alphabet)
        embedding = None if self._width is None else Embedding(size)
        return ModelParts(self._width or size, Head(size), embedding)

    def settings(self) -> dict[str, Any]:
        """What `load_task` takes."""
        return {
            "name": self.name, "text": self._path and str(self._path), "window": self._window,
            "embedding_size": self._width, "reduction": self.loss.reduction, "order": self._order,
            "alphabet": self.alphabet, "sha256": self._sha256,
        }  # fmt: skip

    def reason_against(self, spec: AnySpec) -> str | None:
        """A model that reads backward has seen the character it is to predict."""
        if spec.num_directions == 2:
            return (
                f"{spec.variant} reads backward as well, and so sees the characters it is to predict; "
                "take simple_rnn or stacked_rnn"
            )
        return None

    def steps_per_epoch(self, batch_size: int) -> int:
        """Whole windows in a stream. Raises InputError when there is none."""
        count = (self.held_out - 1) // batch_size // self._window
        if not count:
            raise InputError(
                f"{self._where}: {self.held_out} characters to train on are too few for trainer.batch_size = "
                f"{batch_size} streams with windows of {self._window} steps; lower it or task.window"
            )
        return count

    def epoch(self, number: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """The windows in the order of the text: an order that neither seed nor epoch changes."""
        steps = (self.held_out - 1) // batch_size
        inputs = self._tokens[: batch_size * steps].reshape(batch_size, steps)
        targets = self._tokens[1 : batch_size * steps + 1].reshape(batch_size, steps)
        for start in range(0, self.steps_per_epoch(batch_size) * self._window, self._window):
            window = slice(start, start + self._window)
            yield Batch(self._inputs(inputs[:, window]), targets[:, window], continues=start > 0)

    def _inputs(self, tokens: Tokens) -> Array:
        return tokens if self._width is not None else one_hot(tokens, len(self.alphabet))

    def evaluate(self, backend: Any, model: Any) -> Evaluation:
        """Bits per character and accuracy on the held-out text.

        It is read as parallel streams with the state carried along; each begins some steps early, in
        the text before it, so that its first characters too are predicted from others.
        """
        positions, counts = self._evaluation_streams()
        bits, predictions, state = 0.0, np.zeros(positions.shape, np.int64), None
        for start in range(0, positions.shape[1], EVALUATION_WINDOW):
            window = slice(start, start + EVALUATION_WINDOW)
            result = backend.run(model, self._inputs(self._tokens[positions[:, window] - 1]), initial_state=state)
            state = result.final_states
            logarithms = log_softmax(result.scores)  # (B, T, V)
            predictions[:, window] = logarithms.argmax(axis=2)
            picked = np.take_along_axis(logarithms, self._tokens[positions[:, window], None], axis=2)[..., 0]
            bits -= float(picked[counts[:, window]].sum()) / math.log(2)
        found = predictions[counts]
        metrics = {
            "bits_per_character": bits / len(found),
            "accuracy": float((found == self._tokens[self.held_out :]).mean()),
        }
        return Evaluation(self.metric, metrics, found, self.baseline, f"an order-{self._order} Markov model")

    def _evaluation_streams(self) -> tuple[Tokens, NDArray[np.bool_]]:
        """Positions in the text to predict, (B, T), and which of them count."""
        streams = min(EVALUATION_STREAMS, len(self.text) - self.held_out)
        length = -(-(len(self.text) - self.held_out) // streams)
        early = min(WARM_UP, self.held_out - 1)
        steps = np.arange(-(-(early + length) // EVALUATION_WINDOW) * EVALUATION_WINDOW)
        positions = self.held_out - early + length * np.arange(streams)[:, None] + steps
        counts = (positions < len(self.text)) & (steps >= early) & (steps < early + length)
        return np.minimum(positions, len(self.text) - 1), counts

    @cached_property
    def baseline(self) -> float:
        """Bits per character of a Markov model that was fitted on the training text."""
        return Markov(self.text[: self.held_out], len(self.alphabet), self._order).bits(self.text, self.held_out)


def one_hot(tokens: Tokens, size: int) -> NDArray[np.float64]:
    """Vectors of that size with a 1 at each token's place and 0 elsewhere."""
    return np.eye(size)[tokens]


def tokens_of(text: str, alphabet: str, where: str) -> Tokens:
    """Each character's place in the alphabet. Raises InputError for characters outside it."""
    places = {character: place for place, character in enumerate(alphabet)}
    if unknown := set(text) - set(places):
        shown = ", ".join(repr(character) for character in sorted(unknown)[:10])
        raise InputError(
            f"{where}: expected the {len(alphabet)} characters of the model's alphabet alone, "
            f"got {len(unknown)} others: {shown}; take them out, or train a model on a text that has them"
        )
    return np.array([places[character] for character in text], np.int64)


def _topics() -> str:
    from pydoc_data import topics  # 0.5 MB of text, read only where it is wanted

    return "".join(topics.topics[name] for name in sorted(topics.topics))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: expected UTF-8 text, got other bytes at {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
