"""The native libraries in the archive. This machine can load one of them; the headers of the others are read."""

from __future__ import annotations

import ctypes
import sys
import zipfile
from collections.abc import Iterator

import pytest

from bundle import wheels
from tests.support import binary_headers
from tests.support.binary_headers import Binary
from tests.support.harness import ARCHIVE
from tests.support.rows import each_of

SYSTEM = {
    "linux": {"libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1"},
    "linux-musl-x86_64": {"libc.musl-x86_64.so.1"},
    "linux-musl-aarch64": {"libc.musl-aarch64.so.1"},
}
# Of the names with an underscore these are in the stable ABI.
STABLE = {"_Py_Dealloc", "_Py_NoneStruct", "_Py_TrueStruct", "_Py_FalseStruct", "_Py_NotImplementedStruct"}
STABLE |= {"_Py_EllipsisObject", "_Py_IncRef", "_Py_DecRef"}


@pytest.fixture(scope="module")
def libraries() -> dict[str, list[Binary]]:
    """Member name -> what its headers say."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        natives = [name for name in archive.namelist() if name.startswith("native/")]
        return {name: binary_headers.read(archive.read(name)) for name in natives}


def rust(libraries: dict[str, list[Binary]], platform: str) -> list[Binary]:
    """cryptography's own library for a platform."""
    start = f"native/{platform}/cryptography/hazmat/bindings/_rust."
    (found,) = (value for name, value in libraries.items() if name.startswith(start))
    return found


def test_every_platform_has_one(libraries: dict[str, list[Binary]]) -> None:
    with_rust = sorted(name.split("/")[1] for name in libraries if "/_rust." in name)
    assert with_rust == sorted(wheels.PLATFORMS)


@each_of("platform", wheels.PLATFORMS)
def test_library_is_for_the_platform_of_its_directory(platform: str, libraries: dict[str, list[Binary]]) -> None:
    kind = {"linux": "ELF", "macos": "Mach-O", "windows": "PE"}[platform.partition("-")[0]]
    machine = platform.rpartition("-")[2].replace("amd64", "x86_64")
    found = rust(libraries, platform)
    assert {binary.kind for binary in found} == {kind}
    assert machine in {binary.machine for binary in found}


def test_name_is_that_of_the_stable_abi(libraries: dict[str, list[Binary]]) -> None:
    names = {name.rpartition("/")[2] for name in libraries if "/_rust." in name}
    assert names == {"_rust.abi3.so", "_rust.pyd"}  # Windows has the one suffix for both
    assert all("-cp39-abi3-" in row.filename for row in wheels.locked() if row.project == "cryptography")


def python_symbols(found: list[Binary]) -> Iterator[str]:
    for binary in found:
        yield from (name for name in binary.wanted if name.startswith(("Py", "_Py")))


@each_of("platform", wheels.PLATFORMS)
def test_symbols_of_python_are_in_the_stable_abi(platform: str, libraries: dict[str, list[Binary]]) -> None:
    wanted = set(python_symbols(rust(libraries, platform)))
    assert "PyModule_Create2" in wanted or "PyModuleDef_Init" in wanted
    assert {name for name in wanted if name.startswith("_Py")} <= STABLE
    if sys.platform == "linux":
        assert [name for name in sorted(wanted) if not hasattr(ctypes.pythonapi, name)] == []


@pytest.mark.parametrize("platform", ["linux-x86_64", "linux-aarch64"])
def test_glibc_of_2012_is_enough(platform: str, libraries: dict[str, list[Binary]]) -> None:
    (binary,) = rust(libraries, platform)
    assert max(binary_headers.number(name) for name in binary.versions if name.startswith("GLIBC_")) <= (2, 17)
    assert {name for name in binary.needed if not name.startswith("ld-linux")} <= SYSTEM["linux"]


@pytest.mark.parametrize("platform", ["linux-musl-x86_64", "linux-musl-aarch64"])
def test_musl_libraries_are_where_their_search_path_leads(platform: str, libraries: dict[str, list[Binary]]) -> None:
    (binary,) = rust(libraries, platform)
    bundled = {name for name in binary.needed if name.startswith("libgcc_s-")}
    assert set(binary.needed) == bundled | SYSTEM[platform]
    assert binary.search == ("$ORIGIN/../../../cryptography.libs",)
    (companion,) = (name for name in libraries if name.startswith(f"native/{platform}/cryptography.libs/"))
    assert {companion.rpartition("/")[2]} == bundled
    assert set(libraries[companion][0].needed) == SYSTEM[platform]


@pytest.mark.parametrize(("platform", "oldest"), [("macos-arm64", (11, 0)), ("macos-x86_64", (10, 13))])
def test_macos_libraries_need_only_the_system(
    platform: str, oldest: tuple[int, int], libraries: dict[str, list[Binary]]
) -> None:
    machine = platform.rpartition("-")[2]
    (binary,) = (binary for binary in rust(libraries, platform) if binary.machine == machine)
    assert all(name.startswith(("/usr/lib/", "/System/")) for name in binary.needed)
    assert [binary_headers.number(version) <= oldest for version in binary.versions] == [True]


def test_windows_library_needs_only_the_stable_python_and_the_system(libraries: dict[str, list[Binary]]) -> None:
    (binary,) = rust(libraries, "windows-amd64")
    needed = {name.lower() for name in binary.needed}
    assert "python3.dll" in needed
    assert not [name for name in needed - {"python3.dll"} if name.startswith(("python", "lib", "msvcr1"))]
