"""The vectors for other languages: whole, right, the same bits again, and useful to somebody without this package."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rnnzoo.conformance import vector_set
from rnnzoo.conformance.precision import PRECISIONS
from rnnzoo.conformance.training import TrainingCase
from rnnzoo.conformance.vector_set import FOLDER, files, lint, vector_cases
from rnnzoo.spec import Batch, ModelSpec, TrainingSpec, load_backend
from rnnzoo.spec.definitions import BIASES
from rnnzoo.spec.model import NONLINEARITIES

NAMES = [path.stem for path in sorted(FOLDER.glob("*-*.json"))]


def _read(name: str):
    return json.loads((FOLDER / f"{name}.json").read_text()), safetensors.numpy.load_file(
        FOLDER / f"{name}.safetensors"
    )


def _given(arrays: dict[str, np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
    names = ("lengths", "mask", "initial_state", "context")
    return {name: arrays[prefix + name] for name in names if prefix + name in arrays}


def _check(found: dict[str, np.ndarray], arrays: dict[str, np.ndarray], prefix: str, dtype: str) -> None:
    wanted = {name for name in arrays if name.startswith(f"expected.{prefix}")}
    wanted = {name.removeprefix("expected.") for name in wanted if prefix or not name.startswith("expected.gradient.")}
    assert {prefix + name for name in found} == wanted
    for name, got in found.items():
        error = np.abs(np.asarray(got, np.float64) - arrays[f"expected.{prefix}{name}"])
        assert np.all(error <= arrays[f"allowed.{dtype}.{prefix}{name}"]), name


def test_the_folder_holds_every_case_and_nothing_else():
    expected = {f"{case.name}.{suffix}" for case in vector_cases() for suffix in ("json", "safetensors")}
    assert {path.name for path in FOLDER.glob("*-*.*")} == expected
    assert {json.loads((FOLDER / f"{name}.json").read_text())["clause"] for name in NAMES} >= {"3 step", "12 training"}


def test_the_linter_finds_nothing():
    assert lint() == []


def test_all_files_together_stay_below_five_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5e6


@pytest.mark.parametrize("case", vector_cases()[1:4], ids=lambda case: case.name)
def test_cases_are_written_with_the_same_bits_again(case):
    for name, data in files(case).items():
        assert (FOLDER / name).read_bytes() == data, name


@pytest.mark.long
def test_all_cases_are_written_with_the_same_bits_again(tmp_path: Path):
    vector_set.write(tmp_path)
    for path in FOLDER.glob("*-*.*"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_a_backend_conforms_by_the_files_alone(name: str, dtype: str):
    """As an implementer would use them, with nothing of the suite."""
    data, arrays = _read(name)
    backend = load_backend("numpy")
    spec = ModelSpec.from_data(data["spec"])
    model = backend.build(spec, dtype=dtype)
    weights = {key: arrays[key].astype(dtype) for key in backend.to_spec(model)}
    backend.from_spec(model, weights)
    if "training" in data:
        return _check(_trained(backend, model, data, arrays), arrays, "", dtype)
    _check(backend.run(model, arrays["inputs"], **_given(arrays)).arrays(), arrays, "", dtype)
    cotangents = [arrays.get(f"cotangent.{key}") for key in ("outputs", "final_state.h", "scores")]
    _check(backend.gradients(model, arrays["inputs"], *cotangents, **_given(arrays)), arrays, "gradient.", dtype)
    return None


def _trained(backend, model, data, arrays) -> dict[str, np.ndarray]:
    trainer = backend.trainer(model, TrainingSpec.from_data(data["training"]))
    steps = []
    for step, continues in enumerate(data["continues"]):
        given = {key: arrays[f"batch.{step}.{key}"] for key in ("inputs", "targets")} | _given(arrays, f"batch.{step}.")
        steps.append(trainer.step(Batch(**given, continues=continues)))
    found = {"loss": np.array([s.loss for s in steps]), "gradient norm": np.array([s.gradient_norm for s in steps])}
    return found | backend.to_spec(model) | trainer.state()


def test_every_precision_has_its_allowed_errors_and_coarser_ones_allow_more():
    for name in NAMES:
        arrays = _read(name)[1]
        for key in [key.removeprefix("expected.") for key in arrays if key.startswith("expected.")]:
            given = [arrays.get(f"allowed.{dtype}.{key}", np.array(np.inf)) for dtype in PRECISIONS]
            order = [array.max(initial=0) for array in given]
            assert order[0] <= order[1] <= min(order[2:]), (name, key)  # of the other two, each has less of something


def test_training_is_among_the_cases():
    assert sum(isinstance(case, TrainingCase) for case in vector_cases()) >= 5


def test_one_forward_layer_alone_is_there_with_each_nonlinearity_and_bias_from_zeros_and_from_a_state():
    found = set()
    for name in NAMES:
        data, arrays = _read(name)
        around = [data["spec"][part] for part in ("head", "embedding", "context", "dropout") if data["spec"].get(part)]
        if data["spec"]["variant"] == "simple_rnn" and not around and not {"lengths", "mask"} & set(arrays):
            found.add((data["spec"]["nonlinearity"], data["spec"]["bias"], "initial_state" in arrays))
    assert found == set(itertools.product(NONLINEARITIES, BIASES, (False, True)))


@pytest.mark.parametrize(("damage", "message"), [
    (lambda data, arrays: data.pop("clause"), "clause"),
    (lambda data, arrays: data.update(surplus=1), "surplus"),
    (lambda data, arrays: arrays.pop("allowed.float32.outputs"), "allowed.float32.outputs"),
    (lambda data, arrays: arrays["allowed.float16.outputs"].fill(9), "below the largest"),
    (lambda data, arrays: arrays["layers.0.forward.bias"].fill(0.1), "8 bits"),
    (lambda data, arrays: arrays["layers.0.forward.bias"].fill(2.0**-20), "smallest normal"),
    (lambda data, arrays: arrays["allowed.float32.outputs"].fill(-1), "at least 0"),
])  # fmt: skip
def test_the_linter_sees_damage(tmp_path: Path, damage, message: str):
    name = next(name for name in NAMES if name.startswith("bi_rnn-tanh-single"))
    data, arrays = _read(name)
    damage(data, arrays)
    (tmp_path / f"{name}.json").write_text(json.dumps(data))
    safetensors.numpy.save_file(arrays, tmp_path / f"{name}.safetensors")
    assert any(message in problem for problem in lint(tmp_path))


def test_the_readme_example_runs_without_this_package(root: Path):
    text = (FOLDER / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    network = """
import numpy as np
def my_network(spec, arrays):
    name, h, found = "layers.0.forward.", 0, []
    W, U = (arrays[name + key].astype(np.float32) for key in ("input_weight", "recurrent_weight"))
    for x in np.moveaxis(arrays["inputs"].astype(np.float32), 1, 0):
        h = np.tanh(x @ W.T + h @ U.T if found else x @ W.T)
        found.append(h)
    return np.stack(found, 1)
"""
    checked = f"{network}{code}\nimport sys\nassert not [name for name in sys.modules if name.startswith('rnnzoo')]"
    done = subprocess.run([sys.executable, "-P", "-c", checked], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
