"""What a torch user counts on: `nn.RNN`'s names, autograd, export, autocast, saving. Agreement with the other
backends is the conformance suite's."""

import copy
import io
import warnings
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.conformance.bounds import bounds, gradients, results, truth
from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.comparison import compared
from rnnzoo.conformance.items import item
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.training import TrainingCase
from rnnzoo.spec import (
    SGD,
    Adagrad,
    Adam,
    Batch,
    ClipByGlobalNorm,
    Context,
    CrossEntropy,
    Embedding,
    Head,
    ModelSpec,
    RMSprop,
    TrainingSpec,
    WarmUp,
    initial_weights,
    load_backend,
)
from rnnzoo.spec.errors import InputError, SpecError, UnsupportedError, WeightError
from rnnzoo.spec.inputs import Cotangents, Inputs, checked_inputs
from rnnzoo.spec.optimizers import Optimizer
from rnnzoo.torch_impl import Recurrent, SequenceModel
from rnnzoo.torch_impl.fast import _layer
from rnnzoo.torch_impl.optimizers import Written, torch_optimizer
from rnnzoo.torch_impl.recurrence import _recurrence
from rnnzoo.torch_impl.weights import dtype_name, named_parameters, state_dict_names

B, T, I, H = 4, 6, 3, 5  # noqa: E741 (the spec's symbol)
VARIANTS = ("simple_rnn", "bi_rnn", "stacked_rnn", "stacked_bi_rnn")
LENGTHS = torch.tensor([6, 2, 0, 3])
BACKEND = load_backend("torch")


def spec_of(variant: str = "stacked_bi_rnn", **options: Any) -> ModelSpec:
    return ModelSpec(variant, I, H, 2 if "stacked" in variant else 1, **options)


FULL = spec_of(embedding=Embedding(11), head=Head(7), context=Context(2))


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def arrays(**tensors: Tensor) -> dict[str, np.ndarray]:
    """What a core gives, named as its quantities are."""
    return {"final_state.h" if name == "final" else name: tensor.detach().numpy() for name, tensor in tensors.items()}


def rnn_pair(variant: str, nonlinearity: str) -> tuple[Recurrent, nn.RNN]:
    spec = spec_of(variant, nonlinearity=nonlinearity, bias="double")
    ours = Recurrent(spec, seed=3, dtype="float64")
    theirs = nn.RNN(
        I, H, spec.num_layers, nonlinearity, batch_first=True, bidirectional="bi" in variant, dtype=torch.float64
    )
    return ours, theirs


# The same as torch.nn.RNN


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_double_state_dict_is_that_of_nn_rnn_and_computes_the_same(
    variant: str, nonlinearity: str, assert_run: Callable[..., None]
) -> None:
    ours, theirs = rnn_pair(variant, nonlinearity)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x, h0 = drawn(B, T, I), drawn(ours.spec.num_layers * ours.spec.num_directions, B, H, seed=1)
    for outputs, final in (ours(x, initial_state=h0), theirs(x, h0)):
        assert_run(arrays(outputs=outputs, final=final), ours, x, initial_state=h0)
    ours.load_state_dict(nn.RNN(I, H, ours.spec.num_layers, bidirectional="bi" in variant).state_dict())


def test_gradients_are_those_of_nn_rnn(assert_right: Callable[..., None]) -> None:
    ours, theirs = rnn_pair("stacked_bi_rnn", "tanh")
    theirs.load_state_dict(ours.state_dict())
    x, d_outputs, d_final = drawn(B, T, I), drawn(B, T, 2 * H, seed=2), drawn(4, B, H, seed=3)
    given = checked_inputs(ours.spec, "float64", x)
    cotangents = Cotangents(d_outputs.numpy(), {"h": d_final.numpy()}, None)
    wanted = gradients(ours.spec, BACKEND.to_spec(ours), given, cotangents)
    for model in (ours, theirs):
        outputs, final = model(x)
        ((outputs * d_outputs).sum() + (final * d_final).sum()).backward()
        names = state_dict_names(ours.spec)
        assert_right({name: model.get_parameter(own).grad.numpy() for name, own in names.items()}, wanted)


