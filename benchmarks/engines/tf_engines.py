"""TensorFlow: the products alone, Keras' `SimpleRNN` in each mode, and the layer of this package."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...spec.backend import load_backend
from ..problem import Problem
from . import Timed


def floor(problem: Problem) -> Timed:
    """The products that no implementation can avoid, compiled by XLA; each step's product reads the one before."""
    B, T, H = problem.B, problem.T, problem.H
    x = tf.constant(problem.inputs().reshape(T * B, -1))
    flat = tf.constant(problem.d_outputs().reshape(T * B, H))
    W_x = tf.constant(problem.weights()["layers.0.forward.input_weight"].T.copy())
    W_h = tf.constant(np.linalg.qr(np.random.default_rng(0).standard_normal((H, H)))[0].astype(np.float32))  # no growth
    h = tf.constant(problem.d_outputs().reshape(T * B, H))

    def steps(weight: Any, start: Any) -> Any:
        def body(t: Any, q: Any) -> Any:
            return t + 1, tf.matmul(q, weight)

        return tf.while_loop(lambda t, _: t < T, body, (0, start))[1]

    @tf.function(jit_compile=True, autograph=False)
    def f(x: Any, W_x: Any, W_h: Any, h: Any) -> Any:
        return x @ W_x, steps(W_h, h[:B])

    @tf.function(jit_compile=True, autograph=False)
    def fb(x: Any, W_x: Any, W_h: Any, h: Any, flat: Any) -> Any:
        gradients = tf.matmul(x, flat, transpose_a=True), tf.matmul(h, flat, transpose_a=True)
        backward = steps(tf.transpose(W_h), flat[:B])
        return x @ W_x, steps(W_h, h[:B]), backward, gradients, tf.matmul(flat, W_x, transpose_b=True)

    return {"f": lambda: _done(f(x, W_x, W_h, h)), "fb": lambda: _done(fb(x, W_x, W_h, h, flat))}


def native_graph(problem: Problem) -> Timed:
    """`SimpleRNN` in a `tf.function`."""
    return _timed(problem, _keras(problem), autograph=False)


def native_xla(problem: Problem) -> Timed:
    """`SimpleRNN` in a `tf.function` that XLA compiles."""
    return _timed(problem, _keras(problem), autograph=False, jit_compile=True)


def native_eager(problem: Problem) -> Timed:
    """`SimpleRNN` called eagerly."""
    return _eager(problem, _keras(problem))


def ours_graph(problem: Problem) -> Timed:
    """`Recurrent` in a `tf.function`."""
    return _timed(problem, load_backend("tf").build(problem.spec), autograph=False)


def ours_xla(problem: Problem) -> Timed:
    """`Recurrent` in a `tf.function` that XLA compiles, as a whole and for its length alone."""
    return _timed(problem, load_backend("tf").build(problem.spec), autograph=False, jit_compile=True)


def ours_eager(problem: Problem) -> Timed:
    """`Recurrent` called eagerly."""
    return _eager(problem, load_backend("tf").build(problem.spec))


def _keras(problem: Problem) -> Any:
    layers = [keras.layers.SimpleRNN(problem.H, return_sequences=True) for _ in range(problem.L)]
    if problem.D == 2:
        layers = [keras.layers.Bidirectional(layer) for layer in layers]
    model = keras.Sequential(layers)
    model.build((None, None, problem.I))
    return model


def _timed(problem: Problem, layers: Any, **options: Any) -> Timed:
    x, d_y, mask = _data(problem)
    call = tf.function(lambda x, mask: layers(x, mask=mask), **options)
    slopes = tf.function(lambda x, d_y, mask: _slopes(layers, x, d_y, mask), **options)
    return {"f": lambda: _done(call(x, mask)), "fb": lambda: _done(slopes(x, d_y, mask))}


def _eager(problem: Problem, layers: Any) -> Timed:
    x, _, mask = _data(problem)
    return {"f": lambda: _done(layers(x, mask=mask))}


def _data(problem: Problem) -> tuple[Any, Any, Any]:
    lengths = problem.lengths()
    mask = None if lengths is None else tf.constant(np.arange(problem.T) < lengths[:, None])
    return tf.constant(problem.inputs()), tf.constant(problem.d_outputs()), mask


def _slopes(layers: Any, x: Any, d_y: Any, mask: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layers(x, mask=mask)
    return tape.gradient(y, [x, *layers.trainable_variables], d_y)


def _done(results: Any) -> None:
    """Return when all is computed."""
    for tensor in tf.nest.flatten(results):
        tensor.numpy()
