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

from tests.harness import ARCHIVE, PATIENCE_S, ROOT
from tests.local_vault import LocalVault

README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading, up to the next one of the same level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def commands(text: str) -> list[str]:
    """The lines of the shell blocks."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
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
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def here(line: str) -> str:
    """The line with this interpreter and this archive."""
    python = shlex.quote(sys.executable)
    line = re.sub(r"(?:\.venv/bin/python|python3)(?= )", lambda _: python, line)
    return re.sub(r"(?<= )(?:dist/)?sikkerkey-mcp\.pyz", lambda _: shlex.quote(str(ARCHIVE)), line)


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z0-9-]*)", README, re.MULTILINE)) - {"a", "an", "the"}
    assert {"demo", "test", "zipapp"} <= named <= targets


def test_files_that_are_linked_exist() -> None:
    links = {link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link}
    assert links
    assert [link for link in sorted(links) if not (ROOT / link).exists()] == []


def test_commands_of_use_it_work(tmp_path: Path, home: Path) -> None:
    lines = [line for line in commands(section("Use it")) if "sikkerkey-mcp.pyz" in line]
    assert [re.search(r"install|config", line) is not None for line in lines].count(True) >= 2
    vault = LocalVault(tmp_path / "vault")
    try:
        token = vault.owner("agent-token", "--scopes", "all")
        wanted = [here(line) for line in lines if re.search("install|config", line)]
        printed = [run(line, token, SIKKERKEY_API_URL=vault.url) for line in wanted]
    finally:
        vault.close()
    assert "installed agent" in printed[0]
    written = json.loads((home / ".claude.json").read_text())
    assert written["mcpServers"]["sikkerkey"]["args"][:2] == ["-I", str(ARCHIVE)]


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
    pasted = commands(section("Try it without an account"))
    lines = [found.sub(lambda place: places[place[0]], here(line)) for line in pasted]
    serve = next(line for line in lines if " serve " in line)
    with subprocess.Popen(shlex.split(serve), cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().strip().endswith(port)
            for line in lines:
                if line != serve:
                    listed = run(f"{here('python3 -m vault agents')} --json --dir {tmp_path / 'v'}")
                    agents = json.loads(listed) if listed.strip() else []
                    run(line.replace(" ID ", f" {agents[0]['agentId']} ") if agents else line)
            told = run(here("python3 sikkerkey-mcp.pyz whoami --remote"))
        finally:
            server.terminate()
    assert "approved: true" in told
