"""What a fault is: a row with the mistake, who reported it, the check that must see it, and the code."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ...spec.model import ModelSpec

CONVERT = "convert"  # stands among the names of checks for the converter's own proof


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Attributes:
        name: a few words, unique.
        story: what people did, or what an implementation does, in one sentence.
        check: the check that is meant to see it, or `convert`.
        apply: makes of a backend a context that gives the backend with the fault; what it changes is put back.
        thread: where somebody reported it in public.
        needs: the optional parts of a backend that the fault is written with.
        only: the name of the one backend that can have it, where a part of that is replaced.
        spared: backends that cannot have it, with the reason.
        raises: the fault is to raise an error where none belongs; others must be seen by what they compute.
        acts: on which models it can show at all, None for any; no item of another is tried.
    """

    name: str
    story: str
    check: str
    apply: Callable[[Any], AbstractContextManager[Any]]
    thread: str | None = None
    needs: tuple[str, ...] = ()
    only: str | None = None
    spared: Mapping[str, str] = field(default_factory=dict)
    raises: bool = False
    acts: Callable[[ModelSpec], bool] | None = None

    def reason_against(self, backend: Any) -> str | None:
        """Why the fault does not apply to the backend, or None."""
        if self.only not in (None, backend.name):
            return f"it is in the {self.only} implementation"
        missing = [part for part in self.needs if not hasattr(backend, part)]
        return f"{backend.name} has no {missing[0]}" if missing else self.spared.get(backend.name)
