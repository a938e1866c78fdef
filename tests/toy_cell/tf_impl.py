"""g = sigmoid(p_g + q_g + c); u = f(p_u + g q_u); c' = (1 - g) c + g u; h' = g tanh(c')."""

from typing import Any

import tensorflow as tf

from rnnzoo.tf_impl.nonlinearities import Nonlinearity

KEEPS_PROJECTIONS = True
ADDITIVE = False
IN_PLACE = False


def step(p: Any, q: Any, states: dict[str, Any], f: Nonlinearity) -> dict[str, Any]:
    (p_g, p_u), (q_g, q_u) = tf.split(p, 2, axis=-1), tf.split(q, 2, axis=-1)  # (B, H) each
    g = tf.sigmoid(p_g + q_g + states["c"])
    u = f.value(p_u + g * q_u)
    c = (1 - g) * states["c"] + g * u
    return {"c": c, "h": g * tf.tanh(c)}


def step_gradient(
    p: Any, q: Any, states: dict[str, Any], new_states: dict[str, Any], d_new_states: dict[str, Any], f: Nonlinearity
) -> tuple[Any, Any, dict[str, Any]]:
    (p_g, p_u), (q_g, q_u) = tf.split(p, 2, axis=-1), tf.split(q, 2, axis=-1)
    g = tf.sigmoid(p_g + q_g + states["c"])
    u = f.value(p_u + g * q_u)
    y = tf.tanh(new_states["c"])
    d_c = d_new_states["c"] + d_new_states["h"] * g * (1 - y * y)
    d_u = f.times_derivative(d_c * g, u)  # of p_u + g q_u
    d_g = (d_new_states["h"] * y + d_c * (u - states["c"]) + d_u * q_u) * (g * (1 - g))
    return (
        tf.concat([d_g, d_u], axis=-1),
        tf.concat([d_g, d_u * g], axis=-1),
        {"c": d_c * (1 - g) + d_g, "h": 0.0},
    )
