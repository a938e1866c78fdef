"""What all tasks share: settings, refusals, a checkpoint's way back to its data, and what importing them loads."""

import importlib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from rnnzoo.conformance.arithmetic import Exact
from rnnzoo.spec import SGD, Contents, ModelSpec, TrainingSpec, initial_weights, load_backend
from rnnzoo.spec.errors import BackendError, FileError, InputError, SpecError, WeightError
from rnnzoo.tasks.configs import SCHEMAS, register
from rnnzoo.tasks.evaluate import evaluate
from rnnzoo.tasks.task import TASKS, load_task, log_softmax, model_spec, task_of

FIELDS = {"variant": "bi_rnn", "hidden_size": 5}


def digits_contents(**provenance: Any) -> Contents:
    task = load_task({"name": "digits"})
    spec = model_spec(task, FIELDS)
    return Contents(spec, initial_weights(spec, 3), {"task": task.settings(), **provenance})


def test_a_task_is_made_again_from_its_settings() -> None:
    for name in TASKS:
        task = load_task({"name": name})
        again = load_task(task.settings())
        assert again.settings() == task.settings() and again.parts == task.parts


def test_an_unknown_task_or_setting_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"'char_lm', .*'digits', .*got 'poetry'"):
        load_task({"name": "poetry"})
    with pytest.raises(SpecError, match=r"digits: no setting 'text'; known are 'data'"):
        load_task({"name": "digits", "text": "x"})


def test_a_model_takes_its_sizes_from_the_task_and_the_rest_from_the_config() -> None:
    spec = model_spec(load_task({"name": "digits"}), {**FIELDS, "merge": "sum", "initializer": "irnn"})
    assert (spec.input_size, spec.hidden_size, spec.merge) == (8, 5, "sum")
    assert spec.head is not None and (spec.head.size, spec.head.reads) == (10, "final")


SEE_THEIR_TARGET = {"char_lm": "characters", "onu_sleep": "traffic", "captioning": "words"}  # reading backward


@pytest.mark.parametrize("name", TASKS)
def test_every_task_takes_every_variant_but_those_that_would_see_their_target(name: str) -> None:
    task, backend = load_task({"name": name}), load_backend("numpy")
    batch = next(task.epoch(1, 2, 0))
    for variant in ("simple_rnn", "bi_rnn", "stacked_rnn", "stacked_bi_rnn"):
        fields = {"variant": variant, "hidden_size": 3, "num_layers": 2 if "stacked" in variant else 1}
        if "bi_rnn" in variant and name in SEE_THEIR_TARGET:
            reason = f"{name}: {variant} reads backward.*sees the {SEE_THEIR_TARGET[name]}.*take simple_rnn or stacked"
            with pytest.raises(SpecError, match=reason):
                model_spec(task, fields)
        else:
            model = backend.build(model_spec(task, fields))
            assert np.isfinite(backend.trainer(model, TrainingSpec(task.loss, SGD(0.1))).step(batch).loss)


def test_every_task_has_a_config_whose_settings_it_takes() -> None:
    register([])
    for name in TASKS:
        config = OmegaConf.to_container(ConfigStore.instance().load(f"{SCHEMAS}/{name}.yaml").node)
        assert isinstance(config, dict)
        config.pop("suggested")
        assert load_task(config).name == name


def test_evaluation_finds_the_task_in_the_provenance() -> None:
    evaluation = evaluate(digits_contents(), "numpy")
    assert evaluation.value == evaluation.metrics["accuracy"] < 0.5
    assert evaluation.predictions.shape == (359,)
    assert "accuracy" in evaluation.text() and "359 predictions" in evaluation.text()


def test_a_file_without_a_task_cannot_be_evaluated() -> None:
    contents = digits_contents()._replace(provenance={})
    with pytest.raises(FileError, match="expected a model that 'rnnzoo train' wrote, got one whose file names no task"):
        evaluate(contents, "numpy")


def test_data_that_changed_since_the_training_are_refused() -> None:
    contents = digits_contents()
    changed = {**contents.provenance["task"], "sha256": "0" * 64}
    with pytest.raises(FileError, match=r"SHA-256 000000000000\.\.\., got"):
        task_of(contents._replace(provenance={"task": changed}), {})


def test_other_data_of_another_width_do_not_fit_the_model(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, inputs=np.ones((6, 4, 3)), targets=np.arange(6))
    with pytest.raises(
        InputError, match=r"want ModelParts\(input_size=3, .* has ModelParts\(input_size=8, .*data=PATH"
    ):
        evaluate(digits_contents(), "numpy", data=str(path))


