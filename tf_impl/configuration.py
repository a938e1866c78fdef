"""Keras' JSON of a model, read as data: its recurrent layers, and where their weights stand.

Nothing in it is made into an object. Weights stand where the objects of the configuration stand in one another: in the
attribute that a layer keeps another one in, which is named as in the configuration; in a list, under the class in
snake case with a counter. `Bidirectional` alone keeps its `layer` as `forward_layer`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from ..spec.errors import FileError
from ..spec.found import check_count
from . import options
from .options import Data, is_object, name_of, snake_case

MAXIMUM_DEPTH, MAXIMUM_OBJECTS = 64, 200_000
PASSING = ("Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization")
OWN = ("rnnzoo>SequenceModel", "rnnzoo>Recurrent", "rnnzoo>EncoderDecoder")
HISTORY = re.compile(r'"keras_history": \["((?:[^"\\]|\\.)*)", (\d+), (\d+)\]')


@dataclass(frozen=True)
class Cell:
    """A cell of a layer: the path of its weights, and how to know it where paths are made of names instead.

    Attributes:
        path: such as `layers/bidirectional/forward_layer/cell`.
        names: sets of names, one of each of which is in such a path, from the outermost in.
    """

    path: str
    names: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Record:
    """What the configuration says of a recurrent layer.

    Attributes:
        key: the path of its weights, such as `layers/bidirectional`.
        path: its name below those of the models around it, such as `encoder.bidirectional`.
        kind: such as `Bidirectional(SimpleRNN)`.
        cells: of both directions.
        units, use_bias: of the cells.
        nonlinearity, merge: in the words of the spec.
        sequences: whether it gives the outputs of all steps.
        after: the key of the recurrent layer whose outputs it reads; empty where something is between them.
        notes: what of it is left behind.
        refusal: why it cannot be converted; None where it can.
        spec: of a layer or a model of this package.
        told: the options of the layer as they stand there, for Keras to build it from.
    """

    key: str
    path: str
    kind: str
    cells: tuple[Cell, ...] = ()
    units: Any = None
    use_bias: Any = True
    nonlinearity: str = "tanh"
    merge: str = "concat"
    sequences: bool = False
    after: str = ""
    notes: tuple[str, ...] = ()
    refusal: str | None = None
    spec: Mapping[str, Any] | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_data(cls, data: Data) -> "Record":
        """The record out of what JSON made of `dataclasses.asdict`."""
        cells = tuple(Cell(cell["path"], tuple(map(tuple, cell["names"]))) for cell in data["cells"])
        return cls(**{**data, "cells": cells, "notes": tuple(data["notes"])})


@dataclass
class Layers:
    """The layers of a configuration that matter here.

    Attributes:
        records: the recurrent ones, in the order of the configuration.
        own_classes: the path of each object whose class is not Keras', and its name.
        before: the path of what each layer reads, beyond layers that do nothing in inference.
        masks: what each layer is given as a mask, by its path, where a functional model says so.
        masking: those that mask steps.
    """

    records: list[Record] = field(default_factory=list)
    own_classes: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    masking: list[str] = field(default_factory=list)
    count: int = 0


def parsed(text: str | bytes, where: str) -> Any:
    """The JSON. Raises FileError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{where}: expected JSON: {error}") from error


def layers(data: Any) -> Layers:
    """What the configuration of a model or a layer holds. Raises FileError where it is too deep or too large."""
    found = Layers()
    if is_object(data):
        _visit(found, data, "", (), 0)
    check_count(sum(max(1, len(record.cells)) for record in found.records))
    sequences = {record.key for record in found.records if record.sequences}
    for number, record in enumerate(found.records):
        after = found.before.get(record.key, "")
        reads = after in sequences and found.masks.get(after) == found.masks.get(record.key)
        notes = (*record.notes, *_masked(found, record.key))
        found.records[number] = replace(record, after=after * reads, notes=notes)
    return found


def _masked(found: Layers, key: str) -> Iterator[str]:
    """That steps of a layer are masked, which a conversion leaves to its user."""
    if names := found.masking[:1]:
        yield f"{names[0]} masks steps: give the converted layer lengths or a mask"
    elif key in found.masks:
        yield "it is called with a mask: give the converted layer lengths or a mask"


def _visit(found: Layers, item: Data, key: str, names: tuple[str, ...], depth: int) -> None:
    found.count += 1
    if depth > MAXIMUM_DEPTH or found.count > MAXIMUM_OBJECTS:
        raise FileError(
            f"the configuration has more than {MAXIMUM_DEPTH} levels or {MAXIMUM_OBJECTS:,} objects; "
            "it is damaged or made to do harm"
        )
    name, own = item["class_name"], options.own_class(item)
    if own in OWN:
        found.records.append(Record(key, ".".join(names), own, spec=_spec(item)))
    elif options.RECURRENT.fullmatch(name) and (names or own is None):
        found.records.append(_record(item, key, names))
    else:
        if own and key:
            found.own_classes[key] = own
        if name == "Masking" or (name == "Embedding" and options.options(item).get("mask_zero")):
            found.masking.append(f"{name} {name_of(item)!r}")
        for attribute, value in options.options(item).items():
            children = list(_children(value, _joined(key, str(attribute))))
            if attribute == "layers":
                found.before.update(_before(name, children))
                found.masks.update(_masks(children))
            for child, child_key in children:
                _visit(found, child, child_key, (*names, name_of(child)), depth + 1)


