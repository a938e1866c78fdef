"""The README's programs that train on two devices equal one device with the whole batch, as nearly as rounding lets."""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.conformance.descent import descent
from rnnzoo.spec import load_backend
from rnnzoo.spec.inputs import Inputs
from rnnzoo.spec.optimizers import Adam
from rnnzoo.spec.parameters import initial_weights
from rnnzoo.spec.training import Batch, CrossEntropy, TrainingSpec

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PROGRAMS = {
    name: next(text for text in re.findall(r"^```python\n(.*?)^```", README, re.M | re.S) if word in text)
    for name, word in (("torch", "DistributedDataParallel"), ("tf", "MirroredStrategy"))
}
UPDATES, TRAINING = 10, TrainingSpec(CrossEntropy("mean"), Adam(0.01))


def _trained(name: str, folder: Path, program: str) -> tuple[Any, dict[str, Any]]:
    """The model that a program trained and wrote, and the program's own names."""
    path = folder / "program.py"
    path.write_text(program)
    command = [sys.executable, "-P", str(path)]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = runpy.run_path(str(path))
    model = load_backend(name).build(names["SPEC"], dtype="float64")
    if name == "torch":
        model.load_state_dict(torch.load(folder / "parallel.pt", weights_only=True))
    else:
        model.load_weights(folder / "parallel.weights.h5")
    return model, names


def _batch(names: dict[str, Any]) -> Batch:
    inputs, targets, lengths = (np.asarray(names[part]) for part in ("INPUTS", "TARGETS", "LENGTHS"))
    return Batch(inputs, targets, lengths=lengths)


def _on_one_device(names: dict[str, Any]) -> Callable[[Exact], dict[str, Any]]:
    """The weights after the updates of the whole batch."""
    batch, spec = _batch(names), names["SPEC"]
    understood = Inputs(batch.inputs, np.arange(batch.inputs.shape[1]) < batch.lengths[:, None], None, None)
    updates = [[(batch, understood)]] * UPDATES
    weights = initial_weights(spec, 0, "float64")

    def computed(ops: Exact) -> dict[str, Any]:
        *_, last = descent(spec, TRAINING, weights, updates, ops)
        return {name: last[name] for name in weights}

    return computed


@pytest.mark.parametrize("name", PROGRAMS)
def test_two_devices_train_as_one_with_the_whole_batch(name: str, tmp_path: Path, assert_right: Callable[..., None]):
    model, names = _trained(name, tmp_path, PROGRAMS[name])
    backend, expected = load_backend(name), _on_one_device(names)
    assert_right(backend.to_spec(model), expected)
    alone = backend.build(names["SPEC"], seed=0, dtype="float64")
    trainer = backend.trainer(alone, TRAINING)
    for _ in range(UPDATES):
        trainer.step(_batch(names))
    assert_right(backend.to_spec(alone), expected)
