"""How far a backend may be from the oracle. Provisional, and in one place: to be replaced by a bound derived per case.

float64: 1e-12 of the largest entry. float32: 256 units of roundoff of the largest entry, room for the few
hundred roundings on the longest path through the small well-conditioned cases of the table.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.errors import InputError, listed

_OF_LARGEST = {"float64": 1e-12, "float32": 256 * 2.0**-24}


def allowed(dtype: str, largest: float) -> float:
    """The largest absolute difference allowed between arrays of this dtype whose largest entry is given."""
    if dtype not in _OF_LARGEST:
        raise InputError(f"bounds: expected a dtype of {listed(_OF_LARGEST)}, got {dtype!r}")
    return _OF_LARGEST[dtype] * largest


def coarser(*dtypes: str) -> str:
    """The dtype with the larger bound."""
    return max(dtypes, key=lambda dtype: allowed(dtype, 1.0))


def largest_entry(array: NDArray[Any]) -> float:
    """The largest absolute value, 0 for an empty array; NaN counts as infinite."""
    if array.size == 0:
        return 0.0
    value = float(np.max(np.abs(array)))
    return float("inf") if np.isnan(value) else value


def largest_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The largest absolute difference of two arrays of one shape; infinite where one alone is NaN or infinite."""
    a64, b64 = np.asarray(a, np.float64), np.asarray(b, np.float64)
    same = (a64 == b64) | (np.isnan(a64) & np.isnan(b64))
    with np.errstate(invalid="ignore"):
        return largest_entry(np.where(same, 0.0, a64 - b64))
