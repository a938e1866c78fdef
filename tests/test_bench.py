"""The benchmark: each engine runs, times are of what was asked for, and a figure says whether it is met."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rnnzoo.benchmarks import figures, measuring
from rnnzoo.benchmarks.command import table
from rnnzoo.benchmarks.engines import ENGINES, load_engine
from rnnzoo.benchmarks.figures import Figure
from rnnzoo.benchmarks.measuring import Measured, Settings
from rnnzoo.benchmarks.problem import SHAPES, Problem
from rnnzoo.benchmarks.step import update
from rnnzoo.benchmarks.timing import Times, Worker, compare, environment, ratio
from rnnzoo.conformance.cli import main

SMALL = Problem(2, 5, 3, 4)
FORWARD_ALONE = {"onnxruntime", "keras eager", "rnnzoo tf eager"}


@pytest.mark.parametrize("engine", [name for name in ENGINES if not name.startswith(("keras", "floor, Tensor"))])
def test_an_engine_runs(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    timed = load_engine(engine)(SMALL)
    assert set(timed) == ({"f"} if engine in FORWARD_ALONE else {"f", "fb"})
    for call in timed.values():
        call()


def test_engines_in_processes_of_their_own_take_turns() -> None:
    with Worker("rnnzoo numpy", 1) as ours, Worker("NumPy loop", 1) as loop:
        found = compare({"ours": ours, "loop": loop}, SMALL, "fb", rounds=2)
        assert ours.process.pid != loop.process.pid
    assert all(len(times.rounds) == 2 and times.seconds > 0 for times in found.values())


def test_a_thread_count_reaches_every_library() -> None:
    found = environment(3)
    assert {found[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL")} == {"3"}
    assert found["TF_NUM_INTRAOP_THREADS"] == found["NPROC"] == "3"


def test_a_ratio_is_that_of_the_rounds() -> None:
    assert ratio(Times(9.0, [2.0, 40.0, 6.0]), Times(9.0, [1.0, 10.0, 3.0])) == 2.0


def test_a_figure_knows_whether_it_is_met() -> None:
    assert Figure("faster", 2.0, 2.1, True).met and not Figure("faster", 2.0, 1.9, True).met
    assert Figure("slower", 2.0, 1.9, False).met and not Figure("slower", 2.0, 2.1, False).met
    assert "MISSED" in Figure("slower", 2.0, 2.1, False).row()


@pytest.mark.parametrize("own", [{"rnnzoo tf": 1.0}, {"rnnzoo tf": 1.5, "rnnzoo tf XLA": 1.0}])
def test_figures_are_told_from_the_best_mode_of_both(own: dict[str, float]) -> None:
    times = {**own, "rnnzoo torch": 2.0, "keras graph": 3.0, "keras XLA": 5.0, "torch.nn.RNN": 4.0}
    measured = Measured(SHAPES[1], "fb", {name: Times(0.0, [seconds]) for name, seconds in times.items()})
    assert [(f.measured, f.asked) for f in figures.gains([measured])] == [(2.0, 1.5), (3.0, 1.8)]
    assert "rnnzoo torch" in table([measured, measured], Settings(1, "cpu", 1, print))


@pytest.mark.parametrize("engine", ["rnnzoo numpy fb", "rnnzoo torch fb", "rnnzoo torch update"])
def test_memory_of_gradients_is_within_what_was_asked_for(engine: str) -> None:
    assert [figure.what for figure in figures.memory_of(engine) if not figure.met] == []


@pytest.mark.long
def test_an_update_of_tensorflow_that_recomputes_takes_half_of_the_memory_at_most() -> None:
    figure = next(figures.memory_of("rnnzoo tf update"))  # two processes each: the others are left to the command
    assert "recompute" in figure.what and figure.met


@pytest.mark.parametrize("size", ["T", "L"])
@pytest.mark.parametrize("engine", ["rnnzoo numpy", "rnnzoo torch"])
def test_time_grows_with_steps_and_layers_and_no_faster(engine: str, size: str) -> None:
    few, many = {"T": (1000, 10_000), "L": (2, 16)}[size]
    base = Problem(4, 100, 8, 16)
    calls = [load_engine(engine)(base.changed(**{size: number}))["fb"] for number in (few, many)]
    times = [min(taken) for taken in zip(*[[seconds(call) for call in calls] for _ in range(4)], strict=True)]
    # Were a sixteenth of the time of the few quadratic, each of the many would take 15/16 + 8/16 = 1.44 times as long.
    assert times[1] / times[0] / (many / few) < 1.4


def seconds(call: Callable[[], object]) -> float:
    """Of the processor; the best of several calls is the one that nothing disturbed."""
    start = time.process_time()
    call()
    return time.process_time() - start


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_data_metrics_and_progress_are_a_tenth_of_an_update_at_most(backend: str) -> None:
    found = update(backend)
    assert min(found) > 0 and found.around < 0.1


def test_bad_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--threads", "0"]) == 2
    assert "--threads: expected at least 1, got 0" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--device", "warp"]) == 2
    assert "--device: expected cpu, or a device that torch has here, got 'warp'" in capsys.readouterr().err


def test_on_another_device_torch_is_held_against_its_own_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measuring, "SHAPES", (SMALL,) * 3)
    monkeypatch.setattr(measuring, "VARIANTS", ())
    status = main(["bench", "--device", "cpu:0", "--rounds", "1", "--threads", "1", "--out", str(tmp_path)])
    data = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert {(time["engine"], time["problem"]["device"]) for time in data["times"]} == {
        ("rnnzoo torch", "cpu:0"), ("torch.nn.RNN", "cpu:0")
    }  # fmt: skip
    assert len(data["figures"]) == 8 and all(figure["asked"] == 0.95 for figure in data["figures"])
    assert status == (0 if all(figure["met"] for figure in data["figures"]) else 1)
    assert "on cpu:0, times faster than its rival, (2, 5, 3, 4), mean length T/2" in capsys.readouterr().out


@pytest.mark.long
def test_the_command_writes_data_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SWEEPS", {size: (SMALL, SMALL.changed(**{size: 8})) for size in "THBL"})
    main(["bench", "--rounds", "1", "--threads", "1", "--out", str(tmp_path)])
    data = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert {time["engine"] for time in data["times"]} == set(ENGINES)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