def _spec(item: Data) -> Mapping[str, Any]:
    spec = options.options(item).get("spec")
    return spec if isinstance(spec, dict) else {}


def _joined(*parts: str) -> str:
    return "/".join(filter(None, parts))


def _children(value: Any, key: str) -> Iterator[tuple[Data, str]]:
    """The object that a value is, or the objects in a list, with their paths."""
    if is_object(value):
        yield value, key
    used: dict[str, int] = {}
    for item in value if isinstance(value, list) else ():
        if is_object(item):
            name = snake_case(item["class_name"])
            used[name] = used.get(name, -1) + 1
            yield item, _joined(key, f"{name}_{used[name]}" if used[name] else name)


def _before(kind: str, children: list[tuple[Data, str]]) -> dict[str, str]:
    """The path of what each of the layers reads, beyond those that do nothing in inference."""
    keys, classes = {name_of(item): key for item, key in children}, {key: item["class_name"] for item, key in children}
    if kind == "Sequential":
        direct = {key: before for (_, before), (_, key) in pairwise(children)}
    else:
        direct = {key: keys.get(_only_input(item) or "", "") for item, key in children}
    ends: dict[str, str] = {}  # of layers that do nothing: what stands before all of them
    found = {}
    for key, source in direct.items():
        passed = []
        while classes.get(source) in PASSING and source not in ends:
            ends[source] = ""  # unless it is found to be another: some read themselves
            passed.append(source)
            source = direct.get(source, "")
        found[key] = ends.get(source, source)
        ends |= dict.fromkeys(passed, found[key])
    return found


def _masks(children: list[tuple[Data, str]]) -> dict[str, str]:
    """The mask that each layer is called with, as text, where it is called once and with one."""
    return {key: json.dumps(mask) for item, key in children if (mask := _call(item)[1]) is not None}


def _call(item: Data) -> tuple[Any, Any]:
    """What a layer is called with besides a mask, and the mask; None where it is not called once."""
    nodes = item.get("inbound_nodes")
    if not isinstance(nodes, list) or len(nodes) != 1:
        return None, None
    call = nodes[0]
    if not isinstance(call, dict) or not isinstance(call.get("kwargs"), dict):
        return call, None
    others = {name: value for name, value in call["kwargs"].items() if name != "mask"}
    return {**call, "kwargs": others}, call["kwargs"].get("mask")


def _only_input(item: Data) -> str | None:
    """The layer whose first output is all that this one is called with, a mask apart, where it is called once."""
    call, _ = _call(item)
    if call is None:
        return None
    found = HISTORY.findall(json.dumps(call))
    if not found and isinstance(call, list):  # Keras 2: [[name, node, tensor, arguments], ...]
        found = [(json.dumps(edge[0])[1:-1], *map(str, edge[1:3])) for edge in call if isinstance(edge, list)]
    return json.loads(f'"{found[0][0]}"') if len(found) == 1 and found[0][1:] == ("0", "0") else None


def chain(data: Data) -> list[Data]:
    """The layers of a model from its input on, or a layer alone; empty where they do not read one another alone."""
    if data["class_name"] not in ("Sequential", "Functional"):
        return [data]
    children = [item for item, _ in _children(options.options(data).get("layers"), "")]
    if data["class_name"] == "Sequential":
        return children
    by_name = {name_of(item): item for item in children}
    ends = re.findall(r'\["([^"]*)", 0, 0\]', json.dumps(options.options(data).get("output_layers")))
    found: list[Data] = []
    name = ends[0] if len(ends) == 1 else None
    while name in by_name and len(found) < len(children):
        found.insert(0, by_name[name])
        name = None if _call(by_name[name])[1] else _only_input(by_name[name])
    return found if found and found[0]["class_name"] == "InputLayer" else []


def _record(item: Data, key: str, names: tuple[str, ...]) -> Record:
    found = Record(key, ".".join(names), options.kind(item))
    if reason := next(options.obstacles(item), None):
        return replace(found, refusal=f"{found.kind} {reason}", cells=tuple(_cells(item, key, names)))
    sides = options.directions(item)
    first = options.cells(sides[0])[0]
    return replace(
        found,
        cells=tuple(_cells(item, key, names)),
        units=options.options(first).get("units"),
        use_bias=options.options(first).get("use_bias", True),
        nonlinearity=options.ACTIVATIONS[options.activation(first)],
        merge=options.MERGES[options.merge_mode(item)],
        sequences=bool(options.options(sides[0]).get("return_sequences")),
        notes=tuple(options.notes(item)),
        told=options.plain(item),
    )


def _cells(item: Data, key: str, names: tuple[str, ...]) -> Iterator[Cell]:
    known = tuple((name,) for name in names or (name_of(item),))
    for side, layer in zip(("forward", "backward"), options.directions(item), strict=False):
        if not is_object(layer):
            continue
        at, inside = (key, known) if layer is item else (
            _joined(key, f"{side}_layer"), (*known, (name_of(layer), f"{side}_{name_of(layer)}")),
        )  # fmt: skip
        cell = options.options(layer).get("cell")
        if not is_object(cell):
            yield Cell(_joined(at, "cell"), inside)
        elif cell["class_name"] != "StackedRNNCells":
            yield Cell(_joined(at, "cell"), (*inside, (name_of(cell),)))
        else:
            for part, path in _children(options.options(cell).get("cells"), _joined(at, "cell/cells")):
                yield Cell(path, (*inside, (name_of(part),)))
