"""`rnnzoo train -m`: every launcher, the search of a sweeper, and what the command says in the end."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from rnnzoo.tasks.outcomes import Jobs
from rnnzoo.tasks.task import TASKS, goal_of, load_task
from rnnzoo.tasks.train import main

SHORT = ["backend=numpy", "model.hidden_size=4", "trainer.steps=2", "hydra.sweep.dir=all"]
VARIANTS = ["simple_rnn", "bi_rnn", "stacked_rnn", "stacked_bi_rnn"]
FRAMEWORKS = {"numpy": "numpy", "torch": "torch", "tf": "tensorflow"}
LAUNCHERS = {
    "basic": ([], "hydra"),
    "joblib": (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "hydra_plugins.hydra_joblib_launcher"),
    "submitit": (["hydra/launcher=submitit_local"], "hydra_plugins.hydra_submitit_launcher"),
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And new processes for joblib, as its own keep the folder that they began in."""
    monkeypatch.chdir(tmp_path)
    if "joblib" in sys.modules:
        importlib.import_module("joblib.externals.loky").get_reusable_executor().shutdown()


def launched(name: str) -> list[str]:
    options, module = LAUNCHERS[name]
    try:
        importlib.import_module(module)
    except ImportError:
        pytest.skip(f"{module} is not installed")
    return options


def rows_of(out: str) -> list[list[str]]:
    """The cells of the table that ends the output."""
    _, _, after = out.partition("task  ")
    return [line.split() for line in after.splitlines()[2:] if line.startswith(tuple(TASKS)) and ": " not in line]


def all_twelve(options: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """Every model with every backend: a table in the order of the sweep, a checkpoint each."""
    for framework in FRAMEWORKS.values():
        pytest.importorskip(framework)
    assert main(["-m", *SHORT[1:], f"backend={','.join(FRAMEWORKS)}", f"model={','.join(VARIANTS)}", *options]) == 0
    found = rows_of(capfd.readouterr().out)
    assert [row[:3] for row in found] == [["digits", variant, name] for name in FRAMEWORKS for variant in VARIANTS]
    assert [Path(row[-1]).name for row in found] == [str(number) for number in range(12)]
    assert len(list(Path("all").glob("*/model.safetensors"))) == 12


def test_all_twelve_pairs_end_in_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    all_twelve([], capfd)


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["joblib", "submitit"])
def test_all_twelve_pairs_end_in_a_table_with_every_launcher(launcher: str, capfd: pytest.CaptureFixture[str]) -> None:
    all_twelve(launched(launcher), capfd)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_goes_on_after_a_job_that_is_refused_and_says_so(
    launcher: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = launched(launcher)
    assert main(["-m", *SHORT, "task=char_lm", "model=bi_rnn,simple_rnn", *options]) == 2
    out = capfd.readouterr()
    assert (Path("all/1/model.safetensors").exists(), Path("all/0/model.safetensors").exists()) == (True, False)
    lines = out.err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("rnnzoo train: ") and lines[0].endswith("model=bi_rnn")
    assert "reads backward" in lines[1]
    (row,) = [json.loads(path.read_text()) for path in Path("all").glob("1/outcome.json")]
    assert row["summary"]["variant"] == "simple_rnn" and row["error"] is None


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_the_status_tells_a_loss_that_diverged_from_bad_input(launcher: str, capfd: pytest.CaptureFixture[str]) -> None:
    wild = ["model=simple_rnn", "model.nonlinearity=identity", "trainer.clip=null", "trainer.steps=50", "optimizer=sgd"]
    options = [*SHORT, *wild, "optimizer.learning_rate=0.001,1000000000", *launched(launcher)]
    assert main(["-m", *options]) == 1
    err = capfd.readouterr().err
    assert "learning_rate=1000000000" in err and "expected finite numbers" in err and "Traceback" not in err


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_mistake_of_ours_in_a_job_shows_its_traceback(launcher: str, tmp_path: Path) -> None:
    """In a process of its own, as the mistake must be in the jobs' processes too."""
    options = launched(launcher)
    (tmp_path / "mistaken.py").write_text(
        "from rnnzoo.numpy_impl.backend import NumpyBackend\n"
        "class Mistaken(NumpyBackend):\n    def trainer(self, *_):\n        raise ValueError('of ours')\n"
        "OBJECT = Mistaken()\n"
    )
    arguments = ["-m", *SHORT[1:], "backend=mistaken:OBJECT", "trainer.seed=0,1", *options]
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; from rnnzoo.tasks.train import main; sys.exit(main({arguments}))"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" in done.stderr and "ValueError: of ours" in done.stderr


def test_what_an_earlier_sweep_left_is_not_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *SHORT, "trainer.seed=0,1,2"]) == 0
    assert main(["-m", *SHORT, "trainer.seed=0,1", "hydra.sweep.subdir=again${hydra.job.num}"]) == 0
    out = capsys.readouterr().out.split("\n\n")
    assert [len(rows_of(table)) for table in out if "----" in table] == [3, 2]
    assert main([*SHORT, "hydra.run.dir=one"]) == 0
    assert Jobs.sweep is None and not Path("one/outcome.json").exists()


