"""Frozen descriptions to plain data and back: what JSON and YAML can hold, and nothing else.

A class lists in `PARTS` the fields that hold other descriptions. Where a field may hold one of
several classes, the data carries the class's `KIND`.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, cast

from .errors import SpecError, listed

T = TypeVar("T", bound="Described")
VERSION = 1  # of the spec; a reader accepts older files and refuses newer ones


@dataclasses.dataclass(frozen=True)
class Described:
    """Base of all descriptions: `to_data` and `from_data` are each other's inverse."""

    KIND: ClassVar[str] = ""
    PARTS: ClassVar[Mapping[str, "type[Described] | tuple[type[Described], ...]"]] = {}
    ADDED: ClassVar[tuple[str, ...]] = ()  # fields younger than the first files, left out of data at their default

    def to_data(self, *, complete: bool = True) -> dict[str, Any]:
        """Plain data: dicts, numbers, strings, booleans and None; if not complete, without what is at its default."""
        data: dict[str, Any] = {"kind": self.KIND} if self.KIND else {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if (complete and field.name not in self.ADDED) or value != field.default:
                data[field.name] = value.to_data(complete=complete) if isinstance(value, Described) else value
        return data

    @classmethod
    def from_data(cls: type[T], data: object, where: str = "") -> T:
        """The description that the data stands for.

        Raises:
            SpecError: not a mapping, an unknown or missing key, or a value that the description refuses.
        """
        where = where or cls.__name__
        given = _mapping(data, where)
        if cls.KIND and given.pop("kind", cls.KIND) != cls.KIND:
            raise SpecError(f"{where}: expected kind {cls.KIND!r}, got {cast(Mapping[str, Any], data)['kind']!r}")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := set(given) - set(fields):
            raise SpecError(f"{where}: unknown key {listed(unknown)}; known are {listed(fields)}")
        required = {
            n
            for n, f in fields.items()
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        if missing := required - set(given):
            raise SpecError(f"{where}: missing key {listed(missing)}; got {listed(given)}")
        return cls(**{name: cls._part(name, value, f"{where}.{name}") for name, value in given.items()})

    @classmethod
    def _part(cls, name: str, value: Any, where: str) -> Any:
        part = cls.PARTS.get(name)
        if part is None or value is None or isinstance(value, str):
            return value
        if not isinstance(part, tuple):
            return part.from_data(value, where)
        kinds = {option.KIND: option for option in part}
        kind = _mapping(value, where).get("kind")
        if not isinstance(kind, str) or kind not in kinds:
            raise SpecError(f"{where}: unknown kind {kind!r}; expected one of {listed(kinds)}")
        return kinds[kind].from_data(value, where)


def _mapping(data: object, where: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise SpecError(f"{where}: expected a mapping of names to values, got {type(data).__name__}")
    return {str(key): value for key, value in data.items()}


def check_version(version: object, where: str) -> None:
    """Accept this version and older ones.

    Raises:
        SpecError: the version is missing, not a positive integer, or newer than this package reads.
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SpecError(f"{where}: expected a spec version from 1 to {VERSION}, got {version!r}")
    if version > VERSION:
        raise SpecError(
            f"{where}: written for spec version {version}; this rnnzoo reads up to {VERSION}: install a newer rnnzoo"
        )


def check_choice(where: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises SpecError unless the value is one of the choices."""
    if value not in choices:
        raise SpecError(f"{where}: expected one of {listed(choices)}, got {value!r}")


def check_size(where: str, value: object, minimum: int = 1) -> None:
    """Raises SpecError unless the value is an integer of at least the minimum."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise SpecError(f"{where}: expected an integer of at least {minimum}, got {value!r}")


def check_number(where: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    """Raises SpecError unless the value is a finite number in [low, high), or in (low, high)."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not good or not low <= cast(float, value) < high or (open_low and value == low):
        left = "(" if open_low else "["
        raise SpecError(f"{where}: expected a number in {left}{low:g}, {high:g}), got {value!r}")


def check_flag(where: str, value: object) -> None:
    """Raises SpecError unless the value is True or False."""
    if not isinstance(value, bool):
        raise SpecError(f"{where}: expected true or false, got {value!r}")
