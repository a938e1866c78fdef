"""Optimizers of a description (SPEC.md, 12.4 to 12.8): torch's own where they compute its equations, else `Written`."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..spec.optimizers import SGD, Adagrad, Adam, Optimizer, RMSprop

SLOTS = {
    "momentum": "momentum_buffer", "first_moment": "exp_avg", "second_moment": "exp_avg_sq",
    "square_average": "square_avg", "gradient_average": "grad_avg", "square_sum": "sum",
}  # fmt: skip  # the spec's names: torch's


def torch_optimizer(rule: Optimizer, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a description."""
    rate, decay = rule.learning_rate, rule.weight_decay
    if isinstance(rule, Adam) and rule.epsilon_place == "outside":
        kind = torch.optim.AdamW if rule.decoupled else torch.optim.Adam
        return kind(weights, rate, (rule.beta1, rule.beta2), rule.epsilon, decay)
    if rule.decoupled and decay:
        return Written(weights, rule)
    if isinstance(rule, SGD):
        return torch.optim.SGD(weights, rate, rule.momentum, weight_decay=decay, nesterov=rule.nesterov)
    if isinstance(rule, RMSprop) and rule.epsilon_place == "outside" and not rule.centred:  # torch's root may be of < 0
        return torch.optim.RMSprop(weights, rate, rule.alpha, rule.epsilon, decay, rule.momentum)
    if isinstance(rule, Adagrad) and rule.epsilon_place == "outside":
        start = rule.initial_accumulator
        return torch.optim.Adagrad(weights, rate, 0.0, decay, start, rule.epsilon)
    return Written(weights, rule)


class Written(torch.optim.Optimizer):
    """Any description, its equations as they stand; the state has the names of torch's own optimizers."""

    def __init__(self, weights: Iterable[nn.Parameter], rule: Optimizer) -> None:
        super().__init__(weights, {"lr": rule.learning_rate})
        self.rule = rule

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"])

    def _update(self, weight: nn.Parameter, g: Tensor, rate: float) -> None:
        rule, state = self.rule, self.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state |= {SLOTS[slot]: torch.full_like(weight, start) for slot, start in rule.slots.items()}
        state["step"] += 1
        if rule.weight_decay and rule.decoupled:
            weight.mul_(1 - rate * rule.weight_decay)
        elif rule.weight_decay:
            g = g + rule.weight_decay * weight
        if isinstance(rule, Adam):
            weight.sub_(_adam_hat(rule, rate, g, state))
        else:
            quotient = g if isinstance(rule, SGD) else g / _root(rule, g, state)
            weight.sub_(rate * _with_momentum(rule, quotient, state))


def _adam_hat(rule: Adam, rate: float, g: Tensor, state: dict[str, Any]) -> Tensor:
    m, v, t = state["exp_avg"], state["exp_avg_sq"], int(state["step"])
    _mix(m, rule.beta1, g)
    _mix(v, rule.beta2, g * g)
    rate = float(rate * (1 - rule.beta2**t) ** 0.5 / (1 - rule.beta1**t))
    return rate * m / (v.sqrt() + rule.epsilon)


def _root(rule: RMSprop | Adagrad, g: Tensor, state: dict[str, Any]) -> Tensor:
    """What the gradient is divided by."""
    if isinstance(rule, Adagrad):
        s = state["sum"].add_(g * g)
    else:
        s = _mix(state["square_avg"], rule.alpha, g * g)
        if rule.centred:
            s = (s - _mix(state["grad_avg"], rule.alpha, g).square()).clamp(min=0)
    return (s + rule.epsilon).sqrt() if rule.epsilon_place == "inside" else s.sqrt() + rule.epsilon


def _with_momentum(rule: SGD | RMSprop | Adagrad, g: Tensor, state: dict[str, Any]) -> Tensor:
    if isinstance(rule, Adagrad) or not rule.momentum:
        return g
    v: Tensor = state["momentum_buffer"].mul_(rule.momentum).add_(g)
    return g + rule.momentum * v if isinstance(rule, SGD) and rule.nesterov else v


def _mix(average: Tensor, kept: float, new: Tensor) -> Tensor:
    """average = kept average + (1 - kept) new."""
    return average.mul_(kept).add_(new, alpha=1 - kept)
