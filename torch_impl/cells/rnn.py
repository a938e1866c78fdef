"""h' = f(p + q)."""

from torch import Tensor

from ..nonlinearities import Nonlinearity

KEEPS_PROJECTIONS = False
ADDITIVE = True
IN_PLACE = True


def step(p: Tensor, q: Tensor, states: dict[str, Tensor], f: Nonlinearity) -> dict[str, Tensor]:
    return {"h": f.value(p + q)}


def step_gradient(
    p: Tensor | None,
    q: Tensor | None,
    states: dict[str, Tensor],
    new_states: dict[str, Tensor],
    d_new_states: dict[str, Tensor],
    f: Nonlinearity,
) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
    d_a = f.times_derivative(d_new_states["h"], new_states["h"])
    return d_a, d_a, {"h": 0.0}
