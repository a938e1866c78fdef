"""Requests for flights with the slots that they fill: a small grammar, from which sentences are drawn.

The same city is origin, destination or stop, and the same day one of departure or return, by words that stand
before it or after it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ..spec import draws

CITIES = (
    "atlanta", "boston", "chicago", "dallas", "denver", "memphis", "miami", "oakland", "phoenix", "seattle", "tampa",
    "las vegas", "los angeles", "new orleans", "new york", "san diego", "san francisco", "salt lake city",
)  # fmt: skip
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SLOTS = ("from", "to", "via", "leave", "back")
OPENINGS = (
    "", "i need a ticket", "show me flights", "please book a seat", "what does it cost to fly", "find the best fare",
)  # fmt: skip
ROUTES = (
    "from {from} to {to}", "to {to} from {from}", "out of {from} into {to}", "{from} to {to}",
    "leaving {from} for {to}",
    "{from} is where i start and {to} is where i go", "{to} is where i go and {from} is where i start",
    "{to} is my destination and {from} my origin", "{from} my origin and {to} my destination",
)  # fmt: skip
STOPS = ("", "", "via {via}", "with {via} on the way", "and {via} is where i change planes")
DEPARTURES = ("", "on {leave}", "{leave} is when i leave", "and i leave on {leave}")
RETURNS = ("", "and back on {back}", "{back} is when i return", "and i return on {back}")
PARTS = (OPENINGS, ROUTES, STOPS, DEPARTURES, RETURNS)


class Sentence(NamedTuple):
    """Words, and for each its tag: `B-slot` for the first word of a slot's value, `I-slot` for others, `O` outside."""

    words: list[str]
    tags: list[str]


WORDS = sorted({
    word
    for phrase in (*CITIES, *DAYS, *(phrase for part in PARTS for phrase in part))
    for word in phrase.split() if not word.startswith("{")
})  # fmt: skip
TAGS = ["O", *(f"{place}-{slot}" for slot in SLOTS for place in "BI")]


def sentences(seed: int, stream: str, count: int) -> list[Sentence]:
    """So many requests, each with three different cities and two different days to choose from."""
    size = len(PARTS) + len(CITIES) + len(DAYS)
    return [_sentence(row) for row in draws.uniform(seed, stream, count * size).reshape(count, size).tolist()]


def _sentence(numbers: Sequence[float]) -> Sentence:
    phrases, cities, days = numbers[: len(PARTS)], numbers[len(PARTS) : -len(DAYS)], numbers[-len(DAYS) :]
    values = dict(zip(SLOTS, (*_shuffled(CITIES, cities)[:3], *_shuffled(DAYS, days)[:2]), strict=True))
    found = Sentence([], [])
    for part, number in zip(PARTS, phrases, strict=True):
        for word in part[int(number * len(part))].split():
            slot = word.strip("{}") if word.startswith("{") else None
            words = values[slot].split() if slot else [word]
            found.words.extend(words)
            found.tags.extend([f"B-{slot}", *[f"I-{slot}"] * (len(words) - 1)] if slot else ["O"])
    return found


def _shuffled(options: Sequence[str], numbers: Sequence[float]) -> list[str]:
    return [option for _, option in sorted(zip(numbers, options, strict=True))]