def test_other_data_may_lack_classes_of_the_model_but_not_have_more(tmp_path: Path) -> None:
    for classes in (9, 10):
        np.savez(tmp_path / f"{classes}.npz", inputs=np.ones((12, 4, 8)), targets=np.arange(12) % classes)
        assert len(evaluate(digits_contents(), "numpy", data=str(tmp_path / f"{classes}.npz")).predictions) == 2
    np.savez(tmp_path / "11.npz", inputs=np.ones((12, 4, 8)), targets=np.arange(12) % 11)
    with pytest.raises(InputError, match=r"want .*Head\(size=11.*has .*Head\(size=10"):
        evaluate(digits_contents(), "numpy", data=str(tmp_path / "11.npz"))


def test_a_model_without_a_head_cannot_be_evaluated() -> None:
    spec = ModelSpec("bi_rnn", 8, 5)
    with pytest.raises(InputError, match="the model has no head"):
        evaluate(digits_contents()._replace(spec=spec, weights=initial_weights(spec, 0)), "numpy")


def test_a_trained_model_takes_other_data_and_no_other_setting() -> None:
    for unknown in ({"text": "x"}, {"sha": "0"}, {"name": "char_lm"}):
        with pytest.raises(SpecError, match=r"task digits: .* no override '\w+'; known are 'data', 'sha256'"):
            evaluate(digits_contents(), "numpy", **unknown)  # type: ignore[arg-type]


def test_data_that_moved_are_named_anew(tmp_path: Path) -> None:
    np.savez(tmp_path / "old.npz", inputs=np.random.default_rng(2).normal(size=(9, 4, 8)), targets=np.arange(9))
    task = load_task({"name": "digits", "data": str(tmp_path / "old.npz")})
    spec = model_spec(task, FIELDS)
    contents = Contents(spec, initial_weights(spec, 3), {"task": task.settings()})
    before = evaluate(contents, "numpy")
    (tmp_path / "old.npz").rename(tmp_path / "new.npz")
    with pytest.raises(FileError, match=r"old\.npz: no such file; .*'rnnzoo evaluate FILE data=PATH'"):
        evaluate(contents, "numpy")
    recorded = task.settings()["sha256"]
    for overrides in ({}, {"sha256": recorded}):
        assert evaluate(contents, "numpy", data=str(tmp_path / "new.npz"), **overrides).metrics == before.metrics
    np.savez(tmp_path / "new.npz", inputs=np.ones((9, 4, 8)), targets=np.arange(9))
    evaluate(contents, "numpy", data=str(tmp_path / "new.npz"))
    with pytest.raises(FileError, match=f"SHA-256 {recorded[:12]}"):
        evaluate(contents, "numpy", data=str(tmp_path / "new.npz"), sha256=recorded)


def test_weights_that_do_not_fit_their_spec_are_refused() -> None:
    contents = digits_contents()
    other = initial_weights(ModelSpec("simple_rnn", 8, 5), 0)
    with pytest.raises(WeightError, match="missing"):
        evaluate(contents._replace(weights=other), "numpy")


def test_log_softmax_stands_large_scores(assert_right: Callable[..., None]) -> None:
    found = log_softmax(np.array([[1e4, 1e4, -1e4]], np.float32))

    def expected(ops: Exact) -> dict[str, np.ndarray]:
        log2 = ops.function("log", ops.constant(2.0))
        return {"logarithms": ops.add(ops.constant([[0.0, 0.0, -2e4]]), -log2[:, None, None])}

    assert_right({"logarithms": found}, expected)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name.partition(".")[0] == "sklearn":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(BackendError, match=r"'scikit-learn' is not installed; run: pip install 'rnnzoo\[tasks\]'"):
        load_task({"name": "digits"})


def test_importing_the_tasks_loads_no_framework_and_no_data_package(
    fresh_python: Callable[..., CompletedProcess[str]], root: Path
) -> None:
    names = sorted(path.stem for path in (root / "tasks").glob("*.py") if path.stem != "__init__")
    done = fresh_python(
        f"import sys; {'; '.join(f'import rnnzoo.tasks.{name}' for name in names)}\n"
        "found = {'torch', 'tensorflow', 'keras', 'sklearn', 'tqdm', 'statsmodels', 'pydoc_data.topics'}\n"
        "print(sorted(found & set(sys.modules)))"
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
