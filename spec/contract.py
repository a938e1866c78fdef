"""What somebody's backend may declare, and how it is called: what does not fit is one clear error (SPEC.md, 13)."""

import difflib
import inspect
import re
import traceback
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .errors import BackendError, listed, shown
from .parameters import DTYPES

TAKES = ("lengths", "mask", "initial_state")  # the optional arrays of a run; a backend's `takes` may have fewer
REQUIRED = ("name", "supports", "build", "run", "to_spec", "from_spec")
PARTS = ("gradients", "trainer", "files")
LISTS: Mapping[str, Collection[str]] = {"dtypes": DTYPES, "takes": TAKES}
FLAGS = ("holds_weights", "encoder_decoders", "recomputes")
LISTINGS = (list, tuple, set, frozenset)
FILES = ("find", "holds", "write")  # what `files` has; much else has one of these
_ABSENT = object()
LOOSE, TIGHT = 0.6, 0.85  # how alike names are that a message holds together, and that are not two names by chance
POSITIONAL = {  # the arguments of each method that come by position
    "supports": "spec", "build": "spec", "run": "model, inputs", "gradients": "model, inputs", "to_spec": "model",
    "from_spec": "model, weights", "trainer": "model, training", "step": "batch", "state": "", "load_state": "state",
    "results": "model, given", "derivatives": "model, given, cotangents",
}  # fmt: skip


def check_backend(where: str, backend: Any) -> None:
    """Raises BackendError where a required part is missing, or one that is declared is unknown or no such thing."""
    public = [name for name in dir(backend) if not name.startswith("_")]
    optional = [*PARTS, *LISTS, *FLAGS]
    parts = {part: _read(where, backend, part) for part in [*REQUIRED, *optional]}
    if missing := [part for part in REQUIRED if parts[part] is _ABSENT]:
        near = nearest(missing, public, TIGHT)
        raise BackendError(
            f"{where}: missing {listed(missing)}{near}; required are {', '.join(REQUIRED)} (SPEC.md, 13)"
        )
    if odd := [name for name in public if name not in optional and _mistyped(backend, name, optional)]:
        raise BackendError(
            f"{where}: expected the optional parts {listed(optional)}, got {odd[0]!r}{nearest(odd[:1], optional)}; "
            "rename it, or let its name begin with '_' if it is something else"
        )
    for part, value in parts.items():
        if value is not _ABSENT:
            _check_part(f"{where}, {part}", part, value)


def check_values(where: str, values: Any, known: Collection[str], *, empty: bool = True) -> None:
    """Raises BackendError unless the values are a list, or the like, of known ones."""
    listing = isinstance(values, LISTINGS)
    unknown = [value for value in (values if listing else [values]) if value not in known]
    if not listing or unknown or not (values or empty):
        near = nearest([value for value in unknown if isinstance(value, str)], known)
        raise BackendError(f"{where}: expected a list out of {listed(known)}, got {shown(values)}{near}")


def check_names(where: str, found: Collection[str], expected: Collection[str]) -> None:
    """Raises BackendError unless exactly the names that are expected are there."""
    if set(found) != set(expected):
        missing, surplus = set(expected) - set(found), sorted(set(found) - set(expected))
        told = ", ".join(map(repr, surplus)) or "none"
        raise BackendError(f"{where}: missing {listed(missing)}; surplus {told}{nearest(surplus, missing)}")


def nearest(names: Iterable[str], known: Collection[str], cutoff: float = LOOSE) -> str:
    """For a message, which of the known names those that are unknown resemble; empty where they resemble none."""
    pairs = [f"{name!r} is nearest to {near!r}" for name in names if (near := _near(name, known, cutoff))]
    return f" ({', '.join(pairs)})" if pairs else ""


def said(error: BaseException) -> str:
    """What somebody's code raised that was called from here, and where in it, if it got there."""
    calls = traceback.extract_tb(error.__traceback__)
    inside = [call for call in calls if not re.match(r"<frozen |.*\bimportlib\b", call.filename)][1:]
    return (
        f"{type(error).__name__}: {error} ({inside[-1].filename}, line {inside[-1].lineno})" if inside else f"{error}"
    )


def asked(owner: Any, part: str, *given: Any, **named: Any) -> Any:
    """What a method of a backend or trainer gives. Raises BackendError where it does not take the suite's arguments."""
    method = getattr(owner, part)
    try:
        return method(*given, **named)
    except TypeError as error:
        if (error.__traceback__ and error.__traceback__.tb_next) or _takes(method, given, named):
            raise  # by the method's own code
        call = ", ".join([*POSITIONAL[part].split(", "), *(f"{name}=..." for name in named)])
        raise BackendError(
            f"{part}: expected a method that can be called as {part}({call}) (SPEC.md, 13.3), got "
            f"{part}{_signature(method)}: {error}{_place(method)}"
        ) from None


def _read(where: str, backend: Any, part: str) -> Any:
    """A part, or `_ABSENT`. Raises BackendError where it cannot be read."""
    try:
        return getattr(backend, part)
    except (Exception, SystemExit) as error:  # of a property
        if isinstance(error, AttributeError) and error.name in (part, None):
            return _ABSENT
        raise BackendError(f"{where}, {part}: expected a part that can be read, got {said(error)}") from error


def _check_part(where: str, part: str, value: Any) -> None:
    if part == "name" and not (isinstance(value, str) and value):
        raise BackendError(f"{where}: expected a text, got {value!r}")
    if part in (*REQUIRED[1:], "gradients", "trainer") and not callable(value):
        raise BackendError(f"{where}: expected a method, got {value!r}; or leave it out")
    if part in LISTS:
        check_values(where, value, LISTS[part], empty=part == "takes")
    if part in FLAGS and not isinstance(value, bool):
        raise BackendError(f"{where}: expected True or False, got {value!r}")


def _mistyped(backend: Any, name: str, optional: Collection[str]) -> bool:
    """Whether a name is like an optional part's which is not there, or is only inherited by what has the name.

    What has the name must be such a part, too.
    """
    places = [getattr(backend, "__dict__", {}), *map(vars, type(backend).__mro__)]
    near = _near(name, optional, TIGHT)
    inside = [[place for place, names in enumerate(places) if one in names] for one in (name, near)]
    nearer = min(inside[1], default=len(places)) > min(inside[0], default=len(places))
    return near is not None and nearer and _of_kind(backend, name, near)


def _of_kind(backend: Any, name: str, part: str) -> bool:
    """Whether what has a name could be an optional part."""
    try:
        value = getattr(backend, name)
    except (Exception, SystemExit):
        return False
    if part in LISTS:
        return isinstance(value, LISTINGS)
    if part in FLAGS:
        return isinstance(value, bool)
    return all(hasattr(value, method) for method in FILES) if part == "files" else callable(value)


def _near(name: str, known: Collection[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, 1, cutoff)), None)


def _takes(method: Any, given: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether a method takes arguments, as far as it tells: not everything that is compiled has a signature."""
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*given, **named)
    except TypeError:
        return False
    return True


def _signature(method: Any) -> str:
    try:
        return str(inspect.signature(method))
    except (TypeError, ValueError):
        return "(...)"


def _place(method: Any) -> str:
    """Where a method is defined, as a traceback has it."""
    code = getattr(inspect.unwrap(method), "__code__", None)
    return f'\n  File "{code.co_filename}", line {code.co_firstlineno}, in {code.co_name}' if code else ""
