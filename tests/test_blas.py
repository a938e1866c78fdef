"""Products that are added where their sum stands: right with and without SciPy, in place, and loaded when needed."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from rnnzoo.benchmarks.timing import environment
from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.items import item
from rnnzoo.conformance.outcomes import run
from rnnzoo.numpy_impl import blas
from rnnzoo.numpy_impl import steps as pieces
from rnnzoo.numpy_impl.blas import Adding
from rnnzoo.spec import ModelSpec, load_backend

CASES = [
    Case(ModelSpec("simple_rnn", 3, 5), 1, 1, "full", True),
    Case(ModelSpec("simple_rnn", 3, 1), 4, 9, "full", True),
    Case(ModelSpec("simple_rnn", 3, 5, bias="none"), 4, 9, "left_padding", True),
    Case(ModelSpec("stacked_bi_rnn", 3, 5, 2), 1, 9, "full", True),
    Case(ModelSpec("bi_rnn", 3, 5, nonlinearity="identity", merge="multiply"), 4, 9, "empty_row", True),
]


@pytest.fixture(params=["with SciPy", "without"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The products of SciPy that were called; its import fails where it is not to be there. Pieces are small."""
    monkeypatch.setattr(pieces, "PIECE", 7)
    monkeypatch.setattr(pieces, "FEW", 7)
    called: list[str] = []
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "scipy.linalg", None)
    blas._scipy.cache_clear()
    for char, gemm in blas._scipy().items():

        def noted(*arguments: Any, char: str = char, gemm: Callable[..., Any] = gemm) -> Any:
            called.append(char)
            found = gemm(*arguments)
            assert np.shares_memory(found, arguments[4])
            return found

        blas._scipy()[char] = noted
    yield called
    assert bool(called) == (request.param == "with SciPy")
    blas._scipy.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_ways_are_right(case: Case, dtype: str, products: list[str]) -> None:
    for check in ("results", "gradients"):
        outcome = run(load_backend("numpy"), item(check, case, dtype))
        assert outcome.verdict == "passed", outcome.message


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_whole_numbers_are_added_in_place_whatever_the_memory(dtype: str, products: list[str]) -> None:
    numbers = np.random.default_rng(0)
    for B, H in ((1, 1), (1, 6), (4, 6)):
        wide, weight = (
            numbers.integers(-9, 9, (5, B, 2 * H)).astype(dtype),
            numbers.integers(-9, 9, (H, H)).astype(dtype),
        )
        for steps in (wide[..., :H].copy(), wide[::-1, :, H:].copy()[::-1], wide[..., :H], wide[:, :, ::2]):
            for matrix in (weight, weight.T, np.repeat(weight, 2, 1)[:, ::2]):
                expected = steps[0] + steps[1] @ matrix
                views, add = Adding(matrix, B).to(steps)
                c, a = views(steps)[:2]
                add(c, a)
                assert np.array_equal(steps[0], expected)


def test_large_products_are_left_to_numpy() -> None:
    numbers = np.ones(128 * 128 + 16, np.float32)
    start = (-numbers.ctypes.data % blas.LINE) // 4 + 4  # four numbers past the begin of a cache line
    weight = numbers[start : start + 128 * 128].reshape(128, 128)
    small, large = Adding(weight, 61), Adding(weight, 62)
    assert small._gemm and not large._gemm
    assert [adding.weight.ctypes.data % blas.LINE for adding in (small, large)] == [0, 16]
    for n, shape in ((61, (1, 128, 61)), (62, (1, 62, 128))):  # in the order of BLAS, or of NumPy
        steps = np.ones((1, n, 128), np.float32)
        assert small.to(steps)[0](steps).shape == shape


def test_scipy_is_loaded_when_a_layer_runs(fresh_python: Callable[..., Any]) -> None:
    code = """
import sys
import numpy as np
from rnnzoo.spec import ModelSpec, load_backend
backend = load_backend("numpy")
model = backend.build(ModelSpec("simple_rnn", 3, 4))
assert "scipy" not in sys.modules
backend.run(model, np.ones((2, 5, 3)))
assert "scipy.linalg.blas" in sys.modules
from threadpoolctl import threadpool_info
threads = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
assert len(threads) == 2 and set(threads) == {1}, threads
"""
    result = fresh_python(code, **environment(1))
    assert result.returncode == 0, result.stderr
