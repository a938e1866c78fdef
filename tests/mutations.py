"""Changes files where their structure is, or their bytes, in each of the formats."""

import io
import json
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

EXTREMES = (0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1)
VALUES = (*EXTREMES, -1, -(2**63), 1e308, "", "..", "/etc/passwd", "a" * 5000, None, True, [], {}, [[]])
SIGNS = re.compile(rb"\x89HDF|TREE|HEAP|SNOD|GCOL|\x01\x00[\x01-\x20]\x00\x01\x00\x00\x00")  # of HDF5's parts
DEEP = "lists in lists"


def mutated(suffix: str, data: bytes, random: Random) -> bytes:
    """A file with a few changes: of its structure, or one time in four of any of its bytes."""
    return scrambled(data, random) if random.random() < 0.25 or not data else STRUCTURES[suffix](data, random)


def scrambled(data: bytes, random: Random) -> bytes:
    """Bytes changed, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        at, size = random.randrange(len(changed) + 1), random.choice((1, 1, 2, 4, 8, 64))
        match random.randrange(6):
            case 0:
                changed[at : at + size] = random.randbytes(size)
            case 1:
                changed[at : at + size] = random.choice((b"\0", b"\xff", b"\x7f")) * size
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[random.randrange(len(changed) + 1) :][:size]
            case 4:
                changed[at : at + 1] = bytes(byte ^ 1 << random.randrange(8) for byte in changed[at : at + 1])
            case 5:
                del changed[max(at, 1) :]
    return bytes(changed)


def of_json(data: bytes, random: Random) -> bytes:
    """JSON with values that are others, missing, those of other places, or deep; or with a key twice."""
    try:
        found = json.loads(data)
    except ValueError:
        return scrambled(data, random)
    for _ in range(random.choice((1, 1, 2, 4))):
        if places := list(_places(found)):
            (holder, key), (other, its) = random.choice(places), random.choice(places)
            match random.randrange(5):
                case 0:
                    holder[key] = json.loads(json.dumps(random.choice(VALUES)))  # a list of its own
                case 1:
                    del holder[key]
                case 2:
                    holder[key] = json.loads(json.dumps(other[its]))
                case 3:
                    holder[key] = holder[key] + random.choice((-1, 1)) if type(holder[key]) is int else VALUES[0]
                case 4:
                    holder[key] = DEEP
    depth = random.choice((2, 60, 70, 900, 100_000))
    text = json.dumps(found).replace(f'"{DEEP}"', "[" * depth + "]" * depth)
    if random.random() < 0.1 and (keys := re.findall(r'"[^"]*": ', text)):
        text = text.replace("{", f"{{{random.choice(keys)}0, ", 1)
    return text.encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def of_safetensors(data: bytes, random: Random) -> bytes:
    """Another header, of the length that is said."""
    length = int.from_bytes(data[:8], "little")
    header = of_json(data[8 : 8 + length], random)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def of_zip(data: bytes, random: Random) -> bytes:
    """A whole archive around a changed member; or fields of its directory and of the headers of its members."""
    if random.random() < 0.6:
        return _around(data, random)
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2))):
        start = random.choice([found.start() for found in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", data)])
        size = random.choice((2, 4))
        value = random.choice(
            (*EXTREMES, *(int.from_bytes(data[start + n : start + n + size], "little") for n in (0, 20)))
        )
        at = start + 4 + 2 * random.randrange(21)
        changed[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(changed)


def _around(data: bytes, random: Random) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(made, "w") as target:
        names = archive.namelist()
        chosen = random.choice([name for name in names if _inside(name)])
        for name in names:
            info, content = zipfile.ZipInfo(name), archive.read(name)
            info.compress_type = archive.getinfo(name).compress_type
            target.writestr(info, _inside(name)(content, random) if name == chosen else content)
    return made.getvalue()


def _inside(name: str) -> Any:
    return next((change for ending, change in MEMBERS.items() if name.endswith(ending)), None)


def of_npy(data: bytes, random: Random) -> bytes:
    """Another description of an array."""
    size = int.from_bytes(data[8:10], "little")
    words = re.split(r"(\d+|'[^']*'|True|False|[(){},:])", data[10 : 10 + size].decode("latin-1").rstrip())
    for _ in range(random.choice((1, 1, 2))):
        others = ("", "-1", "9" * 20, "0", "'<U9'", "'|O'", "'>f8'", "'<f2'", "True", "(", "None", random.choice(words))
        words[random.randrange(len(words))] = random.choice(others)
    text = "".join(words).encode("latin-1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return data[:8] + struct.pack("<H", len(text)) + text + data[10 + size :]


OPCODES = (
    *(bytes([code]) for code in b"02()]}tRbQsuae\x81\x85N"), b"h\0", b"q\0", b"X\1\0\0\0a",
    b"cposix\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n",
    *(b"\x8a\x09" + value.to_bytes(9, "little") for value in EXTREMES),
)  # fmt: skip


def of_pickle(data: bytes, random: Random) -> bytes:
    """Instructions left out, doubled, put elsewhere or in the place of others."""
    ends = [place for _, _, place in pickletools.genops(data) if place is not None]
    steps = [data[start:stop] for start, stop in zip(ends, [*ends[1:], len(data)], strict=True)]
    for _ in range(random.choice((1, 1, 2, 4))):
        a, b = random.randrange(len(steps)), random.randrange(len(steps))
        match random.randrange(5):
            case 0:
                steps[a] = b""
            case 1:
                steps[a] = steps[b]
            case 2:
                steps[a], steps[b] = steps[b], steps[a]
            case 3:
                steps[a] += random.choice(OPCODES)
            case 4:
                steps[a] = random.choice(OPCODES)
    return b"".join(steps)


def of_protobuf(data: bytes, random: Random, depth: int = 0) -> bytes:
    """Fields left out, doubled, of other numbers or kinds, or with other values; every length fits."""
    fields = _fields(data)
    if not fields:
        return scrambled(data, random) if data else b"\x08\1"
    at = random.randrange(len(fields))
    number, wire, value = fields[at]
    if wire == 2 and depth < 6 and _fields(value) and random.random() < 0.8:
        fields[at] = (number, wire, of_protobuf(value, random, depth + 1))
        return b"".join(_field(*field) for field in fields)
    match random.randrange(5):
        case 0:
            del fields[at]
        case 1:
            fields.insert(at, random.choice(fields))
        case 2:
            fields[at] = (random.randrange(1, 27), wire, value)
        case 3:
            fields[at] = (number, 0, random.choice(EXTREMES))
        case 4:
            text = value if isinstance(value, bytes) else b"x"
            fields[at] = (number, 2, random.choice((b"", text * 2, text[:-1], b"../x", random.randbytes(8))))
    return b"".join(_field(*field) for field in fields)


def _fields(data: bytes) -> list[tuple[int, int, Any]]:
    """The fields of a message; none where it cannot be one."""
    found, at = [], 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            if key >> 3 == 0:
                return []
            if key & 7 == 0:
                value, at = _varint(data, at)
            else:
                size = {1: 8, 5: 4}.get(key & 7)
                if size is None and key & 7 == 2:
                    size, at = _varint(data, at)
                if size is None or at + size > len(data):
                    return []
                value, at = data[at : at + size], at + size
            found.append((key >> 3, key & 7, value))
    except IndexError:
        return []
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value, byte, at, shift = value | (data[at] & 127) << shift, data[at], at + 1, shift + 7
        if byte < 128:
            return value, at


def _field(number: int, wire: int, value: Any) -> bytes:
    body = value if isinstance(value, bytes) else _encoded(value)
    return _encoded(number << 3 | wire) + (_encoded(len(body)) if wire == 2 else b"") + body


def _encoded(value: int) -> bytes:
    parts = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


def of_hdf5(data: bytes, random: Random) -> bytes:
    """Addresses, sizes and counts: words become others of the file or extreme ones, most of them near a signature."""
    changed = bytearray(data)
    signs = [found.start() for found in SIGNS.finditer(data)]
    for _ in range(random.choice((1, 1, 2, 4))):
        size = random.choice((1, 2, 4, 8))
        at = random.choice(signs) + random.randrange(0, 96) if random.random() < 0.7 else random.randrange(len(data))
        other = random.randrange(0, len(data) - 8, 8)
        value = random.choice((*EXTREMES, len(data), *[int.from_bytes(data[other : other + size], "little")] * 9))
        changed[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(changed[: len(data)])


MEMBERS: dict[str, Callable[[bytes, Random], bytes]] = {
    ".npy": of_npy, ".json": of_json, ".h5": of_hdf5, "data.pkl": of_pickle
}  # fmt: skip
STRUCTURES: dict[str, Callable[[bytes, Random], bytes]] = {
    ".safetensors": of_safetensors, ".json": of_json, ".npz": of_zip, ".pt": of_zip, ".keras": of_zip,
    ".h5": of_hdf5, ".onnx": of_protobuf,
}  # fmt: skip