def test_lengths_are_packed_sequences_for_nn_rnn(assert_run: Callable[..., None]) -> None:
    ours, theirs = rnn_pair("stacked_bi_rnn", "tanh")
    theirs.load_state_dict(ours.state_dict())
    x, lengths = drawn(B, T, I), torch.tensor([6, 2, 1, 3])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    outputs, final = theirs(packed)
    padded, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
    for found in (ours(x, lengths), (padded, final)):
        assert_run(arrays(outputs=found[0], final=found[1]), ours, x, lengths=lengths)


def test_a_single_bias_has_a_name_of_its_own() -> None:
    names = list(Recurrent(spec_of("bi_rnn")).state_dict())
    assert names == [f"{part}_l0{end}" for end in ("", "_reverse") for part in ("weight_ih", "weight_hh", "bias")]


@pytest.mark.parametrize(
    ("merge", "merged"),
    [("sum", lambda f, b: f + b), ("average", lambda f, b: (f + b) / 2), ("multiply", lambda f, b: f * b)],
)
def test_a_merge_is_what_its_name_says(merge: str, merged: Callable[[Tensor, Tensor], Tensor]) -> None:
    x = drawn(B, T, I)
    forward, backward = Recurrent(spec_of("bi_rnn"), dtype="float64")(x)[0].chunk(2, dim=-1)
    assert torch.equal(Recurrent(spec_of("bi_rnn", merge=merge), dtype="float64")(x)[0], merged(forward, backward))


# Derivatives


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_operator_is_well_formed_for_compilers_and_exporters(masked: bool, reverse: bool) -> None:
    factors = drawn(B, H, seed=3) if masked else None
    p, weight, h0 = (tensor.requires_grad_() for tensor in (drawn(T, B, H), drawn(H, H, seed=1), drawn(B, H, seed=2)))
    mask = torch.arange(T)[:, None] < LENGTHS if masked else None
    torch.library.opcheck(
        _recurrence, (p, weight, None, [h0], mask, factors, "rnn", "tanh", reverse),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )  # fmt: skip


def test_the_operator_of_a_layer_is_well_formed_too() -> None:
    weights = (drawn(2 * H, I, seed=1), drawn(2 * H, seed=2), [drawn(H, H, seed=3), drawn(H, H, seed=4)])
    tensors = [x := drawn(B, T, I), *weights[:2], *weights[2], h0 := drawn(2, B, H, seed=5)]
    for tensor in tensors:
        tensor.requires_grad_()
    torch.library.opcheck(
        _layer, (x, *weights, h0, "tanh"), test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
    )


@pytest.mark.parametrize("sequences", ["full", "holes", "empty_row"])
@pytest.mark.parametrize("head", [None, Head(7, reads="final")], ids=["core", "head"])
def test_a_cell_of_two_gates_and_two_states_is_a_file_and_nothing_else(
    toy_cell: Callable[[str], None], head: Head | None, sequences: str
) -> None:
    toy_cell("torch_impl")
    case = Case(spec_of(bias="double", cell="toy", head=head), B, T, sequences, initial=True)
    for check in ("results", "gradients"):
        outcome = run(BACKEND, item(check, case, "float64"))
        assert outcome.verdict == "passed", outcome.message


def test_the_derivative_of_relu_at_0_is_0() -> None:
    model = Recurrent(spec_of("simple_rnn", nonlinearity="relu", bias="none"))
    x = torch.zeros(1, 2, I, requires_grad=True)
    model(x)[0].sum().backward()
    assert not x.grad.any()


def test_a_second_derivative_is_refused_with_a_message() -> None:
    model = Recurrent(spec_of("simple_rnn"))
    x = drawn(B, T, I, dtype=torch.float32).requires_grad_()
    (first,) = torch.autograd.grad(model(x)[0].sum(), x, create_graph=True)
    with pytest.raises(UnsupportedError, match="differentiated once"):
        first.sum().backward()


