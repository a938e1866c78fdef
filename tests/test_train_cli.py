"""`rnnzoo train`: configs, overrides, sweeps, a run's folder, refusals without a traceback, tab completion."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import yaml

from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.training import TrainingCase, quantities
from rnnzoo.numpy_impl.backend import BACKEND
from rnnzoo.spec import Dropout, TrainingSpec, initial_weights, load, load_backend
from rnnzoo.tasks.completion import SCRIPTS, complete
from rnnzoo.tasks.evaluate import evaluate
from rnnzoo.tasks.task import TASKS, load_task
from rnnzoo.tasks.train import main

SHORT = ["backend=numpy", "model.hidden_size=6", "trainer.steps=3"]
FRAMEWORKS = {"numpy": "numpy", "torch": "torch", "tf": "tensorflow"}

Composed = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def composed(capsys: pytest.CaptureFixture[str]) -> Composed:
    def compose(*arguments: str) -> dict[str, Any]:
        assert main([*arguments, "--cfg", "job", "--resolve"]) == 0
        found = yaml.safe_load(capsys.readouterr().out)
        assert isinstance(found, dict)
        return found

    return compose


def test_a_task_chooses_a_model_and_sizes_and_an_override_wins(composed: Composed) -> None:
    digits, text = composed(), composed("task=char_lm")
    assert (digits["model"]["variant"], text["model"]["variant"]) == ("stacked_bi_rnn", "stacked_rnn")
    for config in (digits, text):
        suggested = config["task"]["suggested"]
        assert config["model"]["hidden_size"] == suggested["hidden_size"]
        assert config["trainer"]["epochs"] == suggested["epochs"]
        assert config["optimizer"]["learning_rate"] == suggested["learning_rate"]["adam"]
    changed = composed("task=char_lm", "model=simple_rnn", "model.hidden_size=7", "optimizer=sgd")
    assert (changed["model"]["variant"], changed["model"]["num_layers"], changed["model"]["hidden_size"]) == (
        "simple_rnn", 1, 7,
    )  # fmt: skip
    assert changed["optimizer"]["learning_rate"] == changed["task"]["suggested"]["learning_rate"]["sgd"]


def test_a_model_file_of_ones_own_wins_over_what_the_task_suggests(tmp_path: Path, composed: Composed) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "wide.yaml").write_text("variant: bi_rnn\nnum_layers: 1\nhidden_size: 99\n")
    assert composed("--config-dir", "mine", "model=wide")["model"]["hidden_size"] == 99


def test_a_run_leaves_its_config_metrics_and_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "trainer.evaluate_every=2", "trainer.seed=5", "hydra.run.dir=here"]) == 0
    out = capsys.readouterr()
    assert out.err == "" and out.out.count("\n") == 1 and "accuracy" in out.out and out.out.endswith("here\n")
    assert sorted(path.name for path in Path("here").iterdir()) == [
        ".hydra", "checkpoints", "config.yaml", "metrics.jsonl", "model.safetensors",
    ]  # fmt: skip
    config = yaml.safe_load(Path("here/config.yaml").read_text())
    assert (config["model"]["hidden_size"], config["optimizer"]["learning_rate"]) == (6, 0.003)
    lines = [json.loads(line) for line in Path("here/metrics.jsonl").read_text().splitlines()]
    assert [(line["event"], line["step"]) for line in lines] == [
        ("update", 1), ("update", 2), ("evaluation", 2), ("update", 3), ("evaluation", 3), ("summary", 3),
    ]  # fmt: skip
    assert all(line["loss"] > 0 and line["gradient_norm"] > 0 for line in lines if line["event"] == "update")
    contents = load(Path("here/model.safetensors"))
    assert contents.provenance["steps"] == 3 and contents.provenance["trainer"]["seed"] == 5
    assert contents.provenance["task"]["name"] == "digits"
    assert evaluate(contents, "numpy").metrics == contents.provenance["metrics"]
    assert lines[-1]["accuracy"] == lines[-2]["accuracy"] == contents.provenance["metrics"]["accuracy"]


def test_by_default_runs_go_to_a_folder_of_their_own() -> None:
    assert main(SHORT) == main(SHORT) == 0
    assert [path.name for path in Path().iterdir()] == ["runs"]
    assert len(list(Path("runs/digits").glob("*/model.safetensors"))) == 2


def test_the_same_seed_gives_the_same_checkpoint_and_another_does_not() -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert main([*SHORT, f"trainer.seed={seed}", f"hydra.run.dir={folder}"]) == 0
    a, b, c = (Path(folder, "model.safetensors").read_bytes() for folder in "abc")
    assert a == b != c
    assert main([*SHORT, "trainer.seed=2", "optimizer.learning_rate=0", "hydra.run.dir=still"]) == 0
    still = load(Path("still/model.safetensors"))
    for name, array in initial_weights(still.spec, 2).items():
        assert np.array_equal(still.weights[name], array), name


def test_every_backend_trains_on_the_batches_of_the_task(
    monkeypatch: pytest.MonkeyPatch, assert_right: Callable[..., None]
) -> None:
    losses = {}
    for name, framework in FRAMEWORKS.items():
        pytest.importorskip(framework)
        options = ["trainer.batch_size=4", "trainer.seed=2", "trainer.dtype=float64", "optimizer=sgd"]
        assert main([*SHORT, f"backend={name}", f"hydra.run.dir={name}", *options]) == 0
        lines = [json.loads(line) for line in Path(name, "metrics.jsonl").read_text().splitlines()]
        losses[name] = [line["loss"] for line in lines if line["event"] == "update"]
    spec, _, provenance = load(Path("numpy/model.safetensors"))
    batches = list(islice(load_task({"name": "digits"}).epoch(1, 4, 2), 3))
    monkeypatch.setattr(TrainingCase, "batches", lambda _: batches)
    case = TrainingCase(Case(spec, 4, 8), TrainingSpec.from_data(provenance["training"]))
    case.case.__dict__["weights"] = initial_weights(spec, 2, "float64")
    assert_right(losses, lambda ops: dict.fromkeys(losses, quantities(case, ops)["loss"]))


def test_steps_take_the_place_of_epochs_and_clipping_can_be_off() -> None:
    options = ["backend=numpy", "model.hidden_size=4", "trainer.batch_size=500", "trainer.clip=null"]
    assert main([*options, "trainer.epochs=2", "hydra.run.dir=epochs"]) == 0
    assert main([*options, "trainer.steps=4", "hydra.run.dir=steps"]) == 0
    found = {name: load(Path(name, "model.safetensors")).provenance for name in ("epochs", "steps")}
    assert (found["epochs"]["steps"], found["steps"]["steps"]) == (6, 4)
    assert found["steps"]["training"]["clip"] is None


def test_a_backend_of_ones_own_is_named_by_its_object() -> None:
    name = "rnnzoo.numpy_impl.backend:BACKEND"
    assert load_backend(name) is BACKEND
    assert main([*SHORT[1:], f"backend={name}", "hydra.run.dir=own"]) == 0
    assert load(Path("own/model.safetensors")).provenance["backend"] == name


REFUSALS = [
    (["task.foo=1"], "Key 'foo' not in 'DigitsConfig'"),
    (["+task.foo=1"], "digits: no setting 'foo'"),
    (["bogus=1"], "Could not override 'bogus'"),
    (["task.text=x"], "Could not override 'task.text'"),
    (["trainer.epochs=many"], "Value 'many' of type 'str' could not be converted to Integer"),
    (["model=lstm"], "model=lstm: expected one of bi_rnn, irnn, "),
    (["task=poetry"], "task=poetry: expected one of adding, "),
    (["backend=mxnet"], "backend=mxnet: expected one of "),
    (["backend=no.such:THING"], "cannot load 'no.such:THING'"),
    (["model.variant=tree_rnn"], "expected one of 'bi_rnn'"),
    (["model.hidden_size=${nowhere}"], "Interpolation key 'nowhere' not found"),
    (["model.num_layers=1"], "stacked_bi_rnn has at least 2 layers, got 1"),
    (["model.bias=triple"], "bias: expected one of"),
    (["model.initializer=ones"], "initializer: expected one of"),
    (["model.dropout.state=1"], "dropout state: expected a number in [0, 1), got 1.0"),
    (["model=simple_rnn", "model.dropout.between_layers=0.2"], "simple_rnn has one layer, nothing between; leave it 0"),
    (["model.dropout.outputs=0.1"], "Key 'outputs' not in 'DropoutConfig'"),
    (["schedule=step"], "schedule.every: expected a value, got none; give schedule.every=VALUE"),
    (
        ["schedule=cosine"],
        "schedule.steps: expected a number of updates, got none; give schedule.steps or trainer.steps",
    ),
    (["optimizer.learning_rate=-1"], "learning_rate: expected a number"),
    (["optimizer.kind=lion"], "unknown kind 'lion'"),
    (["trainer.batch_size=0"], "trainer.batch_size: expected an integer of at least 1, got 0"),
    (["trainer.epochs=null"], "trainer.epochs: expected an integer"),
    (["trainer.steps=0"], "trainer.steps: expected an integer"),
    (["trainer.evaluate_every=0"], "trainer.evaluate_every: expected an integer"),
    (["trainer.clip=-2"], "clip maximum: expected a number"),
    (["trainer.clip_kind=norm"], "trainer.clip_kind: expected one of 'global_norm', 'value', got 'norm'"),
    (["trainer.dtype=float16"], "dtype: expected one of"),
    (["trainer.seed=-1"], "seed: expected an integer of at least 0"),
    (["task.data=nothing.npz"], "nothing.npz: no such file"),
    (["task.data=file"], "file: not a whole .npz file"),
    (["task.data=members.npz"], "members.npz: expected only arrays in an .npz file, got the entry 'inputs'"),
    (["task=char_lm", "task.text=nothing.txt"], "nothing.txt: no such file"),
    (["task=char_lm", "task.text=file"], "file: expected at least 100 characters, got 0; name a longer text"),
    (["task=char_lm", "task.text=members.npz"], "members.npz: expected UTF-8 text"),
    (["task=char_lm", "task.text=."], "task char_lm: text: expected a file"),
    (["task=char_lm", "task.text=''"], "task char_lm: text: expected the path of a file, got ''"),
    (["model.hidden_size=-1"], "hidden_size: expected an integer of at least 1, got -1"),
    (["model.hidden_size=1000000000000"], "not enough memory"),
    (["task=char_lm", "model=bi_rnn"], "take simple_rnn or stacked_rnn"),
    (["hydra.run.dir=file/run"], "name a folder that can be written, with hydra.run.dir=FOLDER"),
    (["a=b=c"], "mismatched input"),
    (["--run", "--multirun"], "Only one of"),
    (["--resolve"], "can only be used in conjunction"),
    (["--nonsense"], "unrecognized arguments: --nonsense"),
    (["--config-name=other"], "Cannot find primary config 'other'"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS, ids=[" ".join(row[0]) for row in REFUSALS])
def test_bad_input_gets_one_message_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("")
    with zipfile.ZipFile("members.npz", "w") as file:
        file.writestr("inputs", b"\xff" * 200)
    argv = list(sys.argv)
    assert main(["backend=numpy", *arguments]) == 2
    out = capsys.readouterr()
    assert message in out.err
    assert not any(noise in out.err for noise in ("Traceback", "HYDRA_FULL_ERROR", "Error executing job"))
    assert out.out == "" and not list(Path().glob("**/model.safetensors")) and not list(Path().glob("**/metrics.jsonl"))
    assert sys.argv == argv and "HYDRA_FULL_ERROR" not in os.environ


def test_a_folder_that_holds_a_checkpoint_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "hydra.run.dir=here"]) == 0
    before = {name: Path("here", name).read_bytes() for name in ("model.safetensors", "metrics.jsonl", "config.yaml")}
    assert main([*SHORT, "trainer.seed=1", "hydra.run.dir=here"]) == 2
    assert "exists already; name another folder with hydra.run.dir=FOLDER" in capsys.readouterr().err
    assert before == {name: Path("here", name).read_bytes() for name in before}


def test_a_loss_that_is_not_finite_stops_the_run_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["model.nonlinearity=identity", "optimizer=sgd", "optimizer.learning_rate=1e9", "trainer.clip=null"]
    assert main([*SHORT, "trainer.steps=50", *options, "hydra.run.dir=here"]) == 1
    err = capsys.readouterr().err
    assert "expected finite numbers; the run stopped" in err and "optimizer.learning_rate" in err
    assert not Path("here/model.safetensors").exists()
    assert all("NaN" not in line for line in Path("here/metrics.jsonl").read_text().splitlines())


def test_an_optimizer_and_a_schedule_are_chosen_by_name() -> None:
    options = ["trainer.steps=3", "optimizer=adamw", "schedule=warm_up", "schedule.steps=2", "hydra.run.dir=here"]
    assert main([*SHORT, *options]) == 0
    training = load(Path("here/model.safetensors")).provenance["training"]
    assert (training["optimizer"]["kind"], training["optimizer"]["decoupled"]) == ("adam", True)
    assert training["schedule"] == {"kind": "warm_up", "steps": 2, "then": None}


def test_dropout_is_a_part_of_the_model_with_the_seed_of_the_run() -> None:
    losses = []
    for folder, options in (("plain", []), ("none", ["model.dropout=null"]), ("here", ["model.dropout.state=0.5"])):
        assert main([*SHORT, "trainer.seed=3", *options, f"hydra.run.dir={folder}"]) == 0
        losses.append([json.loads(line)["loss"] for line in Path(folder, "metrics.jsonl").read_text().splitlines()[:3]])
    assert losses[0] == losses[1] and all(a != b for a, b in zip(losses[0], losses[2], strict=True))
    found = load(Path("here/model.safetensors"))
    assert found.spec.dropout == Dropout(state=0.5) and found.provenance["training"]["seed"] == 3
    assert load(Path("plain/model.safetensors")).spec.dropout is None


def test_help_names_the_groups_and_starts_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    models = "model: bi_rnn, irnn, simple_rnn, stacked_bi_rnn, stacked_rnn"
    for line in ("task: adding, ", models, "optimizer: adagrad"):
        assert line in out
    assert "hydra/rnnzoo" not in out and not list(Path().iterdir())


def test_a_mistake_of_ours_still_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnzoo.tasks.train.train", lambda *_: [][1])
    with pytest.raises(IndexError):
        main([*SHORT, "hydra.run.dir=here"])


def test_configs_are_found_from_any_folder_in_a_fresh_process(
    fresh_python: Callable[..., CompletedProcess[str]],
) -> None:
    done = fresh_python(
        "import sys; from rnnzoo.tasks.train import main; code = main(['backend=numpy', '--cfg', 'job'])\n"
        "print(code, sorted({'torch', 'tensorflow', 'sklearn'} & set(sys.modules)))"
    )
    assert done.stdout.endswith("0 []\n") and "variant: stacked_bi_rnn" in done.stdout and done.stderr == ""


def query(line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COMP_LINE", line)
    assert main(["-sc", "query=bash"]) == 0
    return capsys.readouterr().out.split()


def test_tab_completion_knows_groups_options_and_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for line, expected in (
        ("rnnzoo train ta", ["task.", "task="]),
        ("rnnzoo train task=", [f"task={name}" for name in sorted(TASKS)]),
        ("/usr/bin/rnnzoo train task=char_lm model=stacked", ["model=stacked_bi_rnn", "model=stacked_rnn"]),
        ("rnnzoo train -m backend=t", ["backend=tf", "backend=torch"]),
        ("rnnzoo train task=char_lm task.win", ["task.window="]),
        ("rnnzoo train trainer.cl", ["trainer.clip=", "trainer.clip_kind="]),
    ):
        assert query(line, capsys, monkeypatch) == expected


def test_completion_scripts_are_printed_for_every_shell(capsys: pytest.CaptureFixture[str]) -> None:
    for command, scripts in SCRIPTS.items():
        for shell, script in scripts.items():
            assert main(["-sc", f"{command}={shell}"]) == 0
            assert capsys.readouterr().out == script
    assert not complete(["task=digits"])


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("breaks", [" =:", " "])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rnnzoo train task=dig", {" =:": "digits", " ": "task=digits"}),
        ("rnnzoo train model=simple_rnn backend=n", {" =:": "numpy", " ": "backend=numpy"}),
        ("rnnzoo train optimizer.le", {" =:": "optimizer.learning_rate=", " ": "optimizer.learning_rate="}),
        ("rnnzoo inspect task=dig", {" =:": "", " ": ""}),
    ],
)
def test_bash_completes_what_stands_before_the_cursor(
    tmp_path: Path, line: str, expected: dict[str, str], breaks: str
) -> None:
    program = tmp_path / "bin" / "rnnzoo"
    program.parent.mkdir()
    code = "import sys; from rnnzoo.tasks.train import main; sys.exit(main(sys.argv[2:]))"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -c "{code}" "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(rnnzoo train -sc install=bash)"; complete -p rnnzoo >/dev/null || exit 1\n'
        f"COMP_WORDBREAKS='{breaks}'; COMP_LINE='{line} rest'; COMP_POINT={len(line)}\n"
        '_rnnzoo_train; printf "%s" "${COMPREPLY[*]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (expected[breaks], "")


@pytest.mark.long
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_by_default_the_digits_are_read_with_97_percent(name: str) -> None:
    pytest.importorskip(FRAMEWORKS[name])
    assert main([f"backend={name}", "model=stacked_bi_rnn", "hydra.run.dir=here"]) == 0
    assert load(Path("here/model.safetensors")).provenance["metrics"]["accuracy"] >= 0.97


@pytest.mark.parametrize(
    "key", ["+foo=1", "+model.foo=3", "+trainer.lr=0.1", "+backend.x=1", "+optimizer.x=1", "+task.x=1"]
)
def test_a_key_that_nothing_reads_is_refused(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, key]) == 2
    message = capsys.readouterr().err
    assert (
        key.strip("+").split("=")[0].split(".")[-1] in message and "known are" in message and "Traceback" not in message
    )
