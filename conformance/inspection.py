"""What a model file holds, and how two of them differ, as text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.backend import Contents, load_backend
from ..spec.checkpoint import NO_HINTS, described
from ..spec.encoder_decoder import AnySpec, differing_fields, networks
from ..spec.found import FoundFile, FoundLayer, Hints
from ..spec.model import ModelSpec
from ..spec.naming import KIND
from ..spec.parameters import parameters, weights_dtype
from ..spec.stored import Array
from ..tasks.tables import counted, number, printable, table
from .comparison import largest_difference, same_bits
from .conversion_report import remarks
from .equivalence import Side, compare, side
from .formats import TOP, Format, contents, find, format_in, read

SHOWN = 20  # tensors that belong to no layer
READ = 2**24  # numbers that are looked at for NaN and infinity


def describe(path: Path, hints: Hints = NO_HINTS) -> str:
    """What a file holds: of a model of ours everything, of any other its recurrent layers and what else there is.

    Raises:
        FileError, WeightError, UnsupportedError: the file cannot be read.
    """
    form, found = find(path, hints)
    one = found.layers[0] if len(found.layers) == 1 else None
    if one and one.kind == KIND and one.spec and not (one.assumed or one.given):
        return _model(path, contents(path, form, found, one))
    rows = [(one.path or TOP, one.kind, *_layer(one)) for one in found.layers]
    header = ("layer", "kind", "variant", "sizes", "layers", "nonlinearity", "bias", "merge", "numbers", "dtype")
    parts = [f"{path}: {found.format}, {counted(len(rows), 'recurrent layer')}", ""]
    parts += [table(header, rows), ""] if rows else []
    for one in found.layers:
        name = one.path or TOP
        lines = [f"refused: {one.refusal}"] if one.refusal else [*remarks(one), *_not_finite(path, form, found, one)]
        parts += [f"{name}: {line}" for line in lines]
    parts += [f"{key}: {value}" for key, value in found.facts.items()]
    return printable("\n".join([*parts, *_rest(found)]).rstrip())


def _layer(one: FoundLayer) -> tuple[str, ...]:
    spec = one.spec
    if spec is None:
        return ("refused", *("" for _ in range(7)))
    count = sum(parameter.count for parameter in parameters(spec))
    dtype = next(iter(one.parts.values())).tensor.dtype if one.parts else ""
    told = (", ".join(dict.fromkeys(column)) for column in zip(*map(_network, networks(spec)), strict=True))
    return *told, f"{count:,}", dtype


def _network(spec: ModelSpec) -> tuple[str, ...]:
    sizes = f"{spec.input_size} to {spec.hidden_size}"
    merge = spec.merge if spec.num_directions == 2 else ""
    return spec.variant, sizes, str(spec.num_layers), spec.nonlinearity, spec.bias, merge


def _not_finite(path: Path, form: Format, found: FoundFile, one: FoundLayer) -> list[str]:
    """Which weights hold NaN or infinity, of a layer that is soon read. Raises FileError or WeightError."""
    assert one.spec is not None
    if sum(parameter.count for parameter in parameters(one.spec)) > READ:
        return [f"more than {READ:,} numbers: not looked at for NaN and infinity"]
    weights = contents(path, form, found, one).weights
    remarks = {one.parts[name].name: _remark(weights[name]) for name in weights}
    return [f"{name}: {remark}" for name, remark in remarks.items() if remark]


def _rest(found: FoundFile) -> list[str]:
    if not found.rest:
        return ["nothing else is in the file"]
    rows = [
        (name, "x".join(map(str, one.shape)) or "scalar", one.dtype) for name, one in list(found.rest.items())[:SHOWN]
    ]
    more = [f"and {len(found.rest) - SHOWN:,} more"] if len(found.rest) > SHOWN else []
    return ["", counted(len(found.rest), "other tensor"), table(("tensor", "shape", "dtype"), rows), *more]


def _model(path: Path, contents: Contents) -> str:
    """Spec, parameters with shapes and counts, and provenance. Raises WeightError."""
    described(contents)
    rows, total = [], 0
    for p in parameters(contents.spec):
        array = contents.weights[p.name]
        rows.append((p.name, "x".join(map(str, p.shape)), array.dtype.name, f"{p.count:,}", _remark(array)))
        total += p.count
    parts = [
        f"{path}: {_title(contents.spec)}",
        "",
        contents.spec.to_yaml(),
        table(("parameter", "shape", "dtype", "count", ""), rows),
    ]
    parts += [f"{total:,} numbers in {len(rows)} parameters", "", "provenance"]
    parts += [f"  {key}: {_short(value)}" for key, value in sorted(contents.provenance.items())] or ["  none recorded"]
    return "\n".join(parts)


def difference(first: Path, second: Path, spec: AnySpec | None = None) -> tuple[str, bool]:
    """How two model files differ, tensor by tensor and by running both; and whether they are the same model."""
    a, b = read(first, spec), read(second, spec)
    fields = differing_fields(a.spec, b.spec)
    lines = [f"spec {name}: {_value(a.spec, name)!r} | {_value(b.spec, name)!r}" for name in fields]
    rows, same_weights = _tensors(a.weights, b.weights)
    parts = [*lines, table(("parameter", "only in / difference", "largest"), rows)]
    names = {name.rpartition(".")[2] for name in fields}
    if names & {"input_size", "embedding", "head", "context", "cell"} or _states(a.spec) != _states(b.spec):
        return "\n".join([*parts, "", "not run: the two take other inputs or states"]), False
    if "hidden_size" in names or a.spec.output_size != b.spec.output_size:
        return "\n".join([*parts, "", "not run: the two give outputs of other sizes"]), False
    comparisons = compare(*(_side(path, one) for path, one in ((first, a), (second, b))))
    parts += ["", table(("run on random inputs", "difference", "allowed", "verdict"), [
        (c.quantity, number(c.error), number(c.limit), "same" if c.ratio <= 1 else "DIFFERENT") for c in comparisons
    ])]  # fmt: skip
    return "\n".join(parts), same_weights and not fields and all(c.ratio <= 1 for c in comparisons)


def _value(spec: AnySpec, name: str) -> Any:
    """Of a field, such as `merge` or `encoder.merge`; None where the spec has no such part."""
    side, _, field = name.rpartition(".")
    return getattr(getattr(spec, side, None) if side else spec, field, None)


def _states(spec: AnySpec) -> list[int]:
    return [network.state_shape(1)[0] for network in networks(spec)]


def _side(path: Path, contents: Contents) -> Side:
    """The model, in the framework that its file belongs to."""
    backend = load_backend(format_in(path).backend)
    model = backend.build(contents.spec, dtype=weights_dtype(contents.weights))
    backend.from_spec(model, contents.weights)
    return side(model)


def _tensors(a: Mapping[str, Array], b: Mapping[str, Array]) -> tuple[list[tuple[str, str, str]], bool]:
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


def _title(spec: AnySpec) -> str:
    if not isinstance(spec, ModelSpec):
        return f"encoder: {_title(spec.encoder)}; decoder: {_title(spec.decoder)}"
    parts = [name for name in ("embedding", "context", "head") if getattr(spec, name)]
    return f"{spec.variant}, cell {spec.cell}" + (f", with {' and '.join(parts)}" if parts else "")


def _remark(array: NDArray[Any]) -> str:
    return "" if np.isfinite(array).all() else f"{int((~np.isfinite(array)).sum())} not finite"


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
