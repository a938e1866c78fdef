"""What is checked of a backend on a case, each check against the truth and its bound, or against the backend itself."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.contract import asked
from ..spec.encoder_decoder import AnySpec, Source
from ..spec.errors import ConformanceError, RnnZooError
from ..spec.initializers import INITIALIZERS, Initializer
from ..spec.inputs import Cotangents, Inputs
from ..spec.model import ModelSpec
from ..spec.parameters import initial_weights
from . import answers
from .bounds import Bounds, Truth
from .cases import Case
from .comparison import Comparison, compared, equal, identical, zero
from .expected import cotangents_alone, expected_gradients, expected_results, truth_and_bounds
from .pair_cases import AnyCase
from .training import TrainingCase
from .trajectories import Trajectory

Array = NDArray[Any]


@dataclass(frozen=True)
class Check:
    """A row of the table of checks.

    Attributes:
        clause: of SPEC.md; None where each case has its own.
        needs: the optional part of a backend that it needs.
        run: the code.
        applies: to which cases.
    """

    clause: str | None
    needs: str | None
    run: Callable[[Any, Any, str], Iterable[Comparison]]
    applies: Callable[[Any], bool] = lambda case: isinstance(case, AnyCase)


def check_weights(backend: Any, case: AnyCase, dtype: str) -> Iterator[Comparison]:
    """Initial values are the spec's, conversion there and back keeps every bit, and a wrong weight changes nothing."""
    state = _global_random_state()
    for spec, seed in ((case.spec, 5), (_initialised(case.spec, INITIALIZERS["keras"]), 2**40 + 7)):
        model = asked(backend, "build", spec, seed=seed, dtype=dtype)
        yield from identical("initial", answers.weights(backend, model), initial_weights(spec, seed, dtype))
    yield from identical("global random state", _global_random_state(), state)
    weights = {name: array.astype(dtype) for name, array in case.weights.items()}
    name = next(reversed(weights))
    weights[name].flat[0] = -0.0
    given = {key: array.copy() for key, array in weights.items()}
    asked(backend, "from_spec", model, given)
    yield from identical("round trip", answers.weights(backend, model), weights)
    for array in (*given.values(), *answers.weights(backend, model).values()):
        array[...] = 7  # neither what was given nor what was returned is the model's own memory
    yield from identical("after changes outside", answers.weights(backend, model), weights)
    other = "float32" if dtype == "float64" else "float64"
    wrong = {key: array + 1 for key, array in weights.items()}
    _refuses(backend, model, f"without {name}", {key: value for key, value in wrong.items() if key != name})
    _refuses(backend, model, "with a surplus name", {**wrong, "surplus": wrong[name]})
    _refuses(backend, model, "of another shape", {**wrong, name: wrong[name][:-1]})
    _refuses(backend, model, f"of dtype {other}", {**wrong, name: wrong[name].astype(other)})
    yield from identical("after refusals", answers.weights(backend, model), weights)


def check_results(backend: Any, case: AnyCase, dtype: str) -> Iterator[Comparison]:
    """Shapes, dtypes, outputs, final states and scores; the caller's arrays stay what they are."""
    model, given = _model(backend, case, dtype), _given(case)
    before = copy.deepcopy(given)
    found = answers.results(backend, model, case.spec, given)
    yield from compared(found, *expected_results(case, dtype), dtype)
    yield from identical("the caller's arrays after the run", _flat(given), _flat(before))


def check_gradients(backend: Any, case: AnyCase, dtype: str) -> Iterator[Comparison]:
    """Gradients of every weight, the inputs, the initial state or the context."""
    found = answers.gradients(backend, _model(backend, case, dtype), _given(case), case.cotangents)
    yield from compared(found, *expected_gradients(case, dtype), dtype)


