"""Our trainers beside the frameworks' own: a loop of torch.nn.RNN and torch.optim by hand, and Keras' fit."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch import nn

from rnnzoo.conformance.bounds import Bounds, Truth, bounds, truth
from rnnzoo.conformance.comparison import compared
from rnnzoo.conformance.trajectories import Trajectory, quantities
from rnnzoo.spec import load_backend
from rnnzoo.spec.errors import InputError
from rnnzoo.spec.optimizers import SGD, Adagrad, Adam, Optimizer
from rnnzoo.tf_impl import EncoderDecoder, SequenceModel, optimizers

UPDATES = 12
Found = list[dict[str, Any]]


def _assert_alike(case: Trajectory, *runs: Found) -> None:
    """Loss and weights after every update, or after the last alone, are those of the exact run."""
    expected, limits = _exact(case)
    for run in runs:
        first = UPDATES - len(run)
        found = {name: np.stack([np.asarray(step[name]) for step in run]) for name in run[0]}
        wanted = {name: Truth(*(part[first:] for part in expected[name])) for name in found}
        allowed = Bounds({name: limits.allowed[name][first:] for name in found}, limits.gains, 0)
        for comparison in compared(found, wanted, allowed):
            assert comparison.ratio <= 1 and comparison.decidable, comparison.description()


def _exact(case: Trajectory) -> tuple[Mapping[str, Truth], Bounds]:
    return truth(lambda ops: quantities(case, ops)), bounds(lambda ops: quantities(case, ops), "float64")


def _ours(name: str, case: Trajectory) -> Found:
    backend = load_backend(name)
    model = backend.build(case.spec, dtype="float64")
    backend.from_spec(model, case.weights)
    trainer = backend.trainer(model, case.training)
    return [{"loss": trainer.step(batch).loss} | backend.to_spec(model) for batch in case.batches]


def _by_hand(case: Trajectory, optimizer: Callable[[Any], torch.optim.Optimizer]) -> Found:
    """What somebody writes who has torch alone."""
    spec, directions = case.spec, case.spec.num_directions
    rnn = nn.RNN(
        spec.input_size, spec.hidden_size, spec.num_layers,
        batch_first=True, bidirectional=directions == 2, dtype=torch.float64,
    )  # fmt: skip
    head = nn.Linear(directions * spec.hidden_size, spec.head.size, dtype=torch.float64)
    named = {f"head.{name}": parameter for name, parameter in head.named_parameters()}
    torch_names = {"input_weight": "weight_ih", "recurrent_weight": "weight_hh"}
    torch_names |= {"input_bias": "bias_ih", "recurrent_bias": "bias_hh"}
    for layer in range(spec.num_layers):
        for direction, ending in (("forward", ""), ("backward", "_reverse"))[:directions]:
            for ours, theirs in torch_names.items():
                named[f"layers.{layer}.{direction}.{ours}"] = getattr(rnn, f"{theirs}_l{layer}{ending}")
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(case.weights[name]))
    rule, found = optimizer(named.values()), []
    for batch in case.batches:
        _, final = rnn(torch.from_numpy(batch.inputs))
        scores = head(torch.cat(list(final[-directions:]), dim=1))
        targets = torch.from_numpy(batch.targets)
        loss = (
            nn.functional.cross_entropy(scores, targets)
            if case.task == "digits"
            else nn.functional.mse_loss(scores, targets)
        )
        rule.zero_grad()
        loss.backward()
        rule.step()
        found.append({"loss": loss.item()} | {name: p.detach().numpy().copy() for name, p in named.items()})
    return found


@pytest.mark.parametrize(("task", "variant", "rule", "optimizer"), [
    ("digits", "bi_rnn", SGD(0.05, 0.9), lambda p: torch.optim.SGD(p, 0.05, 0.9)),
    ("digits", "stacked_rnn", Adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
    ("forecast", "bi_rnn", Adagrad(0.1), lambda p: torch.optim.Adagrad(p, 0.1)),
    ("forecast", "stacked_rnn", SGD(0.05), lambda p: torch.optim.SGD(p, 0.05)),
])  # fmt: skip
def test_a_loop_of_torchs_own_parts_trains_as_ours_does(task: str, variant: str, rule: Optimizer, optimizer: Any):
    case = Trajectory(task, variant, rule, updates=UPDATES)
    _assert_alike(case, _by_hand(case, optimizer), _ours("torch", case))


@pytest.mark.parametrize(("variant", "rule", "optimizer"), [
    ("simple_rnn", SGD(0.05, 0.9, nesterov=True), lambda: optimizers.SGD(0.05, 0.9, nesterov=True)),
    ("bi_rnn", Adam(0.01), lambda: optimizers.Adam(0.01)),
    ("stacked_rnn", Adagrad(0.1), lambda: optimizers.Adagrad(0.1)),
])  # fmt: skip
def test_fit_trains_as_our_loop_does(variant: str, rule: Optimizer, optimizer: Callable[[], Any]):
    case = Trajectory("digits", variant, rule, updates=UPDATES)
    model, backend = SequenceModel(case.spec, dtype="float64"), load_backend("tf")
    backend.from_spec(model, case.weights)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    model.compile(optimizer=optimizer(), loss=loss, jit_compile=False)
    inputs, targets = (
        np.concatenate([getattr(batch, part) for batch in case.batches]) for part in ("inputs", "targets")
    )
    model.fit(inputs, targets, batch_size=case.rows, shuffle=False, verbose=0)
    _assert_alike(case, [backend.to_spec(model)], _ours("tf", case))


def test_fit_trains_an_encoder_and_its_decoder_as_our_loop_does():
    case = Trajectory("translate", "bi_rnn", Adam(0.01), updates=UPDATES)
    model, backend = EncoderDecoder(case.spec, dtype="float64"), load_backend("tf")
    backend.from_spec(model, case.weights)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    model.compile(optimizer=optimizers.Adam(0.01), loss=loss, jit_compile=False)
    sources = [batch.context for batch in case.batches]
    longest = max(source.inputs.shape[1] for source in sources)
    padded = [np.pad(source.inputs, ((0, 0), (0, longest - source.inputs.shape[1]))) for source in sources]
    inputs = {
        "inputs": np.concatenate([batch.inputs for batch in case.batches]),
        "source": np.concatenate(padded),
        "source_lengths": np.concatenate([source.lengths for source in sources]),
    }
    targets = np.concatenate([batch.targets for batch in case.batches])
    model.fit(inputs, targets, batch_size=case.rows, shuffle=False, verbose=0)
    _assert_alike(case, [backend.to_spec(model)], _ours("tf", case))
    scores = model.predict(inputs, verbose=0)
    assert scores.shape == (*targets.shape, case.spec.head.size)
    with pytest.raises(InputError, match=r"expected a dict of 'inputs', 'source' .*, got 'inputs'"):
        model({"inputs": inputs["inputs"]})
