"""Values that remember how they were computed, so that derivatives can be taken backwards.

The shapes are those of the oracle: samples first, then rows of a batch, then units.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arithmetic import Exact
from .totals import Rows, Total

Array = NDArray[Any]
Pullback = Callable[[Array], Array | Rows]  # from the cotangent of a result to that of an argument
_ORDER = itertools.count()


class Value:
    """An array under some arithmetic, with the values that it came from.

    Args:
        array: samples first.
        ops: the arithmetic.
        arguments: pairs of a value and the pullback to it.
        wanted: whether a leaf's derivative is asked for; elsewhere it follows from the arguments.
    """

    __slots__ = ("arguments", "array", "operation", "ops", "order", "wanted")
    wanted: bool

    def __init__(
        self, array: Array, ops: Exact, arguments: Iterable[tuple["Value", Pullback]] = (), wanted: bool = False
    ) -> None:
        self.array, self.ops, self.order, self.operation = array, ops, next(_ORDER), ops.operation
        ops.operation += 1
        self.arguments = [(value, pullback) for value, pullback in arguments if value.wanted]
        self.wanted = wanted or bool(self.arguments)

    def _make(self, array: Array, *arguments: tuple["Value", Pullback]) -> "Value":
        return Value(array, self.ops, arguments)

    def _value(self, other: Any) -> "Value":
        return other if isinstance(other, Value) else Value(self.ops.constant(other), self.ops)

    def __add__(self, other: Any) -> "Value":
        b = self._value(other)
        return self._make(self.ops.add(self.array, b.array), (self, self._fitted), (b, b._fitted))

    def __neg__(self) -> "Value":
        return self._make(-self.array, (self, lambda g: -g))

    def __sub__(self, other: Any) -> "Value":
        b = self._value(other)
        return self._make(self.ops.add(self.array, -b.array), (self, self._fitted), (b, lambda g: b._fitted(-g)))

    def __mul__(self, other: Any) -> "Value":
        b, ops = self._value(other), self.ops
        return self._make(
            ops.multiply(self.array, b.array),
            (self, lambda g: self._fitted(ops.multiply(g, b.array))),
            (b, lambda g: b._fitted(ops.multiply(g, self.array))),
        )

    def __truediv__(self, other: Any) -> "Value":
        b, ops = self._value(other), self.ops
        quotient = ops.divide(self.array, b.array)
        return self._make(
            quotient,
            (self, lambda g: self._fitted(ops.divide(g, b.array))),
            (b, lambda g: b._fitted(-ops.multiply(ops.divide(g, b.array), quotient))),
        )

    def __radd__(self, other: Any) -> "Value":
        return self._value(other) + self

    def __rsub__(self, other: Any) -> "Value":
        return self._value(other) - self

    def __rmul__(self, other: Any) -> "Value":
        return self._value(other) * self

    def __rtruediv__(self, other: Any) -> "Value":
        return self._value(other) / self

    def __matmul__(self, x: "Value") -> "Value":
        """A matrix (S, R, C) times the vectors of all rows, (S, B, C): (S, B, R)."""
        ops, turned = self.ops, np.swapaxes(self.array, 1, 2)
        return self._make(
            ops.product(x.array, turned),
            (self, lambda g: Rows(np.swapaxes(g, 1, 2), x.array)),
            (x, lambda g: ops.product(g, self.array)),
        )

    def reordered(self, other: "Value", last: "Value") -> "Value":
        """The same, whose sum with another may be formed in an order in which `last`, a part of either, comes last."""
        return self._make(self.ops.reordered(self.array, other.array, last.array), (self, lambda g: g))

    def exp(self) -> "Value":
        y = self.ops.function("exp", self.array)
        return self._make(y, (self, lambda g: self.ops.multiply(g, y)))

    def log(self) -> "Value":
        y = self.ops.function("log", self.array)
        return self._make(y, (self, lambda g: self.ops.divide(g, self.array)))

    def tanh(self) -> "Value":
        return self.through(self.ops.function("tanh", self.array), lambda y: 1 - y * y)

    def maximum(self, other: Any) -> "Value":
        """The larger of two; where they are equal the derivative goes to the other."""
        b = self._value(other)
        larger, slope = self.ops.maximum(self.array, b.array)
        return self._make(larger, (self, lambda g: g * slope), (b, lambda g: b._fitted(g * (1 - slope))))

    def through(self, y: Array, derivative: Callable[["Value"], "Value"]) -> "Value":
        """A function's value y, its derivative given in terms of it."""
        if not self.wanted:
            return self._make(y)
        slope = derivative(Value(y, self.ops)).array
        return self._make(y, (self, lambda g: self.ops.multiply(g, slope)))

    def take(self, rows: Array) -> "Value":
        """Some of the rows, in their order."""
        if len(rows) == self.array.shape[1]:
            self.ops.operation += 1  # as if it were done
            return self

        def pullback(g: Array) -> Array:
            found = self.ops.zeros((len(g), *self.array.shape[1:]))
            found[:, rows] = g
            return found

        return self._make(self.array[:, rows], (self, pullback))

    def put(self, rows: Array, other: "Value") -> "Value":
        """The same with other values in some of the rows, in their order."""
        if len(rows) == self.array.shape[1]:
            self.ops.operation += 1
            return other
        array = _repeated(self.array, len(other.array)).copy()
        array[:, rows] = other.array
        kept = np.ones((array.shape[1], 1), bool)
        kept[rows] = False
        return self._make(array, (self, lambda g: g * kept), (other, lambda g: g[:, rows]))

    def units(self, first: int, last: int) -> "Value":
        """Some of the units."""
        if last - first == self.array.shape[-1]:
            return self

        def pullback(g: Array) -> Array:
            found = self.ops.zeros((len(g), *self.array.shape[1:]))
            found[..., first:last] = g
            return found

        return self._make(self.array[..., first:last], (self, pullback))

    def joined(self, other: "Value") -> "Value":
        """The units of both, one after the other."""
        halves = [_repeated(a.array, len(b.array)) for a, b in ((self, other), (other, self))]
        size = self.array.shape[-1]
        return self._make(
            np.concatenate(halves, axis=-1), (self, lambda g: g[..., :size]), (other, lambda g: g[..., size:])
        )

    def rows_at(self, numbers: Array) -> "Value":
        """The rows of a table (S, V, I) at the given numbers."""
        hot = np.zeros((1, self.array.shape[1], len(numbers)))
        hot[0, numbers, np.arange(len(numbers))] = 1.0
        chosen = self.ops.numbers.array(hot)
        return self._make(self.array[:, numbers], (self, lambda g: Rows(chosen, g)))

    def unit_of_each(self, numbers: Array) -> "Value":
        """In every row the unit of the given number, (S, B, 1)."""
        rows = np.arange(len(numbers))

        def pullback(g: Array) -> Array:
            found = self.ops.zeros((len(g), *self.array.shape[1:]))
            found[:, rows, numbers] = g[:, :, 0]
            return found

        return self._make(self.array[:, rows, numbers][:, :, None], (self, pullback))

    def sum(self, axis: int) -> "Value":
        """The sum over rows (1) or units (2), kept as an axis of length 1."""
        return self._make(self.ops.sum(self.array, axis), (self, self._spread))

    def _fitted(self, g: Array) -> Array | Rows:
        """A cotangent summed over the axes along which this value was repeated; samples stay apart."""
        _, rows, units = self.array.shape
        if units == 1 and g.shape[2] > 1:
            g = self.ops.sum(g, 2)
        return Rows(None, g) if rows == 1 and (g.shape[1] > 1 or not self.arguments) else g

    def _spread(self, g: Array) -> Array:
        """The cotangent of a sum for each of its terms."""
        return np.broadcast_to(g, (len(g), *self.array.shape[1:]))


