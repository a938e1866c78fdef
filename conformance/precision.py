"""What rounding may do to one operation in each precision (SPEC.md, 11)."""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.errors import InputError, listed

Array = NDArray[Any]


@dataclass(frozen=True)
class Precision:
    """A floating-point format, and how sums of products are accumulated in it.

    Attributes:
        name: of the dtype.
        roundoff: unit roundoff u of a stored result: half the distance from 1 to the next number.
        accumulation: unit roundoff inside a sum of products.
        smallest: smallest normal number; what is smaller may be flushed to 0.
        largest: largest finite number; what is larger overflows.
        function_magnitude: of which a function's error is at least a few units in the last place: 1 where tanh(x) is
            formed as 2 sigmoid(2x) - 1, which cancels near 0.
    """

    name: str
    roundoff: float
    accumulation: float
    smallest: float
    largest: float
    function_magnitude: float = 0.0


PRECISIONS = {
    "float64": Precision("float64", 2.0**-53, 2.0**-53, 2.0**-1022, (2 - 2.0**-52) * 2.0**1023),
    "float32": Precision("float32", 2.0**-24, 2.0**-24, 2.0**-126, (2 - 2.0**-23) * 2.0**127),
    "float16": Precision("float16", 2.0**-11, 2.0**-24, 2.0**-14, (2 - 2.0**-10) * 2.0**15),
    "bfloat16": Precision("bfloat16", 2.0**-8, 2.0**-24, 2.0**-126, (2 - 2.0**-7) * 2.0**127),
}
CANCELLING = "float32 with functions that cancel"  # as onnxruntime's RNN is; its models are run for a proof
_DECLARED = {CANCELLING: replace(PRECISIONS["float32"], name=CANCELLING, function_magnitude=1.0)}

# The largest error of a function in units in the last place: the larger of the columns of the OpenCL C specification,
# table "Relative error as ULPs", for single and double precision. Sums and products are rounded correctly.
PEAK_ULPS = {"divide": 2.5, "sqrt": 3.0, "exp": 3.0, "log": 3.0, "tanh": 5.0}
# How much smaller the root mean square of a function's error is than its peak: 3.6 to 5 in the tables that the Cephes
# library gives of both for exp, log and tanh.
PEAK_BY_RMS = 4.0
# The root mean square of an error that is uniform between -u and u.
UNIFORM_RMS = 1.0 / math.sqrt(3.0)

SAMPLES = 64
FALSE_ALARM = 1e-3  # probability that a run of the whole suite accuses a correct backend
COMPARED = 10**7  # numbers that such a run compares, at most
UNEVEN = 2.0  # ratio of two spreads of 32 samples that is exceeded by chance with a probability of 2e-4


def precision_of(dtype: str) -> Precision:
    """The precision of that name. Raises InputError."""
    known = PRECISIONS | _DECLARED
    if dtype not in known:
        raise InputError(f"precision: expected one of {listed(PRECISIONS)}, got {dtype!r}")
    return known[dtype]


@cache
def factor(samples: int = SAMPLES) -> float:
    """The bound in units of the root mean square of `samples` sampled deviations.

    An error that is normal with a deviation estimated from n samples has Student's distribution with n degrees
    of freedom; the factor is its quantile at FALSE_ALARM / COMPARED, both sides.
    """
    low, high = 1.0, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _two_sided(middle, samples) > FALSE_ALARM / COMPARED else (low, middle)
    return high


def allowed_error(norms: Array, samples: int = SAMPLES) -> Array:
    """The bound of each number from the 2-norms of its deviations over both halves of the samples, (2, ...).

    Where one half spreads more than the other by chance, as in elements that are alike, it decides alone.
    """
    larger = norms.max(axis=0)
    alone, both = factor(samples // 2) / math.sqrt(samples / 2), factor(samples) / math.sqrt(samples)
    found: Array = np.where(larger > UNEVEN * norms.min(axis=0), alone * larger, both * np.hypot(*norms))
    return found


def _two_sided(t: float, degrees: int) -> float:
    """P(|T| > t) for an even number of degrees of freedom (Abramowitz and Stegun, 26.7.4)."""
    cosine = degrees / (degrees + t * t)
    term, total = 1.0, 1.0
    for k in range(1, degrees // 2):
        term *= cosine * (2 * k - 1) / (2 * k)
        total += term
    return 1.0 - math.sqrt(1.0 - cosine) * total
