"""A checkpoint holds a whole run, comes back bit for bit, and notices every change."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from rnnzoo.conformance.cli import main
from rnnzoo.conformance.formats import read
from rnnzoo.spec import (
    Adam,
    Batch,
    Contents,
    CrossEntropy,
    Head,
    ModelSpec,
    RnnZooError,
    TrainingSpec,
    initial_weights,
    load,
    load_backend,
    save,
)
from rnnzoo.spec.checkpoint import load_run
from rnnzoo.spec.errors import FileError, SpecError
from rnnzoo.spec.run_state import RunState

SPEC = ModelSpec("bi_rnn", 2, 3, head=Head(2))
NUMPY = load_backend("numpy")


@pytest.fixture
def contents() -> Contents:
    return Contents(SPEC, initial_weights(SPEC, 0), {"task": "none"})


@pytest.fixture
def run() -> RunState:
    trainer = NUMPY.trainer(NUMPY.build(SPEC), TrainingSpec(CrossEntropy(), Adam()))
    trainer.step(Batch(np.ones((4, 3, 2)), np.ones((4, 3), int)))
    before = ({"backend": "torch", "steps": 1},)
    line = '{"event": "ü", "step": 1, "epoch": 2, "loss": NaN}\n'
    return RunState(trainer.state(), 2, 5, {"model": {"variant": "bi_rnn"}}, line, before, 1.25)


@pytest.fixture
def path(tmp_path: Path, contents: Contents, run: RunState) -> Path:
    save(tmp_path / "run.safetensors", contents, run)
    return tmp_path / "run.safetensors"


def test_a_run_comes_back_as_it_was(path: Path, contents: Contents, run: RunState) -> None:
    found, state = load_run(path)
    assert found.spec == SPEC and found.provenance == contents.provenance
    assert all(found.weights[name].tobytes() == array.tobytes() for name, array in contents.weights.items())
    assert state.to_data() == run.to_data() and state.metrics == run.metrics
    assert state.trainer.keys() == run.trainer.keys()
    for name, array in run.trainer.items():
        assert state.trainer[name].dtype == array.dtype and state.trainer[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seconds": "a"}, "training seconds: expected a number"),
        ({"metrics": "3\n"}, "training metrics: expected on each line an object of event, .* got 3"),
        ({"metrics": '{"event": "update", "step": 1}\n'}, "training metrics: expected on each line an object of event"),
        ({"metrics": '{"event": 1, "step": 1, "epoch": 1}\n'}, "training metrics: expected on each line an object"),
        ({"metrics": '{"event": "a", "step": "1", "epoch": 1}\n'}, "training metrics: expected on each line an object"),
        ({"metrics": "no JSON"}, "not a whole checkpoint"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(
    path: Path, contents: Contents, run: RunState, change: dict[str, Any], words: str
) -> None:
    save(path, contents, replace(run, **change))
    with pytest.raises(FileError, match=words):
        load_run(path)


def test_what_was_before_a_run_is_a_list_of_objects(run: RunState) -> None:
    with pytest.raises(SpecError, match="a list of what was before"):
        RunState.from_parts({**run.to_data(), "sha256": "", "before": [1]}, run.tensors())


def test_the_same_run_gives_the_same_bytes(path: Path, contents: Contents, run: RunState) -> None:
    save(path.with_name("again.safetensors"), contents, run)
    assert path.read_bytes() == path.with_name("again.safetensors").read_bytes()


def test_a_reader_of_models_finds_the_weights(path: Path, contents: Contents) -> None:
    for found in (load(path), read(path)):
        assert found.spec == SPEC and found.weights.keys() == contents.weights.keys()
    assert set(safetensors.numpy.load_file(path)) > set(contents.weights)


def test_a_checkpoint_is_inspected_and_converted_as_a_model(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path)]) == 0
    assert "bi_rnn" in capsys.readouterr().out
    assert main(["convert", str(path), str(path.with_suffix(".npz"))]) == 0
    assert read(path.with_suffix(".npz")).weights.keys() == load(path).weights.keys()


def test_a_model_is_no_checkpoint(tmp_path: Path, contents: Contents) -> None:
    save(tmp_path / "model.safetensors", contents)
    with pytest.raises(FileError, match="expected a checkpoint, got a model without the state of its training"):
        load_run(tmp_path / "model.safetensors")


def test_every_flipped_bit_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        for reader in (load_run, read):
            with pytest.raises(RnnZooError):
                reader(path)


def test_every_truncation_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        with pytest.raises(FileError):
            load_run(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "written for spec version 2.*newer rnnzoo"),
        ({"training": []}, "expected the keys"),
        ({"training": {"step": 1}}, "expected the keys"),
        ({"note": 1}, "unknown key 'note'"),
    ],
)
def test_another_form_is_refused_by_name(path: Path, change: dict[str, object], words: str) -> None:
    arrays = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        data = json.loads(file.metadata()["rnnzoo"])
    safetensors.numpy.save_file(arrays, path, metadata={"rnnzoo": json.dumps({**data, **change})})
    with pytest.raises(FileError, match=words):
        load_run(path)
