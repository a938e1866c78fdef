"""Zip archives whose directory is checked before anything in them is read, and members written at full speed.

`.npz`, `.keras` and `.pt` are such.
"""

import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from .errors import FileError

MAXIMUM_MEMBERS = 100_000
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, and the lengths of the name and the extra field after it


class Member(NamedTuple):
    """A member's bytes in the archive.

    Attributes:
        offset: of the first of them, in bytes.
        size: how many there are once they are inflated.
        stored: how many there are in the file.
        deflated: whether they are compressed.
        crc32: of the inflated bytes.
    """

    offset: int
    size: int
    stored: int
    deflated: bool
    crc32: int


def members(path: Path, *, deflated: bool = False) -> Mapping[str, Member]:
    """Where each member is.

    Args:
        path: the archive.
        deflated: whether compressed members are taken.

    Raises:
        FileError: not an archive; or a name twice or leading elsewhere, members that overlap, a link, encryption, or
            compression where there should be none.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > MAXIMUM_MEMBERS:
                raise FileError(f"expected at most {MAXIMUM_MEMBERS:,} members, got {len(entries):,}")
            found = {entry.filename: _member(file, entry, deflated) for entry in entries if not entry.is_dir()}
            if len(found) < sum(not entry.is_dir() for entry in entries):
                raise FileError("two members have one name")
            _check_places(found, file.seek(0, 2))
    except (zipfile.BadZipFile, OSError, struct.error, NotImplementedError, LookupError, ValueError) as error:
        raise FileError(f"{path}: not a whole archive: {error}") from error
    return found


def add_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int, write: Callable[[BinaryIO], int], *, large: bool
) -> None:
    """Add a member without compression, as `archive.open(info, "w")` does, for a writer that keeps the sum itself.

    Args:
        archive: that is written.
        info: the member's name.
        size: of it in bytes.
        write: writes it to the archive's file, and gives its CRC-32.
        large: whether its header has room for sizes of 4 GiB and more.
    """
    file: Any = archive.fp
    info.file_size = info.compress_size = size
    info.CRC, info.external_attr, info.header_offset = 0, 0o600 << 16, archive.start_dir
    file.seek(info.header_offset)
    file.write(info.FileHeader(zip64=large))  # again once the sum is known
    info.CRC = write(file)
    archive.start_dir = file.tell()
    file.seek(info.header_offset)
    file.write(info.FileHeader(zip64=large))
    archive.filelist.append(info)
    archive.NameToInfo[info.filename] = info


def _member(file: BinaryIO, entry: zipfile.ZipInfo, deflated: bool) -> Member:
    name = PurePosixPath(entry.filename)
    if name.is_absolute() or ".." in name.parts or "\\" in entry.filename:
        raise FileError(f"member {entry.filename!r}: expected a name inside the archive")
    if entry.flag_bits & 1 or (entry.external_attr >> 16) & 0o170000 == 0o120000:
        raise FileError(f"member {entry.filename!r}: expected plain bytes, got a link or something encrypted")
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if deflated else (zipfile.ZIP_STORED,)
    if entry.compress_type not in kinds:
        raise FileError(f"member {entry.filename!r} is compressed; expected it as frameworks write it, uncompressed")
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise FileError(f"member {entry.filename!r}: two sizes, {entry.compress_size:,} and {entry.file_size:,}")
    file.seek(entry.header_offset)
    signature, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise FileError(f"member {entry.filename!r}: no header where the directory says")
    if file.read(name_length) != entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437"):
        raise FileError(f"member {entry.filename!r} has another name in its own header")
    offset = entry.header_offset + LOCAL_HEADER.size + name_length + extra_length
    compressed = entry.compress_type == zipfile.ZIP_DEFLATED
    return Member(offset, entry.file_size, entry.compress_size, compressed, entry.CRC)


def _check_places(found: Mapping[str, Member], size: int) -> None:
    end = 0
    for name, member in sorted(found.items(), key=lambda item: item[1].offset):
        if member.offset < end:
            raise FileError(f"member {name!r} overlaps another")
        end = member.offset + member.stored
    if end > size:
        raise FileError("a member ends after the file")
