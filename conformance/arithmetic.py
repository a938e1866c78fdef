"""Exact arithmetic over arrays of samples, each operation a place for others to err in.

The first axis of every array counts samples; 1 there stands for the same numbers in all.
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import summation
from .numbers import Numbers
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

    def reordered(self, a: Array, b: Array, last: Array) -> Array:
        """a, as part of a sum with b that may be formed in an order in which `last`, a part of either, comes last."""
        return a

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

    def maximum(self, a: Array, b: Array) -> tuple[Array, Array]:
        """max(a, b) and its derivative by a: 1 where a > b, else 0."""
        self.undecided += int(np.count_nonzero(a == b))
        return np.maximum(a, b), self.numbers.array(a > b)

    def accumulated(self, value: Array, terms: Callable[[float], Terms]) -> Array:
        """The value of a sum; terms: those of one sample, of which two may be alike to a roundoff."""
        return value

    def _rounded(self, value: Array) -> Array:
        return value

    def _in_double(self, value: Array, magnitude: Array) -> Array:
        return value

    def _evaluated(self, name: str, value: Array) -> Array:
        return value
