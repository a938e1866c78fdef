"""Conversion between model files, proven before the target gets its name."""

from pathlib import Path
from typing import NamedTuple

from ..spec.backend import Contents
from ..spec.checkpoint import check_writable, write_atomically
from ..spec.errors import ConformanceError
from ..spec.model import ModelSpec
from .comparison import Comparison, same_bits
from .equivalence import assert_equivalent
from .formats import Format, format_in, format_of, read


class Conversion(NamedTuple):
    """What was converted, and the proof: weights equal bit for bit, and both sides run."""

    contents: Contents
    source: Format
    target: Format
    proof: list[Comparison]


def convert(source: Path, target: Path, *, spec: ModelSpec | None = None, force: bool = False) -> Conversion:
    """Convert a model file; the formats go by the suffixes.

    The target is written under a temporary name, read again, and run beside the source, each in its own
    framework, on random inputs with uneven lengths; only then it gets its name.

    Raises:
        FileError: a file cannot be read or written, or the target exists and `force` is False.
        ConformanceError: the two do not compute the same; no target is left behind.
    """
    contents = read(source, spec)
    from_format, to_format = format_in(source), format_of(target)
    check_writable(target, force=force)
    proof: list[Comparison] = []

    def write(temporary: Path) -> None:
        to_format.write(temporary, contents)
        written = to_format.read(temporary)
        _check_same_bits(contents, written)
        proof.extend(assert_equivalent(from_format.model(contents), to_format.model(written)))

    write_atomically(target, write, replace=force)
    return Conversion(contents, from_format, to_format, proof)


def _check_same_bits(contents: Contents, written: Contents) -> None:
    if written.spec != contents.spec:
        raise ConformanceError("the target's spec reads back as another one")
    for name, array in contents.weights.items():
        other = written.weights[name]
        if not same_bits(other, array):
            raise ConformanceError(f"weight {name}: reads back from the target with other numbers")
