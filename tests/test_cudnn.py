"""The call that on a GPU runs cuDNN, on the CPU: the same code, the same kernels of torch, the choice forced."""

from typing import Any

import pytest
import torch

from rnnzoo.conformance.cases import Case
from rnnzoo.conformance.items import item
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.training import training_cases
from rnnzoo.spec import Dropout, ModelSpec, load_backend
from rnnzoo.spec.errors import UnsupportedError
from rnnzoo.torch_impl import Recurrent, cudnn

B, T, I, H = 4, 13, 3, 5  # noqa: E741 (the spec's symbol)
BACKEND = load_backend("torch")


def case(variant: str, sequences: str, **options: Any) -> Case:
    return Case(ModelSpec(variant, I, H, 2 if "stacked" in variant else 1, **options), B, T, sequences, True)


TAKEN = [
    case("simple_rnn", "full"),
    case("bi_rnn", "nan_padding", bias="none"),
    case("stacked_rnn", "lengths", nonlinearity="relu"),
    case("stacked_bi_rnn", "empty_row", bias="double"),
    case("stacked_bi_rnn", "full", bias="double", nonlinearity="relu"),
]
LEFT = [
    case("simple_rnn", "left_padding"),
    case("stacked_bi_rnn", "holes"),
    case("simple_rnn", "full", nonlinearity="sigmoid"),
    case("bi_rnn", "lengths", merge="sum"),
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of layers and directions of each call, where every tensor is as on a GPU."""
    found, layers = [], cudnn.layers

    def noted(x: Any, weights: Any, *arguments: Any) -> Any:
        found.append(len(weights))
        return layers(x, weights, *arguments)

    monkeypatch.setattr(cudnn, "at_hand", lambda x: True)
    monkeypatch.setattr(cudnn, "layers", noted)
    return found


def assert_right(case: Case, dtype: str, backend: Any = BACKEND) -> None:
    for check in ("results", "gradients"):
        outcome = run(backend, item(check, case, dtype))
        assert outcome.verdict == "passed", outcome.message


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.name)
def test_what_cudnn_has_is_one_call_and_right(case: Case, dtype: str, calls: list[int]) -> None:
    assert_right(case, dtype)
    assert set(calls) == {case.spec.num_layers * case.spec.num_directions}


@pytest.mark.parametrize("case", LEFT, ids=lambda case: case.name)
def test_what_it_has_not_is_run_by_the_other_loops(case: Case, calls: list[int]) -> None:
    assert_right(case, "float64")
    assert not calls


def test_layers_between_which_units_are_dropped_are_a_call_each(calls: list[int]) -> None:
    dropping = [case for case in training_cases() if case.case.spec.dropout == Dropout(between_layers=0.5)]
    for each in dropping:
        outcome = run(BACKEND, item("training", each, "float64"))
        assert outcome.verdict == "passed", outcome.message
    assert dropping and set(calls) == {1}


def test_a_tensor_on_the_cpu_is_not_for_cudnn() -> None:
    assert not cudnn.at_hand(torch.zeros(1))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own, of its forward mode
def test_a_derivative_in_forward_mode_is_refused_here_too(calls: list[int]) -> None:
    model, x = Recurrent(ModelSpec("simple_rnn", I, H)), torch.zeros(B, T, I)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(UnsupportedError, match="forward-mode"):
        model(torch.autograd.forward_ad.make_dual(x, x))


def test_gradients_are_had_in_eval_mode_too(calls: list[int]) -> None:
    model = Recurrent(ModelSpec("simple_rnn", I, H)).eval()
    model(torch.ones(B, T, I))[0].sum().backward()
    assert calls == [1] and model.weight_hh_l0.grad.any()


def test_float32_is_float32_inside_and_afterwards_what_it_was() -> None:
    settings: Any = (torch.backends.cudnn.rnn, torch.backends.cuda.matmul)
    before = [each.fp32_precision for each in settings]
    with pytest.raises(KeyError), cudnn.without_tf32(torch.device("cuda")):
        assert [each.fp32_precision for each in settings] == ["ieee", "ieee"]
        raise KeyError
    assert [each.fp32_precision for each in settings] == before


class OnGpu:
    """The backend, whose models are on a GPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(BACKEND, name)

    def build(self, *arguments: Any, **options: Any) -> Any:
        return BACKEND.build(*arguments, **options).to("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [*TAKEN, *LEFT], ids=lambda case: case.name)
def test_a_model_on_a_gpu_is_right(case: Case, dtype: str) -> None:
    assert_right(case, dtype, OnGpu())
