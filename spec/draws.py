"""Random numbers whose bits are the same on every machine (SPEC.md, 10).

Raw 64-bit draws of Philox4x64-10, one stream for each (seed, name); after that only elementwise
+ - * / and square root, which IEEE 754 rounds in one way. No library logarithm, no matrix product
and no pairwise sum: their last bits vary with the processor.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from .errors import SpecError

Floats = NDArray[np.float64]
_LN2 = 0.6931471805599453
_LOG_TERMS = 12  # (0.1716**2)**12 / 25 < 2**-64: the series is exact to the last bit or two


def generator(seed: int, name: str) -> np.random.Philox:
    """The bit generator of a stream: Philox with the first 16 bytes of SHA-256("rnnzoo:{seed}:{name}") as its key."""
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise SpecError(f"seed: expected an integer of at least 0, got {seed!r}")
    digest = hashlib.sha256(f"rnnzoo:{int(seed)}:{name}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))


def uniform(seed: int, name: str, count: int) -> Floats:
    """`count` numbers in [0, 1), multiples of 2**-53."""
    return _unit(generator(seed, name).random_raw(count))


def normal(seed: int, name: str, count: int) -> Floats:
    """`count` standard normal numbers, by Marsaglia's polar method with the logarithm below."""
    bits = generator(seed, name)
    found: list[Floats] = []
    missing = count
    while missing > 0:
        pairs = 2.0 * _unit(bits.random_raw(2 * (missing // 2 + 8))).reshape(-1, 2) - 1.0
        square = pairs[:, 0] * pairs[:, 0] + pairs[:, 1] * pairs[:, 1]
        inside = (square > 0.0) & (square < 1.0)
        square = square[inside]
        factor = np.sqrt(-2.0 * log(square) / square)
        found.append((pairs[inside] * factor[:, None]).ravel())
        missing -= found[-1].size
    return np.concatenate(found)[:count] if found else np.empty(0)


def permutation(seed: int, name: str, count: int) -> NDArray[np.int64]:
    """The numbers 0 .. count-1 in random order: the stable order of `count` raw draws."""
    return np.argsort(generator(seed, name).random_raw(count), kind="stable").astype(np.int64)


def log(x: Floats) -> Floats:
    """Natural logarithm of positive numbers from + - * / alone: 2 artanh((m - 1)/(m + 1)) + e ln 2."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.7071067811865476
    mantissa = np.where(low, 2.0 * mantissa, mantissa)
    exponent = exponent - low
    z = (mantissa - 1.0) / (mantissa + 1.0)
    square = z * z
    series = np.zeros_like(z)
    for k in range(_LOG_TERMS, -1, -1):
        series = series * square + 1.0 / (2 * k + 1)
    return 2.0 * z * series + exponent * _LN2


def sequential_sum(x: Floats) -> Floats:
    """Sum over the first axis, term by term from the first to the last."""
    total: Floats = np.add.accumulate(x, axis=0)[-1]
    return total


def _unit(raw: NDArray[np.uint64]) -> Floats:
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
