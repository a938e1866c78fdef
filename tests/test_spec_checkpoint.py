"""The canonical file: bits that come back, one way to write them, clear errors for everything else."""

import errno
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from rnnzoo.spec import (
    Contents,
    Context,
    Embedding,
    Head,
    ModelSpec,
    checkpoint,
    initial_weights,
    load,
    parameters,
    save,
)
from rnnzoo.spec.errors import FileError, RnnZooError, WeightError
from rnnzoo.spec.temporary import sweep

GOLDEN = Path(__file__).parent / "golden" / "version_1.safetensors"
GOLDEN_SPEC = ModelSpec(
    "stacked_bi_rnn", 3, 2, 2, "relu", "double", "sum",
    initializer="keras", embedding=Embedding(5), head=Head(4), context=Context(6),
)  # fmt: skip
SPEC = ModelSpec("bi_rnn", 3, 4, head=Head(2))


def contents(dtype: str = "float32", **provenance: object) -> Contents:
    return Contents(SPEC, initial_weights(SPEC, 5, dtype), provenance)


def golden_contents() -> Contents:
    """Distinct values that float32 holds exactly, with a negative zero, the smallest and the largest number."""
    weights, start = {}, 1
    for parameter in parameters(GOLDEN_SPEC):
        values = np.arange(start, start + parameter.count, dtype=np.float32) / np.float32(64)
        weights[parameter.name] = values.reshape(parameter.shape)
        start += parameter.count
    weights["head.bias"] = np.array([-0.0, 1e-45, -3.4028235e38, 0.1], np.float32)
    return Contents(GOLDEN_SPEC, weights, {"written_by": "rnnzoo 0.1.0", "task": "golden", "seed": 0})


def assert_same(a: Contents, b: Contents) -> None:
    assert a.spec == b.spec and a.provenance == b.provenance and list(a.weights) == list(b.weights)
    for name in a.weights:
        assert a.weights[name].dtype == b.weights[name].dtype
        assert a.weights[name].tobytes() == b.weights[name].tobytes(), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_comes_back(tmp_path: Path, dtype: str) -> None:
    written = contents(dtype, task="digits", seed=3, note="ü")
    written.weights["head.bias"][:] = [np.nan, -0.0]
    save(tmp_path / "a.safetensors", written)
    assert_same(load(tmp_path / "a.safetensors"), written)


