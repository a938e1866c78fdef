"""torch: the products alone, `torch.nn.RNN`, and the module of this package."""

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from ...spec.backend import load_backend
from ...spec.errors import InputError
from ...spec.model import Head
from ...spec.optimizers import SGD
from ...spec.training import Batch, CrossEntropy, TrainingSpec
from ..problem import Problem
from . import Timed


def check_device(name: str) -> None:
    """Raises InputError unless the device is here."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"--device: expected cpu, or a device that torch has here, got {name!r}: {reason}") from error


def floor(problem: Problem) -> Timed:
    """The products that no implementation can avoid, each into memory that is there."""
    B, T, H = problem.B, problem.T, problem.H
    x = torch.from_numpy(problem.inputs()).reshape(T * B, -1)
    d_a = torch.from_numpy(problem.d_outputs()).reshape(T, B, H)
    W_x, W_h, _ = map(torch.from_numpy, problem.weights().values())
    p, h, d_x = torch.empty(T * B, H), torch.zeros(T, B, H), torch.empty_like(x)
    to_p, to_q = W_x.t().contiguous(), W_h.t().contiguous()
    q, d_W_x, d_W_h = torch.empty(B, H), torch.empty_like(W_x), torch.empty_like(W_h)

    @torch.inference_mode()
    def f() -> None:
        torch.mm(x, to_p, out=p)
        for h_t in h.unbind(0):
            torch.mm(h_t, to_q, out=q)

    @torch.inference_mode()
    def fb() -> None:
        f()
        for d in d_a.unbind(0):
            torch.mm(d, W_h, out=q)
        flat = d_a.view(-1, H)
        torch.mm(flat.t(), x, out=d_W_x)
        torch.mm(flat.t(), h.view(-1, H), out=d_W_h)
        torch.mm(flat, W_x, out=d_x)

    return {"f": f, "fb": fb}


def native(problem: Problem) -> Timed:
    """`torch.nn.RNN`, batch-first; lengths as a packed sequence."""
    layers = torch.nn.RNN(problem.I, problem.H, problem.L, batch_first=True, bidirectional=problem.D == 2)
    lengths = problem.lengths()

    def call(x: Any) -> Any:
        if lengths is None:
            return layers(x)[0]
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.from_numpy(lengths), True, enforce_sorted=False)
        return torch.nn.utils.rnn.pad_packed_sequence(layers(packed)[0], batch_first=True, total_length=problem.T)[0]

    return _timed(problem, layers, call)


def ours(problem: Problem) -> Timed:
    """`Recurrent`, as in anybody's model."""
    layers = load_backend("torch").build(problem.spec)
    lengths = problem.lengths()
    given = None if lengths is None else torch.from_numpy(lengths).to(problem.device)
    return _timed(problem, layers, lambda x: layers(x, lengths=given)[0])


def _timed(problem: Problem, layers: Any, call: Any) -> Timed:
    layers.to(problem.device)
    x, d_y = (torch.from_numpy(a).to(problem.device) for a in (problem.inputs(), problem.d_outputs()))
    leaf = x.clone().requires_grad_()
    leaves = [leaf, *layers.parameters()]

    @torch.inference_mode()
    def f() -> None:
        call(x)
        _wait(x)

    def fb() -> None:
        torch.autograd.grad(call(leaf), leaves, d_y)
        _wait(x)

    return {"f": f, "fb": fb}


def _wait(x: torch.Tensor) -> None:
    """Until a GPU has done what it was told."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def memory(problem: Problem, *, recompute: bool = False) -> int:
    """The peak in bytes of a call and its gradients beyond inputs, cotangents, weights and gradients."""
    layers = load_backend("torch").build(problem.spec, recompute=recompute)
    x, d_y, lengths = torch.from_numpy(problem.inputs()).requires_grad_(), problem.d_outputs(), problem.lengths()
    given = None if lengths is None else torch.from_numpy(lengths)
    leaves, d_outputs = [x, *layers.parameters()], torch.from_numpy(d_y)
    peak, found = _peak(lambda: torch.autograd.grad(layers(x, lengths=given)[0], leaves, d_outputs))
    return peak - sum(gradient.nbytes for gradient in found)


def memory_of_update(problem: Problem, *, recompute: bool = False) -> int:
    """The peak in bytes of an update of the layers below a head of four scores, gradients and the batch included."""
    backend, spec = load_backend("torch"), replace(problem.spec, head=Head(4))
    trainer = backend.trainer(backend.build(spec, recompute=recompute), TrainingSpec(CrossEntropy(), SGD(0.1)))
    batch = Batch(problem.inputs(), np.zeros((problem.B, problem.T), np.int64))
    return _peak(lambda: trainer.step(batch))[0]


def _peak(call: Callable[[], Any]) -> tuple[int, Any]:
    """The most bytes that a call has allocated and not freed, and what it gives."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        found = call()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))), found
