"""What goes into an archive: our modules, the wheels' Python files, each platform's native library, the papers.

native/PLATFORM/...    one native library for each platform, deflated as in its wheel
NAME.cdx.json, ...     the papers
modules.zip            what can be imported: an archive in the archive, so that the outer directory stays short
*.py                   runtime/ and sikkerkey_archive.py, which start it
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bundle import papers, wheels
from bundle.members import BuildError, Member, archive_bytes, local_header, members_of, stored, text
from bundle.wheels import ROOT, Wheel

SHEBANG = b"#!/usr/bin/env python3\n"
RUST = "cryptography/hazmat/bindings/_rust."
NATIVE = re.compile(r"\.(so|pyd|dylib)\b")
POSIX = tuple(platform for platform in wheels.PLATFORMS if not platform.startswith("windows"))


class Program(NamedTuple):
    """An archive that can be built."""

    name: str
    main: str  # the module whose main() it is
    sources: tuple[str, ...]  # patterns below the source directory
    projects: tuple[str, ...]  # wheels that it carries, by their names in the lock file
    kept: tuple[str, ...]  # top-level modules and packages whose bytecode is worth a place in the cache
    platforms: tuple[str, ...]


PROGRAMS = {
    "mcp": Program(
        "sikkerkey-mcp",
        main="sikkerkey_mcp",
        sources=("sikkerkey_*.py",),
        projects=("certifi", "cryptography"),
        kept=("sikkerkey_answers", "sikkerkey_mcp", "sikkerkey_resources", "sikkerkey_switches", "sikkerkey_wire"),
        platforms=wheels.PLATFORMS,
    ),
    # The last releases for Python 3.9 serve the newer ones too. The vault itself is written for POSIX.
    "vault": Program(
        "sikkerkey-vault",
        main="vault.owner.cli",
        sources=("vault/**/*.py", "vault/**/*.css"),
        projects=(
            *("anyio", "click", "cryptography", "exceptiongroup", "h11", "idna", "starlette", "typing_extensions"),
            *("tzdata", "uvicorn"),
        ),
        kept=("vault", "starlette", "uvicorn", "anyio", "click", "h11", "typing_extensions"),
        platforms=POSIX,
    ),
}


# -- members ---------------------------------------------------------------------------------------------------------


def own_members(program: Program, source: Path) -> Iterator[Member]:
    """The program."""
    for pattern in program.sources:
        for path in source.glob(pattern):
            yield text(path.relative_to(source).as_posix(), path.read_bytes())


def runtime_members() -> list[Member]:
    """What starts the program."""
    return [text(path.name, path.read_bytes()) for path in sorted((ROOT / "runtime").glob("*.py"))]


def importable(wheel: Wheel) -> Iterator[Member]:
    """A wheel's Python files and data, cryptography's below a directory of their version."""
    place = f"cryptography-{wheel.version}/" if wheel.project == "cryptography" else ""
    for member in members_of(wheel.path):
        top, _, rest = member.name.partition("/")
        left_out = member.name.endswith(("/", ".pyi", "/py.typed")) or NATIVE.search(member.name)
        if not left_out and ".dist-info" not in top and not rest.startswith("tests/"):
            yield member._replace(name=place + member.name)


def once(members: list[Member]) -> list[Member]:
    """Sorted; what several wheels have must be the same in all of them."""
    found: dict[str, Member] = {}
    for member in members:
        same = found.setdefault(member.name, member)
        if (same.crc, same.size) != (member.crc, member.size):
            raise BuildError(f"{member.name} differs between wheels of one version")
    return sorted(found.values())


def libraries(wheel: Wheel) -> list[Member]:
    """The native library of one platform, then those that it wants in the same place relative to it."""
    found = [member for member in members_of(wheel.path) if NATIVE.search(member.name)]
    for member in found:
        if member.method != zipfile.ZIP_DEFLATED:
            raise BuildError(f"{member.name} of {wheel.filename} is not deflated, which is all that runtime/ reads")
    found.sort(key=lambda member: (not member.name.startswith(RUST), member.name))
    return [member._replace(name=f"native/{wheel.platform}/{member.name}") for member in found]


# -- what the archive says about itself ------------------------------------------------------------------------------

Row = tuple[str, int, int, int, str]


def rows(members: list[Member], offset: int) -> tuple[Row, ...]:
    """The libraries of one platform as runtime/sikkerkey_archive.pyi has them; the first begins at `offset`."""
    digests = [hashlib.sha256(member.content()).hexdigest() for member in members]
    kind = f"rust-{digests[0][:16]}"
    found: list[Row] = []
    for member, digest in zip(members, digests):
        # Alone, it needs no directory. With others, it keeps the places that its search path names.
        below = "/" + member.name.split("/", 2)[2] if len(members) > 1 else Path(member.name).suffix
        start = offset + len(local_header(member))
        found.append((kind + below, start, len(member.data), member.size, digest))
        offset = start + len(member.data)
    return tuple(found)


def module_name(member: str) -> str:
    """Under which a Python file is imported."""
    return member[: -len(".py")].replace("/", ".").removesuffix(".__init__")


def length(members: Sequence[Member]) -> int:
    """Bytes that members take in the archive, the directory aside."""
    return sum(len(local_header(member)) + len(member.data) for member in members)


def description(program: Program, natives: dict[Wheel, list[Member]], modules: list[Member], at: int) -> Member:
    """sikkerkey_archive.py; runtime/sikkerkey_archive.pyi says what each name means."""
    table, offset = {}, len(SHEBANG)
    for wheel, members in natives.items():
        table[wheel.platform] = (f"cryptography-{wheel.version}", rows(members, offset))
        offset += length(members)
    names = {module_name(member.name): member.name for member in modules if member.name.endswith(".py")}
    tops = {name.partition(".")[0] for name in names if not name.startswith("cryptography-")}
    kept = {name: member for name, member in names.items() if name.partition(".")[0] in program.kept}
    lines = {
        "MAIN": program.main,
        "MODULES": tuple(sorted(tops | {"cryptography"})),
        "COMPILED": {**{name: f"{name}.py" for name in ("sikkerkey_archive", "sikkerkey_native")}, **kept},
        "LIBRARIES": table,
        "MODULES_AT": (at, len(archive_bytes(modules))),
    }
    return stored("sikkerkey_archive.py", "".join(f"{name} = {value!r}\n" for name, value in lines.items()).encode())


def finished(program: Program, members: list[Member]) -> list[Member]:
    """With the program's name and BUILD, the sha256 over everything, in __main__.py, behind which no offset is told."""
    build = hashlib.sha256()
    for member in members:
        build.update(f"{member.name}\0{len(member.data)}\0".encode() + member.data)
    line = f"PROGRAM, BUILD = {(program.name, build.hexdigest())!r}\n".encode()
    main = next(member for member in members if member.name == "__main__.py")
    before, found, after = main.data.partition(b'PROGRAM, BUILD = "", ""\n')
    if not found:
        raise BuildError("runtime/__main__.py has no place for the program's name and BUILD")
    return [stored(main.name, before + line + after) if member is main else member for member in members]