def transformed(name: str, f: Callable[[Tensor], Tensor], x: Tensor) -> Any:
    if name == "jvp":
        return torch.func.jvp(f, (x,), (x,))
    if name == "compiled jvp":
        return torch.compile(lambda z: torch.func.jvp(f, (z,), (z,)), backend="eager")(x)
    if name == "linearize":
        return torch.func.linearize(f, x)
    if name == "forward_ad":
        with torch.autograd.forward_ad.dual_level():
            return f(torch.autograd.forward_ad.make_dual(x, x))
    if name == "batched":
        return torch.autograd.functional.jacobian(f, x, vectorize=True)
    if name == "vmap":
        return torch.vmap(f)(x[None])
    return getattr(torch.func, name)(f)(x)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own, of its forward mode
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of torch's compiler
@pytest.mark.parametrize(
    ("name", "message"),
    [("jvp", "jvp or jacfwd"), ("jacfwd", "jvp or jacfwd"), ("hessian", "torch.func"), ("linearize", "forward-mode"),
     ("compiled jvp", "forward-mode"), ("forward_ad", "forward-mode"), ("grad", "func.grad"), ("jacrev", "or jacrev"),
     ("vmap", "those of torch.vmap"), ("batched", "those of torch.vmap")],
)  # fmt: skip
def test_transforms_of_torch_are_refused_by_name(name: str, message: str) -> None:
    model = Recurrent(spec_of("simple_rnn"), dtype="float64")
    torch.compiler.reset()
    with pytest.raises(UnsupportedError, match=message):
        transformed(name, lambda z: model(z)[0].sum(), drawn(B, T, I))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own, of its forward mode
def test_a_derivative_by_the_weights_in_forward_mode_is_refused() -> None:
    model, x = Recurrent(spec_of("simple_rnn"), dtype="float64"), drawn(B, T, I)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for name in weights:
        with pytest.raises(UnsupportedError, match="jvp or jacfwd"):
            torch.func.jvp(
                lambda w, name=name: torch.func.functional_call(model, {**weights, name: w}, (x,))[0],
                (weights[name],), (weights[name],),
            )  # fmt: skip


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own, of its forward mode
def test_a_model_beside_a_transform_runs() -> None:
    model, x = Recurrent(spec_of("simple_rnn"), dtype="float64"), drawn(B, T, I)
    expected = model(x)[0]
    with torch.autograd.forward_ad.dual_level():
        assert torch.equal(model(x)[0], expected)
    assert torch.equal(torch.func.functionalize(model)(x)[0], expected)


# Padding


@pytest.mark.parametrize("arguments", [{"lengths": LENGTHS}, {"mask": torch.arange(T) >= (T - LENGTHS)[:, None]}])
def test_padding_never_reaches_an_output_or_a_gradient(arguments: dict[str, Tensor]) -> None:
    model = Recurrent(spec_of(merge="multiply"), dtype="float64")
    valid = arguments.get("mask", torch.arange(T) < LENGTHS[:, None])
    seen = []
    for padding in (0.0, float("nan")):
        x = torch.where(valid[:, :, None], drawn(B, T, I), padding).requires_grad_()
        outputs, final = model(x, initial_state=drawn(4, B, H, seed=1), **arguments)
        cotangent = torch.where(valid[:, :, None], drawn(B, T, H, seed=2), padding)
        leaves = [x, *model.parameters()]
        gradients = torch.autograd.grad([outputs, final], leaves, [cotangent, drawn(4, B, H, seed=3)])
        assert not outputs[~valid].any() and not gradients[0][~valid].any()
        seen.append([outputs, final, *gradients])
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert torch.equal(seen[0][1][:, 2], drawn(4, B, H, seed=1)[:, 2])  # no valid step: the initial state


