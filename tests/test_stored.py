"""Tensors as places in files: safetensors headers, archives, `.npz`, and the child process that takes files apart."""

import json
import os
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rnnzoo.conformance.formats import find
from rnnzoo.spec import ModelSpec, archives, initial_weights
from rnnzoo.spec.archives import members
from rnnzoo.spec.backend import load_files
from rnnzoo.spec.checkpoint import FILES as CANONICAL
from rnnzoo.spec.errors import FileError, UnsupportedError, WeightError
from rnnzoo.spec.found import Hints
from rnnzoo.spec.npz import find_npz
from rnnzoo.spec.parts import Part, StoredWeights
from rnnzoo.spec.safetensors_format import read_header, read_shards, write_safetensors
from rnnzoo.spec.sandbox import examined
from rnnzoo.spec.stored import StoredTensor
from rnnzoo.spec.streaming import joined, rows_of, write_rows

SPEC = ModelSpec("stacked_bi_rnn", 3, 4, 2)


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "a.weight": random.standard_normal((3, 5)).astype(np.float32),
        "b": random.standard_normal(4),
        "empty": np.zeros((0, 3), np.float32),
        "half": random.standard_normal((2, 2)).astype(np.float16),
        "scalar": np.array(-0.0, np.float32),
        "steps": np.arange(7),
    }


# safetensors


def test_a_header_gives_every_tensor_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(arrays(), path, metadata={"a": "ü"})
    tensors, metadata = read_header(path)
    assert metadata == {"a": "ü"} and set(tensors) == set(arrays())
    for name, array in arrays().items():
        if array.dtype.kind == "f":
            wanted = array.astype(np.float32) if array.dtype == np.float16 else array
            found = tensors[name].array()
            assert found.dtype == wanted.dtype and found.shape == array.shape and found.tobytes() == wanted.tobytes()
    assert tensors["half"].dtype == "float16"
    with pytest.raises(WeightError, match="got I64"):
        tensors["steps"].array()


@pytest.mark.parametrize(
    "name", ["weight_ih.0." * 200 + "\n", "a\nproof: forged", "\ud800"], ids=["long", "line", "surrogate"]
)
def test_a_name_that_no_honest_file_has_is_refused(tmp_path: Path, name: str) -> None:
    path, header = tmp_path / "a.safetensors", {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(FileError, match="printable"):
        read_header(path)


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC049, 0x0001, 0x7F80, 0x8000], np.uint16)
    path = tmp_path / "a.safetensors"
    header = json.dumps({"w": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bits.tobytes())
    found = read_header(path)[0]["w"].array()
    assert found.dtype == np.float32 and np.array_equal(found.view(np.uint32), bits.astype(np.uint32) << 16)


def test_a_file_is_written_with_the_bytes_of_the_library(tmp_path: Path) -> None:
    some = {name: array for name, array in arrays().items() if array.dtype in (np.float32, np.float64)}
    sizes = {name: (array.dtype.name, array.shape) for name, array in some.items()}
    write_safetensors(tmp_path / "a", sizes, partial(rows_of, some), {"k": 'ü"\n'})
    assert (tmp_path / "a").read_bytes() == safetensors.numpy.save(some, metadata={"k": 'ü"\n'})


@pytest.mark.parametrize("transposed", [False, True])
def test_a_file_that_is_cut_off_after_its_header_was_read_is_refused(tmp_path: Path, transposed: bool) -> None:
    """At the start, and while its numbers are read one piece after the other."""
    matrix = np.arange(64.0).reshape(8, 8)
    safetensors.numpy.save_file({"w": matrix}, tmp_path / "a.safetensors")
    tensor = read_header(tmp_path / "a.safetensors")[0]["w"]
    rows = Part("w", tensor, (), transposed).rows()
    expected = matrix.T if transposed else matrix
    assert np.array_equal(rows.read(0, 1), expected[:1])
    os.truncate(tensor.path, tensor.offset + 8)
    for read in (tensor.array, tensor.mapped, partial(rows.read, 7, 8)):
        with pytest.raises(FileError, match=r"a\.safetensors: ends before its tensor of 64 numbers"):
            read()


def test_a_file_that_is_cut_off_after_its_size_was_looked_at_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safetensors.numpy.save_file({"w": np.arange(64.0)}, tmp_path / "a.safetensors")
    tensor = read_header(tmp_path / "a.safetensors")[0]["w"]
    os.truncate(tensor.path, tensor.offset + 8)
    monkeypatch.setattr(StoredTensor, "_check_size", lambda *_: None)
    for read in (tensor.array, tensor.mapped, partial(tensor.numbers, 7, 8)):
        with pytest.raises(FileError, match=r"a\.safetensors: ends before its tensor of 64 numbers"):
            read()


def shards(folder: Path) -> Path:
    weights = initial_weights(SPEC, 1)
    places = {}
    for number, names in enumerate((list(weights)[:5], list(weights)[5:])):
        shard = f"model-{number}.safetensors"
        safetensors.numpy.save_file({name: weights[name] for name in names}, folder / shard)
        places |= dict.fromkeys(names, shard)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


def test_a_model_in_shards_is_one_model(tmp_path: Path) -> None:
    (layer,) = CANONICAL.find(shards(tmp_path)).layers
    assert layer.spec == SPEC
    for name, array in StoredWeights(layer.parts).items():
        assert array.tobytes() == initial_weights(SPEC, 1)[name].tobytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"weight_map": {"w": "../model-0.safetensors"}}', "same folder"),
        ('{"weight_map": {"w": "/etc/passwd"}}', "same folder"),
        ('{"weight_map": {"w": 3}}', "same folder"),
        ('{"weight_map": {"w": "model-0.safetensors"}}', "not in model-0"),
        ('{"weight_map": {"w": "none.safetensors"}}', "no such file"),
        ('{"weight_map": {"w": "a", "w": "b"}}', "twice"),
        ('{"weight_map": []}', "expected JSON"),
        ("[" * 100_000, "expected JSON"),
    ],
    ids=lambda value: value[:40],
)
def test_a_wrong_index_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = shards(tmp_path)
    path.write_text(text)
    with pytest.raises(FileError, match=words):
        read_shards(path)


