"""Every error that rnnzoo raises on purpose has one root, `RnnZooError`.

A message names the thing, what was expected, what came instead, and the way out.
"""

from collections.abc import Iterable


class RnnZooError(Exception):
    """Root of all errors of this package."""


class SpecError(RnnZooError, ValueError):
    """A description (model, training, cell, variant) contradicts itself or the spec."""


class WeightError(RnnZooError, ValueError):
    """Weights do not fit a model: a name, a shape or a dtype."""


class InputError(RnnZooError, ValueError):
    """Arrays given to a model do not fit it: a shape, a dtype, a length, a token."""


class FileError(RnnZooError, ValueError):
    """A file cannot be read or written as what it is taken for."""


class BackendError(RnnZooError, ValueError):
    """A backend is unknown, incomplete, or its framework is not installed."""


class UnsupportedError(RnnZooError, ValueError):
    """Something well defined that this backend, format or operation does not do."""


class ConformanceError(RnnZooError, AssertionError):
    """Two computations that should agree do not."""


def listed(names: Iterable[object]) -> str:
    """Names for a message: sorted, quoted, `none` when there are none."""
    found = sorted(str(name) for name in names)
    return ", ".join(f"'{name}'" for name in found) or "none"


def shown(value: object) -> str:
    """What came instead, for a message: its beginning."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
