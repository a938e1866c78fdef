"""The oracle, the checks, conversion between files, and the command line."""

from .comparison import Comparison as Comparison
from .equivalence import assert_equivalent as assert_equivalent
from .layers import converted as converted
from .suite import conformance_tests as conformance_tests
