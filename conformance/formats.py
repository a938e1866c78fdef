"""Model files of all formats, by suffix: the canonical file, and each backend's own."""

from pathlib import Path
from typing import Any, NamedTuple

from ..spec import checkpoint
from ..spec.backend import BUILT_IN, Contents, load_backend
from ..spec.errors import FileError, WeightError
from ..spec.model import ModelSpec

REFERENCE = "numpy"  # the backend that runs what the canonical file holds


class Format(NamedTuple):
    """A suffix and the backend that reads, writes and runs such files; the canonical file has `files` None."""

    suffix: str
    backend: str
    canonical: bool = False

    def read(self, path: Path, spec: ModelSpec | None = None) -> Contents:
        """The file's contents. Raises FileError, WeightError or BackendError."""
        if self.canonical:
            return checkpoint.load(path, spec)
        contents: Contents = load_backend(self.backend).files.read(path, spec)
        return contents

    def write(self, path: Path, contents: Contents) -> None:
        """Write the file; `path` is a temporary name with the suffix of the real one."""
        if self.canonical:
            path.write_bytes(checkpoint.to_bytes(contents))
        else:
            load_backend(self.backend).files.write(path, contents)

    def model(self, contents: Contents) -> Any:
        """The contents as a model of the format's own framework."""
        backend = load_backend(self.backend)
        dtype = next(iter(contents.weights.values())).dtype.name
        model = backend.build(contents.spec, dtype=dtype)
        backend.from_spec(model, contents.weights)
        return model


FORMATS = (
    *(Format(suffix, name) for name, row in BUILT_IN.items() for suffix in row.suffixes),
    Format(checkpoint.SUFFIX, REFERENCE, canonical=True),
)


def format_of(path: Path) -> Format:
    """The format that a file of this name is written in: of the longest suffix that fits. Raises FileError."""
    fitting = [row for row in FORMATS if path.name.endswith(row.suffix)]
    if not fitting:
        known = ", ".join(sorted(row.suffix for row in FORMATS))
        raise FileError(f"{path}: the suffix is of no known format; expected one of {known}")
    return max(fitting, key=lambda row: len(row.suffix))


def format_in(path: Path) -> Format:
    """The format of an existing file: as its suffix says, but a `.safetensors` may hold a framework's own names.

    Raises:
        FileError: the file cannot be read, or its suffix is of no known format.
    """
    checkpoint.check_readable(path)
    found = format_of(path)
    if not found.canonical or checkpoint.is_canonical(path):
        return found
    return next(row for row in FORMATS if row.suffix.endswith(found.suffix) and not row.canonical)


def read(path: Path, spec: ModelSpec | None = None) -> Contents:
    """The contents of a model file of any format. Raises FileError, WeightError or BackendError."""
    try:
        return format_in(path).read(path, spec)
    except WeightError as error:
        raise error if str(error).startswith(f"{path}") else WeightError(f"{path}: {error}") from error


def read_spec(path: Path | None) -> ModelSpec | None:
    """A spec in YAML or JSON. Raises FileError or SpecError."""
    if path is None:
        return None
    checkpoint.check_readable(path)
    try:
        return ModelSpec.from_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: expected a spec in YAML or JSON, got bytes that are not text") from error
