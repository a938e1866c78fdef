"""The oracle, the checks, conversion between files, and the command line.

A name is loaded when it is asked for: a command reads a file without the suite.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison import Comparison as Comparison
    from .equivalence import assert_equivalent as assert_equivalent
    from .layers import converted as converted
    from .suite import conformance_tests as conformance_tests

PLACES = {
    "Comparison": "comparison", "assert_equivalent": "equivalence", "converted": "layers", "conformance_tests": "suite",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{PLACES[name]}", __name__), name)