# Canonical names in any file


def test_names_below_a_prefix_are_found_and_what_they_do_not_tell_is_said(tmp_path: Path) -> None:
    weights = {f"encoder.{name}": array for name, array in initial_weights(SPEC, 1).items()}
    safetensors.numpy.save_file({**weights, "other": np.zeros(3)}, tmp_path / "a.safetensors")
    found = CANONICAL.find(tmp_path / "a.safetensors", Hints(nonlinearity="relu"))
    (layer,) = found.layers
    assert layer.path == "encoder" and layer.assumed == ("nonlinearity",) and list(found.rest) == ["other"]
    assert layer.spec == ModelSpec("stacked_bi_rnn", 3, 4, 2, "relu")


@pytest.mark.parametrize("spec", [
    ModelSpec("simple_rnn", 3, 4, bias="none"), ModelSpec("bi_rnn", 1, 1),
    ModelSpec("stacked_rnn", 2, 5, 3, bias="double"),
], ids=lambda spec: spec.variant)  # fmt: skip
def test_the_shapes_tell_the_model(tmp_path: Path, spec: ModelSpec) -> None:
    np.savez(tmp_path / "a.npz", **initial_weights(spec, 1))
    (layer,) = load_files("numpy").find(tmp_path / "a.npz").layers
    assert layer.spec == spec


def test_a_merge_that_keeps_the_size_is_not_guessed(tmp_path: Path) -> None:
    spec = ModelSpec("stacked_bi_rnn", 3, 4, 2, merge="sum")
    np.savez(tmp_path / "a.npz", **initial_weights(spec, 1))
    (layer,) = load_files("numpy").find(tmp_path / "a.npz").layers
    assert layer.spec is None and layer.refusal is not None and "--spec" in layer.refusal
    (layer,) = load_files("numpy").find(tmp_path / "a.npz", Hints(spec)).layers
    assert layer.spec == spec


