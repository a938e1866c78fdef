"""What stands in a model file before its numbers are read: tensors as places in a file, and the layers made of them.

A reader says where everything is; the numbers of a tensor are read when they are asked for, one tensor at a time, so
that a small layer in a large file costs what the layer costs.
"""

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .encoder_decoder import AnySpec
from .errors import FileError, WeightError, listed
from .model import ModelSpec
from .parameters import parameters
from .streaming import Rows, joined, transposed

Array = NDArray[Any]
WIDENED = {"bfloat16": "float32", "float16": "float32", "float32": "float32", "float64": "float64"}
SIZES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}  # bytes
MAXIMUM_NAME = 1024  # characters
MAXIMUM_FOUND = 2**11
MAXIMUM_DEFLATED = 2**26  # bytes that a tensor takes which stands compressed in a file


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        path: the file that has its numbers.
        offset: of the first of them, in bytes.
        dtype: `float64`, `float32`, `float16` or `bfloat16`; any other name for what is no weight.
        shape: of the tensor.
        strides: in elements; None for C order.
        big_endian: whether the most significant byte comes first.
        deflated: bytes of the deflate stream that starts at `offset`, and how many to leave out of what is in it;
            None where the numbers stand there as they are.
        checksum: of an archive's member that ends with the tensor: the CRC-32 of what is before it, and of all.
    """

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    big_endian: bool = False
    deflated: tuple[int, int] | None = None
    checksum: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def to_data(self) -> dict[str, Any]:
        """What JSON can hold; `from_data` gives back an equal tensor."""
        return {**vars(self), "path": str(self.path)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "StoredTensor":
        """The tensor that `to_data` wrote."""
        lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list | tuple)}
        return cls(**{**data, **lists, "path": Path(data["path"])})

    def array(self) -> Array:
        """The numbers, read now; bfloat16 and float16 as float32, which holds each of them exactly.

        Raises:
            FileError: the file ends before the tensor does, is damaged, or cannot be read.
            WeightError: not a dtype of weights.
        """
        dtype = self._stored_dtype()
        if self.strides is None or self.count == 0:
            return self._widened(self._checked(self._span(dtype, self.count)).reshape(self.shape))
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        span = self._checked(self._span(dtype, last + 1))
        steps = tuple(stride * dtype.itemsize for stride in self.strides)
        return self._widened(
            np.ascontiguousarray(np.lib.stride_tricks.as_strided(span, self.shape, steps, writeable=False))
        )

    def octets(self) -> Array:
        """The bytes of a tensor of those. Raises FileError as `array` does."""
        return self._checked(self._span(np.dtype(np.uint8), self.count))

    def numbers(self, first: int, count: int) -> Array:
        """Some of the numbers of a tensor that `is_run`, as in `array`; no checksum is looked at."""
        return self._widened(self._span(self._stored_dtype(), count, first))

    def mapped(self) -> Array:
        """The numbers of a tensor that `is_run`, each read when it is used: call `check_there` before that.

        Raises FileError or WeightError as `array` does.
        """
        dtype = self._stored_dtype()
        self.check_there()
        return self._widened(np.memmap(self.path, dtype, "r", self.offset, self.shape))

    def check_there(self) -> None:
        """Raises FileError where the file was cut off before the last number: to read it in a map ends the process."""
        self._check_size(self.offset + self.count * SIZES[self.dtype])

    def _check_size(self, end: int) -> None:
        if self.path.stat().st_size < end:
            raise FileError(f"{self.path}: ends before its tensor of {self.count:,} numbers at byte {self.offset:,}")

    @property
    def is_run(self) -> bool:
        """Whether the numbers stand one after the other, as they are."""
        return self.strides is None and self.deflated is None and self.count > 0

    @property
    def is_exact(self) -> bool:
        """Whether they have the bytes that an array of them has."""
        return self.is_run and WIDENED[self.dtype] == self.dtype and not self.big_endian

    def check(self, crc: int) -> None:
        """Raises FileError where the CRC-32 of all numbers is not that of the archive."""
        assert self.checksum is not None
        before, expected = self.checksum
        self._check(joined(before, crc, self.count * SIZES[self.dtype]), expected)

    def _check(self, crc: int, expected: int) -> None:
        if crc != expected:
            raise FileError(f"{self.path}: damaged: the tensor at byte {self.offset:,} has another checksum")

    def _stored_dtype(self) -> np.dtype[Any]:
        if self.dtype not in SIZES:
            raise WeightError(f"{self.path}: expected a tensor of {', '.join(SIZES)}, got {self.dtype}")
        stored = "uint16" if self.dtype == "bfloat16" else self.dtype
        return np.dtype(stored).newbyteorder(">" if self.big_endian else "<")

    def _widened(self, numbers: Array) -> Array:
        if self.dtype == "bfloat16":
            bits = numbers.astype(np.uint32)
            bits <<= 16
            numbers = bits.view(np.float32)
        return numbers.astype(WIDENED[self.dtype], copy=False)

    def _span(self, dtype: np.dtype[Any], count: int, first: int = 0) -> Array:
        try:
            if self.deflated is not None:
                return np.frombuffer(self._inflated(count * dtype.itemsize), dtype)
            offset = self.offset + first * dtype.itemsize
            self._check_size(offset + count * dtype.itemsize)  # before memory is taken for it
            return np.fromfile(self.path, dtype, count, offset=offset)
        except (OSError, zlib.error) as error:
            raise FileError(f"{self.path}: a tensor cannot be read: {error}") from error

    def _checked(self, span: Array) -> Array:
        if self.checksum is not None:
            self._check(zlib.crc32(span.data, self.checksum[0]), self.checksum[1])
        return span

    def _inflated(self, size: int) -> bytes:
        assert self.deflated is not None
        stored, skipped = self.deflated
        taken = self.count * np.dtype(WIDENED[self.dtype]).itemsize
        if taken > MAXIMUM_DEFLATED:
            raise FileError(
                f"{self.path}: expected a compressed tensor of at most {MAXIMUM_DEFLATED:,} bytes, got {taken:,}; "
                "write it without compression"
            )
        inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            most = skipped + size + (size >> 8) + 2**16  # bytes that deflate makes of as many
            start = inflating.decompress(file.read(min(stored, most)), skipped)
        data = inflating.decompress(inflating.unconsumed_tail, size)
        if len(start) < skipped or len(data) < size:
            raise FileError(f"{self.path}: the compressed tensor at byte {self.offset:,} ends too early")
        return data


@dataclass(frozen=True)
class Part:
    """How a weight of the spec comes out of a stored tensor: some of it, then perhaps transposed.

    Attributes:
        name: of the tensor in the file.
        tensor: where it is.
        select: an index or a slice for each of the first axes.
        transposed: whether rows and columns change places afterwards.
    """

    name: str
    tensor: StoredTensor
    select: tuple[int | slice, ...] = ()
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight."""
        taken = [size for size in map(_selected, self.tensor.shape, self._selection()) if size is not None]
        return tuple(reversed(taken)) if self.transposed else tuple(taken)

    @property
    def rule(self) -> str:
        """In words: `as it is`, `transposed`, `[0, :4]`, `[0, :4] transposed`."""
        indices = ", ".join(map(_written, self.select))
        words = ([f"[{indices}]"] if self.select else []) + (["transposed"] if self.transposed else [])
        return " ".join(words) or "as it is"

    def array(self) -> Array:
        """The weight, in C order. Raises FileError or WeightError."""
        found = self.tensor.array()[self.select]
        return transposed(found) if self.transposed else np.ascontiguousarray(found)

    def rows(self) -> Rows:
        """The same, some rows at a time where the file has them so. Raises FileError or WeightError."""
        tensor, shape = self.tensor, self.shape
        if not tensor.is_run or (tensor.checksum and (self.select or self.transposed or not tensor.is_exact)):
            return Rows.of(self.array())
        if self.transposed and len(shape) == 2:
            return self._columns()
        if self.transposed or not all(isinstance(index, int) for index in self.select[:-1]):
            return Rows.of(self.array())
        width, first = math.prod(shape[1:]), self._first()

        def read(start: int, stop: int) -> Array:
            return tensor.numbers(first + start * width, (stop - start) * width).reshape(-1, *shape[1:])

        return Rows(WIDENED[tensor.dtype], shape, read, tensor.check if tensor.checksum else None)

    def _columns(self) -> Rows:
        """Those of a matrix that is transposed, out of a map of the file."""
        matrix = self.tensor.mapped()[self.select]

        def read(start: int, stop: int) -> Array:
            self.tensor.check_there()
            return transposed(matrix[:, start:stop])

        return Rows(matrix.dtype.name, self.shape, read)

    def _first(self) -> int:
        """At which number of the tensor the weight starts."""
        starts = [index if isinstance(index, int) else index.start or 0 for index in self.select]
        return sum(start * math.prod(self.tensor.shape[axis + 1 :]) for axis, start in enumerate(starts))

    def _selection(self) -> tuple[int | slice, ...]:
        return (*self.select, *(slice(None) for _ in self.tensor.shape[len(self.select) :]))


