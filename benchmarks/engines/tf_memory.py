"""Memory of TensorFlow, which tells none of its allocations on a CPU: the peak of a process, which frees none of it."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np

from ...spec.backend import load_backend
from ...spec.model import Head
from ...spec.optimizers import SGD
from ...spec.training import Batch, CrossEntropy, TrainingSpec
from ..problem import Problem
from ..timing import environment

WARM_UP = 20  # of so many times fewer steps, after which all code is loaded and XLA has compiled


def memory_of_update(problem: Problem, *, recompute: bool = False) -> int:
    """The peak in bytes of an update of the layers below a head of four scores, in a process of its own."""
    command = [sys.executable, "-P", "-m", __name__, json.dumps([asdict(problem), recompute])]
    found = subprocess.run(command, env=environment(1), check=True, text=True, capture_output=True)
    return int(found.stdout)


def _growth(problem: Problem, recompute: bool) -> int:
    """By how much a few updates lift the peak of this process over that of short ones."""
    backend, spec = load_backend("tf"), replace(problem.spec, head=Head(4))
    trainer = backend.trainer(backend.build(spec, recompute=recompute), TrainingSpec(CrossEntropy(), SGD(0.1)))
    short, whole = (_batch(problem.changed(T=steps)) for steps in (problem.T // WARM_UP, problem.T))
    peaks = []
    for batch in (short, whole):
        for _ in range(2):
            trainer.step(batch)
        peaks.append(_peak())
    return peaks[1] - peaks[0]


def _batch(problem: Problem) -> Batch:
    return Batch(problem.inputs(), np.zeros((problem.B, problem.T), np.int64))


def _peak() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024


if __name__ == "__main__":
    given, recompute = json.loads(sys.argv[1])
    print(_growth(Problem(**given), recompute))
