"""Other people's layers under the suite: they agree with the oracle, and where they do not, it shows."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache

import pytest

from rnnzoo.conformance import known_failures
from rnnzoo.conformance.adapters import ADAPTERS
from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.items import Item, item, items
from rnnzoo.spec import ModelSpec

# Runs items on backends, both from its input, and prints verdicts and messages.
CODE = """
import json, sys
from rnnzoo.conformance.items import Item
from rnnzoo.conformance.outcomes import run
from rnnzoo.spec import load_backend
outcomes = [run(load_backend(target), Item.from_data(data)) for target, data in json.load(sys.stdin)]
print(json.dumps([[outcome.verdict, outcome.message] for outcome in outcomes]))
"""


def example(check: str, variant: str, sequences: str, nonlinearity: str = "relu", dtype: str = "float32") -> Item:
    """A small item."""
    layers = 2 if variant.startswith("stacked") else 1
    spec = ModelSpec(variant, input_size=2, hidden_size=3, num_layers=layers, nonlinearity=nonlinearity)
    return item(check, Case(spec, rows=3, steps=4, sequences=sequences, initial=True), dtype)


FULL = [example("results", "simple_rnn", "full"), example("results", "stacked_bi_rnn", "full")]
GRADIENTS = example("gradients", "stacked_bi_rnn", "full")
LENGTHS = example("results", "stacked_bi_rnn", "lengths")
ONE_DIRECTION = example("results", "simple_rnn", "lengths")
HOLES = example("results", "bi_rnn", "holes")
EMPTY_ROW = example("results", "bi_rnn", "empty_row")
FLOAT64 = example("results", "bi_rnn", "full", "tanh", "float64")

AGREEING = {
    "torch.nn.RNN": [*FULL, GRADIENTS, LENGTHS, FLOAT64],
    "onnxruntime": [*FULL, LENGTHS],
    "flax": [*FULL, GRADIENTS, FLOAT64],
    "keras-tensorflow": [*FULL, GRADIENTS, LENGTHS, HOLES, FLOAT64],
    "keras-torch": [*FULL, GRADIENTS, LENGTHS, HOLES],
    "keras-jax": [*FULL, GRADIENTS, LENGTHS, HOLES],
    "keras-numpy": [*FULL, LENGTHS, HOLES],
    "keras-unrolled-tensorflow": [*FULL, GRADIENTS],
    "keras-unrolled-torch": [*FULL, GRADIENTS],
    "keras-unrolled-jax": [*FULL, GRADIENTS],
    "keras-unrolled-numpy": FULL,
}
DIFFERING = {
    "torch.nn.RNN": {EMPTY_ROW: "greater than 0"},
    "onnxruntime": {EMPTY_ROW: "final_state.h"},
    "flax": {LENGTHS: "outputs"},
    "keras-tensorflow": {ONE_DIRECTION: "outputs"},
    "keras-torch": {ONE_DIRECTION: "outputs", FLOAT64: "outputs"},
    "keras-jax": {ONE_DIRECTION: "outputs", FLOAT64: "equal types"},
    "keras-numpy": {ONE_DIRECTION: "outputs", FLOAT64: "outputs"},
    "keras-unrolled-tensorflow": {HOLES: "outputs"},
    "keras-unrolled-torch": {HOLES: "no attribute 'shape'"},
    "keras-unrolled-jax": {HOLES: "outputs"},
    "keras-unrolled-numpy": {HOLES: "outputs"},
}


def outcomes(name: str) -> dict[str, list[str]]:
    """Verdict and message of each item above; skips where a package is missing."""
    adapter = ADAPTERS[name]
    if missing := [package for package in adapter.packages if importlib.util.find_spec(package) is None]:
        pytest.skip(f"{name}: no package {missing[0]}")
    return in_one_process(tuple(other for other, row in ADAPTERS.items() if row.packages == adapter.packages))[name]


@cache
def in_one_process(names: tuple[str, ...]) -> dict[str, dict[str, list[str]]]:
    """The outcomes of adapters that run with the same packages and environment."""
    wanted = [(name, one) for name in names for one in (*AGREEING[name], *DIFFERING[name])]
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE],
        input=json.dumps([(ADAPTERS[name].target, one.to_data()) for name, one in wanted]),
        env={**os.environ, **ADAPTERS[names[0]].environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for (name, one), outcome in zip(wanted, json.loads(done.stdout), strict=True):
        found[name][one.name] = outcome
    return found


@pytest.mark.parametrize("name", ADAPTERS)
def test_layers_agree_with_the_oracle(name: str) -> None:
    found = outcomes(name)
    assert {one.name: found[one.name] for one in AGREEING[name]} == {one.name: ["passed", ""] for one in AGREEING[name]}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_disagreement_with_the_spec_is_neither_repaired_nor_declared_away(name: str) -> None:
    for one, text in DIFFERING[name].items():
        verdict, message = outcomes(name)[one.name]
        assert verdict == "failed" and text in message, (one.name, verdict, message)


def test_the_table_loads_no_framework(fresh_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    packages = sorted({package for adapter in ADAPTERS.values() for package in adapter.packages})
    code = f"import sys, rnnzoo.conformance.adapters; print([name for name in {packages} if name in sys.modules])"
    assert fresh_python(code).stdout.strip() == "[]"


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_known_failure_is_one_of_an_item(name: str) -> None:
    names = [one.name for one in items()]
    assert [row.pattern for row in known_failures.of(name) if not any(fnmatchcase(n, row.pattern) for n in names)] == []
