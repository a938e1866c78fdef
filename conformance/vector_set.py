"""The cases as data for implementations in any language: `conformance/vectors/`, written and checked by one command.

    python -m rnnzoo.conformance.vector_set [FOLDER]

Every number is computed in decimals of 40 digits, bounds included, so that the files have the same bits on every
machine. `vectors/README.md` is for those who read them.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from ..spec.data import VERSION
from ..spec.inputs import state_gradients
from . import numbers
from .bounds import Quantities, bounds, everything, truth
from .case_table import bare_cases, cases, covering, factors
from .cases import Case
from .comparison import Comparison
from .oracle import DIGITS
from .pair_cases import AnyCase
from .precision import PRECISIONS
from .training import TrainingCase, quantities, training_cases

Array = NDArray[Any]
FOLDER = Path(__file__).parent / "vectors"
BITS = 8  # of the significand of every number given, so that each precision holds it exactly


def vector_cases() -> list[Case | TrainingCase]:
    """The cases of the set: every value of every factor, one forward layer alone with each of them, and training."""
    plain = [case for case in dict.fromkeys([*covering(cases(), factors), *bare_cases()]) if case.scale == 1.0]
    runs = [case for case in training_cases() if case.case.scale == 1.0 and not case.accumulates]
    found: list[Case | TrainingCase] = [replace(case, bits=BITS) for case in plain]
    return found + [replace(case, case=case.case.with_bits(BITS)) for case in runs]


def files(case: Case | TrainingCase) -> dict[str, bytes]:
    """The two files of a case, by name."""
    arrays = _training_arrays(case) if isinstance(case, TrainingCase) else _arrays(case)
    text = json.dumps(_description(case), indent=1, sort_keys=True) + "\n"
    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    return {f"{case.name}.json": text.encode(), f"{case.name}.safetensors": safetensors.numpy.save(ordered)}


def write(folder: Path = FOLDER) -> None:
    """Write all cases; those that are no longer in the set are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = set()
    for case in vector_cases():
        for name, data in files(case).items():
            (folder / name).write_bytes(data)
            kept.add(name)
    for path in folder.glob("*-*.*"):
        if path.name not in kept:
            path.unlink()


def lint(folder: Path = FOLDER) -> list[str]:
    """What is wrong with a set: files that fit neither the schema nor each other, numbers that no precision holds."""
    import jsonschema

    schema = json.loads((FOLDER / "vector.schema.json").read_text("utf-8"))
    found = []
    for path in sorted(folder.glob("*-*.json")):
        data = json.loads(path.read_text("utf-8"))
        errors = jsonschema.Draft202012Validator(schema).iter_errors(data)
        found += [f"{path.name}: {error.json_path}: {error.message}" for error in errors]
        if not path.with_suffix(".safetensors").is_file():
            found.append(f"{path.name}: expected {path.stem}.safetensors beside it")
            continue
        arrays = safetensors.numpy.load_file(path.with_suffix(".safetensors"))
        found += [f"{path.stem}: {problem}" for problem in _array_problems(arrays)]
    return found


def _description(case: Case | TrainingCase) -> dict[str, Any]:
    inner = case.case if isinstance(case, TrainingCase) else case
    assert isinstance(inner, Case)  # of an encoder with its decoder there is no vector
    spec = {key: value for key, value in inner.spec.to_data().items() if key != "initializer"}
    found = {"version": VERSION, "name": case.name, "clause": inner.clause, "digits": DIGITS, "spec": spec}
    found |= {"rows": inner.rows, "steps": inner.steps, "description": _sentence(inner)}
    if isinstance(case, TrainingCase):
        carries = [batch.continues for batch in case.batches()]
        found |= {"clause": "12 training", "training": case.training.to_data(), "continues": carries}
        found["description"] = f"Training in {len(carries)} steps. {found['description']}"
    return found


def _sentence(case: Case) -> str:
    spec = case.spec
    sequences = {
        "full": "all steps are valid", "lengths": "lengths differ", "empty_row": "one row has no valid step",
        "nan_padding": "NaN, or tokens out of range, stand in the padding",
        "left_padding": "the padding is on the left",
        "holes": "there are invalid steps in the middle",
    }[case.sequences]  # fmt: skip
    parts = [part for part in ("embedding", "head", "context") if getattr(spec, part)]
    around = f" with {' and '.join(parts)}" if parts else ""
    start = "the initial state is given" if case.initial else "the initial state is not given"
    merged = f", merged by {spec.merge}" if spec.num_directions == 2 else ""
    return f"{spec.variant}{around}, {spec.nonlinearity}, bias {spec.bias}{merged}; {sequences}; {start}."


