"""The command line: convert, inspect, diff, check; every bad input is one message and the right exit status."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch

from rnnzoo.conformance import assert_equivalent
from rnnzoo.conformance.cli import main
from rnnzoo.conformance.formats import read
from rnnzoo.spec import Contents, Context, Embedding, Head, ModelSpec, initial_weights, load_backend, save
from rnnzoo.spec.checkpoint import provenance
from rnnzoo.spec.errors import ConformanceError, InputError

RNNZOO = str(Path(sys.executable).parent / "rnnzoo")
SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".torch.safetensors", ".keras", ".weights.h5", ".onnx")
PARTS = {"embedding": Embedding(6), "head": Head(2, reads="final"), "context": Context(5)}
WHOLE = ModelSpec("stacked_bi_rnn", 3, 4, 2, bias="double", merge="sum", **PARTS)
CORE = ModelSpec("bi_rnn", 3, 4, nonlinearity="relu")


def _saved(folder: Path, name: str = "model.safetensors", spec: ModelSpec = WHOLE, dtype: str = "float32") -> Path:
    path = folder / name
    save(path, Contents(spec, initial_weights(spec, 3, dtype), provenance(note="a test")))
    return path


def _fails(capsys: pytest.CaptureFixture[str], status: int, *arguments: object) -> str:
    """The one message that a command fails with."""
    assert main([str(argument) for argument in arguments]) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("rnnzoo: ") and "Traceback" not in captured.err
    return captured.err


def test_inspect_shows_spec_parameters_and_provenance(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(_saved(tmp_path))]) == 0
    text = capsys.readouterr().out
    assert "stacked_bi_rnn" in text and re.search(r"layers\.1\.backward\.input_weight +4x4 +float32 +16", text)
    assert "note: a test" in text and "276 numbers in 21 parameters" in text


def test_inspect_loads_neither_a_framework_nor_the_suite(
    tmp_path: Path, fresh_python: Callable[..., subprocess.CompletedProcess[str]]
):
    heavy = {"torch", "tensorflow", "keras", "jax", "rnnzoo.conformance.checks", "rnnzoo.conformance.items"}
    done = fresh_python(
        f"from rnnzoo.conformance import cli\nassert cli.main(['inspect', {str(_saved(tmp_path))!r}]) == 0\n"
        f"import sys; print(sorted(set(sys.modules) & {heavy!r}), file=sys.stderr)"
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_inspect_takes_less_than_half_a_second(tmp_path: Path):
    command = [Path(sys.executable).with_name("rnnzoo"), "inspect", _saved(tmp_path)]
    taken = []
    for _ in range(3):  # of the processor: what else runs there does not count
        before = os.times()
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        after = os.times()
        assert "layers.0.forward.input_weight" in shown
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(taken) < 0.5


def test_diff_of_the_same_model_in_two_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = _saved(tmp_path)
    main(["convert", str(source), str(tmp_path / "model.npz")])
    assert main(["diff", str(source), str(tmp_path / "model.npz")]) == 0
    assert "the same model" in capsys.readouterr().out


def test_diff_names_the_tensor_that_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, weights = _saved(tmp_path), initial_weights(WHOLE, 3)
    weights["head.weight"][0, 0] += 0.5
    save(tmp_path / "other.safetensors", Contents(WHOLE, weights, {}))
    assert main(["diff", str(source), str(tmp_path / "other.safetensors")]) == 1
    text = capsys.readouterr().out
    assert re.search(r"head\.weight +other numbers +5\.0e-01", text)
    assert re.search(r"scores .* DIFFERENT", text) and "not the same model" in text


def test_diff_of_models_that_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second = _saved(tmp_path), _saved(tmp_path, "core.safetensors", CORE)
    assert main(["diff", str(first), str(second)]) == 1
    assert "not run" in capsys.readouterr().out


def test_check_is_green_and_shows_a_table(capsys: pytest.CaptureFixture[str]):
    assert main(["check", "--backend", "numpy", "--quick"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"numpy +gradients +float64", text) and re.search(r"^\d+ passed; of \d+ numbers", text, re.M)


def test_an_existing_target_is_refused_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, target = _saved(tmp_path), tmp_path / "there.npz"
    target.write_bytes(b"precious")
    assert "--force" in _fails(capsys, 2, "convert", source, target)
    assert target.read_bytes() == b"precious"
    assert main(["convert", str(source), str(target), "--force"]) == 0


BAD: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "no such file": (lambda folder: ["inspect", folder / "none.npz"], "no such file"),
    "a folder": (lambda folder: ["inspect", folder], "expected a file, got a folder"),
    "an unknown suffix": (lambda folder: ["convert", _saved(folder), folder / "x.onnxx"], ".safetensors"),
    "a missing folder": (lambda folder: ["convert", _saved(folder), folder / "no" / "x.npz"], "does not exist"),
    "an unknown backend": (lambda folder: ["check", "--backend", "jaxx"], "'numpy', 'tf', 'torch'"),
    "an object that is not there": (lambda folder: ["check", "--backend", "json:NOTHING"], "json:NOTHING"),
    "a class for a backend": (lambda folder: ["check", "--backend", "json:JSONDecoder"], "expected an object"),
    "a spec that is not one": (
        lambda folder: ["inspect", _saved(folder), "--spec", _saved(folder, "s.safetensors")],
        "spec",
    ),
    "a file for evaluate without a task": (lambda folder: ["evaluate", _saved(folder)], "task"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_status_2(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments, expected = BAD[case]
    assert expected in _fails(capsys, 2, *arguments(tmp_path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_file_is_refused(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / f"model{suffix}"
    source = _saved(tmp_path, "source.safetensors")
    assert main(["convert", str(source), str(path)]) == 0
    data = path.read_bytes()
    capsys.readouterr()
    for cut in (0, 7, len(data) // 3, len(data) // 2):
        path.write_bytes(data[:cut])
        _fails(capsys, 2, "inspect", path)
    path.write_bytes(b"MZ" + bytes(range(256)) * 4)
    _fails(capsys, 2, "inspect", path)
    _fails(capsys, 2, "convert", path, tmp_path / "target.npz")
    assert not (tmp_path / "target.npz").exists()


def test_a_conversion_that_cannot_be_proven_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from rnnzoo.numpy_impl import files

    original = files.NumpyFiles.write

    def lossy(self: files.NumpyFiles, path: Path, contents: Contents, **options: object) -> None:
        changed = {name: array * array.dtype.type(1.001) for name, array in contents.weights.items()}
        original(self, path, contents._replace(weights=changed), **options)

    monkeypatch.setattr(files.NumpyFiles, "write", lossy)
    source = _saved(tmp_path)
    assert "other numbers" in _fails(capsys, 1, "convert", source, tmp_path / "model.npz")
    assert sorted(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_one_message_and_leaves_nothing(suffix: str, tmp_path: Path):
    source = _saved(tmp_path, "source.safetensors", ModelSpec("simple_rnn", 64, 64))
    code = (  # the limit stands for the full disk
        "import resource, signal, sys\n"
        "from rnnzoo.conformance.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    target = tmp_path / f"target{suffix}"
    run = subprocess.run(
        [sys.executable, "-c", code, "convert", str(source), str(target)], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 2, run.stderr
    assert f"{target}: cannot be written" in run.stderr and "Traceback" not in run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.safetensors"]


def test_a_message_about_a_weight_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    weights = initial_weights(CORE, 3)
    del weights["layers.0.backward.bias"]
    for path in (tmp_path / "less.safetensors", tmp_path / "less.npz"):
        if path.suffix == ".npz":
            np.savez(path, **weights)
        else:
            safetensors.numpy.save_file(weights, path)
        (tmp_path / "spec.yaml").write_text(CORE.to_yaml())
        message = _fails(capsys, 2, "inspect", path, "--spec", tmp_path / "spec.yaml")
        assert str(path) in message and "missing 'layers.0.backward.bias'" in message


def test_damaged_numbers_in_a_pt_file_are_seen_by_their_checksum(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, path = _saved(tmp_path), tmp_path / "model.pt"
    assert main(["convert", str(source), str(path)]) == 0
    data, numbers = path.read_bytes(), read(source).weights["layers.0.forward.recurrent_weight"].tobytes()
    assert data.count(numbers) == 1
    path.write_bytes(data.replace(numbers, bytes(reversed(numbers))))
    assert "checksum" in _fails(capsys, 2, "inspect", path)


def test_a_spec_as_text_of_any_length_is_read_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "model.weights.h5"
    assert main(["convert", str(_saved(tmp_path)), str(path)]) == 0
    with h5py.File(path, "a") as file:
        text = file.attrs["rnnzoo"].decode()
        del file.attrs["rnnzoo"]
        file.attrs["rnnzoo"] = text
    assert main(["inspect", str(path)]) == 0
    assert "stacked_bi_rnn, cell rnn" in capsys.readouterr().out


def test_output_that_cannot_be_written_is_one_message(tmp_path: Path):
    run = subprocess.run(
        ["bash", "-c", f"{RNNZOO} inspect {_saved(tmp_path)} > /dev/full"], capture_output=True, text=True
    )
    assert run.returncode == 2 and "the output cannot be written" in run.stderr and "Traceback" not in run.stderr


def test_help_names_every_command():
    run = subprocess.run([RNNZOO, "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    for command in ("train", "evaluate", "sample", "convert", "inspect", "diff", "check"):
        assert re.search(rf"^ +{command} ", run.stdout, re.M), command


def test_bad_usage_is_status_2():
    run = subprocess.run([RNNZOO, "fly"], capture_output=True, text=True)
    assert run.returncode == 2 and "fly" in run.stderr and "Traceback" not in run.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path):
    code = f"{RNNZOO} inspect {_saved(tmp_path)} | true; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=os.environ)
    assert run.returncode == 0 and run.stderr == ""


def test_assert_equivalent_of_models_in_two_frameworks():
    first = load_backend("numpy").build(WHOLE, seed=1, dtype="float64")
    for name in ("torch", "tf"):
        other = load_backend(name).build(WHOLE, seed=2, dtype="float64")
        with pytest.raises(ConformanceError, match="scores at"):
            assert_equivalent(first, other)
        load_backend(name).from_spec(other, load_backend("numpy").to_spec(first))
        quantities = {comparison.quantity for comparison in assert_equivalent(first, other)}
        assert {"outputs", "final_state.h", "scores", "gradient of context", "gradient of head.bias"} <= quantities


def test_assert_equivalent_of_double_and_single_bias():
    double = load_backend("numpy").build(ModelSpec("simple_rnn", 3, 4, bias="double"), dtype="float64")
    single = load_backend("numpy").build(ModelSpec("simple_rnn", 3, 4), dtype="float64")
    weights, prefix = load_backend("numpy").to_spec(double), "layers.0.forward."
    kept = {name: array for name, array in weights.items() if not name.endswith("bias")}
    total = weights[prefix + "input_bias"] + weights[prefix + "recurrent_bias"]
    load_backend("numpy").from_spec(single, {**kept, prefix + "bias": total})
    assert_equivalent(double, single, inputs={"inputs": np.ones((2, 3, 3)), "lengths": [3, 1]})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_assert_equivalent_is_not_fooled_by_what_is_not_finite(value: float):
    first, second = (load_backend("numpy").build(ModelSpec("simple_rnn", 3, 4, head=Head(2))) for _ in range(2))
    second.weights["head.bias"][:] = value
    with pytest.raises(ConformanceError, match="scores"):
        assert_equivalent(first, second)
    first.weights["head.bias"][:] = value
    assert_equivalent(first, second)


def test_assert_equivalent_sees_two_models_that_overflow_differently():
    first, second = (load_backend("numpy").build(ModelSpec("simple_rnn", 3, 4, nonlinearity="relu")) for _ in range(2))
    for model, factor in ((first, 1e30), (second, 2e30)):
        for array in model.weights.values():
            array *= np.float32(factor)
    with np.errstate(all="ignore"), pytest.raises(ConformanceError):
        assert_equivalent(first, second)


def test_a_target_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
):
    from rnnzoo.conformance import convert

    source, target, proof = _saved(tmp_path), tmp_path / "model.npz", convert.proven

    def slow_proof(*halves: object) -> object:
        target.write_bytes(b"precious")
        return proof(*halves)

    monkeypatch.setattr(convert, "proven", slow_proof)
    assert "exists by now" in _fails(capsys, 2, "convert", source, target)
    assert target.read_bytes() == b"precious" and sorted(tmp_path.iterdir()) == sorted([source, target])


def test_assert_equivalent_refuses_what_is_no_model_of_ours():
    model = load_backend("numpy").build(CORE)
    with pytest.raises(InputError, match=r"expected a model that .* gave, .* got dict"):
        assert_equivalent(model, {})
    with pytest.raises(ConformanceError, match="specs differ in 'input_size'"):
        assert_equivalent(model, load_backend("numpy").build(ModelSpec("bi_rnn", 5, 4)))
