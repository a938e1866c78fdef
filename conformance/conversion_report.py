"""What a conversion did, for a person and as JSON."""

import json
from pathlib import Path
from typing import Any

from ..spec.encoder_decoder import networks
from ..spec.errors import FileError
from ..spec.found import FoundLayer
from ..spec.model import ModelSpec
from ..spec.parts import Part
from ..tasks.tables import counted, number, printable, table
from .comparison import Comparison
from .convert import Conversion, Refused

SHOWN = 6  # names of tensors that were left behind


def text(done: Conversion) -> str:
    """Every weight, what was changed and left behind, and the proof."""
    layer = f"{done.layer.path or 'the model'} ({done.layer.kind})"
    header = ("weight", "from", "rule", "to", "rule", "shape", "sha256")
    rows = [
        (m.name, *_place(m.origins, m.change), *_place((m.target,)), _shape(m.target.shape), m.sha256[:12])
        for m in done.moved
    ]
    lines = [f"{done.target}: {layer} of {done.source}, as {describe(done)}", "", table(header, rows), ""]
    lines += [f"changed: {change}" for change in done.changes]
    lines += remarks(done.layer)
    lines += [f"left in {done.source.name}: {_few(done.rest)}"] if done.rest else []
    lines += [f"refused: {one.path or 'a layer'} ({one.kind}): {one.refusal}" for one in done.refused]
    lines += [f"not finite, every bit kept: {_few([m.name for m in done.moved if not m.finite])}"] * _broken(done)
    return printable("\n".join([*lines, *_proof(done)]))


def describe(done: Conversion) -> str:
    """The model in a line."""
    dtypes = dict.fromkeys(part.tensor.dtype for one in done.moved[:1] for part in (*one.origins, one.target))
    return ", ".join([*map(_network, networks(done.spec)), " as ".join(dtypes)])


def _network(spec: ModelSpec) -> str:
    sizes = f"{spec.input_size} to {spec.hidden_size}, {counted(spec.num_layers, 'layer')}"
    return f"{spec.variant}, {sizes}, {spec.nonlinearity}, bias {spec.bias}"


def remarks(layer: FoundLayer) -> list[str]:
    """What a file does not tell of a layer, who says it, and what of it is left behind."""
    assert layer.spec is not None
    options = {"nonlinearity": "--nonlinearity NAME", "merge": "--spec FILE"}
    assumed = [
        f"assumed, as the file does not tell: {name} {getattr(layer.spec, name)} ({options.get(name, '--spec FILE')})"
        for name in layer.assumed
    ]
    given = [f"told by you, not the file: {name} {getattr(layer.spec, name)}" for name in layer.given]
    return assumed + given + [f"note: {note}" for note in layer.notes]


def data(done: Conversion) -> dict[str, Any]:
    """The same as JSON can hold it, with every number."""
    return {
        "source": {"path": str(done.source), "format": done.formats[0], "layer": done.layer.path,
                   "kind": done.layer.kind, "assumed": list(done.layer.assumed), "given": list(done.layer.given),
                   "notes": list(done.layer.notes)},
        "target": {"path": str(done.target), "format": done.formats[1]},
        "spec": done.spec.to_data(),
        "weights": [
            {"name": m.name, "from": [_part(part) for part in m.origins], "change": m.change, "to": _part(m.target),
             "sha256": m.sha256, "finite": m.finite}
            for m in done.moved
        ],
        "changes": list(done.changes),
        "left_behind": list(done.rest),
        "refused": [{"layer": one.path, "kind": one.kind, "reason": one.refusal} for one in done.refused],
        "proof": {"ran": list(done.proof.ran), "notes": list(done.proof.notes), "empty": done.proof.empty,
                  "compared": [_compared(c) for c in done.proof.comparisons]},
        "seconds": {"writing": done.seconds[0], "proving": done.seconds[1]},
    }  # fmt: skip


def refusal(one: Refused) -> str:
    """Why there is no target, in a line."""
    return printable(f"{one.source}: {one.layer.path or 'the model'} ({one.layer.kind}): {one.error}")


def refusal_data(one: Refused) -> dict[str, Any]:
    """The same as JSON can hold it."""
    source = {"path": str(one.source), "layer": one.layer.path, "kind": one.layer.kind}
    return {"source": source, "target": None, "refused": str(one.error)}


def write(path: Path, results: list[Conversion | Refused], *, many: bool = False) -> None:
    """The JSON object of a conversion, or of many a list. Raises FileError."""
    found = [data(one) if isinstance(one, Conversion) else refusal_data(one) for one in results]
    try:
        path.write_text(json.dumps(found if many else found[0], indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error


def _proof(done: Conversion) -> list[str]:
    notes = [f"proof: {note}" for note in done.proof.notes]
    worst, count = done.proof.worst, len(done.proof.comparisons)
    if done.proof.empty:
        notes.append(
            f"proof: every bit as in {done.source}; that {' and '.join(done.proof.ran)} give the same proves nothing: "
            "all weights of the layers are 0"
        )
    elif worst is not None:
        unclear = sum(not comparison.decidable for comparison in done.proof.comparisons)
        vague = f", {unclear} of them without a verdict as rounding alone is as large" if unclear else ""
        notes.append(
            f"proof: every bit as in {done.source}; run in {' and '.join(done.proof.ran)}: "
            f"{count} results agree{vague} "
            f"(worst: {worst.quantity}, {number(worst.error)} of {number(worst.limit)} allowed)"
        )
    return [*notes, f"written in {done.seconds[0]:.1f} s, proven in {done.seconds[1]:.1f} s"]


def _place(parts: tuple[Part, ...], change: str = "") -> tuple[str, str]:
    return " + ".join(part.name for part in parts), change or parts[0].rule


def _part(part: Part) -> dict[str, Any]:
    return {"name": part.name, "rule": part.rule, "dtype": part.tensor.dtype, "shape": list(part.tensor.shape)}


def _compared(comparison: Comparison) -> dict[str, Any]:
    return {
        "quantity": comparison.quantity, "error": comparison.error, "allowed": comparison.limit,
        "ratio": comparison.ratio, "decidable": comparison.decidable,
    }  # fmt: skip


def _broken(done: Conversion) -> bool:
    return not all(moved.finite for moved in done.moved)


def _few(names: Any) -> str:
    found = list(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{', '.join(found[:SHOWN])}{more}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
