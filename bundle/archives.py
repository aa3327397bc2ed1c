"""What goes into an archive: our modules, the wheels' Python files, each platform's native library, the documents.

__main__.py, sikkerkey_*.py    from runtime/, which starts the program
archive.json                   what each platform needs, with sizes and digests
python/...                     the rest of runtime/, the program, the Python files of wheels
cryptography-VERSION/...       those of cryptography, for the platforms with that version
native/PLATFORM/...            native libraries, deflated as in the wheel
NAME.cdx.json, ...             the documents
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bundle import documents, wheels
from bundle.members import BuildError, Member, archive_bytes, members_of, stored, text
from bundle.wheels import ROOT, Wheel

SHEBANG = b"#!/usr/bin/env python3\n"
RUST = "cryptography/hazmat/bindings/_rust."
NATIVE = re.compile(r"\.(so|pyd|dylib)\b")
POSIX = tuple(platform for platform in wheels.PLATFORMS if not platform.startswith("windows"))


class Program(NamedTuple):
    """An archive that can be built."""

    name: str
    main: str  # module:function, which returns the exit status
    sources: tuple[str, ...]  # patterns below the source directory
    projects: tuple[str, ...]  # wheels in it, by their names in the lock file
    platforms: tuple[str, ...]


PROGRAMS = {
    "mcp": Program(
        "sikkerkey-mcp",
        main="sikkerkey_cli.__main__:main",
        sources=("sikkerkey_*.py", "sikkerkey_cli/**/*.py"),
        projects=("certifi", "cryptography"),
        platforms=wheels.PLATFORMS,
    ),
    # The last releases for Python 3.9 serve the newer ones too. The vault itself is written for POSIX.
    "vault": Program(
        "sikkerkey-vault",
        main="vault.owner.cli:main",
        sources=("vault/**/*.py", "vault/**/*.css", "vault/**/*.js", "vault/**/*.html", "vault/**/*.svg"),
        projects=(
            *("anyio", "click", "cryptography", "exceptiongroup", "h11", "idna", "jinja2", "markupsafe"),
            *("starlette", "typing_extensions", "tzdata", "uvicorn"),
        ),
        platforms=POSIX,
    ),
}


# -- members ---------------------------------------------------------------------------------------------------------


def own_members(program: Program, source: Path) -> Iterator[Member]:
    """The program."""
    for pattern in program.sources:
        for path in source.glob(pattern):
            yield text(f"python/{path.relative_to(source).as_posix()}", path.read_bytes())


def runtime_members() -> list[Member]:
    """What starts the program."""
    runtime = ROOT / "runtime"
    return [text(path.relative_to(runtime).as_posix(), path.read_bytes()) for path in sorted(runtime.rglob("*.py"))]


def python_tree(wheel: Wheel) -> str:
    """The directory of a wheel's Python files: there is more than one version of cryptography."""
    return f"cryptography-{wheel.version}" if wheel.project == "cryptography" else "python"


def python_members(wheel: Wheel) -> Iterator[Member]:
    """A wheel's Python files and data."""
    for member in members_of(wheel.path):
        top, _, rest = member.name.partition("/")
        left_out = member.name.endswith(("/", ".pyi", "/py.typed")) or NATIVE.search(member.name)
        if not left_out and ".dist-info" not in top and not rest.startswith("tests/"):
            yield member._replace(name=f"{python_tree(wheel)}/{member.name}")


def once(members: list[Member]) -> list[Member]:
    """Sorted; a member of several wheels must be the same in all of them."""
    found: dict[str, Member] = {}
    for member in members:
        same = found.setdefault(member.name, member)
        if (same.crc, same.size) != (member.crc, member.size):
            raise BuildError(f"{member.name} differs between wheels of one version")
    return sorted(found.values())


def native_members(wheel: Wheel) -> list[Member]:
    """The native library of one platform, then the libraries that it loads from the same relative place."""
    found = [member for member in members_of(wheel.path) if NATIVE.search(member.name)]
    found.sort(key=lambda member: (not member.name.startswith(RUST), member.name))
    return [member._replace(name=f"native/{wheel.platform}/{member.name}") for member in found]


# -- what the archive says about itself ------------------------------------------------------------------------------


def description(program: Program, natives: Sequence[Wheel], members: list[Member]) -> Member:
    """archive.json: the trees that each platform unpacks into one directory, and the files in each tree."""
    platforms = {wheel.platform: ["python", python_tree(wheel), f"native/{wheel.platform}"] for wheel in natives}
    trees = sorted({tree for needed in platforms.values() for tree in needed})
    files = {
        tree: {
            member.name[len(tree) + 1 :]: [member.size, hashlib.sha256(member.content()).hexdigest()]
            for member in members
            if member.name.startswith(f"{tree}/")
        }
        for tree in trees
    }
    described = {"main": program.main, "platforms": platforms, "files": files}
    return stored("archive.json", json.dumps(described, indent=0).encode() + b"\n")


def finished(program: Program, members: list[Member]) -> list[Member]:
    """With the program's name and BUILD, the SHA-256 of everything, in __main__.py."""
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
    natives = [wheel for wheel in chosen if wheel.platform != "any"]
    sbom = documents.sbom(program.name, documents.version(source), chosen)
    licenses = documents.licenses_text(once(documents.licenses(chosen)))
    python = [*runtime_members(), *own_members(program, source)]
    members = once([*python, *(member for wheel in chosen for member in python_members(wheel))])
    members += [member for wheel in natives for member in native_members(wheel)]
    members += [
        description(program, natives, members),
        stored(f"{program.name}-licenses.txt", licenses),
        stored(f"{program.name}.cdx.json", sbom),
    ]
    return Built(archive_bytes(finished(program, members), SHEBANG), sbom, licenses)
