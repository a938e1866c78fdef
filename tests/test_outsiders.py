"""What somebody sees whose implementation hangs, raises, answers with something else, or supports little."""

import importlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from rnnzoo.conformance import conformance_tests
from rnnzoo.conformance.cases import DTYPES, Case
from rnnzoo.conformance.declared import declaration, untested, values
from rnnzoo.conformance.diagnosis import diagnosed
from rnnzoo.conformance.items import Item, item, items
from rnnzoo.conformance.outcomes import Outcome, run
from rnnzoo.conformance.patience import CRASHES, HANGS, Patience
from rnnzoo.conformance.stateless import StatelessBackend
from rnnzoo.conformance.training import quick_training_cases
from rnnzoo.numpy_impl.backend import NumpyBackend
from rnnzoo.spec import ModelSpec, Result
from rnnzoo.spec.definitions import BIASES
from rnnzoo.spec.errors import ConformanceError, FileError
from rnnzoo.spec.model import NONLINEARITIES

BACKENDS = """
import os, signal, time
from rnnzoo.numpy_impl.backend import NumpyBackend

class Hangs(NumpyBackend):
    name = "hangs"
    def run(self, model, inputs, *args, **kwargs):
        while len(inputs) == 4:
            time.sleep(0.1)
        return super().run(model, inputs, *args, **kwargs)

class Raises(NumpyBackend):
    name = "raises"
    def run(self, model, inputs, *args, **kwargs):
        return self.looked_up(inputs)
    def looked_up(self, inputs):
        return {}["nothing"]  # here it breaks

class Crashes(NumpyBackend):
    name = "crashes"
    def run(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGSEGV)

class Narrow(NumpyBackend):
    name = "narrow"
    encoder_decoders = False
    def supports(self, spec):
        fits = (spec.variant, spec.nonlinearity, spec.bias) == ("simple_rnn", "tanh", "none") and spec.is_core
        return None if fits else "one layer with tanh"

class Nothing(NumpyBackend):
    name = "nothing"
    encoder_decoders = False
    def supports(self, spec):
        return "not yet"

class Answers(NumpyBackend):
    name = "answers"
    def supports(self, spec):
        return True

class Wrong(NumpyBackend):
    name = "wrong"
    encoder_decoders = False
    def run(self, model, inputs, *args, **kwargs):
        found = super().run(model, inputs, *args, **kwargs)
        if model.spec.bias == "double":
            found.outputs[0, 0, 0] += 1e-3  # at a valid step
        return found

class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no words")

class Breaks(NumpyBackend):
    name = "breaks"
    def run(self, *args, **kwargs):
        raise Wordless

HANGS, RAISES, CRASHES, WRONG, NARROW = Hangs(), Raises(), Crashes(), Wrong(), Narrow()
NOTHING, ANSWERS, WORDLESS = Nothing(), Answers(), Breaks()
"""
BREAKS = next(number for number, line in enumerate(BACKENDS.splitlines(), start=1) if "here it breaks" in line)
ONE = "results-float32-simple_rnn-tanh-none-full-zero-4x5x2x3x1"
SIMPLE = ModelSpec("simple_rnn", 2, 3)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    (tmp_path / "theirs.py").write_text(BACKENDS)
    return tmp_path


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment = {**kept, "PYTHONPATH": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def _check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from rnnzoo.conformance.cli import main; sys.exit(main())"
    return _run(folder, sys.executable, "-P", "-c", code, "check", *arguments)


def _pytest(folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    text = "\n".join(["from rnnzoo.conformance import conformance_tests", *lines, ""])
    (folder / "test_theirs.py").write_text(text)
    return _run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_theirs.py")


# --- hanging and crashing ---


def test_an_implementation_that_hangs_twice_is_given_up_and_the_rest_fails_unrun(theirs: Path):
    names = ["--item", "results-float32-simple_rnn-*-full-*"]
    done = _check(theirs, "--backend", "theirs:HANGS", "--item-seconds", "1", "--report", "found", *names)
    outcomes = json.loads((theirs / "found" / "report.json").read_text())["outcomes"]
    hung = [one for one in outcomes if "no result in 1 seconds" in one["message"]]
    unrun = [one for one in outcomes if one["message"].startswith("not run: it hung in 2 items")]
    passed = [one for one in outcomes if one["verdict"] == "passed"]
    assert HANGS <= len(hung) <= HANGS + 1  # another process may have been in one
    assert len(unrun) > 10 and len(hung) + len(unrun) + len(passed) == len(outcomes)
    assert {one["verdict"] for one in [*hung, *unrun]} == {"failed"}
    assert done.returncode == 1 and f"NOT RUN theirs:HANGS: {len(unrun)} items" in done.stdout
    assert all('theirs.py", line 9, in run' in one["message"] for one in hung), hung[0]["message"]


HANGING_PROGRAM = """
import json, sys, time
VALUES = {
    "dtypes": ["float64"], "cells": ["rnn"], "variants": ["simple_rnn"], "nonlinearities": ["tanh"],
    "biases": ["none", "single", "double"],
    "merges": [], "heads": [], "parts": [], "takes": ["lengths", "initial_state"], "gives": ["results"],
}
for line in sys.stdin:
    request = json.loads(line)
    if request["command"] == "run":
        print("one step more", file=sys.stderr, flush=True)
        %s
    result = {"name": "slow", "version": "1", "language": "Python"} if request["command"] == "start" else VALUES
    print(json.dumps({"seq": request["seq"], "result": result}), flush=True)
"""


def test_a_program_that_hangs_is_given_up_too(tmp_path: Path):
    (tmp_path / "slow.py").write_text(HANGING_PROGRAM % "time.sleep(1000)")
    command = f"{sys.executable} {tmp_path / 'slow.py'}"
    done = _check(tmp_path, "--process", command, "--quick", "--item-seconds", "0.5", "--jobs", "1")
    assert done.returncode == 1 and done.stdout.count("expected an answer within 0.5 s") == HANGS
    assert "NOT RUN slow: " in done.stdout and "one step more" in done.stdout


@pytest.mark.parametrize(("what", "message"), [
    ("sys.exit(3)", "it ended with exit status 3"),
    ("print('hello', flush=True); continue", "got b'hello'"),
])  # fmt: skip
def test_a_program_that_is_lost_in_every_item_is_given_up_and_the_rest_fails_unrun(
    what: str, message: str, tmp_path: Path
):
    (tmp_path / "slow.py").write_text(HANGING_PROGRAM % what)
    command = f"{sys.executable} {tmp_path / 'slow.py'}"
    done = _check(tmp_path, "--process", command, "--quick", "--jobs", "1", "--report", "found")
    outcomes = json.loads((tmp_path / "found" / "report.json").read_text())["outcomes"]
    asked = [one for one in outcomes if one["verdict"] == "failed"]
    unrun = [one for one in asked if one["message"].startswith(f"not run: it crashed in {CRASHES} items in a row")]
    assert done.returncode == 1 and done.stdout.count(message) == len(asked) - len(unrun) == CRASHES
    assert f"NOT RUN slow: {len(unrun)} items" in done.stdout and not any(o["verdict"] == "passed" for o in outcomes)


def test_a_backend_that_crashes_in_every_item_is_given_up_too(theirs: Path):
    done = _check(theirs, "--backend", "theirs:CRASHES", "--item", "results-float32-simple_rnn-*-full-*", "--jobs", "1")
    assert done.returncode == 1 and done.stdout.count("ended with signal 11") == CRASHES
    assert re.search(
        rf"NOT RUN theirs:CRASHES: \d+ items, not run: it crashed in {CRASHES} items in a row", done.stdout
    )


def test_crashes_between_which_something_is_answered_do_not_add_up():
    patience, one = Patience(), item("results", Case(SIMPLE, 2, 3), "float64")
    crash, failure, skip = (Outcome(one, "failed", ended="crashed"), Outcome(one, "failed"), Outcome(one, "skipped"))
    for outcome in [*[crash] * (CRASHES - 1), failure, *[crash, skip] * (CRASHES - 1)]:
        patience.note(outcome)
    assert patience.lost is None
    patience.note(crash)
    assert patience.lost and patience.not_run(one).verdict == "failed"


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_seconds_that_are_none_are_bad_usage(text: str, tmp_path: Path):
    done = _check(tmp_path, "--item-seconds", text)
    assert done.returncode == 2 and f"--item-seconds: expected a number above 0, got '{text}'" in done.stderr


def test_in_pytest_a_hang_in_python_is_interrupted_and_the_third_test_is_not_run(theirs: Path):
    done = _pytest(theirs, 'test_rnn = conformance_tests("theirs:HANGS", quick=True, item_seconds=0.5)')
    assert done.returncode == 1 and done.stdout.count("no result in 0.5 seconds; it was interrupted") >= HANGS
    assert "not run: it hung in 2 items and was given up" in done.stdout and 'theirs.py", line 9, in run' in done.stdout


# --- raising ---


def test_what_an_implementation_raises_comes_with_file_line_and_calls_in_every_report(theirs: Path):
    done = _check(theirs, "--backend", "theirs:RAISES", "--item", ONE, "--report", "found")
    place = f'theirs.py", line {BREAKS}, in looked_up'
    assert done.returncode == 1 and "KeyError: 'nothing'" in done.stdout and place in done.stdout
    report = (theirs / "found" / "report.json").read_text()
    failure = next(ET.parse(theirs / "found" / "junit.xml").getroot().iter("failure"))
    assert failure.get("message") == "KeyError: 'nothing'" and place in (failure.text or "")
    assert place in json.loads(report)["outcomes"][0]["message"]
    assert place.replace('"', '\\"') in (theirs / "found" / "index.html").read_text()
    shown = _pytest(theirs, 'test_rnn = conformance_tests("theirs:RAISES", quick=True)').stdout
    assert place in shown


def test_what_is_raised_outside_an_item_ends_the_run_with_one_message(theirs: Path):
    done = _check(
        theirs, "--backend", "theirs:WORDLESS", "--item", "results-float32-simple_rnn-*-full-*", "--jobs", "2"
    )
    assert done.returncode == 2 and not done.stdout and done.stderr.count("theirs:WORDLESS") == 1
    assert "theirs:WORDLESS: expected results, got an error: RuntimeError: no words" in done.stderr
    assert 'theirs.py", line' in done.stderr and "in __str__" in done.stderr


def test_calls_begin_in_the_implementation_and_a_crash_tells_them_too(theirs: Path):
    done = _check(theirs, "--backend", "theirs:CRASHES", "--item", ONE)
    lines = done.stdout.split("ended with signal 11")[1].splitlines()[1:]
    assert 'theirs.py", line' in lines[0] and "os.kill" in lines[1] and "again: " in lines[2]


SIGNATURES = [
    ("results", "def run(self, model, inputs): ...", "run(model, inputs, lengths=..., initial_state=...)"),
    ("results", "def run(self, *given, mood, **named): ...", "missing 1 required keyword-only argument: 'mood'"),
    ("results", "def build(self, spec): ...", "build(spec, dtype=...)"),
    ("results", "def from_spec(self, model): ...", "from_spec(model, weights)"),
    ("weights", "def to_spec(self): ...", "to_spec(model)"),
    ("results", "def supports(self): ...", "supports(spec)"),
    ("gradients", "def gradients(self, model, inputs, grad): ...", "gradients(model, inputs, outputs_cotangent=..., "),
    ("training", "def trainer(self, model): ...", "trainer(model, training)"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "method", "words"), SIGNATURES)
def test_a_method_that_takes_other_arguments_is_told_with_its_place_and_the_call(check: str, method: str, words: str):
    name = method.split("(")[0].removeprefix("def ")
    source = f"class Odd(NumpyBackend):\n\n    {method}"
    exec(compile(source, "/their/file.py", "exec"), {"NumpyBackend": NumpyBackend}, made := {})
    case = quick_training_cases()[0] if check == "training" else Case(SIMPLE, 2, 3, "lengths", True)
    first, second, *others = run(made["Odd"](), item(check, case, "float64")).message.split("\n")
    assert words in first and f"got {name}(" in first and "(SPEC.md, 13.3)" in first
    assert second == f'  File "/their/file.py", line 3, in {name}' and not others


class _Function(StatelessBackend):
    name = "function"

    def supports(self, spec: Any) -> str | None:
        return None


def test_what_a_stateless_backend_lacks_or_mistypes_is_told_without_a_traceback():
    class Other(_Function):
        def results(self, model: Any) -> Any: ...  # type: ignore[override]

    one = item("results", Case(SIMPLE, 2, 3), "float64")
    told = run(Other(), one).message.splitlines()
    assert "results: expected a method that can be called as results(model, given)" in told[0] and len(told) == 2
    assert "expected the class _Function to have results(model, given), got none" in run(_Function(), one).message
    assert "to have supports(spec), got none" in run(type("Bare", (StatelessBackend,), {"name": "bare"})(), one).message


def test_an_error_of_a_methods_own_code_is_not_taken_for_its_arguments():
    class Own(NumpyBackend):
        def run(self, *args: Any, **kwargs: Any) -> Any:
            return len(3)  # type: ignore[arg-type]

    message = run(Own(), item("results", Case(SIMPLE, 2, 3), "float64")).message
    assert message.startswith("TypeError: object of type 'int' has no len()") and "return len(3)" in message


@pytest.mark.parametrize(("compiled", "words"), [(len, "has no len()"), (max, "is not iterable")])
def test_what_a_compiled_method_says_of_its_values_is_not_taken_for_its_arguments(compiled: Any, words: str):
    made = type("Compiled", (NumpyBackend,), {"supports": staticmethod(compiled)})
    message = run(made(), item("results", Case(SIMPLE, 2, 3), "float64")).message
    assert message.startswith("TypeError: ") and words in message and "13.3" not in message


def test_deep_calls_are_left_out_in_the_middle():
    class Deep(NumpyBackend):
        def run(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Result:
            return self.deeper(40)

        def deeper(self, more: int) -> Result:
            return self.deeper(more - 1) if more else Result(*[])

    message = run(Deep(), item("results", Case(SIMPLE, 2, 3), "float64")).message
    calls = re.findall(r", in (\w+)$", message, re.MULTILINE)
    assert calls == ["run", *["deeper"] * 6] and "\n  ...\n" in message and len(message.splitlines()) < 20


def test_what_a_program_reports_comes_with_its_last_words(tmp_path: Path):
    report = """print(json.dumps({"seq": request["seq"], "error": "it broke"}), flush=True); continue"""
    (tmp_path / "slow.py").write_text(HANGING_PROGRAM % report)
    command = f"{sys.executable} {tmp_path / 'slow.py'}"
    done = _check(tmp_path, "--process", command, "--item", ONE.replace("none", "single").replace("32", "64"))
    assert "it reports: it broke; its last words on the standard error:\n  one step more" in done.stdout


# --- answering with something else ---


def _answering(change: Callable[[Result], Any]) -> NumpyBackend:
    class Odd(NumpyBackend):
        def run(self, *args: Any, **kwargs: Any) -> Any:
            return change(super().run(*args, **kwargs))

    return Odd()


@pytest.mark.parametrize(("change", "message"), [
    (lambda found: None, "run: expected a Result of rnnzoo.spec: .*, got None"),
    (lambda found: (found.outputs, found.final_state), "run: expected a Result .*, got a tuple of length 2"),
    (lambda found: found.arrays(), "got a dict of 'outputs', 'final_state.h'"),
    (lambda found: Result(found.outputs.tolist(), found.final_states), "run, outputs: expected a NumPy .* a list"),
    (lambda found: Result(found.outputs.astype(str), found.final_states), "run, outputs: expected a NumPy array"),
    (lambda found: Result(found.outputs, found.final_state), "run, final_states: expected a dict .* of float64"),
    (lambda found: Result(found.outputs, {"c": found.final_state}), "run: expected 'final_state.h', .*state.c'"),
    (lambda found: Result(found.outputs, found.final_states, found.outputs), "in the Result .*'scores'"),
    (lambda found: Result(found.outputs[:1], found.final_states), r"shape \(2, 3, 3\), got \(1, 3, 3\)"),
])  # fmt: skip
@pytest.mark.parametrize("check", ["results", "padding"])
def test_a_run_that_gives_something_else_gets_one_clear_error(check: str, change: Any, message: str):
    case = Case(SIMPLE, 2, 3, "lengths")
    outcome = run(_answering(change), item(check, case, "float64"))
    assert outcome.verdict == "failed" and re.search(message, outcome.message) and "\n" not in outcome.message


class _Answers(NumpyBackend):
    """Whose other methods give something else."""

    def __init__(self, **changes: Any) -> None:
        self._changes = changes

    def gradients(self, *args: Any, **kwargs: Any) -> Any:
        return self._changes.get("gradients", super().gradients)(*args, **kwargs)

    def to_spec(self, model: Any) -> Any:
        return self._changes.get("to_spec", super().to_spec)(model)

    def trainer(self, model: Any, training: Any) -> Any:
        found = super().trainer(model, training)
        for name in ("step", "state"):
            setattr(found, name, self._changes.get(name, getattr(found, name)))
        return found


@pytest.mark.parametrize(("check", "changes", "message"), [
    ("gradients", {"gradients": lambda *_, **__: None}, "gradients: expected a dict of NumPy arrays by name, got None"),
    ("weights", {"to_spec": lambda model: [1.0]}, "to_spec: expected a dict of NumPy arrays by name, got a list"),
    ("training", {"step": lambda *_: 0.5}, "trainer, step: expected a StepResult .* got a float"),
    ("training", {"state": lambda: None}, "trainer, state: expected a dict of NumPy arrays by name, got None"),
])  # fmt: skip
def test_other_answers_are_looked_at_as_well(check: str, changes: dict[str, Any], message: str):
    case = quick_training_cases()[0] if check == "training" else Case(SIMPLE, 2, 3)
    outcome = run(_Answers(**changes), item(check, case, "float64"))
    assert outcome.verdict == "failed" and re.match(message, outcome.message) and "\n" not in outcome.message


def test_every_call_gives_model_and_inputs_by_position_and_the_rest_by_name():
    calls = []

    class Noting(NumpyBackend):
        def run(self, *args: Any, **kwargs: Any) -> Result:
            calls.append((len(args), set(kwargs)))
            return super().run(*args, **kwargs)

        def gradients(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            calls.append((len(args), set(kwargs)))
            return super().gradients(*args, **kwargs)

    case = Case(ModelSpec("stacked_bi_rnn", 2, 3, 2), 3, 4, "lengths", True)
    for check in ("weights", "results", "gradients", "cotangents", "padding"):
        outcome = run(Noting(), item(check, case, "float64"))
        assert outcome.verdict == "passed"
        diagnosed(Noting(), outcome, shrink=False)
    assert {count for count, _ in calls} == {2} and not any("inputs" in names for _, names in calls)


# --- one bound for one number ---


@pytest.mark.parametrize("check", ["results", "training"])
@pytest.mark.parametrize("state", [False, True])
def test_a_number_has_one_bound_wherever_it_is_told(check: str, state: bool):
    """Of a state of the lower layer, and of outputs of the upper one, which a run of the whole model gives too."""

    class Off(NumpyBackend):
        def run(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Result:
            found = super().run(model, inputs, *args, **kwargs)
            if state:
                found.final_state[0, 1, 2] += 1e-3
            elif model.spec.num_layers == 2:
                found.outputs[1, 2, 0] += 1e-3
            return found

    case = Case(ModelSpec("stacked_rnn", 2, 3, 2), 3, 4, "full", True)
    outcome = run(Off(), item("results", case, "float32"))
    off = diagnosed(Off(), outcome, shrink=False).divergence
    wrong = next(comparison for comparison in outcome.comparisons if comparison.ratio > 1)
    assert off is not None and off.tensor == wrong.quantity and off.got == wrong.got[wrong.worst()]
    assert off.allowed == wrong.limit and off.expected == wrong.expected[wrong.worst()]


# --- known failures in a test file ---

KNOWN = 'test_rnn = conformance_tests("theirs:WRONG", quick=True, known_failures="known.txt")'


def test_known_failures_are_expected_to_fail_in_a_test_file(theirs: Path):
    (theirs / "known.txt").write_text("# Two biases are too much for it.\n*-double-*\n")
    done = _pytest(theirs, KNOWN)
    assert "did not fail" in done.stdout  # gradients are right
    (theirs / "known.txt").write_text("# Two biases are too much for it.\nresults-*-double-*\n")
    done = _pytest(theirs, KNOWN)
    assert done.returncode == 0 and re.search(r"\d+ xfailed", done.stdout), done.stdout


def test_known_failures_that_match_nothing_or_have_no_reason_or_are_not_there_are_refused(theirs: Path):
    for text, error, message in (
        ("# None.\nnothing-*\n", ConformanceError, "line 2: 'nothing-\\*' matches no item"),
        ("results-*\n", FileError, "line 1: expected a reason"),
        (None, FileError, "cannot be read"),
    ):
        path = theirs / f"{message[:6]}.txt"
        if text:
            path.write_text(text)
        with pytest.raises(error, match=message):
            conformance_tests("numpy", quick=True, known_failures=path)


def test_a_failure_in_a_test_file_ends_with_the_command_that_shows_it_again(theirs: Path):
    done = _pytest(theirs, 'test_rnn = conformance_tests("theirs:WRONG", quick=True)')
    command = next(line for line in done.stdout.splitlines() if "again: " in line).split("again: rnnzoo ")[1]
    code = "import sys; from rnnzoo.conformance.cli import main; sys.exit(main())"
    again = _run(theirs, "bash", "-c", f'{sys.executable} -P -c "{code}" {command}')
    assert again.returncode == 1 and "1 failed" in again.stdout and "first divergence" in again.stdout


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch, theirs: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(theirs))
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    return importlib.import_module("theirs")


def test_in_a_test_file_one_that_supports_little_has_all_that_it_supports(imported: ModuleType):
    (chosen,) = (mark.args[1] for mark in conformance_tests("theirs:NARROW", quick=True).pytestmark)
    quick, table = items(quick=True), items()
    assert chosen == [*quick, *declaration(imported.NARROW, quick, table, quick=True).further]
    assert len(chosen) > len(quick)


def test_in_a_test_file_one_that_supports_nothing_is_refused_and_not_skipped(imported: ModuleType):
    with pytest.raises(ConformanceError, match=r"theirs:NOTHING: nothing would be checked: .*; the first: not yet"):
        conformance_tests("theirs:NOTHING", quick=True)


# --- what is declared ---


class Narrow(NumpyBackend):
    """One forward layer with tanh."""

    name = "narrow"

    def supports(self, spec: Any) -> str | None:
        fits = (spec.variant, spec.nonlinearity) == ("simple_rnn", "tanh") and spec.is_core
        return None if fits else "one layer with tanh"


def test_a_quick_look_at_one_that_supports_little_has_all_that_it_supports():
    chosen, table = items(quick=True), items()
    found = declaration(Narrow(), chosen, table, quick=True)
    met = [one for one in [*chosen, *found.further] if run_only_asks(one)]
    for check in ("results", "gradients"):
        own = [one for one in met if one.check == check]
        alone = {(one.case.spec.bias, one.case.initial) for one in own if one.case.sequences == "full"}
        assert alone == set(itertools.product(BIASES, (False, True)))
        assert {(one.case.spec.bias, one.dtype) for one in own} == set(itertools.product(BIASES, DTYPES))
        assert {one.case.sequences for one in own} == {"full", *{i.case.sequences for i in table if run_only_asks(i)}}
    assert set().union(*(values(one) for one in met)) == found.values
    assert declaration(Narrow(), chosen, table, quick=False).further == ()


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_what_is_right_in_one_size_alone_fails_a_quick_look(nonlinearity: str, bias: str):
    class Chance(NumpyBackend):
        takes, dtypes, encoder_decoders = (), ("float64",), False

        def supports(self, spec: Any) -> str | None:
            fits = (spec.variant, spec.nonlinearity, spec.bias) == ("simple_rnn", nonlinearity, bias) and spec.is_core
            return None if fits else "one layer"

        def run(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Result:
            found = super().run(model, inputs, *args, **kwargs)
            return found if model.spec.input_size == 2 else Result(found.outputs + 1e-3, found.final_states)

    quick = items(quick=True)
    found = declaration(Chance(), quick, items(), quick=True)
    outcomes = [run(Chance(), one) for one in [*quick, *found.further] if one.check == "results"]
    assert {"passed", "failed"} <= {outcome.verdict for outcome in outcomes}


def test_a_quick_look_in_two_processes_runs_each_item_once(theirs: Path):
    _check(theirs, "--backend", "theirs:NARROW", "--quick", "--jobs", "2", "--report", "report")
    names = [one["item"] for one in json.loads((theirs / "report" / "report.json").read_text())["outcomes"]]
    assert len(names) == len(set(names)) > 0


def test_supports_gives_a_reason_or_none(theirs: Path):
    found = _check(theirs, "--backend", "theirs:ANSWERS", "--item", ONE)
    assert (
        "supports: expected None for a model that it has, or the reason as text, got True"
        in found.stdout + found.stderr
    )


def run_only_asks(one: Item) -> bool:
    return isinstance(one.case, Case) and Narrow().supports(one.case.spec) is None


def test_one_that_supports_everything_is_given_nothing_more():
    assert declaration(NumpyBackend(), items(quick=True), items(), quick=True).further == ()


def test_values_that_no_passed_item_touched_are_told_by_name(theirs: Path):
    one = item("results", Case(SIMPLE, 2, 3), "float64")
    declared = {"variant simple_rnn", "variant bi_rnn", "precision float32", "mask", *values(one)}
    assert untested(declared, [run(NumpyBackend(), one)]) == ["mask", "precision float32", "variant bi_rnn"]
    assert untested(values(one), [run(_answering(lambda found: None), one)]) == sorted(values(one))
    done = _check(theirs, "--backend", "theirs:WRONG", "--quick", "--report", "found")
    assert "declared, not tested" not in done.stdout  # gradients with two biases passed


def test_what_is_declared_and_not_tested_stands_in_every_report(tmp_path: Path):
    (tmp_path / "shy.py").write_text(
        "from rnnzoo.numpy_impl.backend import NumpyBackend\n"
        "from rnnzoo.spec.errors import UnsupportedError\n"
        "class Shy(NumpyBackend):\n"
        "    name = 'shy'\n"
        "    takes = ('lengths',)\n"
        "    gradients = trainer = property()\n"
        "    def supports(self, spec): return None if spec.variant == 'simple_rnn' else 'one layer'\n"
        "    def run(self, model, inputs, **others):\n"
        "        if model.spec.nonlinearity == 'relu': raise UnsupportedError('not relu, after all')\n"
        "        return super().run(model, inputs, **others)\n"
        "OBJECT = Shy()\n"
    )
    done = _check(tmp_path, "--backend", "shy:OBJECT", "--quick", "--report", "found")
    assert "declared, not tested by an item that passed: shy:OBJECT: " in done.stdout, done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("declared, not tested"))
    told = line.split(": ")[2].split(", ")
    data = json.loads((tmp_path / "found" / "report.json").read_text())
    assert data["backends"][0]["declared_not_tested"] == told
    properties = ET.parse(tmp_path / "found" / "junit.xml").getroot().iter("property")
    assert {one.get("name"): one.get("value") for one in properties}["declared, not tested"] == ", ".join(told)
    assert "Declared, not tested" in (tmp_path / "found" / "index.html").read_text()
