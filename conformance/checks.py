"""What is checked of a backend on a case, each check against the truth and its bound, or against the backend itself."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..spec.backend import Result
from ..spec.data import Described, check_choice
from ..spec.errors import ConformanceError, InputError, RnnZooError, SpecError, UnsupportedError
from ..spec.initializers import INITIALIZERS
from ..spec.inputs import Cotangents
from ..spec.parameters import initial_weights
from .bounds import Bounds, Quantities, Truth, bounds, everything, gradients, truth
from .cases import DTYPES, Case, cases, quick_cases
from .comparison import Comparison, compared, identical, zero
from .divergence import Divergence
from .training import TrainingCase, quick_training_cases, training_cases
from .training import quantities as training_quantities

Array = NDArray[Any]


@dataclass(frozen=True)
class Item(Described):
    """One check of one case in one precision; `name` tells it apart from all others of the table."""

    check: str
    case: Any
    dtype: str

    PARTS: ClassVar[Mapping[str, tuple[type[Described], ...]]] = {"case": (Case, TrainingCase)}

    def __post_init__(self) -> None:
        check_choice("item check", self.check, tuple(CHECKS))
        check_choice("item dtype", self.dtype, DTYPES)
        if not CHECKS[self.check].applies(self.case):
            raise SpecError(f"item: check {self.check!r} has nothing to see in the case {self.case.name}")

    @property
    def name(self) -> str:
        return f"{self.check}-{self.dtype}-{self.case.name}"

    @property
    def clause(self) -> str:
        """The clause of SPEC.md that it is there for."""
        return CHECKS[self.check].clause or self.model_case.clause

    @property
    def model_case(self) -> Case:
        """The case without what is trained."""
        case: Case = self.case.case if isinstance(self.case, TrainingCase) else self.case
        return case


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
    applies: Callable[[Any], bool] = lambda case: isinstance(case, Case)


def check_weights(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """Initial values are the spec's, conversion there and back keeps every bit, and a wrong weight changes nothing."""
    state = _global_random_state()
    for initializer, seed in ((case.spec.initializer, 5), (INITIALIZERS["keras"], 2**40 + 7)):
        spec = replace(case.spec, initializer=initializer)
        model = backend.build(spec, seed=seed, dtype=dtype)
        yield from identical("initial", backend.to_spec(model), initial_weights(spec, seed, dtype))
    yield from identical("global random state", _global_random_state(), state)
    weights = {name: array.astype(dtype) for name, array in case.weights.items()}
    name = next(reversed(weights))
    weights[name].flat[0] = -0.0
    given = {key: array.copy() for key, array in weights.items()}
    backend.from_spec(model, given)
    yield from identical("round trip", backend.to_spec(model), weights)
    for array in (*given.values(), *backend.to_spec(model).values()):
        array[...] = 7  # neither what was given nor what was returned is the model's own memory
    yield from identical("after changes outside", backend.to_spec(model), weights)
    other = "float32" if dtype == "float64" else "float64"
    wrong = {key: array + 1 for key, array in weights.items()}
    _refuses(backend, model, f"without {name}", {key: value for key, value in wrong.items() if key != name})
    _refuses(backend, model, "with a surplus name", {**wrong, "surplus": wrong[name]})
    _refuses(backend, model, "of another shape", {**wrong, name: wrong[name][:-1]})
    _refuses(backend, model, f"of dtype {other}", {**wrong, name: wrong[name].astype(other)})
    yield from identical("after refusals", backend.to_spec(model), weights)


