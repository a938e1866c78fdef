"""g = sigmoid(p_g + q_g + c); u = f(p_u + g q_u); c' = (1 - g) c + g u; h' = g tanh(c')."""

import torch
from torch import Tensor

from rnnzoo.torch_impl.nonlinearities import Nonlinearity

KEEPS_PROJECTIONS = True
ADDITIVE = False
IN_PLACE = False


def step(p: Tensor, q: Tensor, states: dict[str, Tensor], f: Nonlinearity) -> dict[str, Tensor]:
    (p_g, p_u), (q_g, q_u) = p.chunk(2, dim=-1), q.chunk(2, dim=-1)  # (B, H) each
    g = torch.sigmoid(p_g + q_g + states["c"])
    u = f.value(p_u + g * q_u)
    c = (1 - g) * states["c"] + g * u
    return {"c": c, "h": g * torch.tanh(c)}


def step_gradient(
    p: Tensor,
    q: Tensor,
    states: dict[str, Tensor],
    new_states: dict[str, Tensor],
    d_new_states: dict[str, Tensor],
    f: Nonlinearity,
) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
    (p_g, p_u), (q_g, q_u) = p.chunk(2, dim=-1), q.chunk(2, dim=-1)
    g = torch.sigmoid(p_g + q_g + states["c"])
    u = f.value(p_u + g * q_u)
    y = torch.tanh(new_states["c"])
    d_c = d_new_states["c"] + d_new_states["h"] * g * (1 - y * y)
    d_u = f.times_derivative(d_c * g, u)  # of p_u + g q_u
    d_g = (d_new_states["h"] * y + d_c * (u - states["c"]) + d_u * q_u) * (g * (1 - g))
    d_p, d_q = torch.cat([d_g, d_u], dim=-1), torch.cat([d_g, d_u * g], dim=-1)
    return d_p, d_q, {"c": d_c * (1 - g) + d_g, "h": 0.0}
