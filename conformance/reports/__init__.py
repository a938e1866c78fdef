"""Reports of a run of the suite: data for programs, test results for continuous integration, a page for people."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...spec.checkpoint import write_atomically
from ...spec.errors import FileError
from .data import json_text
from .junit import junit_text
from .page import page_text

FILES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "report.json": json_text,
    "junit.xml": junit_text,
    "index.html": page_text,
}


def write(folder: Path, data: Mapping[str, Any]) -> list[Path]:
    """Write `report.json`, `junit.xml` and `index.html`, each whole or not at all; returns their paths.

    Args:
        folder: where they go; made, with its parents, where it is missing.
        data: what `report.schema.json` describes; a float that JSON has no number for is written by its name.

    Raises:
        FileError: the folder cannot be made, or a file in it cannot be written.
    """
    texts = {name: text(data) for name, text in FILES.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"{folder}: cannot be made for the report: {error.strerror or error}; name a folder that can be written to"
        ) from error
    for name, text in texts.items():
        write_atomically(folder / name, partial(_write_text, text))
    return [folder / name for name in texts]


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, "utf-8", newline="\n")
