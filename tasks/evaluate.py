"""A checkpoint on the test data of the task it was trained on, in any backend."""

from typing import Any

from ..spec.backend import Contents, load_backend, unsupported
from ..spec.errors import UnsupportedError
from ..spec.parameters import weights_dtype
from .task import Evaluation, task_of


def evaluate(contents: Contents, backend_name: str, **overrides: Any) -> Evaluation:
    """Rebuild the test data that the provenance names, and run the weights on them in that backend.

    Args:
        contents: of a file that `rnnzoo train` wrote, or that was converted from one.
        backend_name: as for `load_backend`.
        overrides: `text=PATH` (char_lm) or `data=PATH` (digits, forecast) for data that lie elsewhere, or for others;
            these are then taken as they are, unless `sha256=HEX` says what they must be.

    Raises:
        FileError: the file names no task, or the data are missing or have changed since.
        SpecError: there is no such override.
        RnnZooError: the backend cannot be used, or other data do not fit the model.
    """
    task = task_of(contents, overrides)
    return task.evaluate(load_backend(backend_name), built(contents, backend_name))


def built(contents: Contents, backend_name: str) -> Any:
    """The file's model in that backend. Raises BackendError, UnsupportedError or WeightError."""
    backend = load_backend(backend_name)
    if reason := unsupported(backend, contents.spec):
        raise UnsupportedError(f"backend {backend_name!r}: {reason}")
    model = backend.build(contents.spec, seed=0, dtype=weights_dtype(contents.weights))
    backend.from_spec(model, contents.weights)
    return model
