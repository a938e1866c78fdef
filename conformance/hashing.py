"""Random numbers that are functions of integers, for many samples at once.

An integer is mixed to 32 bits, and multiplied by an odd number of each sample.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import draws

Array = NDArray[Any]
ODD, OTHER = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # of SplitMix64 (Steele, Lea and Flood 2014)
GOLDEN = 0x9E3779B97F4A7C15  # likewise
_HALF = np.uint64(32)


def multipliers(count: int, stream: int, name: str) -> Array:
    """One odd number for each sample."""
    found: Array = draws.generator(stream, name).random_raw(count).astype(np.uint32) | np.uint32(1)
    return found


def mixed(integers: Array) -> Array:
    """The 32 bits of 64-bit integers that depend on all of theirs."""
    found: Array = ((integers ^ (integers >> _HALF)) * ODD >> _HALF).astype(np.uint32)
    return found


def signs(integers: Array, of_samples: Array) -> Array:
    """1 or -1 in float32, samples first; 0 of 0."""
    products = mixed(integers * ODD) * of_samples.reshape(-1, *(1,) * integers.ndim)
    found: Array = np.where(products >> np.uint32(31) == 0, np.float32(1), np.float32(-1))
    found *= integers != 0
    return found
