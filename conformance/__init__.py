"""The oracle, the checks, conversion between files, and the command line.

A name is loaded when it is asked for: a command reads a file without the suite.
"""

from typing import TYPE_CHECKING

from ..spec.on_demand import on_demand

if TYPE_CHECKING:
    from .comparison import Comparison as Comparison
    from .equivalence import assert_equivalent as assert_equivalent
    from .in_pytest import conformance_tests as conformance_tests
    from .layers import converted as converted
    from .stateless import DifferentiatingStatelessBackend as DifferentiatingStatelessBackend
    from .stateless import StatelessBackend as StatelessBackend

__getattr__ = on_demand(__name__, {
    "Comparison": "comparison", "assert_equivalent": "equivalence", "converted": "layers",
    "conformance_tests": "in_pytest", "StatelessBackend": "stateless", "DifferentiatingStatelessBackend": "stateless",
})  # fmt: skip
