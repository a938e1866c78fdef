"""Text from a trained character language model, one character after the other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from ..spec.backend import Contents, load_backend
from ..spec.data import check_number, check_size
from ..spec.errors import FileError
from .char_lm import CharLM, one_hot, tokens_of
from .evaluate import built
from .task import log_softmax, task_of


def sample(
    contents: Contents, backend_name: str, *, length: int = 500, temperature: float = 1.0, seed: int = 0,
    seed_text: str | None = None, **overrides: Any,
) -> str:  # fmt: skip
    """`length` characters that follow the seed text; the same ones for the same seed.

    Each is drawn from softmax(scores / temperature), and fed back; temperature 0 takes the likeliest.

    Args:
        contents: of a file that `rnnzoo train task=char_lm` wrote, or that was converted from one.
        backend_name: as for `load_backend`.
        length: characters to draw.
        temperature: below 1 more likely characters, above 1 more surprising ones.
        seed: of the draws.
        seed_text: read before the first draw; None for a line break, or the alphabet's first character.
        overrides: as for `evaluate`. No text is needed here; one that is named must fit the model.

    Raises:
        FileError: the file is not of a character language model.
        SpecError: length or temperature is out of its range, or there is no such override.
        InputError: the seed text has characters outside the model's alphabet.
    """
    alphabet = _alphabet(contents)
    if overrides:
        task_of(contents, overrides)
    check_size("length", length)
    check_number("temperature", temperature, 0.0, np.inf)
    tokens = tokens_of(seed_text or ("\n" if "\n" in alphabet else alphabet[0]), alphabet, "seed text")
    backend, model = load_backend(backend_name), built(contents, backend_name)
    found, state = [], None
    for number in draws.uniform(seed, "char_lm.sample", length):
        inputs = tokens if contents.spec.embedding else one_hot(tokens, len(alphabet))
        result = backend.run(model, inputs[None], initial_state=state)  # (1, T) of the seed text, then (1, 1)
        state = result.final_states
        token = _drawn(result.scores[0, -1], temperature, float(number))
        found.append(alphabet[token])
        tokens = np.array([token], np.int64)
    return "".join(found)


def _alphabet(contents: Contents) -> str:
    task, way_out = contents.provenance.get("task"), "train one with 'rnnzoo train task=char_lm'"
    name = task.get("name") if isinstance(task, dict) else None
    if not isinstance(task, dict) or name != CharLM.name:
        found = "one whose file names no task" if name is None else f"one of the task {name!r}"
        raise FileError(f"sample: expected a model of the task 'char_lm', got {found}; {way_out}")
    alphabet, embedding, head = task.get("alphabet"), contents.spec.embedding, contents.spec.head
    sizes = (embedding.vocabulary_size if embedding else contents.spec.input_size, head and head.size)
    if not isinstance(alphabet, str) or sizes != (len(alphabet), len(alphabet)) or not alphabet:
        raise FileError(
            f"sample: expected an alphabet with a character for each of the model's tokens and scores {sizes}, "
            f"got {str(alphabet)[:20]!r}; {way_out}"
        )
    return alphabet


def _drawn(scores: NDArray[Any], temperature: float, number: float) -> int:
    """The class at which the cumulated probabilities pass `number`, which is uniform in [0, 1)."""
    if temperature == 0:
        return int(scores.argmax())
    cumulated = np.cumsum(np.exp(log_softmax(scores.astype(np.float64) / temperature)))
    return min(int(np.searchsorted(cumulated, number * cumulated[-1], side="right")), len(scores) - 1)
