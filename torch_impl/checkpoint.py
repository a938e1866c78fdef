"""The archive that `torch.save` writes, read without torch: a pickle, and a member of numbers for each storage."""

import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..spec.archives import Member, members
from ..spec.errors import FileError
from ..spec.stored import MAXIMUM_NAME, SIZES, StoredTensor
from .records import Held, Module, Tensor
from .unpickling import unpickled

PICKLE, KEY = "data.pkl", "rnnzoo"
MAXIMUM_PICKLE = 2**26  # bytes
MAXIMUM_EXPANDED = 2**20  # numbers of a tensor that has more of them than its storage
MAXIMUM_FACTS = 16
DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "bytes",
}  # fmt: skip
ELIDED = {"_parameters", "_buffers", "_modules"}  # attributes of a module that its state dict leaves out of names
REPEATED = "_flat_weights"  # of a recurrent module: its parameters again
MODES = {"RNN_TANH": "tanh", "RNN_RELU": "relu"}


def contents(path: Path) -> dict[str, Any]:
    """What the file holds, as JSON can say it; it is run in a child process.

    Returns:
        `tensors` by name, `modules` that were saved whole by their path, each with its class and nonlinearity,
        `facts`, and `text`, what stands under `rnnzoo`.

    Raises:
        FileError: damaged, another format, or made to do harm.
    """
    try:
        return _contents(path)
    except FileError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise FileError(
            f"{path}: cannot be read as a torch checkpoint: {reason}; write it with torch.save(model.state_dict(), ...)"
        ) from error


def _contents(path: Path) -> dict[str, Any]:
    _check_kind(path)
    places = members(path, deflated=True)
    root, little = _checked_root(places), True
    with path.open("rb") as file:
        value = unpickled(_read(file, places[root + PICKLE]))
        if order := places.get(f"{root}byteorder"):
            little = _read(file, order) != b"big"
    named, modules = _named(value)
    if not named:
        raise FileError(f"expected a state dict, names to tensors, got {_kind(value)} without tensors")
    checked = places[root + PICKLE].crc32 != 0  # torch can leave all sums out, which are 0 then
    tensors = {name: _stored(path, tensor, places, root, not little, checked) for name, tensor in named.items()}
    return {
        "tensors": {name: tensor.to_data() for name, tensor in tensors.items()},
        "modules": modules,
        "facts": _facts(value),
        "text": _text(value),
    }


def _check_kind(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"\x80") or start[257:262] == b"ustar":
        raise FileError(
            "it is of torch before 1.6, without a directory of its tensors; "
            "renew it with torch.save(torch.load(path, weights_only=True), path)"
        )
    if not start.startswith(b"PK"):
        raise FileError("it is damaged, or another format")


def _checked_root(places: Mapping[str, Member]) -> str:
    """The folder in the archive that everything is in, with its slash."""
    roots = [name.removesuffix(PICKLE) for name in places if name.endswith(f"/{PICKLE}") and name.count("/") == 1]
    if any(name.endswith(("constants.pkl", "archive_format")) for name in places):
        raise FileError("it is a program of torch.jit or torch.export, whose state dict is to be saved alone")
    if len(roots) != 1:
        raise FileError(f"expected one member {PICKLE} in a folder, got {len(roots)}")
    if compressed := [name for name, member in places.items() if member.deflated]:
        raise FileError(f"its member {compressed[0]!r} is compressed, as torch.save never writes it")
    return roots[0]


def _read(file: BinaryIO, member: Member) -> bytes:
    if member.size > MAXIMUM_PICKLE:
        raise FileError(f"expected a pickle of at most {MAXIMUM_PICKLE:,} bytes, got {member.size:,}")
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) < member.size or (member.crc32 and zlib.crc32(data) != member.crc32):
        raise FileError("it is damaged: its pickle ends too early or has another checksum")
    return data


def _named(value: Any) -> tuple[dict[str, Tensor], dict[str, Module]]:
    """Every tensor by its path of keys, and every whole module."""
    found: dict[str, Tensor] = {}
    modules, seen, pending = {}, set(), [("", value)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, Tensor):
            if found.setdefault(name, value) is not value:
                raise FileError(f"two tensors have the name {name!r}")
        elif id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, Held) and isinstance(value.state, dict) and "_parameters" in value.state:
                modules[name] = Module(value.kind, _nonlinearity(value.state))
            pending += reversed([(_joined(name, key), child) for key, child in _children(value)])
    return found, modules