def test_writing_twice_gives_the_same_bytes_in_any_order_and_layout(tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    one = contents("float32", a=1, b={"d": 1, "c": 2})
    shuffled = {name: np.asfortranarray(array) for name, array in reversed(one.weights.items())}
    save(first, one)
    save(second, Contents(SPEC, shuffled, {"b": {"c": 2, "d": 1}, "a": 1}))
    assert first.read_bytes() == second.read_bytes()


def test_the_metadata_is_one_key_of_sorted_json(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", contents("float32", z=1, a=2))
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert list(metadata) == ["rnnzoo"]
    data = json.loads(metadata["rnnzoo"])
    assert metadata["rnnzoo"] == json.dumps(data, sort_keys=True)
    assert data == {"version": 1, "spec": SPEC.to_data(), "provenance": {"z": 1, "a": 2}}


def test_the_golden_file_of_version_1_still_loads() -> None:
    digest = hashlib.sha256(GOLDEN.read_bytes()).hexdigest()
    assert digest == "cba68d9f728355cff3b1b56991ef3c207b939f831d96f5a7720ab36beb8a2e4b"
    assert_same(load(GOLDEN), golden_contents())


def test_version_1_is_written_with_the_golden_bytes(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", golden_contents())
    assert (tmp_path / "a.safetensors").read_bytes() == GOLDEN.read_bytes()


def test_a_file_without_a_spec_needs_one(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(contents().weights, path)
    with pytest.raises(FileError, match=r"carries no spec.*--spec FILE"):
        load(path)
    assert_same(load(path, SPEC), contents())


def test_a_given_spec_wins_over_the_one_in_the_file(tmp_path: Path) -> None:
    other = ModelSpec("bi_rnn", 3, 4, nonlinearity="relu", head=Head(2))
    save(tmp_path / "a.safetensors", contents())
    assert load(tmp_path / "a.safetensors", other).spec == other
    with pytest.raises(WeightError, match="missing"):
        load(tmp_path / "a.safetensors", ModelSpec("simple_rnn", 3, 4, bias="double"))


def test_weights_that_do_not_fit_are_never_written(tmp_path: Path) -> None:
    weights = contents().weights
    del weights["head.bias"]
    with pytest.raises(WeightError, match=r"missing 'head\.bias'"):
        save(tmp_path / "a.safetensors", Contents(SPEC, weights, {}))
    assert list(tmp_path.iterdir()) == []


def with_metadata(path: Path, text: str) -> Path:
    safetensors.numpy.save_file(contents().weights, path, metadata={"rnnzoo": text})
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "expected an object"),
        ("null", "expected an object"),
        ('{"spec": {}}', "expected a spec version from 1 to 1, got None"),
        ('{"version": 2, "spec": {}}', "written for spec version 2.*newer rnnzoo"),
        ('{"version": 1, "spec": {}, "note": 1}', "unknown key 'note'"),
        ('{"version": 1}', "ModelSpec: expected a mapping"),
        ('{"version": 1, "spec": {"variant": "lstm"}}', "missing key"),
        (json.dumps({"version": 1, "spec": {**SPEC.to_data(), "variant": "tri_rnn"}}), "'tri_rnn'"),
        (json.dumps({"version": 1, "spec": {**SPEC.to_data(), "gate": 1}}), "unknown key 'gate'"),
        (json.dumps({"version": 1, "spec": SPEC.to_data(), "provenance": 3}), "expected an object"),
        ("[" * 100_000, "cannot be read"),
        ("9" * 5000, "cannot be read"),
    ],
    ids=lambda value: value[:30],
)
def test_metadata_that_is_not_ours_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = with_metadata(tmp_path / "a.safetensors", text)
    with pytest.raises(FileError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_provenance_may_be_missing(tmp_path: Path) -> None:
    path = with_metadata(tmp_path / "a.safetensors", json.dumps({"version": 1, "spec": SPEC.to_data()}))
    assert_same(load(path), contents())


def expect_only_our_errors(path: Path, data: bytes) -> bool:
    """Writes the bytes and reads the file; True when it was refused. Any other exception passes through."""
    path.write_bytes(data)
    try:
        load(path)
    except (FileError, WeightError) as error:
        assert len(str(error).splitlines()) == 1
        return True
    return False


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = GOLDEN.read_bytes()
    for length in range(0, len(data), 7):
        assert expect_only_our_errors(tmp_path / "a.safetensors", data[:length]), length
    assert expect_only_our_errors(tmp_path / "a.safetensors", data[:-1])
    assert expect_only_our_errors(tmp_path / "a.safetensors", data + b"\0")


def test_corruption_gives_our_errors_or_other_numbers(tmp_path: Path) -> None:
    data, random = GOLDEN.read_bytes(), np.random.default_rng(0)
    header = struct.unpack("<Q", data[:8])[0] + 8
    refused = 0
    for _ in range(1500):
        changed = bytearray(data)
        for place in random.integers(0, header, random.integers(1, 4)):
            changed[place] = random.choice(
                [random.integers(256), ord('"'), ord("0"), ord("9"), ord("}"), changed[place] ^ 1]
            )
        refused += expect_only_our_errors(tmp_path / "a.safetensors", bytes(changed))
    assert refused > 750


def file_of(header: dict[str, object] | str, data: bytes = b"") -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


SIZE, TYPE = "expected a header of 2 to", "expected a known dtype, a shape and two offsets"
FOREIGN = {
    "empty": (b"", SIZE),
    "text": (b"hello, this is no weights file at all\n" * 9, SIZE),
    "zip": (b"PK\x03\x04" + bytes(60), SIZE),
    "pickle": (b"\x80\x04\x95" + bytes(60), SIZE),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(60), SIZE),
    "a header of exabytes": (struct.pack("<Q", 2**62) + b"{}", SIZE),
    "a header longer than the file": (struct.pack("<Q", 99) + b"{}", "the header says 99 bytes, and 2 are there"),
    "a header that is a list": (file_of("[]"), "expected an object, got list"),
    "no tensors": (file_of({}), "carries no spec|got none"),
    "metadata of numbers": (file_of({"__metadata__": {"rnnzoo": 3}}), "expected texts by name"),
    "an unknown dtype": (file_of({"w": entry("F99", [1], 0, 4)}, bytes(4)), TYPE),
    "bfloat16": (file_of({"w": entry("BF16", [2], 0, 4)}, bytes(4)), "carries no spec|missing 'head.bias'"),
    "integers": (file_of({"w": entry("I64", [1], 0, 8)}, bytes(8)), "carries no spec|got I64"),
    "a hole": (file_of({"w": entry("F32", [1], 4, 8)}, bytes(8)), "'w' starts at 4, expected 0"),
    "an overlap": (
        file_of({"w": entry("F32", [2], 0, 8), "v": entry("F32", [1], 4, 8)}, bytes(8)), "'v' starts at 4, expected 8"
    ),
    "bytes after the last tensor": (file_of({"w": entry("F32", [1], 0, 4)}, bytes(8)), "end at byte 4, and the file"),
    "a shape without its data": (file_of({"w": entry("F32", [2**40], 0, 4)}, bytes(4)), "does not take 4 bytes"),
    "a negative shape": (file_of({"w": entry("F32", [-1], 0, 4)}, bytes(4)), TYPE),
    "a shape that overflows": (file_of({"w": entry("F32", [2**63, 4], 0, 4)}, bytes(4)), TYPE),
    "a name twice": (
        file_of('{"w": %s, "w": %s}' % ((json.dumps(entry("F32", [1], 0, 4)),) * 2), bytes(4)), "a key stands twice"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused_for_what_is_wrong_with_it(tmp_path: Path, name: str) -> None:
    path, (data, words) = tmp_path / "a.safetensors", FOREIGN[name]
    path.write_bytes(data)
    for spec in (None, SPEC):
        with pytest.raises((FileError, WeightError), match=words):
            load(path, spec)


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, words in [
        (tmp_path / "none", "no such file"),
        (tmp_path, "expected a file, got a folder"),
        (pipe, "expected a file, got a device or a pipe"),
        (tmp_path / ("n" * 300), "cannot be read: File name too long"),
        (tmp_path / "a\0b", "no such file"),
    ]:
        with pytest.raises(FileError, match=words):
            load(path)


def test_a_folder_is_refused_with_the_files_in_it(tmp_path: Path) -> None:
    for words in ("a folder without files$", "a folder; name a file in it, such as 0, 1, 2, 3, 4$"):
        with pytest.raises(FileError, match=f"expected a file, got {words}"):
            load(tmp_path)
        for number in range(6):
            (tmp_path / str(number)).touch()


def test_a_file_that_exists_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.check_writable(path, force=False)
    path.write_bytes(b"old")
    checkpoint.check_writable(path, force=True)
    with pytest.raises(FileError, match="exists already; pass --force"):
        checkpoint.check_writable(path, force=False)
    with pytest.raises(FileError, match="expected a file name, got a folder"):
        checkpoint.check_writable(tmp_path, force=True)
    with pytest.raises(FileError, match=r"its folder .*missing does not exist"):
        checkpoint.check_writable(tmp_path / "missing" / "a", force=True)


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), WeightError("no"), KeyboardInterrupt()]
)
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")

    def write(temporary: Path) -> None:
        assert temporary.suffix == ".npz" and temporary.parent.parent == tmp_path
        temporary.write_bytes(b"half")
        (temporary.parent / "another").write_bytes(b"half")
        raise failure

    with pytest.raises(FileError if isinstance(failure, OSError) else type(failure)):
        checkpoint.write_atomically(path, write)
    assert [found.name for found in tmp_path.iterdir()] == ["a.npz"]
    assert path.read_bytes() == b"old"


