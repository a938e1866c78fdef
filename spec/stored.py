"""A tensor as a place in a file.

A reader says where everything is; the numbers of a tensor are read when they are asked for, one tensor at a time, so
that a small layer in a large file costs what the layer costs.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FileError, WeightError
from .streaming import joined

Array = NDArray[Any]
WIDENED = {"bfloat16": "float32", "float16": "float32", "float32": "float32", "float64": "float64"}
SIZES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}  # bytes
MAXIMUM_NAME = 1024  # characters
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
        try:
            return self._widened(np.memmap(self.path, dtype, "r", self.offset, self.shape))
        except ValueError as error:  # it was cut since
            raise self._cut() from error

    def check_there(self) -> None:
        """Raises FileError where the file was cut off before the last number: to read it in a map ends the process."""
        self._check_size(self.offset + self.count * SIZES[self.dtype])

    def _check_size(self, end: int) -> None:
        if self.path.stat().st_size < end:
            raise self._cut()

    def _cut(self) -> FileError:
        return FileError(f"{self.path}: ends before its tensor of {self.count:,} numbers at byte {self.offset:,}")

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
            numbers = np.fromfile(self.path, dtype, count, offset=offset)
        except (OSError, zlib.error) as error:
            raise FileError(f"{self.path}: a tensor cannot be read: {error}") from error
        if len(numbers) < count:  # it was cut since
            raise self._cut()
        return numbers

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


def check_names(path: Path, names: Iterable[str]) -> None:
    """Raises FileError where a name is longer than any honest one, or no text for a terminal or a file name."""
    for name in names:
        if len(name) > MAXIMUM_NAME or not name.isprintable():
            raise FileError(
                f"{path}: expected names of at most {MAXIMUM_NAME:,} printable characters, got {name[:40]!r}"
            )
