"""Arrays that are written some rows at a time, by two threads, with the CRC-32 that zip archives keep.

Memory that is touched for the first time costs more than to read a file into it (measured: 64 MiB in 80 ms, in pieces
of 1 MiB that are used again in 12 ms), so that no array is made whole where its rows can be had one after the other.
The system takes such memory for the file itself in a call that writes much (measured: with 4 MiB half the speed).
"""

import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
PIECE, THREADS = 2**23, 2  # bytes that a thread has in hand: a transposed piece is 512 columns of 4,096 numbers
WRITTEN = 2**18  # bytes in a call
TILE, PADDING = 256, 16  # rows and columns that are transposed at once; numbers between their rows
POLYNOMIAL = 0xEDB88320  # of CRC-32, the highest power in the lowest bit


@dataclass(frozen=True)
class Rows:
    """The numbers of an array in C order, of which any rows can be had, by several threads at once.

    Attributes:
        dtype, shape: of the array, which has one axis or more.
        read: gives the rows from one to before another.
        check: is told the CRC-32 of all their bytes once they were written, and raises FileError where that is wrong;
            None where nothing is known of it.
    """

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[int, int], Array]
    check: Callable[[int], None] | None = None

    @classmethod
    def of(cls, given: ArrayLike) -> "Rows":
        """Those of an array; a single number is a row."""
        array = np.atleast_1d(given)
        return cls(array.dtype.name, array.shape, lambda start, stop: array[start:stop])

    @classmethod
    def transposed(cls, matrix: Array) -> "Rows":
        """Those of a matrix whose rows and columns change places."""
        return cls(matrix.dtype.name, matrix.shape[::-1], lambda start, stop: transposed(matrix[:, start:stop]))

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def pieces(self) -> list[tuple[int, int]]:
        """First and last row, exclusive, of pieces of `PIECE` bytes or one row."""
        step = max(1, PIECE * self.shape[0] // max(1, self.nbytes))
        return [(start, min(start + step, self.shape[0])) for start in range(0, self.shape[0], step)]

    def data(self, start: int, stop: int) -> Array:
        """The bytes of some rows, the least significant first."""
        numbers = np.ascontiguousarray(self.read(start, stop), np.dtype(self.dtype).newbyteorder("<"))
        return numbers.reshape(-1).view(np.uint8)


def transposed(array: Array) -> Array:
    """The transposed array in C order, made in tiles that are copied out of it first.

    Rows that are a power of two apart share few places of a processor's cache, and the copies are not (measured for
    4,096 columns: in one go it takes nine times as long, in tiles of the array itself a fifth longer).
    """
    if array.ndim != 2:
        return np.ascontiguousarray(array.T)
    turned = np.empty(array.shape[::-1], array.dtype)
    room = np.empty((TILE, TILE + PADDING), array.dtype)
    for top, left in product(range(0, array.shape[0], TILE), range(0, array.shape[1], TILE)):
        tile = array[top : top + TILE, left : left + TILE]
        copy = room[: tile.shape[0], : tile.shape[1]]
        copy[...] = tile
        turned[left : left + TILE, top : top + TILE] = copy.T
    return turned


def write_rows(file: BinaryIO, rows: Rows, *, summed: bool = False) -> int:
    """Write all rows where the file is, and go behind them.

    Returns:
        Their CRC-32 if it is asked for; forming it takes as long as writing.

    Raises:
        OSError: they cannot be written.
        FileError: they cannot be read, or are damaged.
    """
    file.flush()
    at, pieces, width = file.tell(), rows.pieces(), rows.nbytes // max(1, rows.shape[0])
    summed, turn = summed or rows.check is not None, Lock()

    def write(piece: tuple[int, int]) -> tuple[int, int]:
        data = rows.data(*piece)
        with turn:  # the system lets one in at a time, and the other wait without sleeping
            _write(file.fileno(), data.data, at + piece[0] * width)
        return zlib.crc32(data.data) if summed else 0, data.nbytes

    total = 0
    for crc, size in map(write, pieces) if len(pieces) < THREADS else _in_threads(write, pieces):
        total = joined(total, crc, size)
    if rows.check is not None:
        rows.check(total)
    file.seek(at + rows.nbytes)
    return total


def _in_threads(work: Callable[[Any], Any], pieces: list[Any]) -> Iterator[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(work, pieces)


def _write(descriptor: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(descriptor, data[:WRITTEN], at)
        data, at = data[written:], at + written


def joined(first: int, second: int, size: int) -> int:
    """The CRC-32 of two pieces in a row, from that of each and how many bytes the second has."""
    return _product(_power(size), first) ^ second


@cache
def _power(size: int) -> int:
    """x^(8 size), a polynomial over GF(2) modulo that of CRC-32."""
    found, square = 1 << 31, 1 << 23  # 1, x^8
    while size:
        found = _product(found, square) if size & 1 else found
        square, size = _product(square, square), size >> 1
    return found


def _product(a: int, b: int) -> int:
    found = 0
    for bit in range(31, -1, -1):
        found ^= b if a >> bit & 1 else 0
        b = b >> 1 ^ (POLYNOMIAL if b & 1 else 0)
    return found


def rows_of(weights: Mapping[str, Array], name: str, *, transposed: bool = False) -> Rows:
    """Those of a weight or of its transposed, which is not made whole where the weights can do without."""
    if own := getattr(weights, "rows", None):
        rows: Rows = own(name, transposed=transposed)
        return rows
    return Rows.transposed(weights[name]) if transposed else Rows.of(weights[name])
