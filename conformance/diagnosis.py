"""A failure looked into: where it begins, and how small it can be made."""

from dataclasses import replace
from typing import Any

from .divergence import first_divergence, first_of_run
from .outcomes import Outcome
from .shrinking import shrunk
from .trajectories import Trajectory

DIAGNOSED = 10  # failures of an implementation that are looked into


def diagnosed(backend: Any, outcome: Outcome, *, shrink: bool = True) -> Outcome:
    """A failure with its first divergence and, on request, a smaller item; what cannot be found stays None."""
    item = outcome.item
    try:
        if isinstance(item.case, Trajectory):
            off = first_of_run(outcome.comparisons)
        else:
            off = first_divergence(backend, item.model_case, item.dtype, outcome.comparisons)
    except (Exception, SystemExit):  # a broken backend may break here as well: the failure itself has been reported
        off = None
    return replace(outcome, divergence=off, smaller=shrunk(backend, outcome) if shrink else None)
