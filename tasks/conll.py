"""A user's own tagged sentences: a word and its tag on each line, an empty line after each sentence."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..spec.errors import FileError
from .flights import Sentence

UNKNOWN = "<unknown>"  # a word that the training sentences have less than twice
FEWEST = 5  # sentences, as a fifth of them is the test data
COMMENT = "-DOCSTART-"


def read_sentences(path: Path) -> list[Sentence]:
    """Of a file in CoNLL's form: the first column is the word, the last its tag: O, B-slot or I-slot.

    Raises:
        FileError: the file is not of this form, or has too few sentences.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: expected text in UTF-8: {error}") from error
    found = [Sentence([], [])]
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or cells[0] == COMMENT:
            found.append(Sentence([], []))
            continue
        if len(cells) < 2 or not (cells[-1] == "O" or (cells[-1][:2] in ("B-", "I-") and cells[-1][2:])):
            raise FileError(
                f"{path}: line {number}: expected a word and its tag O, B-slot or I-slot, got {line[:60]!r}"
            )
        found[-1].words.append(cells[0])
        found[-1].tags.append(cells[-1])
    sentences = [sentence for sentence in found if sentence.words]
    if len(sentences) < FEWEST:
        raise FileError(
            f"{path}: expected at least {FEWEST} sentences with empty lines between them, got {len(sentences)}"
        )
    return sentences


def vocabulary(sentences: Sequence[Sentence]) -> list[str]:
    """The words that there are twice or more, after the one that stands for all others."""
    counts = Counter(word for sentence in sentences for word in sentence.words)
    return [UNKNOWN, *sorted(word for word, count in counts.items() if count > 1 and word != UNKNOWN)]


def tags_of(sentences: Sequence[Sentence]) -> list[str]:
    """All tags, `O` first."""
    return ["O", *sorted({tag for sentence in sentences for tag in sentence.tags} - {"O"})]
