"""Weights of the spec as parts of tensors in a file, read when they are asked for."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .encoder_decoder import AnySpec
from .errors import WeightError, listed
from .parameters import parameters
from .stored import WIDENED, StoredTensor
from .streaming import Rows, transposed

Array = NDArray[Any]


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
            raise WeightError(f"weight {_in_file(name, parts[name])}: expected shape {shape}, got {parts[name].shape}")
    dtypes = sorted({part.tensor.dtype for part in parts.values()})
    if len(dtypes) != 1 or dtypes[0] not in WIDENED:
        raise WeightError(
            f"weights: expected one dtype of {', '.join(WIDENED)} for all, got {', '.join(dtypes)}; convert them first"
        )


def _in_file(name: str, part: Part) -> str:
    return name if part.name == name else f"{name} ({part.name} in the file, {part.rule})"


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
