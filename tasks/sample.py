"""What a trained model says: text that goes on, captions of pictures, dates as ISO writes them."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np

from ..spec import draws
from ..spec.backend import Contents, load_backend
from ..spec.data import check_number, check_size
from ..spec.errors import FileError, SpecError, listed
from .captioning import Captioning, captions, text_of_caption
from .char_lm import CharLM, Tokens, one_hot, tokens_of
from .decoding import chosen
from .drawn import batches
from .evaluate import built
from .tables import table
from .task import task_of
from .translate import Translate, iso_of, source_of, translated

OPTIONS = ("length", "temperature", "seed", "seed_text", "count", "inputs")
WAY_OUT = "train one with 'rnnzoo train task=char_lm'"


def sample(contents: Contents, backend_name: str, **given: Any) -> str:
    """What the model says; the same for the same seed.

    Args:
        contents: of a file that `rnnzoo train` wrote, or that was converted from one, of a task of `SAMPLERS`.
        backend_name: as for `load_backend`.
        given: options of the task's function below; all others are overrides as for `evaluate`.

    Raises:
        FileError: the file names no task, or one that says nothing.
        SpecError: an option or an override that the task has not, or out of its range.
        InputError: a text has characters that the model does not know.
    """
    recorded = contents.provenance.get("task")
    name = recorded.get("name") if isinstance(recorded, dict) else None
    if not isinstance(name, str) or name not in SAMPLERS:
        found = "one whose file names no task" if name is None else f"one of the task {name!r}"
        raise FileError(f"sample: expected a model of the tasks {listed(SAMPLERS)}, got {found}; {WAY_OUT}")
    options = {key: value for key, value in given.items() if key in OPTIONS}
    known = [key for key in signature(SAMPLERS[name]).parameters if key in OPTIONS]
    if unknown := set(options) - set(known):
        raise SpecError(f"sample: a model of the task {name!r} has no option {listed(unknown)}; it has {listed(known)}")
    overrides = {key: value for key, value in given.items() if key not in OPTIONS}
    return SAMPLERS[name](contents, backend_name, overrides, **options)


def text(
    contents: Contents, backend_name: str, overrides: Mapping[str, Any], *, length: int = 400,
    temperature: float = 0.7, seed: int = 0, seed_text: str | None = None,
) -> str:  # fmt: skip
    """`length` characters that follow the seed text.

    Each is drawn from softmax(scores / temperature), and fed back; temperature 0 takes the likeliest.

    Args:
        length: characters to draw.
        temperature: below 1 more likely characters, above 1 more surprising ones.
        seed: of the draws.
        seed_text: read before the first draw; None for a line break, or the alphabet's first character.
        overrides: no text is needed here; one that is named must fit the model.
    """
    alphabet = _alphabet(contents)
    if overrides:
        task_of(contents, overrides)
    check_size("length", length)
    check_number("temperature", temperature, 0.0, np.inf)
    tokens = tokens_of(seed_text or ("\n" if "\n" in alphabet else alphabet[0]), alphabet, "seed text")[None, :]
    backend, model = load_backend(backend_name), built(contents, backend_name)
    return continued(backend, model, alphabet, tokens, length, temperature, seed)


def continued(
    backend: Any, model: Any, alphabet: str, tokens: Tokens, length: int, temperature: float, seed: int
) -> str:
    """Characters that a model draws after the tokens (1, T)."""
    found, state = [], None
    for number in draws.uniform(seed, "char_lm.sample", length):
        inputs = tokens if model.spec.embedding else one_hot(tokens, len(alphabet))
        result = backend.run(model, inputs, initial_state=state)  # (1, T) of the first tokens, then (1, 1)
        state = result.final_states
        tokens = chosen(result.scores[:, -1], temperature, number[None])[:, None]
        found.append(alphabet[tokens[0, 0]])
    return "".join(found)


def captions_of_pictures(
    contents: Contents, backend_name: str, overrides: Mapping[str, Any], *, count: int = 8, temperature: float = 0.0,
    seed: int = 0,
) -> str:  # fmt: skip
    """What the first pictures of the test show, and what the model says: its likeliest words, or drawn ones.

    Args:
        count: pictures.
        temperature: 0 takes the likeliest word each time; at 1 words are drawn as likely as the model holds them.
        seed: of the draws.
    """
    task = task_of(contents, overrides)
    assert isinstance(task, Captioning)
    check_size("count", count)
    check_number("temperature", temperature, 0.0, np.inf)
    rows = next(batches(task.test, count))
    backend, model = load_backend(backend_name), built(contents, backend_name)
    found = captions(backend, model, rows.context, temperature=temperature, seed=seed)
    pairs = zip(rows.targets, found, strict=True)
    return table(("picture of", "caption"), [tuple(map(text_of_caption, pair)) for pair in pairs])


def translations(
    contents: Contents, backend_name: str, overrides: Mapping[str, Any], *, count: int = 8,
    inputs: Sequence[str] | None = None,
) -> str:  # fmt: skip
    """Dates as ISO writes them: the texts given, or the first of the test.

    Args:
        count: dates of the test.
        inputs: dates as people write them, in place of those.
    """
    task = task_of(contents, overrides)
    assert isinstance(task, Translate)
    check_size("count", count)
    texts = [pair.text for pair in task.test_pairs[:count]] if inputs is None else list(inputs)
    source = source_of(texts)
    found = translated(load_backend(backend_name), built(contents, backend_name), source)
    return table(("date", "translation"), list(zip(texts, map(iso_of, found), strict=True)))


SAMPLERS: Mapping[str, Callable[..., str]] = {
    CharLM.name: text,
    Captioning.name: captions_of_pictures,
    Translate.name: translations,
}


def _alphabet(contents: Contents) -> str:
    task, embedding, head = contents.provenance["task"], contents.spec.embedding, contents.spec.head
    sizes = (embedding.vocabulary_size if embedding else contents.spec.input_size, head and head.size)
    alphabet = task.get("alphabet")
    if not isinstance(alphabet, str) or sizes != (len(alphabet), len(alphabet)) or not alphabet:
        raise FileError(
            f"sample: expected an alphabet with a character for each of the model's tokens and scores {sizes}, "
            f"got {str(alphabet)[:20]!r}; {WAY_OUT}"
        )
    return alphabet