@pytest.mark.parametrize(
    "names",
    [
        ["p{}.layers.0.forward.input_weight", "p{}.layers.0.forward.recurrent_weight"],
        ["p{}.weight_ih_l0", "p{}.weight_hh_l0"],
        ["p{}/simple_rnn_cell/kernel", "p{}/simple_rnn_cell/recurrent_kernel"],
    ],
    ids=["canonical", "torch", "keras"],
)
def test_more_layers_than_any_honest_file_has_are_refused_at_once(tmp_path: Path, names: list[str]) -> None:
    """As many names as fit into a header."""
    one, path = {"dtype": "F32", "shape": [0, 0], "data_offsets": [0, 0]}, tmp_path / "a.safetensors"
    text = json.dumps({name.format(number): one for number in range(2**14) for name in names}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    start = time.process_time()
    with pytest.raises(FileError, match=r"a\.safetensors: expected at most 2,048 recurrent layers .*, got 16,384"):
        find(path)
    assert time.process_time() - start < 5


# .npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
@pytest.mark.parametrize("change", [
    lambda array: array, np.asfortranarray, lambda array: array.astype(array.dtype.newbyteorder(">")),
], ids=["C", "Fortran", "big-endian"])  # fmt: skip
def test_an_npz_file_gives_every_bit(
    tmp_path: Path, save: Callable[..., None], change: Callable[..., np.ndarray]
) -> None:
    some = {name: array for name, array in arrays().items() if name != "steps"}
    save(tmp_path / "a.npz", **{name: change(array) for name, array in some.items()}, text=np.array("ü"))
    tensors, texts = find_npz(tmp_path / "a.npz")
    assert texts == {"text": "ü"} and set(tensors) == set(some)
    for name, array in some.items():
        assert tensors[name].array().tobytes() == array.astype(tensors[name].array().dtype).tobytes()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_damaged_numbers_are_seen_by_their_checksum(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    save(path, w=np.arange(64, dtype=np.float32))
    tensor = find_npz(path)[0]["w"]
    data = bytearray(path.read_bytes())
    data[tensor.offset + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileError, match=r"checksum|cannot be read|too early"):
        tensor.array()


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", allow_pickle=True, w=np.array([{}], object))
    with pytest.raises(FileError, match="an array of object"):
        find_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "header",
    [
        *(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}" for shape in ("(True,)", "(-1, -1)", "(1")),
        "{'descr': '<f4'}", "(" * 60, "9" * 5000, "\0",
    ],
    ids=str,
)  # fmt: skip
def test_a_header_that_describes_no_array_is_refused(tmp_path: Path, header: str) -> None:
    text = header.encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(4))
    with pytest.raises(FileError, match=r"not a whole \.npz file"):
        find_npz(tmp_path / "a.npz")


def test_a_compressed_tensor_takes_no_more_memory_as_float32_either(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros(2**24 + 1, np.float16))
    with pytest.raises(FileError, match="compressed tensor of at most"):
        find_npz(tmp_path / "a.npz")[0]["w"].array()


def test_a_compressed_tensor_of_gigabytes_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("w.npy", "w") as entry,
    ):
        np.lib.format.write_array_header_1_0(entry, {"descr": "<f4", "fortran_order": False, "shape": (3 * 2**26,)})
        for _ in range(3 * 256):
            entry.write(bytes(2**20))
    tensor, start = find_npz(path)[0]["w"], time.monotonic()
    with pytest.raises(FileError, match="compressed tensor of at most"):
        tensor.array()
    assert time.monotonic() - start < 1


# Archives


def _twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")


def _named(name: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"1")

    return write


def _link(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("a")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")


def _overlapping(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"1" * 100)
        archive.writestr("b", b"2" * 100)
        archive.infolist()[1].header_offset = 0


def _deflated(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1000))


BAD_ARCHIVES = {
    "a name twice": (_twice, "one name"),
    "a name that leads out": (_named("../a"), "inside the archive"),
    "an absolute name": (_named("/a"), "inside the archive"),
    "a link": (_link, "link"),
    "members that overlap": (_overlapping, "another name"),
    "compression": (_deflated, "compressed"),
    "no archive": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "not a whole archive"),
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_an_archive_is_checked_before_anything_is_read(tmp_path: Path, case: str) -> None:
    write, words = BAD_ARCHIVES[case]
    write(tmp_path / "a.zip")
    with pytest.raises(FileError, match=words):
        members(tmp_path / "a.zip")


@pytest.mark.parametrize(("second", "words"), [(9, "overlaps"), (20, "after the file")])
def test_members_that_overlap_or_end_after_the_file_are_refused(second: int, words: str) -> None:
    found = {"a": archives.Member(0, 10, 10, False, 0), "b": archives.Member(second, 10, 10, False, 0)}
    with pytest.raises(FileError, match=words):
        archives._check_places(found, 29)


