"""Runs the README's commands as a reader would paste them, with other paths, ports and ids."""

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
COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
VAULT = (ROOT / "docs" / "vault.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def section(title: str, page: str = README) -> str:
    """The text below a second-level heading, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def commands(text: str, shell: str = "sh") -> list[str]:
    """The commands in the code blocks of one language. A pipe at the end of a line continues it."""
    blocks = re.findall(rf"^ *```{shell}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    blocks = [re.sub(r"\|\n *", "| ", block) for block in blocks]
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def run(line: str, text_in: str = "", **env: str) -> str:
    """Runs a line in a shell and returns what it prints; it must succeed."""
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
    """The line with the interpreter and the archives of the tests."""
    line = re.sub(r"python3(?= )", lambda _: shlex.quote(sys.executable), line)
    archive = re.compile(r"(?<= )(?:dist/)?(sikkerkey-(?:mcp|vault)\.pyz)")
    return archive.sub(lambda found: shlex.quote(str(ARCHIVE.with_name(found[1]))), line)


def test_every_make_target_in_readme_and_contributing_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    words = re.findall(r"(?:`|^)make ([a-z][a-z0-9 -]*)", README + CONTRIBUTING, re.MULTILINE)
    named = {target for line in words for target in line.split()}
    assert {"demo", "test", "zipapp"} <= named <= targets


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    checked = 0
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if "://" in link or link.startswith("mailto:"):
                continue
            checked += 1
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), (page.name, link)
            assert not anchor or target.suffix != ".md" or anchor in anchors(target), (page.name, link)
    assert checked > 200


def test_readme_is_short_and_each_page_begins_with_what_it_is_for() -> None:
    assert README.count("\n") < 200
    for page in PAGES:
        title, opening, *_ = page.read_text(encoding="utf-8").split("\n\n", 2)
        assert title.startswith("# "), page.name
        assert page.parent == ROOT or opening.startswith("This page "), (page.name, opening)


def test_install_commands_work(tmp_path: Path, home: Path) -> None:
    install, config, doctor = (here(line) for line in commands(section("Install")))
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


COMMANDS_AND_VARIABLES = "".join(section(title, COMMAND_LINE) for title in ("All commands", "Environment variables"))


def test_table_of_commands_names_every_command_variable_and_client() -> None:
    cells = [line.split("|")[1] for line in COMMANDS_AND_VARIABLES.splitlines() if line.startswith("| `")]
    named = {words.split()[0] for cell in cells for words in re.findall("`([^`]+)`", cell)}
    product = [*ROOT.glob("sikkerkey_*.py"), *ROOT.glob("sikkerkey_cli/**/*.py"), *(ROOT / "runtime").rglob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in product)
    variables = set(re.findall(r"SIKKERKEY_[A-Z]+(?:_[A-Z]+)*", sources))
    usual = {"HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    assert named == {*COMMANDS, "--version", "--help", "help", *variables, *usual}
    assert {name for name in CLIENTS if f"`{name}`" not in section("Install")} == {"generic"}


def test_contributing_lists_all_code_and_readme_links_every_page() -> None:
    layout = section("Layout", CONTRIBUTING)
    files = sorted(path.name for path in ROOT.glob("*.py"))
    assert [name for name in files if f"`{name}`" not in layout] == []
    directories = {f"{path.parent.name}/" for path in [*ROOT.glob("[a-z]*/*.py"), *ROOT.glob("[a-z]*/*.in")]}
    assert sorted(name for name in directories - {"build/"} if f"`{name}`" not in layout) == []
    assert sorted(page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in README) == []


def free_port() -> int:
    """A TCP port without a listener, and without one at the next port, where the vault listens with TLS."""
    while True:
        with socket.socket() as probe, socket.socket() as next_one:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def test_no_command_writes_a_token_to_a_file_or_uses_a_shared_directory() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    lines = [line for page in pages for line in commands(page.read_text(encoding="utf-8"))]
    tokens = [line for line in lines if "agent-token" in line]
    assert tokens
    assert [line for line in tokens if "| " not in line or ">" in line] == []
    assert [line for line in lines if "/tmp" in line] == []


def test_commands_of_the_local_vault_work(tmp_path: Path) -> None:
    port = str(free_port())
    replacements = {"~/my-vault": str(tmp_path / "v"), "8300": port}
    names = re.compile("|".join(replacements))
    pasted = [line for line in commands(section("Start one by hand", VAULT)) if not line.startswith("make ")]
    lines = [names.sub(lambda found: replacements[found[0]], here(line)) for line in pasted]
    serve = next(line for line in lines if " serve " in line)
    with subprocess.Popen(shlex.split(serve), cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().strip().endswith(port)
            for line in lines:
                agent = ""
                if " ID " in line:
                    listed = run(here(f"python3 dist/sikkerkey-vault.pyz agents --json --dir {tmp_path / 'v'}"))
                    agent = json.loads(listed)[0]["agentId"]
                if line != serve:
                    shown = run(line.replace(" ID ", f" {agent} "))
            remote = run(here("python3 sikkerkey-mcp.pyz whoami --remote"))
        finally:
            server.terminate()
    assert "approved: true" in remote
    assert "Webshop" in shown
