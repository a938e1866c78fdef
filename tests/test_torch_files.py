"""torch's files: every layer in them is found bit by bit, without torch, and what is written, torch itself loads."""

import importlib
import io
import os
import pickle
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import prune

from rnnzoo.conformance.equivalence import assert_equivalent
from rnnzoo.spec import Contents, Context, Embedding, Head, ModelSpec, initial_weights, load_backend
from rnnzoo.spec.errors import FileError, InputError, UnsupportedError, WeightError
from rnnzoo.spec.found import FoundLayer, Hints
from rnnzoo.spec.parts import StoredWeights
from rnnzoo.spec.sandbox import examined
from rnnzoo.spec.stored import StoredTensor
from rnnzoo.spec.streaming import Rows
from rnnzoo.torch_impl import Recurrent, SequenceModel, files, unpickling
from rnnzoo.torch_impl.checkpoint import contents
from rnnzoo.torch_impl.files import FILES
from rnnzoo.torch_impl.finding import layers_in
from rnnzoo.torch_impl.naming import plain_names, state_dict_names
from rnnzoo.torch_impl.plain import BACKEND as PLAIN
from rnnzoo.torch_impl.records import ORDERED_DICT, Global, Held, Storage, Tensor
from rnnzoo.torch_impl.unpickling import unpickled
from rnnzoo.torch_impl.writing import pickled, write_checkpoint

I, H = 3, 5  # noqa: E741 (the spec's symbol)
VARIANTS = ("simple_rnn", "bi_rnn", "stacked_rnn", "stacked_bi_rnn")


def spec_of(variant: str = "stacked_bi_rnn", **options: Any) -> ModelSpec:
    return ModelSpec(variant, I, H, 2 if "stacked" in variant else 1, **options)


FULL = spec_of(embedding=Embedding(11), head=Head(7), context=Context(2))


@pytest.fixture(autouse=True)
def in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No child process for each of hundreds of small files; a test that wants one takes `in_a_child`."""
    monkeypatch.setattr(files, "examined", lambda _, path: contents(path))


@pytest.fixture
def in_a_child(monkeypatch: pytest.MonkeyPatch, in_one_process: None) -> None:
    """As users read files."""
    monkeypatch.setattr(files, "examined", examined)


def found(path: Path, **hints: Any) -> FoundLayer:
    """The only layer in the file."""
    (layer,) = FILES.find(path, Hints(**hints)).layers
    return layer


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def assert_same_bits(layer: FoundLayer, module: nn.Module) -> None:
    """The weights of the layer are the module's, widened to float32 where they are half as wide."""
    assert layer.spec is not None and layer.refusal is None
    for name, own in state_dict_names(layer.spec, "").items():
        tensor = module.get_parameter(own if hasattr(module, own) else own.removesuffix("_l0")).detach()
        expected = (tensor.float() if tensor.element_size() == 2 else tensor).numpy()
        array = StoredWeights(layer.parts)[name]
        assert array.dtype == expected.dtype and array.tobytes() == expected.tobytes()


# Found


def checkpoint(module: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.Adam(module.parameters())
    sum(parameter.sum() for parameter in module.parameters()).backward()
    optimizer.step()
    return {"epoch": 3, "nets": [{"best": module.state_dict()}], "optimizer": optimizer.state_dict(), "lr": 1e-3}


WAYS: Mapping[str, tuple[str, Callable[[nn.Module], Any]]] = {
    "bare": ("", nn.Module.state_dict),
    "wrapped": ("state_dict", lambda module: {"state_dict": module.state_dict()}),
    "checkpoint": ("nets.0.best", checkpoint),
    "deep": ("encoder.rnn", lambda module: nn.ModuleDict({"encoder": nn.ModuleDict({"rnn": module})}).state_dict()),
    "DataParallel": ("0", lambda module: nn.DataParallel(nn.Sequential(module, nn.Linear(H, 1))).state_dict()),
    "compiled": ("0", lambda module: torch.compile(nn.DataParallel(nn.Sequential(module))).state_dict()),
    "whole module": ("net.0", lambda module: {"net": nn.Sequential(module)}),
}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, of its compiler
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("layers", "bidirectional", "bias", "dtype"),
    [
        (1, False, True, "float32"),
        (2, False, False, "float64"),
        (1, True, False, "bfloat16"),
        (3, True, True, "float16"),
    ],
)
def test_a_layer_is_found_bit_by_bit_however_it_was_saved(
    tmp_path: Path, way: str, layers: int, bidirectional: bool, bias: bool, dtype: str
) -> None:
    module = nn.RNN(I, H, layers, bias=bias, bidirectional=bidirectional, dtype=getattr(torch, dtype))
    path, wrap = WAYS[way]
    layer = found(saved(tmp_path / "model.pt", wrap(module)))
    variant = f"{'stacked_' if layers > 1 else ''}{'bi_rnn' if bidirectional else 'rnn'}"
    variant = "simple_rnn" if variant == "rnn" else variant
    assert (layer.path, layer.kind) == (path, "torch.nn.RNN")
    assert layer.spec == ModelSpec(variant, I, H, layers, bias="double" if bias else "none")
    assert layer.assumed == (() if way == "whole module" else ("nonlinearity",))
    assert_same_bits(layer, module)


