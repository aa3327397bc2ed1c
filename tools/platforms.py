"""`make test-platforms`: the archives on platforms that are not this machine's, as far as one machine can.

Debian systems with other Pythons are unpacked below build/platforms and entered with chroot; arm64 runs under qemu. For
musl there is no Python to be had from Debian, so musl's own loader is asked whether it finds everything but Python. It
needs root, debootstrap and, for arm64, qemu-user-static; what cannot be tried is said.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "platforms"
DIST = ROOT / "dist"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
VAULT_SCRIPT = """
set -eu
P="python3 -I -S"
$P /tmp/sikkerkey-vault.pyz serve --dir /tmp/vault --port 0 > /tmp/url & vault=$!
trap 'kill $vault 2>/dev/null' EXIT
for _ in $(seq 100); do test -s /tmp/url && break; sleep 0.1; done
export SIKKERKEY_API_URL="$(cat /tmp/url)"
agent=$($P /tmp/sikkerkey-vault.pyz agent-token --dir /tmp/vault --scopes all 2>/dev/null \
    | $P /tmp/sikkerkey-mcp.pyz install - 2>/dev/null | cut -d' ' -f3)
$P /tmp/sikkerkey-vault.pyz approve "$agent" --dir /tmp/vault >/dev/null
$P /tmp/sikkerkey-mcp.pyz whoami --remote | grep agentId
"""


class Unavailable(Exception):
    """Why something cannot be tried on this machine."""


class System(NamedTuple):
    """A Debian to enter."""

    suite: str
    architecture: str
    emulator: str = ""


SYSTEMS = (System("trixie", "amd64"), System("forky", "amd64"), System("trixie", "arm64", "qemu-aarch64-static"))


def output(command: list[str], **settings: str) -> str:
    """What a command prints; its complaint if it fails."""
    environment = {"PATH": PATH, "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", **settings}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise RuntimeError(f"{' '.join(command[:3])}: {lines[-1]}")
    return done.stdout


def tool(name: str) -> str:
    """Its path."""
    found = shutil.which(name, path=PATH)
    if not found:
        raise Unavailable(f"{name} is not installed")
    return found


def unpacked(system: System) -> Path:
    """A Debian with python3 in it, from the mirror that apt uses. It is unpacked, not set up: that is all it takes."""
    if os.geteuid() != 0:
        raise Unavailable("only root can enter another system")
    emulator = tool(system.emulator) if system.emulator else ""
    root = PLACE / f"{system.suite}-{system.architecture}"
    if not (root / ".ready").exists():
        debootstrap(system, root)
        for package in sorted(root.glob("var/cache/apt/archives/*.deb")):
            output(["dpkg-deb", "--extract", str(package), str(root)])
        (root / ".ready").touch()
    if emulator:
        shutil.copy(emulator, root / "emulator")
    for name in ("sikkerkey-mcp.pyz", "sikkerkey-vault.pyz"):
        shutil.copy(DIST / name, root / "tmp")
    return root


def debootstrap(system: System, root: Path) -> None:
    """Fetch the packages."""
    program = tool("debootstrap")
    mirrors = [line for line in output(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split() if line]
    shutil.rmtree(root, ignore_errors=True)
    known = Path("/usr/share/debootstrap/scripts", system.suite).exists()
    script = [] if known else ["/usr/share/debootstrap/scripts/sid"]
    command = [program, "--foreign", f"--arch={system.architecture}", "--variant=minbase", "--include=python3"]
    for mirror in dict.fromkeys(mirrors):
        try:
            output([*command, system.suite, str(root), mirror, *script])
            return
        except RuntimeError as error:
            failure = error
    raise Unavailable(f"no mirror of apt's has {system.suite} for {system.architecture} ({failure})")


def try_system(system: System) -> str:
    """The client signs and, where programs can start programs, registers with the vault."""
    root = unpacked(system)
    enter = [tool("chroot"), str(root), *(["/emulator"] if system.emulator else [])]
    client = [*enter, "/usr/bin/python3", "-I", "-S", "/tmp/sikkerkey-mcp.pyz", "--version", "--verbose"]  # noqa: S108
    for directory in ("root/.cache", "root/.sikkerkey", "tmp/vault"):
        shutil.rmtree(root / directory, ignore_errors=True)
    told = [output(client), output(client)][-1]
    if not re.search(r"^library: /root/\.cache/", told, re.MULTILINE):
        raise RuntimeError(f"the library did not come from the cache:\n{told}")
    found = ", ".join(re.findall(r"^(?:platform: |python: )([^,\n]+)", told, re.MULTILINE))
    if system.emulator:
        return f"{found}: client loads, signs and verifies"
    output([*enter, "/bin/sh", "-c", VAULT_SCRIPT])
    return f"{found}: client loads, signs and verifies; registers with the vault's archive"


def try_musl() -> str:
    """musl's loader finds what the library needs, in the place where the archive puts it."""
    machine = platform.machine()
    loader = Path(f"/lib/ld-musl-{machine}.so.1")
    if not loader.exists():
        raise Unavailable("musl is not installed")
    place = PLACE / "musl"
    shutil.rmtree(place, ignore_errors=True)
    prefix = f"native/linux-musl-{machine}/"
    with zipfile.ZipFile(DIST / "sikkerkey-mcp.pyz") as archive:
        archive.extractall(place, [name for name in archive.namelist() if name.startswith(prefix)])
    library = next((place / prefix).rglob("_rust*"))
    done = subprocess.run([str(loader), "--list", str(library)], capture_output=True, text=True, check=False)
    missing = set(re.findall(r"(?:relocating|symbol) .*?: (\w+): symbol not found", done.stdout + done.stderr))
    if foreign := sorted(name for name in missing if not name.startswith(("Py", "_Py"))):
        raise RuntimeError(f"missing beside Python: {', '.join(foreign)}")
    if not re.search(r"libgcc_s\S+ => \S*/cryptography\.libs/", done.stdout):
        raise RuntimeError(f"libgcc_s is not found in its place:\n{done.stdout}")
    return f"linux-musl-{machine}: musl's loader links the library and its libgcc_s (no Python ran)"


def report(name: str, attempt: Callable[[], str]) -> bool:
    """Whether it did not fail."""
    try:
        print(f"ran      {attempt()}", flush=True)
    except Unavailable as reason:
        print(f"not run  {name}: {reason}", flush=True)
    except RuntimeError as error:
        print(f"FAILED   {name}: {error}", flush=True)
        return False
    return True


def main() -> int:
    PLACE.mkdir(parents=True, exist_ok=True)
    fine = [report(f"Debian {it.suite} {it.architecture}", partial(try_system, it)) for it in SYSTEMS]
    return 0 if all([*fine, report("musl", try_musl)]) else 1


if __name__ == "__main__":
    sys.exit(main())
