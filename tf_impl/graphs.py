"""One graph for each set of arguments that are given, whatever B and T are, or for each shape."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from . import fast

Tensors = dict[str, Any]

KEPT = 64  # graphs of one function; then goes the one whose last call is longest ago


class Graph:
    """A function of tensors by name, traced once for each set of names, whichever thread calls first.

    Args:
        function: of the tensors.
        worth: whether the loops within are worth compiling, known before tracing, so that the graph has one kind of
            loop only; None where both are needed.
        exact: traced for each shape and dtype too; else one graph is for all.

    Attributes:
        functions: the concrete functions by that, by the names they take, and by what these are if exact; the one
            called last stands last.
    """

    def __init__(
        self,
        function: Callable[[Tensors], Any],
        worth: Callable[[Tensors], bool | None] | None = None,
        exact: bool = False,
    ):
        self._function, self._worth, self._exact = function, worth, exact
        self.functions: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.RLock()  # a function may call its own graph

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        """The function's value; arguments that are None count as not given."""
        given = {name: tf.convert_to_tensor(value) for name, value in sorted(arguments.items()) if value is not None}
        exact = tuple((tuple(value.shape), value.dtype) for value in given.values()) if self._exact else ()
        worth = self._worth and self._worth(given)
        key = worth, tuple(given), *exact
        with self._lock:
            function = self.functions.pop(key, None) or self._traced(given, worth)
            while len(self.functions) >= KEPT:
                del self.functions[next(iter(self.functions))]
            self.functions[key] = function
        return function(given)

    def _traced(self, given: Tensors, worth: bool | None) -> Any:
        signature = {
            name: tf.TensorSpec(value.shape if self._exact else [None] * len(value.shape), value.dtype)
            for name, value in given.items()
        }
        with fast.decided(worth):
            return tf.function(self._function, autograph=False).get_concrete_function(signature)
