"""Recurrent layers out of named tensors, and out of what a configuration says of them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..spec.definitions import variant_of
from ..spec.encoder_decoder import AnySpec, spec_from_text
from ..spec.errors import RnnZooError, SpecError, WeightError, listed
from ..spec.found import FoundLayer, Hints, Original, check_count
from ..spec.model import ModelSpec
from ..spec.parameters import parameters
from ..spec.parts import Part, check_parts
from ..spec.stored import StoredTensor
from .configuration import Record
from .naming import BASIC, NamedCell, cells, in_order, layer_of, located, plain_place, spoken
from .weights import place

KIND, RECURRENT = "rnnzoo", "rnnzoo>Recurrent"
Sides = dict[str, list[NamedCell]]
Tensors = Mapping[str, StoredTensor]


def found_layers(
    tensors: Tensors,
    hints: Hints,
    records: Iterable[Record] = (),
    own_classes: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> tuple[list[FoundLayer], list[str]]:
    """Every recurrent layer, then stacks of them; and the names of all other tensors.

    Layers that read one another alone are also found as one stack, as far as the spec has it: of one size,
    nonlinearity, bias and merge. Its path is `first..last`, and each of the layers is found by itself as well.

    Args:
        records, own_classes: out of the configuration; in its order the layers come.
        names: of layers by the paths of their variables.
    """
    known = {record.key: record for record in records}
    groups: dict[str, Sides] = {key: {} for key in known}
    named = cells(tensors)
    check_count(len(named))
    by_path = located(named, known.values())
    keys = {cell.path: record.key for record in known.values() for cell in record.cells}
    for path in in_order(by_path):
        key, side = layer_of(path)
        groups.setdefault(keys.get(path, key), {}).setdefault(side, []).append(by_path[path])
    layers, rest = {}, dict.fromkeys(tensors)
    for key, sides in groups.items():
        record = known.get(key)
        if record is not None and record.spec is not None:
            layers[key] = _own(record, tensors)
        else:
            own_class = (own_classes or {}).get(key)
            record = _checked(record, by_path) if record and sides else record
            layers[key] = _layer(spoken(key, names or {}), sides, record, own_class, hints)
            if record is not None and layers[key].spec is not None:
                layers[key] = replace(layers[key], original=_original(record, by_path))
        for part in layers[key].parts.values():
            rest.pop(part.name, None)
    after = {record.key: record.after for record in known.values()}
    if not known and isinstance(hints.spec, ModelSpec) and hints.spec.num_layers > 1:
        after = dict(zip(list(layers)[1:], layers, strict=False))
    return [*layers.values(), *_stacks(layers, after)], list(rest)


def _checked(record: Record, by_path: Mapping[str, NamedCell]) -> Record:
    """The record, refused where the file lacks one of its cells: of two directions one would be read as a layer."""
    lost = [cell.path for cell in record.cells if cell.path not in by_path]
    reason = f"the file has no weights {lost[0]}, which its configuration has; save the model again" if lost else None
    return replace(record, refusal=record.refusal or reason)


def _layer(path: str, sides: Sides, record: Record | None, own_class: str | None, hints: Hints) -> FoundLayer:
    """The layer that the cells are, or why they are none."""
    found = FoundLayer(path, _kind(sides), parts=_parts(sides))
    if record is not None:
        found = replace(found, path=record.path, kind=record.kind, notes=record.notes, refusal=record.refusal)
    elif len(sides) == 1:
        found = replace(found, notes=("that it reads forward is assumed: the file does not tell",))
    if own_class:
        found = replace(found, refusal=f"its class {own_class} is not Keras', and its code alone says what it does")
    if found.refusal is None:
        found = replace(found, refusal=_obstacle(found, sides))
    if found.refusal is not None:
        return found
    try:
        spec = _spec(sides, record, hints)
        check_parts(spec, found.parts)
    except RnnZooError as error:
        return replace(found, refusal=f"{found.kind} has weights that do not fit one another: {error}")
    assumed = () if record else ("nonlinearity",) + ("merge",) * (len(sides) == 2)
    if record and (spec.hidden_size, spec.bias != "none") != (record.units, record.use_bias):
        told = f"units={record.units}, use_bias={record.use_bias}"
        reason = f"{found.kind} has weights of {spec.hidden_size} units with bias '{spec.bias}', not of {told}"
        return replace(found, refusal=f"{reason}, as its configuration says; save the model again")
    return replace(found, spec=spec, assumed=assumed)


def _original(record: Record, by_path: Mapping[str, NamedCell]) -> Original:
    """The layer's own options, and for each of its cells the names of the weights."""
    rows = [list(by_path[cell.path].parts.values()) for cell in record.cells]
    tensors = {part.name: part.tensor for row in rows for part in row}
    cells = [[part.name for part in row] for row in rows]
    return Original(tensors, {"layers": [{"options": record.told, "cells": cells}]})


