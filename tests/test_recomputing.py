"""Gradients with less memory: right, for less, and refused where a model cannot be run part by part."""

from typing import Any

import pytest
import torch

from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.items import item
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.training import training_cases
from rnnzoo.spec import Dropout, Embedding, Head, ModelSpec, load_backend
from rnnzoo.spec.errors import UnsupportedError
from rnnzoo.spec.recomputing import parts

B, T, I, H = 4, 13, 3, 5  # noqa: E741 (the spec's symbol)
CASES = [
    Case(ModelSpec("simple_rnn", I, H), B, T, "full", True),
    Case(ModelSpec("stacked_rnn", I, H, 3, "relu", "double"), B, T, "empty_row", True),
    Case(ModelSpec("stacked_rnn", I, H, 2, head=Head(2)), B, T, "left_padding", True),
    Case(ModelSpec("simple_rnn", I, H, embedding=Embedding(7), head=Head(2, reads="final")), B, T, "holes", True),
]
BOTH_DIRECTIONS = [
    Case(ModelSpec("bi_rnn", I, H), B, T, "full", True),
    Case(ModelSpec("stacked_bi_rnn", I, H, 3, "relu", "double"), B, T, "empty_row", True),
    Case(ModelSpec("stacked_bi_rnn", I, H, 2, merge="multiply", head=Head(2)), B, T, "left_padding", True),
    Case(ModelSpec("bi_rnn", I, H, embedding=Embedding(7), head=Head(2, reads="final")), B, T, "holes", True),
]
RUNS = [*(("numpy", case) for case in CASES), *(("torch", case) for case in CASES + BOTH_DIRECTIONS)]


class Recomputing:
    """A backend, all of whose models recompute."""

    def __init__(self, name: str) -> None:
        self.backend = load_backend(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def build(self, *arguments: Any, **options: Any) -> Any:
        return self.backend.build(*arguments, **options, recompute=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "case"), RUNS, ids=lambda value: getattr(value, "name", value))
def test_results_and_gradients_are_right(name: str, case: Case, dtype: str) -> None:
    for check in ("results", "gradients", "padding") if case.sequences != "full" else ("results", "gradients"):
        outcome = run(Recomputing(name), item(check, case, dtype))
        assert outcome.verdict == "passed", outcome.message


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_training_is_right_and_drops_the_same_when_parts_are_run_again(name: str) -> None:
    dropped = []
    for case in training_cases():
        spec = case.case.spec
        supported = name == "torch" or spec.num_directions == 1
        if supported and not (spec.dropout and spec.dropout.between_layers):
            outcome = run(Recomputing(name), item("training", case, "float64"))
            assert outcome.verdict == "passed", outcome.message
            dropped.append(spec.dropout)
    assert any(dropped)


def test_parts_cover_every_step_once() -> None:
    for steps in (1, 2, 3, 4, 5, 2000):
        found = parts(steps)
        assert [t for part in found for t in range(part.start, part.stop)] == list(range(steps))
        assert max(len(found), found[0].stop) ** 2 < 4 * steps


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_what_cannot_be_run_part_by_part_is_refused_by_name(name: str) -> None:
    backend = load_backend(name)
    with pytest.raises(UnsupportedError, match="recompute: expected no dropout between layers"):
        backend.build(ModelSpec("stacked_rnn", I, H, 2, dropout=Dropout(between_layers=0.5)), recompute=True)


def test_numpy_refuses_two_directions() -> None:
    with pytest.raises(UnsupportedError, match="recompute: expected a model that reads forward alone, got bi_rnn"):
        load_backend("numpy").build(ModelSpec("bi_rnn", I, H), recompute=True)


def test_a_backend_without_it_refuses() -> None:
    with pytest.raises(UnsupportedError, match="recompute: the tf backend keeps the states of all steps"):
        load_backend("tf").build(ModelSpec("simple_rnn", I, H), recompute=True)


def test_torch_refuses_to_be_exported_until_it_is_switched_off() -> None:
    model = load_backend("torch").build(ModelSpec("simple_rnn", I, H), recompute=True)
    with pytest.raises(Exception, match=r"module\.recompute = False"):
        torch.export.export(model, (torch.zeros(2, 9, I),))
    model.recompute = False
    torch.export.export(model, (torch.zeros(2, 9, I),))