def check_cotangents(backend: Any, case: AnyCase, dtype: str) -> Iterator[Comparison]:
    """A cotangent that is not given counts as zero: the gradients for each alone."""
    model = _model(backend, case, dtype)
    for name, cotangents in cotangents_alone(case).items():
        found = answers.gradients(backend, model, _given(case), cotangents)
        for comparison in compared(found, *truth_and_bounds(name, case, dtype), dtype):
            yield replace(comparison, quantity=f"{comparison.quantity} for {name} alone")


def check_padding(backend: Any, case: AnyCase, dtype: str) -> Iterator[Comparison]:
    """Invalid steps give exactly 0, and what stands in the padding changes nothing, the sign of a zero aside."""
    model = _model(backend, case, dtype)
    given, source = case.understood, case.understood.source
    padded = (_given(case), case.with_other_padding())
    found = [answers.results(backend, model, case.spec, arguments) for arguments in padded]
    per_step = ["outputs"] + (["scores"] if case.spec.head and case.spec.head.reads == "steps" else [])
    yield from (zero(f"{name} at invalid steps", found[0][name][_invalid(given)]) for name in per_step)
    yield from equal("other padding", found[1], found[0])
    if hasattr(backend, "gradients"):
        slopes = [answers.gradients(backend, model, arguments, case.cotangents) for arguments in padded]
        for name, read in (("inputs", given), ("source", source)):
            if name in slopes[0] and read:
                yield zero(f"gradient of {name} at invalid steps", slopes[0][name][_invalid(read)])
        yield from equal("gradients, other padding", slopes[1], slopes[0])


def check_relu_at_zero(backend: Any, case: AnyCase, dtype: str) -> Iterator[Comparison]:
    """The derivative of relu at 0 is 0: where every sum is 0, every gradient but the last affine map's is."""
    model = asked(backend, "build", case.spec, dtype=dtype)
    asked(backend, "from_spec", model, {name: np.zeros_like(array, dtype) for name, array in case.weights.items()})
    cotangents = Cotangents(case.cotangents.outputs, None, None)
    for name, value in answers.gradients(backend, model, _given(case), cotangents).items():
        yield zero(f"gradient of {name}", value)


def check_training(backend: Any, case: TrainingCase, dtype: str) -> Iterator[Comparison]:
    """Loss and gradient norm of every step, and weights and state after the last.

    In float64 the last step is made by a new trainer, which takes over by the state, so that the state must be whole.
    """
    model = _model(backend, case.case, dtype)
    *first, last = case.updates()
    trainer = asked(backend, "trainer", model, case.training)
    steps = [answers.update(trainer, *batches) for batches in first]
    if dtype == "float64":
        state, trainer = answers.state(trainer), asked(backend, "trainer", model, case.training)
        asked(trainer, "load_state", state)
    steps.append(answers.update(trainer, *last))
    found = {"loss": np.array([s[0] for s in steps]), "gradient norm": np.array([s[1] for s in steps])}
    expected, limits = truth_and_bounds("training", case, dtype)
    numbers = [name for name in expected if name not in ("loss", "gradient norm", "step")]
    found |= answers.weights(backend, model) | answers.state(trainer)
    yield from compared(found, expected, limits, dict.fromkeys(numbers, dtype))


def check_trajectory(backend: Any, case: Trajectory, dtype: str) -> Iterator[Comparison]:
    """Loss, gradient norm, weights and state after every update, for as many as the bound means something."""
    expected, limits = truth_and_bounds("trajectory", case, dtype)
    count = max(meaningful(expected, limits), 1)  # where there is none, the first says why
    model = asked(backend, "build", case.spec, dtype=dtype)
    asked(backend, "from_spec", model, {name: array.astype(dtype) for name, array in case.weights.items()})
    trainer, after = asked(backend, "trainer", model, case.training), list[dict[str, Any]]()
    for batch in case.batches[:count]:
        loss, norm = answers.update(trainer, batch)
        after.append({"loss": loss, "gradient norm": norm, **answers.weights(backend, model), **answers.state(trainer)})
    found = {name: np.stack([each[name] for each in after]) for name in after[0]}
    first = {name: Truth(nearest[:count], rest[:count]) for name, (nearest, rest) in expected.items()}
    allowed = {name: array[:count] for name, array in limits.allowed.items()}
    numbers = [name for name in expected if name not in ("loss", "gradient norm", "step")]
    yield from compared(found, first, replace(limits, allowed=allowed), dict.fromkeys(numbers, dtype))


