"""Writes zip files that do not depend on the machine.

Nothing is compressed here, since zlib's output differs between its versions and replacements: our own files are stored,
and the members of wheels keep their compressed bytes.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class BuildError(Exception):
    """Why the archive cannot be built; the message is shown to people."""


class Member(NamedTuple):
    """A file in a zip archive."""

    name: str
    data: bytes  # compressed if method is ZIP_DEFLATED
    method: int
    crc: int
    size: int

    def content(self) -> bytes:
        """The unpacked content."""
        return zlib.decompress(self.data, -zlib.MAX_WBITS) if self.method == zipfile.ZIP_DEFLATED else self.data


def stored(name: str, content: bytes) -> Member:
    """A file that is stored without compression."""
    return Member(name, content, zipfile.ZIP_STORED, zlib.crc32(content), len(content))


def text(name: str, content: bytes) -> Member:
    """A text file; line ends are normalized, so that every checkout gives the same archive."""
    return stored(name, content.replace(b"\r\n", b"\n"))


def members_of(path: Path) -> Iterator[Member]:
    """A wheel's files, still compressed."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            file.seek(info.header_offset)
            header = file.read(30)
            file.seek(sum(struct.unpack("<HH", header[26:])), os.SEEK_CUR)
            yield Member(info.filename, file.read(info.compress_size), info.compress_type, info.CRC, info.file_size)


def header_fields(member: Member) -> bytes:
    """The fields that local header and central directory share; the date is the earliest that zip can express."""
    version, flags, time, date = 20, 0, 0, 0x21
    sizes = (member.crc, len(member.data), member.size, len(member.name.encode("ascii")), 0)
    return struct.pack("<HHHHHIIIHH", version, flags, member.method, time, date, *sizes)


def local_header(member: Member) -> bytes:
    """The header before a member's data."""
    return b"PK\3\4" + header_fields(member) + member.name.encode("ascii")


def central_header(member: Member, offset: int) -> bytes:
    """A member's entry in the directory at the end."""
    made_by_unix, mode = 3 << 8 | 20, 0o100644
    head = b"PK\1\2" + struct.pack("<H", made_by_unix) + header_fields(member)
    return head + struct.pack("<HHHII", 0, 0, 0, mode << 16, offset) + member.name.encode("ascii")


def archive_bytes(members: list[Member], shebang: bytes = b"") -> bytes:
    """The whole file, with members in the given order."""
    body, directory = bytearray(shebang), bytearray()
    for member in members:
        directory += central_header(member, len(body))
        body += local_header(member) + member.data
    count = len(members)
    end = struct.pack("<4s4HIIH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    return bytes(body + directory) + end


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file atomically; the mode does not depend on the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
