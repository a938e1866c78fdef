"""`rnnzoo check` and what it stands on: processes, first divergences, smaller cases, known failures."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance import expected, known_failures, summaries
from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.cli import main
from rnnzoo.conformance.diagnosis import diagnosed
from rnnzoo.conformance.implementations import Implementation, implementation, installed
from rnnzoo.conformance.items import Item, item, items
from rnnzoo.conformance.outcomes import Outcome, run
from rnnzoo.conformance.suite import Plan, run_suite
from rnnzoo.conformance.training import TrainingCase, training_cases
from rnnzoo.numpy_impl.backend import NumpyBackend
from rnnzoo.spec import ModelSpec, Result
from rnnzoo.spec.errors import FileError, UnsupportedError

BROKEN = '''
import os, signal, time
import numpy as np
from dataclasses import replace
from rnnzoo.numpy_impl.backend import NumpyBackend

class Broken(NumpyBackend):
    """Reads the word of its name in every third item or so."""
    def __init__(self, how):
        self.name, self.how = how, how
    def run(self, model, inputs, *args, **kwargs):
        if model.spec.num_layers == 2:
            print("noise on the standard output")
            if self.how == "crashes":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.how == "exits":
                os._exit(7)
            if self.how == "hangs":
                time.sleep(3600)
        result = super().run(model, inputs, *args, **kwargs)
        if self.how == "wrong" and model.spec.num_layers == 2:
            return replace(result, outputs=result.outputs + 1e-3)
        return result

CRASHES, EXITS, HANGS, WRONG = (Broken(how) for how in ("crashes", "exits", "hangs", "wrong"))
'''


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "broken_backend.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def _few() -> list[Item]:
    """Two of one layer, one of two, and again two of one."""
    small = [item("results", Case(ModelSpec("simple_rnn", 1, 1), 1, n), "float64") for n in (1, 2, 3, 4)]
    return [*small[:2], item("results", Case(ModelSpec("stacked_rnn", 1, 2, 2), 2, 3), "float64"), *small[2:]]


@pytest.mark.parametrize(("name", "message"), [
    ("CRASHES", "ended with signal 11"), ("EXITS", "ended with exit status 7"), ("HANGS", "no result in 3 seconds"),
])  # fmt: skip
def test_the_suite_goes_on_after_the_item_that_breaks_a_process(broken, name: str, message: str):
    plan = Plan(_few(), jobs=1, seconds=3.0)
    outcomes = [outcome for _, outcome in run_suite([implementation(f"broken_backend:{name}")], plan)]
    assert [outcome.item for outcome in outcomes] == _few()
    assert [outcome.verdict for outcome in outcomes] == ["passed", "passed", "failed", "passed", "passed"]
    assert message in outcomes[2].message


def test_several_implementations_run_beside_each_other(broken):
    chosen = [implementation("numpy"), implementation("broken_backend:WRONG")]
    found = list(run_suite(chosen, Plan(_few(), jobs=2)))
    found.sort(key=lambda pair: _few().index(pair[1].item))
    verdicts = {one.name: [o.verdict for other, o in found if other == one] for one in chosen}
    assert verdicts == {"numpy": ["passed"] * 5, "broken_backend:WRONG": ["passed"] * 2 + ["failed"] + ["passed"] * 2}


def test_an_implementation_that_cannot_be_loaded_is_bad_input(capsys: pytest.CaptureFixture[str]):
    assert main(["check", "--quick", "--backend", "nothing"]) == 2
    assert "unknown backend 'nothing'" in capsys.readouterr().err


def test_an_environment_reaches_the_process(broken, tmp_path: Path):
    (tmp_path / "in_environment.py").write_text(
        "import os\nfrom rnnzoo.numpy_impl.backend import NumpyBackend\n"
        "class B(NumpyBackend):\n    def supports(self, spec): return os.environ['WORD']\nOBJECT = B()\n"
    )
    one = Implementation("x", "in_environment:OBJECT", {"WORD": "so be it"})
    assert {outcome.message for _, outcome in run_suite([one], Plan(_few()))} == {"so be it"}


class _Shifted(NumpyBackend):
    """Outputs that are off from a layer, a direction and a step on."""

    name = "shifted"

    def __init__(self, layer: int, direction: int, step: int, row: int = 0) -> None:
        self.layer, self.direction, self.step, self.row = layer, direction, step, row

    def run(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Result:
        result = super().run(model, inputs, *args, **kwargs)
        if model.spec.num_layers <= self.layer or result.outputs.shape[1] <= self.step:
            return result
        outputs, size = result.outputs.copy(), model.spec.hidden_size
        steps = slice(self.step, None) if self.direction == 0 else slice(None, self.step + 1)
        outputs[self.row :, steps, self.direction * size : (self.direction + 1) * size] += 1e-3
        return replace(result, outputs=outputs)


@pytest.mark.parametrize(("layer", "direction", "step"), [(0, 0, 2), (0, 1, 3), (1, 0, 0), (1, 1, 1), (2, 0, 4)])
def test_the_first_divergence_names_layer_direction_step_and_row(layer: int, direction: int, step: int):
    backend = _Shifted(layer, direction, step, row=1)
    case = Case(ModelSpec("stacked_bi_rnn", 2, 3, 3), 3, 5, "full", True)
    outcome = run(backend, item("results", case, "float32"))
    assert outcome.verdict == "failed"
    found = diagnosed(backend, outcome, shrink=False).divergence
    assert found is not None and found.tensor == "outputs"
    assert (found.layer, found.direction) == (layer, ("forward", "backward")[direction])
    assert (found.step, found.row) == (step, 1)
    rounded = abs(found.got) * 2.0**-24  # of the sum that shifted it
    assert abs(found.got - 1e-3 - found.expected) <= found.allowed + rounded < 1e-3
    assert f"layer {layer}, {found.direction}, time step {step}, row 1" in str(found)


class _WrongGradient(NumpyBackend):
    name = "wrong_gradient"

    def gradients(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        found = super().gradients(*args, **kwargs)
        name = "layers.1.backward.recurrent_weight"
        return {**found, name: -found[name]} if name in found else found


def test_the_first_divergence_of_a_gradient_names_its_tensor():
    case = Case(ModelSpec("stacked_bi_rnn", 2, 3, 2), 2, 4)
    outcome = run(_WrongGradient(), item("gradients", case, "float64"))
    found = diagnosed(_WrongGradient(), outcome, shrink=False).divergence
    assert found is not None and found.tensor == "layers.1.backward.recurrent_weight"
    assert (found.layer, found.direction, found.step) == (1, "backward", None)


def test_a_failure_shrinks_to_the_smallest_case_that_still_fails():
    case = Case(ModelSpec("stacked_bi_rnn", 3, 4, 3, "relu", "double"), 4, 6, "holes", True)
    backend = _Shifted(1, 0, 2)
    outcome = run(backend, item("results", case, "float64"))
    small = diagnosed(backend, outcome).smaller
    assert small is not None and run(backend, small).verdict == "failed"
    found = small.case
    assert (found.rows, found.steps, found.sequences, found.initial) == (1, 3, "full", False)
    spec = found.spec
    assert (spec.variant, spec.num_layers, spec.hidden_size, spec.input_size) == ("stacked_rnn", 2, 1, 1)
    assert (spec.bias, spec.nonlinearity) == ("none", "identity")


class _RaisesInTraining(NumpyBackend):
    name = "raises"

    def trainer(self, model: Any, training: Any) -> Any:
        raise ValueError("no training today")


def test_a_training_case_shrinks_too():
    case = next(case for case in training_cases() if case.carries and case.training.clip)
    backend = _RaisesInTraining()
    outcome = run(backend, item("training", case, "float64"))
    small = diagnosed(backend, outcome).smaller
    assert small is not None and isinstance(small.case, TrainingCase)
    assert small.case.training.clip is None and not small.case.carries and small.case.case.steps == 1


def test_an_error_does_not_shrink_into_another_error():
    class Picky(NumpyBackend):
        name = "picky"

        def run(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Result:
            if inputs.shape[1] < 3:
                raise TypeError("too short")
            raise ValueError("in any case")

    outcome = run(Picky(), item("results", Case(ModelSpec("simple_rnn", 2, 2), 2, 5), "float64"))
    small = diagnosed(Picky(), outcome).smaller
    assert small is not None and small.case.steps == 3


def test_what_a_backend_finds_unsupported_when_it_runs_is_skipped():
    class Declines(NumpyBackend):
        name = "declines"

        def run(self, *args: Any, **kwargs: Any) -> Result:
            raise UnsupportedError("not this one")

    outcome = run(Declines(), _few()[0])
    assert (outcome.verdict, outcome.message) == ("skipped", "not this one")


def test_a_precision_that_a_backend_does_not_list_is_skipped():
    class Narrow(NumpyBackend):
        dtypes = ("float32",)

    assert run(Narrow(), _few()[0]).message == "numpy does not compute in float64"


def _check(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    code = "import sys; from rnnzoo.conformance.cli import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(cwd) if cwd else ""}
    command = [sys.executable, "-P", "-c", code, "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def test_a_failure_is_told_with_a_command_that_shows_it_again(broken: Path):
    name = "results-float64-stacked_rnn-tanh-none-full-zero-4x5x2x3x2"
    assert name in [item.name for item in items()]
    first = _check("--backend", "broken_backend:WRONG", "--item", name, cwd=broken)
    assert first.returncode == 1 and "first divergence: outputs, layer 1, forward, time step 0" in first.stdout
    command = next(line for line in first.stdout.splitlines() if "again: " in line).split("again: rnnzoo ")[1]
    code = "import sys; from rnnzoo.conformance.cli import main; sys.exit(main())"
    script = f'{sys.executable} -P -c "{code}" {command}'
    again = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=broken,
                           env={**os.environ, "PYTHONPATH": str(broken)})  # fmt: skip
    assert again.returncode == 1 and "1 failed" in again.stdout and "1x1x1x1x2" in again.stdout


def test_known_failures_turn_a_run_green_and_are_told(broken: Path):
    known = broken / "known.txt"
    known.write_text("# Two layers are too much for it.\n# See the thread.\nresults-*-stacked_*\n")
    names = ["--item", "results-float32-stacked_rnn-tanh-none-*", "--item", "results-float32-simple_rnn-tanh-none-*"]
    done = _check("--backend", "broken_backend:WRONG", "--known-failures", str(known), *names, cwd=broken)
    assert done.returncode == 0, done.stdout
    assert "known failure;" in done.stdout.splitlines()[-1] and "FAILED" not in done.stdout


@pytest.mark.parametrize(("text", "message"), [
    ("# Nothing has this name.\nnothing-*\n", "line 2: 'nothing-*' matches no item"),
    ("# One layer works.\n\nresults-*-simple_rnn-*\n", "which did not fail"),
])  # fmt: skip
def test_a_list_of_known_failures_that_is_out_of_date_fails(broken: Path, text: str, message: str):
    (broken / "known.txt").write_text(text)
    name = "results-float32-simple_rnn-tanh-none-*"
    done = _check("--backend", "numpy", "--known-failures", str(broken / "known.txt"), "--item", name, cwd=broken)
    assert done.returncode == 1 and message in done.stdout


def test_a_known_failure_without_a_reason_is_refused(tmp_path: Path):
    (tmp_path / "known.txt").write_text("results-*\n")
    with pytest.raises(FileError, match="line 1: expected a reason"):
        known_failures.read(tmp_path / "known.txt")
    with pytest.raises(FileError, match="cannot be read"):
        known_failures.read(tmp_path / "absent.txt")


def test_reasons_belong_to_the_lines_below_them(tmp_path: Path):
    (tmp_path / "known.txt").write_text("# One.\n# Still one.\na-*\nb-*\n\n# Two.\nc-*\n")
    rows = known_failures.read(tmp_path / "known.txt")
    assert [(row.pattern, row.reason, row.line) for row in rows] == [
        ("a-*", "One. Still one.", 3), ("b-*", "One. Still one.", 4), ("c-*", "Two.", 7),
    ]  # fmt: skip


def test_every_list_of_known_failures_that_comes_with_rnnzoo_can_be_read_and_matches():
    table = items()
    for path in known_failures.FOLDER.glob("*.txt"):
        assert known_failures.mistakes(known_failures.read(path), [], table) == [], path.name


@pytest.mark.parametrize(
    "text", ["nothing-like-it", "{", '{"check": "results"}', '{"check": "x", "case": {}, "dtype": "float64"}']
)
def test_an_item_that_does_not_exist_is_bad_input(text: str, capsys: pytest.CaptureFixture[str]):
    assert main(["check", "--backend", "numpy", "--item", text]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_implementation_that_skips_everything_is_not_green(broken: Path):
    (broken / "shy.py").write_text(
        "from rnnzoo.numpy_impl.backend import NumpyBackend\n"
        "class B(NumpyBackend):\n    def supports(self, spec): return 'rather not'\nOBJECT = B()\n"
    )
    done = _check("--quick", "--backend", "shy:OBJECT", cwd=broken)
    assert done.returncode == 1 and "NOTHING CHECKED shy:OBJECT" in done.stdout and "rather not" in done.stdout


def test_a_report_has_every_outcome(broken: Path):
    done = _check("--backend", "numpy", "--item", "results-float32-simple_rnn-*", "--report", "found", cwd=broken)
    assert done.returncode == 0
    data = json.loads((broken / "found" / "report.json").read_text())
    wanted = [item.name for item in items() if item.name.startswith("results-float32-simple_rnn-")]
    assert [outcome["item"] for outcome in data["outcomes"]] == wanted
    assert {path.name for path in (broken / "found").iterdir()} == {"report.json", "junit.xml", "index.html"}
    assert (
        data["backends"] == [{"name": "numpy", "versions": {}, "declared_not_tested": None}]
        and data["machine"]["numpy"] == np.__version__
    )


def test_random_cases_are_the_same_each_time_and_pass(broken: Path):
    done = _check("--backend", "numpy", "--random", "5")
    assert done.returncode == 0 and "26 passed" in done.stdout
    ratio = done.stdout.split("error/bound: ")[1]
    assert _check("--backend", "numpy", "--random", "5").stdout.split("error/bound: ")[1].split(", in ")[0] in ratio


def test_the_table_by_clause_is_markdown(broken: Path):
    known = broken / "known.txt"
    known.write_text("# Two layers are too much for it.\nresults-*-stacked_*x2\n")
    names = ["--item", "results-float32-s*_rnn-tanh-none-*-zero-*", "--item", "results-float32-s*_rnn-tanh-*"]
    names += ["--known-failures", str(known)]
    done = _check("--backend", "broken_backend:WRONG", *names, "--table", "page.md", cwd=broken)
    lines = (broken / "page.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    cells = dict(zip(rows[0], rows[2], strict=True))
    assert done.returncode == 0 and cells["3 step"] == "yes" and cells["4.2 stacking"] == "**no**"
    assert any(" of " in cell for cell in cells.values()) and "- Two layers are too much for it." in lines


def test_what_is_not_installed_is_named_with_a_way_out(monkeypatch: pytest.MonkeyPatch):
    from rnnzoo.conformance import implementations

    monkeypatch.setattr(implementations.importlib.util, "find_spec", lambda name: None)
    found, reasons = installed(["numpy", "torch"])
    assert found == ["numpy"] and reasons == [
        "torch: the package 'torch' is not installed; run: pip install 'rnnzoo[torch]'"
    ]


def test_a_run_of_more_numbers_than_the_bounds_are_made_for_says_so(monkeypatch: pytest.MonkeyPatch):
    outcomes = [(implementation("numpy"), run(NumpyBackend(), one)) for one in _few()[:1]]
    assert summaries.totals(outcomes).startswith("1 passed; of 2 numbers, ")  # one output, one final state
    for compared, said in ((2, False), (1, True)):
        monkeypatch.setattr(summaries, "COMPARED", compared)
        assert ("more numbers than the 1 of SPEC.md, 11.5" in summaries.totals(outcomes)) == said


def test_outcomes_say_what_was_worst():
    outcome = run(NumpyBackend(), _few()[2])
    assert isinstance(outcome, Outcome) and outcome.worst is not None
    assert outcome.worst.ratio == max(c.ratio for c in outcome.comparisons) < 1 and outcome.seconds > 0


def test_what_one_process_computed_is_taken_by_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one = item("results", Case(ModelSpec("simple_rnn", 1, 2), 1, 2), "float64")
    monkeypatch.setattr(expected, "_folder", None)
    expected.share(tmp_path)
    first = expected.truth_and_bounds("everything", one.case, one.dtype)
    assert len(list(tmp_path.iterdir())) == 2  # the truth, and the bounds of one precision
    expected._truth.cache_clear()
    expected._bounds.cache_clear()
    monkeypatch.setattr(expected, "_quantities", None)  # nothing is computed again
    again = expected.truth_and_bounds("everything", one.case, one.dtype)
    assert all(np.array_equal(again[0][name].nearest, value.nearest) for name, value in first[0].items())
    assert all(np.array_equal(again[1].allowed[name], value) for name, value in first[1].allowed.items())


def test_a_disk_that_is_full_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(expected, "_folder", tmp_path / "missing")
    outcome = run(NumpyBackend(), item("results", Case(ModelSpec("simple_rnn", 1, 2), 2, 2), "float64"))
    assert outcome.verdict == "passed"
