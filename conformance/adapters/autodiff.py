"""Gradients in each framework by its own means.

Each takes `function(fixed, *arguments) -> (outputs, final state)`, what is fixed, the arguments to differentiate for
and the cotangents of both results, all in the framework's tensors, and gives a gradient for each argument.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

Gradients = Callable[[Callable[..., Any], Any, list[Any], tuple[Any, ...]], Any]


def in_jax(function: Any, fixed: Any, arguments: list[Any], cotangents: tuple[Any, ...]) -> Any:
    """By `jax.vjp`, compiled once for a function and shapes."""
    return _compiled(function)(fixed, arguments, cotangents)


@lru_cache(maxsize=16)  # a compiled loop takes megabytes
def _compiled(function: Any) -> Any:
    import jax

    def gradients(fixed: Any, arguments: list[Any], cotangents: tuple[Any, ...]) -> Any:
        return jax.vjp(partial(function, fixed), *arguments)[1](cotangents)

    return jax.jit(gradients)


def in_tensorflow(function: Any, fixed: Any, arguments: list[Any], cotangents: tuple[Any, ...]) -> Any:
    """By `tf.GradientTape`."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(arguments)
        results = function(fixed, *arguments)
    return tape.gradient(results, arguments, cotangents, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def in_torch(function: Any, fixed: Any, arguments: list[Any], cotangents: tuple[Any, ...]) -> Any:
    """By `torch.autograd`."""
    import torch

    leaves = [argument.detach().clone().requires_grad_() for argument in arguments]
    return torch.autograd.grad(function(fixed, *leaves), leaves, cotangents, materialize_grads=True)


GRADIENTS: dict[str, Gradients] = {"jax": in_jax, "tensorflow": in_tensorflow, "torch": in_torch}
