"""The table of cases.

The product of variant, nonlinearity, bias and merge is complete; sequences, initial state and sizes are
spread over it so that every pair of values of any two factors occurs. Further cases put embedding, head and
context around some of them, and some have inputs of a thousand, or of 0, which is no padding. An
implementation that supports little meets little of all that, so that one forward layer alone is there with every
nonlinearity and bias, on whole sequences, and that in two sizes, as much is right by chance in one.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..spec.definitions import BIASES, load_variant, variant_names
from ..spec.dropout import Dropout
from ..spec.model import MERGES, NONLINEARITIES, Context, Embedding, Head, ModelSpec
from .cases import SEQUENCES, Case

Row = TypeVar("Row")


class Sizes(NamedTuple):
    """B rows, T steps, I inputs, H units, L layers where the variant is stacked."""

    B: int
    T: int
    I: int  # noqa: E741 (the spec's symbol)
    H: int
    L: int


SIZES = (Sizes(4, 5, 2, 3, 2), Sizes(1, 4, 3, 2, 3), Sizes(3, 1, 4, 2, 2), Sizes(2, 3, 1, 4, 2))
PARTS: tuple[dict[str, Any], ...] = (
    {"head": Head(2)},
    {"head": Head(3, reads="final")},
    {"head": Head(2, bias=False, reads="final"), "context": Context(3)},
    {"embedding": Embedding(5)},
    {"embedding": Embedding(7), "head": Head(5)},
    {"embedding": Embedding(4), "head": Head(4, bias=False), "context": Context(2)},
    {"context": Context(4)},
)


def topologies() -> list[dict[str, Any]]:
    """The complete product of variant, nonlinearity, bias and merge."""
    return [
        {"variant": variant, "nonlinearity": nonlinearity, "bias": bias, "merge": merge}
        for variant, nonlinearity, bias in itertools.product(variant_names(), NONLINEARITIES, BIASES)
        for merge in (MERGES if len(load_variant(variant).directions) == 2 else MERGES[:1])
    ]


@cache
def cases() -> tuple[Case, ...]:
    """All cases: one for each topology, two for each part and variant, some with large sums, one with dropout."""
    around = [{"variant": variant, **part} for part in PARTS for variant in variant_names() for _ in range(2)]
    rows = [*topologies(), *(topology | row for row, topology in _spread(around, topologies()))]
    found = [_case(topology, **extras) for topology, extras in _spread(rows, _extras())]
    plain = [case for case in found if case.spec.bias == "single"]
    large = [next(case for case in plain if case.spec.nonlinearity == name) for name in ("tanh", "sigmoid")]
    drops = ModelSpec("stacked_bi_rnn", 2, 3, 2, dropout=Dropout(0.5, 0.5, 0.5), head=Head(2))  # which a run does not
    still = [replace(case, scale=0.0) for case in bare_cases() if case.spec.bias == "single" and not case.initial]
    extremes = [*(replace(case, scale=4000.0) for case in large), *still, Case(drops, 4, 5, "lengths", True)]
    return tuple(dict.fromkeys([*found, *extremes, *bare_cases(), *other_bare_cases()]))


def bare_cases() -> list[Case]:
    """One forward layer without lengths or parts, from zeros and from a state."""
    return _bare(SIZES[0], (False, True))


def other_bare_cases() -> list[Case]:
    """The same from zeros, with other B (a single row), T, I and H."""
    return _bare(SIZES[1], (False,))


def quick_cases() -> list[Case]:
    """A few cases that still touch every value of every factor, for a first look."""
    return covering(cases(), factors)


def covering(table: Iterable[Row], factors: Callable[[Row], Set[tuple[str, ...]]]) -> list[Row]:
    """The rows of a table that bring a value of a factor that none before them has."""
    found: list[Row] = []
    seen: set[tuple[str, ...]] = set()
    for row in table:
        if new := factors(row) - seen:
            seen |= new
            found.append(row)
    return found


def factors(case: Case) -> set[tuple[str, str]]:
    """The values of a case's factors, by name; a head that reads the final states counts for each variant."""
    spec, named = case.spec, ("variant", "nonlinearity", "bias", "merge", "embedding", "head", "context")
    values = {(name, str(getattr(spec, name))) for name in named}
    values |= {
        ("sequences", case.sequences),
        *([("asymmetric mask", f"{case.sequences} {spec.num_directions}")] if _tells_directions(case) else []),
        ("initial", str(case.initial)),
        ("scale", f"{case.scale} {spec.nonlinearity}"),
    }
    values |= {
        ("dropout", str(spec.dropout)),
        ("context and state", str(bool(spec.context and case.initial))),
        ("layers and state", f"{spec.num_layers > 1} {case.initial}"),
        ("sequences and state", f"{case.sequences} {case.initial}"),
    }
    return values | {
        ("sizes", str((case.rows, case.steps, spec.input_size, spec.hidden_size))),
        ("head of", f"{spec.variant} {spec.head.reads if spec.head else None}"),
    }


def _tells_directions(case: Case) -> bool:
    """Whether a mask that was reversed, or should have been and was not, can be seen."""
    mask = case.understood.mask
    return mask is not None and not np.array_equal(mask, mask[:, ::-1])


def _extras() -> list[dict[str, Any]]:
    return [
        {"sizes": sizes, "sequences": sequences, "initial": initial}
        for sizes, sequences, initial in itertools.product(SIZES, SEQUENCES, (False, True))
    ]


def _spread(
    rows: Sequence[dict[str, Any]], extras: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Gives each row, of the extras that do not contradict it, those that bring most pairs of values not seen yet."""
    seen: set[frozenset[tuple[str, str]]] = set()
    for row in rows:
        fitting = [extra for extra in extras if all(row.get(name, value) == value for name, value in extra.items())]
        best = max(fitting, key=lambda extra: len(_pairs(row | extra) - seen))
        seen |= _pairs(row | best)
        yield row, best


def _pairs(row: dict[str, Any]) -> set[frozenset[tuple[str, str]]]:
    values = [(name, str(value)) for name, value in row.items()]
    return {frozenset(pair) for pair in itertools.combinations(values, 2)}


def _bare(sizes: Sizes, initials: Sequence[bool]) -> list[Case]:
    return [
        _case({"variant": "simple_rnn", "nonlinearity": f, "bias": bias}, sizes, "full", initial)
        for f, bias, initial in itertools.product(NONLINEARITIES, BIASES, initials)
    ]


def _case(topology: dict[str, Any], sizes: Sizes, sequences: str, initial: bool) -> Case:
    stacked = load_variant(topology["variant"]).maximum_layers is None
    sizes = sizes if stacked else sizes._replace(L=1)
    spec = ModelSpec(input_size=sizes.I, hidden_size=sizes.H, num_layers=sizes.L, **topology)
    return Case(spec, sizes.B, sizes.T, sequences, initial)