def _selected(size: int, index: int | slice) -> int | None:
    return len(range(size)[index]) if isinstance(index, slice) else None


def _written(index: int | slice) -> str:
    if isinstance(index, int):
        return str(index)
    return f"{'' if index.start is None else index.start}:{'' if index.stop is None else index.stop}"


def check_parts(spec: AnySpec, parts: Mapping[str, Part]) -> None:
    """Raises WeightError where a weight of the spec is missing, surplus, or of another shape or dtype: none is read."""
    expected = {parameter.name: parameter.shape for parameter in parameters(spec)}
    missing, surplus = set(expected) - set(parts), set(parts) - set(expected)
    if missing or surplus:
        raise WeightError(f"weights of a {spec.title}: missing {listed(missing)}; surplus {listed(surplus)}")
    for name, shape in expected.items():
        if parts[name].shape != shape:
            raise WeightError(f"weight {name}: expected shape {shape}, got {parts[name].shape}")
    dtypes = sorted({part.tensor.dtype for part in parts.values()})
    if len(dtypes) != 1 or dtypes[0] not in WIDENED:
        raise WeightError(f"weights: expected one dtype of {', '.join(WIDENED)} for all, got {', '.join(dtypes)}")


def check_names(path: Path, names: Iterable[str]) -> None:
    """Raises FileError where a name is longer than any honest one, or no text for a terminal or a file name."""
    for name in names:
        if len(name) > MAXIMUM_NAME or not name.isprintable():
            raise FileError(
                f"{path}: expected names of at most {MAXIMUM_NAME:,} printable characters, got {name[:40]!r}"
            )


