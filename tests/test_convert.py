"""Conversion of any file into any other: every bit arrives, both sides are run, and there is a whole target or none."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from rnnzoo.conformance import assert_equivalent, converted
from rnnzoo.conformance import convert as convert_module
from rnnzoo.conformance.cli import main
from rnnzoo.conformance.convert import convert
from rnnzoo.conformance.formats import chosen as chosen_layer
from rnnzoo.conformance.formats import contents, find, format_of, read
from rnnzoo.conformance.proof import Proof
from rnnzoo.spec import Contents, Context, Embedding, Head, ModelSpec, Result, initial_weights, save
from rnnzoo.spec.errors import ConformanceError, FileError, InputError, RnnZooError, UnsupportedError
from rnnzoo.spec.found import Hints
from rnnzoo.spec.npz import read_npz
from rnnzoo.spec.sandbox import main as _child  # noqa: F401 (the module that readers run in)

WHOLE = ModelSpec(
    "stacked_bi_rnn", 3, 4, 2, "relu", "double", "sum",
    embedding=Embedding(6), head=Head(2, reads="final"), context=Context(5),
)  # fmt: skip
CORE = ModelSpec("stacked_bi_rnn", 3, 4, 2, "tanh", "single")
HOLD_EVERYTHING = (".safetensors", ".npz", ".pt", ".torch.safetensors", ".keras", ".weights.h5", ".onnx")


def saved(path: Path, spec: ModelSpec, dtype: str = "float32") -> Path:
    weights = initial_weights(spec, 3, dtype)
    weights[next(iter(weights))].flat[0] = -0.0
    save(path, Contents(spec, weights, {"note": "a test"}))
    return path


def same(a: Contents, b: Contents) -> bool:
    bits = all(
        a.weights[name].dtype == b.weights[name].dtype and a.weights[name].tobytes() == b.weights[name].tobytes()
        for name in a.weights
    )
    return a.spec == b.spec and set(a.weights) == set(b.weights) and a.provenance == b.provenance and bits


# Every bit


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spec", [WHOLE, CORE], ids=["whole", "core"])
def test_every_chain_of_three_formats_keeps_every_bit(
    tmp_path: Path, spec: ModelSpec, dtype: str, in_this_process: None
) -> None:
    source = saved(tmp_path / "source.safetensors", spec, dtype)
    files, expected = {(): source}, read(source)
    for length in range(1, 4):
        for chain in itertools.product(HOLD_EVERYTHING, repeat=length):
            origin, path = files[chain[:-1]], tmp_path / f"{len(files)}{chain[-1]}"
            form, found = find(origin)
            format_of(path).files.write(path, contents(origin, form, found, chosen_layer(origin, found)))
            files[chain] = path
            assert length < 3 or same(read(path), expected), chain
            if length == 3:
                path.unlink()
    assert len(files) == 1 + 7 + 49 + 343


@pytest.mark.parametrize("suffix", HOLD_EVERYTHING)
@pytest.mark.parametrize("spec", [WHOLE, CORE], ids=["whole", "core"])
def test_a_conversion_there_and_back_is_proven_and_gives_the_same_bytes(
    tmp_path: Path, spec: ModelSpec, suffix: str
) -> None:
    source = saved(tmp_path / "source.safetensors", spec)
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.safetensors"
    for done in (convert(source, there), convert(there, back)):
        assert done.proof.comparisons and all(comparison.ratio <= 1 for comparison in done.proof.comparisons)
        assert {"outputs", "final_state.h"} <= {comparison.quantity for comparison in done.proof.comparisons}
    assert back.read_bytes() == source.read_bytes()


def test_weights_that_are_not_finite_are_kept_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = initial_weights(CORE, 3)
    weights["layers.0.forward.bias"][:] = [np.nan, np.inf, -np.inf, 0]
    save(tmp_path / "a.safetensors", Contents(CORE, weights, {}))
    for suffix in HOLD_EVERYTHING[1:]:
        assert main(["convert", str(tmp_path / "a.safetensors"), str(tmp_path / f"b{suffix}")]) == 0
        assert "not finite, every bit kept: layers.0.forward.bias" in capsys.readouterr().out
        found = read(tmp_path / f"b{suffix}").weights["layers.0.forward.bias"]
        assert found.tobytes() == weights["layers.0.forward.bias"].tobytes()


# Somebody's checkpoint


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.RNN(5, 6, 2, bidirectional=True, nonlinearity="relu", batch_first=True, dropout=0.2)
        self.decoder = torch.nn.RNN(6, 4, bias=False)
        self.head = torch.nn.Linear(4, 3)
        self.memory = torch.nn.LSTM(3, 2)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network()


@pytest.fixture(scope="module")
def checkpoint(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("theirs") / "checkpoint.pt"
    torch.save({"epoch": 3, "model": network.state_dict()}, path)
    return path


def test_inspect_shows_every_layer_and_what_else_there_is(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(checkpoint)]) == 0
    text = capsys.readouterr().out
    assert "3 recurrent layers" in text and "2 other tensors" in text
    for words in (
        "model.encoder",
        "stacked_bi_rnn",
        "5 to 6",
        "model.decoder",
        "LSTM",
        "--nonlinearity",
        "head.weight",
    ):
        assert words in text, words


def test_one_layer_of_several_has_to_be_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 recurrent layers.*--layer model\.encoder.*--layer model\.decoder"):
        convert(checkpoint, tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"no recurrent layer 'encoder'; it has 'model\.decoder', 'model\.encoder'"):
        convert(checkpoint, tmp_path / "a.npz", layer="encoder")
    with pytest.raises(UnsupportedError, match="LSTM"):
        convert(checkpoint, tmp_path / "a.npz", layer="model.memory")
    assert not list(tmp_path.iterdir())


def test_all_layers_go_each_into_a_file_and_what_is_refused_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["convert", str(checkpoint), str(tmp_path / "out.npz"), "--all", "--report", str(tmp_path / "report")]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.model.decoder.npz", "out.model.encoder.npz", "report",
    ]  # fmt: skip
    assert "model.memory (torch.nn.LSTM): the spec has no cell of this kind" in err
    assert "out.model.decoder.npz: model.decoder (torch.nn.RNN)" in out
    refused, encoder, decoder = json.loads((tmp_path / "report").read_text())
    assert (refused["target"], refused["source"]["layer"]) == (None, "model.memory") and "LSTM" in refused["refused"]
    assert [one["spec"]["num_layers"] for one in (encoder, decoder)] == [2, 1]


def test_a_layer_that_a_target_cannot_hold_does_not_keep_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], in_this_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"a": ModelSpec("simple_rnn", 3, 4), "b": ModelSpec("bi_rnn", 3, 4, bias="none")}
    arrays = {f"{name}.{key}": a for name, spec in weights.items() for key, a in initial_weights(spec, 1).items()}
    np.savez(tmp_path / "both.npz", **arrays)
    (tmp_path / "out.b.pt").touch()
    command = ["convert", str(tmp_path / "both.npz"), str(tmp_path / "out.pt"), "--all", "--plain"]
    assert main(command) == 2
    assert "b (rnnzoo): " in (text := capsys.readouterr().err) and "out.b.pt" in text and "--force" in text
    assert (tmp_path / "out.a.pt").exists() and not (tmp_path / "out.b.pt").stat().st_size
    assert main([*command, "--force"]) == 0
    monkeypatch.setattr(convert_module, "proven", _unproven)
    assert main([*command, "--force"]) == 1
    assert "both.npz: a (rnnzoo): they differ" in capsys.readouterr().err


def _unproven(*_: object) -> Proof:
    raise ConformanceError("they differ")


@pytest.mark.parametrize(("suffix", "named"), [(".keras", True), (".weights.h5", False), (".onnx", False)])
def test_a_prefix_acts_or_is_refused_by_its_name(tmp_path: Path, suffix: str, named: bool) -> None:
    source = saved(tmp_path / "model.safetensors", ModelSpec("simple_rnn", 3, 4))
    if named:
        convert(source, tmp_path / f"a{suffix}", plain=True, prefix="reader.")
        assert [layer.path for layer in find(tmp_path / f"a{suffix}")[1].layers] == [""]
        assert b"reader.layer_0" in (tmp_path / f"a{suffix}").read_bytes()
    else:
        with pytest.raises(UnsupportedError, match=r"prefix 'reader\.'"):
            convert(source, tmp_path / f"a{suffix}", plain=True, prefix="reader.")
        assert not (tmp_path / f"a{suffix}").exists()


@pytest.mark.parametrize("suffix", [".keras", ".onnx", ".pt", ".torch.safetensors"])
def test_a_layer_becomes_standard_layers_of_each_framework(
    checkpoint: Path, network: Network, tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / f"encoder{suffix}"
    done = convert(
        checkpoint, target, layer="model.encoder", plain=True, hints=Hints(nonlinearity="relu"),
        prefix="a." if "t" in suffix[1:3] else "",
    )  # fmt: skip
    assert done.proof.ran[0].startswith("torch.nn.RNN 2.") and "oracle" not in str(done.proof.ran)
    assert done.layer.given == ("nonlinearity",) and "model.head.weight" in done.rest
    assert ("were summed" in " ".join(done.changes)) == (suffix == ".keras")
    if suffix == ".pt":
        plain = torch.nn.RNN(5, 6, 2, bidirectional=True, nonlinearity="relu")
        state_dict = {name.removeprefix("a."): tensor for name, tensor in torch.load(target).items()}
        plain.load_state_dict(state_dict)
        assert_equivalent(plain, network.encoder)


def test_what_a_target_cannot_express_is_refused_by_name(tmp_path: Path) -> None:
    for spec, words in (
        (ModelSpec("bi_rnn", 3, 4, merge="sum"), "sum"),
        (ModelSpec("simple_rnn", 3, 4, nonlinearity="sigmoid"), "sigmoid"),
        (ModelSpec("simple_rnn", 3, 4, context=Context(2)), "context"),
    ):
        source = saved(tmp_path / f"{words}.safetensors", spec)
        with pytest.raises(UnsupportedError, match=rf"a\.pt: .*{words}"):
            convert(source, tmp_path / "a.pt", plain=True)
        assert not (tmp_path / "a.pt").exists()


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_another_cell_under_torchs_names_is_refused_by_its_name(tmp_path: Path, kind: type, suffix: str) -> None:
    arrays = {name: tensor.numpy() for name, tensor in kind(3, 4).state_dict().items()}
    if suffix == ".npz":
        np.savez(tmp_path / f"a{suffix}", **arrays)
    else:
        safetensors.numpy.save_file(arrays, tmp_path / f"a{suffix}")
    with pytest.raises(UnsupportedError, match=kind.__name__):
        convert(tmp_path / f"a{suffix}", tmp_path / "b.npz")


@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.safetensors.index.json"])
def test_a_format_that_is_only_read_is_refused_by_its_suffix(tmp_path: Path, name: str) -> None:
    source = saved(tmp_path / "model.safetensors", ModelSpec("simple_rnn", 3, 4))
    with pytest.raises(UnsupportedError, match=r"files are only read; write one of \.(keras|safetensors)"):
        convert(source, tmp_path / name)
    assert list(tmp_path.iterdir()) == [source]


def test_inspect_says_what_it_assumes_of_canonical_names_without_a_spec(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", **initial_weights(ModelSpec("simple_rnn", 3, 4), 1))
    assert main(["inspect", str(tmp_path / "a.npz")]) == 0
    text = capsys.readouterr().out
    assert "1 recurrent layer\n" in text and "assumed, as the file does not tell: nonlinearity tanh" in text


def test_one_bias_as_two_is_said(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.safetensors", ModelSpec("simple_rnn", 3, 4))
    done = convert(source, tmp_path / "a.pt", plain=True)
    assert "recurrent_bias is 0" in done.changes[0] and "freeze" in done.changes[0]
    assert [(one.change, len(one.origins)) for one in done.moved] == [("", 1), ("", 1), ("", 1), ("0", 0)]
    state_dict = torch.load(tmp_path / "a.pt")
    assert not state_dict["bias_hh_l0"].any() and state_dict["bias_ih_l0"].any()


def test_the_report_lists_every_tensor(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["convert", checkpoint, tmp_path / "a.keras", "--layer", "model.encoder", "--plain"]
    assert main([*map(str, arguments), "--report", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["source"]["assumed"] == ["nonlinearity"] and len(report["weights"]) == 12
    bias = next(weight for weight in report["weights"] if weight["name"] == "layers.0.forward.bias")
    assert [part["name"] for part in bias["from"]] == ["model.encoder.bias_ih_l0", "model.encoder.bias_hh_l0"]
    assert bias["change"] == "sum" and report["weights"][0]["change"] == ""
    assert [(one["layer"], "LSTM" in one["reason"]) for one in report["refused"]] == [("model.memory", True)]
    assert {"model.memory.weight_hh_l0", "model.head.bias", "model.decoder.weight_ih_l0"} <= set(report["left_behind"])
    kernel = report["weights"][0]["to"]
    assert kernel["rule"] == "transposed" and kernel["shape"] == [5, 6] and len(report["weights"][0]["sha256"]) == 64
    assert all(row["error"] <= row["allowed"] for row in report["proof"]["compared"])
    text = capsys.readouterr().out
    assert "transposed" in text and "left in checkpoint.pt" in text and "were summed" in text


def test_the_proof_runs_on_a_users_inputs(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "data.npz", inputs=np.ones((2, 3, 5)), lengths=[3, 1])
    command = ["convert", checkpoint, tmp_path / "a.npz", "--layer", "model.encoder", "--inputs"]
    assert main([*map(str, command), str(tmp_path / "data.npz")]) == 0
    np.savez(tmp_path / "data.npz", inputs=np.ones((2, 3, 7)))
    assert main([*map(str, command), str(tmp_path / "data.npz"), "--force"]) == 2
    assert "expected" in capsys.readouterr().err


def test_inputs_that_prove_nothing_are_refused(tmp_path: Path) -> None:
    a, b = torch.nn.RNN(3, 4), torch.nn.RNN(3, 4)
    with pytest.raises(InputError, match="which proves nothing"):
        assert_equivalent(a, b, np.full((2, 3, 3), np.nan))
    with pytest.raises(InputError, match="unknown 'length'"):
        assert_equivalent(a, b, {"inputs": np.ones((2, 3, 3)), "length": [3, 1]})


def test_what_the_user_says_against_the_file_is_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.safetensors", ModelSpec("simple_rnn", 3, 4, nonlinearity="relu"))
    with pytest.raises(InputError, match="its nonlinearity is relu, not tanh"):
        convert(source, tmp_path / "a.npz", hints=Hints(nonlinearity="tanh"))
    with pytest.raises(InputError, match="--plain"):
        convert(source, tmp_path / "a.npz", plain=True)
    assert not (tmp_path / "a.npz").exists()


def test_suffixes_are_known_in_any_case(tmp_path: Path) -> None:
    spec = ModelSpec("stacked_rnn", 3, 4, 2)
    path = saved(tmp_path / "a.safetensors", spec)
    expected = read(path).weights
    for name in ("B.NPZ", "C.Pt", "D.Torch.SafeTensors", "E.KERAS", "F.Weights.H5", "G.ONNX", "H.SAFETENSORS"):
        convert(path, path := tmp_path / name)
    assert all(read(path).weights[name].tobytes() == array.tobytes() for name, array in expected.items())


def test_a_target_that_is_a_suffix_alone_is_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.safetensors", ModelSpec("simple_rnn", 3, 4))
    for name in (".npz", ".WEIGHTS.h5"):
        with pytest.raises(InputError, match="expected a name before the suffix, such as model"):
            convert(source, tmp_path / name)
    assert list(tmp_path.iterdir()) == [source]


def test_a_report_never_takes_the_place_of_another_file(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = checkpoint.read_bytes()
    command = ["convert", str(checkpoint), str(tmp_path / "a.npz"), "--layer", "model.decoder", "--report"]
    for report in (checkpoint, tmp_path / "a.npz"):
        assert main([*command, str(report)]) == 2
        assert main([*command, str(report), "--force"]) == 2
    assert checkpoint.read_bytes() == before and not list(tmp_path.iterdir())


def test_the_report_names_what_other_layers_leave_behind(checkpoint: Path, tmp_path: Path) -> None:
    done = convert(checkpoint, tmp_path / "a.npz", layer="model.decoder")
    assert "model.encoder.weight_ih_l0" in done.rest and "model.head.bias" in done.rest


def test_a_conversion_that_differs_ends_with_status_1_and_no_target(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnnzoo.torch_impl import plain

    run = plain.BACKEND.run
    monkeypatch.setattr(plain.BACKEND, "run", lambda *given, **named: _off(run(*given, **named)), raising=False)
    assert main(["convert", str(checkpoint), str(tmp_path / "a.npz"), "--layer", "model.decoder"]) == 1
    assert "differ: outputs at" in capsys.readouterr().err and not list(tmp_path.iterdir())


def _off(result: Result) -> Result:
    outputs = result.outputs.copy()
    outputs[0, 1, 0] += 1e-3
    return replace(result, outputs=outputs)


def test_bfloat16_is_read_exactly_and_remembered(tmp_path: Path) -> None:
    module = torch.nn.RNN(3, 4, dtype=torch.bfloat16)
    torch.save(module.state_dict(), tmp_path / "a.pt")
    done = convert(tmp_path / "a.pt", tmp_path / "a.safetensors")
    found = read(tmp_path / "a.safetensors")
    assert done.moved[0].origins[0].tensor.dtype == "bfloat16" and found.provenance["dtype"] == "bfloat16"
    wanted = module.weight_ih_l0.detach().float().numpy()
    assert found.weights["layers.0.forward.input_weight"].tobytes() == wanted.tobytes()


def test_the_report_tells_what_the_file_held_and_who_said_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(torch.nn.RNN(3, 4, dtype=torch.bfloat16).state_dict(), tmp_path / "a.pt")
    command = ["convert", str(tmp_path / "a.pt"), str(tmp_path / "a.npz"), "--force"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "bfloat16 as float32" in text and "assumed, as the file does not tell: nonlinearity tanh" in text
    assert main([*command, "--nonlinearity", "relu"]) == 0
    text = capsys.readouterr().out
    assert "told by you, not the file: nonlinearity relu" in text and "assumed" not in text
    assert read(tmp_path / "a.npz").provenance["given"] == ["nonlinearity"]


def test_a_run_that_proves_nothing_is_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = torch.nn.RNN(3, 4)
    for number, (name, parameter) in enumerate(module.named_parameters()):
        torch.nn.init.zeros_(parameter)
        torch.save(module.state_dict(), tmp_path / "a.pt")
        assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / f"{number}.npz")]) == 0
        assert ("proves nothing: all weights" in capsys.readouterr().out) == (name == "bias_hh_l0")
    with pytest.warns(UserWarning, match="all weights of the layers are 0, so that running both proves nothing"):
        assert_equivalent(module, module)
    torch.nn.init.ones_(module.weight_hh_l0)
    torch.save(module.state_dict(), tmp_path / "a.pt")
    done = convert(tmp_path / "a.pt", tmp_path / "a.npz")
    assert not done.proof.empty and any("hold one number throughout" in note for note in done.proof.notes)


def test_inspect_tells_of_nan_and_infinity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = torch.nn.ModuleDict({"a": torch.nn.RNN(3, 4), "b": torch.nn.RNN(3, 4)})
    layers["b"].weight_hh_l0.data[1] = torch.tensor([torch.nan, torch.inf, 0, 1])
    torch.save(layers.state_dict(), tmp_path / "a.pt")
    assert main(["inspect", str(tmp_path / "a.pt")]) == 0
    text = capsys.readouterr().out
    assert "b: b.weight_hh_l0: 2 not finite\n" in text and text.count("not finite") == 1
    monkeypatch.setattr("rnnzoo.conformance.inspection.READ", 35)
    assert main(["inspect", str(tmp_path / "a.pt")]) == 0
    assert capsys.readouterr().out.count("more than 35 numbers: not looked at for NaN and infinity") == 2


WRONG_TENSORS = {
    "dtypes": ({"weight_hh_l0": torch.zeros(4, 4, dtype=torch.float64)}, "tensors of float32 and float64; .*float()"),
    "shape": ({"weight_ih_l1": torch.zeros(4, 5)}, r"\(enc\.weight_ih_l1 in the file, as it is\): expected shape"),
    "first": (dict.fromkeys(["weight_ih_l0"]), "missing 'weight_ih_l0', where its input size is; it has 'bias_hh_l0'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_TENSORS)
def test_what_is_wrong_in_a_file_is_told_in_its_own_names(tmp_path: Path, name: str) -> None:
    other, words = WRONG_TENSORS[name]
    tensors = torch.nn.RNN(3, 4, 2).state_dict() | other
    torch.save({"enc": {key: tensor for key, tensor in tensors.items() if tensor is not None}}, tmp_path / "a.pt")
    with pytest.raises(UnsupportedError, match=words):
        convert(tmp_path / "a.pt", tmp_path / "a.npz")


def test_a_framework_that_is_not_installed_is_stood_in_for_by_the_oracle(
    checkpoint: Path, tmp_path: Path, fresh_python
) -> None:
    process = fresh_python(f"""
