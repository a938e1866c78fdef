"""The optimizers' equations, in place (SPEC.md, 12.4 to 12.8)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..spec.optimizers import SGD, Adagrad, Adam, Optimizer, RMSprop

Array = Any
Slots = Mapping[str, Array]


def update(rule: Optimizer, t: int, rate: float, weight: Array, g: Array, slots: Slots) -> None:
    """Update t, from 1, of a weight and of what is kept for it, by its gradient."""
    if rule.weight_decay and rule.decoupled:
        weight *= 1 - rate * rule.weight_decay
    elif rule.weight_decay:
        g = g + rule.weight_decay * weight
    if isinstance(rule, SGD):
        weight -= rate * _sgd(rule, g, slots)
    elif isinstance(rule, Adam):
        weight -= _adam(rule, t, rate, g, slots)
    elif isinstance(rule, RMSprop):
        weight -= rate * _rmsprop(rule, g, slots)
    else:
        weight -= rate * _adagrad(rule, g, slots)


def _sgd(rule: SGD, g: Array, slots: Slots) -> Array:
    if not rule.momentum:
        return g
    v = slots["momentum"]
    v *= rule.momentum
    v += g
    return g + rule.momentum * v if rule.nesterov else v


def _adam(rule: Adam, t: int, rate: float, g: Array, slots: Slots) -> Array:
    m, v = slots["first_moment"], slots["second_moment"]
    _mix(m, rule.beta1, g)
    _mix(v, rule.beta2, g * g)
    rate, correction = rate / (1 - rule.beta1**t), float(np.sqrt(1 - rule.beta2**t))
    if rule.epsilon_place == "hat":
        return rate * correction * m / (np.sqrt(v) + rule.epsilon)
    return rate * m / (np.sqrt(v) / correction + rule.epsilon)


def _rmsprop(rule: RMSprop, g: Array, slots: Slots) -> Array:
    s = slots["square_average"]
    _mix(s, rule.alpha, g * g)
    if rule.centred:
        a = slots["gradient_average"]
        _mix(a, rule.alpha, g)
        s = np.maximum(s - a * a, 0)
    quotient = g / _root(rule, s)
    if not rule.momentum:
        return quotient
    v = slots["momentum"]
    v *= rule.momentum
    v += quotient
    return v


def _adagrad(rule: Adagrad, g: Array, slots: Slots) -> Array:
    s = slots["square_sum"]
    s += g * g
    return g / _root(rule, s)


def _mix(average: Array, kept: float, new: Array) -> None:
    """average = kept average + (1 - kept) new."""
    average *= kept
    average += (1 - kept) * new


def _root(rule: RMSprop | Adagrad, s: Array) -> Array:
    return np.sqrt(s + rule.epsilon) if rule.epsilon_place == "inside" else np.sqrt(s) + rule.epsilon
