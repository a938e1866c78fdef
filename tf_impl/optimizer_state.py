"""Optimizer state from and to Keras: its SGD, Adam, AdamW, RMSprop and Adagrad, and the optimizers of this package."""

from . import importing as importing  # first: TensorFlow itself

# isort: split

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ..spec.errors import InputError, UnsupportedError, listed
from ..spec.optimizer_state import OptimizerState, check_same_clip, check_same_rule, checked_slots
from ..spec.optimizers import SGD, Adagrad, Adam, Optimizer, RMSprop
from ..spec.training import Clip, ClipByGlobalNorm, ClipByValue
from .optimizers import ExactOptimizer
from .plain import BACKEND as LAYERS
from .weights import place, variables

Variables = dict[str, tuple[Any, bool]]  # by canonical name, and whether each is transposed


class Kind(NamedTuple):
    """How a class of Keras is described.

    Attributes:
        rule: the spec's.
        fields: Keras' names of its numbers: the spec's.
        slots: the spec's names of what is kept: Keras' attributes.
        place: of epsilon.
        momentum_sign: of what it keeps as momentum, which is that many learning rates times the spec's.
    """

    rule: type[Optimizer]
    fields: Mapping[str, str]
    slots: Mapping[str, str]
    place: str | None = None
    momentum_sign: int = 1


ADAM = Kind(
    Adam, {"beta_1": "beta1", "beta_2": "beta2", "epsilon": "epsilon"},
    {"first_moment": "_momentums", "second_moment": "_velocities"}, "hat",
)  # fmt: skip
KINDS: Mapping[type, Kind] = {
    keras.optimizers.SGD: Kind(
        SGD, {"momentum": "momentum", "nesterov": "nesterov"}, {"momentum": "momentums"}, momentum_sign=-1
    ),
    keras.optimizers.Adam: ADAM,
    keras.optimizers.AdamW: ADAM,
    keras.optimizers.RMSprop: Kind(
        RMSprop, {"rho": "alpha", "epsilon": "epsilon", "momentum": "momentum", "centered": "centred"},
        {"square_average": "_velocities", "gradient_average": "_average_gradients", "momentum": "_momentums"}, "inside",
    ),
    keras.optimizers.Adagrad: Kind(
        Adagrad, {"epsilon": "epsilon", "initial_accumulator_value": "initial_accumulator"},
        {"square_sum": "_accumulators"}, "inside",
    ),
}  # fmt: skip
WITHOUT = (
    "use_ema", "gradient_accumulation_steps", "loss_scale_factor", "clipnorm", "_exclude_from_weight_decay",
    "_exclude_from_weight_decay_pattern",
)  # fmt: skip


def import_state(optimizer: Any, model: Any, *, constant_rate: bool = False) -> OptimizerState:
    """An optimizer's rule and state, for a trainer of any backend or another framework's optimizer.

    Keras' own SGD and RMSprop keep as momentum the spec's v times learning rates: -lr v and lr v, but only as long as
    lr never changes. And they compute with a learning rate, betas, momentum and weight decay rounded to float32, in
    float64 too; whoever goes on computes with the numbers as they are.

    Args:
        optimizer: of Keras or of this package, built for all trainable variables of the model.
        model: of this package, or one of Keras' standard layers; or the variables of any model by canonical name,
            kernels transposed as Keras has them.
        constant_rate: the caller's word that the learning rate has been the same in all updates.

    Raises:
        UnsupportedError: momentum under a learning rate that may have changed, amsgrad, moving averages, accumulation,
            scaling, clipping of each variable, another class: whatever the spec's optimizers have no place for.
        InputError: the optimizer is of other variables, or was never built.
    """
    names = _names(model)
    if not optimizer.built:
        raise InputError("optimizer: expected one that was built; call optimizer.build(model.trainable_variables)")
    _check_members(optimizer, names)
    rule = _rule(optimizer)
    found: dict[str, Any] = {"step": np.asarray(optimizer.iterations.numpy(), np.int64)}
    for slot in rule.slots:
        factor = _factor(optimizer, slot, rule.learning_rate, constant_rate)
        for name, (variable, transposed) in names.items():
            value = _slot(optimizer, slot, variable).numpy()
            kept = np.array(value.T if transposed else value, order="C")
            found[f"{slot}.{name}"] = kept if factor is None else kept / factor
    return OptimizerState(rule, found, _clip(optimizer))


