"""Every command and example of the README, run as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from rnnzoo.conformance.declared import declaration
from rnnzoo.conformance.items import items
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.pair_cases import AnyCase
from rnnzoo.conformance.training import TrainingCase
from rnnzoo.conformance.trajectories import Trajectory

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
COMMANDS = [
    line.partition("  #")[0].strip() for language, text in BLOCKS if language == "sh" for line in text.splitlines()
]
RNNZOO = [command for command in COMMANDS if command.startswith("rnnzoo ")]
TINY = {"train": "trainer.steps=2 model.hidden_size=5"}  # appended, so that a command takes seconds
BACKEND = """
from rnnzoo.numpy_impl.backend import NumpyBackend
OBJECT = NumpyBackend()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's commands refer to: a trained model, a text, somebody's backend."""
    made = tmp_path_factory.mktemp("reader")
    (made / "FILE").write_text("".join(f"{n} times {n} is {n * n}.\n" for n in range(400)))
    (made / "package").mkdir()
    (made / "package" / "__init__.py").touch()
    (made / "package" / "module.py").write_text(BACKEND)
    (made / "conformance").symlink_to(ROOT / "conformance")
    _run(made, "rnnzoo train task=digits model=simple_rnn backend=numpy trainer.steps=2 hydra.run.dir=made")
    shutil.copy(made / "made" / "model.safetensors", made)
    theirs = {"encoder": torch.nn.RNN(5, 6, 2, bidirectional=True), "decoder": torch.nn.RNN(6, 4)}
    torch.save({"epoch": 3, "model": torch.nn.ModuleDict(theirs).state_dict()}, made / "checkpoint.pt")
    return made


def _run(folder: Path, command: str) -> str:
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    run = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
    return run.stdout


@pytest.mark.parametrize("command", [command for command in RNNZOO if command.split()[1] != "check"])
def test_a_command_of_the_readme_runs(command: str, folder: Path):
    options = TINY.get(command.split()[1], "")
    if "resume=FOLDER" in command:
        shutil.copytree(folder / "made", folder / "FOLDER", dirs_exist_ok=True)
        (folder / "FOLDER" / "model.safetensors").unlink()  # as a run that was killed leaves it
        options = "trainer.steps=3"
    assert _run(folder, f"{command} {options}").strip()


@pytest.mark.parametrize("command", [command for command in RNNZOO if command.split()[1] == "check"])
def test_a_check_of_the_readme_runs(command: str, folder: Path):
    quick = " --quick --backend numpy" if command == "rnnzoo check" else " --quick"
    if "--quick" in command or "--teeth" in command:
        quick = ""
    found = _run(folder, command + quick)
    done = r"^\d{3} caught, 0 missed" if "--teeth" in command else r"^\d+ passed(, \d+ skipped)?; of "
    assert re.search(done, found, re.M), found


@pytest.mark.parametrize("text", [t for language, t in BLOCKS if language == "python" and '"parallel.' not in t])
def test_an_example_of_the_readme_runs(text: str, folder: Path):
    """But for those that train on several devices: tests/test_data_parallel.py runs them, and looks at the result."""
    (folder / "example.py").write_text(text)
    _run(folder, f"{sys.executable} -P example.py")


def test_the_backend_of_the_readme_passes_all_that_it_supports():
    (text,) = (t for language, t in BLOCKS if language == "python" and "StatelessBackend" in t)
    exec(text, made := {"__name__": "theirs"})
    quick = items(quick=True)
    more = declaration(made["OBJECT"], quick, items(), quick=True).further
    verdicts = Counter(run(made["OBJECT"], one).verdict for one in [*quick, *more])
    assert set(verdicts) == {"passed", "skipped"} and verdicts["passed"] >= 5


def test_the_commands_in_the_prose_run(folder: Path):
    prose = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M | re.S)
    inline = set(re.findall(r"`(rnnzoo [^`]+)`", prose))
    of_files = {"rnnzoo evaluate FILE --backend numpy", "rnnzoo sample FILE"}
    benchmarks = {"rnnzoo bench", "rnnzoo bench --device cuda"}  # takes minutes: test_bench.py
    assert inline == {*of_files, *benchmarks, "rnnzoo check --backend"}
    _run(folder, "rnnzoo evaluate model.safetensors --backend numpy")
    _run(
        folder,
        "rnnzoo train task=char_lm task.text=FILE backend=numpy trainer.steps=2 model.hidden_size=5 hydra.run.dir=lm",
    )
    _run(folder, "rnnzoo sample lm/model.safetensors")
    _run(folder, 'eval "$(rnnzoo train -sc install=bash)"')


def test_the_readme_counts_what_is_checked():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = [item.case for item in items() if item.check in ("results", "training", "trajectory")]
    models = {case.name for case in table if isinstance(case, AnyCase)}  # a precision has numbers of its own bits
    runs, short = [{case.name for case in table if isinstance(case, kind)} for kind in (Trajectory, TrainingCase)]
    assert (
        f"the three backends, {len(models)} models in two precisions, {len(runs | short)} training runs (most in two)"
        in text
    )
    assert f"{len(short)} of the training runs have three updates each" in text


def test_the_make_targets_of_the_readme_exist():
    targets = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    targets |= set(re.findall(r"`make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {"demo", "test"} <= targets <= known


def test_the_demonstration_ends_with_three_equal_frameworks(tmp_path: Path):
    """What `make demo` runs once `.venv` stands."""
    text = _run(tmp_path, f"{sys.executable} -P -m rnnzoo.conformance.demo")
    rows = re.findall(r"^(\w+) +(0\.\d+) .* equal$", text, re.M)
    assert [name for name, _ in rows] == ["torch", "tf", "numpy"] and all(float(value) >= 0.97 for _, value in rows)
    assert "The three frameworks agree on every one of 359 test predictions." in text
    (folder,) = (tmp_path / "runs" / "demo").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "model.safetensors", "model.keras", "model.npz"} <= names