@pytest.mark.parametrize(
    "options",
    [dict(zip(("num_layers", "nonlinearity", "bias", "batch_first", "dropout", "bidirectional"), values, strict=True))
     for values in product((1, 2), ("tanh", "relu"), (True, False), (True, False), (0.0, 0.5), (True, False))
     if values[0] > 1 or not values[4]],
    ids=lambda options: "-".join(map(str, options.values())),
)  # fmt: skip
def test_every_option_of_the_constructor_converts_there_and_back(tmp_path: Path, options: dict[str, Any]) -> None:
    module = nn.RNN(I, H, **options)
    layer = found(saved(tmp_path / "in.pt", module.state_dict()), nonlinearity=options["nonlinearity"])
    assert layer.spec == PLAIN.spec_of(module)
    contents = Contents(layer.spec, StoredWeights(layer.parts), {})
    FILES.write(tmp_path / "out.pt", contents, plain=True)
    again = nn.RNN(I, H, **options)
    again.load_state_dict(torch.load(tmp_path / "out.pt", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    written = PLAIN.loaded(tmp_path / "out.pt", layer.spec)
    assert_equivalent(module, written)
    assert_equivalent(module, written, np.linspace(-1, 1, 2 * 4 * I).reshape(2, 4, I))


def test_a_whole_module_tells_its_nonlinearity(tmp_path: Path) -> None:
    layer = found(saved(tmp_path / "model.pt", nn.Sequential(nn.RNN(I, H, nonlinearity="relu"))))
    assert layer.spec is not None and layer.spec.nonlinearity == "relu" and layer.assumed == ()


def test_the_nonlinearity_is_assumed_or_given(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", nn.RNN(I, H, nonlinearity="relu").state_dict())
    for given, nonlinearity in ((None, "tanh"), ("relu", "relu")):
        layer = found(path, nonlinearity=given)
        assert layer.spec is not None and layer.spec.nonlinearity == nonlinearity
        assert layer.assumed == ("nonlinearity",)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_a_whole_cell_tells_its_nonlinearity_and_its_state_dict_does_not(tmp_path: Path, nonlinearity: str) -> None:
    cell = nn.ModuleDict({"step": nn.RNNCell(I, H, nonlinearity=nonlinearity)})
    layer = found(saved(tmp_path / "whole.pt", cell))
    assert layer.spec is not None and (layer.spec.nonlinearity, layer.assumed) == (nonlinearity, ())
    assert found(saved(tmp_path / "state.pt", cell.state_dict())).assumed == ("nonlinearity",)


@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_is_a_layer(tmp_path: Path, bias: bool) -> None:
    cell = nn.RNNCell(I, H, bias=bias)
    layer = found(saved(tmp_path / "cell.pt", nn.ModuleDict({"step": cell}).state_dict()))
    assert (layer.path, layer.kind) == ("step", "torch.nn.RNNCell")
    assert layer.spec == spec_of("simple_rnn", bias="double" if bias else "none")
    assert_same_bits(layer, cell)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_is_read(tmp_path: Path, protocol: int) -> None:
    module = nn.RNN(I, H)
    module.weight_hh_l0.note = "an attribute of a parameter"
    content = {"args": {"size": 2**70, "rates": {1e-3, 1e-4}, "bytes": b"\0\xff", "none": None}, "net": module}
    assert_same_bits(found(saved(tmp_path / "model.pt", content, pickle_protocol=protocol)), module)


def test_several_layers_are_found_in_the_order_of_the_file_and_the_rest_is_listed(tmp_path: Path) -> None:
    net = nn.ModuleDict({"b": nn.RNN(I, H), "a": nn.RNN(I, 2, bias=False), "head": nn.Linear(H, 1)})
    file = FILES.find(saved(tmp_path / "model.pt", {"model": net.state_dict(), "epoch": 7, "note": "best"}))
    assert [layer.path for layer in file.layers] == ["model.b", "model.a"]
    assert list(file.rest) == ["model.head.weight", "model.head.bias"]
    assert file.rest["model.head.weight"].array().tobytes() == net["head"].weight.detach().numpy().tobytes()
    assert file.facts == {"epoch": "7", "note": "best"} and file.provenance is None


def test_wrappers_are_shown_where_two_layers_would_have_one_name(tmp_path: Path) -> None:
    tensors = {
        f"{prefix}{name}": tensor for prefix in ("", "module.") for name, tensor in nn.RNN(I, H).state_dict().items()
    }
    file = FILES.find(saved(tmp_path / "model.pt", tensors))
    assert [layer.path for layer in file.layers] == ["", "module"]


def test_views_of_a_storage_are_read_where_they_lie(tmp_path: Path) -> None:
    module, whole = nn.RNN(I, H), torch.randn(400)
    views = {
        "weight_ih_l0": whole[7:22].view(I, H).T,
        "weight_hh_l0": whole[100:].as_strided((H, H), (11, 3), 100),
        "bias_ih_l0": whole[200:260:12],
        "bias_hh_l0": whole[399].expand(H),
    }
    layer = found(saved(tmp_path / "views.pt", views))
    module.load_state_dict(views)
    assert_same_bits(layer, module)
    assert len({part.tensor.path for part in layer.parts.values()}) == 1


def test_a_state_dict_under_two_names_is_shown_once(tmp_path: Path) -> None:
    held = nn.RNN(I, H).state_dict()
    cyclic: dict[str, Any] = {"first": held, "second": held}
    cyclic["again"] = [cyclic]
    assert found(saved(tmp_path / "model.pt", cyclic)).path == "first"


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
    """The archive with its members changed; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: change(name.partition("/")[2], archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def test_numbers_of_a_big_endian_machine_are_read(tmp_path: Path) -> None:
    module = nn.RNN(I, H)

    def swapped(name: str, data: bytes) -> bytes:
        return b"big" if name == "byteorder" else np.frombuffer(data, "<f4").astype(">f4").tobytes() if (
            name.startswith("data/")
        ) else data  # fmt: skip

    path = rewritten(saved(tmp_path / "model.pt", module.state_dict()), swapped)
    assert_same_bits(found(path), module)


def test_a_changed_number_is_noticed_unless_torch_wrote_no_checksums(tmp_path: Path) -> None:
    state = OrderedDict((name, torch.ones_like(tensor)) for name, tensor in nn.RNN(I, H).state_dict().items())
    for checked in (True, False):
        torch.serialization.set_crc32_options(checked)
        try:
            path = saved(tmp_path / f"{checked}.pt", state)
        finally:
            torch.serialization.set_crc32_options(True)
        layer = found(path)
        part = layer.parts["layers.0.forward.recurrent_weight"]
        data = bytearray(path.read_bytes())
        data[part.tensor.offset] ^= 1
        path.write_bytes(data)
        if checked:
            with pytest.raises(FileError, match="damaged"):
                part.array()
        else:
            assert part.array()[0, 0] != 1


# Refused by name


@pytest.mark.parametrize(
    ("module", "kind"),
    [(nn.LSTM(I, H), "LSTM"), (nn.GRU(I, H), "GRU"), (nn.LSTM(I, H, proj_size=2), "LSTM"),
     (nn.LSTMCell(I, H), "LSTMCell"), (nn.GRUCell(I, H), "GRUCell")],
)  # fmt: skip
def test_other_cells_are_refused_by_name(tmp_path: Path, module: nn.Module, kind: str) -> None:
    path = saved(tmp_path / "other.pt", nn.ModuleDict({"encoder": module}).state_dict())
    layer = found(path)
    assert layer.path == "encoder" and layer.kind == f"torch.nn.{kind}"
    assert layer.spec is None and layer.refusal is not None and kind in layer.refusal
    with pytest.raises(UnsupportedError, match=f"{kind} weights"):
        found(path, spec=spec_of("simple_rnn"))


def weight_normed() -> nn.Module:
    return torch.nn.utils.parametrizations.weight_norm(nn.RNN(I, H), "weight_hh_l0")


def pruned() -> nn.Module:
    return prune.l1_unstructured(nn.RNN(I, H), "weight_hh_l0", 2)


@pytest.mark.parametrize("module", [weight_normed, pruned])
def test_computed_weights_are_refused(tmp_path: Path, module: Callable[[], nn.Module]) -> None:
    layer = found(saved(tmp_path / "model.pt", nn.ModuleDict({"a": module()}).state_dict()))
    assert layer.path == "a" and layer.refusal is not None and "computed from others" in layer.refusal


def test_a_weight_norm_of_the_old_kind_is_refused(tmp_path: Path) -> None:
    state = nn.RNN(I, H).state_dict()
    state["weight_hh_l0_g"], state["weight_hh_l0_v"] = torch.ones(H, 1), state.pop("weight_hh_l0")
    refusal = found(saved(tmp_path / "model.pt", state)).refusal
    assert refusal is not None and "'weight_hh_l0_g', 'weight_hh_l0_v'" in refusal


def changed(**tensors: Any) -> dict[str, Any]:
    state = {**nn.RNN(I, H, 2).state_dict(), **tensors}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [({"weight_hh_l1": None}, "missing 'weight_hh_l1'"), ({"weight_ih_l0": None}, "weight_ih_l0"),
     ({"bias_hh_l0": None}, "missing 'bias_hh_l0'"), ({"weight_ih_l9": torch.ones(H, H)}, "missing"),
     ({"weight_ih_l1": torch.ones(H, 2 * H)}, r"expected shape \(5, 5\), got \(5, 10\)"),
     ({"weight_hh_l0": torch.ones(H)}, "weight_hh|shape|unpack"),
     ({"bias_hh_l0": torch.ones(H, dtype=torch.float64)}, "one dtype"),
     ({"weight_hh_l0": torch.ones(H, H).to_sparse()}, "sparse"),
     ({"bias_hh_l1": torch.ones(H, dtype=torch.int64)}, "int64"),
     ({"bias_hh_l0": torch.empty(H, device="meta")}, "meta"),
     ({"weight_hh_l0": torch.ones(H, H).to(torch.float8_e4m3fn)}, "float8_e4m3fn"),
     ({"weight_ih_l0": torch.ones(0, I), "weight_hh_l0": torch.ones(0, 0)}, "no whole")],
)  # fmt: skip
def test_a_layer_that_is_not_whole_is_refused_with_what_is_wrong(
    tmp_path: Path, tensors: dict[str, Any], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        refusal = found(saved(tmp_path / "model.pt", changed(**tensors))).refusal
        raise AssertionError(refusal)


def test_a_quantized_layer_is_refused(tmp_path: Path) -> None:
    name = b"0._all_weight_values.0.param"  # as quantize_dynamic names what torch alone can unpack
    pickle_ = b"\x80\x02}X" + struct.pack("<I", len(name)) + name + b"ctorch\nScriptObject\n)\x81N\x85bs."
    refusal = found(archive(tmp_path / "model.pt", pickle_)).refusal
    assert refusal is not None and "quantized" in refusal


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_file_of_old_torch_is_refused_by_name(tmp_path: Path, protocol: int) -> None:
    options = {"_use_new_zipfile_serialization": False, "pickle_protocol": protocol}
    path = saved(tmp_path / "old.pt", nn.RNN(I, H).state_dict(), **options)
    with pytest.raises(FileError, match=r"torch before 1\.6.*renew it"):
        FILES.find(path)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_programs_are_refused_by_name(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(I, H), torch.ones(2, I)), tmp_path / "script.pt")
    program = torch.export.export(nn.Linear(I, H), (torch.ones(2, I),))
    torch.export.save(program, tmp_path / "exported.pt2")
    for name in ("script.pt", "exported.pt2"):
        with pytest.raises(FileError, match=r"a program of torch\.jit or torch\.export"):
            FILES.find(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [({}, "got dict without tensors"), ([1], "got list"), ({"epoch": 3}, "without tensors"), ("text", "got str"),
     ({"state_dict": {"a": torch.ones(2)}, "rnnzoo": 3}, "expected text, got int"),
     ({"state_dict": {"a": torch.ones(2)}, "rnnzoo": "{"}, "metadata"),
     ({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}, "two tensors have the name 'a.b'")],
)  # fmt: skip
def test_content_that_is_no_model_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(FileError, match=message):
        FILES.find(saved(tmp_path / "model.pt", content))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged", b"not a model", b"\x80\x02}q\x00."])
def test_why_a_file_is_unreadable_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(FileError, match=r"cannot be read as a torch checkpoint: .+; .*torch.save") as raised:
        FILES.find(tmp_path / "model.pt")
    assert str(raised.value).startswith(str(tmp_path / "model.pt")) and "\n" not in str(raised.value)
    (tmp_path / "model.torch.safetensors").write_bytes(content)
    with pytest.raises(FileError, match="safetensors"):
        FILES.find(tmp_path / "model.torch.safetensors")


# The layout of this package


SUFFIXES = (".pt", ".torch.safetensors")


def numbers(spec: ModelSpec, dtype: str = "float64") -> dict[str, np.ndarray]:
    """Weights with a zero that is negative, and one that is no number."""
    weights = {name: -array for name, array in initial_weights(spec, 4, dtype).items()}
    next(iter(weights.values())).flat[:2] = -0.0, np.nan
    return weights


def written(path: Path, spec: ModelSpec, *, plain: bool = False, prefix: str = "", dtype: str = "float64") -> Path:
    FILES.write(path, Contents(spec, numbers(spec, dtype), {"task": "digits"}), plain=plain, prefix=prefix)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("spec", "plain"),
    [(FULL, False), (spec_of("bi_rnn", merge="sum", nonlinearity="sigmoid"), False), (spec_of(bias="double"), True),
     (spec_of("stacked_rnn", bias="none", embedding=Embedding(11), head=Head(7, bias=False, reads="final")), True)],
)  # fmt: skip
def test_a_file_keeps_every_bit_the_spec_and_the_provenance(
    tmp_path: Path, spec: ModelSpec, plain: bool, suffix: str
) -> None:
    for prefix in ("", "net.encoder."):
        file = FILES.find(written(tmp_path / f"model{suffix}", spec, plain=plain, prefix=prefix if plain else ""))
        assert (file.spec, file.provenance, file.rest) == (spec, {"task": "digits"}, {})
        (layer,) = file.layers
        assert (layer.path, layer.kind, layer.spec, layer.assumed) == ("", "rnnzoo", spec, ())
        assert {name: array.tobytes() for name, array in StoredWeights(layer.parts).items()} == {
            name: array.tobytes() for name, array in numbers(spec).items()
        }


def test_the_state_dict_of_a_file_loads_into_the_module(tmp_path: Path) -> None:
    content = torch.load(written(tmp_path / "model.pt", FULL), weights_only=True)
    assert set(content) == {"state_dict", "rnnzoo"}
    assert list(content["state_dict"]) == list(state_dict_names(FULL).values())
    SequenceModel(FULL, dtype="float64").load_state_dict(content["state_dict"])


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"state_dict": d}], ids=["bare", "wrapped"])
def test_a_state_dict_of_ours_is_found_with_its_spec(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    for spec in (FULL, spec_of("bi_rnn", merge="sum", nonlinearity="sigmoid")):
        path = saved(tmp_path / "model.pt", wrap(load_backend("torch").build(spec, seed=3).state_dict()))
        layer = found(path, spec=spec)
        weights, expected = StoredWeights(layer.parts), initial_weights(spec, 3)
        assert layer.spec == spec and all(np.array_equal(weights[name], expected[name]) for name in expected)


def test_a_core_of_ours_is_found_by_its_single_bias(tmp_path: Path) -> None:
    state = Recurrent(spec_of("bi_rnn")).state_dict()
    layer = found(saved(tmp_path / "model.pt", {"net": state}))
    assert (layer.path, layer.kind, layer.spec) == ("net", "rnnzoo", spec_of("bi_rnn"))
    assert layer.assumed == ("nonlinearity", "merge")


def test_tensors_that_do_not_fit_the_spec_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "rnn.pt", nn.RNN(I, H, 2, bidirectional=True).state_dict())
    with pytest.raises(WeightError, match=rf"{path}: .*missing 'bias_l0'.*surplus 'bias_hh_l0'"):
        FILES.find(path, Hints(spec_of(bias="single")))
    with pytest.raises(WeightError, match=r"expected shape \(5, 5\), got \(5, 10\)"):
        FILES.find(path, Hints(spec_of(bias="double", merge="sum")))
    path = saved(tmp_path / "other.pt", {"fc.weight": torch.ones(2)})
    with pytest.raises(WeightError, match=r"no state dict of a stacked_bi_rnn in it, got 'fc\.weight'"):
        FILES.find(path, Hints(spec_of()))


def test_a_spec_finds_its_model_among_others(tmp_path: Path) -> None:
    net = nn.ModuleDict({"other": nn.LSTM(I, H), "small": nn.RNN(I, 2), "large": nn.RNN(I, H)})
    layer = found(saved(tmp_path / "model.pt", {"model": net.state_dict()}), spec=spec_of("simple_rnn", bias="double"))
    assert layer.path == "model.large" and layer.kind == "torch.nn.RNN"
    assert_same_bits(layer, net["large"])


def test_a_spec_is_looked_for_below_many_prefixes_at_once() -> None:
    """Each prefix is below the one before it, and all names are below each: they are not looked at for each."""
    one = StoredTensor(Path("a"), 0, "float32", (2, 2))
    prefixes = ["a." * depth for depth in range(100)]
    tensors = {f"{prefix}{name}": one for prefix in prefixes for name in ("weight_ih_l0", "weight_hh_l0")}
    tensors |= {f"{prefixes[-1]}{number}": one for number in range(20_000)}
    start = time.process_time()
    with pytest.raises(WeightError, match="20,200 tensors below '', expected 2"):
        layers_in(tensors, Hints(ModelSpec("simple_rnn", 2, 2, bias="none")))
    assert time.process_time() - start < 1.5  # 0.12 seconds; 3.7 where each prefix looks at all names


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_file_gets_one_error(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"model{suffix}", FULL)
    data = path.read_bytes()
    for part in (0.3, 0.9, 0.999):
        path.write_bytes(data[: int(part * len(data))])
        with pytest.raises(FileError):
            FILES.find(path)


# Standard layers


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("prefix", ["", "encoder.rnn."])
@pytest.mark.parametrize(
    ("variant", "nonlinearity", "bias"), [*product(VARIANTS, ("tanh", "relu"), ("none", "double"))]
)
def test_a_plain_file_is_a_state_dict_of_nn_rnn(
    tmp_path: Path, variant: str, nonlinearity: str, bias: str, prefix: str, suffix: str
) -> None:
    spec, path = spec_of(variant, nonlinearity=nonlinearity, bias=bias), tmp_path / f"model{suffix}"
    model = load_backend("torch").build(spec, seed=2)
    FILES.write(path, Contents(spec, load_backend("torch").to_spec(model), {}), plain=True, prefix=prefix)
    state = torch.load(path, weights_only=True, mmap=True) if suffix == ".pt" else safetensors.torch.load_file(path)
    module = nn.RNN(I, H, spec.num_layers, nonlinearity, bias == "double", bidirectional="bi" in variant)
    nest = nn.ModuleDict({"encoder": nn.ModuleDict({"rnn": module})}) if prefix else module
    nest.load_state_dict(state)
    assert_equivalent(model, module)
    assert_equivalent(model, PLAIN.loaded(path, spec, prefix))


@pytest.mark.parametrize("head", [Head(7), Head(7, bias=False), Head(7, reads="final")])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_plain_whole_model_computes_the_same(tmp_path: Path, variant: str, head: Head) -> None:
    spec = spec_of(variant, bias="double", embedding=Embedding(11), head=head)
    model = load_backend("torch").build(spec, seed=2, dtype="float64")
    FILES.write(
        tmp_path / "model.pt", Contents(spec, load_backend("torch").to_spec(model), {}), plain=True, prefix="a."
    )
    assert list(torch.load(tmp_path / "model.pt", weights_only=True)) == [
        f"a.{own}" for own in plain_names(spec).values()
    ]
    assert_equivalent(model, PLAIN.loaded(tmp_path / "model.pt", spec, "a."))


@pytest.mark.parametrize(
    ("spec", "message"),
    [(spec_of(), "two biases or none, not a single"), (spec_of(bias="none", nonlinearity="sigmoid"), "not sigmoid"),
     (spec_of(bias="none", merge="sum"), "it has no sum"), (spec_of(bias="none", context=Context(2)), "no context")],
)  # fmt: skip
def test_what_standard_layers_cannot_be_is_refused_by_name(spec: ModelSpec, message: str) -> None:
    reason = FILES.holds(spec, plain=True)
    assert reason is not None and message in reason and FILES.holds(spec, plain=False) is None
    if spec.bias != "single":
        with pytest.raises(UnsupportedError, match=message):
            PLAIN.build(spec)


@pytest.mark.parametrize("plain", [True, False])
def test_numbers_are_aligned_and_the_archive_is_whole_and_always_the_same(tmp_path: Path, plain: bool) -> None:
    spec = spec_of(bias="double")
    paths = [written(tmp_path / name, spec, plain=plain) for name in ("a.pt", "b.pt")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert all(part.tensor.offset % 64 == 0 and part.tensor.checksum for part in found(paths[0]).parts.values())
    with zipfile.ZipFile(paths[0]) as archive:
        assert archive.testzip() is None


def test_weights_are_written_one_after_the_other(tmp_path: Path) -> None:
    value, read = {"a": Tensor(Storage("0", "FloatStorage", 2), 0, (2,), (1,))}, []

    def arrays() -> Any:
        for number in range(2):
            read.append((number, (tmp_path / "model.pt").stat().st_size))
            yield Rows.of(np.full(2**20, number, np.float32))

    write_checkpoint(tmp_path / "model.pt", value, arrays())
    assert read[0] == (0, read[0][1]) and read[1][1] - read[0][1] >= 2**22


def test_torch_is_not_needed(tmp_path: Path, fresh_python: Callable[..., CompletedProcess[str]]) -> None:
    code = f"""
import sys
from pathlib import Path
from rnnzoo.spec import Contents, ModelSpec, initial_weights
from rnnzoo.torch_impl.files import FILES
from rnnzoo.torch_impl.finding import layers_in
spec, path = ModelSpec("simple_rnn", 3, 5), Path({str(tmp_path)!r})
for name in ("model.pt", "model.torch.safetensors"):
    FILES.write(path / name, Contents(spec, initial_weights(spec, 1), {{}}))
    print(FILES.find(path / name).layers[0].spec == spec)
print("torch" in sys.modules)
"""
    done = fresh_python(code)
    assert (done.stdout.split(), done.stderr) == (["True", "True", "False"], "")


# Standard layers at the seam


def test_a_layer_is_run_without_dropout_and_left_as_it_was() -> None:
    module = nn.RNN(I, H, 2, dropout=0.5).train()
    module.weight_hh_l0.requires_grad_(False)
    inputs = np.ones((2, 3, I), np.float32)
    first, second = (PLAIN.run(module, inputs).outputs for _ in range(2))
    gradient = PLAIN.gradients(module, inputs, np.ones((2, 3, H)))
    assert np.array_equal(first, second) and gradient["layers.0.forward.recurrent_weight"].any()
    assert module.training and module.dropout == 0.5 and not module.weight_hh_l0.requires_grad
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_agrees_with_the_layer_that_has_its_weights(bias: bool) -> None:
    cell, layer = nn.RNNCell(I, H, bias, "relu"), nn.RNN(I, H, 1, "relu", bias, batch_first=True)
    PLAIN.from_spec(layer, PLAIN.to_spec(cell))
    assert PLAIN.spec_of(cell) == PLAIN.spec_of(layer)
    assert_equivalent(cell, layer)


def test_a_single_bias_is_the_input_bias_of_standard_layers() -> None:
    model: Any = PLAIN.build(spec_of("simple_rnn"), seed=1)
    assert not model.bias_hh_l0.any() and model.bias_ih_l0.any()
    assert_equivalent(model, load_backend("torch").build(spec_of("simple_rnn"), seed=1))


@pytest.mark.parametrize(
    ("module", "message"),
    [(nn.LSTM(I, H), "LSTM"), (nn.GRUCell(I, H), "GRUCell"), (nn.Linear(I, H), "Linear"),
     (nn.Sequential(nn.RNN(I, H)), "give one of its layers: '0'")],
)  # fmt: skip
def test_modules_that_are_no_such_layers_are_named(module: nn.Module, message: str) -> None:
    assert PLAIN.owns(module) and not PLAIN.owns([module])
    with pytest.raises(UnsupportedError, match=message):
        PLAIN.spec_of(module)


def test_sequences_that_cannot_be_packed_are_named() -> None:
    module, inputs = nn.RNN(I, H), np.ones((2, 3, I))
    with pytest.raises(InputError, match="greater than 0, got 0"):
        PLAIN.run(module, inputs, lengths=[3, 0])
    with pytest.raises(UnsupportedError, match="no holes"):
        PLAIN.run(module, inputs, mask=np.array([[True, False, True]] * 2))


# Hostile files: nothing is run, nothing else is taken


class Call:
    """A pickle of it calls a function when it is read as code."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def archive(path: Path, pickle_: bytes, members: Mapping[str, bytes] | None = None, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, data in {"data.pkl": pickle_, "byteorder": b"little", **(members or {})}.items():
            file.writestr(f"archive/{name}", data)
    return path


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_calls_a_function_is_refused_and_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    calls = {
        "mkdir": Call(os.mkdir, str(tmp_path / "made")), "eval": Call(eval, "1/0"),
        "load": Call(torch.hub.load, "a", "b"), "getattr": Call(getattr, Options, "__init__"),
        "frombuffer": Call(np.frombuffer, b"12345678"), "import_module": Call(importlib.import_module, "antigravity"),
    }  # fmt: skip
    for name, call in calls.items():
        content = {"state_dict": nn.RNN(I, H).state_dict(), "hostile": call}
        path = saved(tmp_path / "hostile.pt", content, pickle_protocol=protocol)
        with pytest.raises(FileError, match=rf"its pickle calls \S+{name}, which is no tensor") as raised:
            FILES.find(path)
        assert "\x1b" not in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "made").exists()
    path = saved(tmp_path / "hostile.pt", calls["mkdir"])
    torch.load(path, weights_only=False)  # it is hostile indeed
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "pickle_",
    [
        b"(S'touch made'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch made'\no.",
        b"cposix\nsystem\n(S'touch made'\ntR.",
        b"ccommands\ngetoutput\n(S'ls'\ntR.",
    ],
)
def test_calls_of_old_protocols_are_refused(tmp_path: Path, pickle_: bytes) -> None:
    with pytest.raises(FileError, match=r"its pickle calls \w+\.(system|getoutput)"):
        contents(archive(tmp_path / "hostile.pt", pickle_))


class Options:
    """Somebody's own class."""

    def __init__(self) -> None:
        self.rate = 0.1

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("made")


def test_objects_of_any_class_are_left_as_records(tmp_path: Path) -> None:
    content = {"options": Options(), "path": tmp_path, "array": np.ones(3), "number": np.float32(2), "rnn": None}
    module = nn.RNN(I, H)
    content["rnn"] = module.state_dict()
    assert_same_bits(found(saved(tmp_path / "model.pt", content)), module)


TWICE = b"2\x86" * 60  # the pair of what is on the stack and itself, sixty times
HOSTILE_PICKLES = {
    "no end": (b"\x80\x02}", "exhausted"),
    "nothing": (b".", "damaged"),
    "a number": (b"\x80\x02K\x01.", "got int without tensors"),
    "a name": (b"\x80\x02ca\nb\n.", "got Global without tensors"),
    "an unknown opcode": (b"\x80\x02\xff.", "damaged"),
    "an opcode that torch does not write": (b"\x80\x02\x82\x01.", "EXT1"),
    "a memo that is not there": (b"\x80\x02h\x07.", "damaged"),
    "a persistent id as text": (b"Pid\n.", "PERSID"),
    "a mark that is not there": (b"\x80\x02t.", "damaged"),
    "deep nesting": (b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".", "as many levels"),
    "a key that takes for ever to hash": (b"\x80\x02}K\x01" + TWICE + b"K\x01s.", "without tensors"),
    "a name that takes for ever to write": (b"\x80\x02K\x01" + TWICE + b")R.", "expected a name, got tuple"),
    "a text that is longer than the file": (b"\x80\x02X\xff\xff\xff\x7fa.", "damaged"),
    "a number of many digits": (b"\x80\x02L" + b"9" * 10**5 + b"L\n.", "damaged"),
    "a memo far away": (b"\x80\x02]r\xff\xff\xff\x7f.", "without tensors"),
    "a long name": (pickle.dumps({"a" * 2000: [[1]]}, 2), "more than 1,024 characters"),
}


@pytest.mark.parametrize("name", HOSTILE_PICKLES)
def test_a_hostile_pickle_gets_one_error_at_once(tmp_path: Path, name: str) -> None:
    pickle_, message = HOSTILE_PICKLES[name]
    start = time.monotonic()
    with pytest.raises(FileError, match=message):
        contents(archive(tmp_path / "hostile.pt", pickle_))
    assert time.monotonic() - start < 5


def test_the_steps_of_a_pickle_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickling, "MAXIMUM_STEPS", 1000)
    assert unpickled(b"]" + b"N0" * 499 + b".") == []
    with pytest.raises(FileError, match="more than 1,000 steps"):
        unpickled(b"]" + b"N0" * 500 + b".")


