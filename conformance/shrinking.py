"""A smaller case that fails in the same way."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..spec.errors import RnnZooError
from ..spec.model import ModelSpec
from .cases import Case
from .checks import CHECKS
from .items import Item
from .outcomes import Outcome, run
from .pair_cases import AnyCase, PairCase
from .training import TrainingCase
from .trajectories import Trajectory

SECONDS = 20.0


def shrunk(backend: Any, outcome: Outcome, seconds: float = SECONDS) -> Item:
    """The smallest item found that fails as the outcome did: each smaller one is tried, and kept if it does."""
    found, end = outcome.item, time.monotonic() + seconds
    tried = {found}
    progress = True
    while progress and time.monotonic() < end:
        progress = False
        for smaller in _smaller(found):
            if smaller not in tried and time.monotonic() < end:
                tried.add(smaller)
                if _kind(run(backend, smaller)) == _kind(outcome):
                    found, progress = smaller, True
                    break
    return found


def _kind(outcome: Outcome) -> str:
    """Failures are alike if numbers were off in both, or the same kind of error came."""
    return f"{outcome.verdict} {'numbers' if outcome.comparisons else outcome.message[:30]}"


def _smaller(item: Item) -> Iterator[Item]:
    """The same check of smaller cases, where it applies to them."""
    applies = CHECKS[item.check].applies
    smaller: dict[type[Any], Any] = {TrainingCase: _smaller_runs, Trajectory: _shorter_runs}
    cases = smaller.get(type(item.case), _smaller_cases)(item.case)
    yield from (replace(item, case=case) for case in cases if applies(case))


def _shorter_runs(case: Trajectory) -> Iterator[Trajectory]:
    yield from (replace(case, updates=updates) for updates in _below(case.updates))
    simpler = (replace(case, dropout=None), replace(case, clip=None), replace(case, schedule=None))
    yield from (other for other in simpler if other != case)
    yield from (replace(case, rows=rows) for rows in _below(case.rows))


def _smaller_runs(case: TrainingCase) -> Iterator[TrainingCase]:
    plain = [replace(case, carries=False), replace(case, accumulates=False)]
    simpler = [replace(case.training, clip=None), replace(case.training, schedule=None)]
    plain += [replace(case, training=training) for training in simpler]
    yield from (other for other in plain if other != case)
    inner = (inner for inner in _smaller_cases(case.case) if inner.spec.head == case.case.spec.head)
    yield from (replace(case, case=one) for one in inner)


def _smaller_cases(case: AnyCase) -> Iterator[AnyCase]:
    """Simpler cases, the boldest first; of a pair either one, with the same model and as many rows."""
    if isinstance(case, PairCase):
        for side in ("encoder", "decoder"):
            own: Case = getattr(case, side)
            fitting = [one for one in _smaller_single_cases(own) if (one.spec, one.rows) == (own.spec, own.rows)]
            yield from (replace(case, **{side: one}) for one in fitting)
    else:
        yield from _smaller_single_cases(case)


def _smaller_single_cases(case: Case) -> Iterator[Case]:
    if case.sequences != "full":
        yield replace(case, sequences="full")
        yield replace(case, sequences="lengths")
    yield from (replace(case, steps=steps) for steps in _below(case.steps))
    yield from (replace(case, rows=rows) for rows in _below(case.rows))
    if case.initial:
        yield replace(case, initial=False)
    if case.scale != 1.0:
        yield replace(case, scale=1.0)
    yield from (replace(case, spec=spec) for spec in _smaller_specs(case.spec))


def _below(size: int) -> list[int]:
    return sorted({1, size // 2, size - 1} - {0, size})


def _smaller_specs(spec: ModelSpec) -> Iterator[ModelSpec]:
    changes: list[dict[str, Any]] = [{"dropout": None}, {"head": None}, {"context": None}, {"embedding": None}]
    changes += [{"variant": "simple_rnn", "num_layers": 1, "merge": "concat"}, {"variant": "bi_rnn", "num_layers": 1}]
    changes += [{"variant": "stacked_rnn", "merge": "concat"}, {"merge": "concat"}]
    changes += [{"num_layers": layers} for layers in _below(spec.num_layers)]
    changes += [{"hidden_size": size} for size in _below(spec.hidden_size)]
    changes += [{"input_size": size} for size in _below(spec.input_size)]
    changes += [{"bias": "none"}, {"bias": "single"}, {"nonlinearity": "identity"}, {"nonlinearity": "tanh"}]
    simpler = {"bias": ("none", "single", "double"), "nonlinearity": ("identity", "tanh", "relu", "sigmoid")}
    simpler["variant"] = ("simple_rnn", "bi_rnn", "stacked_rnn", "stacked_bi_rnn")
    for change in changes:
        if all(order.index(change.get(n, order[0])) <= order.index(getattr(spec, n)) for n, order in simpler.items()):
            try:
                smaller = replace(spec, **change)
            except RnnZooError:
                continue  # not a model: one layer of a stacked variant, or two with a merge that needs directions
            if smaller != spec:
                yield smaller
