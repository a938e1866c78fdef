"""What the suite can be run on: our backends, the adapters, anybody's object or program."""

import contextlib
import importlib.util
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from ..spec.backend import BUILT_IN, load_backend
from .adapters import ADAPTERS
from .process import TIMEOUT, ProcessBackend


@dataclass(frozen=True)
class Implementation:
    """Something to check.

    Attributes:
        name: what reports call it.
        target: for `load_backend`; or the program and arguments of one that speaks the protocol.
        environment: variables that its process is started with.
        option: how the command line names it.
    """

    name: str
    target: str | tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    option: str = ""

    @property
    def is_program(self) -> bool:
        """Whether it is a program that speaks the protocol."""
        return not isinstance(self.target, str)

    def load(self, seconds: float | None = None) -> Any:
        """The backend; of a program, each answer may take so many seconds. Raises BackendError."""
        if isinstance(self.target, str):
            return load_backend(self.target)
        return ProcessBackend(self.target, seconds or TIMEOUT)

    def versions(self) -> dict[str, str]:
        """Of the packages that it is known to run on."""
        found = {}
        for package in _packages(self.name)[0]:
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[package] = metadata.version(package)
        return found


def implementation(name: str) -> Implementation:
    """The implementation of that name: a backend's, an adapter's, or `package.module:OBJECT`."""
    option = f"--backend {shlex.quote(name)}"
    if name in ADAPTERS:
        return Implementation(name, ADAPTERS[name].target, ADAPTERS[name].environment, option)
    return Implementation(name, name, option=option)


def program(command: Sequence[str], text: str, seconds: float | None = None) -> Implementation:
    """A program in any language; text is the command as its user wrote it. Raises BackendError if it does not start."""
    backend = ProcessBackend(command, seconds or TIMEOUT)
    backend.close()
    return Implementation(backend.name, tuple(command), option=f"--process {shlex.quote(text)}")


def installed(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the names whose packages are here, and the reasons why the others are not."""
    found, reasons = [], []
    for name in names:
        packages, extra = _packages(name)
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            reasons.append(f"{name}: the package {missing[0]!r} is not installed; run: pip install 'rnnzoo[{extra}]'")
        else:
            found.append(name)
    return found, reasons


def _packages(name: str) -> tuple[tuple[str, ...], str]:
    """The packages that an implementation of ours needs, and the extra that brings them."""
    if name in ADAPTERS:
        return ADAPTERS[name].packages, ADAPTERS[name].extra
    return (BUILT_IN[name].frameworks, BUILT_IN[name].extra) if name in BUILT_IN else ((), "")
