"""`rnnzoo plot`: what is drawn, that it is a picture with ink in it, and that numbers in it are the run's own."""

import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from rnnzoo.conformance.cli import main as rnnzoo
from rnnzoo.spec import load, load_backend
from rnnzoo.spec.errors import BackendError, FileError
from rnnzoo.tasks.pictures import gradients
from rnnzoo.tasks.pictures.runs import labels, read_runs
from rnnzoo.tasks.plot import PICTURES, plot
from rnnzoo.tasks.task import TASKS, task_of
from rnnzoo.tasks.train import main

pytest.importorskip("matplotlib")
SHORT = ["backend=numpy", "model.hidden_size=5", "trainer.steps=4", "trainer.evaluate_every=2"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def is_picture(path: Path) -> bool:
    """A PNG of many colours, of which white is not all."""
    from matplotlib.image import imread

    pixels = imread(path)
    return bool(pixels.std() > 0.02 and len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50)


@pytest.mark.parametrize("task", ["digits", "tagging", "forecast", "captioning"])
def test_a_run_gets_curves_and_a_picture_of_its_task(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, f"task={task}", "hydra.run.dir=run"]) == 0
    capsys.readouterr()
    assert rnnzoo(["plot", "run"]) == 0
    assert capsys.readouterr().out.splitlines() == ["run/curves.png", "run/picture.png"]
    assert is_picture(Path("run/curves.png")) and is_picture(Path("run/picture.png"))


@pytest.mark.long
@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_picture(task: str) -> None:
    assert main([*SHORT, f"task={task}", "hydra.run.dir=run"]) == 0
    _, second = plot([Path("run")])
    assert is_picture(second) and (task in PICTURES) is (second.name == "picture.png")


def test_a_sweep_ends_in_curves_over_each_other_named_by_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ["model=simple_rnn,bi_rnn", "optimizer.learning_rate=0.001,0.01", "hydra.sweep.dir=all"]
    assert main(["-m", *SHORT, *sweep]) == 0
    assert capsys.readouterr().out.endswith("\nall/curves.png\n") and is_picture(Path("all/curves.png"))
    assert labels(read_runs([Path("all")])) == [
        f"{model}, learning_rate {rate}" for model in ("simple_rnn", "bi_rnn") for rate in (0.001, 0.01)
    ]
    assert rnnzoo(["plot", "all/0", "all/3", "--output", "mine"]) == 0
    assert is_picture(Path("mine/curves.png")) and (Path("all/0/picture.png")).exists()


def test_runs_are_in_the_order_of_their_numbers() -> None:
    assert main(["-m", *SHORT, f"trainer.seed={','.join(map(str, range(11)))}", "hydra.sweep.dir=all"]) == 0
    assert [run.config["trainer"]["seed"] for run in read_runs([Path("all")])] == list(range(11))


def test_a_sweep_without_matplotlib_still_ends_in_its_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["-m", *SHORT, "trainer.seed=0,1", "hydra.sweep.dir=all"]) == 0
    out = capsys.readouterr().out
    assert "no plot: the package 'matplotlib' is not installed; run: pip install 'rnnzoo[plots]'" in out
    with pytest.raises(BackendError, match=r"rnnzoo\[plots\]"):
        plot([Path("all")])


def test_a_folder_without_a_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert rnnzoo(["plot", "empty"]) == 2
    assert "empty: expected the folder of a run or a sweep" in capsys.readouterr().err
    Path("empty/metrics.jsonl").write_text('{"event": "update", "step": 1}\n')
    with pytest.raises(FileError, match=r"empty: expected config\.yaml and metrics\.jsonl"):
        plot([Path("empty")])


def test_a_run_that_was_stopped_has_curves_alone() -> None:
    assert main([*SHORT, "hydra.run.dir=run"]) == 0
    Path("run/model.safetensors").unlink()
    shutil.rmtree("run/checkpoints")
    assert plot([Path("run")]) == [Path("run/curves.png")]


def test_the_norm_at_a_distance_is_that_of_the_derivative_of_the_loss() -> None:
    """Without a nonlinearity the loss is a square in the state, and a difference of any width gives its derivative."""
    options = ["task=adding", "task.length=6", "model.nonlinearity=identity", "hydra.run.dir=run"]
    assert main([*SHORT, *options]) == 0
    (run,) = read_runs([Path("run")])
    distances, norms = gradients.reach(run, "numpy", trained=True)
    contents, backend = load(Path("run/model.safetensors")), load_backend("numpy")
    model = backend.build(contents.spec, dtype="float64")
    backend.from_spec(model, {name: array.astype(np.float64) for name, array in contents.weights.items()})
    rows = task_of(contents, {}).test
    inputs, targets = rows.inputs[:100], rows.targets[:100]
    for distance, norm in zip(distances.tolist(), norms, strict=True):
        split = inputs.shape[1] - distance
        state = backend.run(model, inputs[:, :split]).final_state

        def losses(states: np.ndarray, split: int = split) -> np.ndarray:
            return ((backend.run(model, inputs[:, split:], initial_state=states).scores - targets) ** 2).sum(axis=1)

        pairs = [(losses(state + unit), losses(state - unit)) for unit in np.eye(state.shape[2])]
        slope = math.sqrt(np.mean(np.square([(up - down) / 2 for up, down in pairs]).sum(axis=0)))
        sums = (distance + 1) * (sum(state.shape[2:]) + inputs.shape[2] + 3)  # roundings in a row, each of 2^-53
        assert abs(slope - norm) <= 4 * sums * 2.0**-53 * max(np.max(pair) for pair in pairs)


def test_the_long_range_problems_show_how_far_a_gradient_reaches() -> None:
    for model in ("simple_rnn", "bi_rnn"):
        assert main([*SHORT, "task=adding", "task.length=8", f"model={model}", f"hydra.run.dir={model}"]) == 0
    assert plot([Path("simple_rnn")]) == [Path("simple_rnn/curves.png"), Path("simple_rnn/gradients.png")]
    assert is_picture(Path("simple_rnn/gradients.png"))
    assert plot([Path("bi_rnn")]) == [Path("bi_rnn/curves.png")]  # no state of it has seen the steps before it alone