def _kind(sides: Sides) -> str:
    kinds = list(dict.fromkeys(cell.kind for row in sides.values() for cell in row))
    many = any(len(row) > 1 for row in sides.values())
    kind = f"RNN(StackedRNNCells of {kinds[0]})" if many else kinds[0] if kinds else "layer"
    return f"Bidirectional({kind})" if len(sides) == 2 else kind


def _parts(sides: Sides) -> dict[str, Part]:
    return {
        f"layers.{number}.{side or 'forward'}.{name}": part
        for number in range(max(map(len, sides.values()), default=0))
        for side, row in sorted(sides.items(), reverse=True)
        for name, part in (row[number].parts.items() if number < len(row) else ())
    }


def _obstacle(found: FoundLayer, sides: Sides) -> str | None:
    """Why the weights cannot be one layer's."""
    kinds = {cell.kind for row in sides.values() for cell in row}
    if not sides:
        return (
            f"{found.kind} has no weights of its own in the file: it shares those of another layer, or was never built"
        )
    if other := kinds - {"SimpleRNN", BASIC, "unknown"}:
        return f"{found.kind} holds {' and '.join(sorted(other))} weights; expected a simple recurrent network"
    if "unknown" in kinds:
        shapes = ", ".join(str(part.shape) for part in found.parts.values())
        return f"{found.kind} has weights of shapes {shapes}, which are no simple recurrent network's"
    if sorted(sides) not in ([""], ["forward"], ["backward", "forward"]):
        return f"{found.kind} reads backward alone, which no variant does; flip its inputs in time, and rename it"
    if len(sides) == 2 and any(len(row) > 1 for row in sides.values()):
        return f"{found.kind} is two stacks that do not read one another, which no variant is"
    return None


def _spec(sides: Sides, record: Record | None, hints: Hints) -> ModelSpec:
    first = next(iter(sides.values()))
    H, I = first[0].parts["input_weight"].shape  # noqa: E741 (the spec's symbol)
    told = record or (hints.spec if isinstance(hints.spec, ModelSpec) else None)
    return ModelSpec(
        variant_of(len(first), len(sides)), I, H, len(first),
        (record and record.nonlinearity) or hints.nonlinearity or (told.nonlinearity if told else "tanh"),
        "single" if "bias" in first[0].parts else "none",
        told.merge if told and len(sides) == 2 else "concat",
    )  # fmt: skip


def _stacks(layers: Mapping[str, FoundLayer], after: Mapping[str, str]) -> list[FoundLayer]:
    """As few stacks as hold all layers that read one another."""
    below = {
        key: before for key, before in after.items()
        if key != before and {key, before} <= set(layers) and _fit(layers[before], layers[key])
    }  # fmt: skip
    found, inner = [], set(below.values())
    for top in [key for key in below if key not in inner]:
        chain = [top]
        while chain[0] in below and len(chain) < len(layers):
            chain.insert(0, below[chain[0]])
        found.append(_stack([layers[key] for key in chain]))
    return found


