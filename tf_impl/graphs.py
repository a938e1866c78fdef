"""One graph for each set of arguments that are given, whatever B and T are."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from . import fast

Tensors = dict[str, Any]


class Graph:
    """A function of tensors by name, traced once for each set of names, not for each shape.

    Args:
        function: of the tensors.
        worth: whether the loops within are worth compiling, known before tracing, so that the graph has one kind of
            loop only; None where both are needed.

    Attributes:
        functions: the concrete functions by that and by the names they take.
    """

    def __init__(self, function: Callable[[Tensors], Any], worth: Callable[[Tensors], bool | None] | None = None):
        self._function, self._worth = function, worth
        self.functions: dict[tuple[bool | None, tuple[str, ...]], Any] = {}

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        """The function's value; arguments that are None count as not given."""
        given = {name: tf.convert_to_tensor(value) for name, value in sorted(arguments.items()) if value is not None}
        key = self._worth and self._worth(given), tuple(given)
        if key not in self.functions:
            signature = {name: tf.TensorSpec([None] * len(value.shape), value.dtype) for name, value in given.items()}
            with fast.decided(key[0]):
                self.functions[key] = tf.function(self._function, autograph=False).get_concrete_function(signature)
        return self.functions[key](given)
