"""What several test files need: the files of the checkout, fresh Python processes, and a cell that no release has."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rnnzoo.spec import definitions

ROOT = Path(__file__).parents[1]
TOY = Path(__file__).parent / "toy_cell"


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def source_files() -> list[Path]:
    """Every file of the checkout that is tracked, or new and not ignored, relative to it."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    found = sorted({Path(os.fsdecode(name)) for name in listing.stdout.split(b"\0") if name})
    return [path for path in found if (ROOT / path).is_file()]


@pytest.fixture
def fresh_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`fresh_python(code, **environment)` runs code in a new process in an empty folder."""
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-c", code],
            cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return run


@pytest.fixture
def toy_cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Makes `cell="toy"` known to the spec: two gates, two states, a peephole, a product after the reset.

    `toy_cell("numpy_impl")` gives that implementation `tests/toy_cell/numpy_impl.py` as its `cells/toy.py`.
    """
    folder = tmp_path / "definitions"
    for kind in ("variants", "cells"):
        shutil.copytree(definitions.FOLDER / kind, folder / kind)
    shutil.copy(TOY / "toy.yaml", folder / "cells")
    monkeypatch.setattr(definitions, "FOLDER", folder)

    def inject(package: str) -> None:
        name = f"rnnzoo.{package}.cells.toy"
        found = importlib.util.spec_from_file_location(name, TOY / f"{package}.py")
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        monkeypatch.setitem(sys.modules, name, module)

    yield inject
    definitions.load_cell.cache_clear()
