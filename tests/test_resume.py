"""A run that was stopped, killed or moved to another backend ends as the run that never was."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import yaml

from rnnzoo.conformance import trajectories
from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.cli import main as rnnzoo
from rnnzoo.conformance.training import TrainingCase, quantities
from rnnzoo.spec import Batch, TrainingSpec, initial_weights, load
from rnnzoo.spec.checkpoint import load_run, save
from rnnzoo.tasks.configs import Config, TrainerConfig
from rnnzoo.tasks.resume import MAY_CHANGE, _literal
from rnnzoo.tasks.task import TASKS, load_task
from rnnzoo.tasks.train import main

FRAMEWORKS = {"numpy": "numpy", "torch": "torch", "tf": "tensorflow"}
TINY = [
    "task.data=tiny.npz", "model=bi_rnn", "model.hidden_size=3", "trainer.batch_size=4", "trainer.dtype=float64",
    "trainer.evaluate_every=10", "trainer.checkpoint_every=4",
]  # fmt: skip
TEXT = ["task=char_lm", "task.text=text.txt", "task.window=5", "task.embedding_size=2", *TINY[2:]]
SWITCHES = {
    "sgd": ["optimizer=sgd", "schedule=step", "schedule.every=3", "trainer.clip=0.01", "model.dropout.inputs=0.3"],
    "nesterov": ["optimizer=sgd", "optimizer.nesterov=true", "schedule=cosine", "schedule.steps=30"],
    "adam": [
        "optimizer=adam",
        "schedule=warm_up",
        "schedule.steps=5",
        "schedule.then={kind: cosine, steps: 9}",
        "model.dropout.state=0.3",
    ],
    "adamw": ["optimizer=adamw", "optimizer.epsilon_place=hat", "trainer.clip=0.1", "trainer.clip_kind=value"],
    "rmsprop": ["optimizer=rmsprop", "optimizer.centred=true", "optimizer.momentum=0.5", "trainer.clip=0.05"],
    "adagrad": ["optimizer=adagrad", "optimizer.initial_accumulator=0.1", "trainer.accumulate=3"],
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_data()
    return tmp_path


def write_data() -> None:
    inputs = np.random.default_rng(0).normal(size=(20, 3, 2))
    np.savez("tiny.npz", inputs=inputs, targets=np.arange(20) % 3)
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog; " * 12)


def train(*arguments: str) -> None:
    assert main(list(arguments)) == 0


def metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines, without what the clock says."""
    lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same_end(folder: str, whole: str) -> None:
    assert Path(folder, "model.safetensors").read_bytes() == Path(whole, "model.safetensors").read_bytes()
    assert metrics(folder) == metrics(whole)
    for path in Path(whole, "checkpoints").iterdir():
        (ours, run), (theirs, other) = load_run(Path(folder, "checkpoints", path.name)), load_run(path)
        assert ours.weights.keys() == theirs.weights.keys() and run.trainer.keys() == other.trainer.keys()
        for mine, its in ((ours.weights, theirs.weights), (run.trainer, other.trainer)):
            assert all(mine[name].tobytes() == its[name].tobytes() for name in its)


def in_parts(name: str, options: list[str], ends: tuple[int, int, int]) -> None:
    """Train whole in one folder, and in three parts in `c`."""
    options = [f"backend={name}", *options]
    train(*options, f"trainer.steps={ends[-1]}", "hydra.run.dir=whole")
    train(*options, f"trainer.steps={ends[0]}", "hydra.run.dir=a")
    train("resume=a", f"trainer.steps={ends[1]}", "hydra.run.dir=b")
    train("resume=b", f"trainer.steps={ends[2]}", "hydra.run.dir=c")
    assert_same_end("c", "whole")


@pytest.mark.parametrize("name", SWITCHES)
def test_twenty_steps_three_times_are_sixty_steps_bit_for_bit(name: str) -> None:
    in_parts("numpy", [*TINY, *SWITCHES[name]], (20, 40, 60))


@pytest.mark.long
@pytest.mark.parametrize("framework", ["torch", "tf"])
@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("task", [TINY, TEXT], ids=["digits", "char_lm"])
def test_the_same_in_the_frameworks(framework: str, name: str, task: list[str]) -> None:
    pytest.importorskip(FRAMEWORKS[framework])
    in_parts(framework, [*task, *SWITCHES[name]], (20, 40, 60))


