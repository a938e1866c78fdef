"""The table of items: each check of each case that it applies to, in both precisions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..spec.data import Described, check_choice
from ..spec.errors import SpecError
from .case_table import cases, quick_cases
from .cases import DTYPES, Case
from .checks import CHECKS, has_padding, shows_relu
from .pair_cases import AnyCase, PairCase, pair_cases, quick_pair_cases
from .training import TrainingCase, pair_training_cases, quick_training_cases, training_cases
from .trajectories import Trajectory, trajectories


@dataclass(frozen=True)
class Item(Described):
    """One check of one case in one precision; `name` tells it apart from all others of the table."""

    check: str
    case: Any
    dtype: str

    PARTS: ClassVar[Mapping[str, tuple[type[Described], ...]]] = {"case": (Case, PairCase, TrainingCase, Trajectory)}

    def __post_init__(self) -> None:
        check_choice("item check", self.check, tuple(CHECKS))
        check_choice("item dtype", self.dtype, DTYPES)
        if not CHECKS[self.check].applies(self.case):
            raise SpecError(f"item: check {self.check!r} has nothing to see in the case {self.case.name}")

    @property
    def name(self) -> str:
        return f"{self.check}-{self.dtype}-{self.case.name}"

    @property
    def clause(self) -> str:
        """The clause of SPEC.md that it is there for."""
        return CHECKS[self.check].clause or self.model_case.clause

    @property
    def model_case(self) -> AnyCase:
        """The case without what is trained."""
        case: AnyCase = self.case.case if isinstance(self.case, TrainingCase) else self.case
        return case


def item(check: str, case: Any, dtype: str) -> Item:
    """The check of a case in a precision, with numbers of as many bits as the precision has, but for a trajectory's."""
    if isinstance(case, Trajectory):
        return Item(check, case, dtype)
    bits = np.finfo(dtype).nmant + 1
    if isinstance(case, TrainingCase):
        return Item(check, replace(case, case=case.case.with_bits(bits)), dtype)
    return Item(check, case.with_bits(bits), dtype)


def items(*, quick: bool = False) -> list[Item]:
    """Every check of every case that it applies to, in both precisions; of short training runs, in float32 a part."""
    table: list[AnyCase] = [*quick_cases(), *quick_pair_cases()] if quick else [*cases(), *pair_cases()]
    few, pairs = quick_training_cases(), pair_training_cases()
    runs = [*few, *pairs[:1]] if quick else [*training_cases(), *pairs]
    relu = [case for case in cases() if shows_relu(case)]
    spacing = {"weights": 3, "cotangents": 3} if quick else {"cotangents": 8}
    found = []
    for start, dtype in enumerate(reversed(DTYPES)):
        own = slice(start, None, 2) if quick else slice(None)  # quickly, each case is run in one of the two precisions
        for number, case in list(enumerate(table))[own]:
            applicable = [name for name in ("weights", "results") if number % spacing.get(name, 1) == 0]
            if case.scale == 1.0:  # larger ones saturate tanh, so that rounding decides; of zeros the results tell
                applicable += ["gradients"] + (["padding"] if has_padding(case) else [])
                applicable += ["cotangents"] if number % spacing["cotangents"] == 0 else []
            found += [item(check, case, dtype) for check in applicable]
        found += [item("relu_at_zero", case, dtype) for case in (relu[:2] if quick else relu)]
        # In float32 the short runs are those that touch every kind of rule: the long ones have both precisions.
        short = runs[own] if quick or dtype == "float64" else [*few, *pairs]
        found += [item("training", case, dtype) for case in short]
        # Both precisions of a run one after the other, as they have one truth; half of the runs here, so that two
        # processes that share the table have as much to do.
        found += [
            item("trajectory", run, kind) for run in ([] if quick else trajectories()[start::2]) for kind in DTYPES
        ]
    return found
