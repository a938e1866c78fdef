"""One graph for each set of arguments that are given, whatever B and T are."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf


class Graph:
    """A function of tensors by name, traced once for each set of names, not for each shape.

    Attributes:
        functions: the concrete functions by the names they take.
    """

    def __init__(self, function: Callable[[dict[str, Any]], Any]) -> None:
        self._function = function
        self.functions: dict[tuple[str, ...], Any] = {}

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        """The function's value; arguments that are None count as not given."""
        given = {name: tf.convert_to_tensor(value) for name, value in sorted(arguments.items()) if value is not None}
        names = tuple(given)
        if names not in self.functions:
            signature = {name: tf.TensorSpec([None] * len(value.shape), value.dtype) for name, value in given.items()}
            self.functions[names] = tf.function(self._function, autograph=False).get_concrete_function(signature)
        return self.functions[names](given)
