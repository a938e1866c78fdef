"""Optimizer state from and to `torch.optim`: SGD, Adam, AdamW, RMSprop, Adagrad, and those of this package."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..spec.errors import InputError, UnsupportedError, listed
from ..spec.optimizer_state import OptimizerState, check_same_clip, check_same_rule, checked_slots
from ..spec.optimizers import SGD, Adagrad, Adam, Optimizer, RMSprop
from .optimizers import SLOTS, Written
from .plain import BACKEND as LAYERS
from .weights import dtype_name, named_parameters, to_array, to_tensor

Model = Any  # an nn.Module, or its parameters by canonical name
IGNORED = {
    "params", "lr", "initial_lr", "weight_decay", "foreach", "fused", "capturable", "differentiable",
    "decoupled_weight_decay",
}  # fmt: skip  # by any kind


class Kind(NamedTuple):
    """How a class of `torch.optim` is described.

    Attributes:
        rule: the spec's.
        fields: torch's names of its numbers: the spec's.
        without: options that the spec lacks, with the value that switches each off.
    """

    rule: type[Optimizer]
    fields: Mapping[str, str]
    without: Mapping[str, Any]


KINDS = (
    Kind(SGD, {"momentum": "momentum", "nesterov": "nesterov"}, {"dampening": 0, "maximize": False}),
    Kind(Adam, {"betas": "beta1 beta2", "eps": "epsilon"}, {"amsgrad": False, "maximize": False}),
    Kind(
        RMSprop, {"alpha": "alpha", "eps": "epsilon", "momentum": "momentum", "centered": "centred"},
        {"maximize": False},
    ),
    Kind(
        Adagrad, {"eps": "epsilon", "initial_accumulator_value": "initial_accumulator"},
        {"lr_decay": 0, "maximize": False},
    ),
)  # fmt: skip


def import_state(
    optimizer: torch.optim.Optimizer | Mapping[str, Any], model: Model, *, updates: int = 0
) -> OptimizerState:
    """An optimizer's rule and state, for a trainer of any backend or another framework's optimizer.

    Args:
        optimizer: of `torch.optim` or of this package; or a `state_dict()` of the former, made for all of
            `model.parameters()` in their order.
        model: a module of this package, `torch.nn.RNN`, a ModuleDict of rnn, embedding and head; or the parameters
            of a module of any form by canonical name, in the order that the state dict has them.
        updates: so far, of SGD alone, which does not count them.

    Raises:
        UnsupportedError: amsgrad, maximize, dampening, lr_decay, another class, groups of different numbers, weights
            that were not updated together: whatever the spec's optimizers have no place for.
        InputError: the optimizer is of other parameters.
    """
    names = _names(model)
    if isinstance(optimizer, torch.optim.Optimizer):
        rule = _rule(optimizer, optimizer.param_groups)
    elif {"state", "param_groups"} <= set(optimizer):
        rule = _rule(None, optimizer["param_groups"])
    else:
        raise InputError(f"optimizer: expected a state dict with state and param_groups, got {listed(optimizer)}")
    kept = _kept(optimizer, model, names)
    steps = {int(state["step"]) if "step" in state else 0 for state in kept.values()}
    if len(steps) > 1:
        raise UnsupportedError(f"optimizer: expected weights that were updated together, got {sorted(steps)} updates")
    found: dict[str, Any] = {"step": np.asarray(updates if isinstance(rule, SGD) else steps.pop(), np.int64)}
    for slot, start in rule.slots.items():
        for name, weight in names.items():
            value = kept[name].get(SLOTS[slot])
            found[f"{slot}.{name}"] = to_array(torch.full_like(weight, start) if value is None else value)
    moved = OptimizerState(rule, found)
    checked_slots(moved, *_shapes(names))
    return moved


def export_state(moved: OptimizerState, optimizer: torch.optim.Optimizer, model: Model) -> None:
    """Give an optimizer of `torch.optim`, or of this package, the state and the learning rate.

    Args:
        moved: as `import_state` of any backend gives it, or a rule and the `state()` of a trainer.
        optimizer: of the same rule; its `state_dict()` has then what was moved.
        model: as for `import_state`.

    Raises:
        UnsupportedError: the optimizer computes something else, or the model has other biases.
        InputError: the state or the optimizer is of other parameters.
    """
    names = _names(model)
    check_same_rule(moved.rule, _rule(optimizer, optimizer.param_groups), "torch.optim")
    check_same_clip(moved.clip, None, "torch.optim")
    _check_members([p for group in optimizer.param_groups for p in group["params"]], model, names)
    arrays = checked_slots(moved, *_shapes(names))
    for name, weight in names.items():
        own: dict[str, Any] = {
            SLOTS[slot]: to_tensor(arrays[f"{slot}.{name}"], weight.device) for slot in moved.rule.slots
        }
        if not isinstance(optimizer, torch.optim.SGD):  # it counts no steps
            own["step"] = torch.tensor(float(arrays["step"]), dtype=torch.float32)
        optimizer.state[weight] = own
    for group in optimizer.param_groups:
        group["lr"] = moved.rule.learning_rate


def _names(model: Model) -> dict[str, nn.Parameter]:
    if isinstance(model, Mapping):
        return dict(model)
    return named_parameters(model) if hasattr(model, "core_prefix") else LAYERS.parameters(model)


def _shapes(names: Mapping[str, nn.Parameter]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Of the weights, and their dtype."""
    first = next(iter(names.values()))
    return {name: tuple(weight.shape) for name, weight in names.items()}, dtype_name(first.dtype)


