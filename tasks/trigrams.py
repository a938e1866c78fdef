"""What is simple and knows dates: naive Bayes of the letters, three by three, for year, month and day apart."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from math import log

from .dates import Pair


class Trigrams:
    """For each field of an ISO date the value of the largest log P(value) + sum of log P(trigram | value).

    Probabilities are counts of the examples, each with 1 added.
    """

    def __init__(self, examples: Iterable[Pair]) -> None:
        self._fields: list[defaultdict[str, Counter[str]]] = [defaultdict(Counter) for _ in range(3)]
        self._known: set[str] = set()
        for text, iso in examples:
            found = _trigrams(text)
            self._known |= found
            for field, value in zip(self._fields, iso.split("-"), strict=True):
                field[value].update(found)
                field[value][""] += 1  # how many examples have the value

    def guess(self, text: str) -> str:
        """The likeliest date."""
        found = _trigrams(text) & self._known
        return "-".join(max(field, key=lambda value: _score(field[value], found)) for field in self._fields)


def _trigrams(text: str) -> set[str]:
    padded = f"^{text}$"
    return {padded[start : start + 3] for start in range(len(padded) - 2)}


def _score(counts: Counter[str], found: set[str]) -> float:
    examples = counts[""]
    return log(examples) + sum(log((counts[trigram] + 1) / (examples + 2)) for trigram in found)
