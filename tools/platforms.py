"""`make test-platforms`: runs the archives on other platforms, as far as one machine can.

Debian systems with other Pythons are unpacked below build/platforms and entered with chroot; arm64 runs under qemu.
Debian has no Python for musl, so musl's own loader checks that it finds everything but Python. This needs root,
debootstrap and, for arm64, qemu-user-static; the report lists what could not be tried. No program inside starts another
one, because under qemu it could not: everything is started from here.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.harness import TIMEOUT_S, Server

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "platforms"
DIST = ROOT / "dist"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TMP = "/tmp"  # noqa: S108 (inside the other system, which nobody else uses)
CLIENT_FILE = "root/.claude.json"


class Unavailable(Exception):
    """Why something cannot be tried on this machine."""


class System(NamedTuple):
    """A Debian system with one of its Pythons, which is a package and a program of the same name."""

    suite: str
    architecture: str
    emulator: str = ""
    python: str = "python3"


SYSTEMS = (
    System("trixie", "amd64"),
    System("forky", "amd64"),
    System("sid", "amd64", python="python3.15"),
    System("trixie", "arm64", "qemu-aarch64-static"),
)


def surroundings(**settings: str) -> dict[str, str]:
    """The environment of every program that is started."""
    return {"PATH": PATH, "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", **settings}


def output(command: list[str], text_in: str = "", **settings: str) -> str:
    """What a command prints. Raises RuntimeError with its last line if it fails."""
    environment = surroundings(**settings)
    done = subprocess.run(command, input=text_in, capture_output=True, text=True, check=False, env=environment)
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
    """A Debian with Python, from the mirrors that apt uses. Its packages are unpacked but not configured."""
    if os.geteuid() != 0:
        raise Unavailable("only root can enter another system")
    emulator = tool(system.emulator) if system.emulator else ""
    root = PLACE / f"{system.suite}-{system.architecture}-{system.python}"
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
    command = [program, "--foreign", f"--arch={system.architecture}", "--variant=minbase", f"--include={system.python}"]
    for mirror in dict.fromkeys(mirrors):
        try:
            output([*command, system.suite, str(root), mirror, *script])
            return
        except RuntimeError as error:
            failure = error
    raise Unavailable(f"no mirror that apt uses has {system.suite} for {system.architecture} ({failure})")


def require(fine: object, what: str) -> None:
    """Raise what the report shows as a failure unless `fine` is true."""
    if not fine:
        raise RuntimeError(what)


class Installation:
    """Both archives in another system, as its root uses them."""

    def __init__(self, system: System) -> None:
        self.root = unpacked(system)
        emulator = ["/emulator"] if system.emulator else []
        self.python = [tool("chroot"), str(self.root), *emulator, f"/usr/bin/{system.python}", "-I", "-S"]
        for left in ("root/.cache", "root/.sikkerkey", CLIENT_FILE, "tmp/vault"):
            shutil.rmtree(self.root / left, ignore_errors=True)
            (self.root / left).unlink(missing_ok=True)

    def command(self, *words: str) -> list[str]:
        return [*self.python, f"{TMP}/sikkerkey-mcp.pyz", *words]

    def client(self, *words: str, text_in: str = "", **settings: str) -> str:
        return output(self.command(*words), text_in, **settings)

    def owner(self, *words: str) -> list[str]:
        return [*self.python, f"{TMP}/sikkerkey-vault.pyz", *words, "--dir", f"{TMP}/vault"]

    @contextmanager
    def vault(self) -> Iterator[str]:
        """The URL of a vault that the vault's archive serves."""
        command = [*self.owner("serve"), "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings())
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)
            process.stdout.close()


def try_system(system: System) -> str:
    """Run everything in a system; what ran, in one line."""
    there = Installation(system)
    found = try_loading(there)
    with there.vault() as url:
        token = output([*there.owner("agent-token"), "--scopes", "all"])
        agent = there.client("install", "-", text_in=token, SIKKERKEY_API_URL=url).split()[2]
        output([*there.owner("approve"), agent])
        try_commands(there)
        try_session(there)
        try_tampered(there)
    commands = "install, doctor, tools, call, config"
    session = "a session with tools, resources and prompts"
    return f"{found}: loads, signs and verifies; {commands}; {session}; a damaged cache; the vault's archive"


