"""Arithmetic over arrays of samples: exact, or with the rounding of a precision drawn at random.

The first axis of every array counts samples; 1 there stands for the same numbers in all. `Exact` has one sample.
`Perturbed` has one without errors and others in each of which every operation errs at random as it may in a
precision: Monte Carlo arithmetic (Parker 1997) with the magnitudes of SPEC.md, 11.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from .numbers import Numbers
from .precision import PEAK_BY_RMS, PEAK_ULPS, PRECISIONS, SAMPLES, UNIFORM_RMS, Precision, factor

Array = NDArray[Any]
Magnitudes = Callable[[], tuple[Array, Array]]


class Exact:
    """Operations as the numbers have them.

    Attributes:
        numbers: the kind of number.
        undecided: how many times `max` met two numbers that its arguments' errors cannot tell apart.
    """

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.undecided = 0
        self._settled: dict[tuple[float, int], Array] = {}

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
        return self.accumulated(a @ b, a.shape[2], lambda: (abs(a[:1]) @ abs(b[:1]), (a[:1] ** 2) @ (b[:1] ** 2)))

    def sum(self, a: Array, axis: int) -> Array:
        """Sums over an axis that stays, with length 1; the order of summation unknown."""
        total, size = a.sum(axis=axis, keepdims=True), a.shape[axis]
        return self.accumulated(total, size, lambda: (abs(a[:1]).sum(axis=axis, keepdims=True), 0 * total[:1]))

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

    def accumulated(self, value: Array, size: int, magnitudes: Magnitudes) -> Array:
        """The value of a sum of that many products or numbers; magnitudes: the sum of their sizes, of their squares."""
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
        self.ops, self.sum, self.sizes, self.count = ops, first, abs(first[:1]), 1

    def add(self, term: Array) -> None:
        """One more array."""
        self.sum, self.sizes, self.count = self.sum + term, self.sizes + abs(term[:1]), self.count + 1

    def value(self) -> Array:
        """The sum, with the error of a sum of so many numbers in any order."""
        if self.count == 1:
            return self.sum
        return self.ops.accumulated(self.sum, self.count, lambda: (self.sizes, 0 * self.sizes))


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
        self._bits = draws.generator(stream, "rounding")
        self._block: Array = np.empty(0)

    def deviations(self, value: Array) -> Array:
        """The 2-norm over samples of what errors as large as allowed make of each number; squares do not underflow."""
        deviation = abs(value[1:] - value[:1]).astype(np.float64) / self.scale
        largest = deviation.max(axis=0, initial=0.0)
        unit = np.where(largest > 0, largest, 1.0)
        found: Array = unit * np.sqrt(np.sum((deviation / unit) ** 2, axis=0))
        return found

    def maximum(self, a: Array, b: Array) -> tuple[Array, Array]:
        """The same; where the error of a - b may turn its sign, the value errs as a, and the derivative is drawn."""
        difference = a - b
        allowed = self.factor * self.deviations(difference) / math.sqrt(self.samples)
        unclear = (abs(difference[0]) <= allowed) & (allowed > 0)
        self.undecided += int(np.count_nonzero(unclear))
        either = self._noise((1 + self.samples, *difference.shape[1:])) < 0
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

    def accumulated(self, value: Array, size: int, magnitudes: Magnitudes) -> Array:
        """An error for each product, and for each of size - 1 sums that of the largest that it can be in any order."""
        sizes, squares = magnitudes()
        largest = (sizes + abs(value[:1])) / 2
        magnitude = np.sqrt(squares + (size - 1) * largest * largest)
        found = self._with_error(value, magnitude, self.precision.accumulation * UNIFORM_RMS)
        return found if self.precision.roundoff == self.precision.accumulation else self._rounded(found)

    def _with_error(self, value: Array, magnitude: Array, unit: float) -> Array:
        """Value plus a random number of zero mean; where the magnitude is 0, nothing."""
        deviation = magnitude * self.numbers.array(self.scale * unit) + (magnitude > 0) * self._least
        shape = value.shape[1:]
        if deviation.shape[1:] != shape:
            shape = np.broadcast_shapes(shape, deviation.shape[1:])
        found: Array = value + deviation * self.numbers.array(self._noise((1 + self.samples, *shape)))
        over = np.asarray(abs(found) > self.precision.largest, bool)
        if over.any():
            found[over] = self.numbers.array(np.inf)[()]
        found[0] = value[0]
        return found

    def _noise(self, shape: tuple[int, ...]) -> Array:
        """Uniform numbers of zero mean and unit variance, out of blocks, as a call for each operation takes longer."""
        count = math.prod(shape)
        if len(self._block) < count:
            raw = self._bits.random_raw(max(count, _BLOCK))
            fresh = ((raw >> np.uint64(11)) * 2.0**-52 - 1.0) / UNIFORM_RMS
            self._block = np.concatenate([self._block, fresh])
        found, self._block = self._block[:count], self._block[count:]
        return found.reshape(shape)


_COARSE_ENOUGH = 2.0**-40
_BLOCK = 2**16
