"""Series without most of the steps that are not valid, for a compiled loop that goes on with fewer rows, in stages.

Rows are sorted by their last valid step. A stage has the first n_i = ceil(B (S - i) / S) of them, up to the last step
of row n_{i+1}. The steps of all stages stand one after the other as one row of N steps, (1, N, ...), so that products
with a weight are over these alone; N is filled up with a step of zeros, B to spare for initial states, and to a bucket.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from . import fast

Tensor = Any

STAGES = 4


class Packing(NamedTuple):
    """Where the rows and steps stand.

    Attributes:
        order: of each sorted row which it was, (B,); `inverse` the other way round.
        ends: of the stages, among the packed steps, (S,).
        places: of each sorted row and step, (B, T), among the packed steps, N for one that is left out.
        before: of each packed step the one before it of the same row, (L,), N + 1 + row where there is none.
        after: the one after it, likewise.
        taken: of each packed step which one of B*T it was, (N,).
    """

    order: Tensor
    inverse: Tensor
    ends: Tensor
    places: Tensor
    before: Tensor
    after: Tensor
    taken: Tensor

    def packed(self, x: Tensor) -> Tensor:
        """The packed steps (1, L, N) of a series (B, T, N)."""

        @tf.custom_gradient
        def packed(x: Tensor) -> Any:
            steps = tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0))  # (B*T, N)
            return fast.longer(tf.gather(steps, self.taken)[None], tf.shape(self.before)[0]), self.unpacked

        return packed(x)

    def unpacked(self, x: Tensor) -> Tensor:
        """The series (B, T, N) of packed steps, 0 at those that were left out."""

        @tf.custom_gradient
        def unpacked(x: Tensor) -> Any:
            return tf.gather(x[0], tf.gather(self.places, self.inverse)), self.packed

        return unpacked(x)


def packing(mask: Tensor) -> Packing:
    """Where the rows and steps of a mask (B, T) stand."""
    B, T = tf.unstack(tf.shape(mask))
    row, t = tf.range(B), tf.range(T)
    last = tf.reduce_max(tf.where(mask, t + 1, 0), axis=1)  # (B,)
    order = tf.argsort(last, direction="DESCENDING", stable=True)
    counts = tf.stack(rows(B, STAGES))  # (S,)
    ends = tf.gather(last, tf.gather(order, tf.concat([tf.minimum(counts[1:], B - 1), [0]], 0)))
    stage = tf.searchsorted(ends, t, side="right")  # (T,), S after the last valid step
    count = tf.gather(tf.concat([counts, [0]], 0), stage)
    kept = row < count[:, None]  # (T, B)
    place = tf.cumsum(count, exclusive=True)[:, None] + row
    N = tf.reduce_sum(count)
    start = (N + 1 + row)[None]
    before = tf.concat([start, place[:-1]], 0)
    after = tf.concat([tf.where(kept, place, start)[1:], start], 0)
    filling = [[0, fast.bucket(N + 1 + B) - N]]
    return Packing(
        order,
        tf.argsort(order),
        tf.cumsum(counts * (ends - tf.concat([[0], ends[:-1]], 0))),
        tf.transpose(tf.where(kept, place, N)),
        tf.pad(tf.boolean_mask(before, kept), filling),
        tf.pad(tf.boolean_mask(after, kept), filling),
        tf.boolean_mask(order * T + t[:, None], kept),
    )


def rows(B: Any, stages: int) -> list[Any]:
    """How many rows each stage has."""
    return [-(-B * (stages - i) // stages) for i in range(stages)]


def permuted(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """States (L*D, B, H) with rows in that order; the gradient is taken back by the inverse, not summed by indices."""

    @tf.custom_gradient
    def taken(x: Tensor) -> Any:
        return tf.gather(x, order, axis=1), lambda d: permuted(d, inverse, order)

    return taken(x)
