"""The README's commands, run as a reader would paste them: only paths, port and ids are put in their place."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

from sikkerkey_cli.clients import CLIENTS
from sikkerkey_cli.grammar import COMMANDS
from tests.support.harness import ARCHIVE, ROOT, TIMEOUT_S
from tests.support.local_vault import LocalVault

README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading, up to the next one of the same level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def commands(text: str, shell: str = "sh") -> list[str]:
    """The lines of the shell blocks."""
    blocks = re.findall(rf"^ *```{shell}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def run(line: str, text_in: str = "", **env: str) -> str:
    """What a pasted line prints."""
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=ROOT,
        input=text_in,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def here(line: str) -> str:
    """The line with this interpreter and these archives."""
    line = re.sub(r"python3(?= )", lambda _: shlex.quote(sys.executable), line)
    archive = re.compile(r"(?<= )(?:dist/)?(sikkerkey-(?:mcp|vault)\.pyz)")
    return archive.sub(lambda found: shlex.quote(str(ARCHIVE.with_name(found[1]))), line)


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z0-9-]*)", README, re.MULTILINE)) - {"a", "an", "the"}
    assert {"demo", "test", "zipapp"} <= named <= targets


def test_files_that_are_linked_exist() -> None:
    links = {link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link}
    assert links
    assert [link for link in sorted(links) if not (ROOT / link).exists()] == []


def test_commands_of_use_it_work(tmp_path: Path, home: Path) -> None:
    install, config, doctor = (here(line) for line in commands(section("Use it")))
    vault = LocalVault(tmp_path / "vault")
    try:
        installed = run(install, vault.owner("agent-token", "--scopes", "all"), SIKKERKEY_API_URL=vault.url)
        vault.owner("approve", json.loads(vault.owner("agents", "--json"))[0]["agentId"])
        run(config)
        checked = run(doctor)
    finally:
        vault.close()
    assert "installed agent" in installed
    written = json.loads((home / ".claude.json").read_text())
    assert written["mcpServers"]["sikkerkey"]["args"][:2] == ["-I", str(ARCHIVE)]
    assert checked.splitlines()[-1].endswith(", 0 fail")


def test_windows_is_told_the_same_commands() -> None:
    told = commands(section("Use it"), "powershell")
    assert [line.replace("py -3 ", "python3 ") for line in told] == commands(section("Use it"))


def test_table_of_commands_names_every_command_variable_and_client() -> None:
    cells = [line.split("|")[1] for line in section("Commands").splitlines() if line.startswith("| `")]
    named = {words.split()[0] for cell in cells for words in re.findall("`([^`]+)`", cell)}
    product = [*ROOT.glob("sikkerkey_*.py"), *ROOT.glob("sikkerkey_cli/*.py"), *(ROOT / "runtime").glob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in product)
    variables = set(re.findall(r"SIKKERKEY_[A-Z]+(?:_[A-Z]+)*", sources))
    assert named == {*COMMANDS, "--version", "--help", *variables, "HTTPS_PROXY", "NO_PROXY"}
    assert {name for name in CLIENTS if f"`{name}`" not in section("Use it")} == {"generic"}


def test_table_of_code_names_every_module_and_room() -> None:
    rooms = {f"{path.parent.name}/" for path in [*ROOT.glob("[a-z]*/*.py"), *ROOT.glob("[a-z]*/*.in")]}
    names = rooms | {path.name for path in ROOT.glob("*.py")}
    assert sorted(name for name in names - {"build/"} if f"`{name}`" not in section("The code")) == []
    assert sorted(page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in README) == []


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_vault_is_tried_as_the_readme_says(tmp_path: Path) -> None:
    port = str(free_port())
    places = {"/tmp/my-vault": str(tmp_path / "v"), "/tmp/token": str(tmp_path / "t"), "8300": port}
    found = re.compile("|".join(places))
    pasted = [line for line in commands(section("Try it without an account")) if not line.startswith("make ")]
    lines = [found.sub(lambda place: places[place[0]], here(line)) for line in pasted]
    serve = next(line for line in lines if " serve " in line)
    with subprocess.Popen(shlex.split(serve), cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().strip().endswith(port)
            for line in lines:
                if line != serve:
                    listed = run(here(f"python3 dist/sikkerkey-vault.pyz agents --json --dir {tmp_path / 'v'}"))
                    agents = json.loads(listed) if listed.strip() else []
                    shown = run(line.replace(" ID ", f" {agents[0]['agentId']} ") if agents else line)
            told = run(here("python3 sikkerkey-mcp.pyz whoami --remote"))
        finally:
            server.terminate()
    assert "approved: true" in told
    assert "Webshop" in shown