def _nonlinearity(attributes: Mapping[Any, Any]) -> str | None:
    """Of a module: an RNN has a mode, an RNNCell the name itself."""
    told = [MODES.get(str(attributes.get("mode"))), attributes.get("nonlinearity")]
    return next((name for name in told if isinstance(name, str) and name in MODES.values()), None)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """What is in a container and can hold tensors."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list | tuple) else ())
    for key, child in pairs:
        named = isinstance(key, str) or (isinstance(key, int) and key.bit_length() <= 64)
        if named and key != REPEATED and isinstance(child, Tensor | dict | list | tuple):
            yield "" if key in ELIDED else str(key), child
    if isinstance(value, Held) and isinstance(value.state, dict | tuple):
        yield "", value.state


def _joined(name: str, key: str) -> str:
    if len(name) + len(key) > MAXIMUM_NAME:
        raise FileError(f"a name of more than {MAXIMUM_NAME:,} characters, or as many levels")
    return ".".join(filter(None, (name, key.encode(errors="replace").decode())))


def _stored(
    path: Path, tensor: Tensor, places: Mapping[str, Member], root: str, big_endian: bool, checked: bool
) -> StoredTensor:
    """Where a tensor's numbers are; of what are no weights, only what they are."""
    storage = tensor.storage
    dtype = tensor.dtype or (DTYPES.get(storage.kind, storage.kind) if storage else "nothing")
    if storage is None or dtype not in SIZES:
        return StoredTensor(path, 0, dtype, tensor.shape)
    member = places.get(f"{root}data/{storage.key}")
    held = storage.count * SIZES.get(DTYPES.get(storage.kind, ""), 1)  # bytes
    if member is None or held > member.size:
        raise FileError(f"its storage {storage.key[:80]!r} of {held:,} bytes is not in it")
    steps = [stride if size > 1 else 0 for size, stride in zip(tensor.shape, tensor.strides, strict=True)]
    count = math.prod(tensor.shape)
    span = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, steps, strict=True)) if count else 0
    start, end = tensor.offset * SIZES[dtype], (tensor.offset + span) * SIZES[dtype]
    if end > held or count > max(span, MAXIMUM_EXPANDED):
        raise FileError(f"a tensor of shape {tensor.shape} reaches beyond its storage of {held:,} bytes")
    whole = checked and (start, end) == (0, member.size)
    return StoredTensor(
        path, member.offset + start, dtype, tensor.shape,
        strides=None if count == 0 or steps == _steps(tensor.shape) else tuple(steps),
        big_endian=big_endian, checksum=(0, member.crc32) if whole else None,
    )  # fmt: skip


def _steps(shape: tuple[int, ...]) -> list[int]:
    """Strides in C order, 0 where there is one element."""
    return [math.prod(shape[axis + 1 :]) if size > 1 else 0 for axis, size in enumerate(shape)]


def _facts(value: Any) -> dict[str, str]:
    """What a training checkpoint says of itself besides tensors."""
    pairs = value.items() if isinstance(value, dict) else ()
    plain = [(key, item) for key, item in pairs if isinstance(item, str | float) or type(item) in (bool, int)]
    return {
        str(key)[:80]: str(item)[:80]
        for key, item in plain[:MAXIMUM_FACTS]
        if key != KEY and not (isinstance(item, int) and item.bit_length() > 64)
    }


def _text(value: Any) -> str | None:
    """The text under `rnnzoo`; in a plain state dict it is an attribute, which torch does not look at."""
    text = value.get(KEY) if isinstance(value, dict) else None
    if text is None and isinstance(value, Held) and isinstance(value.state, dict):
        text = value.state.get(KEY)
    if text is not None and not isinstance(text, str):
        raise FileError(f"the entry {KEY!r}: expected text, got {type(text).__name__}")
    return text


def _kind(value: Any) -> str:
    return value.kind if isinstance(value, Held) else type(value).__name__
