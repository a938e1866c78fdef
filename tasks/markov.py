"""The baseline of `char_lm`: an interpolated Kneser-Ney model of fixed order, counted on the training text.

p_k(c | x) = max(n(xc) - d_k, 0) / n(x) + d_k u(x) / n(x) p_{k-1}(c | x without its first character)

n counts occurrences at the highest order, and below it the distinct characters that come before; u(x) is
the number of distinct characters after x; p_{-1} is uniform; d_k = n_1 / (n_1 + 2 n_2), n_i the number of
sequences that occur i times. Source: Kneser and Ney 1995; Chen and Goodman 1999, section 3.
"""

import math
from collections import Counter


class Markov:
    """Predicts a character from the `order` ones before it.

    Args:
        text: to count.
        alphabet_size: of the uniform distribution that everything ends in.
    """

    def __init__(self, text: str, alphabet_size: int, order: int = 3) -> None:
        self._order, self._uniform = order, 1 / alphabet_size
        occurrences = [Counter(text[i : i + k + 1] for i in range(len(text) - k)) for k in range(order + 1)]
        lower = [Counter(sequence[1:] for sequence in longer) for longer in occurrences[1:]]
        self._counts = [*lower, occurrences[-1]]
        self._discounts = [_discount(counts) for counts in self._counts]
        self._totals: list[Counter[str]] = [Counter() for _ in self._counts]
        self._followers = [Counter(sequence[:-1] for sequence in counts) for counts in self._counts]
        for totals, counts in zip(self._totals, self._counts, strict=True):
            for sequence, count in counts.items():
                totals[sequence[:-1]] += count

    def probability(self, context: str, character: str) -> float:
        """p(character | the last characters of the context)."""
        p = self._uniform
        for k in range(min(self._order, len(context)) + 1):
            x = context[len(context) - k :]
            total = self._totals[k][x]
            if not total:
                break
            kept = max(self._counts[k][x + character] - self._discounts[k], 0.0)
            p = (kept + self._discounts[k] * self._followers[k][x] * p) / total
        return p

    def bits(self, text: str, start: int) -> float:
        """Mean of -log2 p over the characters from `start` on, each after those before it."""
        total = 0.0
        for i in range(start, len(text)):
            total -= math.log2(self.probability(text[max(i - self._order, 0) : i], text[i]))
        return total / (len(text) - start)


def _discount(counts: Counter[str]) -> float:
    once = sum(1 for count in counts.values() if count == 1)
    twice = sum(1 for count in counts.values() if count == 2)
    return once / (once + 2 * twice) if once else 0.5
