"""`make results`: what counts as published, the table, and that the README has a line for each experiment."""

from dataclasses import replace
from pathlib import Path

import pytest

from rnnzoo.spec import load
from rnnzoo.spec.errors import FileError
from rnnzoo.tasks.loop import Summary
from rnnzoo.tasks.outcomes import Outcome
from rnnzoo.tasks.results import BEGIN, END, Result, experiments, main, missing, write_between
from rnnzoo.tasks.task import TASKS
from rnnzoo.tasks.train import main as train

SUMMARY = Summary("digits", "bi_rnn", "numpy", "accuracy", 0.9, 0.1, "the most frequent class", 3, 1.5, "/run")
ERROR = replace(SUMMARY, task="adding", metric="mean_squared_error", value=0.01, baseline=0.167)


def failure(summary: Summary, reaches: float | None = None, misses: float | None = None) -> str | None:
    return Result({}, Outcome(0, "", summary), reaches, misses).failure


def test_a_value_must_reach_what_is_published_and_beat_the_baseline() -> None:
    assert failure(SUMMARY, 0.9) is None and failure(ERROR, 0.01) is None
    assert failure(SUMMARY, 0.91) == "accuracy 0.9000, published to reach 0.91"
    assert failure(ERROR, 0.009) == "mean_squared_error 0.0100, published to reach 0.009"
    assert "does not beat" in str(failure(replace(SUMMARY, baseline=0.9), 0.9))
    assert "does not beat" in str(failure(replace(ERROR, baseline=0.01), 0.01))
    assert failure(replace(ERROR, value=0.2), misses=0.15) is None
    assert failure(ERROR, misses=0.15) == "mean_squared_error 0.0100, known not to reach 0.15"
    assert Result({}, Outcome(0, "", error="refused", status=2), None, None).failure == "refused"


def test_a_run_that_did_not_end_is_a_failure() -> None:
    asked = [{"experiment": "a", "backend": name, "trainer.seed": seed} for name in ("x", "y") for seed in ("0", "1")]
    results = [Result(part, Outcome(0, "", SUMMARY), None, None) for part in asked]
    assert missing(results) == []
    assert missing(results[:3]) == ["a y 1: no outcome, the run did not end"]


def test_every_task_has_an_experiment_that_says_what_it_reaches_or_misses(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = set()
    for name in experiments():
        assert train([f"experiment={name}", "--cfg", "job"]) == 0
        out = capsys.readouterr().out
        assert ("reaches: null" in out) is not ("misses: null" in out), name
        tasks.add(next(line.split()[1] for line in out.splitlines() if line.strip().startswith("name:")))
    assert tasks == set(TASKS)


def test_an_override_wins_over_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["experiment=adding", "task.length=7", "model=bi_rnn", "trainer.steps=1", "backend=numpy"]
    assert train([*options, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    contents = load(tmp_path / "run" / "model.safetensors")
    assert (contents.provenance["task"]["length"], contents.spec.variant) == (7, "bi_rnn")


def test_the_command_measures_writes_and_fails_where_a_figure_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rnnzoo.tasks.results.BUILT_IN", {"numpy": "numpy"})
    monkeypatch.setattr("rnnzoo.tasks.results.VARIANTS", {})
    Path("page.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    arguments = ["runs", "--readme", "page.md", "--seeds", "0,1", "--only", "forecast_co2,adding"]
    monkeypatch.setattr("rnnzoo.tasks.results.CHAOTIC", ("adding",))
    monkeypatch.setattr("rnnzoo.tasks.results.train", lambda given: train([*given, "trainer.steps=2"]))
    assert main(arguments) == 1
    assert "published to reach 0.29" in capsys.readouterr().err
    page = Path("page.md").read_text().splitlines()
    (row,) = [line for line in page if line.startswith("| `forecast_co2`")]
    models = Path("runs/experiments").rglob("model.*")
    values = [load(path).provenance["metrics"]["mean_absolute_error"] for path in models]
    assert sorted(row.split(" | ")[3].split()) == sorted(f"{value:.4f}" for value in values) and len(values) == 2
    (row,) = [line for line in page if line.startswith("| `adding`")]
    assert len(row.split(" | ")[3].split()) == 1
    assert (page[0], page[-1], "old" in page) == ("before", "after", False)


def test_a_page_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(f"{END}\n")
    with pytest.raises(FileError, match=r"page\.md: expected one line"):
        write_between(tmp_path / "page.md", ["x"])
    assert (tmp_path / "page.md").read_text() == f"{END}\n"


def test_the_readme_has_the_marks(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    assert (text.count(BEGIN), text.count(END)) == (1, 1)
