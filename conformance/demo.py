"""`make demo`: train in PyTorch on real data, run in all three frameworks, and hold each against the oracle."""

import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from ..spec.backend import Contents, load_backend
from ..spec.errors import RnnZooError
from ..spec.inputs import Cotangents, checked_inputs
from ..spec.parameters import weights_dtype
from ..tasks.digits import Digits
from ..tasks.evaluate import evaluate
from ..tasks.tables import number, table
from ..tasks.train import main as train
from . import numbers
from .bounds import bounds, gradients, results, truth
from .comparison import Comparison, compared
from .convert import convert
from .formats import format_of, read

Array = NDArray[Any]
TRAINED_IN = "torch"
FILES = ("model.pt", "model.keras", "model.npz")  # one for each framework, all converted from the checkpoint
ROWS = 2  # test rows for the gradients, which the oracle takes at 40 digits


class Row(NamedTuple):
    """A framework's line of the table, and its predictions."""

    backend: str
    accuracy: float
    results: Comparison
    gradients: Comparison
    predictions: Array

    @property
    def agrees(self) -> bool:
        return self.results.ratio <= 1 and self.gradients.ratio <= 1


def main() -> int:
    """Run the demonstration; exit status as of the command line."""
    folder = Path("runs", "demo", datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    print(f"Training a stacked_bi_rnn on scikit-learn's digits with {TRAINED_IN} ...", flush=True)
    arguments = ["task=digits", "model=stacked_bi_rnn", f"backend={TRAINED_IN}", f"hydra.run.dir={folder}"]
    if status := train(arguments):
        return status
    try:
        return _compare(folder)
    except RnnZooError as error:
        print(f"rnnzoo: {error}", file=sys.stderr)
        return 1


def _compare(folder: Path) -> int:
    checkpoint = folder / "model.safetensors"
    for name in FILES:
        convert(checkpoint, folder / name)
        print(f"Converted to {folder / name}, and proven by running both sides.", flush=True)
    known = Expected(read(checkpoint))
    rows = []
    for name in FILES:
        print(f"Evaluating {name} in {format_of(Path(name)).backend} ...", flush=True)
        rows.append(_row(folder / name, known))
    same = all(np.array_equal(row.predictions, rows[0].predictions) for row in rows)
    print("\n" + _text(rows))
    verdict = "agree on every one" if same else "DISAGREE on some"
    print(f"\nThe three frameworks {verdict} of {len(rows[0].predictions)} test predictions.")
    return 0 if same and all(row.agrees for row in rows) else 1


class Expected:
    """What the oracle says of a trained model: results on all test rows, gradients on a few, and their bounds.

    The results are computed in float64, whose own error is a millionth of a float32 bound; the gradients at 40 digits.
    """

    def __init__(self, contents: Contents) -> None:
        spec, weights, dtype = contents.spec, contents.weights, weights_dtype(contents.weights)
        self.inputs: Array = Digits().test.inputs.astype(dtype)
        every = results(spec, weights, checked_inputs(spec, dtype, self.inputs))
        self.results, self.results_bounds = truth(every, numbers.float64()), bounds(every, dtype)
        shape = (ROWS, *self.results["scores"].nearest.shape[1:])
        self.cotangents = Cotangents(None, None, (2.0 * draws.uniform(0, "demo", ROWS * shape[1]) - 1.0).reshape(shape))
        few = gradients(spec, weights, checked_inputs(spec, dtype, self.inputs[:ROWS]), self.cotangents)
        self.gradients, self.gradients_bounds = truth(few), bounds(few, dtype)


def _row(path: Path, known: Expected) -> Row:
    form, contents = format_of(path), read(path)
    backend = load_backend(form.backend)
    model = backend.build(contents.spec, dtype=weights_dtype(contents.weights))
    backend.from_spec(model, contents.weights)
    found = backend.run(model, known.inputs).arrays()
    slopes = backend.gradients(model, known.inputs[:ROWS], scores_cotangent=known.cotangents.scores)
    evaluation = evaluate(contents, form.backend)
    return Row(
        form.backend,
        evaluation.value,
        _worst(compared(found, known.results, known.results_bounds)),
        _worst(compared(slopes, known.gradients, known.gradients_bounds)),
        evaluation.predictions,
    )


def _worst(comparisons: Iterable[Comparison]) -> Comparison:
    return max(comparisons, key=lambda comparison: comparison.ratio)


def _text(rows: list[Row]) -> str:
    header = (
        "backend",
        "test accuracy",
        "worst difference from the oracle",
        "allowed",
        "in gradients",
        "allowed",
        "verdict",
    )
    return table(header, [
        (r.backend, f"{r.accuracy:.4f}", number(r.results.error), number(r.results.limit), number(r.gradients.error),
         number(r.gradients.limit), "equal" if r.agrees else "DIFFERENT")
        for r in rows
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