QUICK = ("captioning", "tagging", "translate")  # a context, lengths, two models in one


@pytest.mark.parametrize(
    "task", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in TASKS]
)
def test_a_run_of_any_task_goes_on(task: str) -> None:
    options = [f"task={task}", "trainer.batch_size=8", "trainer.evaluate_every=9", "model.hidden_size=8"]
    in_parts("numpy", options, (1, 2, 3))


def test_a_carried_state_is_carried_over_the_stop() -> None:
    in_parts("numpy", [*TEXT, *SWITCHES["sgd"]], (7, 13, 21))  # 24 windows to an epoch
    assert load_run(Path("a/checkpoints/step_000000007.safetensors"))[1].trainer["carried.h"].any()


def of_case(spec: Any, training: TrainingSpec, updates: list[tuple[Batch, ...]], patch: pytest.MonkeyPatch) -> Any:
    """The quantities of a run over these batches from the initial weights of seed 0."""
    patch.setattr(TrainingCase, "updates", lambda _: updates)
    case = TrainingCase(Case(spec, 4, 3), training)
    case.case.__dict__["weights"] = initial_weights(spec, 0, "float64")
    return lambda ops: quantities(case, ops)


def end_of(folder: str) -> dict[str, Any]:
    """Losses, norms, weights and the trainer's state after the last update, by name."""
    contents, run = load_run(max(Path(folder, "checkpoints").iterdir()))
    kept = {name: np.asarray(array, np.float64) for name, array in run.trainer.items()}
    lines = [line for line in metrics(folder) if line["event"] == "update"]
    traces = {name: [line[name.replace(" ", "_")] for line in lines] for name in ("loss", "gradient norm")}
    return {**contents.weights, **kept, **traces}


def tiny_batches(size: int) -> Iterator[Batch]:
    task, epoch = load_task({"name": "digits", "data": "tiny.npz"}), 0
    while True:
        yield from task.epoch(epoch := epoch + 1, size, 0)


@pytest.mark.parametrize("name", ["adam", pytest.param("rmsprop", marks=pytest.mark.long)])
def test_sixty_steps_in_three_backends_in_turn_are_sixty_steps(
    name: str, monkeypatch: pytest.MonkeyPatch, assert_right: Callable[..., None]
) -> None:
    for framework in FRAMEWORKS.values():
        pytest.importorskip(framework)
    train(*TINY, *SWITCHES[name], "backend=torch", "trainer.steps=20", "hydra.run.dir=a")
    train("resume=a", "backend=tf", "trainer.steps=40", "hydra.run.dir=b")
    train("resume=b", "backend=numpy", "trainer.steps=60", "hydra.run.dir=c")
    spec, _, record = load(Path("c/model.safetensors"))
    assert [(part["backend"], part["steps"]) for part in record["before"]] == [("torch", 20), ("tf", 40)]
    updates = [(batch,) for batch in islice(tiny_batches(4), 60)]
    wanted = of_case(spec, TrainingSpec.from_data(record["training"]), updates, monkeypatch)
    assert_right(end_of("c"), wanted)
    train(*TINY, *SWITCHES[name], "backend=numpy", "trainer.steps=60", "hydra.run.dir=one")
    assert_right(end_of("one"), wanted)
    assert [line.keys() for line in metrics("c")] == [line.keys() for line in metrics("one")]


