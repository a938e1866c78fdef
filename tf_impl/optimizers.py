"""SGD and Adam in the spec's form, as Keras optimizers for `fit` and for the trainer (SPEC.md, 12).

Keras' own differ: its momentum scales each gradient by the learning rate of its time, its Adam adds epsilon elsewhere,
its learning rate is kept in float32 (SGD(0.1) takes 1.0 to 0.8999999985 in float64), and it leaves the gradients of an
embedding sparse, whose norm counts a repeated token wrongly.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from ..spec import training
from ..spec.training import Optimizer

Tensor = Any


class ExactOptimizer(keras.optimizers.Optimizer):
    """A Keras optimizer with a float64 learning rate and dense gradients.

    Attributes:
        SLOTS: names of what is kept for each variable.
        slots: by these names, one variable for each trainable variable, in their order.
    """

    SLOTS: tuple[str, ...] = ()
    _learning_rate: Any  # Keras': a variable, or a schedule

    def __init__(self, learning_rate: Any, **options: Any) -> None:
        rate = float(learning_rate) if isinstance(learning_rate, int) else learning_rate
        super().__init__(learning_rate=rate, **options)
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
        """Make the slots, all 0."""
        if not self.built:
            super().build(variables)
            self.slots = {
                slot: [self.add_variable_from_reference(variable, name=slot) for variable in variables]
                for slot in self.SLOTS
            }

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables; sparse gradients are made dense before they are clipped and used."""
        super().apply([dense(g) for g in grads], trainable_variables)

    def _rate(self, rate: Tensor | float, dtype: Any) -> Tensor:
        return tf.constant(rate, dtype) if isinstance(rate, float) else tf.cast(rate, dtype)

    def _slot(self, name: str, variable: Any) -> Any:
        return self.slots[name][self._get_variable_index(variable)]


@keras.saving.register_keras_serializable(package="rnnzoo")
class SGD(ExactOptimizer):
    """v = momentum v + g; p = p - learning_rate v. v starts at 0."""

    def __init__(self, learning_rate: Any = 0.01, momentum: float = 0.0, *, name: str = "sgd", **options: Any) -> None:
        super().__init__(learning_rate, name=name, **options)
        self.momentum = momentum
        self.SLOTS = ("momentum",) if momentum else ()

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """One update of one variable."""
        v = gradient
        if self.momentum:
            v = self._slot("momentum", variable) * tf.constant(self.momentum, variable.dtype) + gradient
            self.assign(self._slot("momentum", variable), v)
        self.assign_sub(variable, self._rate(learning_rate, variable.dtype) * v)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` builds the optimizer from again."""
        return super().get_config() | {"momentum": self.momentum}


@keras.saving.register_keras_serializable(package="rnnzoo")
class Adam(ExactOptimizer):
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    p = p - learning_rate / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon), t from 1.
    """

    SLOTS = ("first_moment", "second_moment")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        name: str = "adam",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **options)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """One update of one variable; what is the same for all its numbers is computed in float64."""
        dtype, constant = variable.dtype, tf.constant  # tf.cast would round a Python number to float32
        m, v = self._slot("first_moment", variable), self._slot("second_moment", variable)
        t = tf.cast(self.iterations + 1, tf.float64)
        rate = self._rate(learning_rate, tf.float64) / (1 - constant(self.beta1, tf.float64) ** t)
        correction = tf.sqrt(1 - constant(self.beta2, tf.float64) ** t)
        new_m = m + constant(1 - self.beta1, dtype) * (gradient - m)
        new_v = v * constant(self.beta2, dtype) + constant(1 - self.beta2, dtype) * (gradient * gradient)
        self.assign(m, new_m)
        self.assign(v, new_v)
        root = tf.sqrt(new_v) / tf.cast(correction, dtype)
        self.assign_sub(variable, tf.cast(rate, dtype) * new_m / (root + constant(self.epsilon, dtype)))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` builds the optimizer from again."""
        return super().get_config() | {"beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon}


_CLASSES: Mapping[type[Any], type[ExactOptimizer]] = {training.SGD: SGD, training.Adam: Adam}


def optimizer_of(rule: Optimizer) -> ExactOptimizer:
    """The Keras optimizer that a description stands for."""
    options = {name: value for name, value in rule.to_data().items() if name != "kind"}
    return _CLASSES[type(rule)](**options)


def dense(gradient: Tensor | None) -> Tensor | None:
    """The gradient as one tensor."""
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient
