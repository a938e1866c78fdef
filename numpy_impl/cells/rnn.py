"""h' = f(p + q)."""

from typing import Any

from ..nonlinearities import Nonlinearity

KEEPS_PROJECTIONS = False
ADDITIVE = True
IN_PLACE = True


def step(p: Any, q: Any, states: dict[str, Any], f: Nonlinearity) -> dict[str, Any]:
    return {"h": f.value(p + q)}


def step_gradient(
    p: Any, q: Any, states: dict[str, Any], new_states: dict[str, Any], d_new_states: dict[str, Any], f: Nonlinearity
) -> tuple[Any, Any, dict[str, Any]]:
    d_a = f.times_derivative(d_new_states["h"], new_states["h"])
    return d_a, d_a, {"h": 0.0}
