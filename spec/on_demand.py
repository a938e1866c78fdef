"""Names of a package that are loaded when they are first asked for, so that its other modules come without them."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def on_demand(package: str, places: Mapping[str, str], *, first: str | None = None) -> Callable[[str], Any]:
    """The `__getattr__` of a package's `__init__.py`.

    Args:
        package: its `__name__`.
        places: of each name the module that has it.
        first: a module that is loaded before any of them.
    """

    def loaded(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        for module in filter(None, (first, places[name])):
            found = import_module(f".{module}", package)
        return getattr(found, name)

    return loaded
