"""The spec's optimizers as Keras optimizers, for `fit` and for the trainer (SPEC.md, 12.4 to 12.8).

Keras' own differ: momentum holds gradients times the learning rates of their time; Adam, RMSprop and Adagrad add
epsilon elsewhere; weight decay is always decoupled; the learning rate is kept in float32 (SGD(0.1) takes 1.0 to
0.8999999985 in float64); and the gradients of an embedding stay sparse, so that a repeated token has a wrong norm.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import keras
import tensorflow as tf

from ..spec import optimizers as rules

Tensor = Any


class ExactOptimizer(keras.optimizers.Optimizer):
    """A Keras optimizer with a float64 learning rate and dense gradients, which follows a description of the spec.

    Attributes:
        rule: the description; its learning rate does not count, as Keras' may change.
        slots: by their names, one variable for each trainable variable, in their order.
    """

    rule: Any
    _learning_rate: Any  # Keras': a variable, or a schedule

    def __init__(self, learning_rate: Any, rule: rules.Optimizer, **options: Any) -> None:
        rate = float(learning_rate) if isinstance(learning_rate, int) else learning_rate
        super().__init__(learning_rate=rate, weight_decay=rule.weight_decay, **options)
        self.rule = rule
        self.slots: dict[str, list[Any]] = {}
        if isinstance(self._learning_rate, keras.Variable):
            self._keep_exact_rate(rate)

    def _keep_exact_rate(self, rate: float) -> None:
        exact = keras.Variable(
            rate, dtype="float64", trainable=False, name="learning_rate", aggregation="only_first_replica"
        )
        self._untrack_variable(self._learning_rate)
        self._track_variable(exact)
        self._learning_rate = exact

    def build(self, variables: list[Any]) -> None:
        """Make the slots, filled with what they start from."""
        if not self.built:
            super().build(variables)
            for slot, start in self.rule.slots.items():
                filled = _Filled(start)
                self.slots[slot] = [
                    self.add_variable_from_reference(v, name=slot, initializer=filled) for v in variables
                ]

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables; sparse gradients are made dense before they are clipped and used."""
        super().apply([dense(g) for g in grads], trainable_variables)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: Keras' would be decoupled, from a rate in the weight's precision; `update_step` does it."""

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """One update of one variable; what is the same for all its numbers is computed in float64."""
        rate, decay, dtype = _float64(learning_rate), self.rule.weight_decay, variable.dtype
        if decay and self._use_weight_decay(variable):
            if self.rule.decoupled:
                self.assign(variable, variable * tf.cast(1 - rate * _float64(decay), dtype))
            else:
                gradient = gradient + tf.constant(decay, dtype) * variable
        self.assign_sub(variable, self.difference(gradient, variable, rate))

    def difference(self, g: Tensor, variable: Any, rate: Tensor) -> Tensor:
        """What an update takes from a variable."""
        raise NotImplementedError

    def _slot(self, name: str, variable: Any) -> Any:
        return self.slots[name][self._get_variable_index(variable)]

    def _kept(self, slot: str, variable: Any, factor: float, added: Tensor) -> Tensor:
        """slot = factor slot + added."""
        value = self._slot(slot, variable) * tf.constant(factor, variable.dtype) + added
        self.assign(self._slot(slot, variable), value)
        return value

    def _mixed(self, slot: str, variable: Any, kept: float, new: Tensor) -> Tensor:
        """slot = kept slot + (1 - kept) new."""
        return self._kept(slot, variable, kept, tf.constant(1 - kept, variable.dtype) * new)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` builds the optimizer from again."""
        own = {field.name: getattr(self.rule, field.name) for field in fields(self.rule)}
        return own | super().get_config()


@keras.saving.register_keras_serializable(package="rnnzoo")
class SGD(ExactOptimizer):
    """`rnnzoo.spec.SGD`; the learning rate may also be a schedule of Keras."""

    def __init__(
        self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, *,
        weight_decay: float = 0.0, decoupled: bool = False, name: str = "sgd", **options: Any,
    ) -> None:  # fmt: skip
        rule = rules.SGD(
            _number(learning_rate), momentum, nesterov, weight_decay=weight_decay, decoupled=decoupled
        )  # fmt: skip
        super().__init__(learning_rate, rule, name=name, **options)

    def difference(self, g: Tensor, variable: Any, rate: Tensor) -> Tensor:
        rule, dtype = self.rule, variable.dtype
        if rule.momentum:
            v = self._kept("momentum", variable, rule.momentum, g)
            g = g + tf.constant(rule.momentum, dtype) * v if rule.nesterov else v
        return tf.cast(rate, dtype) * g