def test_any_token_may_stand_in_the_padding() -> None:
    model = SequenceModel(FULL, dtype="float64")
    tokens, context = torch.arange(B * T).reshape(B, T) % 11, drawn(B, 2)
    valid = torch.arange(T) < LENGTHS[:, None]
    expected = model(tokens, LENGTHS, context=context)
    for stranger in (-1, 2**62):
        got = model(torch.where(valid, tokens, stranger), LENGTHS, context=context)
        assert torch.equal(got.scores, expected.scores) and torch.equal(got.final_state, expected.final_state)
    assert not expected.scores[~valid].any()
    (gradient,) = torch.autograd.grad(expected.scores.sum(), model.embedding.weight)
    unused = sorted(set(range(11)) - set(tokens[valid].tolist()))
    assert unused and not gradient[unused].any() and gradient[tokens[0, 0]].any()


def test_a_step_at_a_time_is_the_whole_run(assert_run: Callable[..., None]) -> None:
    for spec in (spec_of("stacked_rnn"), spec_of("stacked_rnn", head=Head(7), context=Context(2))):
        model = BACKEND.build(spec, dtype="float64")
        x, context, found = drawn(B, T, I), drawn(B, 2, seed=2), []
        state = drawn(2, B, H, seed=1) if spec.is_core else model.initial_state(context)
        start = {"initial_state": state} if spec.is_core else {"context": context}
        for t in range(T):
            y, state = model.step(x[:, t], state)
            found.append(y)
        series = {"outputs" if spec.is_core else "scores": torch.stack(found, 1)}
        assert_run(arrays(**series, final=state), model, x, **start)
    with pytest.raises(InputError, match="a single number"):
        model.step(x[0, 0, 0], state)
    with pytest.raises(SpecError, match="reads backward"):
        Recurrent(spec_of("bi_rnn")).step(x[:, 0])
    with pytest.raises(SpecError, match=r"initial_state\(context\)"):
        SequenceModel(spec_of("stacked_rnn", context=Context(2))).step(x[:, 0])


def test_a_context_gives_each_layer_and_direction_its_own_rows(assert_right: Callable[..., None]) -> None:
    model, context = SequenceModel(FULL, dtype="float64"), drawn(B, 2)
    weight, bias = (tensor.detach().numpy() for tensor in (model.context.weight, model.context.bias))
    start = model.initial_state(context)

    def rows(ops: Exact) -> dict[str, np.ndarray]:
        product = ops.product(ops.constant(context.numpy()), ops.constant(weight.T))
        return {f"rows {i}": ops.add(product, ops.constant(bias))[:, :, i * H : (i + 1) * H] for i in range(4)}

    assert_right({f"rows {i}": start[i].detach().numpy() for i in range(4)}, rows)
    tokens = torch.arange(B * T).reshape(B, T) % 11
    assert torch.equal(model(tokens, initial_state=start).scores, model(tokens, context=context).scores)


# A module like any other


def test_building_touches_no_generator_and_draws_the_values_of_the_spec() -> None:
    before = torch.get_rng_state()
    for spec in (spec_of(), FULL):
        model = BACKEND.build(spec, seed=5)
        assert all(np.array_equal(a, b) for a, b in zip(
            BACKEND.to_spec(model).values(), initial_weights(spec, 5).values(), strict=True
        ))  # fmt: skip
    assert torch.equal(torch.get_rng_state(), before)


def test_importing_changes_no_setting_of_torch(fresh_python: Callable[..., CompletedProcess[str]]) -> None:
    code = """
import torch
def settings():
    return [torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision(),
            torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_default_device(),
            torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled, torch.get_rng_state().tolist()]
before = settings()
import rnnzoo.torch_impl
assert settings() == before
"""
    result = fresh_python(code)
    assert result.returncode == 0, result.stderr


def test_copies_and_saved_modules_compute_the_same() -> None:
    model, x = SequenceModel(FULL), torch.arange(B * T).reshape(B, T) % 11
    context = drawn(B, 2, dtype=torch.float32)
    expected = model(x, LENGTHS, context=context).scores
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    fresh = SequenceModel(FULL, seed=9)
    fresh.load_state_dict(model.state_dict())
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False), fresh):
        assert other.spec == FULL and torch.equal(other(x, LENGTHS, context=context).scores, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_computes_in_the_dtype_it_is_converted_to(dtype: torch.dtype) -> None:
    model, x = Recurrent(spec_of()), drawn(B, T, I, dtype=dtype)
    outputs, final = model.to(dtype)(x, LENGTHS)
    outputs.sum().backward()
    assert outputs.dtype == final.dtype == model.weight_hh_l0.grad.dtype == dtype
    weights = {name: p.detach().double().numpy() for name, p in named_parameters(model).items()}
    wanted = results(model.spec, weights, checked_inputs(model.spec, "float64", x.double(), lengths=LENGTHS))
    found = arrays(outputs=outputs.double(), final=final.double())
    for comparison in compared(found, truth(wanted), bounds(wanted, dtype_name(dtype))):
        assert comparison.ratio <= 1 and comparison.decidable, comparison.description()
    if dtype != torch.float64:
        with pytest.raises(WeightError, match="float32"):
            BACKEND.to_spec(model)


@pytest.mark.parametrize("spec", [spec_of(), spec_of(head=Head(7))], ids=["core", "head"])
def test_autocast_leaves_the_precision_of_the_weights(spec: ModelSpec) -> None:
    model, x = BACKEND.build(spec), drawn(B, T, I, dtype=torch.float32)
    expected = model(x)
    gradient = torch.autograd.grad(expected[-1].sum(), model.parameters(), allow_unused=True)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(x)
        assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(got, expected, strict=True))
        assert model(x.bfloat16())[0].dtype == torch.float32
    assert torch.equal(torch.autograd.grad(got[-1].sum(), model.parameters(), allow_unused=True)[1], gradient)


