"""Reads the parts of ELF, Mach-O and PE headers that decide where a native library loads."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple


class Binary(NamedTuple):
    """What a native library is built for and what it needs."""

    kind: str
    machine: str
    needed: tuple[str, ...]  # other libraries
    search: tuple[str, ...]  # where it looks for them first
    versions: tuple[str, ...]  # symbol versions on ELF, oldest system on Mach-O
    wanted: frozenset[str]  # symbols from elsewhere; without the leading underscore of Mach-O


def read(data: bytes) -> list[Binary]:
    """One for each machine that the file serves."""
    if data[:4] == b"\x7fELF":
        return [elf(data)]
    if data[:2] == b"MZ":
        return [portable_executable(data)]
    if data[:4] == b"\xca\xfe\xba\xbe":
        count = struct.unpack_from(">I", data, 4)[0]
        slices = (struct.unpack_from(">5I", data, 8 + 20 * number) for number in range(count))
        return [mach_o(data[offset : offset + size]) for _, _, offset, size, _ in slices]
    return [mach_o(data)]


def text(data: bytes, offset: int) -> str:
    """A string that ends with a zero byte."""
    return data[offset : data.index(b"\0", offset)].decode("ascii")


# -- ELF -------------------------------------------------------------------------------------------------------------

ELF_MACHINES = {62: "x86_64", 183: "aarch64"}
DYNAMIC, DYNSYM, VERSIONS_NEEDED = 6, 11, 0x6FFFFFFE


class Section(NamedTuple):
    """A row of the section table."""

    kind: int
    offset: int
    size: int
    link: int
    info: int


def elf(data: bytes) -> Binary:
    assert data[4:6] == b"\x02\x01", "64 bits, little endian"
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    rows = (struct.unpack_from("<IIQQQQIIQQ", data, table + size * number) for number in range(count))
    sections = [Section(row[1], row[4], row[5], row[6], row[7]) for row in rows]

    def entries(kind: int, layout: str) -> Iterator[tuple[int, tuple[int, ...]]]:
        for section in sections:
            if section.kind == kind:
                strings = sections[section.link].offset
                for offset in range(section.offset, section.offset + section.size, struct.calcsize(layout)):
                    yield strings, struct.unpack_from(layout, data, offset)

    tags = ((tag, strings + value) for strings, (tag, value) in entries(DYNAMIC, "<qQ"))
    dynamic = [(tag, text(data, place)) for tag, place in tags if tag in (1, 15, 29)]
    wanted = (text(data, strings + row[0]) for strings, row in entries(DYNSYM, "<IBBHQQ") if row[3] == 0 and row[0])
    return Binary(
        kind="ELF",
        machine=ELF_MACHINES[struct.unpack_from("<H", data, 18)[0]],
        needed=tuple(name for tag, name in dynamic if tag == 1),
        search=tuple(name for tag, name in dynamic if tag != 1),
        versions=tuple(sorted(elf_versions(data, sections))),
        wanted=frozenset(wanted),
    )


def elf_versions(data: bytes, sections: list[Section]) -> Iterator[str]:
    """The versions of the symbols from other libraries, such as GLIBC_2.17."""
    for section in sections:
        if section.kind != VERSIONS_NEEDED:
            continue
        strings, offset = sections[section.link].offset, section.offset
        for _ in range(section.info):
            _, count, _, first, following = struct.unpack_from("<HHIII", data, offset)
            inner = offset + first
            for _ in range(count):
                _, _, _, name, distance = struct.unpack_from("<IHHII", data, inner)
                yield text(data, strings + name)
                inner += distance
            offset += following


# -- Mach-O ----------------------------------------------------------------------------------------------------------

MACH_MACHINES = {0x01000007: "x86_64", 0x0100000C: "arm64"}
LOAD_DYLIB, SYMTAB, RPATH, VERSION_MIN, BUILD_VERSION = 0xC, 2, 0x8000001C, 0x24, 0x32


def mach_o(data: bytes) -> Binary:
    magic, machine, _, _, count, _, _, _ = struct.unpack_from("<8I", data)
    assert magic == 0xFEEDFACF, "64 bits, little endian"
    needed, search, versions, wanted, offset = [], [], [], set(), 32
    for _ in range(count):
        command, size = struct.unpack_from("<II", data, offset)
        if command == LOAD_DYLIB:
            needed.append(text(data, offset + struct.unpack_from("<I", data, offset + 8)[0]))
        elif command == RPATH:
            search.append(text(data, offset + struct.unpack_from("<I", data, offset + 8)[0]))
        elif command in (VERSION_MIN, BUILD_VERSION):
            version = struct.unpack_from("<I", data, offset + (8 if command == VERSION_MIN else 12))[0]
            versions.append(f"{version >> 16}.{version >> 8 & 255}")
        elif command == SYMTAB:
            wanted = set(mach_o_undefined(data, *struct.unpack_from("<3I", data, offset + 8)))
        offset += size
    return Binary("Mach-O", MACH_MACHINES[machine], tuple(needed), tuple(search), tuple(versions), frozenset(wanted))


def mach_o_undefined(data: bytes, symbols: int, count: int, strings: int) -> Iterator[str]:
    for number in range(count):
        name, kind, _, _, value = struct.unpack_from("<IBBHQ", data, symbols + 16 * number)
        external_and_undefined = kind & 0x0F == 1
        if external_and_undefined and not value:
            yield text(data, strings + name).removeprefix("_")


# -- PE --------------------------------------------------------------------------------------------------------------


def portable_executable(data: bytes) -> Binary:
    header = struct.unpack_from("<I", data, 60)[0]
    assert data[header : header + 4] == b"PE\0\0"
    machine, count = struct.unpack_from("<HH", data, header + 4)
    optional = header + 24
    assert struct.unpack_from("<H", data, optional)[0] == 0x20B, "64 bits"
    table = optional + struct.unpack_from("<H", data, header + 20)[0]
    sections = [struct.unpack_from("<4I", data, table + 40 * number + 8) for number in range(count)]

    def place(address: int) -> int:
        return next(int(raw + address - start) for size, start, _, raw in sections if start <= address < start + size)

    needed, wanted = [], set()
    offset = place(struct.unpack_from("<I", data, optional + 120)[0])
    while (row := struct.unpack_from("<5I", data, offset))[3]:
        needed.append(text(data, place(row[3])))
        lookup = place(row[0])
        while entry := struct.unpack_from("<Q", data, lookup)[0]:
            if not entry >> 63:
                wanted.add(text(data, place(entry) + 2))
            lookup += 8
        offset += 20
    return Binary("PE", {0x8664: "x86_64"}[machine], tuple(needed), (), (), frozenset(wanted))


def number(version: str) -> tuple[int, ...]:
    """GLIBC_2.17 as (2, 17)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
