"""The whole table of cases against each of our backends; the suite as an outsider uses it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rnnzoo.conformance import conformance_tests, expected
from rnnzoo.conformance.checks import meaningful
from rnnzoo.conformance.items import items
from rnnzoo.spec.errors import BackendError


@pytest.fixture(scope="module", autouse=True)
def once_for_all_backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What one backend was held against is kept for the others."""
    expected.share(tmp_path_factory.mktemp("expected"))
    yield
    expected.share(None)


test_numpy = conformance_tests("numpy")
test_torch = conformance_tests("torch")
test_tf = conformance_tests("tf")


def test_every_trajectory_can_be_judged_to_its_end():
    long_runs = [one for one in items() if one.check == "trajectory" and one.dtype == "float64"]
    found = {one.name: meaningful(*expected.truth_and_bounds("trajectory", one.case, one.dtype)) for one in long_runs}
    assert set(found.values()) == {50}


OUTSIDER = '''
from rnnzoo.spec import load_backend

class Outsider:
    """Only what is required: no gradients, no trainer, no mask."""
    name = "outsider"
    takes = ("lengths", "initial_state")
    def __init__(self):
        self._inner = load_backend("numpy")
    def supports(self, spec):
        return "no sigmoid here" if spec.nonlinearity == "sigmoid" else None
    def build(self, spec, seed=0, dtype="float32"):
        return self._inner.build(spec, seed, dtype)
    def run(self, model, inputs, lengths=None, initial_state=None, *, mask=None, context=None):
        return self._inner.run(model, inputs, lengths, initial_state, context=context)
    def to_spec(self, model):
        return self._inner.to_spec(model)
    def from_spec(self, model, weights, *, cast=False):
        self._inner.from_spec(model, weights, cast=cast)

class Broken(Outsider):
    """Ignores the initial state."""
    def run(self, model, inputs, lengths=None, initial_state=None, *, mask=None, context=None):
        return self._inner.run(model, inputs, lengths, context=context)

OBJECT, BROKEN = Outsider(), Broken()
'''
TESTS = """
from rnnzoo.conformance import conformance_tests
test_rnn = conformance_tests("outsider.backend:{name}", quick=True)
"""


def _project(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    package = folder / "outsider"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "backend.py").write_text(OUTSIDER)
    (folder / "test_theirs.py").write_text(TESTS.format(name=name))
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "test_theirs.py"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**_environment(), "PYTHONPATH": "."}
    )


def _environment() -> dict[str, str]:

    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}


def test_an_outsiders_backend_is_checked_in_its_own_test_file(tmp_path: Path) -> None:
    run = _project(tmp_path, "OBJECT")
    assert run.returncode == 0, run.stdout
    assert "no sigmoid here" in run.stdout and "outsider has no gradients" in run.stdout
    assert "outsider takes no mask" in run.stdout and " passed" in run.stdout


def test_an_outsiders_mistake_turns_its_test_file_red(tmp_path: Path) -> None:
    run = _project(tmp_path, "BROKEN")
    assert run.returncode == 1 and "ConformanceError" in run.stdout and "final_state.h at [" in run.stdout


def test_names_are_those_of_the_command_and_what_cannot_run_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(conformance_tests("torch.nn.RNN", quick=True))
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    with pytest.raises(BackendError, match=r"'flax': expected .* JAX_ENABLE_X64=1 .*: rnnzoo check --backend flax"):
        conformance_tests("flax")
    with pytest.raises(BackendError, match="unknown backend 'nobody'"):
        conformance_tests("nobody")
