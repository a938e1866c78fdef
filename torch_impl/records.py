"""What stands in a checkpoint's pickle, as records that do nothing."""

from dataclasses import dataclass
from typing import Any, NamedTuple

ORDERED_DICT = "collections.OrderedDict"


@dataclass(frozen=True)
class Global:
    """Something that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Storage:
    """Numbers in a member of the archive: its key, torch's class for them, and how many there are."""

    key: str
    kind: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A tensor over a storage; offset and strides in elements.

    Attributes:
        storage: None where its numbers do not lie dense in the file.
        dtype: None for that of the storage; where there is none, what the tensor is instead.
    """

    storage: Storage | None
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str | None = None


class Held(dict[Any, Any]):
    """The record of an object: its class, its items where it is a mapping, and its attributes."""

    def __init__(self, kind: str, items: Any = (), state: Any = None) -> None:
        super().__init__(items)
        self.kind, self.state = kind, state


class Module(NamedTuple):
    """A module that was saved whole: its class, and its nonlinearity if it has one."""

    kind: str
    nonlinearity: str | None