import sys
sys.modules["torch"] = None
from rnnzoo.conformance.cli import main
status = main(["convert", {str(checkpoint)!r}, {str(tmp_path / "a.npz")!r}, "--layer", "model.decoder"])
assert status == 0 and not {{"tensorflow", "keras"}} & set(sys.modules)
""")
    assert process.returncode == 0, process.stderr
    assert "oracle" in process.stdout and "'torch' is not installed" in process.stdout


LOADED = """
import sys
from rnnzoo.conformance.cli import main
for arguments in {commands}:
    assert main(arguments) == 0
print("loaded", sorted({{"torch", "tensorflow", "keras", "h5py", "onnx", "onnxruntime", "jax"}} & set(sys.modules)))
"""


def test_inspecting_a_file_loads_no_framework(tmp_path: Path, fresh_python: Callable[..., Any]) -> None:
    for suffix in HOLD_EVERYTHING:
        format_of(path := tmp_path / f"a{suffix}").files.write(path, Contents(CORE, initial_weights(CORE, 1), {}))
    commands = [["inspect", str(tmp_path / f"a{suffix}")] for suffix in HOLD_EVERYTHING]
    process = fresh_python(LOADED.format(commands=commands))
    assert process.stdout.endswith("loaded []\n"), process.stdout + process.stderr


@pytest.mark.parametrize(("suffix", "frameworks"), [(".npz", []), (".pt", ["torch"])])
def test_a_conversion_loads_the_frameworks_of_its_files_alone(
    tmp_path: Path, fresh_python: Callable[..., Any], suffix: str, frameworks: list[str]
) -> None:
    source = saved(tmp_path / "a.safetensors", CORE)
    process = fresh_python(LOADED.format(commands=[["convert", str(source), str(tmp_path / f"b{suffix}")]]))
    assert process.stdout.endswith(f"loaded {frameworks}\n"), process.stdout + process.stderr


# Layers in memory


def test_a_layer_in_memory_goes_to_another_framework_and_back(network: Network) -> None:
    with pytest.warns(UserWarning, match="summed"):
        layer = converted(network.encoder, "tf")
    assert_equivalent(network.encoder, layer)
    with pytest.warns(UserWarning, match="freeze"):
        back = converted(layer, "torch")
    assert isinstance(back, torch.nn.RNN) and not back.bias_hh_l0.any()
    assert torch.equal(back.weight_hh_l1_reverse, network.encoder.weight_hh_l1_reverse)


def test_inputs_may_record_derivatives(network: Network) -> None:
    assert_equivalent(network.encoder, network.encoder, inputs=torch.rand(2, 3, 5, requires_grad=True))


def test_a_layer_without_a_prefix_is_named_as_inspect_names_it(tmp_path: Path) -> None:
    torch.save(torch.nn.RNN(2, 3).state_dict(), tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "a.npz", layer=".")
    assert (tmp_path / "a.npz").exists()
    with pytest.raises(InputError, match=r"no recurrent layer 'b'; it has '\.'"):
        convert(tmp_path / "a.pt", tmp_path / "b.npz", layer="b")


def test_inputs_in_a_file_that_is_no_archive_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.RNN(2, 3).state_dict(), tmp_path / "a.pt")
    (tmp_path / "inputs.npz").write_text("1 2 3")
    with pytest.raises(FileError, match="not a zip file"):
        convert(tmp_path / "a.pt", tmp_path / "a.npz", inputs=read_npz(tmp_path / "inputs.npz"))


def test_layers_that_differ_are_told_apart(network: Network) -> None:
    other = torch.nn.RNN(5, 6, 2, bidirectional=True, nonlinearity="relu")
    with pytest.raises(ConformanceError, match=r"torch\.nn\.RNN"):
        assert_equivalent(network.encoder, other)
    with pytest.raises(UnsupportedError, match="LSTM"):
        assert_equivalent(network.memory, network.memory)
    with pytest.raises(UnsupportedError, match="Linear"):
        assert_equivalent(network.head, network.head)


class Doubled(torch.nn.RNN):
    def forward(self, *given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        outputs, final = super().forward(*given)
        return 2 * outputs, final


class Named(torch.nn.RNN):
    """With nothing of its own."""


def changed(change: Callable[[torch.nn.RNN], object]) -> torch.nn.RNN:
    module = torch.nn.RNN(3, 4)
    change(module)
    return module


UNREADABLE = {
    "forward": (lambda: Doubled(3, 4), "Doubled: has a forward of its own, .* put its weights into a torch.nn.RNN,"),
    "replaced": (lambda: changed(lambda one: setattr(one, "forward", print)), "RNN: has a forward of its own"),
    "hook": (lambda: changed(lambda one: one.register_forward_hook(print)), "RNN: has hooks"),
    "parametrized": (
        lambda: changed(lambda one: torch.nn.utils.parametrizations.weight_norm(one, "weight_hh_l0")),
        "computes a weight from others .*remove_parametrizations",
    ),
    "bfloat16": (lambda: torch.nn.RNN(3, 4).bfloat16(), r"float32 or float64 throughout, got bfloat16; .*float\(\)"),
    "mixed": (lambda: changed(lambda one: one.register_parameter(
        "weight_hh_l0", torch.nn.Parameter(one.weight_hh_l0.double())
    )), "got float32 and float64"),
    "meta": (lambda: torch.nn.RNN(3, 4, device="meta"), "expected weights with numbers, got the device 'meta'"),
    "list": (lambda: [torch.nn.RNN(3, 4)] * 2, "expected one model, got a list of 2; give each by itself"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_in_memory_is_refused_by_name(name: str) -> None:
    make, words = UNREADABLE[name]
    for act in (lambda: converted(make(), "tf"), lambda: assert_equivalent(torch.nn.RNN(3, 4), make())):
        with pytest.raises(RnnZooError, match=words):
            act()


def test_a_derived_class_without_code_of_its_own_is_what_it_is_derived_from() -> None:
    module = Named(3, 4, bias=False)
    assert_equivalent(module, converted(module, "tf"))


def test_a_module_that_was_saved_whole_tells_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.ModuleDict({"a": Doubled(3, 4), "b": torch.nn.RNN(3, 4)}), tmp_path / "a.pt")
    notes = convert(tmp_path / "a.pt", tmp_path / "a.npz", layer="a").layer.notes
    assert [f"{__name__}.Doubled" in note and "torch.nn.RNN computes" in note for note in notes] == [True]
    assert convert(tmp_path / "a.pt", tmp_path / "b.npz", layer="b").layer.notes == ()


def test_the_fixture_comes_with_the_package(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "import pytest, torch\n"
        "def test_same(assert_equivalent):\n"
        "    a, b = torch.nn.RNN(3, 4), torch.nn.RNN(3, 4)\n"
        "    with pytest.raises(AssertionError):\n"
        "        assert_equivalent(a, b)\n"
        "    b.load_state_dict(a.state_dict())\n"
        "    assert_equivalent(a, b)\n"
    )
    run = subprocess.run([sys.executable, "-P", "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, text=True)
    assert "1 passed" in run.stdout, run.stdout


# Large files, and conversions that are killed


def sparse(path: Path, gigabytes: int = 2) -> ModelSpec:
    """A safetensors file with one small layer before and after an empty tensor of that size."""
    spec = ModelSpec("simple_rnn", 3, 4, bias="none")
    weights = initial_weights(spec, 1)
    header, end, places = {}, 0, {}
    for name, size, shape in (
        ("layers.0.forward.input_weight", 48, [4, 3]), ("big", gigabytes * 2**30, [gigabytes * 2**28]),
        ("layers.0.forward.recurrent_weight", 64, [4, 4]),
    ):  # fmt: skip
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        places[name], end = end, end + size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
        for name, array in weights.items():
            file.seek(8 + len(text) + places[name])
            file.write(array.tobytes())
    return spec


def test_a_small_layer_in_a_large_file_costs_what_the_layer_costs(tmp_path: Path) -> None:
    spec = sparse(tmp_path / "large.safetensors")
    start = time.perf_counter()
    found = read(tmp_path / "large.safetensors")
    assert time.perf_counter() - start < 1
    assert found.spec == spec and same(found._replace(provenance={}), Contents(spec, initial_weights(spec, 1), {}))


def test_a_small_file_that_stands_for_many_numbers_is_refused(tmp_path: Path) -> None:
    one = torch.zeros(1024, 1024)
    torch.save({f"weight_{kind}_l{layer}": one for layer in range(60) for kind in ("ih", "hh")}, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 2**23
    with pytest.raises(FileError, match="stand for weights of"):
        read(tmp_path / "a.pt")


def killed(source: Path, target: Path, seconds: float) -> bool:
    """Start a conversion and kill it after so long; whether it was still running."""
    command = [sys.executable, "-P", "-c", "from rnnzoo.conformance.cli import main; import sys; sys.exit(main())"]
    process = subprocess.Popen([*command, "convert", str(source), str(target)], stdout=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_a_source_that_is_cut_while_a_map_of_it_is_read_ends_in_one_error(tmp_path: Path, fresh_python: Any) -> None:
    source = saved(tmp_path / "source.safetensors", ModelSpec("simple_rnn", 256, 256, bias="none"))
    done = fresh_python(f"""
