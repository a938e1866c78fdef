"""Imports TensorFlow and Keras, before all other modules: the right backend of Keras, and without log lines.

TensorFlow writes lines about oneDNN and missing GPUs to file descriptor 2 while its libraries are loaded, whatever
TF_CPP_MIN_LOG_LEVEL says (measured on 2.21). They are held back here, unless it is 0.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ..spec.errors import BackendError

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def check_keras_backend(name: str) -> None:
    """Raises BackendError unless Keras computes with TensorFlow."""
    if name != "tensorflow":
        raise BackendError(
            f"backend 'tf': expected Keras to run on tensorflow, got {name!r}; "
            "set KERAS_BACKEND=tensorflow in the environment before the first import of keras"
        )


def _is_loading_note(line: bytes) -> bool:
    return line.startswith((b"I0000 ", b"WARNING: All log messages before absl::InitializeLog()"))


@contextmanager
def _without_loading_notes() -> Iterator[None]:
    """Holds back what is written to file descriptor 2, and passes on all of it but notes."""
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not _is_loading_note(line):
                    os.write(2, line)


def _import() -> None:
    import keras
    import tensorflow  # noqa: F401

    check_keras_backend(keras.config.backend())


def _import_quietly() -> None:
    check_keras_backend(os.environ.get("KERAS_BACKEND") or "tensorflow")
    os.environ[LOG_LEVEL] = os.environ.get(LOG_LEVEL) or "3"  # at 2 there is still an error for want of a GPU
    if "tensorflow" in sys.modules or os.environ[LOG_LEVEL] == "0" or sys.stderr is None:
        return _import()
    with _without_loading_notes():
        return _import()


_import_quietly()
