"""The loop over time compiled by XLA, where it is worth it: long enough, and its products small.

XLA compiles for one shape. So that a new length does not compile anew, steps are filled up to one of `BUCKETS`, eight
lengths for each power of 2: at most an eighth is added, which is not looped over. A new number of rows or units does,
once in a process, in 0.1 to 0.3 s. Within a user's own `jit_compile=True` XLA compiles for each length.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

import tensorflow as tf

Tensor = Any
Tensors = dict[str, Any]

WORTH = 4096  # numbers in the states of all steps; below, the loop takes less time than XLA takes in a thousand calls
SMALL = 2**23  # products of numbers in a step; above, TensorFlow's own product of matrices is faster than XLA's
BUCKETS = [*range(1, 16), *(m << k for k in range(1, 27) for m in range(8, 16))]  # numbers of steps


class Loop:
    """The compiled loop and the plain one.

    Args:
        states: the final states and the tape of the arguments.
        outputs: of the arguments and the tape.
        backward: the gradients, of the arguments, the tape and the results' cotangents.
        plain_forward, plain_backward: make the graphs of the plain loop, of any shape.
    """

    def __init__(
        self,
        states: Callable[..., Any],
        outputs: Callable[..., Any],
        backward: Callable[..., Any],
        plain_forward: Callable[[], Any],
        plain_backward: Callable[[], Any],
    ) -> None:
        self._states = tf.function(states, autograph=False, jit_compile=True)
        self._gradients = tf.function(backward, autograph=False, jit_compile=True)
        self._outputs = outputs
        self._plain = cache(plain_forward), cache(plain_backward)

    def forward(self, given: Tensors) -> Any:
        """What the plain loop gives, whose tape may be longer than T + 1 steps."""
        plain = self._plain[0]()
        return _either(given, lambda: self._fast_forward(given), lambda: plain(given))

    def backward(self, given: Tensors, tape: Tensors, d_results: tuple[Tensor, ...]) -> Tensors:
        """What the plain loop gives, for a tape of `forward` here."""
        plain = self._plain[1]()
        fast = partial(self._fast_backward, given, tape, d_results)
        found: Tensors = _either(given, fast, lambda: plain(given, tape, d_results))
        return found

    def _fast_forward(self, given: Tensors) -> Any:
        final, tape = self._states(_filled(given))
        return (self._outputs(given, tape), *final), tape

    def _fast_backward(self, given: Tensors, tape: Tensors, d_results: tuple[Tensor, ...]) -> Tensors:
        d_outputs, *d_final = d_results
        steps = _steps(given)
        found = self._gradients(_filled(given), tape, (_longer(d_outputs, bucket(steps)), *d_final))
        return found | {"p": found["p"][:steps]}


def _either(given: Tensors, fast: Callable[[], Any], plain: Callable[[], Any]) -> Any:
    """What the compiled loop gives where it is worth it: decided here where the sizes are known, else in the graph."""
    (T, B, width), H = given["p"].shape, given["recurrent_kernel"].shape[0]
    known = worth(T, B, H, width) if None not in (T, B, H, width) else _DECIDED.get()
    if known is not None:
        return fast() if known else plain()
    numbers, rows = tf.size(given["p"]), tf.shape(given["p"])[1]
    is_worth = tf.logical_and(numbers >= WORTH, rows * tf.size(given["recurrent_kernel"]) < SMALL)
    return tf.cond(is_worth, fast, plain, name="worth_compiling")


def worth(steps: int, rows: int, units: int, width: int) -> bool:
    """Whether a loop of these sizes is worth compiling; width is that of the projections, G*H."""
    return steps * rows * width >= WORTH and rows * units * width < SMALL


_DECIDED: ContextVar[bool | None] = ContextVar("decided", default=None)


@contextmanager
def decided(worth: bool | None) -> Iterator[None]:
    """Within, loops of unknown sizes are traced as worth compiling or not; None: as both, and chosen as they run."""
    token = _DECIDED.set(worth)
    try:
        yield
    finally:
        _DECIDED.reset(token)


def bucket(steps: Any) -> Any:
    """The number of steps that so many are filled up to."""
    if isinstance(steps, int):
        return BUCKETS[bisect_left(BUCKETS, steps)]
    edges = tf.constant(BUCKETS, tf.int32)
    return tf.reduce_min(tf.where(edges >= steps, edges, edges[-1]))


def _steps(given: Tensors) -> Any:
    known = given["p"].shape[0]
    return tf.shape(given["p"])[0] if known is None else known


def _filled(given: Tensors) -> Tensors:
    """The arguments with longer series, and `steps`, how many of them there are."""
    steps = _steps(given)
    series = {name: _longer(given[name], bucket(steps)) for name in ("p", "mask") if name in given}
    return given | series | {"steps": tf.convert_to_tensor(steps)}


def _longer(series: Tensor, steps: Any) -> Tensor:
    known = series.shape[0]
    if known is not None and isinstance(steps, int):
        return tf.pad(series, [[0, steps - known], [0, 0], [0, 0]]) if steps > known else series
    more = steps - tf.shape(series)[0]
    return tf.cond(more > 0, lambda: tf.pad(series, [[0, more], [0, 0], [0, 0]]), lambda: tf.identity(series))
