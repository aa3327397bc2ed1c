"""requirements/wheels.lock: one line for each wheel that may go into an archive.

A line has the platform, the wheel's SHA-256 and its file name, which contains project and version. Wheels that are not
in build/wheels are downloaded with pip, from the index that pip is configured for.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bundle.members import BuildError

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "wheels.lock"
WHEELS = ROOT / "build" / "wheels"

# Platform, as runtime/ names it -> the tag for pip.
TAGS = {
    "linux-aarch64": "manylinux2014_aarch64",
    "linux-musl-aarch64": "musllinux_1_2_aarch64",
    "linux-musl-x86_64": "musllinux_1_2_x86_64",
    "linux-x86_64": "manylinux2014_x86_64",
    "macos-arm64": "macosx_11_0_arm64",
    "macos-x86_64": "macosx_10_9_universal2",
    "windows-amd64": "win_amd64",
}
PLATFORMS = tuple(sorted(TAGS))
# The last release with wheels for Intel macOS; docs/platforms.md explains what that means.
LAST_FOR = {("cryptography", "macos-x86_64"): "48.0.1"}
# cp39-abi3 wheels work with every later Python. Plain 3.9 means 3.9.0, for which pip finds only an old release.
OLDEST_PYTHON = "3.9.18"
INTRODUCTION = """\
# Every wheel that goes into an archive: platform, sha256, name. Written by `make lock`; build_zipapp.py takes no other.
"""


class Wheel(NamedTuple):
    """A line of the lock file."""

    platform: str
    digest: str
    filename: str

    @property
    def project(self) -> str:
        """The project in the wheel's name, with underscores."""
        return self.filename.split("-")[0]

    @property
    def version(self) -> str:
        """The version in the wheel's name."""
        return self.filename.split("-")[1]

    @property
    def path(self) -> Path:
        """Where the file is kept."""
        return WHEELS / self.filename

    def is_here(self) -> bool:
        """Whether the file exists and has the digest in the lock file."""
        return self.path.is_file() and hashlib.sha256(self.path.read_bytes()).hexdigest() == self.digest


def locked() -> list[Wheel]:
    """The lock file."""
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    return [Wheel(*line.split()) for line in lines if line and not line.startswith("#")]


def select(projects: Sequence[str], platforms: Sequence[str]) -> list[Wheel]:
    """The wheels of these projects for these platforms, sorted; they are downloaded and verified. Raises BuildError."""
    wanted = sorted(row for row in locked() if row.project in projects and row.platform in ("any", *platforms))
    if missing := set(projects) - {row.project for row in wanted}:
        raise BuildError(f"{LOCK.name} has no {', '.join(sorted(missing))}: run `make lock`")
    for platform in sorted({row.platform for row in wanted}):
        fetch(platform, [row for row in wanted if row.platform == platform and not row.is_here()])
    return wanted


def fetch(platform: str, wheels: list[Wheel]) -> None:
    """Download missing wheels; pip checks their digests, and so does this function."""
    if not wheels:
        return
    pins = [f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.digest}" for wheel in wheels]
    try:
        download(pins, platform, WHEELS, "--require-hashes")
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.stderr)
        names = ", ".join(wheel.filename for wheel in wheels)
        raise BuildError(
            f"pip cannot get {names}: connect to a package index, or put the file into {WHEELS.relative_to(ROOT)}/ "
            "(`make zipapp` uses a Python that has pip)"
        ) from None
    for wheel in wheels:
        if not wheel.is_here():
            raise BuildError(f"pip downloaded a different {wheel.filename} than {LOCK.name} lists")


def download(pins: list[str], platform: str, directory: Path, *options: str) -> None:
    """Run pip for one platform. Raises CalledProcessError."""
    directory.mkdir(parents=True, exist_ok=True)
    requirements = directory / f"{platform}.txt"
    requirements.write_text("\n".join([*pins, ""]), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", f"--dest={directory}", f"--requirement={requirements}", *options]
    # MarkupSafe has no wheel without native code, but its Python files work alone: the archive takes only those.
    abi, tag = ("cp39", TAGS["linux-x86_64"]) if platform == "any" else ("abi3", TAGS[platform])
    command += ["--implementation=cp", f"--abi={abi}", f"--platform={tag}"]
    command += [f"--python-version={OLDEST_PYTHON}"]
    subprocess.run(command, capture_output=True, text=True, check=True)
    requirements.unlink()


# -- make lock -------------------------------------------------------------------------------------------------------


def pinned(requirements: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Project, version and digests of each entry of a compiled requirements file."""
    entry = re.compile(r"^([\w.-]+)==(\S+).*((?:\n +--hash=.*)+)", re.MULTILINE)
    for found in entry.finditer(requirements.read_text(encoding="utf-8")):
        yield found[1].replace("-", "_").lower(), found[2], re.findall(r"sha256:([0-9a-f]{64})", found[3])


def relock(requirements: Path, projects: Sequence[str], native: Sequence[str]) -> None:
    """Write the lock file, with one line per platform for `native` projects and one line for each other."""
    rows = []
    for project, version, digests in pinned(requirements):
        for platform in PLATFORMS if project in native else ["any"] if project in projects else []:
            held_back = LAST_FOR.get((project, platform))
            row = newest(project, held_back or version, platform)
            if row.digest not in digests and not held_back:
                raise BuildError(f"{row.filename} is not a file that {requirements.name} allows")
            rows.append(row)
    rows.sort(key=lambda row: (row.platform, row.filename))
    lines = [f"{row.platform:<18} {row.digest} {row.filename}\n" for row in rows]
    LOCK.write_bytes((INTRODUCTION + "".join(lines)).encode())


def newest(project: str, version: str, platform: str) -> Wheel:
    """The wheel that pip chooses for a platform."""
    directory = WHEELS / "lock" / f"{project}-{version}-{platform}"
    download([f"{project}=={version}"], platform, directory)
    (path,) = directory.glob("*.whl")
    path = path.replace(WHEELS / path.name)
    directory.rmdir()
    return Wheel(platform, hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
