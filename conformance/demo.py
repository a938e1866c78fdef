"""`make demo`: train in PyTorch on real data, run in all three frameworks, and hold each against the oracle."""

import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from ..spec.backend import Contents, load_backend
from ..spec.errors import RnnZooError
from ..spec.inputs import Cotangents, Inputs, checked_inputs
from ..tasks.digits import Digits
from ..tasks.evaluate import evaluate
from ..tasks.tables import number, table
from ..tasks.train import main as train
from . import numbers, oracle
from .bounds import allowed, largest_difference, largest_entry
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
    error: float
    bound: float
    gradient_error: float
    gradient_bound: float
    predictions: Array

    @property
    def agrees(self) -> bool:
        return self.error <= self.bound and self.gradient_error <= self.gradient_bound


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
    truth = Truth(read(checkpoint))
    rows = []
    for name in FILES:
        print(f"Evaluating {name} in {format_of(Path(name)).backend} ...", flush=True)
        rows.append(_row(folder / name, truth))
    same = all(np.array_equal(row.predictions, rows[0].predictions) for row in rows)
    print("\n" + _text(rows))
    verdict = "agree on every one" if same else "DISAGREE on some"
    print(f"\nThe three frameworks {verdict} of {len(rows[0].predictions)} test predictions.")
    return 0 if same and all(row.agrees for row in rows) else 1


class Truth:
    """What the oracle says of a trained model: results on all test rows, derivatives on a few.

    The results are computed in float64, whose own error is a millionth of a float32 bound. The derivatives
    are taken at 40 digits along one random direction in each weight, which no wrong gradient survives.
    """

    def __init__(self, contents: Contents) -> None:
        spec, self.dtype = contents.spec, next(iter(contents.weights.values())).dtype.name
        self.inputs: Array = Digits().test.inputs.astype(self.dtype)
        given = checked_inputs(spec, self.dtype, self.inputs)
        self.results = oracle.run(spec, contents.weights, given, numbers.float64())
        few = Inputs(given.inputs[:ROWS], None, None, None)
        self.cotangents = Cotangents(None, None, _random("scores", (ROWS, *self.results["scores"].shape[1:])))
        self.directions = {name: _random(name, array.shape) for name, array in contents.weights.items()}
        model = oracle.Oracle(spec, contents.weights, numbers.decimal(oracle.DIGITS))
        difference = oracle.Difference(model, few, oracle.contraction(self.cotangents))
        self.derivatives = {name: difference.along({name: vector}) for name, vector in self.directions.items()}

    def along(self, gradients: Mapping[str, Array]) -> dict[str, float]:
        """A backend's gradients along the same directions."""
        return {name: float(np.vdot(gradients[name].astype(np.float64), v)) for name, v in self.directions.items()}


def _row(path: Path, truth: Truth) -> Row:
    form, contents = format_of(path), read(path)
    backend, model = load_backend(form.backend), form.model(contents)
    result = backend.run(model, truth.inputs)
    errors = [largest_difference(result.arrays()[name], wanted) for name, wanted in truth.results.items()]
    bounds = [allowed(truth.dtype, largest_entry(wanted)) for wanted in truth.results.values()]
    worst = int(np.argmax(np.divide(errors, bounds)))
    gradients = backend.gradients(model, truth.inputs[:ROWS], scores_cotangent=truth.cotangents.scores)
    along = truth.along(gradients)
    gaps = {name: abs(along[name] - wanted) for name, wanted in truth.derivatives.items()}
    limits = {
        name: allowed(truth.dtype, float(np.abs(gradients[name] * v).sum())) for name, v in truth.directions.items()
    }
    name = max(gaps, key=lambda key: gaps[key] / limits[key])
    evaluation = evaluate(contents, form.backend)
    return Row(
        form.backend, evaluation.value, errors[worst], bounds[worst], gaps[name], limits[name], evaluation.predictions
    )


def _random(name: str, shape: tuple[int, ...]) -> Array:
    return (2.0 * draws.uniform(0, f"demo {name}", int(np.prod(shape))) - 1.0).reshape(shape)


def _text(rows: list[Row]) -> str:
    header = (
        "backend",
        "test accuracy",
        "largest difference from the oracle",
        "allowed",
        "in gradients",
        "allowed",
        "verdict",
    )
    return table(header, [
        (r.backend, f"{r.accuracy:.4f}", number(r.error), number(r.bound), number(r.gradient_error),
         number(r.gradient_bound), "equal" if r.agrees else "DIFFERENT")
        for r in rows
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
