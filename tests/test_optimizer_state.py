"""Optimizers that go on elsewhere: torch's own, Keras' own, and this package's in any framework."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.training import TrainingCase, quantities
from rnnzoo.spec import (
    SGD,
    Adagrad,
    Adam,
    Batch,
    ClipByGlobalNorm,
    ClipByValue,
    CrossEntropy,
    Head,
    ModelSpec,
    RMSprop,
    TrainingSpec,
    load_backend,
)
from rnnzoo.spec.backend import load_plain
from rnnzoo.spec.errors import InputError, RnnZooError, UnsupportedError
from rnnzoo.spec.optimizer_state import OptimizerState
from rnnzoo.spec.optimizers import Optimizer

torch = pytest.importorskip("torch")
tf = pytest.importorskip("tensorflow")
from rnnzoo.tf_impl import importing  # noqa: E402, F401  (before keras)

import keras  # noqa: E402  isort: skip
from rnnzoo.tf_impl import optimizer_state as of_keras  # noqa: E402
from rnnzoo.tf_impl.optimizers import optimizer_of  # noqa: E402
from rnnzoo.torch_impl import optimizer_state as of_torch  # noqa: E402
from rnnzoo.torch_impl.optimizers import torch_optimizer  # noqa: E402

SINGLE = ModelSpec("simple_rnn", 2, 3, head=Head(3, reads="final"))
DOUBLE = ModelSpec("simple_rnn", 2, 3, bias="double", head=Head(3, reads="final"))
RATE = 2.0**-6  # as the betas below a number that float32 holds, to which Keras rounds them even in float64
LEG, B, T = 3, 4, 3


class Row(NamedTuple):
    """A rule, and what makes its optimizer in torch or in Keras, whichever has it."""

    rule: Optimizer
    torch: Callable[[Any], Any] | None = None
    keras: Callable[[], Any] | None = None


ROWS = {
    "sgd": Row(SGD(RATE), lambda p: torch.optim.SGD(p, RATE), lambda: keras.optimizers.SGD(RATE)),
    "momentum": Row(
        SGD(RATE, 0.5), lambda p: torch.optim.SGD(p, RATE, 0.5), lambda: keras.optimizers.SGD(RATE, momentum=0.5)
    ),
    "nesterov": Row(
        SGD(RATE, 0.5, nesterov=True), lambda p: torch.optim.SGD(p, RATE, 0.5, nesterov=True),
        lambda: keras.optimizers.SGD(RATE, momentum=0.5, nesterov=True),
    ),
    "l2": Row(SGD(RATE, 0.9, weight_decay=0.1), lambda p: torch.optim.SGD(p, RATE, 0.9, weight_decay=0.1)),
    "adam": Row(Adam(RATE), lambda p: torch.optim.Adam(p, RATE)),
    "adam_l2": Row(Adam(RATE, weight_decay=0.1), lambda p: torch.optim.Adam(p, RATE, weight_decay=0.1)),
    "adamw": Row(
        Adam(RATE, weight_decay=0.5, decoupled=True), lambda p: torch.optim.AdamW(p, RATE, weight_decay=0.5)
    ),
    "adam_hat": Row(
        Adam(RATE, 0.875, 0.96875, 1e-3, "hat"), None, lambda: keras.optimizers.Adam(RATE, 0.875, 0.96875, 1e-3)
    ),
    "adamw_hat": Row(
        Adam(RATE, 0.875, 0.96875, 1e-3, "hat", weight_decay=0.5, decoupled=True), None,
        lambda: keras.optimizers.AdamW(RATE, 0.5, 0.875, 0.96875, 1e-3),
    ),
    "rmsprop": Row(
        RMSprop(RATE, 0.9, 1e-3, 0.5, centred=True),
        lambda p: torch.optim.RMSprop(p, RATE, 0.9, 1e-3, momentum=0.5, centered=True),
    ),
    "rmsprop_inside": Row(
        RMSprop(RATE, 0.9, 1e-3, 0.5, centred=True, epsilon_place="inside"), None,
        lambda: keras.optimizers.RMSprop(RATE, 0.9, 0.5, 1e-3, centered=True),
    ),
    "adagrad": Row(Adagrad(RATE, 1e-3), lambda p: torch.optim.Adagrad(p, RATE, eps=1e-3)),
    "adagrad_inside": Row(
        Adagrad(RATE, 1e-3, 0.125, "inside"), None, lambda: keras.optimizers.Adagrad(RATE, 0.125, 1e-3)
    ),
}  # fmt: skip
NATIVE = [(name, kind) for name, row in ROWS.items() for kind in ("torch", "keras") if getattr(row, kind)]


def batches() -> list[Batch]:
    random = np.random.default_rng(4)
    return [Batch(random.normal(size=(B, T, 2)), random.integers(0, 3, B)) for _ in range(2 * LEG)]


class Leg(NamedTuple):
    """What a part of a run leaves."""

    weights: dict[str, Any]
    moved: OptimizerState


def by_trainer(name: str, spec: ModelSpec, rule: Optimizer, weights: Any, moved: Any, steps: list[Batch]) -> Leg:
    backend = load_backend(name)
    model = backend.build(spec, dtype="float64")
    backend.from_spec(model, weights)
    trainer = backend.trainer(model, TrainingSpec(CrossEntropy(), rule))
    if moved:
        trainer.load_state(moved.state)
    for batch in steps:
        trainer.step(batch)
    return Leg(backend.to_spec(model), OptimizerState(rule, trainer.state()))


def by_torch(make: Callable[[Any], Any], spec: ModelSpec, weights: Any, moved: Any, steps: list[Batch]) -> Leg:
    """torch.nn.RNN, a Linear head and an optimizer, by hand."""
    layers = load_plain("torch")
    model = layers.build(spec, dtype="float64")
    layers.from_spec(model, weights)
    optimizer = make(model.parameters())
    if moved:
        of_torch.export_state(moved, optimizer, model)
    for batch in steps:
        optimizer.zero_grad()
        _, final = model["rnn"](torch.tensor(batch.inputs))
        torch.nn.functional.cross_entropy(model["head"](final[-1]), torch.tensor(batch.targets)).backward()
        optimizer.step()
    updates = (int(moved.state["step"]) if moved else 0) + len(steps)
    return Leg(layers.to_spec(model), of_torch.import_state(optimizer, model, updates=updates))


def by_keras(make: Callable[[], Any], spec: ModelSpec, weights: Any, moved: Any, steps: list[Batch], own: bool) -> Leg:
    """Keras' SimpleRNN and Dense, or this package's model, and an optimizer, by hand."""
    layers = load_backend("tf") if own else load_plain("tf")
    model = layers.build(spec, dtype="float64")
    layers.from_spec(model, weights)
    optimizer = make()
    if moved:
        of_keras.export_state(moved, optimizer, model, constant_rate=True)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    for batch in steps:
        with tf.GradientTape() as tape:
            loss = loss_of(batch.targets, model(tf.constant(batch.inputs)))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return Leg(layers.to_spec(model), of_keras.import_state(optimizer, model, constant_rate=True))


def native(name: str, kind: str, weights: Any, moved: Any, steps: list[Batch]) -> Leg:
    if kind == "torch":
        return by_torch(ROWS[name].torch, DOUBLE, weights, moved, steps)
    return by_keras(ROWS[name].keras, SINGLE, weights, moved, steps, own=False)


class Truth(NamedTuple):
    """Where a run starts, and what decides whether its end is right."""

    start: dict[str, Any]
    check: Callable[[Leg], None]


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch, assert_right: Callable[..., None]) -> Callable[..., Truth]:
    def of(spec: ModelSpec, rule: Optimizer) -> Truth:
        monkeypatch.setattr(TrainingCase, "updates", lambda _: [(batch,) for batch in batches()])
        case = TrainingCase(Case(spec, B, T), TrainingSpec(CrossEntropy(), rule))

        def check(leg: Leg) -> None:
            kept = {name: np.asarray(array, np.float64) for name, array in leg.moved.state.items()}
            assert_right({**leg.weights, **kept}, lambda ops: quantities(case, ops))

        return Truth(case.case.weights, check)

    return of


@pytest.mark.parametrize(("name", "kind"), NATIVE)
def test_a_native_run_goes_on_in_a_trainer_and_back(name: str, kind: str, truth: Callable[..., Truth]) -> None:
    rule, steps = ROWS[name].rule, batches()
    spec = DOUBLE if kind == "torch" else SINGLE
    start, check = truth(spec, rule)
    never_moved = native(name, kind, start, None, steps)
    check(never_moved)
    assert never_moved.moved.rule == rule and never_moved.moved.clip is None
    begun = native(name, kind, start, None, steps[:LEG])
    assert begun.moved.rule == rule and int(begun.moved.state["step"]) == LEG
    check(by_trainer("numpy", spec, rule, *begun, steps[LEG:]))
    check(native(name, kind, *by_trainer("numpy", spec, rule, start, None, steps[:LEG]), steps[LEG:]))
    check(native(name, kind, *begun, steps[LEG:]))


@pytest.mark.parametrize("name", ROWS)
def test_the_optimizers_of_this_package_take_it_over_from_one_another(name: str, truth: Callable[..., Truth]) -> None:
    rule, steps = ROWS[name].rule, batches()
    start, check = truth(SINGLE, rule)
    begun = by_keras(lambda: optimizer_of(rule), SINGLE, start, None, steps[:LEG], own=True)
    assert begun.moved.rule == rule
    check(by_trainer("torch", SINGLE, rule, *begun, steps[LEG:]))
    begun = by_trainer("torch", SINGLE, rule, start, None, steps[:LEG])
    check(by_keras(lambda: optimizer_of(rule), SINGLE, *begun, steps[LEG:], own=True))


@pytest.mark.parametrize("name", ["momentum", "adamw", "rmsprop", "adam_hat"])
def test_modules_of_this_package_and_mappings_have_their_state_too(name: str) -> None:
    rule, steps = ROWS[name].rule, batches()
    backend = load_backend("torch")
    model = backend.build(SINGLE, dtype="float64")
    optimizer = torch_optimizer(rule, list(model.parameters()))
    trained = by_trainer("numpy", SINGLE, rule, backend.to_spec(model), None, steps)
    of_torch.export_state(trained.moved, optimizer, model)
    updates = int(trained.moved.state["step"])
    named = dict(zip(backend.to_spec(model), model.parameters(), strict=True))
    for found in (
        of_torch.import_state(optimizer, model, updates=updates),
        of_torch.import_state(optimizer, named, updates=updates),
    ):
        assert found.rule == rule
        for key, array in found.state.items():
            assert array.tobytes() == trained.moved.state[key].tobytes(), key


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.torch])
def test_a_state_dict_of_torch_tells_as_much_as_its_optimizer(name: str) -> None:
    layers = load_plain("torch")
    model = layers.build(DOUBLE, dtype="float64")
    optimizer = ROWS[name].torch(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    whole, told = (of_torch.import_state(given, model, updates=1) for given in (optimizer, optimizer.state_dict()))
    assert whole.rule == told.rule == ROWS[name].rule
    assert whole.state.keys() == told.state.keys()
    assert all(np.array_equal(array, told.state[key]) for key, array in whole.state.items())
    fresh = ROWS[name].torch(model.parameters())
    of_torch.export_state(whole, fresh, model)
    other = ROWS[name].torch(model.parameters())
    other.load_state_dict(fresh.state_dict())
    for weight in model.parameters():
        for key, value in optimizer.state[weight].items():
            assert value is None or torch.equal(other.state[weight][key], value), key


def torch_case(make: Callable[[Any], Any], spec: ModelSpec = DOUBLE) -> tuple[Any, Any]:
    model = load_plain("torch").build(spec, dtype="float64")
    optimizer = make(model)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return optimizer, model


TORCH = [
    (lambda m: torch.optim.Adam(m.parameters(), amsgrad=True), "amsgrad=True: the optimizer 'adam' of the spec has no"),
    (lambda m: torch.optim.SGD(m.parameters(), 0.1, 0.9, dampening=0.5), "dampening=0.5"),
    (lambda m: torch.optim.RMSprop(m.parameters(), maximize=True), "maximize=True"),
    (lambda m: torch.optim.Adagrad(m.parameters(), lr_decay=0.1), "lr_decay=0.1"),
    (lambda m: torch.optim.NAdam(m.parameters()), "expected SGD, Adam, AdamW, RMSprop or Adagrad, got NAdam"),
    (lambda m: torch.optim.RAdam(m.parameters()), "got RAdam"),
    (
        lambda m: torch.optim.SGD([{"params": part.parameters(), "lr": n} for n, part in enumerate(m.values())], 0.1),
        "expected one rule for all weights, got groups that differ in 'lr'",
    ),
    (lambda m: torch.optim.SGD(m["rnn"].parameters(), 0.1), "missing 'head.bias', 'head.weight'"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), TORCH, ids=[words for _, words in TORCH])
def test_what_the_spec_lacks_of_torch_is_refused_by_name(make: Callable[[Any], Any], words: str) -> None:
    optimizer, model = torch_case(make)
    with pytest.raises((UnsupportedError, InputError), match=words):
        of_torch.import_state(optimizer, model)
    if "missing" not in words:
        words = words if "got" not in words or "groups" in words else "got a state dict with"
        with pytest.raises(UnsupportedError, match=words):
            of_torch.import_state(optimizer.state_dict(), model)


def test_weights_that_were_not_updated_together_are_refused() -> None:
    optimizer, model = torch_case(lambda m: torch.optim.Adam(m.parameters()))
    model["head"].bias.grad = None
    optimizer.step()
    with pytest.raises(UnsupportedError, match=r"expected weights that were updated together, got \[1, 2\] updates"):
        of_torch.import_state(optimizer, model)


def test_a_state_dict_that_may_be_of_adam_or_adamw_is_refused() -> None:
    optimizer, model = torch_case(lambda m: torch.optim.AdamW(m.parameters()))
    told = optimizer.state_dict()
    del told["param_groups"][0]["decoupled_weight_decay"]  # as older releases write it
    with pytest.raises(UnsupportedError, match="does not tell Adam from AdamW"):
        of_torch.import_state(told, model)


def test_a_second_bias_that_torch_trains_beside_the_only_one_is_refused() -> None:
    optimizer, model = torch_case(lambda m: torch.optim.Adam(m.parameters()), SINGLE)
    with pytest.raises(UnsupportedError, match=r"it trains 'rnn\.bias_hh_l0' too, a second bias"):
        of_torch.import_state(optimizer, model)


def test_states_of_two_biases_and_of_one_do_not_mix() -> None:
    optimizer, model = torch_case(lambda m: torch.optim.Adam(m.parameters()))
    moved = of_torch.import_state(optimizer, model)
    single = load_backend("torch").build(SINGLE, dtype="float64")
    before = single.state_dict()
    with pytest.raises(
        UnsupportedError, match=r"of two biases in each layer cannot go on with one bias.*bias='double'"
    ):
        of_torch.export_state(moved, torch.optim.Adam(single.parameters()), single)
    assert all(torch.equal(value, before[key]) for key, value in single.state_dict().items())
    own = load_backend("tf").build(SINGLE, dtype="float64")
    with pytest.raises(UnsupportedError, match="of two biases in each layer cannot go on with one bias"):
        of_keras.export_state(moved, optimizer_of(moved.rule), own)


def test_epsilon_in_another_place_is_refused_both_ways() -> None:
    steps, start = batches()[:1], load_plain("tf").to_spec(load_plain("tf").build(SINGLE, dtype="float64"))
    for name, other in (("adam", "adam_hat"), ("rmsprop", "rmsprop_inside"), ("adagrad", "adagrad_inside")):
        moved = by_trainer("numpy", SINGLE, ROWS[name].rule, start, None, steps).moved
        model = load_plain("tf").build(SINGLE, dtype="float64")
        with pytest.raises(UnsupportedError, match="no epsilon of one form gives the other's updates"):
            of_keras.export_state(moved, ROWS[other].keras(), model, constant_rate=True)
        moved = by_trainer("numpy", SINGLE, ROWS[other].rule, start, None, steps).moved
        layers = load_backend("torch").build(SINGLE, dtype="float64")
        with pytest.raises(UnsupportedError, match="no epsilon of one form gives the other's updates"):
            of_torch.export_state(moved, ROWS[name].torch(layers.parameters()), layers)


def test_another_rule_or_other_numbers_are_refused() -> None:
    model = load_backend("torch").build(SINGLE, dtype="float64")
    moved = by_trainer("numpy", SINGLE, SGD(0.1, 0.9), load_backend("torch").to_spec(model), None, batches()[:1]).moved
    for make, words in (
        (lambda p: torch.optim.Adam(p), "expected an optimizer of kind 'sgd', got 'adam'"),
        (lambda p: torch.optim.SGD(p, 0.1, 0.8), r"sgd momentum: the state is of 0\.9, the optimizer has 0\.8"),
        (lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.1), r"sgd weight_decay: the state is of 0\.0"),
    ):
        with pytest.raises(UnsupportedError, match=words):
            of_torch.export_state(moved, make(model.parameters()), model)
    with pytest.raises(UnsupportedError, match="were clipped by ClipByValue"):
        of_torch.export_state(
            moved._replace(clip=ClipByValue(1.0)), torch.optim.SGD(model.parameters(), 0.1, 0.9), model
        )


def test_a_state_of_other_shapes_or_names_is_refused() -> None:
    optimizer, model = torch_case(lambda m: torch.optim.Adam(m.parameters()))
    moved = of_torch.import_state(optimizer, model)
    wider = load_plain("torch").build(ModelSpec("simple_rnn", 2, 4, bias="double", head=Head(3, reads="final")))
    with pytest.raises(InputError, match="expected float32 of shape"):
        of_torch.export_state(moved, torch.optim.Adam(wider.parameters()), wider)
    less = {name: array for name, array in moved.state.items() if name != "first_moment.head.bias"}
    with pytest.raises(InputError, match=r"missing 'first_moment\.head\.bias'"):
        of_torch.export_state(moved._replace(state=less), torch.optim.Adam(model.parameters()), model)
    with pytest.raises(InputError, match="expected a state dict with state and param_groups, got 'model'"):
        of_torch.import_state({"model": {}}, model)
    with pytest.raises(InputError, match="expected the state of 6 parameters, got 4"):
        of_torch.import_state(torch.optim.Adam(list(model.parameters())[:4]).state_dict(), model)


def keras_case(optimizer: Any) -> tuple[Any, Any]:
    model = load_plain("tf").build(SINGLE, dtype="float64")
    optimizer.build(model.trainable_variables)
    return optimizer, model


def excluding() -> Any:
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


KERAS = [
    (lambda: keras.optimizers.SGD(0.1, momentum=0.9), r"rate is constant .* got 0\.1, which may"),
    (lambda: keras.optimizers.RMSprop(0.1, momentum=0.9), "only where the learning rate is constant"),
    (
        lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9), momentum=0.9),
        "constant and not 0, got a schedule",
    ),
    (lambda: keras.optimizers.Adam(amsgrad=True), "amsgrad=True"),
    (lambda: keras.optimizers.Adam(use_ema=True), "use_ema"),
    (lambda: keras.optimizers.Adam(clipnorm=1.0), "clipnorm"),
    (lambda: keras.optimizers.Adam(gradient_accumulation_steps=2), "gradient_accumulation_steps"),
    (lambda: keras.optimizers.Adam(loss_scale_factor=8.0), "loss_scale_factor"),
    (lambda: keras.optimizers.Nadam(), "Keras Nadam: the spec has none; expected SGD, Adam"),
    (excluding, "exclude_from_weight_decay"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), KERAS, ids=[words for _, words in KERAS])
def test_what_the_spec_lacks_of_keras_is_refused_by_name(make: Callable[[], Any], words: str) -> None:
    optimizer, model = keras_case(make())
    with pytest.raises(UnsupportedError, match=words):
        of_keras.import_state(optimizer, model)


def test_a_schedule_is_refused_even_on_the_callers_word() -> None:
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9)
    optimizer, model = keras_case(keras.optimizers.SGD(rate, momentum=0.9))
    with pytest.raises(UnsupportedError, match="got a schedule"):
        of_keras.import_state(optimizer, model, constant_rate=True)


def test_the_learning_rate_in_force_moves_along() -> None:
    module, model = (
        load_backend("torch").build(SINGLE, dtype="float64"),
        load_plain("tf").build(SINGLE, dtype="float64"),
    )
    start, rule = load_backend("torch").to_spec(module), Adagrad(0.5, 1e-3, epsilon_place="inside")
    moved = by_trainer("numpy", SINGLE, rule, start, None, batches()[:1]).moved
    optimizer = keras.optimizers.Adagrad(0.25, epsilon=1e-3)
    of_keras.export_state(moved, optimizer, model)
    assert float(tf.convert_to_tensor(optimizer.learning_rate)) == 0.5
    optimizer = torch_optimizer(Adagrad(0.25, 1e-3, epsilon_place="inside"), list(module.parameters()))
    of_torch.export_state(moved, optimizer, module)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5]
    assert of_torch.import_state(optimizer, module).rule.learning_rate == 0.5


def test_clipping_of_a_keras_optimizer_moves_along() -> None:
    for options, clip in (({"global_clipnorm": 0.5}, ClipByGlobalNorm(0.5)), ({"clipvalue": 0.1}, ClipByValue(0.1))):
        optimizer, model = keras_case(keras.optimizers.Adam(**options))
        moved = of_keras.import_state(optimizer, model)
        assert moved.clip == clip
        of_keras.export_state(moved, keras.optimizers.Adam(**options), model)
        with pytest.raises(UnsupportedError, match="were clipped by"):
            of_keras.export_state(moved, keras.optimizers.Adam(), model)


def test_an_optimizer_of_other_variables_is_refused() -> None:
    model = load_plain("tf").build(SINGLE, dtype="float64")
    with pytest.raises(InputError, match="expected one that was built"):
        of_keras.import_state(keras.optimizers.Adam(), model)
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables[:2])
    with pytest.raises(InputError, match="expected all variables of the model, missing"):
        of_keras.import_state(optimizer, model)


def test_nothing_changes_where_a_move_is_refused() -> None:
    optimizer, model = keras_case(keras.optimizers.SGD(0.25, momentum=0.9))
    start = load_plain("tf").to_spec(model)
    moved = by_trainer("numpy", SINGLE, SGD(0.5, 0.9), start, None, batches()[:1]).moved
    with pytest.raises(RnnZooError, match="constant_rate=True"):
        of_keras.export_state(moved, optimizer, model)
    assert float(optimizer.learning_rate) == 0.25 and int(optimizer.iterations) == 0
    assert not any(np.any(variable.numpy()) for variable in optimizer.momentums)