def meaningful(expected: Mapping[str, Truth], limits: Bounds) -> int:
    """How many updates of a run can be judged, from the first on (SPEC.md, 11.8)."""
    for number in range(len(expected["loss"].nearest)):
        for name, (nearest, _) in expected.items():
            one, allowed = nearest[number], limits.allowed[name][number]
            if not Comparison(name, one, one, allowed).decidable:
                return number
    return len(expected["loss"].nearest)


def has_padding(case: Any) -> bool:
    return isinstance(case, AnyCase) and set(case.kinds_of_sequences) != {"full"}


def shows_relu(case: Any) -> bool:
    """Where directions are multiplied, relu(0) times relu(0) hides what the derivative at 0 is."""
    if not isinstance(case, Case) or case.sequences != "full" or not case.spec.is_core:
        return False
    return case.spec.nonlinearity == "relu" and case.spec.merge != "multiply"


CHECKS: Mapping[str, Check] = {
    "weights": Check("9 parameters", None, check_weights),
    "results": Check(None, None, check_results),
    "gradients": Check("11.2 gradients", "gradients", check_gradients),
    "cotangents": Check("11.2 gradients", "gradients", check_cotangents),
    "padding": Check("6.4 padding", None, check_padding, has_padding),
    "relu_at_zero": Check("3.4 relu at 0", "gradients", check_relu_at_zero, shows_relu),
    "training": Check("12 training", "trainer", check_training, lambda case: isinstance(case, TrainingCase)),
    "trajectory": Check("12.18 trajectory", "trainer", check_trajectory, lambda case: isinstance(case, Trajectory)),
}


def _global_random_state() -> dict[str, Array]:
    state = np.random.get_state(legacy=False)["state"]
    return {name: np.array(value) for name, value in state.items()}


def _model(backend: Any, case: AnyCase, dtype: str) -> Any:
    model = asked(backend, "build", case.spec, dtype=dtype)
    asked(backend, "from_spec", model, {name: array.astype(dtype) for name, array in case.weights.items()})
    return model


def _flat(arguments: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays by name, also where an argument is a mapping of them."""
    parts = {name: value if isinstance(value, Mapping) else {"": value} for name, value in arguments.items()}
    if isinstance(source := arguments.get("context"), Source):
        parts["context"] = {name: array for name, array in source._asdict().items() if array is not None}
    return {f"{name}{key}": np.array(array) for name, part in parts.items() for key, array in part.items()}


def _given(case: AnyCase) -> dict[str, Any]:
    """All arguments of a run."""
    return {"inputs": case.inputs, **case.arguments}


def _invalid(given: Inputs) -> NDArray[np.bool_]:
    """(B, T), True at invalid steps."""
    return np.zeros(given.inputs.shape[:2], bool) if given.mask is None else ~given.mask


def _initialised(spec: AnySpec, rule: Initializer) -> AnySpec:
    """The spec with another initializer."""
    if isinstance(spec, ModelSpec):
        return replace(spec, initializer=rule)
    return replace(spec, **{side: replace(part, initializer=rule) for side, part in spec.sides.items()})


def _refuses(backend: Any, model: Any, what: str, weights: Mapping[str, Array]) -> None:
    try:
        asked(backend, "from_spec", model, weights)
    except (RnnZooError, ValueError, KeyError, TypeError):
        return
    raise ConformanceError(f"from_spec: expected an error for weights {what}, got none")