def check_count(layers: int) -> None:
    """Raises FileError where a file has more recurrent layers or cells than any honest one."""
    if layers > MAXIMUM_FOUND:
        raise FileError(f"expected at most {MAXIMUM_FOUND:,} recurrent layers in a file, got {layers:,}")


class LazyWeights(Mapping[str, Array], ABC):
    """Weights by canonical name, each made when it is asked for, and not kept."""

    def rows(self, name: str, *, transposed: bool = False) -> Rows:
        """A weight or its transposed, some rows at a time."""
        return Rows.transposed(self[name]) if transposed else Rows.of(self[name])

    @abstractmethod
    def described(self, spec: AnySpec) -> dict[str, tuple[str, tuple[int, ...]]]:
        """dtype and shape of each weight in canonical order, unread. Raises WeightError where they do not fit."""


class StoredWeights(LazyWeights):
    """The weights of a layer that was found."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self.parts = dict(parts)

    def __getitem__(self, name: str) -> Array:
        return self.parts[name].array()

    def rows(self, name: str, *, transposed: bool = False) -> Rows:
        part = self.parts[name]
        return replace(part, transposed=part.transposed != transposed).rows()

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def described(self, spec: AnySpec) -> dict[str, tuple[str, tuple[int, ...]]]:
        check_parts(spec, self.parts)
        return {p.name: (WIDENED[self.parts[p.name].tensor.dtype], p.shape) for p in parameters(spec)}


@dataclass(frozen=True)
class Original:
    """A layer in the words of its file, for its framework to run: what a reader made of it has no part in this.

    Attributes:
        tensors: by the names that the layer's framework has for them.
        told: what else the file says of the layer, as JSON can hold it.
    """

    tensors: Mapping[str, StoredTensor]
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundLayer:
    """A recurrent layer (or a stack of them, or a whole model) that a file holds.

    Attributes:
        path: its name in the file, such as `encoder.rnn`; empty where the file is the layer.
        kind: what its framework calls it, such as `torch.nn.RNN` or `Bidirectional(SimpleRNN)`.
        spec: what it is; None where it is refused.
        parts: where each weight of the spec comes from.
        assumed: fields of the spec that the file does not tell.
        notes: what of it is left behind, and what that means.
        refusal: why it cannot be converted; None where it can.
        original: what the file itself says; None where that is weights alone.
    """

    path: str
    kind: str
    spec: AnySpec | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refusal: str | None = None
    original: Original | None = None

    @property
    def network(self) -> ModelSpec | None:
        """The spec where it is one network, and neither refused nor an encoder with a decoder."""
        return self.spec if isinstance(self.spec, ModelSpec) else None


@dataclass(frozen=True)
class FoundFile:
    """What a reader found in a file.

    Attributes:
        format: in words, such as `torch checkpoint`.
        layers: in the order of the file.
        rest: tensors that belong to no layer, by name.
        facts: what else the file says of itself: its writer's version, the epoch.
        spec: that a file of ours carries.
        provenance: the record of a file of ours; None for any other.
    """

    format: str
    layers: tuple[FoundLayer, ...]
    rest: Mapping[str, StoredTensor] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    spec: AnySpec | None = None
    provenance: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Hints:
    """What the user says of a file.

    Attributes:
        spec: of the model, for a file that carries none.
        nonlinearity: where the file does not tell; None for tanh.
    """

    spec: AnySpec | None = None
    nonlinearity: str | None = None
