"""What a run writes down of itself: JSON lines, TensorBoard's event files, a progress bar in a terminal."""

import json
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from rnnzoo.spec.errors import BackendError
from rnnzoo.tasks.metrics import Metrics, read_metrics
from rnnzoo.tasks.train import main

RUN = ["backend=numpy", "model.hidden_size=6", "trainer.steps=3", "trainer.evaluate_every=2", "hydra.run.dir=here"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def records(path: Path) -> Iterator[bytes]:
    """Of a file of TensorBoard's: a length, its checksum, so many bytes, their checksum."""
    data, place = path.read_bytes(), 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        yield data[place + 12 : place + 12 + length]
        place += 16 + length


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Name, step and value of every scalar in a folder's event file."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    (path,) = folder.glob("events.out.tfevents.*")
    events = [event_pb2.Event.FromString(record) for record in records(path)]
    return [(value.tag, event.step, value.simple_value) for event in events for value in event.summary.value]


def test_event_files_hold_on_request_what_the_json_lines_hold() -> None:
    assert main([*RUN, "trainer.tensorboard=true"]) == 0
    lines = read_metrics(Path("here"))
    wanted = [
        (f"{line['event']}/{name}", line["step"], float32(value))
        for line in lines for name, value in line.items()
        if name not in ("event", "step", "epoch")
    ]  # fmt: skip
    found = [(name, step, float32(value)) for name, step, value in scalars(Path("here/tensorboard"))]
    assert found == wanted and len(wanted) > 10


def test_the_event_files_of_a_run_that_goes_on_hold_all_of_it_once() -> None:
    assert main([*RUN, "trainer.tensorboard=true"]) == 0
    Path("here/model.safetensors").unlink()
    assert main(["resume=here", "trainer.steps=4"]) == 0
    lines = read_metrics(Path("here"))
    assert [(line["event"], line["step"]) for line in lines][-5:] == [
        ("evaluation", 2), ("update", 3), ("update", 4), ("evaluation", 4), ("summary", 4),
    ]  # fmt: skip
    found = [step for name, step, _ in scalars(Path("here/tensorboard")) if name == "update/loss"]
    assert found == [1, 2, 3, 4]


def float32(value: float) -> bytes:
    """The bits that an event file keeps of a number."""
    return struct.pack("<f", value)


def test_event_files_are_not_written_and_their_writer_is_not_loaded_unless_asked_for(
    fresh_python: Callable[..., CompletedProcess[str]],
) -> None:
    done = fresh_python(
        f"import sys; from rnnzoo.tasks.train import main; assert main({RUN}) == 0\n"
        "print(sorted({'tensorboardX', 'matplotlib', 'optuna', 'submitit'} & set(sys.modules)))"
    )
    assert done.stdout.endswith("\n[]\n"), done.stdout + done.stderr
    assert not list(Path().glob("**/tensorboard"))


def test_a_missing_writer_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(BackendError, match=r"'tensorboardX' is not installed; run: pip install 'rnnzoo\[tensorboard\]"):
        Metrics(tmp_path, tensorboard=True)
    assert not list(tmp_path.iterdir())


def test_a_line_that_is_not_whole_does_not_count(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.record("update", 1, 1, loss=0.5)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"event": "upd')
    assert read_metrics(tmp_path) == [{"event": "update", "step": 1, "epoch": 1, "loss": 0.5}]
    assert json.loads(path.read_text().splitlines()[0])["loss"] == 0.5


@pytest.mark.parametrize(("terminal", "wanted"), [(True, True), (True, False), (False, True)])
def test_the_progress_bar_tells_loss_and_rate_in_a_terminal_alone(
    terminal: bool, wanted: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: terminal)
    assert main([*RUN, f"trainer.progress={wanted}"]) == 0
    err = capsys.readouterr().err
    assert ("loss=" in err and "update/s" in err) is (terminal and wanted)
    assert (err == "") is not (terminal and wanted)
