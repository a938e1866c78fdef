"""Arithmetic over arrays of samples: exact, or with the rounding of a precision drawn at random.

The first axis of every array counts samples; 1 there stands for the same numbers in all. `Exact` has one sample.
`Perturbed` has one without errors and others in each of which every operation errs at random as it may in a
precision: Monte Carlo arithmetic (Parker 1997) with the magnitudes of SPEC.md, 11. An operation that a loop repeats
with the same result errs as it did before: rounding is a function of its operands.
"""

import math
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from . import summation
from .numbers import Numbers
from .precision import PEAK_BY_RMS, PEAK_ULPS, PRECISIONS, SAMPLES, UNIFORM_RMS, Precision, factor
from .summation import Terms

Array = NDArray[Any]


class Exact:
    """Operations as the numbers have them.

    Attributes:
        numbers: the kind of number.
        undecided: how many times `max` met two numbers that its arguments' errors cannot tell apart.
        operation: the number of the next operation; the same in each round of a loop.
    """

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.undecided = 0
        self.operation = 0
        self._settled: dict[tuple[float, int], Array] = {}

    def round_of(self, loop: str) -> None:
        """A loop of that name begins another round, whose operations are those of the last one."""
        self.operation = zlib.crc32(loop.encode()) << 24

    def constant(self, values: Any) -> Array:
        """Numbers that are exact, one sample of them."""
        return self.numbers.array(values)[None]

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """Zeros of a shape that counts the samples."""
        return np.full(shape, self.numbers.array(0.0)[()])

    def hyperparameter(self, value: float) -> Array:
        """A number that is rounded once to the precision: with the same error wherever it is used."""
        if (value, 0) not in self._settled:
            self._settled[value, 0] = self._rounded(self.constant(value))
        return self._settled[value, 0]

    def one_less_power(self, base: float, exponent: int) -> Array:
        """1 - base^exponent, computed in double precision and then rounded, with the same error wherever it is used."""
        if (base, exponent) not in self._settled:
            power = self.constant(base) ** exponent
            self._settled[base, exponent] = self._rounded(self._in_double(1 - power, power))
        return self._settled[base, exponent]

    def add(self, a: Array, b: Array) -> Array:
        return self._rounded(a + b)

    def multiply(self, a: Array, b: Array) -> Array:
        return self._rounded(a * b)

    def divide(self, a: Array, b: Array) -> Array:
        return self._evaluated("divide", a / b)

    def function(self, name: str, a: Array) -> Array:
        """`exp`, `log`, `tanh` or `sqrt` of each number."""
        if name == "sqrt":  # errors may have taken a square below 0
            return self._evaluated(name, np.sqrt(np.maximum(a, self.numbers.array(0.0))))
        return self._evaluated(name, self.numbers.functions[name](a))

    def product(self, a: Array, b: Array) -> Array:
        """Matrix products (S, M, K) @ (S, K, N), the order of summation unknown."""
        return self.accumulated(a @ b, lambda roundoff: summation.products(a[0], b[0], roundoff))

    def sum(self, a: Array, axis: int) -> Array:
        """Sums over an axis that stays, with length 1; the order of summation unknown."""
        total, terms = a.sum(axis=axis, keepdims=True), np.expand_dims(np.moveaxis(a[0], axis - 1, 0), axis)
        return self.accumulated(total, lambda roundoff: summation.terms(terms, roundoff))

    def total(self, terms: Iterable[Array]) -> Array:
        """The sum of arrays, the order of summation unknown."""
        first, *others = terms
        total = Total(self, first)
        for term in others:
            total.add(term)
        return total.value()

    def maximum(self, a: Array, b: Array) -> tuple[Array, Array]:
        """max(a, b) and its derivative by a: 1 where a > b, else 0."""
        self.undecided += int(np.count_nonzero(a == b))
        return np.maximum(a, b), self.numbers.array(a > b)

    def accumulated(self, value: Array, terms: Callable[[Any], Terms]) -> Array:
        """The value of a sum; terms: those of one sample, of which two may be alike to a roundoff."""
        return value

    def _rounded(self, value: Array) -> Array:
        return value

    def _in_double(self, value: Array, magnitude: Array) -> Array:
        return value

    def _evaluated(self, name: str, value: Array) -> Array:
        return value


class Total:
    """A sum of arrays that come one after the other."""

    def __init__(self, ops: Exact, first: Array) -> None:
        self.ops, self.sum, self.first, self.last = ops, first, first, first
        self.terms = [np.array(first[0])]

    def add(self, term: Array) -> None:
        """One more array."""
        self.sum, self.last = self.sum + term, term
        self.terms.append(np.array(term[0]))

    def value(self) -> Array:
        """The sum, with the error of a sum of so many numbers in any order."""
        if len(self.terms) < 3:
            return self.sum if len(self.terms) == 1 else self.ops.add(self.first, self.last)
        return self.ops.accumulated(self.sum, lambda roundoff: summation.terms(_stacked(self.terms), roundoff))


def _stacked(arrays: list[Array]) -> Array:
    one_shape = all(array.shape == arrays[0].shape for array in arrays)
    return np.stack(arrays if one_shape else np.broadcast_arrays(*arrays))