def sum_of_rows(values: Sequence[Value]) -> Value:
    """The sum over the rows of all values, (S, 1, N)."""
    ops, total = values[0].ops, Total(values[0].ops)
    for value in values:
        total.add(Rows(None, value.array))
    return Value(total.value(), ops, [(value, value._spread) for value in values])


def pulled_back(seeds: Iterable[tuple[Value, Array]], leaves: Iterable[Value]) -> list[Array]:
    """The derivatives of the sum of seeds times values by each leaf, 0 where none arrives.

    Values are visited from the last made to the first, so that each has all its contributions by then.
    """
    waiting: dict[int, tuple[Value, Total]] = {}
    heap: list[int] = []

    def give(value: Value, cotangent: Array | Rows) -> None:
        if value.order in waiting:
            waiting[value.order][1].add(cotangent)
        else:
            waiting[value.order] = (value, Total(value.ops))
            waiting[value.order][1].add(cotangent)
            heapq.heappush(heap, -value.order)

    for value, cotangent in seeds:
        if value.wanted:
            give(value, cotangent)
    found: dict[int, Array] = {}
    while heap:
        order = -heapq.heappop(heap)
        value, contributions = waiting.pop(order)
        value.ops.operation = -value.operation << 8  # other than in the forward direction, and again those of the loop
        cotangent = contributions.value()
        if not value.arguments:
            found[order] = cotangent
        for argument, pullback in value.arguments:
            give(argument, pullback(cotangent))
    return [found[leaf.order] if leaf.order in found else 0 * leaf.array for leaf in leaves]


def _repeated(array: Array, samples: int) -> Array:
    """One sample taken as many; several stay what they are."""
    return array if len(array) >= samples else np.broadcast_to(array, (samples, *array.shape[1:]))