def _fit(lower: FoundLayer, upper: FoundLayer) -> bool:
    """Whether two layers can be neighbours in a stack."""
    if lower.network is None or upper.network is None or lower.network.output_size != upper.network.input_size:
        return False
    same = ("hidden_size", "num_directions", "nonlinearity", "bias", "merge")
    dtypes = {part.tensor.dtype for layer in (lower, upper) for part in layer.parts.values()}
    return len(dtypes) == 1 and all(getattr(lower.network, name) == getattr(upper.network, name) for name in same)


def _stack(layers: list[FoundLayer]) -> FoundLayer:
    parts: dict[str, Part] = {}
    specs = [layer.network for layer in layers if layer.network is not None]
    count = sum(spec.num_layers for spec in specs)
    number = 0
    for layer, spec in zip(layers, specs, strict=True):
        for name, part in layer.parts.items():
            _, own, *others = name.split(".")
            parts[".".join(("layers", str(number + int(own)), *others))] = part
        number += spec.num_layers
    return FoundLayer(
        f"{layers[0].path}..{layers[-1].path}",
        " over ".join(layer.kind for layer in reversed(layers)),
        replace(specs[0], variant=variant_of(count, specs[0].num_directions), num_layers=count),
        parts,
        layers[0].assumed,
        layers[0].given,
        tuple(dict.fromkeys(note for layer in layers for note in layer.notes)),
        original=_joined([layer.original for layer in layers if layer.original], len(layers)),
    )


def _joined(originals: list[Original], count: int) -> Original | None:
    """What the file says of all these layers; None where it does not say it of each."""
    tensors = {name: tensor for one in originals for name, tensor in one.tensors.items()}
    layers = [layer for one in originals for layer in one.told["layers"]]
    return Original(tensors, {"layers": layers}) if len(originals) == count else None


def _own(record: Record, tensors: Tensors) -> FoundLayer:
    """A layer or a model of this package among the layers of another model."""
    try:
        spec = spec_from_text(json.dumps(record.spec))
        parts: dict[str, Part] = {}
        for parameter in parameters(spec):
            row = place(parameter.name)
            layer = "" if record.kind == RECURRENT else row.layer
            name = "/".join(filter(None, (record.key, layer, "vars", row.key)))
            parts |= {parameter.name: Part(name, tensors[name], transposed=row.transposed)} if name in tensors else {}
        check_parts(spec, parts)
    except (SpecError, WeightError) as error:
        return FoundLayer(record.path, KIND, refusal=f"{record.kind} cannot be read: {error}")
    return FoundLayer(record.path, KIND, spec, parts)


def own_model(spec: AnySpec, tensors: Tensors) -> tuple[FoundLayer, list[str]]:
    """The model that a file of this package holds, in its own layout or in Keras' standard layers; and the other names.

    Raises:
        WeightError: a weight is missing or does not fit, or there is another besides the optimizer's.
    """
    if isinstance(spec, ModelSpec) and not is_own_layout(tensors):
        rows = {p.name: plain_place(spec, p.name) for p in parameters(spec)}
    else:
        rows = {p.name: own_place(p.name) for p in parameters(spec)}
    rest = [name for name in tensors if name.startswith("optimizer/")]
    expected, got = {name for name, _ in rows.values()}, set(tensors) - set(rest)
    if expected != got:
        raise WeightError(
            f"Keras file of a {spec.title}: missing {listed(expected - got)}; surplus {listed(got - expected)}"
        )
    parts = {name: Part(key, tensors[key], transposed=transposed) for name, (key, transposed) in rows.items()}
    check_parts(spec, parts)
    return FoundLayer("", KIND, spec, parts), rest


def is_own_layout(tensors: Tensors) -> bool:
    """Whether the tensors have the names that `SequenceModel` or `EncoderDecoder` gives them."""
    return any(name.startswith(("core/vars/", "encoder/core/vars/")) for name in tensors)


def own_place(name: str) -> tuple[str, bool]:
    """Where a weight stands in a file of this package's models, and whether it is transposed there."""
    row = place(name)
    return f"{row.layer}/vars/{row.key}", row.transposed
