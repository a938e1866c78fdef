"""What an implementation declares, by its `supports` and attributes: as values by name, and as further quick items."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..spec.encoder_decoder import networks
from .case_table import bare_cases, covering, factors, other_bare_cases
from .cases import Case
from .items import Item
from .outcomes import Outcome, unsupported
from .training import TrainingCase, kinds
from .trajectories import Trajectory

BOTH_PRECISIONS = ("variant", "nonlinearity", "bias", "merge")  # of which each is met in either


@dataclass(frozen=True)
class Declaration:
    """What an implementation declares.

    Attributes:
        values: that it supports, such as `bias double`.
        further: items that a quick look at it needs.
    """

    values: frozenset[str]
    further: tuple[Item, ...] = ()


def declaration(backend: Any, chosen: Sequence[Item], table: Sequence[Item], *, quick: bool) -> Declaration:
    """What the backend declares of the table, and what the quick items lack for one that supports part of them."""
    own = [one for one in table if one.check != "trajectory" and _supported(backend, one)]
    declared = frozenset(value for one in own for value in values(one))
    return Declaration(declared, tuple(_further(backend, chosen, own)) if quick else ())


def values(item: Item) -> set[str]:
    """The values that an item touches, by name."""
    if isinstance(item.case, Trajectory):  # its kinds of models and rules are those of the other items
        return set()
    case = item.model_case
    found = {f"precision {item.dtype}", *({"lengths", "mask", "initial_state"} & case.takes)}
    found |= {item.check} & {"gradients", "training"}
    for spec in networks(case.spec):
        found |= {f"variant {spec.variant}", f"nonlinearity {spec.nonlinearity}", f"bias {spec.bias}"}
        found |= {f"merge {spec.merge}"} if spec.num_directions == 2 else set()
        found |= {f"head of {spec.head.reads}"} if spec.head else set()
        found |= {part for part in ("embedding", "context") if getattr(spec, part)}
    if isinstance(item.case, TrainingCase):
        found |= {f"optimizer {item.case.training.optimizer.KIND}", f"loss {item.case.training.loss.KIND}"}
    return found


def untested(declared: Iterable[str], outcomes: Iterable[Outcome]) -> list[str]:
    """The declared values that no item touched which passed, but for those that compute nothing."""
    passed = [o.item for o in outcomes if o.verdict == "passed" and o.item.check not in ("weights", "relu_at_zero")]
    return sorted(set(declared) - {value for one in passed for value in values(one)})


def _supported(backend: Any, item: Item) -> bool:
    try:
        return unsupported(backend, item) is None
    except Exception:  # what fails where it is asked fails again as an item, and is reported there
        return False


def _further(backend: Any, chosen: Sequence[Item], own: Sequence[Item]) -> list[Item]:
    """Of what the backend supports, items with all values, beyond the chosen; none where it supports all of these."""
    met = [one for one in chosen if _supported(backend, one)]
    if len(met) == len(chosen):
        return []
    return [one for one in covering([*met, *own], _factors) if one not in met]


def _factors(item: Item) -> set[tuple[str, ...]]:
    """The values of an item's case, for its check, and some of them for its precision too."""
    case = item.case
    found = kinds(case) if isinstance(case, TrainingCase) else factors(case) if isinstance(case, Case) else set()
    marked: set[tuple[str, ...]] = {(item.check, *factor) for factor in found}
    marked |= {(item.check, item.dtype, *factor) for factor in found if factor[0] in BOTH_PRECISIONS}
    return marked | ({(item.check, case.name)} if case in _bare() else set())


def _bare() -> set[Any]:
    return {case.with_bits(bits) for case in (*bare_cases(), *other_bare_cases()) for bits in (24, 53)}
