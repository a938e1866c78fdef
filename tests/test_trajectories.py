"""Long training runs: what they are made of, where they part, and for how long they can be judged."""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance import checks, expected, trajectories
from rnnzoo.conformance.bounds import Bounds, Truth
from rnnzoo.conformance.checks import meaningful
from rnnzoo.conformance.cli import main
from rnnzoo.conformance.diagnosis import diagnosed
from rnnzoo.conformance.faults import later
from rnnzoo.conformance.faults.trainer import Trained
from rnnzoo.conformance.implementations import implementation
from rnnzoo.conformance.items import Item, item, items
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.suite import Plan, run_suite
from rnnzoo.conformance.teeth import run_teeth
from rnnzoo.conformance.trajectories import BETWEEN, CLIPS, DROPS, MODELS, RATES, RULES, TASKS, VARIATIONAL, Trajectory
from rnnzoo.numpy_impl.backend import NumpyBackend
from rnnzoo.spec import EncoderDecoderSpec, Source, load_backend
from rnnzoo.spec.backend import BUILT_IN
from rnnzoo.spec.encoder_decoder import networks
from rnnzoo.spec.optimizers import SGD
from rnnzoo.spec.schedules import StepDecay
from rnnzoo.tasks.task import load_task

SHORT = Trajectory("forecast", "simple_rnn", SGD(0.05, 0.9), updates=6)


def test_every_optimizer_trains_every_variant_and_every_task_occurs():
    table = trajectories.trajectories()
    assert {(run.optimizer, run.variant) for run in table} == set(itertools.product(RULES, MODELS))
    assert len(table) == len(RULES) * len(MODELS)
    assert {run.task for run in table} == set(TASKS)
    assert {run.clip for run in table} == set(CLIPS) and {run.schedule for run in table} == set(RATES)
    assert {run.dropout for run in table} == set(DROPS)
    assert {run.updates for run in table} == {50}


def test_the_complete_product_leaves_out_what_makes_no_sense_alone():
    every = list(trajectories.every_trajectory())
    assert {(run.task, run.variant) for run in every} == set(itertools.product(TASKS, MODELS)) - {
        ("char_lm", "bi_rnn"), ("char_lm", "stacked_bi_rnn"),
    }  # fmt: skip
    assert len(every) == 18 * len(RULES) == len({run.name for run in every})
    assert set(trajectories.trajectories()) <= set(every)


def test_both_precisions_of_every_run_are_in_the_suite_and_none_in_its_quick_part():
    found = [(one.case, one.dtype) for one in items() if one.check == "trajectory"]
    wanted = set(itertools.product(trajectories.trajectories(), ("float32", "float64")))
    assert set(found) == wanted and len(found) == len(wanted)
    assert not [one for one in items(quick=True) if one.check == "trajectory"]


@pytest.mark.parametrize("name", TASKS)
def test_the_batches_are_the_tasks_own(name: str):
    case = next(run for run in trajectories.trajectories() if run.task == name)
    whole = load_task({"name": name, **TASKS[name]}).epoch(1, case.rows, 0)
    for batch, own in zip(case.batches, whole, strict=False):
        steps = batch.inputs.shape[1]
        assert np.array_equal(batch.inputs, np.asarray(own.inputs[:, :steps], np.float32))
        assert batch.continues == own.continues
        if own.lengths is None:
            assert steps == own.inputs.shape[1]
        else:
            assert steps == own.lengths.max() and np.array_equal(batch.lengths, own.lengths)
        if isinstance(own.context, Source):
            read, length = batch.context.inputs, own.context.lengths.max()
            assert np.array_equal(read, own.context.inputs[:, :length]) and read.shape[1] == length
    assert len(case.batches) == 50


def test_an_item_of_a_trajectory_is_read_back_from_its_data():
    one = item("trajectory", replace(SHORT, schedule=StepDecay(2)), "float32")
    assert Item.from_data(json.loads(json.dumps(one.to_data(complete=False)))) == one


class _Off:
    """A trainer whose first unit's weights are off from an update on."""

    def __init__(self, inner: Any, backend: Any, model: Any, update: int) -> None:
        self.inner, self.backend, self.model, self.update, self.t = inner, backend, model, update, 0

    def step(self, batch: Any) -> Any:
        self.t += 1
        found = self.inner.step(batch)
        if self.t == self.update:
            weights = self.backend.to_spec(self.model)
            weights["head.weight"][0, 2] += 1e-9
            self.backend.from_spec(self.model, weights)
        return found

    def state(self) -> Any:
        return self.inner.state()


class OffBackend(NumpyBackend):
    def __init__(self, update: int) -> None:
        self.off = update

    def trainer(self, model: Any, training: Any) -> Any:
        return _Off(super().trainer(model, training), self, model, self.off)


def test_the_first_divergence_names_update_tensor_index_and_numbers():
    outcome = run(OffBackend(4), item("trajectory", SHORT, "float64"))
    assert outcome.verdict == "failed" and outcome.updates == 6
    off = diagnosed(OffBackend(4), outcome, shrink=False).divergence
    assert off is not None and (off.update, off.tensor, off.index) == (4, "head.weight", (0, 2))
    assert 0 < off.allowed < 1e-9 and abs(off.got - (off.expected + 1e-9)) <= off.allowed
    assert str(off).startswith("first divergence: head.weight, update 4, index [0, 2]: expected ")


def test_a_failing_run_shrinks_to_the_update_that_goes_wrong():
    small = diagnosed(OffBackend(4), run(OffBackend(4), item("trajectory", SHORT, "float64"))).smaller
    assert small is not None and small.case.updates == 4 and small.case.rows == 1