def test_members_stand_where_they_are_said_to(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/a", b"first")
        archive.writestr("b", b"second")
    data, found = (tmp_path / "a.zip").read_bytes(), members(tmp_path / "a.zip")
    assert {name: data[m.offset : m.offset + m.size] for name, m in found.items()} == {
        "folder/a": b"first",
        "b": b"second",
    }


# Parts


def test_a_part_is_what_its_rule_says(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    array.tofile(tmp_path / "a")
    tensor = StoredTensor(tmp_path / "a", 0, "float32", (2, 3, 4))
    for select, transposed, rule in [
        ((), False, "as it is"), ((1,), True, "[1] transposed"), ((0, slice(1, 3)), False, "[0, 1:3]"),
        ((1, slice(None), 2), False, "[1, :, 2]"),
    ]:  # fmt: skip
        part, wanted = Part("w", tensor, select, transposed), array[select].T if transposed else array[select]
        assert part.rule == rule and part.shape == wanted.shape and np.array_equal(part.array(), wanted)


def test_strides_are_followed(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float64)
    array.tofile(tmp_path / "a")
    tensor = StoredTensor(tmp_path / "a", 16, "float64", (3, 2), (2, 7))
    assert np.array_equal(tensor.array(), array[2:][np.arange(3)[:, None] * 2 + np.arange(2) * 7])
    assert StoredTensor.from_data(json.loads(json.dumps(tensor.to_data()))) == tensor


# Written by two threads


def test_checksums_of_pieces_join(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(3001)
    for split in (0, 1, 64, 1500, 3000, 3001):
        assert joined(zlib.crc32(data[:split]), zlib.crc32(data[split:]), len(data) - split) == zlib.crc32(data)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("select", [(), (1,), (slice(2, 3),), (slice(0, 2), 3), (1, slice(5, 60))], ids=str)
def test_rows_are_the_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, select: tuple, dtype: str, big_endian: bool, transposed: bool
) -> None:
    for name, size in {"PIECE": 2**10, "WRITTEN": 2**8, "TILE": 16}.items():
        monkeypatch.setattr(f"rnnzoo.spec.streaming.{name}", size)
    np.random.default_rng(0).integers(0, 2**16, 3 + 3 * 70 * 20 * 4, np.uint16).tofile(tmp_path / "a")
    part = Part("w", StoredTensor(tmp_path / "a", 6, dtype, (3, 70, 20), None, big_endian), select, transposed)
    with (tmp_path / "b").open("w+b") as file:
        file.write(b"before")
        crc = write_rows(file, part.rows(), summed=True)
        assert file.tell() == 6 + part.array().nbytes
        file.seek(6)
        written = file.read()
    assert written == part.array().tobytes() and crc == zlib.crc32(written)


def test_a_checksum_is_held_against_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnzoo.spec.streaming.PIECE", 2**6)
    np.savez(tmp_path / "a.npz", w=np.arange(64, dtype=np.float32))
    tensor = find_npz(tmp_path / "a.npz")[0]["w"]
    with (tmp_path / "b").open("wb") as file:
        write_rows(file, Part("w", tensor).rows())
        tensor.path.write_bytes(tensor.path.read_bytes().replace(np.float32(33).tobytes(), np.float32(34).tobytes()))
        with pytest.raises(FileError, match="checksum"):
            write_rows(file, Part("w", tensor).rows())


# The child process


@pytest.fixture
def readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_readers.py").write_text(
        "import os, signal, sys, time\n"
        "from rnnzoo.spec.errors import UnsupportedError\n"
        "def good(path, n): print('noise'); return {'path': path.name, 'n': n}\n"
        "def refuses(path): raise UnsupportedError(f'{path}: no')\n"
        "def eats(path): return len(bytearray(2**31))\n"
        "def dies(path): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "def breaks(path): raise ZeroDivisionError\n"
        "def sleeps(path): time.sleep(60)\n"
        "def loops(path):\n    while True: pass\n"
        "def talks(path): return 'x' * 2**27\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return "some_readers"


def test_a_child_answers_with_data(readers: str) -> None:
    assert examined(f"{readers}:good", Path("a"), n=3) == {"path": "a", "n": 3}
    with pytest.raises(UnsupportedError, match=r"^folder/a: no$"):
        examined(f"{readers}:refuses", Path("folder/a"))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("eats", "memory"), ("dies", "signal 11"), ("breaks", "exit status 1"), ("sleeps", "5 seconds by the"),
        ("loops", "not read within 1 seconds;"), ("talks", "bytes"),
    ],
)  # fmt: skip
def test_whatever_befalls_the_child_is_one_error(
    readers: str, function: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnzoo.spec.sandbox.SECONDS", 1)
    monkeypatch.setattr("rnnzoo.spec.sandbox.WAIT", 5 if function == "sleeps" else 60)
    with pytest.raises(FileError, match=words) as caught:
        examined(f"{readers}:{function}", Path("a"))
    assert str(caught.value).startswith("a: ") and len(str(caught.value).splitlines()) == 1
