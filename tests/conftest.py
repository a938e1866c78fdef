"""What several test files need: the files of the checkout, fresh Python processes, the truth and its bounds, and a
cell that no release has."""

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.conformance.bounds import Quantities, bounds, results, truth
from rnnzoo.conformance.comparison import compared
from rnnzoo.conformance.training import TrainingCase, quantities
from rnnzoo.spec import definitions, load_backend
from rnnzoo.spec.inputs import checked_inputs
from rnnzoo.spec.parameters import weights_dtype

ROOT = Path(__file__).parents[1]
TOY = Path(__file__).parent / "toy_cell"


@pytest.fixture(autouse=True)
def absl_leaves_the_captured_output_open() -> None:
    """Hydra shuts handlers of logging down; absl's, as old as TensorFlow's import, would close the file of pytest."""
    if "absl.logging" in sys.modules:
        sys.modules["absl.logging"].get_absl_handler().python_handler.stream = sys.__stderr__


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


@pytest.fixture(scope="session")
def assert_right() -> Callable[..., None]:
    """`assert_right(found, quantities, dtype)`: arrays of that dtype are as near to their truth as rounding lets them.

    They are some of the quantities, by name. Where rounding alone can be as large as an array, it is not right either.
    """

    def check(found: Mapping[str, Any], quantities: Quantities, dtype: str = "float64") -> None:
        expected = {name: wanted for name, wanted in truth(quantities).items() if name in found}
        for comparison in compared(found, expected, bounds(quantities, dtype), dtype):
            assert comparison.ratio <= 1 and comparison.decidable, comparison.description()

    return check


@pytest.fixture(scope="session")
def assert_run(assert_right: Callable[..., None]) -> Callable[..., None]:
    """`assert_run(found, model, inputs, ...)`: the same for what a run of a model gives."""

    def check(found: Mapping[str, Any], model: Any, inputs: Any, **arguments: Any) -> None:
        weights = load_backend(model.backend_name).to_spec(model)
        dtype = weights_dtype(weights)
        given = checked_inputs(model.spec, dtype, inputs, **arguments)
        assert_right(found, results(model.spec, weights, given), dtype)

    return check


@pytest.fixture(scope="session")
def assert_relay(assert_right: Callable[..., None]) -> Callable[..., None]:
    """`assert_relay(case, names)`: backends that take a training over from one another, a batch each, train right."""

    def check(case: TrainingCase, names: Sequence[str]) -> None:
        weights, state, steps = case.case.weights, None, []
        for name, batch in zip(names, case.batches(), strict=True):
            backend = load_backend(name)
            model = backend.build(case.case.spec, dtype="float64")
            backend.from_spec(model, weights)
            trainer = backend.trainer(model, case.training)
            if state is not None:
                trainer.load_state(state)
            steps.append(trainer.step(batch))
            weights, state = backend.to_spec(model), trainer.state()
        losses, norms = np.array(steps).T
        kept = {name: np.asarray(array, np.float64) for name, array in state.items()}  # of integers there is `step`
        assert_right({"loss": losses, "gradient norm": norms, **weights, **kept}, lambda ops: quantities(case, ops))

    return check


@pytest.fixture(scope="session")
def log_softmax() -> Callable[[Exact, np.ndarray], np.ndarray]:
    """`log_softmax(ops, scores)`: ln softmax over the last axis of scores (S, N, V)."""

    def computed(ops: Exact, scores: np.ndarray) -> np.ndarray:
        shifted = ops.add(scores, -scores[:1].max(axis=2, keepdims=True))
        return ops.add(shifted, -ops.function("log", ops.sum(ops.function("exp", shifted), 2)))

    return computed


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


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are taken apart here and not in a child process each, which costs a third of a second."""

    def examined(function: str, path: Path, **arguments: object) -> object:
        module, _, name = function.partition(":")
        return json.loads(json.dumps(getattr(importlib.import_module(module), name)(path.absolute(), **arguments)))

    for name in ("spec.npz", "torch_impl.files", "tf_impl.files", "conformance.onnx_format.files"):
        monkeypatch.setattr(importlib.import_module(f"rnnzoo.{name}"), "examined", examined)
