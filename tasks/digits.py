"""Classification of handwritten digits, an image's rows as time steps; or of sequences of the user's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from ..spec.encoder_decoder import AnySpec
from ..spec.errors import FileError, RnnZooError, listed
from ..spec.inputs import checked_mask
from ..spec.model import Head
from ..spec.npz import read_npz
from ..spec.training import Batch, CrossEntropy
from .task import Array, Evaluation, ModelParts, check_unchanged, file_path, log_softmax, needed, sha256_of

SPLIT_SEED = 0  # the split never changes, so that runs with different seeds can be compared
ROWS_AT_ONCE = 256
MOST_CLASSES = 1_000_000  # a score each


class Sequences(NamedTuple):
    """Labelled sequences: inputs (N, T, I), targets (N,) from 0, lengths (N,) or None."""

    inputs: Array
    targets: NDArray[np.int64]
    lengths: NDArray[np.int64] | None

    def rows(self, index: NDArray[np.int64]) -> "Sequences":
        """Some of the rows."""
        return Sequences(self.inputs[index], self.targets[index], None if self.lengths is None else self.lengths[index])


class Digits:
    """1797 images of 8 x 8 grey values, read row by row: 8 steps of 8 numbers, many to one.

    A random fifth of the rows is the test data.

    Args:
        data: an `.npz` file with the arrays inputs (N, T, I), targets (N,) and, optionally, lengths (N,).
        sha256: of the data, as `settings` gives it; other data are then refused.

    Raises:
        FileError: the file is not of this form, or its data are not the expected ones.
        BackendError: scikit-learn, which brings the digits, is not installed.
    """

    name = "digits"
    source = "data"
    metric = "accuracy"
    goal = "maximize"
    loss = CrossEntropy()

    def __init__(self, data: str | None = None, sha256: str | None = None) -> None:
        self._path = file_path(self.name, self.source, data)
        found = _sklearn_digits() if self._path is None else _read(self._path)
        self._sha256 = sha256_of(*(array for array in found if array is not None))
        check_unchanged(f"task digits: {self._path or 'the digits of scikit-learn'}", self._sha256, sha256)
        order = draws.permutation(SPLIT_SEED, "digits.split", len(found.inputs))
        held_out = len(order) // 5
        self._classes = int(found.targets.max()) + 1
        self.test, self.training = found.rows(order[:held_out]), found.rows(order[held_out:])

    @property
    def parts(self) -> ModelParts:
        """Inputs as wide as a step, one score a class, read from the final states."""
        return ModelParts(self.training.inputs.shape[2], Head(self._classes, reads="final"))

    def settings(self) -> dict[str, Any]:
        """What `load_task` takes."""
        return {"name": self.name, "data": self._path and str(self._path), "sha256": self._sha256}

    def reason_against(self, spec: AnySpec) -> str | None:
        """None: every variant can classify."""
        return None

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in an epoch; the last may be smaller."""
        return -(-len(self.training.inputs) // batch_size)

    def epoch(self, number: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """Every training row once, in an order of this seed and epoch."""
        order = draws.permutation(seed, f"digits.epoch.{number}", len(self.training.inputs))
        for start in range(0, len(order), batch_size):
            rows = self.training.rows(order[start : start + batch_size])
            yield Batch(rows.inputs, rows.targets, lengths=rows.lengths)

    def evaluate(self, backend: Any, model: Any) -> Evaluation:
        """Accuracy and cross-entropy (in nats) on the test rows."""
        scores = []
        for start in range(0, len(self.test.inputs), ROWS_AT_ONCE):
            rows = self.test.rows(np.arange(start, min(start + ROWS_AT_ONCE, len(self.test.inputs))))
            scores.append(backend.run(model, rows.inputs, lengths=rows.lengths).scores)
        logarithms = log_softmax(np.concatenate(scores))  # (N, O)
        predictions = logarithms.argmax(axis=1)
        metrics = {
            "accuracy": float((predictions == self.test.targets).mean()),
            "cross_entropy": float(-logarithms[np.arange(len(predictions)), self.test.targets].mean()),
        }
        return Evaluation(self.metric, metrics, predictions, self._baseline(), "the most frequent class")

    def _baseline(self) -> float:
        return float((self.test.targets == np.bincount(self.training.targets).argmax()).mean())


def _sklearn_digits() -> Sequences:
    bunch = needed("sklearn.datasets", "scikit-learn").load_digits()
    return Sequences(bunch.images / 16.0, bunch.target.astype(np.int64), None)


def _read(path: Path) -> Sequences:
    arrays = read_npz(path)
    if missing := {"inputs", "targets"} - set(arrays):
        raise FileError(f"{path}: expected the arrays inputs and targets, missing {listed(missing)}")
    return _checked(path, arrays["inputs"], arrays["targets"], arrays.get("lengths"))


def _checked(path: Path, inputs: Array, targets: Array, lengths: Array | None) -> Sequences:
    if inputs.ndim != 3 or 0 in inputs.shape or inputs.dtype.kind not in "fiub":
        raise FileError(f"{path}: inputs: expected numbers (N, T, I), got {inputs.dtype} of shape {inputs.shape}")
    rows, steps = inputs.shape[:2]
    if rows < 5:
        raise FileError(f"{path}: expected at least 5 rows, as a fifth of them is the test data, got {rows}")
    if targets.shape != (rows,) or targets.dtype.kind not in "iu" or targets.min() < 0:
        raise FileError(
            f"{path}: targets: expected {rows} classes from 0, got {targets.dtype} of shape {targets.shape}"
            + (f" from {targets.min()}" if targets.size and targets.dtype.kind in "iu" else "")
        )
    if targets.max() >= MOST_CLASSES:
        raise FileError(
            f"{path}: targets: expected classes below {MOST_CLASSES}, got {targets.max()}; number them from 0"
        )
    try:
        valid = checked_mask(rows, steps, lengths, None)
    except RnnZooError as error:
        raise FileError(f"{path}: {error}") from error
    if not np.isfinite(inputs if valid is None else inputs[valid]).all():
        raise FileError(f"{path}: inputs: expected finite numbers, got NaN or infinity")
    return Sequences(inputs, targets.astype(np.int64), None if lengths is None else lengths.astype(np.int64))