def export_state(moved: OptimizerState, optimizer: Any, model: Any, *, constant_rate: bool = False) -> None:
    """Give an optimizer of Keras, or of this package, the state and the learning rate.

    Keras' own keep the learning rate in Keras' float type, so that it is rounded to float32 in general.

    Args:
        moved: as `import_state` of any backend gives it, or a rule and the `state()` of a trainer.
        optimizer: of the same rule; it is built where it was not.
        model: as for `import_state`.
        constant_rate: the caller's word that the learning rate will stay the same in all updates to come.

    Raises:
        UnsupportedError: the optimizer computes something else, or the model has other biases.
        InputError: the state or the optimizer is of other variables.
    """
    names = _names(model)
    check_same_rule(moved.rule, _rule(optimizer), "Keras")
    check_same_clip(moved.clip, _clip(optimizer), "Keras")
    shapes = {name: tuple(v.shape)[:: -1 if transposed else 1] for name, (v, transposed) in names.items()}
    arrays = checked_slots(moved, shapes, str(next(iter(names.values()))[0].dtype))
    rate = float(np.asarray(moved.rule.learning_rate, keras.config.floatx()))
    factors = {slot: _factor(optimizer, slot, rate, constant_rate) for slot in moved.rule.slots}
    optimizer.build([variable for variable, _ in names.values()])
    _check_members(optimizer, names)
    if not _is_scheduled(optimizer):
        optimizer.learning_rate = moved.rule.learning_rate
    optimizer.iterations.assign(arrays["step"])
    for slot, factor in factors.items():
        for name, (variable, transposed) in names.items():
            kept = arrays[f"{slot}.{name}"] if factor is None else arrays[f"{slot}.{name}"] * factor
            _slot(optimizer, slot, variable).assign(kept.T if transposed else kept)


def _names(model: Any) -> Variables:
    if isinstance(model, Mapping):
        return {name: (variable, place(name).transposed) for name, variable in model.items()}
    if LAYERS.owns(model):
        return LAYERS.variables(model)
    return {name: (variable, place(name).transposed) for name, variable in variables(model).items()}


def _rule(optimizer: Any) -> Optimizer:
    """What the optimizer computes, with its learning rate of now."""
    on = [name for name in WITHOUT if getattr(optimizer, name, None)]
    if on:
        raise UnsupportedError(f"Keras {on[0]}: no optimizer of the spec has such a thing; train without it")
    rate = float(tf.convert_to_tensor(optimizer.learning_rate))
    if isinstance(optimizer, ExactOptimizer):
        exact: Optimizer = type(optimizer.rule).from_data({**optimizer.rule.to_data(), "learning_rate": rate})
        return exact
    kind = _kind(optimizer)
    if getattr(optimizer, "amsgrad", False):
        raise UnsupportedError("Keras amsgrad=True: the spec's Adam keeps no largest moment; train with amsgrad=False")
    numbers = {name: getattr(optimizer, key) for key, name in kind.fields.items()}
    if kind.rule is SGD and not numbers["momentum"]:
        numbers["nesterov"] = False
    decay = optimizer.weight_decay or 0.0
    numbers |= {"epsilon_place": kind.place} if kind.place else {}
    return kind.rule(learning_rate=rate, **numbers, weight_decay=decay, decoupled=decay > 0)


def _kind(optimizer: Any) -> Kind:
    if type(optimizer) not in KINDS:
        raise UnsupportedError(
            f"Keras {type(optimizer).__name__}: the spec has none; expected SGD, Adam, AdamW, RMSprop or Adagrad"
        )
    return KINDS[type(optimizer)]


def _clip(optimizer: Any) -> Clip | None:
    if optimizer.global_clipnorm:
        return ClipByGlobalNorm(optimizer.global_clipnorm)
    return ClipByValue(optimizer.clipvalue) if optimizer.clipvalue else None


def _slot(optimizer: Any, slot: str, variable: Any) -> Any:
    kept = optimizer.slots if isinstance(optimizer, ExactOptimizer) else None
    slots = kept[slot] if kept is not None else getattr(optimizer, _kind(optimizer).slots[slot])
    return slots[optimizer._get_variable_index(variable)]


def _is_scheduled(optimizer: Any) -> bool:
    return not isinstance(optimizer._learning_rate, keras.Variable)


def _factor(optimizer: Any, slot: str, rate: float, constant_rate: bool) -> float | None:
    """What Keras keeps is so many times the spec's; None where it is the same."""
    if slot != "momentum" or isinstance(optimizer, ExactOptimizer):
        return None
    if _is_scheduled(optimizer) or not constant_rate or rate == 0:
        given = "a schedule" if _is_scheduled(optimizer) else f"{rate:g}, which may change"
        raise UnsupportedError(
            f"Keras {type(optimizer).__name__} with momentum: it sums gradients times the learning rates of their time "
            f"and so moves only where the learning rate is constant and not 0, got {given}; pass constant_rate=True "
            "if it is, or take this package's optimizer"
        )
    return _kind(optimizer).momentum_sign * rate


def _check_members(optimizer: Any, names: Variables) -> None:
    """Raises InputError unless the optimizer's variables are those of the model."""
    own = {id(variable): name for name, (variable, _) in names.items()}
    found = {id(variable): variable.path for variable in optimizer._trainable_variables}
    missing = [own[key] for key in own.keys() - found.keys()]
    surplus = [found[key] for key in found.keys() - own.keys()]
    if missing or surplus:
        words = f"missing {listed(missing)}; surplus {listed(surplus)}"
        raise InputError(f"optimizer: expected all variables of the model, {words}")
