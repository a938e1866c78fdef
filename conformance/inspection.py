"""What a model file holds, and how two of them differ, as text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.model import ModelSpec
from ..spec.parameters import Weights, parameters
from ..tasks.tables import number, table
from .comparison import largest_difference, same_bits
from .equivalence import compare
from .formats import format_in, read


def describe(path: Path, spec: ModelSpec | None = None) -> str:
    """Spec, parameters with shapes and counts, and provenance of a model file. Raises FileError or WeightError."""
    contents = read(path, spec)
    rows = [
        (
            p.name,
            "x".join(map(str, p.shape)),
            contents.weights[p.name].dtype.name,
            f"{p.count:,}",
            _remark(contents.weights[p.name]),
        )
        for p in parameters(contents.spec)
    ]
    total = sum(p.count for p in parameters(contents.spec))
    parts = [
        f"{path}: {_title(contents.spec)}",
        "",
        contents.spec.to_yaml(),
        table(("parameter", "shape", "dtype", "count", ""), rows),
    ]
    parts += [f"{total:,} numbers in {len(rows)} parameters", "", "provenance"]
    parts += [f"  {key}: {_short(value)}" for key, value in sorted(contents.provenance.items())] or ["  none recorded"]
    return "\n".join(parts)


def difference(first: Path, second: Path, spec: ModelSpec | None = None) -> tuple[str, bool]:
    """How two model files differ, tensor by tensor and by running both; and whether they are the same model."""
    a, b = read(first, spec), read(second, spec)
    fields = [n for n, value in a.spec.to_data().items() if b.spec.to_data()[n] != value and n != "initializer"]
    lines = [f"spec {name}: {a.spec.to_data()[name]!r} | {b.spec.to_data()[name]!r}" for name in fields]
    rows, same_weights = _tensors(a.weights, b.weights)
    parts = [*lines, table(("parameter", "only in / difference", "largest"), rows)]
    comparable = all(name not in ("input_size", "embedding", "head", "context", "cell") for name in fields)
    if not comparable or a.spec.state_shape(1)[0] != b.spec.state_shape(1)[0]:
        return "\n".join([*parts, "", "not run: the two take other inputs or states"]), False
    if a.spec.hidden_size != b.spec.hidden_size or a.spec.output_size != b.spec.output_size:
        return "\n".join([*parts, "", "not run: the two give outputs of other sizes"]), False
    comparisons = compare(format_in(first).model(a), format_in(second).model(b))
    parts += ["", table(("run on random inputs", "difference", "allowed", "verdict"), [
        (c.quantity, number(c.error), number(c.limit), "same" if c.ratio <= 1 else "DIFFERENT") for c in comparisons
    ])]  # fmt: skip
    return "\n".join(parts), same_weights and not fields and all(c.ratio <= 1 for c in comparisons)


def _tensors(a: Weights, b: Weights) -> tuple[list[tuple[str, str, str]], bool]:
    rows = []
    for name in [*a, *(name for name in b if name not in a)]:
        if name not in a or name not in b:
            rows.append((name, "only in the " + ("second" if name not in a else "first"), ""))
        elif a[name].shape != b[name].shape:
            rows.append((name, f"shapes {a[name].shape} | {b[name].shape}", ""))
        elif a[name].dtype != b[name].dtype:
            rows.append((name, f"{a[name].dtype} | {b[name].dtype}", number(largest_difference(a[name], b[name]))))
        else:
            gap = largest_difference(a[name], b[name])
            rows.append((name, "same bits" if same_bits(a[name], b[name]) else "other numbers", number(gap)))
    return rows, all(row[1] == "same bits" for row in rows)


def _title(spec: ModelSpec) -> str:
    parts = [name for name in ("embedding", "context", "head") if getattr(spec, name)]
    return f"{spec.variant}, cell {spec.cell}" + (f", with {' and '.join(parts)}" if parts else "")


def _remark(array: NDArray[Any]) -> str:
    return "" if np.isfinite(array).all() else f"{int((~np.isfinite(array)).sum())} not finite"


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