def test_a_search_finds_the_best_value_in_the_direction_of_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    options = [*SHORT, "sweep=optuna", "hydra.sweeper.n_trials=3", "trainer.steps=20", "model=simple_rnn"]
    assert main(["-m", *options]) == 0
    values = [json.loads(path.read_text())["summary"]["value"] for path in Path("all").glob("*/outcome.json")]
    best = yaml.safe_load(Path("all/optimization_results.yaml").read_text())
    assert len(values) == 3 and best["best_value"] == max(values) > min(values)
    assert len(rows_of(capsys.readouterr().out)) == 3


def test_the_goal_of_every_task_is_that_a_model_beats_its_baseline() -> None:
    assert {name: goal_of(name) for name in TASKS} == {
        "digits": "maximize", "char_lm": "minimize", "adding": "minimize", "copy": "minimize", "forecast": "minimize",
        "tagging": "maximize", "onu_sleep": "minimize", "captioning": "maximize", "translate": "maximize",
    }  # fmt: skip
    assert all(load_task({"name": name}).goal == goal_of(name) for name in ("adding", "digits"))


def test_the_slurm_example_is_a_launcher_with_the_limits_that_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    launched("submitit")
    assert (
        main(["hydra/launcher=slurm", "hydra.launcher.partition=long", "--cfg", "hydra", "-p", "hydra.launcher"]) == 0
    )
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["_target_"].endswith("SlurmLauncher")
    assert (found["partition"], found["cpus_per_task"], found["timeout_min"]) == ("long", 2, 60)


@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [
        ("hydra/launcher=joblib", "hydra_joblib_launcher", "joblib"),
        ("hydra/launcher=slurm", "hydra_submitit_launcher", "submitit"),
        ("sweep=optuna", "hydra_optuna_sweeper", "optuna"),
    ],
)
def test_a_launcher_that_is_not_installed_is_named_with_its_extra(
    option: str, package: str, extra: str, fresh_python: Callable[..., CompletedProcess[str]]
) -> None:
    """Hydra looks for its plugins in the folders of a package, which here leaves one out."""
    done = fresh_python(
        "import pkgutil, sys\n"
        "walk = pkgutil.walk_packages\n"
        f"pkgutil.walk_packages = lambda *a, **k: (found for found in walk(*a, **k) if '{package}' not in found.name)\n"
        f"from rnnzoo.tasks.train import main; sys.exit(main(['-m', '{option}', *{SHORT}]))"
    )
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert f"pip install 'rnnzoo[{extra}]'" in done.stderr and "Traceback" not in done.stderr