def check_results(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """Shapes, dtypes, outputs, final states and scores; the caller's arrays stay what they are."""
    model, given = _model(backend, case, dtype), {"inputs": case.inputs, **case.arguments}
    before = copy.deepcopy(given)
    found: Result = backend.run(model, **given)
    yield from compared(found.arrays(), *_expected_results(case, dtype), dtype)
    yield from identical("the caller's arrays after the run", _flat(given), _flat(before))


def check_gradients(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """Gradients of every weight, the inputs, the initial state or the context."""
    found = _gradients(backend, _model(backend, case, dtype), case, case.inputs, case.cotangents)
    yield from compared(found, *_expected_gradients(case, dtype), dtype)


def check_cotangents(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """A cotangent that is not given counts as zero: the gradients for each alone."""
    model = _model(backend, case, dtype)
    for name, cotangents in _alone(case).items():
        found = _gradients(backend, model, case, case.inputs, cotangents)
        for comparison in compared(found, *_expected(name, case, dtype), dtype):
            yield replace(comparison, quantity=f"{comparison.quantity} for {name} alone")


def check_padding(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """Invalid steps give exactly 0, and what stands in the padding changes no bit of anything."""
    model = _model(backend, case, dtype)
    mask = case.understood.mask
    assert mask is not None
    inputs = (case.inputs, case.with_other_padding())
    found = [_run(backend, model, case, given).arrays() for given in inputs]
    slopes = [_gradients(backend, model, case, given, case.cotangents) for given in inputs]
    per_step = ["outputs"] + (["scores"] if case.spec.head and case.spec.head.reads == "steps" else [])
    yield from (zero(f"{name} at invalid steps", found[0][name][~mask]) for name in per_step)
    if "inputs" in slopes[0]:
        yield zero("gradient of inputs at invalid steps", slopes[0]["inputs"][~mask])
    yield from identical("other padding", found[1], found[0])
    yield from identical("gradients, other padding", slopes[1], slopes[0])


def check_relu_at_zero(backend: Any, case: Case, dtype: str) -> Iterator[Comparison]:
    """The derivative of relu at 0 is 0: where every sum is 0, every gradient but the last affine map's is."""
    model = backend.build(case.spec, dtype=dtype)
    backend.from_spec(model, {name: np.zeros_like(array, dtype) for name, array in case.weights.items()})
    cotangents = Cotangents(case.cotangents.outputs, None, None)
    for name, value in _gradients(backend, model, case, case.inputs, cotangents).items():
        yield zero(f"gradient of {name}", value)


def check_training(backend: Any, case: TrainingCase, dtype: str) -> Iterator[Comparison]:
    """Loss and gradient norm of every step, and weights and state after the last.

    In float64 the last step is made by a new trainer, which takes over by the state, so that the state must be whole.
    """
    model = _model(backend, case.case, dtype)
    *first, last = case.batches()
    trainer = backend.trainer(model, case.training)
    steps = [trainer.step(batch) for batch in first]
    if dtype == "float64":
        state, trainer = trainer.state(), backend.trainer(model, case.training)
        trainer.load_state(state)
    steps.append(trainer.step(last))
    found = {"loss": np.array([s[0] for s in steps]), "gradient norm": np.array([s[1] for s in steps])}
    expected, limits = _expected("training", case, dtype)
    numbers = [name for name in expected if name not in ("loss", "gradient norm", "step")]
    found |= backend.to_spec(model) | trainer.state()
    yield from compared(found, expected, limits, dict.fromkeys(numbers, dtype))


def _has_padding(case: Any) -> bool:
    return isinstance(case, Case) and case.sequences != "full"


def _shows_relu(case: Any) -> bool:
    """Where directions are multiplied, relu(0) times relu(0) hides what the derivative at 0 is."""
    if not isinstance(case, Case) or case.sequences != "full" or not case.spec.is_core:
        return False
    return case.spec.nonlinearity == "relu" and case.spec.merge != "multiply"


CHECKS: Mapping[str, Check] = {
    "weights": Check("9 parameters", None, check_weights),
    "results": Check(None, None, check_results),
    "gradients": Check("11.2 gradients", "gradients", check_gradients),
    "cotangents": Check("11.2 gradients", "gradients", check_cotangents),
    "padding": Check("6.4 padding", "gradients", check_padding, _has_padding),
    "relu_at_zero": Check("3.4 relu at 0", "gradients", check_relu_at_zero, _shows_relu),
    "training": Check("12 training", "trainer", check_training, lambda case: isinstance(case, TrainingCase)),
}


def item(check: str, case: Any, dtype: str) -> Item:
    """The check of a case in a precision, with numbers of as many bits as the precision has."""
    bits = np.finfo(dtype).nmant + 1
    inner = replace(case.case, bits=bits) if isinstance(case, TrainingCase) else replace(case, bits=bits)
    return Item(check, replace(case, case=inner) if isinstance(case, TrainingCase) else inner, dtype)


def items(*, quick: bool = False) -> list[Item]:
    """Every check of every case in both precisions that it applies to."""
    table, runs = (quick_cases(), quick_training_cases()) if quick else (cases(), training_cases())
    relu = [case for case in cases() if _shows_relu(case)]
    spacing = {"weights": 3, "cotangents": 3} if quick else {"cotangents": 8}
    found = []
    for start, dtype in enumerate(reversed(DTYPES)):
        own = slice(start, None, 2) if quick else slice(None)  # quickly, each case is run in one of the two precisions
        for number, case in list(enumerate(table))[own]:
            applicable = [name for name in ("weights", "results") if number % spacing.get(name, 1) == 0]
            if case.scale == 1.0:  # elsewhere tanh is saturated, and rounding alone decides
                applicable += ["gradients"] + (["padding"] if _has_padding(case) else [])
                applicable += ["cotangents"] if number % spacing["cotangents"] == 0 else []
            found += [item(check, case, dtype) for check in applicable]
        found += [item("relu_at_zero", case, dtype) for case in (relu[:2] if quick else relu)]
        found += [item("training", case, dtype) for case in runs[own]]
    return found


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of an item.

    Attributes:
        verdict: `passed`, `failed`, `skipped`, or `ill-conditioned` where rounding alone can be as large as a quantity.
        comparisons: everything that was compared.
        message: what there is to say.
        seconds: that it took, the truth included where it was not known yet.
        divergence: of a failure, where it begins.
        smaller: of a failure, a small item that fails in the same way.
    """

    item: Item
    verdict: str
    comparisons: tuple[Comparison, ...] = ()
    message: str = ""
    seconds: float = 0.0
    divergence: Divergence | None = None
    smaller: Item | None = None

    @property
    def worst(self) -> Comparison | None:
        """The comparison with the largest error in units of what is allowed."""
        return max(self.comparisons, key=lambda comparison: comparison.ratio, default=None)


def run(backend: Any, item: Item) -> Outcome:
    """Run one item. What a backend does not offer or support is skipped with the reason; an error of any kind fails.

    Raises:
        InputError: the case itself cannot be computed.
    """
    start = time.perf_counter()
    _prepare(item)
    try:
        if reason := unsupported(backend, item):
            return Outcome(item, "skipped", (), reason)
        own = copy.deepcopy(item.case)  # whatever a backend writes into it, the truth and other backends do not see
        every = CHECKS[item.check].run(backend, own, item.dtype)
        found = tuple(comparison for comparison in every if comparison.expected.size)
        verdict, message = _judged(found)
    except UnsupportedError as error:  # which a program may know only when it is asked
        verdict, found, message = "skipped", (), str(error)
    except ConformanceError as error:
        verdict, found, message = "failed", (), str(error)
    except Exception as error:  # a backend may raise anything: that is a finding, not the end of the suite
        verdict, found, message = "failed", (), f"{type(error).__name__}: {error}"
    return Outcome(item, verdict, found, message, time.perf_counter() - start)


def _prepare(item: Item) -> None:
    """Everything about an item that no backend has a part in; the truth is kept for the check."""
    case = item.model_case
    try:
        names = {"results": ["everything"], "gradients": ["everything"], "training": ["training"]}.get(item.check, [])
        for name in list(_alone(case)) if item.check == "cotangents" else names:
            _expected(name, item.case, item.dtype)
        copy.deepcopy((case.weights, case.inputs, case.arguments, case.cotangents, case.understood))
    except (ArithmeticError, MemoryError) as error:
        raise InputError(f"item {item.name}: cannot be computed: {type(error).__name__} {error}".rstrip()) from error


def _judged(found: tuple[Comparison, ...]) -> tuple[str, str]:
    if not found:
        return "failed", "the check compared nothing"
    if wrong := [comparison for comparison in found if not comparison.ratio <= 1]:
        return "failed", "; ".join(comparison.description() for comparison in wrong)
    if unclear := [comparison for comparison in found if not comparison.decidable]:
        gains = ", ".join(f"{c.quantity} ({c.gain:.2g} times)" for c in unclear)
        return "ill-conditioned", f"rounding alone may change the numbers beyond recognition: {gains}"
    return "passed", ""


def unsupported(backend: Any, item: Item) -> str | None:
    """Why an item does not apply to a backend, or None."""
    needs = CHECKS[item.check].needs
    if needs and not hasattr(backend, needs):
        return f"{backend.name} has no {needs}"
    if item.dtype not in getattr(backend, "dtypes", DTYPES):
        return f"{backend.name} does not compute in {item.dtype}"
    case = item.model_case
    if case.sequences in ("left_padding", "holes") and not getattr(backend, "masks", True):
        return f"{backend.name} takes lengths, but no mask"
    reason: str | None = backend.supports(case.spec)
    return reason


def _global_random_state() -> dict[str, Array]:
    state = np.random.get_state(legacy=False)["state"]
    return {name: np.array(value) for name, value in state.items()}


def _model(backend: Any, case: Case, dtype: str) -> Any:
    model = backend.build(case.spec, dtype=dtype)
    backend.from_spec(model, {name: array.astype(dtype) for name, array in case.weights.items()})
    return model


def _flat(arguments: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays by name, also where an argument is a mapping of them."""
    parts = {name: value if isinstance(value, Mapping) else {"": value} for name, value in arguments.items()}
    return {f"{name}{key}": np.array(array) for name, part in parts.items() for key, array in part.items()}


def _run(backend: Any, model: Any, case: Case, inputs: Array) -> Result:
    result: Result = backend.run(model, inputs, **case.arguments)
    return result


def _gradients(backend: Any, model: Any, case: Case, inputs: Array, cotangents: Cotangents) -> dict[str, Array]:
    found: dict[str, Array] = backend.gradients(
        model, inputs, cotangents.outputs, cotangents.final_states, cotangents.scores, **case.arguments
    )
    return found


def _alone(case: Case) -> dict[str, Cotangents]:
    """The cotangents of each kind of result, without the others."""
    every = case.cotangents
    found = {
        "outputs": Cotangents(every.outputs, None, None),
        "final states": Cotangents(None, every.final_states, None),
    }
    return found | ({"scores": Cotangents(None, None, every.scores)} if case.spec.head else {})


def _expected_results(case: Case, dtype: str) -> tuple[dict[str, Truth], Bounds]:
    found, limits = _expected("everything", case, dtype)
    results = {name: value for name, value in found.items() if not name.startswith("gradient.")}
    return results, limits


def _expected_gradients(case: Case, dtype: str) -> tuple[dict[str, Truth], Bounds]:
    found, limits = _expected("everything", case, dtype)
    slopes = {name: value for name, value in found.items() if name.startswith("gradient.")}
    return {name.removeprefix("gradient."): value for name, value in slopes.items()}, limits.part("gradient.")


@lru_cache(maxsize=8)  # the checks of a case follow each other, and all backends take an item in turn
def _expected(what: str, case: Any, dtype: str) -> tuple[dict[str, Truth], Bounds]:
    quantities = _quantities(what, case)
    return truth(quantities), bounds(quantities, dtype)


def _quantities(what: str, case: Any) -> Quantities:
    if what == "training":
        return lambda ops: training_quantities(case, ops)
    if what == "everything":
        return everything(case.spec, case.weights, case.understood, case.cotangents)
    return gradients(case.spec, case.weights, case.understood, _alone(case)[what])


def _refuses(backend: Any, model: Any, what: str, weights: Mapping[str, Array]) -> None:
    try:
        backend.from_spec(model, weights)
    except (RnnZooError, ValueError, KeyError, TypeError):
        return
    raise ConformanceError(f"from_spec: expected an error for weights {what}, got none")