# -- the archive -----------------------------------------------------------------------------------------------------


class Built(NamedTuple):
    """An archive and what is published beside it."""

    archive: bytes
    sbom: bytes
    licenses: bytes


def build(program: Program, platforms: Sequence[str], source: Path) -> Built:
    """The same sources give the same bytes on every machine."""
    if unsupported := set(platforms) - set(program.platforms):
        raise BuildError(f"{program.name} does not run on {', '.join(sorted(unsupported))}")
    chosen = wheels.select(program.projects, platforms)
    natives = {wheel: libraries(wheel) for wheel in chosen if wheel.platform != "any"}
    sbom = papers.sbom(program.name, papers.version(source), chosen)
    licenses = papers.licenses_text(once(papers.licenses(chosen)))
    modules = once([*own_members(program, source), *(member for wheel in chosen for member in importable(wheel))])
    everything = [
        *(member for members in natives.values() for member in members),
        stored(f"{program.name}-licenses.txt", licenses),
        stored(f"{program.name}.cdx.json", sbom),
    ]
    inner = stored("modules.zip", archive_bytes(modules))
    at = len(SHEBANG) + length(everything) + len(local_header(inner))
    described = description(program, natives, modules, at)
    everything += [inner, described, *runtime_members()]
    return Built(archive_bytes(finished(program, everything), SHEBANG), sbom, licenses)
