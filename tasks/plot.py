"""`rnnzoo plot RUN...`: curves of runs over each other, and for each run a picture of what its model does."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..spec.backend import load_backend
from ..spec.checkpoint import load
from .evaluate import built
from .pictures.runs import RecordedRun, read_runs
from .run_folder import MODEL
from .task import needed, task_of

CURVES, GRADIENTS, PICTURE = "curves.png", "gradients.png", "picture.png"
PICTURES: Mapping[str, str] = {
    name: f".pictures.{name}"
    for name in ("digits", "char_lm", "forecast", "tagging", "onu_sleep", "captioning", "translate")
}
LONG_RANGE = ("adding", "copy")  # whose picture is of all runs together


def plot(folders: Sequence[Path], output: Path | None = None, backend_name: str = "numpy") -> list[Path]:
    """Write the pictures, and return their paths.

    `picture.png` goes into each run's folder, `curves.png` and, for the long-range problems, `gradients.png` to
    `output`; None for the folder itself where one is given, else the current one.

    Raises:
        FileError: a folder has no run.
        BackendError: matplotlib is not installed.
    """
    from .pictures import curves, gradients, style

    needed("matplotlib", "matplotlib", "plots")
    runs = read_runs(folders)
    where = output or (folders[0] if len(folders) == 1 else Path())
    where.mkdir(parents=True, exist_ok=True)
    written = [style.save(curves.draw(runs), where / CURVES)]
    together = [run for run in runs if run.finished and run.task in LONG_RANGE and not _reads_backward(run)]
    for name in dict.fromkeys(run.task for run in together):
        path = where / (GRADIENTS if len({run.task for run in together}) == 1 else f"{name}_{GRADIENTS}")
        written.append(style.save(gradients.draw([run for run in together if run.task == name], backend_name), path))
    for run in runs:
        if run.finished and run.task in PICTURES:
            written.append(style.save(picture(run, backend_name), run.folder / PICTURE))
    return written


def plot_sweep(folder: Path) -> Path:
    """The curves of a sweep's runs over each other. Raises as `plot`."""
    from .pictures import curves, style

    return style.save(curves.draw(read_runs([folder])), folder / CURVES)


def picture(run: RecordedRun, backend_name: str) -> Any:
    """What the run's model makes of its task's test data, as a figure."""
    contents = load(run.folder / MODEL)
    task, backend, model = task_of(contents, {}), load_backend(backend_name), built(contents, backend_name)
    drawn = importlib.import_module(PICTURES[run.task], __package__)
    return drawn.draw(task, backend, model, task.evaluate(backend, model))


def _reads_backward(run: RecordedRun) -> bool:
    return load(run.folder / MODEL).spec.num_directions == 2
