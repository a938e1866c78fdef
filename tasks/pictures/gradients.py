"""How far back in time a gradient reaches: its norm against the distance to the error, before and after training."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...spec.backend import load_backend
from ...spec.checkpoint import load
from ...spec.training import Batch, CrossEntropy
from ..drawn import rows_of
from ..run_folder import MODEL
from ..task import Array, log_softmax, task_of
from .curves import draw_metric, metric_of
from .runs import RecordedRun, labels
from .style import GREY, axes, figure, line, words

ROWS, DISTANCES = 100, 20


def draw(runs: Sequence[RecordedRun], backend_name: str) -> Any:
    """Left the gradient over time, dashed at the start; in the middle its norm in training; right the metric."""
    made = figure(14, 4.6, f"{runs[0].task}: how far back a gradient reaches")
    left, middle, right = made.subplots(1, 3)
    axes(left, "steps before the error", "norm of ∂loss/∂state", "dashed: initial weights, solid: trained")
    axes(middle, "update", "norm of the gradient (before clipping)", "in training")
    axes(right, "update", words(metric_of(runs[0])), "on the test data")
    for number, (run, label) in enumerate(zip(runs, labels(runs), strict=True)):
        colour = line(number)["color"]
        for trained, dashes in ((False, "--"), (True, "-")):
            left.plot(
                *reach(run, backend_name, trained), color=colour, linestyle=dashes, label=label if trained else ""
            )
        middle.plot(*run.numbers("update", "gradient_norm"), color=colour, linewidth=0.5)
        draw_metric(right, run, color=colour)
        baseline = next(found["baseline"] for found in run.lines if "baseline" in found)
    for place in (left, middle):
        place.set_yscale("log")
    right.axhline(baseline, color=GREY, linewidth=1)
    right.annotate("baseline", (1, baseline), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    made.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return made


def reach(run: RecordedRun, backend_name: str, trained: bool) -> tuple[Array, Array]:
    """Distances in steps, and at each the root mean square over rows of the norm of d loss / d state.

    The loss is that of the last step of each row. The state at a distance is what a run of the steps before it ends
    in, and the gradient with respect to it is that of the initial state of a run of the others.
    """
    contents = load(run.folder / MODEL)
    backend, task = load_backend(backend_name), task_of(contents, {})
    model = backend.build(contents.spec, seed=run.config["trainer"]["seed"], dtype="float64")
    if trained:
        backend.from_spec(model, {name: array.astype(np.float64) for name, array in contents.weights.items()})
    rows = rows_of(task.test, slice(ROWS))  # type: ignore[attr-defined]  # of a task whose examples are drawn
    steps = rows.inputs.shape[1]
    distances = np.unique(np.geomspace(1, steps - 1, DISTANCES).astype(np.int64))
    norms = [_norm(backend, model, task.loss, rows, int(steps - distance)) for distance in distances]
    return distances, np.array(norms)


def _norm(backend: Any, model: Any, loss: Any, rows: Batch, split: int) -> float:
    state = backend.run(model, rows.inputs[:, :split]).final_states
    scores = backend.run(model, rows.inputs[:, split:], initial_state=state).scores
    cotangent = np.zeros_like(scores)
    last = (slice(None), -1) if scores.ndim == 3 else slice(None)
    cotangent[last] = _error(loss, scores[last], rows.targets[last])
    found = backend.gradients(model, rows.inputs[:, split:], scores_cotangent=cotangent, initial_state=state)
    return float(np.sqrt(np.mean((found["initial_state"] ** 2).sum(axis=(0, 2)))))


def _error(loss: Any, scores: Array, targets: Array) -> Array:
    """d loss / d scores of each row, (N, O)."""
    if isinstance(loss, CrossEntropy):
        errors = np.exp(log_softmax(scores))
        errors[np.arange(len(errors)), targets] -= 1.0
        return errors
    return 2 * (scores - targets)
