"""What an ONNX file says, without the numbers of its tensors: protobuf, taken apart by rules.

The encoding: https://protobuf.dev/programming-guides/encoding; the numbers of the fields: onnx.proto3 of ONNX.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ...spec.errors import FileError

FIELDS, TEXT, DEPTH = 2**18, 2**24, 32  # parts of a file, bytes of their texts, messages within messages
LISTED = 2**10  # bytes of a packed list; a longer one is left out
WINDOW = 2**16
PLACED = ("node", "tensor")  # messages of which is said where they are, as `extent` (offset and length)
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are groups, which ONNX has none of


class Field(NamedTuple):
    """A field of a message; `kind` is `int`, `float`, `text`, `place` (offset and length) or a message's name."""

    name: str
    kind: str
    many: bool = False


MESSAGES: Mapping[str, Mapping[int, Field]] = {
    "model": {
        2: Field("producer_name", "text"), 3: Field("producer_version", "text"), 7: Field("graph", "graph"),
        8: Field("opset_import", "opset", many=True), 14: Field("metadata_props", "entry", many=True),
        25: Field("functions", "function", many=True),
    },
    "opset": {1: Field("domain", "text"), 2: Field("version", "int")},
    "entry": {1: Field("key", "text"), 2: Field("value", "text")},
    "function": {1: Field("name", "text"), 7: Field("node", "node", many=True)},
    "graph": {
        1: Field("node", "node", many=True), 5: Field("initializer", "tensor", many=True),
        11: Field("input", "value", many=True),
    },
    "value": {1: Field("name", "text")},
    "node": {
        1: Field("input", "text", many=True), 2: Field("output", "text", many=True), 3: Field("name", "text"),
        4: Field("op_type", "text"), 5: Field("attribute", "attribute", many=True), 7: Field("domain", "text"),
    },
    "attribute": {
        1: Field("name", "text"), 2: Field("f", "float"), 3: Field("i", "int"), 4: Field("s", "text"),
        5: Field("t", "tensor"), 6: Field("g", "graph"), 7: Field("floats", "float", many=True),
        8: Field("ints", "int", many=True), 9: Field("strings", "text", many=True),
        11: Field("graphs", "graph", many=True),
    },
    "tensor": {
        1: Field("dims", "int", many=True), 2: Field("data_type", "int"), 4: Field("float_data", "place", many=True),
        5: Field("int32_data", "int", many=True), 7: Field("int64_data", "int", many=True), 8: Field("name", "text"),
        9: Field("raw_data", "place"), 10: Field("double_data", "place", many=True),
        13: Field("external_data", "entry", many=True), 14: Field("data_location", "int"),
    },
}  # fmt: skip


def decoded(path: Path) -> dict[str, Any]:
    """The model as nested dicts and lists of what `MESSAGES` names; a field that is not there has no key.

    Raises:
        FileError: not protobuf, cut off, too many parts, or too deep.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            return _Decoder(path, file).message("model", 0, size)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Decoder:
    """Goes once through a file, from front to back, with one window of it in memory."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.window, self.start = b"", 0
        self.fields, self.text, self.depth = FIELDS, TEXT, DEPTH

    def message(self, kind: str, at: int, end: int) -> dict[str, Any]:
        """The fields that are known of a message at these offsets."""
        self.depth = self._left("levels", self.depth, 1)
        known = MESSAGES[kind]
        found: dict[str, Any] = {"extent": [at, end - at]} if kind in PLACED else {}
        while at < end:
            self.fields = self._left("parts", self.fields, 1)
            key, at = self._varint(at, end)
            start, stop = self._extent(key & 7, at, end)
            if key >> 3 in known:
                self._take(found, known[key >> 3], key & 7, start, stop)
            at = stop
        self.depth += 1
        return found

    def _take(self, found: dict[str, Any], field: Field, wire: int, start: int, stop: int) -> None:
        if not field.many and field.name in found:
            raise self._damaged(f"{field.name!r} stands there twice", start)
        if field.many and wire == BYTES and field.kind in ("int", "float"):
            found.setdefault(field.name, []).extend(self._packed(field, start, stop))
        elif field.many:
            found.setdefault(field.name, []).append(self._value(field, wire, start, stop))
        else:
            found[field.name] = self._value(field, wire, start, stop)

    def _value(self, field: Field, wire: int, start: int, stop: int) -> Any:
        if wire != {"int": VARINT, "float": FIXED32}.get(field.kind, BYTES):
            raise self._damaged(f"{field.name!r} is written as wire type {wire}", start)
        if field.kind == "int":
            value = self._varint(start, stop)[0]
            return value - 2**64 if value >= 2**63 else value
        if field.kind == "float":
            return struct.unpack("<f", self._bytes(start, stop))[0]
        if field.kind == "text":
            self.text = self._left("bytes of names", self.text, stop - start)
            return self._bytes(start, stop).decode(errors="backslashreplace")
        return [start, stop - start] if field.kind == "place" else self.message(field.kind, start, stop)

    def _packed(self, field: Field, at: int, end: int) -> list[Any]:
        if end - at > LISTED:
            return []
        found, wire = [], VARINT if field.kind == "int" else FIXED32
        while at < end:
            self.fields = self._left("parts", self.fields, 1)
            start, at = self._extent(wire, at, end)
            found.append(self._value(field, wire, start, at))
        return found

    def _extent(self, wire: int, at: int, end: int) -> tuple[int, int]:
        """Where the value of a field starts and stops."""
        if wire == VARINT:
            return at, self._varint(at, end)[1]
        length = {FIXED64: 8, FIXED32: 4}.get(wire)
        if wire == BYTES:
            length, at = self._varint(at, end)
        if length is None or length > end - at:
            raise self._damaged("a part is longer than what it is part of" if length else f"wire type {wire}", at)
        return at, at + length

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """A number of seven bits a byte, the lowest first, and the offset behind it."""
        value = 0
        for shift in range(0, min(end - at, 10) * 7, 7):
            if not 0 <= at - self.start < len(self.window):
                self._fill(at)
            byte = self.window[at - self.start]
            value, at = value | (byte & 127) << shift, at + 1
            if byte < 128:
                return value % 2**64, at
        raise self._damaged("a number does not end", at)

    def _bytes(self, start: int, stop: int) -> bytes:
        if not self.start <= start <= stop <= self.start + len(self.window):
            self._fill(start, stop - start)
        found = self.window[start - self.start : stop - self.start]
        if len(found) < stop - start or (stop - start) < 0:
            raise self._damaged("the file ends", start)
        return found

    def _fill(self, start: int, size: int = 0) -> None:
        self.file.seek(start)
        self.window, self.start = self.file.read(max(size, WINDOW)), start
        if not self.window:
            raise self._damaged("the file ends", start)

    def _left(self, what: str, number: int, taken: int) -> int:
        if taken > number:
            limit = {"levels": DEPTH, "parts": FIELDS}.get(what, TEXT)
            raise FileError(f"{self.path}: has more than {limit:,} {what}, which is more than is read of a model")
        return number - taken

    def _damaged(self, what: str, at: int) -> FileError:
        return FileError(f"{self.path}: not a whole ONNX model: {what} (byte {at:,})")
