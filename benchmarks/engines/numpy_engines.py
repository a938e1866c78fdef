"""NumPy: the products alone, a loop as in min-char-rnn, and the backend of this package."""

import tracemalloc

import numpy as np

from ...spec.backend import load_backend
from ..problem import Problem
from . import Timed


def floor(problem: Problem) -> Timed:
    """The products that no implementation can avoid, each through `numpy.dot` into memory that is there."""
    B, T, H = problem.B, problem.T, problem.H
    x, d_a = problem.inputs().reshape(T * B, -1), problem.d_outputs().reshape(T, B, H)
    weights = problem.weights()
    W_x, W_h = (weights[f"layers.0.forward.{name}"] for name in ("input_weight", "recurrent_weight"))
    p, h, d_x = np.empty((T * B, H), np.float32), np.zeros((T, B, H), np.float32), np.empty_like(x)
    to_p, to_q = W_x.T.copy(), W_h.T.copy()
    q, d_W_x, d_W_h = np.empty((B, H), np.float32), np.empty_like(W_x), np.empty_like(W_h)

    def f() -> None:
        np.dot(x, to_p, out=p)
        for h_t in h:
            np.dot(h_t, to_q, out=q)

    def fb() -> None:
        f()
        for d in d_a:
            np.dot(d, W_h, out=q)
        flat = d_a.reshape(-1, H)
        np.dot(flat.T, x, out=d_W_x)
        np.dot(flat.T, h.reshape(-1, H), out=d_W_h)
        np.dot(flat, W_x, out=d_x)

    return {"f": f, "fb": fb}


def loop(problem: Problem) -> Timed:
    """One product for each input, step and weight, and their gradients summed step by step, as in min-char-rnn."""
    x, d_y = problem.inputs().transpose(1, 0, 2).copy(), problem.d_outputs().transpose(1, 0, 2).copy()
    W_x, W_h, b = problem.weights().values()

    def f() -> list[np.ndarray]:
        h = [np.zeros((problem.B, problem.H), np.float32)]
        for x_t in x:
            h.append(np.tanh(x_t @ W_x.T + h[-1] @ W_h.T + b))
        return h

    def fb() -> None:
        h = f()
        d_W_x, d_W_h, d_b = np.zeros_like(W_x), np.zeros_like(W_h), np.zeros_like(b)
        d_x, d_h = np.empty_like(x), np.zeros_like(h[0])
        for t in reversed(range(problem.T)):
            d_a = (1 - h[t + 1] * h[t + 1]) * (d_y[t] + d_h)
            d_b += d_a.sum(axis=0)
            d_W_x += d_a.T @ x[t]
            d_W_h += d_a.T @ h[t]
            d_x[t] = d_a @ W_x
            d_h = d_a @ W_h

    return {"f": f, "fb": fb}


def ours(problem: Problem) -> Timed:
    """`run` and `gradients` of the backend."""
    backend = load_backend("numpy")
    model = backend.build(problem.spec)
    x, d_y, lengths = problem.inputs(), problem.d_outputs(), problem.lengths()
    return {
        "f": lambda: backend.run(model, x, lengths=lengths),
        "fb": lambda: backend.gradients(model, x, d_y, lengths=lengths),
    }


def memory(problem: Problem, *, recompute: bool = False) -> int:
    """The peak in bytes of `gradients` beyond inputs, cotangents, weights and gradients."""
    backend = load_backend("numpy")
    model = backend.build(problem.spec, recompute=recompute)
    x, d_y, lengths = problem.inputs(), problem.d_outputs(), problem.lengths()
    backend.run(model, x[:1, :1])  # loads what is loaded once
    tracemalloc.start()
    gradients = backend.gradients(model, x, d_y, lengths=lengths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - sum(array.nbytes for array in gradients.values())