def _rule(optimizer: torch.optim.Optimizer | None, groups: list[dict[str, Any]]) -> Optimizer:
    first = {key: _number(value) for key, value in groups[0].items() if key != "params"}
    for group in groups[1:]:
        if differing := [key for key in first if _number(group.get(key)) != first[key]]:
            words = listed(differing)
            raise UnsupportedError(f"optimizer: expected one rule for all weights, got groups that differ in {words}")
    if isinstance(optimizer, Written):
        return type(optimizer.rule).from_data({**optimizer.rule.to_data(), "learning_rate": first["lr"]})
    kind = _kind(optimizer, first)
    for key, off in kind.without.items():
        if first[key] != off:
            raise UnsupportedError(
                f"torch.optim {key}={first[key]!r}: the optimizer {kind.rule.KIND!r} of the spec has no such thing, "
                f"and no state stands for it; train with {key}={off!r}"
            )
    numbers = {"learning_rate": first["lr"], "weight_decay": first["weight_decay"]}
    for key, names in kind.fields.items():
        values = first[key] if key == "betas" else (first[key],)
        numbers |= dict(zip(names.split(), values, strict=True))
    if not numbers.get("momentum") and "nesterov" in numbers:
        numbers["nesterov"] = False
    return kind.rule(**numbers, decoupled=_decoupled(optimizer, first))


def _kind(optimizer: torch.optim.Optimizer | None, group: Mapping[str, Any]) -> Kind:
    ours = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad)
    for kind in KINDS if optimizer is None or type(optimizer) in ours else ():
        own = {*kind.fields, *kind.without}
        if own <= set(group) <= own | IGNORED:
            return kind
    name = "a state dict" if optimizer is None else type(optimizer).__name__
    raise UnsupportedError(
        f"torch.optim: expected SGD, Adam, AdamW, RMSprop or Adagrad, got {name} with {listed(group)}; "
        "the spec has no such optimizer"
    )


def _decoupled(optimizer: torch.optim.Optimizer | None, group: Mapping[str, Any]) -> bool:
    known = group.get("decoupled_weight_decay", isinstance(optimizer, torch.optim.AdamW))
    if optimizer is None and "betas" in group and "decoupled_weight_decay" not in group and group["weight_decay"]:
        raise UnsupportedError(
            "torch.optim: this state dict does not tell Adam from AdamW, whose weight decay differs; give the optimizer"
        )
    return bool(known and group["weight_decay"])


def _number(value: Any) -> Any:
    """Learning rates and betas may be tensors."""
    if isinstance(value, tuple | list):
        return tuple(map(_number, value))
    return value.item() if isinstance(value, torch.Tensor) else value


def _kept(
    optimizer: torch.optim.Optimizer | Mapping[str, Any], model: Model, names: Mapping[str, nn.Parameter]
) -> dict[str, Mapping[str, Any]]:
    """What is kept for each weight, under torch's names."""
    if isinstance(optimizer, torch.optim.Optimizer):
        members = [p for group in optimizer.param_groups for p in group["params"]]
        _check_members(members, model, names)
        return {name: optimizer.state.get(weight, {}) for name, weight in names.items()}
    order = list(names.values()) if isinstance(model, Mapping) else list(model.parameters())
    numbers = [number for group in optimizer["param_groups"] for number in group["params"]]
    if len(numbers) != len(order):
        raise InputError(f"optimizer: expected the state of {len(order)} parameters, got {len(numbers)}")
    _check_members(order, model, names)
    places = {id(weight): number for weight, number in zip(order, numbers, strict=True)}
    return {name: optimizer["state"].get(places[id(weight)], {}) for name, weight in names.items()}


def _check_members(members: Iterable[nn.Parameter], model: Model, names: Mapping[str, nn.Parameter]) -> None:
    """Raises InputError unless the parameters are those of the model."""
    found, own = {id(weight) for weight in members}, {id(weight): name for name, weight in names.items()}
    named = dict[int, str]()
    if not isinstance(model, Mapping):
        named = {id(weight): name for name, weight in model.named_parameters()}
    missing = [own[weight] for weight in own.keys() - found]
    surplus = [named.get(weight, "a parameter of something else") for weight in found - own.keys()]
    if any("bias_hh" in name for name in surplus):
        raise UnsupportedError(
            f"torch.optim: it trains {listed(surplus)} too, a second bias, where the model has one; leave it out of "
            "the optimizer, and as it is"
        )
    if missing or surplus:
        words = f"missing {listed(missing)}; surplus {listed(surplus)}"
        raise InputError(f"optimizer: expected all parameters of the model, {words}")
