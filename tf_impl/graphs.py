"""One graph for each set of arguments that are given, whatever B and T are, or for each shape."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from . import fast

Tensors = dict[str, Any]

KEPT = 64  # graphs of one function; the oldest then goes, and is traced anew if it is called for


class Graph:
    """A function of tensors by name, traced once for each set of names.

    Args:
        function: of the tensors.
        worth: whether the loops within are worth compiling, known before tracing, so that the graph has one kind of
            loop only; None where both are needed.
        exact: traced for each shape and dtype too; else one graph is for all.

    Attributes:
        functions: the concrete functions by that, by the names they take, and by what these are if exact.
    """

    def __init__(
        self,
        function: Callable[[Tensors], Any],
        worth: Callable[[Tensors], bool | None] | None = None,
        exact: bool = False,
    ):
        self._function, self._worth, self._exact = function, worth, exact
        self.functions: dict[tuple[Any, ...], Any] = {}

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        """The function's value; arguments that are None count as not given."""
        given = {name: tf.convert_to_tensor(value) for name, value in sorted(arguments.items()) if value is not None}
        exact = tuple((tuple(value.shape), value.dtype) for value in given.values()) if self._exact else ()
        worth = self._worth and self._worth(given)
        key = worth, tuple(given), *exact
        if key not in self.functions:
            signature = {
                name: tf.TensorSpec(value.shape if exact else [None] * len(value.shape), value.dtype)
                for name, value in given.items()
            }
            while len(self.functions) >= KEPT:
                del self.functions[next(iter(self.functions))]
            with fast.decided(worth):
                self.functions[key] = tf.function(self._function, autograph=False).get_concrete_function(signature)
        return self.functions[key](given)
