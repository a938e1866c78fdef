"""The suite sees every fault of the catalogue, and the harness that says so can fail."""

import re
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance.checks import CHECKS
from rnnzoo.conformance.faults.catalogue import CATALOGUE, ROWS
from rnnzoo.conformance.faults.fault import CONVERT, Fault
from rnnzoo.conformance.faults.topology import Composed
from rnnzoo.conformance.faults.trainer import Trained
from rnnzoo.conformance.faults.wrapped import Wrapped
from rnnzoo.conformance.items import items
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.teeth import Bite, Hunt, Tried, _may_see, attempt, missed, report, run_teeth, smallest_first
from rnnzoo.spec import load_backend
from rnnzoo.spec.backend import BUILT_IN

ASKED = """
    bias summed twice; bias dropped; recurrent weight transposed; backward outputs not put back in time order;
    backward start at T-1 instead of length-1; last output taken for the final state; halves swapped in concat;
    layers fed by one direction only; two independent stacks instead of interleaved; initial state ignored;
    initial state given to the wrong layer; padding leaking into outputs; padding leaking into gradients;
    state not carried past the length; no valid step handled wrongly; relu'(0) = 1 (numpy); relu'(0) = 1 (torch);
    relu'(0) = 1 (tf); gradient of the initial state missing; loss reduction wrong;
    weights merged by reshape instead of transpose; momentum holding the learning rate; epsilon misplaced;
    clip per variable; sparse gradients in the norm; float32 accumulation in a float64 path;
    mask not reversed; one initial state for all rows; state handed from row to row; zeros taken for padding;
    directions reshaped instead of transposed; single row squeezed away;
    written before refused; weights through float32; inputs through float32; sign of zero lost;
    the caller's arrays kept; own arrays given; initializer ignored; global seed set; missing cotangent taken for ones;
    support asked and an error raised; states of the layers reversed; outputs through float32; lengths ignored;
    gradient of the inputs missing; moments forgotten; softmax without shift; sigmoid overflows (numpy);
    final states averaged, not summed; norm taken after clipping;
    weight of a wrong layer written; forward and backward swapped in the file; two biases merged without a word;
    transposition missing; order of gates; dtype of the file changed; metadata of another spec; -0 lost in the file;
    a file written half;
    epsilon misplaced in RMSprop; epsilon misplaced in Adagrad; decay coupled; decay decoupled;
    Nesterov taken for plain momentum; not centred; accumulator from 0; learning rate constant; mean of means;
    dropping at evaluation; dropout mask per step instead of per sequence (numpy);
    dropout mask per step instead of per sequence (torch); dropout mask per step instead of per sequence (tf);
    dropout not scaled (numpy); outputs of the last layer dropped (numpy); same mask in both directions (numpy);
    mask kept from update to update (numpy); same masks for all batches of an update (numpy)
"""
APPLICABLE = [
    (backend, fault.name)
    for backend in BUILT_IN
    for fault in ROWS
    if fault.only in (None, backend) and backend not in fault.spared
]


@cache
def bites(backend: str) -> dict[str, Bite]:
    """What came of every fault in a backend."""
    return {bite.fault: bite for bite in run_teeth([backend])}


def fault(wrap: Any, check: str = "results", **more: Any) -> dict[str, Fault]:
    return {"tried": Fault("tried", "for a test", check, wrap, **more)}


class Crashes(Wrapped):
    def results(self, *arguments: Any) -> Any:
        raise TypeError("a mistake in the fault itself")


@pytest.mark.parametrize(("backend", "name"), APPLICABLE, ids=lambda value: value.replace(" ", "_"))
def test_a_fault_is_seen_by_the_check_that_is_meant_to_see_it(backend: str, name: str):
    bite = bites(backend)[name]
    assert bite.verdict == "caught", bite.message
    assert bite.item and bite.message


@pytest.mark.parametrize("backend", BUILT_IN)
def test_a_fault_is_spared_for_a_reason_of_its_own(backend: str):
    spared = {bite.fault for bite in bites(backend).values() if bite.verdict == "spared"}
    assert spared == set(CATALOGUE) - {name for own, name in APPLICABLE if own == backend}
    assert all(bites(backend)[name].message for name in spared)


def test_the_catalogue_is_complete():
    asked = {" ".join(name.split()) for name in ASKED.split(";")}
    assert not asked - set(CATALOGUE)
    assert len(CATALOGUE) == len(ROWS) >= 45


def test_every_check_has_a_fault_that_is_meant_for_it():
    assert {row.check for row in ROWS} == {*CHECKS, CONVERT}