def test_an_encoder_and_its_decoder_are_handed_over_too(assert_right: Callable[..., None]) -> None:
    for framework in FRAMEWORKS.values():
        pytest.importorskip(framework)
    options = ["task=translate", "task.embedding_size=2", *TINY[1:], *SWITCHES["adam"], "trainer.batch_size=2"]
    train(*options, "trainer.evaluate_every=99", "backend=torch", "trainer.steps=20", "hydra.run.dir=a")
    train("resume=a", "backend=tf", "trainer.steps=30", "hydra.run.dir=b")
    train("resume=b", "trainer.steps=40", "hydra.run.dir=again")  # in the middle of its updates, by itself
    train("resume=again", "backend=numpy", "trainer.steps=60", "hydra.run.dir=c")
    spec, _, record = load(Path("c/model.safetensors"))
    assert [(part["backend"], part["steps"]) for part in record["before"]] == [("torch", 20), ("tf", 40)]
    batches = list(islice(load_task({"name": "translate", "embedding_size": 2}).epoch(1, 2, 0), 60))
    case = SimpleNamespace(
        spec=spec, training=TrainingSpec.from_data(record["training"]), batches=batches,
        weights=initial_weights(spec, 0, "float64"),
    )  # fmt: skip

    def wanted(ops: Any) -> Any:
        found = trajectories.quantities(cast(trajectories.Trajectory, case), ops)
        return {name: a if name in ("loss", "gradient norm") else a[:, -1] for name, a in found.items()}

    assert_right(end_of("c"), wanted)
    train(*options, "trainer.evaluate_every=99", "backend=numpy", "trainer.steps=60", "hydra.run.dir=one")
    assert_right(end_of("one"), wanted)


def test_an_update_of_several_batches_divides_by_the_entries_of_all_of_them(
    monkeypatch: pytest.MonkeyPatch, assert_right: Callable[..., None]
) -> None:
    options = ["trainer.batch_size=3", "trainer.accumulate=4", "trainer.epochs=2", "backend=numpy"]
    train(*TINY, *options, "hydra.run.dir=here")
    contents, run = load_run(max(Path("here/checkpoints").iterdir()))
    assert (run.step, run.epoch, run.batch) == (4, 2, 6)  # 16 rows: 5 threes and a 1, so updates of 12 and of 4 rows
    batches = list(islice(tiny_batches(3), 12))
    updates = [tuple(batches[start:end]) for start, end in ((0, 4), (4, 6), (6, 10), (10, 12))]
    training = TrainingSpec.from_data(contents.provenance["training"])
    assert_right(end_of("here"), of_case(contents.spec, training, updates, monkeypatch))


KILLER = """
import os, random, shutil, signal, sys, time
from pathlib import Path
from rnnzoo.spec import load_backend
from rnnzoo.tasks.train import main

name, kills, seconds, *options = sys.argv[1:]
load_backend(name)  # once for all: nothing has been computed before the forks
random.seed(3)
NEVER = 10**9

def start(arguments, calls=NEVER):
    child = os.fork()
    if child:
        return child
    sys.stdout = open(os.devnull, "w")
    left = [calls]
    def deadly(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    for name in ("fsync", "replace", "unlink", "mkdir", "rmdir", "open", "pwrite"):
        setattr(os, name, deadly(getattr(os, name)))
    os._exit(main(arguments))

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def arguments():
    begun = list(Path("killed/checkpoints").glob("step_*"))
    return ["resume=killed"] if begun else [f"backend={name}", *options, "hydra.run.dir=killed"]

done, runs, begun = 0, 0, time.monotonic()
while done < int(kills):
    if float(seconds):
        child = start(arguments())
        time.sleep(random.random() * float(seconds))
        os.kill(child, signal.SIGKILL)
        code = ended(child)
    else:
        code = ended(start(arguments(), calls=random.randrange(1, 120)))
    done += code != 0
    assert code in (0, -signal.SIGKILL), code
    if code == 0 or Path("killed/model.safetensors").exists():
        shutil.move("killed", f"ended.{runs}")
        runs += 1
assert ended(start(arguments())) == 0
shutil.move("killed", f"ended.{runs}")
"""


def killed(name: str, options: list[str], kills: int, seconds: float) -> None:
    """Train whole, and with kills after up to so many seconds, or (0) at system calls; each end is the same."""
    pytest.importorskip(FRAMEWORKS[name])
    train(f"backend={name}", *options, "hydra.run.dir=whole")
    arguments = [sys.executable, "-P", "-c", KILLER, name, str(kills), str(seconds), *options]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    ends = sorted(path.name for path in Path().glob("ended.*"))
    assert ends
    for end in ends:
        assert_same_end(end, "whole")
        assert not list(Path(end).glob("checkpoints/.rnnzoo-*"))


EACH = ["trainer.checkpoint_every=1", "trainer.steps=14"]