def _numbers(errors: list[float]) -> tuple[dict[str, Truth], Bounds]:
    """A loss and a weight of as many updates, the weight allowed to be so far off."""
    ones = np.ones(len(errors))
    allowed = {"loss": 1e-3 * ones, "weight": np.stack([1e-3 * ones, errors], axis=1)}
    truths = {"loss": Truth(ones, 0 * ones), "weight": Truth(np.ones((len(errors), 2)), np.zeros((len(errors), 2)))}
    return truths, Bounds(allowed, dict.fromkeys(allowed, 1.0), 0)


@pytest.mark.parametrize("case", [
    Trajectory("translate", "bi_rnn", SGD(0.05, 0.9), dropout=VARIATIONAL, updates=4),
    Trajectory("forecast", "stacked_rnn", SGD(0.05, 0.9), dropout=BETWEEN, updates=4),
])  # fmt: skip
def test_a_run_with_dropout_is_judged_with_its_masks(case: Trajectory):
    backend = load_backend("numpy")
    assert run(backend, item("trajectory", case, "float64")).verdict == "passed"
    assert run(_Undropped(), item("trajectory", case, "float64")).verdict == "failed"


class _Undropped(NumpyBackend):
    """Forgets that a model has dropout."""

    def build(self, spec: Any, *arguments: Any, **options: Any) -> Any:
        parts = networks(spec)
        without = [replace(part, dropout=None) for part in parts]
        return super().build(without[0] if len(parts) == 1 else EncoderDecoderSpec(*without), *arguments, **options)


@pytest.mark.parametrize(("errors", "count"), [
    ([0.1, 0.2, 0.3], 3), ([0.1, 0.2, 1.0], 2), ([0.1, np.inf, 0.1], 1), ([2.0, 0.1, 0.1], 0),
])  # fmt: skip
def test_updates_count_until_rounding_can_be_as_large_as_an_array(errors: list[float], count: int):
    assert meaningful(*_numbers(errors)) == count


@pytest.mark.parametrize(("count", "verdict"), [(6, "passed"), (4, "passed"), (0, "ill-conditioned")])
def test_only_so_many_updates_are_compared_and_reported(
    count: int, verdict: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    known = expected.truth_and_bounds("trajectory", SHORT, "float32")

    def looser(what: str, case: Any, dtype: str) -> Any:
        allowed = {name: array.copy() for name, array in known[1].allowed.items()}
        allowed["head.bias"][count:] = 1e3
        return known[0], replace(known[1], allowed=allowed)

    monkeypatch.setattr(checks, "truth_and_bounds", looser)
    outcome = run(load_backend("numpy"), item("trajectory", SHORT, "float32"))
    assert outcome.verdict == verdict
    assert outcome.updates == max(count, 1) and all(len(c.got) == max(count, 1) for c in outcome.comparisons)


def test_the_number_of_updates_is_in_the_table_and_in_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = json.dumps(item("trajectory", SHORT, "float32").to_data(complete=False))
    assert main(["check", "--backend", "numpy", "--item", text, "--report", str(tmp_path)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("numpy"))
    assert row.split()[-1] == "6"
    (outcome,) = json.loads((tmp_path / "report.json").read_text())["outcomes"]
    assert outcome["updates"] == 6


def test_a_task_whose_data_are_not_installed_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch):
    trajectories._task.cache_clear()
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    outcome = run(load_backend("numpy"), item("trajectory", SHORT, "float64"))
    assert (outcome.verdict, outcome.updates) == ("skipped", 0)
    assert "the package 'statsmodels' is not installed; run: pip install 'rnnzoo[tasks]'" in outcome.message


def test_a_backend_without_a_trainer_is_skipped_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch):
    class Plain:
        name = "plain"

    monkeypatch.setattr(expected, "_quantities", None)
    outcome = run(Plain(), item("trajectory", replace(SHORT, updates=7), "float64"))
    assert (outcome.verdict, outcome.message) == ("skipped", "plain has no trainer")


def test_what_late_faults_are_made_of_is_right_by_itself():
    assert run(Trained(load_backend("numpy")), item("trajectory", SHORT, "float64")).verdict == "passed"


def test_late_faults_are_missed_by_runs_of_three_updates():
    """The one that these see as well is momentum under a schedule, as they have a rate that changes early."""
    faults = {row.name: replace(row, check="training") for row in later.FAULTS}
    bites = {bite.fault: bite.verdict for bite in run_teeth(["numpy"], faults=faults)}
    seen = {name for name, verdict in bites.items() if verdict == "caught"}
    assert seen == {"momentum of Keras under a schedule"} and len(bites) == len(later.FAULTS)


@pytest.mark.long
def test_every_optimizer_trains_every_variant_on_every_task_alike_in_all_backends(capsys: pytest.CaptureFixture[str]):
    runs = list(trajectories.every_trajectory())
    chosen = [item("trajectory", run, dtype) for run in runs for dtype in ("float64", "float32")]
    wrong, updates, ratios = [], {"float64": set(), "float32": set()}, []
    for one, outcome in run_suite([implementation(name) for name in BUILT_IN], Plan(chosen)):
        wrong += [f"{one.name}, {outcome.item.name}: {outcome.message}"] if outcome.verdict != "passed" else []
        updates[outcome.item.dtype].add(outcome.updates)
        ratios.append(max(comparison.ratio for comparison in outcome.comparisons))
    with capsys.disabled():
        print(f"\n{len(ratios)} runs; updates that could be judged: {updates}; largest error/bound {max(ratios):.3f}")
    assert not wrong and len(ratios) == len(BUILT_IN) * len(chosen)
    assert updates["float64"] == {50}
