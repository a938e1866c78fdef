"""Conversion between model files, proven before the target gets its name."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..spec.backend import Contents
from ..spec.checkpoint import NO_HINTS, check_writable, described, write_atomically
from ..spec.encoder_decoder import AnySpec, differing_fields, networks
from ..spec.errors import ConformanceError, InputError, RnnZooError, UnsupportedError, listed
from ..spec.found import FoundFile, FoundLayer, Hints
from ..spec.naming import KIND
from ..spec.parameters import parameters
from ..spec.parts import Part, StoredWeights
from ..spec.streaming import Rows, rows_of
from .adapting import adapted, origins
from .formats import ONNX, Format, chosen, contents, convertible, find, format_of, suffix_of
from .proof import NOT_RUN, Half, Proof, proven


@dataclass(frozen=True)
class Moved:
    """A weight: where it came from, where it is now.

    Attributes:
        name: canonical.
        origins: the parts of the source that it came from.
        change: `sum` of two biases, `0` for a bias that the source has not, or none.
        target: the part of the target that it is.
        sha256: of its bytes in the spec's form, the same on both sides.
        finite: whether all its numbers are.
    """

    name: str
    origins: tuple[Part, ...]
    change: str
    target: Part
    sha256: str
    finite: bool


@dataclass(frozen=True)
class Conversion:
    """What was converted, and the proof.

    Attributes:
        source, target: the files.
        layer: of the source.
        spec: of the target.
        formats: of both files, in words.
        moved: every weight.
        changes: what was merged or added.
        rest: tensors of the source that are no part of the layer.
        refused: other layers of the source that nothing can be made of.
        proof: what ran on both sides, and how it compares.
        seconds: of writing, and of proving.
    """

    source: Path
    target: Path
    layer: FoundLayer
    spec: AnySpec
    formats: tuple[str, str]
    moved: tuple[Moved, ...]
    changes: tuple[str, ...]
    rest: tuple[str, ...]
    refused: tuple[FoundLayer, ...]
    proof: Proof
    seconds: tuple[float, float]


def convert(
    source: Path,
    target: Path,
    *,
    layer: str | None = None,
    hints: Hints = NO_HINTS,
    plain: bool = False,
    prefix: str = "",
    inputs: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Conversion:
    """Convert a model file; the target's format goes by its suffix.

    The target is written under a temporary name and read again; then both sides are run, each by its own framework,
    and only when they agree the target gets its name.

    Args:
        layer: of the source, by its path; None where there is one alone.
        hints: what the source does not tell.
        plain: write the framework's standard layers, which load without this package.
        prefix: of the names in a plain state dict.
        inputs: arguments of `run` for the comparison; None for random ones.
        force: replace the target.

    Raises:
        FileError, WeightError, UnsupportedError, InputError: the source cannot be read, or the target cannot hold it.
        ConformanceError: the two do not compute the same; no target is left behind.
    """
    form, found = find(source, hints)
    one = Source(source, form, found, chosen(source, found, layer))
    return _converted(one, target, hints, plain, prefix, inputs, force)


class Refused(NamedTuple):
    """A layer of which there is no target, and why."""

    source: Path
    layer: FoundLayer
    error: RnnZooError


def convert_all(
    source: Path,
    target: Path,
    *,
    hints: Hints = NO_HINTS,
    plain: bool = False,
    prefix: str = "",
    inputs: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Iterator[Conversion | Refused]:
    """Convert every layer that can be, each into a file of its own: `out.keras` becomes `out.encoder.rnn.keras`.

    A layer that cannot be converted or proven is given as `Refused`, and the others go on.

    Raises:
        FileError, InputError, UnsupportedError: there is no layer at all, or the target is of no use for any.
    """
    form, found = find(source, hints)
    layers = convertible(found)
    if not layers:
        chosen(source, found)
    _check_target(target, plain)
    for one in found.layers:
        if one.refusal:
            yield Refused(source, one, UnsupportedError(one.refusal))
    stem = target.name[: -len(suffix_of(target))]
    suffix = target.name[len(stem) :]
    for layer in layers:
        path = target.with_name(f"{stem}.{layer.path.replace('/', '.')}{suffix}" if layer.path else target.name)
        try:
            yield _converted(Source(source, form, found, layer), path, hints, plain, prefix, inputs, force)
        except RnnZooError as error:
            yield Refused(source, layer, error)


class Source(NamedTuple):
    """What is converted, and where it is."""

    path: Path
    form: Format
    found: FoundFile
    layer: FoundLayer

    @property
    def contents(self) -> Contents:
        """The model, whose weights are not read yet."""
        return contents(self.path, self.form, self.found, self.layer)


def _converted(
    source: Source,
    target: Path,
    hints: Hints,
    plain: bool,
    prefix: str,
    inputs: Mapping[str, Any] | None,
    force: bool,
) -> Conversion:
    _check_told(source.path, source.layer, hints)
    check_writable(target, force=force)
    form, given = _check_target(target, plain), source.contents
    described(given)
    plain = form.plain and (plain or form is ONNX)
    kept, changes = adapted(given, form.files.plain_bias, plain=True) if plain else (given, [])
    if reason := form.files.holds(kept.spec, plain=plain):
        raise UnsupportedError(f"{target}: {reason}")
    done: list[tuple[tuple[Moved, ...], Proof, float, float]] = []
    start = time.perf_counter()

    def write(temporary: Path) -> None:
        form.files.write(temporary, kept, plain=plain, prefix=prefix)
        written = time.perf_counter()
        parts = _parts(temporary, kept.spec, prefix)
        moved = tuple(_moved(name, given, kept, parts[name]) for name in described(kept))
        own = source.layer.original
        theirs = source.form is ONNX or own is not None or source.layer.kind != KIND
        first = Half(source.form, theirs, given.spec, given.weights, original=own)
        second = Half(form, plain, kept.spec, StoredWeights(parts), temporary, prefix)
        proof = proven(first, second, inputs) if all(one.finite for one in moved) else NOT_RUN
        done.append((moved, proof, written - start, time.perf_counter() - written))

    write_atomically(target, write, replace=force)
    moved, proof, writing, proving = done[0]
    return Conversion(
        source.path, target, source.layer, kept.spec, (source.form.name, form.name), moved, tuple(changes),
        tuple(_left_behind(source)), tuple(one for one in source.found.layers if one.refusal), proof,
        (writing, proving),
    )  # fmt: skip


def _check_target(target: Path, plain: bool) -> Format:
    """The format of the target. Raises UnsupportedError or InputError where nothing is written in it."""
    form, suffix = format_of(target), suffix_of(target)
    if suffix in form.read_only:
        others = ", ".join(one for one in form.suffixes if one not in form.read_only)
        raise UnsupportedError(f"{target}: {suffix} files are only read; write one of {others}")
    if len(target.name) == len(suffix):
        raise InputError(f"{target}: expected a name before the suffix, such as model{suffix}")
    if plain and not form.plain:
        raise InputError(f"{target}: --plain: no framework has layers for a {form.name} file; leave it out")
    return form


def _left_behind(source: Source) -> list[str]:
    """Every tensor of the file that is no part of the layer: those of no layer, and those of other layers."""
    own = {part.name for part in source.layer.parts.values()}
    others = (part.name for layer in source.found.layers for part in layer.parts.values() if part.name not in own)
    return [*dict.fromkeys(others), *source.found.rest]


def _check_told(source: Path, one: FoundLayer, hints: Hints) -> None:
    """Raises InputError where the user says something else than the file does."""
    assert one.spec is not None
    told = hints.nonlinearity
    kinds = dict.fromkeys(network.nonlinearity for network in networks(one.spec))
    if told and "nonlinearity" not in (*one.assumed, *one.given) and list(kinds) != [told]:
        raise InputError(f"{source}: its nonlinearity is {', '.join(kinds)}, not {told}; leave out --nonlinearity")
    if fields := differing_fields(one.spec, hints.spec or one.spec):
        raise InputError(f"{source}: the spec that was given differs from the file's in {listed(fields)}; leave it out")


def _parts(path: Path, spec: AnySpec, prefix: str) -> dict[str, Part]:
    """Where each weight is in the target, as its own reader finds it. Raises ConformanceError where it does not."""
    found = find(path, Hints(nonlinearity=networks(spec)[0].nonlinearity))[1]
    parts = dict(found.layers[0].parts) if found.layers and found.layers[0].spec else {}
    rest = {p.name: f"{prefix}{p.name}" for p in parameters(spec) if f"{prefix}{p.name}" in found.rest}
    parts |= {name: Part(stored, found.rest[stored]) for name, stored in rest.items()}
    if not found.layers or (found.spec is not None and found.spec != spec):
        raise ConformanceError("the target's spec reads back as another one")
    if set(parts) != {parameter.name for parameter in parameters(spec)}:
        raise ConformanceError("the target reads back with other weights than were written")
    return parts


def _moved(name: str, given: Contents, kept: Contents, part: Part) -> Moved:
    """A row of the report. Raises ConformanceError where the target has other numbers than the source."""
    with ThreadPoolExecutor(2) as pool:
        (written, finite), (found, _) = pool.map(_digest, (rows_of(kept.weights, name), part.rows()))
    if found != written:
        raise ConformanceError(f"weight {name}: reads back from the target with other numbers")
    parts, change = origins(given, kept, name)
    return Moved(name, tuple(parts), change, part, written, finite)


def _digest(rows: Rows) -> tuple[str, bool]:
    """SHA-256 of the bytes of an array in C order, and whether all its numbers are finite."""
    found, finite = hashlib.sha256(), True
    for start, stop in rows.pieces():
        data = rows.data(start, stop)
        found.update(data.data)
        finite = finite and bool(np.isfinite(data.view(np.dtype(rows.dtype).newbyteorder("<"))).all())
    return found.hexdigest(), finite