def try_loading(there: Installation) -> str:
    """Signs and verifies, with library and bytecode from the cache; returns platform and Python."""
    there.client("--version", "--verbose")
    shown = there.client("--version", "--verbose")
    for kept in ("library", "bytecode"):
        require(re.search(rf"^{kept}: /root/\.cache/", shown, re.MULTILINE), f"{kept} not from the cache:\n{shown}")
    return ", ".join(re.findall(r"^(?:platform: |python: )([^,\n]+)", shown, re.MULTILINE))


def try_commands(there: Installation) -> None:
    """What people and scripts type."""
    lines: Any = json.loads(there.client("doctor", "--json"))
    require({"vault", "scopes"} <= {line["check"] for line in lines if line["state"] == "ok"}, f"doctor: {lines}")
    tools: Any = json.loads(there.client("tools", "--json"))
    require({"whoami", "manage_secrets"} <= {tool["tool"] for tool in tools}, f"tools: {tools}")
    project: Any = json.loads(there.client("call", "manage_projects", "create", "name=søger"))
    words = ("call", "manage_secrets", "create", f"projectId={project['id']}", "name=db", "value=-")
    made = there.client(*words, text_in="hunter2")
    require("hunter2" not in made and json.loads(made)["id"], f"call: {made}")
    there.client("config", "claude-code", "--write")
    written: Any = json.loads((there.root / CLIENT_FILE).read_text(encoding="utf-8"))
    require(written["mcpServers"], f"config --write: {written}")
    there.client("config", "claude-code", "--remove")
    left: Any = json.loads((there.root / CLIENT_FILE).read_text(encoding="utf-8"))
    require(not left.get("mcpServers"), f"config --remove: {left}")


def try_session(there: Installation) -> None:
    """What a client asks; the harness validates every line against the protocol's schema."""
    with Server(there.command("serve"), env=surroundings()) as server:
        server.initialize()
        require(server.request("tools/list")["result"]["tools"], "no tools")
        require(not server.call("whoami").get("isError"), "whoami is refused")
        require(server.request("resources/list")["result"]["resources"], "no resources")
        require(server.request("resources/templates/list")["result"]["resourceTemplates"], "no templates")
        contents = server.request("resources/read", uri="sikkerkey://projects")["result"]["contents"]
        require("søger" in contents[0]["text"], f"resources/read: {contents}")
        prompts = [prompt["name"] for prompt in server.request("prompts/list")["result"]["prompts"]]
        require("review_audit" in prompts, f"prompts/list: {prompts}")
        prompt = server.request("prompts/get", name="review_audit", arguments={"hours": "2"})
        require(prompt["result"]["messages"], f"prompts/get: {prompt}")
        require(server.close() == 0 and not server.stderr, f"the server did not end cleanly: {server.stderr!r}")


def try_tampered(there: Installation) -> None:
    """Files that were changed in the cache are not run, and are replaced."""
    (unpacked,) = (there.root / "root/.cache/sikkerkey-mcp").iterdir()
    files = [next(unpacked.glob("cryptography/hazmat/bindings/_rust*")), unpacked / "sikkerkey_mcp.py"]
    before = {path: path.read_bytes() for path in files}
    for path, data in before.items():
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    there.client("call", "whoami")
    require({path: path.read_bytes() for path in files} == before, "the cache stays damaged")


def try_musl() -> str:
    """musl's loader finds what the library needs, in the directories that the archive uses."""
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
        raise RuntimeError(f"symbols other than Python's are missing: {', '.join(foreign)}")
    if not re.search(r"libgcc_s\S+ => \S*/cryptography\.libs/", done.stdout):
        raise RuntimeError(f"libgcc_s is not found in its place:\n{done.stdout}")
    return f"linux-musl-{machine}: musl's loader links the library and its libgcc_s (no Python ran)"


def report(name: str, attempt: Callable[[], str]) -> bool:
    """Print the outcome of one attempt; False if it failed."""
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