def test_the_recurrence_keeps_its_precision_where_backward_runs_under_autocast() -> None:
    model, x = Recurrent(spec_of("simple_rnn")), drawn(B, T, I, dtype=torch.float32)
    (expected,) = torch.autograd.grad(model(x)[0].sum(), model.weight_hh_l0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(torch.autograd.grad(model(x)[0].sum(), model.weight_hh_l0)[0], expected)


def reloaded(program: torch.export.ExportedProgram) -> Any:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()


def test_an_exported_core_runs_on_other_batch_sizes_and_lengths(assert_run: Callable[..., None]) -> None:
    model, rows, steps = Recurrent(spec_of()), torch.export.Dim("B"), torch.export.Dim("T")
    example = {"lengths": LENGTHS, "initial_state": drawn(4, B, H, dtype=torch.float32)}
    shapes = {"inputs": {0: rows, 1: steps}, "lengths": {0: rows}, "initial_state": {1: rows}}
    x = drawn(B, T, I, dtype=torch.float32)
    program = reloaded(torch.export.export(model, (x,), example, dynamic_shapes=shapes))
    for b, t in ((2, 9), (7, 3)):
        given = (drawn(b, t, I, dtype=torch.float32),)
        options = {"lengths": torch.arange(b) % (t + 1), "initial_state": drawn(4, b, H, dtype=torch.float32)}
        outputs, final = program(*given, **options)
        assert_run(arrays(outputs=outputs, final=final), model, *given, **options)


def test_an_exported_sequence_model_runs_on_other_batch_sizes_and_lengths() -> None:
    model, rows, steps = SequenceModel(FULL), torch.export.Dim("B"), torch.export.Dim("T")
    tokens = torch.arange(B * T).reshape(B, T) % 11
    example = {"mask": tokens > 3, "context": drawn(B, 2, dtype=torch.float32)}
    shapes = {"inputs": {0: rows, 1: steps}, "mask": {0: rows, 1: steps}, "context": {0: rows}}
    program = reloaded(torch.export.export(model, (tokens,), example, dynamic_shapes=shapes))
    tokens = torch.arange(5 * 8).reshape(5, 8) % 11
    options = {"mask": tokens > 3, "context": drawn(5, 2, dtype=torch.float32)}
    assert torch.equal(program(tokens, **options).scores, model(tokens, **options).scores)


def test_a_compiler_sees_the_whole_model_as_one_graph(assert_right: Callable[..., None]) -> None:
    torch.compiler.reset()  # what it could not compile in another test it would leave out in silence
    model = Recurrent(spec_of())
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    x = drawn(B, T, I, dtype=torch.float32).requires_grad_()
    for each, lengths in ((model, LENGTHS), (compiled, LENGTHS), (compiled, torch.full((B,), T))):
        (gradient,) = torch.autograd.grad(each(x, lengths)[0].sum(), x)
        wanted = gradients(model.spec, BACKEND.to_spec(model), *ones(model, x, lengths))
        assert_right({"inputs": gradient.numpy()}, wanted, "float32")
    (gradient,) = torch.autograd.grad(compiled(x)[0].sum(), x)
    assert_right({"inputs": gradient.numpy()}, wanted, "float32")


def ones(model: Recurrent, x: Tensor, lengths: Tensor) -> tuple[Inputs, Cotangents]:
    """Inputs, and the cotangents of the sum of all outputs."""
    given = checked_inputs(model.spec, "float32", x.detach().numpy(), lengths=lengths.numpy())
    return given, Cotangents(np.ones((B, T, model.spec.output_size), np.float32), None, None)


# Training and the seam


def test_run_and_gradients_leave_the_module_as_it_was() -> None:
    model = BACKEND.build(spec_of(head=Head(7)))
    model.head.weight.requires_grad_(False)
    model.train()
    inputs = drawn(B, T, I).numpy()
    with torch.inference_mode():
        found = BACKEND.gradients(model, inputs, scores_cotangent=drawn(B, T, 7).numpy())
    BACKEND.run(model, inputs)
    assert found["head.weight"].any() and found["initial_state"].any()
    assert model.training and not model.head.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("optimizer", [
    SGD(0.1, 0.9, nesterov=True, weight_decay=0.1), SGD(0.1, weight_decay=0.1, decoupled=True), Adam(0.01),
    Adam(0.01, epsilon_place="hat"), Adam(0.01, weight_decay=0.1, decoupled=True), RMSprop(0.01, momentum=0.5),
    RMSprop(0.01, momentum=0.5, centred=True), Adagrad(0.1, initial_accumulator=0.1),
    Adagrad(0.1, 1e-3, epsilon_place="inside"),
])  # fmt: skip
def test_a_trainer_continues_where_one_of_numpy_stopped(
    optimizer: Optimizer, assert_relay: Callable[..., None]
) -> None:
    training = TrainingSpec(CrossEntropy(), optimizer, ClipByGlobalNorm(0.1), WarmUp(2))
    case = Case(spec_of("stacked_rnn", head=Head(7)), B, T, "empty_row", bits=53)
    assert_relay(TrainingCase(case, training, carries=True), ("numpy", "torch", "numpy"))


@pytest.mark.parametrize(
    ("rule", "kind"),
    [(SGD(0.1, 0.9, True, weight_decay=0.1), torch.optim.SGD), (Adam(weight_decay=0.1), torch.optim.Adam),
     (Adam(decoupled=True), torch.optim.AdamW), (RMSprop(), torch.optim.RMSprop), (Adagrad(), torch.optim.Adagrad)],
)  # fmt: skip
def test_an_optimizer_is_torchs_own_where_that_computes_the_rule(rule: Optimizer, kind: type) -> None:
    weights = [nn.Parameter(torch.ones(2))]
    assert type(torch_optimizer(rule, weights)) is kind
    assert type(torch_optimizer(RMSprop(centred=True), weights)) is Written, "torch takes the root of what may be < 0"


def test_a_centred_rmsprop_survives_a_gradient_that_stays_the_same() -> None:
    weight = nn.Parameter(torch.zeros(50))
    optimizer = torch_optimizer(RMSprop(0.01, 0.1, centred=True), [weight])
    for _ in range(30):
        weight.grad = torch.linspace(0.1, 3, 50)
        optimizer.step()
    state = optimizer.state[weight]
    assert (state["square_avg"] < state["grad_avg"] ** 2).any() and weight.isfinite().all()


def test_a_sequence_model_may_be_the_core_alone() -> None:
    model, core = SequenceModel(spec_of(), seed=2), Recurrent(spec_of(), seed=2)
    got, expected = (BACKEND.gradients(m, drawn(B, T, I).numpy(), np.ones((B, T, 2 * H))) for m in (model, core))
    assert list(got) == list(expected) and all(np.array_equal(got[name], expected[name]) for name in got)


def test_a_frozen_weight_is_not_trained() -> None:
    model = BACKEND.build(spec_of(head=Head(7)))
    model.head.weight.requires_grad_(False)
    before = BACKEND.to_spec(model)
    trainer = BACKEND.trainer(model, TrainingSpec(CrossEntropy(), Adam(0.1)))
    trainer.step(Batch(drawn(B, T, I).numpy(), np.zeros((B, T), np.int64)))
    changed = {name for name, array in BACKEND.to_spec(model).items() if not np.array_equal(array, before[name])}
    assert changed == set(before) - {"head.weight"}
    assert not trainer.state()["first_moment.head.weight"].any()


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"inputs": torch.ones(B, T)}, "inputs: expected shape"), ({"inputs": torch.ones(B, 0, I)}, "at least 1"),
     ({"inputs": torch.ones(B, T, I, dtype=torch.int64)}, "floating-point"),
     ({"lengths": LENGTHS, "mask": torch.ones(B, T, dtype=torch.bool)}, "got both"),
     ({"lengths": LENGTHS[:2]}, "lengths: expected 4 integers"), ({"lengths": LENGTHS / 1.0}, "float32"),
     ({"mask": torch.ones(B, T)}, "mask: expected bool"),
     ({"initial_state": torch.ones(4, 1, H)}, r"shape \(4, 4, 5\)"),
     ({"initial_state": {"c": torch.ones(4, B, H)}}, "expected the states 'h', got 'c'")],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recurrent(spec_of())(**{"inputs": torch.ones(B, T, I), **arguments})


