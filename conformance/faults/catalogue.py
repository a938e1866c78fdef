"""All faults, by name."""

from collections.abc import Mapping

from . import (
    converting,
    derivatives,
    dropping,
    later,
    losses,
    pairs,
    replaced,
    results,
    states,
    topology,
    updates,
    weights,
)
from .fault import Fault

ROWS = (
    *weights.FAULTS,
    *states.FAULTS,
    *pairs.FAULTS,
    *results.FAULTS,
    *topology.FAULTS,
    *derivatives.FAULTS,
    *losses.FAULTS,
    *updates.FAULTS,
    *later.FAULTS,
    *replaced.FAULTS,
    *dropping.FAULTS,
    *converting.FAULTS,
)
CATALOGUE: Mapping[str, Fault] = {fault.name: fault for fault in ROWS}