def test_a_pickle_of_too_many_steps_is_refused_in_time(tmp_path: Path, in_a_child: None) -> None:
    start = time.monotonic()
    with pytest.raises(FileError):
        FILES.find(archive(tmp_path / "hostile.pt", b"\x80\x02]" + b"N0" * 2**24 + b"."))
    assert time.monotonic() - start < 12


def test_warnings_over_a_pickle_end_nothing(tmp_path: Path, in_a_child: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python warns of an escape that it does not know, wherever it stands."""
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    module = nn.RNN(I, H)
    path = saved(tmp_path / "a.pt", {"note": "n", "rnn": module.state_dict()})
    with zipfile.ZipFile(path) as file:
        members = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    note = b"X\1\0\0\0n"
    assert members["data.pkl"].count(note) == 1
    pickle_ = members.pop("data.pkl").replace(note, b"S'\\d'\n")
    assert_same_bits(found(archive(tmp_path / "b.pt", pickle_, members)), module)


def tensor(count: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], key: str = "0") -> bytes:
    return pickled({"a": Tensor(Storage(key, "FloatStorage", count), offset, shape, strides)})


@pytest.mark.parametrize(
    "pickle_",
    [tensor(5, 0, (4,), (1,)), tensor(4, 1, (4,), (1,)), tensor(4, 0, (2, 2), (3, 1)), tensor(4, 0, (4,), (1,), "9"),
     tensor(4, 0, (4,), (1,), "../data.pkl"), tensor(4, -1, (4,), (1,)), tensor(4, 3, (4,), (-1,)),
     tensor(4, 0, (10**12,), (0,)), tensor(4, 0, (2**40, 2**40), (0, 0)), tensor(4, 2**62, (1,), (1,)),
     tensor(4, 0, (2,), (2**62,)), tensor(4, 0, (2**70,), (1,)), tensor(-4, 0, (4,), (1,)), tensor(4, 0, (4,), ()),
     tensor(4, 0, (1,) * 65, (1,) * 65)],
)  # fmt: skip
def test_a_tensor_never_reaches_beyond_its_storage(tmp_path: Path, pickle_: bytes) -> None:
    with pytest.raises(FileError):
        contents(archive(tmp_path / "hostile.pt", pickle_, {"data/0": bytes(16)}))


def test_strides_of_axes_with_one_element_do_no_harm(tmp_path: Path) -> None:
    pickle_ = tensor(4, 0, (1, 4, 1), (2**62, 1, 2**62))
    file = FILES.find(archive(tmp_path / "model.pt", pickle_, {"data/0": bytes(16)}))
    assert file.rest["a"].array().shape == (1, 4, 1)


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    big = saved(tmp_path / "bomb.pt", {"weight_hh_l0": torch.zeros(2**22)})
    path = rewritten(big, lambda _, data: data, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    with pytest.raises(FileError, match="is compressed, as torch"):
        FILES.find(path)


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "hostile.pt", tensor(4, 0, (4,), (1,)), {"data/0": bytes(16), "data/1": bytes(16)})
    data = bytearray(path.read_bytes())
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    data[entries[3] + 42 : entries[3] + 46] = data[entries[2] + 42 : entries[2] + 46]  # where its header is
    path.write_bytes(data)
    with pytest.raises(FileError, match="overlap"):
        contents(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/../data/0", "/archive/data/0", "other/data.pkl"])
def test_a_directory_that_misleads_is_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "hostile.pt", tensor(4, 0, (4,), (1,)), {"data/0": bytes(16)})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, tensor(4, 0, (4,), (1,)))
    with pytest.raises(FileError):
        contents(path)


def test_pickles_of_our_own_are_read_back() -> None:
    record = Tensor(Storage("7", "DoubleStorage", 2**40), 3, (2, 300), (2**33, 1))
    value = {
        "a": ("text ü", 0, -1, 2**70, False),
        "b": Held(ORDERED_DICT, {"c": record}, {"note": "x"}),
        "d": Global("a", "b"),
    }
    again = unpickled(pickled(value))
    assert again == value and again["b"].state == {"note": "x"} and again["b"].kind == ORDERED_DICT
    loaded = pickle.loads(pickled({"a": value["a"], "o": Held(ORDERED_DICT, {"c": 1})}))
    assert loaded == {"a": value["a"], "o": OrderedDict(c=1)}


# Large


def test_a_small_layer_in_a_file_of_2_gib_is_found_at_once(tmp_path: Path, in_a_child: None) -> None:
    module, path = nn.RNN(I, H), tmp_path / "large.pt"
    small = {f"rnn.{name}": parameter.detach() for name, parameter in module.named_parameters()}
    storages = {f"{key}": tensor for key, tensor in enumerate(small.values(), 1)}
    value: dict[str, Any] = {"table": Tensor(Storage("0", "FloatStorage", 2**29), 0, (2**19, 2**10), (2**10, 1))}
    for key, (name, item) in enumerate(small.items(), 1):
        value[name] = Tensor(Storage(str(key), "FloatStorage", item.numel()), 0, tuple(item.shape), item.stride())
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archived:
        archived.writestr("archive/data.pkl", pickled(value))
        info = zipfile.ZipInfo("archive/data/0")
        hole(file, archived, info, 2**31)
        for key, item in storages.items():
            archived.writestr(f"archive/data/{key}", item.numpy().tobytes())
    assert path.stat().st_size > 2**31
    start = time.monotonic()
    layer = found(path)
    assert_same_bits(layer, module)
    assert time.monotonic() - start < 5  # 0.3 seconds where nothing else runs


def hole(file: io.BufferedWriter, archived: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> None:
    """A member of zeros that takes no room on the disk."""
    info.file_size = info.compress_size = size
    info.header_offset, info.CRC = file.tell(), 0
    file.write(info.FileHeader(zip64=True))
    file.seek(size, 1)
    archived.start_dir = file.tell()
    archived.filelist.append(info)
    archived.NameToInfo[info.filename] = info
