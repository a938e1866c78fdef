"""Initial values: the same bits on every machine, and the distributions they claim to be."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import mpmath
import numpy as np
import pytest
from numpy._core import _multiarray_umath as cpu

from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.conformance.precision import PEAK_ULPS
from rnnzoo.spec import draws
from rnnzoo.spec.errors import SpecError
from rnnzoo.spec.initializers import DISTRIBUTIONS, Draw, draw

GOLDEN = Path(__file__).parent / "golden" / "initial_values.json"
# Prints the digests of all golden cases as this process draws them, and the features NumPy uses in it.
SCRIPT = f"""
import hashlib, json, pathlib
import numpy as np
from numpy._core._multiarray_umath import __cpu_features__ as features
from rnnzoo.spec.initializers import Draw, draw
np.ones((64, 64)) @ np.ones((64, 64))
digests = []
for case in json.loads(pathlib.Path({str(GOLDEN)!r}).read_text()):
    rule, shape = Draw(case["distribution"], case["scale"]), tuple(case["shape"])
    values = draw(rule, case["seed"], case["name"], shape, case["width"])
    digests.append([hashlib.sha256(values.astype("<f8").tobytes()).hexdigest(),
                    hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()])
print(json.dumps([digests, sorted(name for name, used in features.items() if used)]))
"""


def golden() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(GOLDEN.read_text())
    return found


def values(distribution: str, shape: tuple[int, ...], seed: int = 0, scale: float = 1.0, width: int = 7) -> np.ndarray:
    return draw(Draw(distribution, scale), seed, "a name", shape, width)


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.mark.parametrize("case", golden(), ids=lambda c: f"{c['distribution']}-{c['shape']}-{c['seed']}")
def test_drawn_bits_are_the_golden_bits(case: dict[str, object]) -> None:
    rule = Draw(case["distribution"], case["scale"])
    found = draw(rule, case["seed"], case["name"], tuple(case["shape"]), case["width"])
    assert digest(found.astype("<f8")) == case["float64"]
    assert digest(found.astype("<f4")) == case["float32"]


def test_every_distribution_has_golden_bits() -> None:
    assert {case["distribution"] for case in golden()} == set(DISTRIBUTIONS)
    drawn = [case["float64"] for case in golden() if case["distribution"] not in ("zeros", "identity")]
    assert len(set(drawn)) == len(drawn)


def supported_dispatch() -> list[str]:
    return [name for name in cpu.__cpu_dispatch__ if cpu.__cpu_features__[name]]


def check_process(run: Callable[..., subprocess.CompletedProcess[str]], **environment: str) -> list[str]:
    """Compares the golden bits in a process with this environment; returns the features NumPy used in it."""
    process = run(SCRIPT, **environment)
    assert process.returncode == 0, process.stderr
    digests, used = json.loads(process.stdout)
    assert digests == [[case["float64"], case["float32"]] for case in golden()]
    return used


def test_bits_do_not_depend_on_vector_instructions(fresh_python: Callable[..., object]) -> None:
    features = supported_dispatch()
    if not features:
        pytest.skip("NumPy dispatches to no further vector instructions on this processor")
    for count in range(1, len(features) + 1):
        used = check_process(fresh_python, NPY_DISABLE_CPU_FEATURES=" ".join(features[-count:]))
        assert not set(features[-count:]) & set(used)


def test_bits_do_not_depend_on_the_matrix_kernels(fresh_python: Callable[..., object]) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the names of OpenBLAS kernels below are those of x86-64")
    kernels = ["Prescott", "Nehalem", *(["Haswell"] if cpu.__cpu_features__.get("AVX2") else [])]
    for kernel in kernels:
        check_process(fresh_python, OPENBLAS_CORETYPE=kernel)


def test_streams_are_philox_keyed_by_a_digest_of_seed_and_name() -> None:
    key = int.from_bytes(hashlib.sha256(b"rnnzoo:3:w").digest()[:16], "little")
    raw = np.random.Philox(key=key).random_raw(5).tolist()
    assert draws.uniform(3, "w", 5).tolist() == [(number >> 11) / 2**53 for number in raw]


@pytest.mark.parametrize("seed", [-1, 1.0, "0", None, True])
def test_a_seed_that_is_no_natural_number_is_refused(seed: object) -> None:
    with pytest.raises(SpecError, match="seed: expected an integer of at least 0"):
        draws.uniform(seed, "w", 3)


def test_a_seed_may_be_any_natural_number() -> None:
    assert not np.array_equal(draws.uniform(2**64, "w", 3), draws.uniform(0, "w", 3))
    assert np.array_equal(draws.uniform(np.int64(5), "w", 3), draws.uniform(5, "w", 3))


def test_the_logarithm_is_as_exact_as_any_has_to_be() -> None:
    points = np.concatenate([
        draws.uniform(0, "log", 2000), 2.0 ** -np.arange(1, 1075), 1 - 2.0 ** -np.arange(1, 54),
        1 + 2.0 ** -np.arange(1, 53), [1.0, 0.7071067811865476, 0.7071067811865475, 1e308, 5e-324],
    ])  # fmt: skip
    found = draws.log(points)
    with mpmath.workdps(60):
        for x, y in zip(points.tolist(), found.tolist(), strict=True):
            true = mpmath.log(mpmath.mpf(x))
            assert abs(mpmath.mpf(y) - true) <= PEAK_ULPS["log"] * np.spacing(abs(float(true))), x  # 2.5 measured


def test_normal_numbers_are_the_polar_method_with_the_true_logarithm(assert_right: Callable[..., None]) -> None:
    pairs = (2 * draws.uniform(9, "n", 2 * (7 // 2 + 8)) - 1).reshape(-1, 2)
    x, y = pairs[(pairs**2).sum(axis=1) < 1].T

    def polar(ops: Exact) -> dict[str, np.ndarray]:
        square = ops.add(ops.multiply(ops.constant(x), ops.constant(x)), ops.multiply(ops.constant(y), ops.constant(y)))
        quotient = ops.divide(ops.multiply(ops.constant(-2.0), ops.function("log", square)), square)
        factor = ops.function("sqrt", quotient)
        both = [ops.multiply(ops.constant(number), factor) for number in (x, y)]
        return {"normal": np.stack(both, axis=2).reshape(len(both[0]), -1)[:, :7]}

    assert_right({"normal": draws.normal(9, "n", 7)}, polar)


def test_uniform_and_normal_have_their_moments() -> None:
    n = 200_000
    u = draws.uniform(1, "moments", n)
    assert abs(u.mean() - 0.5) < 5 / np.sqrt(12 * n)
    assert abs(u.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)
    z = draws.normal(1, "moments", n)
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - moment) < 5 * np.sqrt(variance / n), power
    assert abs((z[::2] * z[1::2]).mean()) < 5 / np.sqrt(n / 2)
    assert abs((np.abs(z) < 1).mean() - 0.6826894921) < 5 * np.sqrt(0.22 / n)


@pytest.mark.parametrize(
    ("distribution", "scale", "shape", "bound"),
    [
        ("uniform", 0.05, (90, 70), 0.05),
        ("scaled_uniform", 1.0, (90, 70), 7**-0.5),
        ("scaled_uniform", 3.0, (9000,), 3 * 7**-0.5),
        ("glorot_uniform", 1.0, (90, 70), (6 / 160) ** 0.5),
        ("glorot_uniform", 2.0, (70, 90), 2 * (6 / 160) ** 0.5),
    ],
)
def test_uniform_rules_fill_their_interval(
    distribution: str, scale: float, shape: tuple[int, ...], bound: float
) -> None:
    array = values(distribution, shape, scale=scale)
    assert array.shape == shape
    assert -bound <= array.min() < -0.95 * bound  # 6,300 numbers all miss that twentieth once in 10^69 times
    assert 0.95 * bound < array.max() < bound
    assert abs(array.mean()) < 5 * bound / np.sqrt(3 * array.size)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (8, 8), (40, 13), (13, 40)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape: tuple[int, int], assert_right: Callable[..., None]) -> None:
    """The product of exact reflections is orthonormal; that of rounded ones as nearly so as their bound says."""
    q = values("orthogonal", shape, scale=2.0) / 2.0
    long, short = max(shape), min(shape)
    normals = draws.normal(0, "a name", sum(range(long, long - short, -1)))
    vectors = [v[:, None] for v in np.split(normals, np.cumsum(range(long, long - short + 1, -1)))]
    for v in vectors:
        v[0] += np.copysign(np.sqrt((v * v).sum()), v[0])

    def reflected(ops: Exact) -> dict[str, np.ndarray]:
        matrix = ops.constant(np.eye(long, short))
        for k in reversed(range(short)):
            v, below = ops.constant(vectors[k]), matrix[:, k:]
            factor = ops.divide(ops.constant([[2.0]]), ops.sum(ops.multiply(v, v), 1))
            along = ops.multiply(ops.sum(ops.multiply(v, below), 1), factor)
            below = ops.add(below, -ops.multiply(v, along))
            matrix = np.concatenate([np.broadcast_to(matrix[:, :k], (len(below), k, short)), below], axis=1)
        return {"gram": ops.product(np.swapaxes(matrix, 1, 2), matrix)}

    assert_right({"gram": q @ q.T if shape[0] <= shape[1] else q.T @ q}, reflected)


def test_orthogonal_is_uniform_over_rotations_and_reflections() -> None:
    drawn = np.stack([values("orthogonal", (3, 3), seed) for seed in range(2000)])
    error = 5 / np.sqrt(3 * 2000)
    assert np.abs(drawn.mean(axis=0)).max() < error  # an entry has mean 0 and variance 1/3
    assert np.abs((drawn**2).mean(axis=0) - 1 / 3).max() < error
    assert abs((np.linalg.det(drawn) > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)
    squares = np.trace(drawn, axis1=1, axis2=2) ** 2  # mean 1 and variance 2 by Haar measure; 3 without sign repair
    assert abs(squares.mean() - 1) < 5 * np.sqrt(2 / 2000)


def test_identity_stands_in_every_gate() -> None:
    assert np.array_equal(values("identity", (4, 4), scale=0.5), 0.5 * np.eye(4))
    assert np.array_equal(values("identity", (8, 4)), np.concatenate([np.eye(4), np.eye(4)]))
    assert np.array_equal(values("identity", (2, 3)), np.eye(2, 3))


def test_zeros_are_zero_and_scales_scale() -> None:
    assert not values("zeros", (4, 3)).any()
    for distribution in ("uniform", "normal", "orthogonal"):
        assert np.array_equal(values(distribution, (5, 4), scale=4.0), 4 * values(distribution, (5, 4)))


def test_a_permutation_holds_every_number_once_and_depends_on_the_seed() -> None:
    drawn = draws.permutation(0, "split", 500)
    assert sorted(drawn.tolist()) == list(range(500))
    assert not np.array_equal(drawn, draws.permutation(1, "split", 500))
    assert digest(drawn.astype("<i8")) == "bb2088d213f7a454c0be66f7e3e3dc04a11bb1f497acca480b5150ee162d09c0"


def test_sequential_sum_adds_from_the_first_to_the_last() -> None:
    x = np.array([1.0] + [2.0**-53] * 1000)
    assert draws.sequential_sum(x) == 1.0  # a pairwise sum would keep the small ones
    assert np.array_equal(draws.sequential_sum(np.arange(6.0).reshape(3, 2)), [6.0, 9.0])


def test_the_empty_draw_is_empty() -> None:
    assert draws.normal(0, "w", 0).shape == (0,)
    assert draws.uniform(0, "w", 0).shape == (0,)
