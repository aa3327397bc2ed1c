"""Builds dist/sikkerkey-mcp.pyz: the program, runtime/ and vendored wheels in one executable file.

The same sources give the same bytes on every machine. Nothing here compresses, since zlib's output differs between its
versions and replacements: our own files are stored, and the wheels' members keep the compressed bytes they came with.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import runpy
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements" / "runtime.txt"
WHEELS = ROOT / "build" / "wheels"
VENDORED = ("certifi", "cryptography")
SHEBANG = b"#!/usr/bin/env python3\n"

# Platform, as runtime/ names it -> the tag that wheels for it carry.
PLATFORMS = {
    "linux-x86_64": "manylinux2014_x86_64",
    "linux-aarch64": "manylinux2014_aarch64",
    "macos-arm64": "macosx_11_0_arm64",
    "windows-amd64": "win_amd64",
}
# cp39-abi3 wheels serve every later Python. Plain 3.9 means 3.9.0, for which pip finds an old release only.
OLDEST_PYTHON = "3.9.18"


class BuildError(Exception):
    """A reason, for people, why there is no archive."""


class Member(NamedTuple):
    """A file as it lies in a zip archive."""

    name: str
    data: bytes  # compressed if method is ZIP_DEFLATED
    method: int
    crc: int
    size: int


# -- wheels ----------------------------------------------------------------------------------------------------------


def locked(name: str) -> tuple[str, list[str]]:
    """A package's entry in the lock file, and the sha256 of each file that it allows."""
    entry = re.search(rf"^{name}==.*(?:\n +--hash=.*)+", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    if not entry:
        raise BuildError(f"{LOCK.name} has no {name} with hashes: run `make lock`")
    return entry[0], re.findall(r"sha256:([0-9a-f]{64})", entry[0])


def find_wheel(name: str, tag: str) -> Path | None:
    entry, hashes = locked(name)
    version = entry.split()[0].partition("==")[2]
    for path in sorted(WHEELS.glob(f"{name}-{version}-*.whl")):
        fits = path.name.endswith("-none-any.whl") or ("-cp39-abi3-" in path.name and tag in path.name)
        if fits and hashlib.sha256(path.read_bytes()).hexdigest() in hashes:
            return path
    return None


def wheel(name: str, tag: str) -> Path:
    """The locked wheel, from build/wheels or else from the index that pip is configured for."""
    path = find_wheel(name, tag)
    if path is None:
        download(name, tag)
        path = find_wheel(name, tag)
    if path is None:
        raise BuildError(f"pip found no wheel of {name} for {tag}")
    return path


def download(name: str, tag: str) -> None:
    WHEELS.mkdir(parents=True, exist_ok=True)
    requirement = WHEELS / f"{name}.txt"
    requirement.write_text(locked(name)[0] + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation=cp", "--abi=abi3", f"--platform={tag}"]
    command += [f"--python-version={OLDEST_PYTHON}", f"--dest={WHEELS}", f"--requirement={requirement}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.stderr.write(result.stderr)
        raise BuildError(
            f"pip cannot get {name} for {tag}: connect to a package index, or put its wheel into "
            f"{WHEELS.relative_to(ROOT)}/ (`make zipapp` uses a Python that has pip)"
        )


def members_of(path: Path) -> Iterator[Member]:
    """A wheel's files with their compressed bytes as they are."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            file.seek(info.header_offset)
            header = file.read(30)
            file.seek(sum(struct.unpack("<HH", header[26:])), os.SEEK_CUR)
            yield Member(info.filename, file.read(info.compress_size), info.compress_type, info.CRC, info.file_size)


# -- what goes in ----------------------------------------------------------------------------------------------------


def stored(name: str, text: bytes) -> Member:
    """A file of our own; a checkout with other line ends gives the same archive."""
    text = text.replace(b"\r\n", b"\n")
    return Member(name, text, zipfile.ZIP_STORED, zlib.crc32(text), len(text))


def own_members(source: Path) -> list[Member]:
    modules = [*source.glob("sikkerkey_*.py"), *(ROOT / "runtime").glob("*.py")]
    return [
        stored("licenses/sikkerkey-mcp/LICENSE", (ROOT / "LICENSE").read_bytes()),
        *(stored(path.name, path.read_bytes()) for path in modules),
    ]


def is_native(name: str) -> bool:
    return name.startswith("cryptography/hazmat/bindings/_rust.") and name.endswith((".so", ".pyd"))


def vendored_members(path: Path) -> Iterator[Member]:
    """A wheel's Python files and data; its licences move to licenses/, its native library goes elsewhere."""
    for member in members_of(path):
        top, _, rest = member.name.partition("/")
        if rest.startswith("licenses/"):
            yield member._replace(name=f"licenses/{top.partition('.dist-info')[0]}/{rest.partition('/')[2]}")
        elif top in VENDORED and member.name.endswith((".py", ".pem")) and not rest.startswith("tests/"):
            yield member


def library(path: Path, platform: str) -> Member:
    (native,) = (member for member in members_of(path) if is_native(member.name))
    if native.method != zipfile.ZIP_DEFLATED:
        raise BuildError(f"{native.name} of {path.name} is not deflated, which is all that runtime/ reads")
    return native._replace(name=f"native/{platform}/{native.name.rpartition('/')[2]}")


def description(libraries: dict[str, Member], common: list[Member]) -> Member:
    """sikkerkey_archive.py; runtime/sikkerkey_archive.pyi says what each name means."""
    build = hashlib.sha256()
    for member in [*libraries.values(), *common]:
        build.update(f"{member.name}\0{len(member.data)}\0".encode() + member.data)
    table, offset = {}, len(SHEBANG)
    for platform, member in libraries.items():
        digest = hashlib.sha256(zlib.decompress(member.data, -zlib.MAX_WBITS)).hexdigest()
        name = f"rust-{digest[:16]}{Path(member.name).suffix}"
        start = offset + len(local_header(member))
        table[platform] = (name, start, len(member.data), member.size, digest)
        offset = start + len(member.data)
    modules = {member.name.partition("/")[0].partition(".")[0] for member in common if member.name.endswith(".py")}
    lines = {
        "BUILD": build.hexdigest(),
        "MODULES": tuple(sorted(modules - {"__main__"})),
        "LIBRARIES": table,
        "COMMON": offset,
    }
    return stored("sikkerkey_archive.py", "".join(f"{name} = {value!r}\n" for name, value in lines.items()).encode())


# -- the file --------------------------------------------------------------------------------------------------------


def header_fields(member: Member) -> bytes:
    """What the local header and the central directory have in common; the date is the first that zip can say."""
    version, flags, time, date = 20, 0, 0, 0x21
    sizes = (member.crc, len(member.data), member.size, len(member.name.encode("ascii")), 0)
    return struct.pack("<HHHHHIIIHH", version, flags, member.method, time, date, *sizes)


def local_header(member: Member) -> bytes:
    return b"PK\3\4" + header_fields(member) + member.name.encode("ascii")


def central_header(member: Member, offset: int) -> bytes:
    made_by_unix, mode = 3 << 8 | 20, 0o100644
    head = b"PK\1\2" + struct.pack("<H", made_by_unix) + header_fields(member)
    return head + struct.pack("<HHHII", 0, 0, 0, mode << 16, offset) + member.name.encode("ascii")


def archive_bytes(members: list[Member]) -> bytes:
    body, directory = bytearray(SHEBANG), bytearray()
    for member in members:
        directory += central_header(member, len(body))
        body += local_header(member) + member.data
    count = len(members)
    return bytes(body + directory) + struct.pack(
        "<4s4HIIH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0
    )


def build(platforms: list[str], source: Path) -> bytes:
    """The archive: libraries first, so that everything that each start reads lies in one piece at the end."""
    wheels = {platform: wheel("cryptography", PLATFORMS[platform]) for platform in sorted(platforms)}
    libraries = {platform: library(path, platform) for platform, path in wheels.items()}
    common = own_members(source)
    for path in (wheel("certifi", "any"), next(iter(wheels.values()))):
        common += vendored_members(path)
    common.sort()
    common.append(description(libraries, common))
    return archive_bytes([*libraries.values(), *sorted(common)])


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.chmod(0o755)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def this_platform() -> str:
    return str(runpy.run_path(str(ROOT / "runtime" / "sikkerkey_runtime.py"))["platform_name"]())


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "sikkerkey-mcp.pyz")
    parser.add_argument("--platform", action="append", choices=sorted(PLATFORMS), help="default: this one; repeatable")
    parser.add_argument("--source", type=Path, default=ROOT, help="directory of sikkerkey_*.py, for tests of runtime/")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    options = arguments(argv)
    platforms = options.platform or [this_platform()]
    try:
        if unknown := set(platforms) - set(PLATFORMS):
            raise BuildError(f"no archive can be built for {', '.join(unknown)} yet, only for {', '.join(PLATFORMS)}")
        data = build(platforms, options.source)
        write(options.output, data)
    except (BuildError, OSError) as error:
        print(f"build_zipapp: error: {error}", file=sys.stderr)
        return 1
    digest = hashlib.sha256(data).hexdigest()
    print(f"{digest}  {options.output}  ({len(data):,} bytes, {', '.join(platforms)})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