def test_the_parts_around_the_core_are_checked_as_well() -> None:
    model, tokens, context = SequenceModel(FULL), torch.zeros(B, T, dtype=torch.int64), torch.ones(B, 2)
    for arguments, message in (
        ((tokens,), "exactly one of them"), ((tokens / 1.0, None, None, None, context), "integer tokens"),
        ((tokens, None, None, None, torch.ones(B, 3)), r"context: expected shape \(B, 2\)"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            model(*arguments)
    with pytest.raises(InputError, match="this model has none"):
        SequenceModel(spec_of())(torch.ones(B, T, I), context=context)
    with pytest.raises(SpecError, match="use SequenceModel"):
        Recurrent(FULL)
    with pytest.raises(WeightError, match="bfloat16"):
        Recurrent(spec_of(), dtype=torch.bfloat16)


def test_numpy_arrays_are_to_be_made_tensors() -> None:
    core, model = Recurrent(spec_of("simple_rnn")), SequenceModel(spec_of("simple_rnn", context=Context(2)))
    x, array = torch.ones(B, T, I), np.ones((B, T, I), np.float32)
    start = torch.ones(1, B, H)
    for name, call in (
        ("inputs", lambda: core(array)), ("inputs", lambda: model(array, initial_state=start)),
        ("step inputs", lambda: core.step(array[:, 0])), ("step inputs", lambda: model.step(array[:, 0], start)),
        ("mask", lambda: core(x, mask=np.ones((B, T), np.bool_))),
        ("initial_state h", lambda: core(x, initial_state=start.numpy())),
        ("context", lambda: model(x, context=np.ones((B, 2), np.float32))),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"^{name}: expected a torch tensor, got ndarray; .*torch.from_numpy"):
            call()


def test_weights_from_read_only_and_strided_arrays_load_without_a_warning() -> None:
    model = Recurrent(spec_of())
    weights = {name: np.flip(np.flip(array).copy()) for name, array in initial_weights(model.spec, 8).items()}
    for array in weights.values():
        array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BACKEND.from_spec(model, weights)
    assert all(np.array_equal(array, weights[name]) for name, array in BACKEND.to_spec(model).items())