KILLED = """
import os, signal, sys
from pathlib import Path
from rnnzoo.spec import checkpoint
def write(path):
    path.write_bytes(b"half")
    print(path.parent.name, flush=True)
    {then}
checkpoint.write_atomically(Path({path!r}), write)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path, fresh_python: Callable[..., Any]) -> None:
    path = tmp_path / "a.npz"
    killed = fresh_python(KILLED.format(path=str(path), then="os.kill(os.getpid(), signal.SIGKILL)"))
    assert killed.returncode == -signal.SIGKILL and (tmp_path / killed.stdout.strip() / "a.npz").exists()
    (tmp_path / ".rnnzoo-link").symlink_to(tmp_path / "empty")
    (tmp_path / ".rnnzoo-file").write_bytes(b"somebody's")
    checkpoint.write_atomically(path, lambda temporary: temporary.write_bytes(b"whole") and None)
    assert {one.name for one in tmp_path.iterdir()} == {"a.npz", "empty", ".rnnzoo-link", ".rnnzoo-file"}


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    command = KILLED.format(path=str(tmp_path / "a.npz"), then="sys.stdin.read()")
    with subprocess.Popen(
        [sys.executable, "-P", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin and other.stdout
        folder = tmp_path / other.stdout.readline().strip()
        sweep(tmp_path)
        assert (folder / "a.npz").exists()
        other.stdin.close()
    assert other.returncode == 0 and [one.name for one in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_last_moment_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(FileError, match=r"a\.safetensors: cannot be written: No space left on device"):
        save(path, contents())
    assert [found.name for found in tmp_path.iterdir()] == ["a.safetensors"] and path.read_bytes() == b"old"


def test_a_full_disk_leaves_the_old_file_and_one_error(tmp_path: Path, fresh_python: Callable[..., object]) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    process = fresh_python(f"""
import pathlib, resource
from rnnzoo.spec import Contents, ModelSpec, RnnZooError, initial_weights, save
spec = ModelSpec("simple_rnn", 64, 64)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save(pathlib.Path({str(path)!r}), Contents(spec, initial_weights(spec, 0), {{}}))
except RnnZooError as error:
    print(error)
""")
    assert process.returncode == 0 and process.stderr == ""
    assert "a.safetensors: cannot be written: File too large; nothing was left behind" in process.stdout
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.safetensors", "empty"]
    assert path.read_bytes() == b"old"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"missing/a\.safetensors: cannot be written: No such file or directory"):
        save(tmp_path / "missing" / "a.safetensors", contents())


def test_the_error_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(RnnZooError, match=r"a\.safetensors: not a whole safetensors file"):
        load(tmp_path / "a.safetensors")


def test_provenance_says_who_wrote_the_file() -> None:
    assert checkpoint.provenance(task="digits") == {"written_by": "rnnzoo 0.1.0", "task": "digits"}
