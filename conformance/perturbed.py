"""Arithmetic with the rounding of a precision drawn at random.

`Perturbed` has one sample without errors and others in each of which every operation errs at random as it may in a
precision: Monte Carlo arithmetic (Parker 1997) with the magnitudes of SPEC.md, 11. An operation that a loop repeats
with the same operands, or nearly so, errs as it did before: rounding is a function of them.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import hashing, summation
from .arithmetic import Exact
from .numbers import Numbers
from .precision import PEAK_BY_RMS, PEAK_ULPS, PRECISIONS, SAMPLES, UNIFORM_RMS, Precision, allowed_error
from .summation import Terms

Array = NDArray[Any]


class Perturbed(Exact):
    """Operations with errors.

    In float64 numbers the errors of a precision as fine as theirs are made larger, so that they stand out, and
    deviations are scaled back: to first order they are proportional.

    Attributes:
        scale: how many times larger than allowed the errors are.
    """

    def __init__(self, numbers: Numbers, precision: Precision, samples: int = SAMPLES, stream: int = 0) -> None:
        super().__init__(numbers)
        fine = numbers.array(0.0).dtype == np.float64
        self.scale = max(1.0, _COARSE_ENOUGH / precision.roundoff) if fine else 1.0
        self.precision = precision
        self.samples = samples
        self._least = numbers.array(self.scale * precision.smallest * UNIFORM_RMS)
        self._multipliers = hashing.multipliers(samples, stream, "rounding")
        self._integers = np.empty(0, np.uint32)
        self._numbered: dict[tuple[int, ...], Array] = {}
        places = summation.places(precision.roundoff, _COARSER)
        self._places, self._half = np.uint64(places), np.uint64(2 ** (places - 1))

    def deviations(self, value: Array) -> Array:
        """The 2-norms of what errors as large as allowed make of each number, over both halves of samples: (2, ...)."""
        deviation = abs(value[1:] - value[:1]).astype(np.float64) / self.scale
        largest = deviation.max(axis=0, initial=0.0)
        unit = np.where(largest > 0, largest, 1.0)  # so that squares do not underflow
        squares = (deviation / unit) ** 2
        found: Array = unit * np.sqrt(np.stack([half.sum(axis=0) for half in np.array_split(squares, 2)]))
        return found

    def add(self, a: Array, b: Array) -> Array:
        """The larger number is a multiple of the sum's last place, or nearly so: the error is that of the smaller.

        It is a function of that in quarters of the sum's last place; where one is 0 there is none.
        """
        total, smaller = a + b, np.minimum(abs(a[0]), abs(b[0])).astype(np.float64)
        magnitude = abs(total[:1])
        if np.any(smaller == 0):
            magnitude = magnitude * ~(np.all(a == 0, axis=0) | np.all(b == 0, axis=0))
        return self._added(total, magnitude, smaller)

    def reordered(self, a: Array, b: Array, last: Array) -> Array:
        """The error of adding what comes last to the rest, or the rest to it."""
        sizes = np.maximum(np.maximum(abs(a[:1]), abs(b[:1])), abs(a[:1] + b[:1]))
        return self._added(a, sizes * np.any(last != 0, axis=0), abs(last[0]).astype(np.float64))

    def _added(self, value: Array, total: Array, smaller: Array) -> Array:
        """A value with the error of a sum of that size, of which the smaller number is known."""
        sizes = total[0].astype(np.float64)
        quarters = np.ldexp(self.precision.roundoff / 4, np.frexp(sizes)[1])
        key = self._key(np.rint(smaller / (quarters + (quarters == 0))) * quarters) + (_bits(sizes) & _BINADE)
        return self._with_error(value, total, self.precision.roundoff * UNIFORM_RMS, key)

    def maximum(self, a: Array, b: Array) -> tuple[Array, Array]:
        """The same; where the error of a - b may turn its sign, the value errs as a, and the derivative is drawn."""
        difference = a - b
        allowed = allowed_error(self.deviations(difference), self.samples)
        unclear = (abs(difference[0]) <= allowed) & (allowed > 0)
        self.undecided += int(np.count_nonzero(unclear))
        drawn = self._noise(self._key(difference[0]), difference.shape[1:]) < 0
        either = np.concatenate([difference[:1] > 0, drawn])
        larger = np.maximum(a, b)
        larger = np.where(unclear, larger[:1] + (difference - difference[:1]), larger)
        return larger, self.numbers.array(np.where(unclear, either, difference > 0))

    def _rounded(self, value: Array) -> Array:
        return self._with_error(value, abs(value[:1]), self.precision.roundoff * UNIFORM_RMS)

    def _in_double(self, value: Array, magnitude: Array) -> Array:
        return self._with_error(value, magnitude, PRECISIONS["float64"].roundoff * UNIFORM_RMS)

    def _evaluated(self, name: str, value: Array) -> Array:
        mantissa, exponent = np.frexp(value[:1].astype(np.float64))
        sizes = np.maximum(np.ldexp(1.0, exponent), self.precision.function_magnitude)
        places = self.numbers.array(np.where(mantissa == 0, 0.0, sizes))
        return self._with_error(value, places, self.precision.roundoff * PEAK_ULPS[name] / PEAK_BY_RMS)

    def accumulated(self, value: Array, terms: Callable[[float], Terms]) -> Array:
        roundoff = self.precision.accumulation
        magnitude = terms(roundoff).magnitude(abs(value[0]).astype(np.float64))
        found = self._with_error(value, self.numbers.array(magnitude)[None], roundoff * UNIFORM_RMS)
        return found if self.precision.roundoff == roundoff else self._rounded(found)

    def _with_error(self, value: Array, magnitude: Array, unit: float, key: Array | None = None) -> Array:
        """Value plus a random number of zero mean; where the magnitude is 0, nothing."""
        deviation = magnitude * self.numbers.array(self.scale * unit)
        deviation += (magnitude > 0) * self._least
        shape = value.shape[1:]
        if deviation.shape[1:] != shape:
            shape = np.broadcast_shapes(shape, deviation.shape[1:])
        noise = self.numbers.array(self._noise(self._key(value[0]) if key is None else key, shape))
        found = np.empty((1 + self.samples, *shape), noise.dtype)
        found[0] = value[0]
        np.multiply(noise, deviation, out=found[1:])
        found[1:] += value[-self.samples :]
        if not magnitude.max(initial=0.0) <= self.precision.largest / 2:  # else only what is far off can overflow
            found[1:][~np.asarray(abs(found[1:]) <= self.precision.largest, bool)] = self.numbers.array(np.inf)[()]
        return found

    def _noise(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Numbers of zero mean and unit variance, a function of the operation, the key, the element and the sample.

        In half of the samples all elements with the same key have one number, as they err alike where they are computed
        alike; in the others each has its own.
        """
        hashed = np.empty((2, *shape), np.uint64)
        hashed[0] = (key + np.uint64(self.operation * hashing.GOLDEN % 2**64)) * hashing.ODD
        np.add(hashed[:1], self._elements(shape), out=hashed[1:])
        self.operation += 1
        count = self.samples * math.prod(shape)
        if len(self._integers) < count:
            self._integers = np.empty(count, np.uint32)  # kept: fresh memory takes longer than what is done with it
        integers = self._integers[:count].reshape(2, -1, *shape)
        samples = self._multipliers.reshape(2, -1, *(1,) * len(shape))
        np.multiply(hashing.mixed(hashed)[:, None], samples, out=integers)
        found: Array = integers.view(np.int32).reshape(-1, *shape) * (2.0**-31 / UNIFORM_RMS)
        return found

    def _elements(self, shape: tuple[int, ...]) -> Array:
        """A number for each element of a shape."""
        if shape not in self._numbered:
            self._numbered[shape] = np.arange(1, 1 + math.prod(shape), dtype=np.uint64).reshape(shape) * hashing.OTHER
        return self._numbered[shape]

    def _key(self, value: Array) -> Array:
        """One integer for all numbers that are one to the precision, short of its last two bits (twelve in float64)."""
        found: Array = (_bits(value) + self._half) >> self._places
        return found


def _bits(value: Array) -> Array:
    return np.asarray(value, np.float64).view(np.uint64)


_COARSE_ENOUGH = 2.0**-40
_COARSER = 2  # bits of the precision that a key leaves out
_BINADE = np.uint64(0xFFF << 52)