def test_every_fault_says_what_was_done_and_a_thread_is_an_address():
    assert all(row.story.endswith(".") for row in ROWS)
    threads = [row.thread for row in ROWS if row.thread]
    assert all(re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", thread) for thread in threads)
    assert len(threads) >= 40


@pytest.mark.parametrize(("wrap", "seen_by"), [(Wrapped, [*CHECKS]), (Composed, ["results"]), (Trained, ["training"])])
def test_what_faults_are_made_of_is_right_by_itself(wrap: Any, seen_by: list[str]):
    outcomes = [run(wrap(load_backend("numpy")), item) for item in items(quick=True) if item.check in seen_by]
    assert [outcome for outcome in outcomes if outcome.verdict == "failed"] == []
    assert len(outcomes) >= 10


def test_a_fault_that_changes_nothing_is_missed():
    found = list(run_teeth(["numpy"], faults=fault(Wrapped)))
    assert [bite.verdict for bite in found] == ["missed"] and missed(found) == found
    assert "MISSED numpy, tried (results)" in report(found, fault(Wrapped))


def test_an_error_of_the_fault_itself_is_no_bite():
    (bite,) = run_teeth(["numpy"], faults=fault(Crashes))
    assert bite.verdict == "missed" and "a mistake in the fault itself" in bite.message
    (bite,) = run_teeth(["numpy"], faults=fault(Crashes, raises=True))
    assert bite.verdict == "caught"


def test_a_failure_that_is_there_without_the_fault_proves_nothing():
    hunt = Hunt(load_backend("numpy"), CATALOGUE["recurrent weight transposed"], "results")
    assert not any(hunt.catches(item, Tried("failed", "as ever")) for item in smallest_first("results"))
    assert hunt.bite().verdict == "spared" and "without the fault: as ever" in hunt.bite().message


def test_a_fault_of_a_part_that_a_backend_lacks_is_spared():
    (bite,) = run_teeth(["numpy"], faults=fault(Wrapped, needs=("telepathy",)))
    assert (bite.verdict, bite.message) == ("spared", "numpy has no telepathy")


@pytest.mark.parametrize(
    ("backend", "name"), [(own, f"{part} ({own})") for own in BUILT_IN for part in ("relu'(0) = 1", "tanh'(tanh(a))")]
)
def test_what_is_replaced_is_put_back(backend: str, name: str):
    row, own = CATALOGUE[name], load_backend(backend)
    for item in smallest_first(row.check):
        with row.apply(own) as faulty:
            found = attempt(faulty, item)
        assert attempt(own, item).verdict == "passed"
        if found.verdict == "failed":
            return
    raise AssertionError("the fault was not seen")


def test_the_random_state_of_the_process_survives_the_teeth():
    np.random.seed(12345)
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    list(run_teeth(["numpy"], faults={"global seed set": CATALOGUE["global seed set"]}))
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before)


def test_other_checks_that_see_a_fault_are_named_where_all_are_tried():
    faults = {name: CATALOGUE[name] for name in ("recurrent weight transposed",)}
    found = list(run_teeth(["numpy"], whole=True, faults=faults))
    assert {"results", "gradients"} <= {bite.check for bite in found if bite.verdict == "caught"}
    assert re.search(r"recurrent weight transposed +results +caught +cotangents, gradients", report(found, faults))


class RunsCrash(Crashes):
    def derivatives(self, *arguments: Any) -> Any:
        raise TypeError("a run where none belongs")


class TrainerCrashes(Wrapped):
    def trainer(self, *arguments: Any) -> Any:
        raise TypeError("a trainer where none belongs")


@pytest.mark.parametrize(("wrap", "trains"), [(RunsCrash, False), (TrainerCrashes, True)])
def test_a_check_that_calls_nothing_of_a_fault_is_not_tried(wrap: type[Wrapped], trains: bool):
    """Nor could it tell: the fault raises errors, and the check passes."""
    own, backend = fault(wrap, check="none")["tried"], load_backend("numpy")
    trainers = {"training", "trajectory"}
    assert {check for check in CHECKS if _may_see(check, own, backend)} == (
        trainers if trains else {*CHECKS} - trainers
    )
    for item in items(quick=True):
        seen = run(wrap(backend), item).verdict == "failed"
        assert not seen or _may_see(item.check, own, backend), item.name


@pytest.mark.parametrize("name", ["bias dropped", "own arrays given", "relu'(0) = 1 (numpy)", "global seed set"])
def test_every_other_fault_is_tried_by_all_checks(name: str):
    assert all(_may_see(check, CATALOGUE[name], load_backend("numpy")) for check in CHECKS)


def test_a_check_that_compares_nothing_fails(monkeypatch: pytest.MonkeyPatch):
    item = smallest_first("results")[0]
    monkeypatch.setitem(CHECKS, "results", replace(CHECKS["results"], run=lambda *arguments: []))
    assert run(load_backend("numpy"), item).verdict == "failed"


@pytest.mark.long
@pytest.mark.parametrize("backend", BUILT_IN)
def test_no_fault_survives_the_whole_quick_suite(backend: str):
    found = list(run_teeth([backend], whole=True))
    print(report(found))
    assert not missed(found)