import os, sys
from rnnzoo.conformance.cli import main
from rnnzoo.spec.stored import StoredTensor
mapped = StoredTensor.mapped
def cut_after(tensor):
    found = mapped(tensor)
    StoredTensor.check_there = lambda tensor: os.truncate(tensor.path, 2**14)
    return found
StoredTensor.mapped = cut_after
sys.exit(main(["convert", {str(source)!r}, {str(tmp_path / "target.keras")!r}]))
""")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"rnnzoo: {source}: was cut off while it was read; nothing was written\n"
    assert not (tmp_path / "target.keras").exists()


@pytest.mark.parametrize("times", [6, pytest.param(50, marks=pytest.mark.long)])
def test_a_conversion_that_is_killed_leaves_no_target_or_a_whole_one(tmp_path: Path, times: int) -> None:
    source = saved(tmp_path / "source.safetensors", ModelSpec("stacked_rnn", 256, 256, 8))
    start = time.perf_counter()
    assert not killed(source, tmp_path / "first.npz", 120.0)
    whole, expected, random = time.perf_counter() - start, read(source), np.random.default_rng(0)
    count = 0
    for number in range(times):
        target = tmp_path / f"{number}.npz"
        count += killed(source, target, whole * random.uniform(0.2, 1.0))
        assert not target.exists() or same(read(target), expected)
    assert count > times / 4
    convert(source, tmp_path / "last.npz")  # which removes what they left
    assert not list(tmp_path.glob(".rnnzoo-*"))