def test_a_run_killed_at_a_system_call_of_a_checkpoint_ends_the_same() -> None:
    killed("numpy", [*TINY, *SWITCHES["adam"], *EACH], 12, 0)


@pytest.mark.parametrize(("name", "kills", "seconds"), [("numpy", 4, 0.5), ("torch", 2, 0.8), ("tf", 2, 4.0)])
def test_a_run_killed_at_any_moment_ends_the_same(name: str, kills: int, seconds: float) -> None:
    killed(name, [*TEXT, *SWITCHES["adam"], *EACH], kills, seconds)


@pytest.mark.long
@pytest.mark.parametrize(("name", "seconds"), [("numpy", 0.6), ("torch", 1.0), ("tf", 5.0)])
@pytest.mark.parametrize("task", [TINY, TEXT], ids=["digits", "char_lm"])
def test_a_run_killed_fifty_times_ends_the_same(name: str, seconds: float, task: list[str]) -> None:
    killed(name, [*task, *SWITCHES["adam"], *EACH, "trainer.steps=40"], 50, seconds)


def test_a_damaged_checkpoint_is_told_of_and_the_one_before_it_taken(capsys: pytest.CaptureFixture[str]) -> None:
    options = [*TINY, "backend=numpy", "trainer.steps=12"]
    train(*options, "hydra.run.dir=whole")
    train(*options, "hydra.run.dir=here")
    Path("here/model.safetensors").unlink()
    path = max(Path("here/checkpoints").iterdir())
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    capsys.readouterr()
    train("resume=here")
    err = capsys.readouterr().err
    assert f"{path}: not a whole checkpoint: damaged" in err and "an older one" in err
    assert_same_end("here", "whole")
    for left in Path("here/checkpoints").iterdir():
        left.write_bytes(b"nothing")
    assert main(["resume=here", "trainer.steps=20", "hydra.run.dir=there"]) == 2
    assert "none of its checkpoints is whole" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and the run `done` of four updates."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_data()
        train(*TINY, *SWITCHES["adam"], "backend=numpy", "trainer.steps=4", "hydra.run.dir=done")
    return folder


@pytest.fixture
def done(trained: Path) -> str:
    """A copy of that run; it names its data by their place."""
    shutil.copytree(trained / "done", "done")
    return "done"


