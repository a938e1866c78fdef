"""What clipping and the optimizers' equations make of gradients, in any arithmetic (SPEC.md, 12.3 to 12.8)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec.optimizers import SGD, Adagrad, Adam, Optimizer, RMSprop
from ..spec.parameters import Weights
from ..spec.training import Clip, ClipByGlobalNorm, ClipByValue
from .arithmetic import Exact
from .oracle import Named

Array = NDArray[Any]


def global_norm(ops: Exact, gradients: Named) -> Array:
    """The 2-norm of all gradients together, (S,)."""
    numbers = np.concatenate(_same_samples([g.reshape(len(g), -1) for g in gradients.values()]), axis=1)
    return ops.function("sqrt", ops.sum(ops.multiply(numbers, numbers), 1))[:, 0]


def clipped(clip: Clip | None, ops: Exact, gradients: Named, norm: Array) -> Named:
    """The gradients after clipping."""
    if isinstance(clip, ClipByGlobalNorm):
        divisor = np.where(norm > 0, norm, ops.constant(1.0))  # where nothing is to be clipped
        ratio = np.minimum(ops.divide(ops.hyperparameter(clip.maximum), divisor), ops.constant(1.0))
        return {name: ops.multiply(g, _like(g, ratio)) for name, g in gradients.items()}
    if isinstance(clip, ClipByValue):
        limit = ops.hyperparameter(clip.maximum)
        return {name: np.minimum(np.maximum(g, _like(g, -limit)), _like(g, limit)) for name, g in gradients.items()}
    return gradients


class Update:
    """An optimizer's equations, as they stand in SPEC.md, for all weights.

    Attributes:
        weights: by name, (S, ...), after the updates so far.
    """

    def __init__(self, rule: Optimizer, ops: Exact, weights: Weights) -> None:
        self.rule, self.ops, self.t = rule, ops, 0
        self.weights = {name: ops.constant(array) for name, array in weights.items()}
        self._slots: dict[str, Named] = {}

    def __call__(self, gradients: Named, rate: float) -> None:
        """Update t, at its learning rate."""
        self.t += 1
        self.ops.round_of("update")
        for name, g in gradients.items():
            weight, g = self._decayed(self.weights[name], g, rate)
            self.weights[name] = self.ops.add(weight, -self._difference(name, g, rate))

    def state(self) -> Named:
        """What a trainer's state holds (SPEC.md, 12.12), but for the carried states."""
        found = {f"{slot}.{name}": array for slot, arrays in self._slots.items() for name, array in arrays.items()}
        return {"step": self.ops.constant(self.t), **found}

    def _decayed(self, weight: Array, g: Array, rate: float) -> tuple[Array, Array]:
        decay = self._number(self.rule.weight_decay, weight)
        if not self.rule.weight_decay:
            return weight, g
        if not self.rule.decoupled:
            return weight, self.ops.add(g, self.ops.multiply(decay, weight))
        kept = self.ops.add(self.ops.constant(1.0), -self.ops.multiply(self._number(rate, weight), decay))
        return self.ops.multiply(kept, weight), g

    def _difference(self, name: str, g: Array, rate: float) -> Array:
        """What an update takes from a weight."""
        rule, ops = self.rule, self.ops
        if isinstance(rule, Adam):
            return self._adam(rule, name, g, rate)
        if isinstance(rule, RMSprop):
            g = ops.divide(g, self._root(rule, self._variance(rule, name, g)))
        if isinstance(rule, Adagrad):
            start = self._number(rule.initial_accumulator, g)
            s = ops.add(self._slot("square_sum", name, g, start), ops.multiply(g, g))
            g = ops.divide(g, self._root(rule, self._keep("square_sum", name, s)))
        elif rule.momentum:
            momentum = self._number(rule.momentum, g)
            v = ops.add(ops.multiply(momentum, self._slot("momentum", name, g)), g)
            self._keep("momentum", name, v)
            g = ops.add(g, ops.multiply(momentum, v)) if isinstance(rule, SGD) and rule.nesterov else v
        return ops.multiply(self._number(rate, g), g)

    def _adam(self, rule: Adam, name: str, g: Array, rate: float) -> Array:
        ops = self.ops
        m = self._mixed("first_moment", name, rule.beta1, g)
        root = ops.function("sqrt", self._mixed("second_moment", name, rule.beta2, ops.multiply(g, g)))
        rates = ops.divide(ops.hyperparameter(rate), ops.one_less_power(rule.beta1, self.t))
        unbias = ops.function("sqrt", ops.one_less_power(rule.beta2, self.t))
        if rule.epsilon_place == "hat":
            rates = ops.multiply(rates, unbias)
        else:
            root = ops.divide(root, _like(g, unbias))
        return ops.divide(ops.multiply(_like(g, rates), m), ops.add(root, self._number(rule.epsilon, g)))

    def _variance(self, rule: RMSprop, name: str, g: Array) -> Array:
        ops = self.ops
        s = self._mixed("square_average", name, rule.alpha, ops.multiply(g, g))
        if not rule.centred:
            return s
        a = self._mixed("gradient_average", name, rule.alpha, g)
        return np.maximum(ops.add(s, -ops.multiply(a, a)), ops.constant(0.0))

    def _root(self, rule: RMSprop | Adagrad, s: Array) -> Array:
        epsilon = self._number(rule.epsilon, s)
        if rule.epsilon_place == "inside":
            return self.ops.function("sqrt", self.ops.add(s, epsilon))
        return self.ops.add(self.ops.function("sqrt", s), epsilon)

    def _mixed(self, slot: str, name: str, kept: float, new: Array) -> Array:
        """slot = kept slot + (1 - kept) new."""
        old = self.ops.multiply(self._number(kept, new), self._slot(slot, name, new))
        added = self.ops.multiply(_like(new, self.ops.one_less_power(kept, 1)), new)
        return self._keep(slot, name, self.ops.add(old, added))

    def _slot(self, slot: str, name: str, like: Array, start: Array | int = 0) -> Array:
        return self._slots.get(slot, {}).get(name, 0 * like + start)

    def _keep(self, slot: str, name: str, value: Array) -> Array:
        self._slots.setdefault(slot, {})[name] = value
        return value

    def _number(self, value: float, like: Array) -> Array:
        """A hyperparameter in a shape that fits an array."""
        return _like(like, self.ops.hyperparameter(value))


def _like(array: Array, numbers: Array) -> Array:
    """Numbers (S,) in a shape that fits an array."""
    return numbers.reshape(-1, *[1] * (array.ndim - 1))


def _same_samples(arrays: list[Array]) -> list[Array]:
    samples = max(len(array) for array in arrays)
    return [np.broadcast_to(array, (samples, *array.shape[1:])) for array in arrays]
