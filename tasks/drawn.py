"""What the tasks share whose examples are drawn: fresh ones in every epoch, the same ones on every machine."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..spec.encoder_decoder import AnySpec, Source
from ..spec.training import Batch
from .task import Array

EPOCH_ROWS, TEST_ROWS = 3200, 1000
TEST_SEED = 0  # the test examples never change, so that runs with different seeds can be compared
ROWS_AT_ONCE = 250


class Drawn:
    """Base of these tasks, which say how `drawn` makes examples of the streams whose names begin with `stream`."""

    name: str
    source: str | None = None

    def drawn(self, seed: int, stream: str, count: int) -> Batch:
        """So many examples as one batch."""
        raise NotImplementedError

    def draw_test(self) -> Batch:
        """The examples of the evaluation, none of which is of an epoch's streams."""
        return self.drawn(TEST_SEED, f"{self.name}.test", TEST_ROWS)

    def reason_against(self, spec: AnySpec) -> str | None:
        """None: every variant can do this."""
        return None

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in an epoch; the last may be smaller."""
        return -(-EPOCH_ROWS // batch_size)

    def epoch(self, number: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """Examples of this seed and epoch alone; they do not depend on the size of the batches."""
        return batches(self.drawn(seed, f"{self.name}.epoch.{number}", EPOCH_ROWS), batch_size)


def rows_of(whole: Batch, rows: Any) -> Batch:
    """Some rows of a batch."""
    found = {name: _rows(getattr(whole, name), rows) for name in ("inputs", "targets", "lengths", "context")}
    return replace(whole, **found)


def _rows(given: Any, rows: Any) -> Any:
    """Of an array, of each in a source, or of nothing."""
    if isinstance(given, Source):
        return Source(*(_rows(array, rows) for array in given))
    return None if given is None else given[rows]


def batches(whole: Batch, batch_size: int) -> Iterator[Batch]:
    """All rows in their order; the last batch may be smaller."""
    for start in range(0, len(whole.inputs), batch_size):
        yield rows_of(whole, slice(start, start + batch_size))


def scores_of(backend: Any, model: Any, whole: Batch) -> Array:
    """The model's scores of all rows, which it runs some at a time."""
    parts = (
        backend.run(model, rows.inputs, lengths=rows.lengths, context=rows.context)
        for rows in batches(whole, ROWS_AT_ONCE)
    )
    return np.concatenate([result.scores for result in parts])