REFUSALS = [
    (["resume=nowhere"], "nowhere: no such file"),
    (["resume=tiny.npz"], "tiny.npz: not a whole safetensors file"),
    (["resume=."], "expected the folder of a run, with checkpoints in it, got one without; name that folder"),
    (["resume=done/model.safetensors"], "expected a checkpoint, got a model without the state of its training"),
    (["resume=done,done", "-m"], "resume: expected one run or checkpoint, got several"),
    (["resume=done"], "done has 4 updates, and the run is to have 4; give more with trainer.steps"),
    (["resume=done", "trainer.steps=3"], "has 4 updates, and the run is to have 3"),
    (["resume=done", "trainer.seed=1"], "trainer.seed: the checkpoint fixes it at 0, got 1; leave it out"),
    (["resume=done", "trainer.dtype=float32"], "trainer.dtype: the checkpoint fixes it at 'float64', got 'float32'"),
    (["resume=done", "trainer.batch_size=3"], "trainer.batch_size: the checkpoint fixes it at 4, got 3"),
    (["resume=done", "trainer.accumulate=2"], "trainer.accumulate: the checkpoint fixes it at 1, got 2"),
    (["resume=done", "model.hidden_size=4"], "model.hidden_size: the checkpoint fixes it at 3, got 4"),
    (["resume=done", "model=simple_rnn"], "model."),
    (["resume=done", "optimizer=sgd"], "optimizer.kind: the checkpoint fixes it at 'adam', got 'sgd'"),
    (["resume=done", "optimizer.beta1=0.5"], "optimizer.beta1: the checkpoint fixes it at 0.9, got 0.5"),
    (["resume=done", "schedule.steps=6"], "schedule.steps: the checkpoint fixes it at 5, got 6"),
    (["resume=done", "task=copy"], "task.name: the checkpoint fixes it at 'digits', got 'copy'"),
    (["resume=done", "task.data=other.npz"], "expected the data of the training, with SHA-256"),
    (["resume=done", "bogus=1"], "Could not override 'bogus'"),
    (["resume=done", "trainer.steps=9", "backend=no.such:THING"], "cannot load 'no.such:THING'"),
    (["resume=done", "trainer.steps=9", "hydra.run.dir=done"], "model.safetensors: exists already"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS, ids=[" ".join(row[0]) for row in REFUSALS])
def test_what_a_checkpoint_fixes_is_refused_by_name(
    done: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("other.npz", inputs=np.zeros((20, 3, 2)), targets=np.arange(20) % 3)
    before = {
        path: path.read_bytes() for path in Path(done).rglob("*.*") if path.is_file() and ".hydra" not in str(path)
    }
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err
    assert all(path.read_bytes() == data for path, data in before.items())
    assert len(list(Path().rglob("model.safetensors"))) == 1 and len(list(Path().rglob("metrics.jsonl"))) == 1


@pytest.mark.parametrize("group", ["task", "optimizer", "backend"])
def test_a_checkpoint_of_something_else_is_refused(done: str, group: str, capsys: pytest.CaptureFixture[str]) -> None:
    contents, run = load_run(Path("done/checkpoints/step_000000004.safetensors"))
    for config in ({**run.config, group: 3}, {key: value for key, value in run.config.items() if key != group}):
        save(Path("other.safetensors"), contents, replace(run, config=config))
        assert main(["resume=other.safetensors", "trainer.steps=9"]) == 2
        assert f"got one that does not tell '{group}'" in capsys.readouterr().err
    save(Path("other.safetensors"), contents._replace(provenance={}), run)
    assert main(["resume=other.safetensors", "trainer.steps=9"]) == 2
    assert "got one that does not tell 'backend', 'task', 'training'" in capsys.readouterr().err


def test_a_place_beyond_the_data_is_refused(done: str, capsys: pytest.CaptureFixture[str]) -> None:
    contents, run = load_run(Path("done/checkpoints/step_000000004.safetensors"))
    for batch, status in ((4, 0), (5, 2)):  # 16 rows by 4
        save(Path("other.safetensors"), contents, replace(run, batch=batch))
        assert main(["resume=other.safetensors", "trainer.steps=9"]) == status
    assert "expected at most the 4 batches of an epoch as used, got 5" in capsys.readouterr().err


def test_what_may_change_of_a_task_without_a_file_is_none_of_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    train("task=adding", "trainer.steps=1", "trainer.batch_size=2", "backend=numpy", "hydra.run.dir=drawn")
    assert main(["resume=drawn", "task.length=9", "trainer.steps=2"]) == 2
    err = capsys.readouterr().err
    assert "task.length: the checkpoint fixes it at 50, got 9" in err and "task." not in err.split("may change: ")[1]


def test_the_same_command_with_resume_goes_on_and_data_may_lie_elsewhere(done: str) -> None:
    shutil.move("tiny.npz", "moved.npz")
    options = [option for option in [*TINY, *SWITCHES["adam"]] if not option.startswith("task.data")]
    train(*options, "backend=numpy", "trainer.steps=8", "resume=done", "task.data=moved.npz", "hydra.run.dir=longer")
    record = load(Path("longer/model.safetensors")).provenance
    assert record["steps"] == 8 and record["task"]["data"].endswith("moved.npz")


def test_a_lower_learning_rate_is_allowed_and_recorded(done: str) -> None:
    train("resume=done", "trainer.steps=6", "optimizer.learning_rate=0.5", "hydra.run.dir=on")
    record = load(Path("on/model.safetensors")).provenance
    assert record["training"]["optimizer"]["learning_rate"] == 0.5
    assert [(part["steps"], part["training"]["optimizer"]["learning_rate"]) for part in record["before"]] == [
        (4, 0.003)
    ]


def test_one_run_goes_on_in_several_backends_at_once(done: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    train("-m", f"resume={done}", "trainer.steps=6", "backend=numpy,torch", "hydra.sweep.dir=both")
    out = capsys.readouterr().out
    assert "digits  bi_rnn  numpy" in out and "digits  bi_rnn  torch" in out
    assert len(list(Path("both").glob("*/model.safetensors"))) == 2


def test_the_config_of_a_resumed_run_can_be_shown(done: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    train("--cfg", "job", "resume=done", "trainer.steps=9")
    shown, recorded = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(Path("done/config.yaml").read_text())
    assert shown == {**recorded, "resume": "done", "trainer": {**recorded["trainer"], "steps": 9}}


def test_an_unfinished_run_is_not_overwritten(done: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("done/model.safetensors").unlink()
    assert main([*TINY, "backend=numpy", "hydra.run.dir=done"]) == 2
    assert "holds an unfinished run; go on with it with resume=" in capsys.readouterr().err


def test_two_processes_do_not_train_in_one_folder(done: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("done/model.safetensors").unlink()
    lock = os.open("done", os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    before = Path("done/metrics.jsonl").read_bytes()
    assert main(["resume=done", "trainer.steps=6"]) == 2
    assert "another process trains in it; wait for its end" in capsys.readouterr().err
    assert Path("done/metrics.jsonl").read_bytes() == before
    os.close(lock)
    train("resume=done", "trainer.steps=6")


def test_every_key_that_may_change_is_one_of_the_config() -> None:
    keys = {*Config.__dataclass_fields__, *(f"trainer.{key}" for key in TrainerConfig.__dataclass_fields__)}
    assert {key for key in MAY_CHANGE if not key.startswith(("backend.", "optimizer."))} <= keys


@pytest.mark.parametrize("value", [
    None, True, 3, 1e-08, "text", "it's", "back\\'slash\\", "a, b=c {d} [e]", {"kind": "step", "every": 3}, [1, None],
])  # fmt: skip
def test_values_survive_hydras_grammar(value: Any) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"key={_literal(value)}").value() == value


def test_evaluate_and_sample_take_a_folder_or_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    train(*TEXT, "backend=numpy", "trainer.steps=4", "hydra.run.dir=here")
    checkpoint = "here/checkpoints/step_000000004.safetensors"
    for command in ("evaluate", "sample"):
        told = []
        for path in ("here/model.safetensors", "here", checkpoint):
            capsys.readouterr()
            assert rnnzoo([command, path]) == 0
            told.append(capsys.readouterr().out)
        assert told[0] == told[1] == told[2] != ""
    Path("here/model.safetensors").unlink()
    assert rnnzoo(["evaluate", "here"]) == 0
    assert rnnzoo(["evaluate", "."]) == 2
    assert "with checkpoints in it, got one without" in capsys.readouterr().err


def test_a_run_that_diverges_names_the_update_the_norms_and_the_last_good_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wild = ["model.nonlinearity=identity", "optimizer=sgd", "optimizer.learning_rate=1e9", "trainer.clip=null"]
    steps = ["trainer.steps=90", "trainer.checkpoint_every=1"]
    assert main([*TINY, *wild, *steps, "backend=numpy", "hydra.run.dir=here"]) == 1
    err = capsys.readouterr().err
    last = max(Path("here/checkpoints").iterdir())
    assert f"the last good checkpoint is {last.absolute()}" in err and "the norms of the gradients up to it are" in err
    step = int(err.partition("update ")[2].partition(":")[0])
    lines = [line for line in metrics("here") if line["event"] == "update"]
    assert step == len(lines) + 1 and f"{lines[-1]['gradient_norm']:g}" in err
    contents, run = load_run(last)
    assert run.step < step and all(np.isfinite(array).all() for array in contents.weights.values())
    assert main([f"resume={last}", f"trainer.steps={step}", "hydra.run.dir=again"]) == 1
    assert f"the last good checkpoint is {last}" in capsys.readouterr().err


def test_a_checkpoint_with_weights_that_are_not_finite_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    wild = ["optimizer=rmsprop", "optimizer.learning_rate=1e308", "trainer.checkpoint_every=1"]  # 10 of it a step
    assert main([*TINY, *wild, "backend=numpy", "trainer.steps=6", "hydra.run.dir=here"]) == 1
    err = capsys.readouterr().err
    assert "update 1: a weight is not finite" in err and "there is no checkpoint yet: start again" in err
    assert not list(Path("here").rglob("*.safetensors"))
