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
    """The largest absolute value of the finite entries, 0 where there are none."""
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def largest_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The largest absolute difference of two arrays of one shape; infinite where they are not infinite or NaN alike."""
    a64, b64 = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not a64.size:
        return 0.0
    same = (a64 == b64) | (np.isnan(a64) & np.isnan(b64))
    with np.errstate(invalid="ignore"):
        differences = np.where(same, 0.0, np.abs(a64 - b64))
    return float(np.where(np.isnan(differences), np.inf, differences).max())


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays have one dtype, one shape and the same bits; -0 is not 0."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