def _arrays(case: Case) -> dict[str, Array]:
    cotangents = case.cotangents
    of = {"outputs": cotangents.outputs, "scores": cotangents.scores}
    of |= {f"final_state.{name}": array for name, array in (cotangents.final_states or {}).items()}
    found = {f"cotangent.{name}": array for name, array in of.items() if array is not None}
    found |= case.weights | _arguments(case, case.arguments) | {"inputs": case.inputs}
    return found | _outcome(everything(case.spec, case.weights, case.understood, cotangents))


def _training_arrays(case: TrainingCase) -> dict[str, Array]:
    found: dict[str, Array] = dict(case.case.weights)
    for step, batch in enumerate(case.batches()):
        given = {name: getattr(batch, name) for name in ("lengths", "mask", "initial_state", "context")}
        arrays = _arguments(case.case, {name: value for name, value in given.items() if value is not None})
        arrays |= {"inputs": batch.inputs, "targets": batch.targets}
        found |= {f"batch.{step}.{name}": array for name, array in arrays.items()}
    return found | _outcome(lambda ops: quantities(case, ops))


def _arguments(case: AnyCase, given: Mapping[str, Any]) -> dict[str, Array]:
    """The arguments of a run under the names that gradients have."""
    found = {name: np.asarray(value) for name, value in given.items() if name != "initial_state"}
    state = given.get("initial_state")
    if state is None:
        return found
    states = state if isinstance(state, Mapping) else {case.spec.cell_definition.states[0]: state}
    return found | state_gradients(case.spec, dict(states))


def _outcome(wanted: Quantities) -> dict[str, Array]:
    """What is expected, and what error is allowed in each precision, rounded up to float32, where that decides."""
    decimals = numbers.decimal(DIGITS)
    expected = {name: value.nearest for name, value in truth(wanted, decimals).items()}
    found = {f"expected.{name}": array for name, array in expected.items()}
    for dtype in PRECISIONS:
        for name, array in _allowed(wanted, dtype, decimals).items():
            if Comparison(name, expected[name], expected[name], array).decidable:
                above = np.nextafter(array.astype(np.float32), np.float32(np.inf))
                found[f"allowed.{dtype}.{name}"] = np.where(array == 0, np.float32(0), above)
    return found


def _allowed(wanted: Quantities, dtype: str, decimals: numbers.Numbers) -> Mapping[str, Array]:
    """The bounds, none where a number overflows and then meets 0, so that anything may come of it."""
    try:
        return bounds(wanted, dtype, decimals).allowed
    except InvalidOperation:
        return {}


def _array_problems(arrays: Mapping[str, Array]) -> Iterator[str]:
    expected = {name.removeprefix("expected.") for name in arrays if name.startswith("expected.")}
    if not expected:
        yield "expected arrays named expected.*, got none"
    for dtype in PRECISIONS:
        for name in expected:
            allowed = arrays.get(f"allowed.{dtype}.{name}")
            if allowed is None:
                if dtype.startswith("float") and dtype != "float16":
                    yield f"allowed.{dtype}.{name}: expected, got none"
                continue
            if not Comparison(name, arrays[f"expected.{name}"], arrays[f"expected.{name}"], allowed).decidable:
                yield f"allowed.{dtype}.{name}: expected to be below the largest number of expected.{name}"
            if allowed.shape != arrays[f"expected.{name}"].shape or not np.all(allowed >= 0):
                yield f"allowed.{dtype}.{name}: expected numbers of at least 0, shaped as expected.{name}"
    for name, array in arrays.items():
        if name.partition(".")[0] not in ("expected", "allowed") and array.dtype == np.float64:
            yield from (f"{name}: {text}" for text in _unholdable(array[np.isfinite(array)]))


def _unholdable(array: Array) -> Iterator[str]:
    """Numbers with more bits than the coarsest precision has, or too small for it."""
    mantissa, exponent = np.frexp(array)
    if np.any(np.rint(mantissa * 2**BITS) != mantissa * 2**BITS):
        yield f"expected numbers of {BITS} bits, which every precision holds"
    if np.any((exponent <= -14) & (array != 0)):
        yield "expected numbers of at least 2^-14, the smallest normal one of float16"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    write(target)
    problems = lint(target)
    print("\n".join(problems) or f"{target}: {len(vector_cases())} cases")
    sys.exit(1 if problems else 0)