@keras.saving.register_keras_serializable(package="rnnzoo")
class Adam(ExactOptimizer):
    """`rnnzoo.spec.Adam`; the learning rate may also be a schedule of Keras."""

    def __init__(
        self, learning_rate: Any = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,
        epsilon_place: str = "outside", *,
        weight_decay: float = 0.0, decoupled: bool = False, name: str = "adam", **options: Any,
    ) -> None:  # fmt: skip
        rule = rules.Adam(
            _number(learning_rate), beta1, beta2, epsilon, epsilon_place, weight_decay=weight_decay, decoupled=decoupled
        )
        super().__init__(learning_rate, rule, name=name, **options)

    def difference(self, g: Tensor, variable: Any, rate: Tensor) -> Tensor:
        rule, dtype = self.rule, variable.dtype
        t = tf.cast(self.iterations + 1, tf.float64)
        rate = rate / (1 - _float64(rule.beta1) ** t)
        correction = tf.sqrt(1 - _float64(rule.beta2) ** t)
        m = self._mixed("first_moment", variable, rule.beta1, g)
        root = tf.sqrt(self._mixed("second_moment", variable, rule.beta2, g * g))
        if rule.epsilon_place == "hat":
            rate = rate * correction
        else:
            root = root / tf.cast(correction, dtype)
        return tf.cast(rate, dtype) * m / (root + tf.constant(rule.epsilon, dtype))


@keras.saving.register_keras_serializable(package="rnnzoo")
class RMSprop(ExactOptimizer):
    """`rnnzoo.spec.RMSprop`; the learning rate may also be a schedule of Keras."""

    def __init__(
        self, learning_rate: Any = 0.01, alpha: float = 0.99, epsilon: float = 1e-8, momentum: float = 0.0,
        centred: bool = False, epsilon_place: str = "outside", *,
        weight_decay: float = 0.0, decoupled: bool = False, name: str = "rmsprop", **options: Any,
    ) -> None:  # fmt: skip
        rule = rules.RMSprop(
            _number(learning_rate), alpha, epsilon, momentum, centred, epsilon_place,
            weight_decay=weight_decay, decoupled=decoupled,
        )  # fmt: skip
        super().__init__(learning_rate, rule, name=name, **options)

    def difference(self, g: Tensor, variable: Any, rate: Tensor) -> Tensor:
        rule, dtype = self.rule, variable.dtype
        s = self._mixed("square_average", variable, rule.alpha, g * g)
        if rule.centred:
            a = self._mixed("gradient_average", variable, rule.alpha, g)
            s = tf.maximum(s - a * a, tf.zeros([], dtype))
        g = g / _root(rule, s)
        if rule.momentum:
            g = self._kept("momentum", variable, rule.momentum, g)
        return tf.cast(rate, dtype) * g


@keras.saving.register_keras_serializable(package="rnnzoo")
class Adagrad(ExactOptimizer):
    """`rnnzoo.spec.Adagrad`; the learning rate may also be a schedule of Keras."""

    def __init__(
        self, learning_rate: Any = 0.01, epsilon: float = 1e-10, initial_accumulator: float = 0.0,
        epsilon_place: str = "outside", *,
        weight_decay: float = 0.0, decoupled: bool = False, name: str = "adagrad", **options: Any,
    ) -> None:  # fmt: skip
        rule = rules.Adagrad(
            _number(learning_rate), epsilon, initial_accumulator, epsilon_place,
            weight_decay=weight_decay, decoupled=decoupled,
        )  # fmt: skip
        super().__init__(learning_rate, rule, name=name, **options)

    def difference(self, g: Tensor, variable: Any, rate: Tensor) -> Tensor:
        return tf.cast(rate, variable.dtype) * g / _root(self.rule, self._kept("square_sum", variable, 1.0, g * g))


_CLASSES: Mapping[type[Any], Any] = {
    rules.SGD: SGD, rules.Adam: Adam, rules.RMSprop: RMSprop, rules.Adagrad: Adagrad,
}  # fmt: skip


def optimizer_of(rule: rules.Optimizer) -> ExactOptimizer:
    """The Keras optimizer that a description stands for."""
    options = {name: value for name, value in rule.to_data().items() if name != "kind"}
    found: ExactOptimizer = _CLASSES[type(rule)](**options)
    return found


def dense(gradient: Tensor | None) -> Tensor | None:
    """The gradient as one tensor."""
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient


def _root(rule: rules.RMSprop | rules.Adagrad, s: Tensor) -> Tensor:
    epsilon = tf.constant(rule.epsilon, s.dtype)
    return tf.sqrt(s + epsilon) if rule.epsilon_place == "inside" else tf.sqrt(s) + epsilon


def _number(learning_rate: Any) -> float:
    """The learning rate for a description, which holds no schedule: 0 in its place."""
    return float(learning_rate) if isinstance(learning_rate, int | float) else 0.0


def _float64(number: Tensor | float) -> Tensor:
    """The number in float64; tf.cast would round one of Python to float32."""
    return tf.constant(number, tf.float64) if isinstance(number, float) else tf.cast(number, tf.float64)


class _Filled(keras.initializers.Initializer):
    """One number everywhere, in the variable's precision; Keras' Constant makes it float32 first."""

    def __init__(self, number: float) -> None:
        self.number = number

    def __call__(self, shape: Any, dtype: Any = None) -> Tensor:
        return tf.fill(shape, tf.constant(self.number, dtype))
