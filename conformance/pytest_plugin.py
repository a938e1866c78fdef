"""A fixture for anybody's tests: `def test_it(assert_equivalent): assert_equivalent(torch_module, keras_layer)`."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def assert_equivalent() -> Callable[..., Any]:
    """`rnnzoo.conformance.assert_equivalent`; no framework is imported before it is called."""
    from .equivalence import assert_equivalent as function

    return function