class Perturbed(Exact):
    """The same with errors.

    In float64 numbers the errors of a precision as fine as theirs are made larger, so that they stand out, and
    deviations are scaled back: to first order they are proportional.

    Attributes:
        scale: how many times larger than allowed the errors are.
        factor: the bound in units of a typical deviation.
    """

    def __init__(self, numbers: Numbers, precision: Precision, samples: int = SAMPLES, stream: int = 0) -> None:
        super().__init__(numbers)
        fine = numbers.array(0.0).dtype == np.float64
        self.scale = max(1.0, _COARSE_ENOUGH / precision.roundoff) if fine else 1.0
        self.precision = precision
        self.samples = samples
        self.factor = factor(samples)
        self._least = numbers.array(self.scale * precision.smallest * UNIFORM_RMS)
        self._multipliers = draws.generator(stream, "rounding").random_raw(1 + samples).astype(np.uint32) | np.uint32(1)
        self._integers = np.empty(0, np.uint32)
        places = max(53 + _COARSER + round(math.log2(precision.roundoff)), _NOISY)
        self._places, self._half = np.uint64(places), np.uint64(2 ** (places - 1))

    def deviations(self, value: Array) -> Array:
        """The 2-norm over samples of what errors as large as allowed make of each number; squares do not underflow."""
        deviation = abs(value[1:] - value[:1]).astype(np.float64) / self.scale
        largest = deviation.max(axis=0, initial=0.0)
        unit = np.where(largest > 0, largest, 1.0)
        found: Array = unit * np.sqrt(np.sum((deviation / unit) ** 2, axis=0))
        return found

    def add(self, a: Array, b: Array) -> Array:
        """The larger number is a multiple of the sum's last place, or nearly so: the error is that of the smaller."""
        total = a + b
        key = self._key(np.minimum(abs(a[0]), abs(b[0]))) + (_bits(total[0]) & _BINADE)
        return self._with_error(total, abs(total[:1]), self.precision.roundoff * UNIFORM_RMS, key)

    def maximum(self, a: Array, b: Array) -> tuple[Array, Array]:
        """The same; where the error of a - b may turn its sign, the value errs as a, and the derivative is drawn."""
        difference = a - b
        allowed = self.factor * self.deviations(difference) / math.sqrt(self.samples)
        unclear = (abs(difference[0]) <= allowed) & (allowed > 0)
        self.undecided += int(np.count_nonzero(unclear))
        either = self._noise(self._key(difference[0]), difference.shape[1:]) < 0
        either[0] = difference[0] > 0
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

    def accumulated(self, value: Array, terms: Callable[[Any], Terms]) -> Array:
        roundoff = self.precision.accumulation
        magnitude = terms(self.numbers.array(roundoff)[()]).magnitude(abs(value[0]))
        found = self._with_error(value, magnitude[None], roundoff * UNIFORM_RMS)
        return found if self.precision.roundoff == roundoff else self._rounded(found)

    def _with_error(self, value: Array, magnitude: Array, unit: float, key: Array | None = None) -> Array:
        """Value plus a random number of zero mean; where the magnitude is 0, nothing."""
        deviation = magnitude * self.numbers.array(self.scale * unit) + (magnitude > 0) * self._least
        shape = value.shape[1:]
        if deviation.shape[1:] != shape:
            shape = np.broadcast_shapes(shape, deviation.shape[1:])
        found = self.numbers.array(self._noise(self._key(value[0]) if key is None else key, shape))
        found *= deviation
        found += value
        largest = self.precision.largest
        if not (found.max(initial=largest) <= largest and found.min(initial=-largest) >= -largest):
            found[~np.asarray(abs(found) <= largest, bool)] = self.numbers.array(np.inf)[()]
        found[0] = value[0]
        return found

    def _noise(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Numbers of zero mean and unit variance, a function of the operation, the key, the element and the sample.

        Of the variance one half is common to all elements with the same key, as those err alike where they are computed
        alike, and the other is each element's own.
        """
        hashed = (key + np.uint64(self.operation * _GOLDEN % 2**64)) * _ODD
        self.operation += 1
        elements = np.arange(1, 1 + math.prod(shape), dtype=np.uint64).reshape(shape) * _ODD
        found = self._uniform(hashed, shape)
        found += self._uniform(hashed + elements, shape)
        return found

    def _uniform(self, hashed: Array, shape: tuple[int, ...]) -> Array:
        """Uniform numbers with half the unit variance: hashed once more, and multiplied by an odd number a sample."""
        hashed = ((hashed ^ (hashed >> _HALF)) * _ODD >> _HALF).astype(np.uint32)
        count = (1 + self.samples) * math.prod(shape)
        if len(self._integers) < count:
            self._integers = np.empty(count, np.uint32)  # kept: fresh memory takes longer than what is done with it
        integers = self._integers[:count].reshape(-1, *shape)
        np.multiply(hashed, self._multipliers.reshape(-1, *(1,) * len(shape)), out=integers)
        found: Array = integers.view(np.int32) * (2.0**-31 / UNIFORM_RMS * math.sqrt(0.5))
        return found

    def _key(self, value: Array) -> Array:
        """One integer for all numbers that are one to the precision, short of its last two bits (twelve in float64)."""
        found: Array = (_bits(value) + self._half) >> self._places
        return found


def _bits(value: Array) -> Array:
    return np.asarray(value, np.float64).view(np.uint64)


_COARSE_ENOUGH = 2.0**-40
_COARSER = 2  # bits of the precision that a key leaves out
_NOISY = 12  # last bits of a float64 that may depend on the machine
_GOLDEN, _ODD = 0x9E3779B97F4A7C15, np.uint64(0xBF58476D1CE4E5B9)  # of SplitMix64 (Steele, Lea and Flood 2014)
_BINADE = np.uint64(0xFFF << 52)
_HALF = np.uint64(32)
