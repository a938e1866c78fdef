"""The loop over time compiled by XLA, where it is worth it.

XLA compiles for one shape. So that a new length does not compile anew, steps are filled up to one of `BUCKETS`, eight
lengths for each power of 2 and round ones: at most an eighth is added, which is not looped over. A new number of rows
or units does, once in a process, in 0.1 to 0.3 s. Within a user's own `jit_compile=True` XLA compiles for each length.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

import tensorflow as tf

from .series import ARRAYS, PACKED, SLICES

Tensor = Any
Tensors = dict[str, Any]

WORTH = 4096  # numbers in the states of all steps; below, the loop takes less time than XLA takes in a thousand calls
ROUND = {m * 10**k for k in range(8) for m in (10, 12, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90)}  # people choose them
BUCKETS = sorted({*range(1, 16), *(m << k for k in range(1, 27) for m in range(8, 16)), *ROUND})  # numbers of steps


class Either:
    """A loop that is compiled or plain.

    Args:
        loop: of a storage and of tensors.
        packed: whether the series are packed; then the plain loop is not for them.
        completed: what is made of that and of the tensors, where TensorFlow's own products are as fast as XLA's.
        signature: of the tensors.
    """

    def __init__(self, loop: Callable[..., Any], packed: bool, completed: Callable[..., Any], *signature: Any) -> None:
        storage = PACKED if packed else SLICES
        self.compiled = tf.function(partial(loop, storage), autograph=False, jit_compile=True)
        self._completed = completed
        self._plain = cache(lambda: graph(lambda *given: completed(loop(ARRAYS, *given), *given), *signature))

    def __call__(self, compiled: Any, given: Tensors, *more: Any) -> Any:
        """What the loop gives; compiled: a bool, or a tensor of one, for which both are traced."""
        if compiled is True:
            return self._fast(given, *more)
        plain, unfilled = self._plain(), {name: value for name, value in given.items() if name != "ends"}
        if compiled is False:
            return plain(unfilled, *more)
        fast, slow = partial(self._fast, given, *more), partial(plain, unfilled, *more)
        return tf.cond(compiled, fast, slow, name="worth_compiling")

    def _fast(self, *given: Any) -> Any:
        return self._completed(self.compiled(*given), *given)


def graph(function: Callable[..., Any], *signature: Any) -> Any:
    """The function as one graph."""
    return tf.function(function, autograph=False).get_concrete_function(*signature)


def worth(rows: Any, steps: Any, width: int) -> Any:
    """Whether a loop is worth compiling, whose projections have that width, G*H.

    A tensor where it depends on what only the graph will know, and nothing was decided before.
    """
    known = isinstance(rows, int) and isinstance(steps, int)
    decided = None if known else _DECIDED.get()
    return rows * steps * width >= WORTH if decided is None else decided


_DECIDED: ContextVar[bool | None] = ContextVar("decided", default=None)


@contextmanager
def decided(worth: bool | None) -> Iterator[None]:
    """Within, loops of unknown sizes are traced as worth compiling or not; None: as both, and chosen as they run."""
    token = _DECIDED.set(worth)
    try:
        yield
    finally:
        _DECIDED.reset(token)


def filled(steps: Any, room: Any, compiled: Any) -> Any:
    """The number of steps that so many are filled up to, so that a compiled loop has room for at least so many."""
    if isinstance(compiled, bool):
        return bucket(room) if compiled else steps
    return tf.where(compiled, bucket(room), steps)


def bucket(steps: Any) -> Any:
    """The first of the buckets that holds so many steps."""
    if isinstance(steps, int):
        return BUCKETS[bisect_left(BUCKETS, steps)]
    return tf.gather(BUCKETS, tf.searchsorted(BUCKETS, [steps]))[0]


def longer(series: Tensor, steps: Any) -> Tensor:
    """A series (B, T, N) with T filled up with 0."""
    known = series.shape[1]
    if known is not None and isinstance(steps, int):
        return tf.pad(series, [[0, 0], [0, steps - known], [0, 0]]) if steps > known else series
    more = steps - tf.shape(series)[1]
    return tf.cond(more > 0, lambda: tf.pad(series, [[0, 0], [0, more], [0, 0]]), lambda: tf.identity(series))


def shorter(series: Tensor, steps: Any) -> Tensor:
    """The first steps of a series (B, T, N); itself where these are all."""
    return series if series.shape[1] == steps else tf.slice(series, [0, 0, 0], [-1, steps, -1])
