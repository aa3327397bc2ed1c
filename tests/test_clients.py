"""`config`: the output and the file of each client, and changes to existing files."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import sikkerkey_mcp
from sikkerkey_cli import clients, edit, entries
from sikkerkey_cli import config as config_command
from sikkerkey_cli.__main__ import main
from sikkerkey_cli.clients import CLIENTS
from sikkerkey_cli.entries import FoundEntry
from tests.support.config_parsers import toml
from tests.support.harness import AGENT_ID, Recorder, Server, make_slot
from tests.support.shell import PROGRAM

OTHER_ID = "1f8fad5b-d9cb-469f-a165-70867728950f"
HOSTILE_PATH = '/opt/it\'s "my" tools\\n/søger \U0001f511/\t\x7f{x}: #$(y)%/sikkerkey-mcp.pyz'
INTERPRETER = '/usr/bin/py\'thon "3"'
READ: dict[str, Callable[[str], Any]] = {"json": json.loads, "toml": toml.loads, "yaml": yaml.safe_load}

WITH_FILE = [name for name, client in CLIENTS.items() if client.files]


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Config = Callable[..., Ran]


@pytest.fixture
def config(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Config:
    """Runs `config` in this process, as if typed, with a program at a path that needs escaping everywhere."""
    monkeypatch.setattr(sys, "argv", [HOSTILE_PATH])
    monkeypatch.setattr(sys, "executable", INTERPRETER)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(entries, "SETTLE_S", 0)

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        try:
            status = main(["config", *arguments])
        except SystemExit as ended:  # argparse ends by itself
            status = int(ended.code or 0)
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture
def slot(home: Path) -> str:
    """An agent that is installed."""
    make_slot(home, "https://vault.test")
    return AGENT_ID


def servers(name: str, text: str) -> dict[str, Any]:
    """The entries of a block or a file as an independent parser reads them, in one shape."""
    shape = CLIENTS[name].shape
    held = READ[CLIENTS[name].format](text)[shape.container]
    entries = {entry["name"]: entry for entry in held} if shape.is_list else held
    return {key: {**uniform(shape, entry), **fixed(shape, key, entry)} for key, entry in entries.items()}


def uniform(shape: clients.Shape, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The command, under the names that most clients use."""
    words = [entry[shape.command], *entry[shape.args]] if shape.args else entry[shape.command]
    return {"command": words[0], "args": words[1:], **({"env": entry[shape.env]} if shape.env in entry else {})}


def fixed(shape: clients.Shape, key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Empty if the other members of the entry are exactly those of a new one."""
    wanted = {**shape.fixed, **shape.defaults, **entries.additional_members(shape, clients.this_system())}
    wanted = {**wanted, **({shape.name_member: key} if shape.name_member else {})}
    wanted = {**wanted, **({"name": key} if shape.is_list else {})}
    known = {shape.command, shape.args, shape.env}
    others = {member: value for member, value in entry.items() if member not in known}
    return {} if others == wanted else {"others": others}


def started(agent: str | None = AGENT_ID, *switches: str) -> dict[str, Any]:
    """The entry for an agent."""
    args = ["-I", HOSTILE_PATH, "serve", *(["--agent", agent] if agent else []), *switches]
    return {"command": INTERPRETER, "args": args}


def file_of(name: str) -> Path:
    """The client's own file in the test's home."""
    return Path(clients.user_file(CLIENTS[name], os.environ))


def write(path: Path, text: str | bytes, mode: int = 0o644) -> Path:
    """A file with its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    path.chmod(mode)
    os.utime(path, (0, 0))  # long ago: a file that was emptied just now is refused
    return path


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def listing(directory: Path) -> dict[str, bytes]:
    """Every file below with its content."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


SEVERAL = [name for name, client in CLIENTS.items() if not client.bare_tool_names]  # can have several servers

# The printed block


def test_block_is_read_back_equal(config: Config, slot: str) -> None:
    for name in CLIENTS:
        ran = config(name)
        assert servers(name, ran.out) == {"sikkerkey": started()}, name
        assert (ran.status, len(ran.err.splitlines()), ran.out.isascii()) == (0, 1, True), name


def test_block_contains_home_and_bundle_and_nothing_secret(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {
        "SIKKERKEY_HOME": f'{tmp_path}/it\'s "my" \\home\U0001f511\n\x7f\x01',
        "SIKKERKEY_CA_BUNDLE": "/etc/søger = [x] # y",
    }
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:canary@proxy.test:1")
    for name in CLIENTS:
        ran = config(name)
        assert servers(name, ran.out)["sikkerkey"] == {**started(None), "env": environment}, name
        assert "canary" not in ran.out, name


@pytest.mark.peer(15)
def test_several_agents_get_short_keys_of_their_own(config: Config, home: Path) -> None:
    similar = ["agent-of-the-same-long-name-" + end for end in ("1", "2", "x" * 90)]
    agents = sorted([AGENT_ID, OTHER_ID, "short", "Short", *similar])
    for agent in agents:
        make_slot(home, "https://vault.test", agent)
    for name in SEVERAL:
        found = servers(name, config(name).out)
        assert list(found.values()) == [started(agent) for agent in agents], name
        assert all(re.fullmatch(r"sikkerkey-[A-Za-z0-9_-]{1,20}", key) for key in found), name


def test_an_agent_is_written_by_its_id(config: Config, slot: str, home: Path) -> None:
    make_slot(home, "https://vault.test", "other", name="build host")
    block = config("cursor", "--agent", "Build Host").out
    assert '"other"' in block
    assert "host" not in block.lower().replace("sikkerkey-build-host", "")
    wrong = config("cursor", "--agent", "no such")
    assert (wrong.status, "--agent fits no agent that can be seen here" in wrong.err) == (2, True)


def test_keys_carry_the_agents_names(home: Path) -> None:
    names = {
        "a1": "My Laptop", "a2": "søger & Co.", "a3": "", "a4": "same", "a5": "Same!", "a6": "x" * 300,
        "a7": "\x1b\u202e日本",
    }  # fmt: skip
    for agent, name in names.items():
        make_slot(home, "https://vault.test", agent, name)
    keys = entries.server_keys(list(names))
    assert [keys[agent] for agent in ("a1", "a2", "a3", "a7")] == [
        f"sikkerkey-{word}" for word in ("my-laptop", "s-ger-co", "a3", "a7")
    ]
    assert re.fullmatch("sikkerkey-same-[0-9a-f]{8} sikkerkey-same-[0-9a-f]{8}", f"{keys['a4']} {keys['a5']}")
    assert re.fullmatch("sikkerkey-x{11}-[0-9a-f]{8}", keys["a6"])
    assert len(set(keys.values())) == len(names)
    assert entries.server_keys(["a1"]) == {None: "sikkerkey", "a1": "sikkerkey"}


def test_client_with_bare_tool_names_takes_one_agent_or_prefixes(config: Config, slot: str, home: Path) -> None:
    make_slot(home, "https://vault.test", OTHER_ID)
    refused = (
        1,
        "",
        "sikkerkey-mcp: error: Continue cannot tell the tools of several servers apart\n"
        "hint: choose one with --agent ID; add each further one with --agent ID --prefix NAME\n",
    )
    for options in ([], ["--write"], ["--write", "--prefix", "both"]):
        assert config("continue", *options) == refused, options
    assert not file_of("continue").exists()
    assert config("continue", "--write", "--agent", AGENT_ID).status == 0
    before = file_of("continue").read_text()
    ran = config("continue", "--write", "--agent", OTHER_ID)
    assert (ran.status, "cannot tell the tools of several servers apart" in ran.err) == (1, True)
    assert file_of("continue").read_text() == before
    assert config("continue", "--write", "--agent", OTHER_ID, "--prefix", "other").status == 0
    found = servers("continue", file_of("continue").read_text())
    assert list(found.values()) == [started(AGENT_ID), started(OTHER_ID, "--prefix", "other")]


def test_malformed_prefix_is_refused(config: Config, slot: str) -> None:
    for prefix in ("1a", "a_b", "a" * 17, "a b", "ø"):
        assert config("cursor", "--prefix", prefix).status == 2, prefix


def test_entry_of_an_agent_that_is_gone_becomes_that_of_the_new_one(config: Config, slot: str, home: Path) -> None:
    config("cursor", "--write", "--read-only")
    file_of("cursor").write_text(file_of("cursor").read_text().replace('"sikkerkey"', '"my vault"'))
    shutil.rmtree(home / ".sikkerkey" / "agents" / AGENT_ID)
    make_slot(home, "https://vault.test", OTHER_ID)
    ran = config("cursor", "--write")
    assert (ran.status, ran.out.splitlines()[0]) == (0, f"my vault updated in {file_of('cursor')}")
    assert servers("cursor", file_of("cursor").read_text())["my vault"] == started(OTHER_ID, "--read-only")


def test_further_entries_of_agents_that_are_gone_are_removed(config: Config, home: Path) -> None:
    for agent in ("a1", "a2", "a3"):
        make_slot(home, "https://vault.test", agent, agent)
    config("cursor", "--write")
    for agent in ("a1", "a2"):
        shutil.rmtree(home / ".sikkerkey" / "agents" / agent)
    elsewhere = {"sikkerkey-e": {**started("a1"), "env": {"SIKKERKEY_HOME": "/elsewhere"}}}
    held = json.loads(file_of("cursor").read_text())
    held["mcpServers"].update(elsewhere)
    file_of("cursor").write_text(json.dumps(held))
    ran = config("cursor", "--write")
    assert [line.split()[:3] for line in ran.out.splitlines()] == [
        ["sikkerkey-a3", "is", "up"], ["sikkerkey-a1", "removed", "from"], ["sikkerkey-a2", "removed", "from"],
    ]  # fmt: skip
    assert servers("cursor", file_of("cursor").read_text()) == {"sikkerkey-a3": started("a3"), **elsewhere}


def test_block_contains_the_chosen_agent_only(config: Config, slot: str, home: Path) -> None:
    make_slot(home, "https://vault.test", OTHER_ID)
    for name in CLIENTS:
        assert list(servers(name, config(name, "--agent", OTHER_ID).out).values()) == [started(OTHER_ID)], name


def test_block_without_agents_starts_the_server(config: Config) -> None:
    for name in CLIENTS:
        ran = config(name)
        assert servers(name, ran.out) == {"sikkerkey": started(None)}, name
        assert ran.err.startswith("no agent is installed yet: "), name


@pytest.mark.parametrize("wanted", ["../victim", "unknown"])
def test_bad_choice_of_an_agent_prints_nothing(config: Config, slot: str, wanted: str) -> None:
    ran = config("cursor", "--agent", wanted)
    assert (ran.status, ran.out) == (2, "")


def test_block_contains_the_network_of_this_terminal(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that pass the proxy on get it from the terminal, and from each one the right one."""
    monkeypatch.chdir("/")
    variables = {
        "SIKKERKEY_CA_BUNDLE": "/ca.pem",
        "SIKKERKEY_CA_BUNDLE_ONLY": "1",
        "SIKKERKEY_VAULT_USER": "vault",
        "SSL_CERT_FILE": "etc/own.pem",
        "SSL_CERT_DIR": f"etc{os.pathsep}/etc/ssl",
        "HTTPS_PROXY": "http://wrong:1",
        "https_proxy": "http://proxy.test:3128",
        "NO_PROXY": "a.test,b.test",
    }
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    certificates = {
        "SIKKERKEY_CA_BUNDLE": "/ca.pem",
        "SIKKERKEY_CA_BUNDLE_ONLY": "1",
        "SIKKERKEY_VAULT_USER": "vault",
        "SSL_CERT_FILE": "/etc/own.pem",
        "SSL_CERT_DIR": f"/etc{os.pathsep}/etc/ssl",
    }
    proxy = {"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": "a.test,b.test"}
    for name, client in CLIENTS.items():
        expected = certificates if client.passes_proxies_on else {**certificates, **proxy}
        assert servers(name, config(name).out)["sikkerkey"]["env"] == expected, name
    assert {name for name, client in CLIENTS.items() if client.passes_proxies_on} == {
        *("claude-code", "gemini", "opencode")
    }


def test_password_of_a_proxy_is_never_written(config: Config, slot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("http://user:canary@proxy.test:1", "user:canary@proxy.test:1", "https://canary@proxy.test:1"):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "a.test")
        ran = config("cursor", "--dry-run")
        assert "canary" not in ran.out + ran.err
        assert '"NO_PROXY": "a.test"' in ran.out
        assert "note: HTTPS_PROXY contains a password and is not added" in ran.err
        assert "HTTPS_PROXY" not in config("claude-code", "--dry-run").err


def test_proxy_in_an_entry_is_updated_and_never_removed(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def proxy_after(value: str) -> str:
        monkeypatch.setenv("HTTPS_PROXY", value)
        assert config("cursor", "--write").status == 0
        held: str = json.loads(file_of("cursor").read_text())["mcpServers"]["sikkerkey"]["env"]["HTTPS_PROXY"]
        return held

    assert proxy_after("http://one.test:1") == "http://one.test:1"
    assert proxy_after("http://two.test:1") == "http://two.test:1"
    assert proxy_after("") == "http://two.test:1"
    text = file_of("cursor").read_text()
    file_of("cursor").write_text(text.replace("two.test", "user:canary@two.test"))
    for value in ("http://one.test:1", "http://user:other@one.test:1", ""):
        assert proxy_after(value) == "http://user:canary@two.test:1", value


def test_agent_of_the_environment_is_chosen(config: Config, slot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_AGENT_ID", "nope")
    assert config("cursor").status == 1


def test_restrictions_follow_serve(config: Config, slot: str) -> None:
    ran = config("cursor", "--read-only", "--tools", "whoami,manage_secrets.list", "--exclude", "support")
    switches = ("--read-only", "--tools", "whoami,manage_secrets.list", "--exclude", "support")
    assert servers("cursor", ran.out) == {"sikkerkey": started(AGENT_ID, *switches)}


def test_split_reads_follows_serve(config: Config, slot: str) -> None:
    ran = config("cursor", "--split-reads", "--tools", "read_secrets,manage_trash.purge")
    switches = ("--tools", "read_secrets,manage_trash.purge", "--split-reads")
    assert servers("cursor", ran.out) == {"sikkerkey": started(AGENT_ID, *switches)}
    config("cursor", "--write", "--split-reads")
    assert "note: sikkerkey was started with --split-reads; repeat these options" in config("cursor", "--write").err


@pytest.mark.parametrize(
    "switch", [("--tools", "nothing"), ("--exclude", "whoami,manage_secrets.fly"), ("--tools", ",")]
)
def test_unknown_tool_is_refused(config: Config, switch: tuple[str, str]) -> None:
    ran = config("cursor", *switch)
    assert (ran.status, ran.out) == (2, "")
    assert re.match(f"sikkerkey-mcp: error: {switch[0]} names .*, which is no tool or action\nhint: ", ran.err)


RESTRICTED = {
    "SIKKERKEY_READ_ONLY": "1",
    "SIKKERKEY_TOOLS": "whoami,manage_secrets",
    "SIKKERKEY_EXCLUDE": "manage_secrets.delete",
    "SIKKERKEY_VALUES": "from-person",
    "SIKKERKEY_CONFIRM": "writes",
    "SIKKERKEY_MAX_CALLS": "5/minute",
    "SIKKERKEY_MAX_DESTRUCTIVE": "1/day",
}


def test_restrictions_of_the_environment_are_written(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client starts the server without this terminal's environment: without them, the server would offer more."""
    for variable, text in RESTRICTED.items():
        monkeypatch.setenv(variable, text)
    for name in CLIENTS:
        assert servers(name, config(name).out)["sikkerkey"]["env"] == RESTRICTED, name


def test_restrictions_in_an_entry_are_never_removed(config: Config, slot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_READ_ONLY", "1")
    monkeypatch.setenv("SIKKERKEY_TOOLS", "whoami")
    assert config("cursor", "--write").status == 0
    for variable in RESTRICTED:
        monkeypatch.delenv(variable, raising=False)
    assert "is up to date" in config("cursor", "--write").out
    monkeypatch.setenv("SIKKERKEY_TOOLS", "manage_secrets")
    ran = config("cursor", "--write")
    assert "note: sikkerkey had SIKKERKEY_TOOLS=whoami\n" in ran.err
    held = json.loads(file_of("cursor").read_text())["mcpServers"]["sikkerkey"]["env"]
    assert held == {"SIKKERKEY_READ_ONLY": "1", "SIKKERKEY_TOOLS": "manage_secrets"}


def test_what_loosens_the_server_is_not_taken_from_the_environment(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looser = {
        **{
            "SIKKERKEY_READ_ONLY": "0",
            "SIKKERKEY_TOOLS": "all",
            "SIKKERKEY_EXCLUDE": "none",
            "SIKKERKEY_VALUES": "any",
        },
        **{"SIKKERKEY_CONFIRM": "never", "SIKKERKEY_MAX_CALLS": "none", "SIKKERKEY_MAX_DESTRUCTIVE": "61/hour"},
    }
    for variable, text in looser.items():
        monkeypatch.setenv(variable, text)
    assert servers("cursor", config("cursor").out) == {"sikkerkey": started()}


@pytest.mark.parametrize("text", ["", " "])
def test_empty_restriction_is_refused_and_nothing_written(
    config: Config, slot: str, home: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = listing(home)
    for option in ("--tools", "--exclude", "--values", "--confirm", "--agent", "--max-calls", "--prefix"):
        ran = config("cursor", "--write", option, text)
        assert (ran.status, ran.out) == (2, ""), option
        assert f"error: {option} must not be empty\n" in ran.err
    for variable in RESTRICTED:
        with monkeypatch.context() as patched:
            patched.setenv(variable, text)
            ran = config("cursor", "--write")
        assert (ran.status, ran.out) == (1, ""), variable
        assert ran.err.startswith(f"sikkerkey-mcp: error: {variable} "), variable
    assert listing(home) == before


def test_repeated_restrictions_add_up_as_for_serve(config: Config, slot: str) -> None:
    ran = config(
        "cursor", "--exclude", "support", "--exclude", "manage_team", "--tools", "whoami", "--tools", "support"
    )
    switches = ("--tools", "whoami,support", "--exclude", "support,manage_team")
    assert servers("cursor", ran.out) == {"sikkerkey": started(AGENT_ID, *switches)}


def test_entry_that_cannot_start_is_never_written(
    config: Config, slot: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the options, the environment and what the entry holds are each valid alone."""
    ran = config("cursor", "--write", "--tools", "whoami", "--exclude", "whoami")
    assert (ran.status, file_of("cursor").exists()) == (2, False)
    assert "--tools, --exclude leave nothing to offer" in ran.err
    monkeypatch.setenv("SIKKERKEY_EXCLUDE", "whoami")
    ran = config("cursor", "--write", "--tools", "whoami")
    assert "--tools, SIKKERKEY_EXCLUDE leave nothing to offer" in ran.err
    assert config("cursor", "--write").status == 0
    monkeypatch.delenv("SIKKERKEY_EXCLUDE")
    before = file_of("cursor").read_bytes()
    ran = config("cursor", "--write", "--tools", "whoami")
    assert (ran.status, file_of("cursor").read_bytes()) == (1, before)
    assert "--tools, SIKKERKEY_EXCLUDE leave nothing to offer" in ran.err


def test_options_of_a_gone_agents_entry_are_kept_only_if_they_are_valid(config: Config, slot: str, home: Path) -> None:
    config("cursor", "--write", "--read-only")
    text = file_of("cursor").read_text()
    shutil.rmtree(home / ".sikkerkey" / "agents" / AGENT_ID)
    make_slot(home, "https://vault.test", OTHER_ID)
    for wrong in ("--help", "--no-such", "--tools="):
        write(file_of("cursor"), text.replace("--read-only", wrong))
        ran = config("cursor", "--write")
        assert (ran.status, ran.out) == (1, ""), wrong
        assert file_of("cursor").read_text() == text.replace("--read-only", wrong)


def test_interpreter_of_a_virtual_environment_is_named_and_warned_of(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", "/somewhere/else")
    ran = config("cursor")
    assert servers("cursor", ran.out) == {"sikkerkey": started()}
    assert "is in a virtual environment" in ran.err


def test_interpreter_that_will_go_away_is_warned_of(
    config: Config, slot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, why in (
        ("/home/me/.local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/bin/python3.13", "was installed by uv"),
        ("C:\\Users\\me\\AppData\\Roaming\\uv\\python\\cpython-3.13\\python.exe", "was installed by uv"),
        ("/home/me/.pyenv/versions/3.12.1/bin/python3.12", "was installed by pyenv"),
        ("/opt/homebrew/Cellar/python@3.13/3.13.1/bin/python3.13", "is one version of Homebrew's Python"),
        ("/home/me/.local/share/mise/installs/python/3.13.1/bin/python3", "was installed by a version manager"),
        ("/opt/homebrew/opt/python@3.13/bin/python3.13", ""),
        ("/usr/bin/python3", ""),
    ):
        monkeypatch.setattr(sys, "executable", path)
        notes = [line for line in config("cursor").err.splitlines() if line.startswith("note: ")]
        assert len(notes) == bool(why), path
        assert all(note.startswith(f"note: {path} {why}; ") and "breaks this server" in note for note in notes), path
    (tmp_path / "conda-meta").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    assert "is in a conda environment; deleting that breaks this server" in config("cursor").err


def test_path_that_is_not_utf_8_is_refused(config: Config, slot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [os.fsdecode(b"/opt/\xff/sikkerkey-mcp.pyz")])
    ran = config("cursor", "--write")
    assert ran.status == 1
    assert "is not UTF-8" in ran.err


def test_entry_starts_the_server(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    command = [sys.executable, "-I", PROGRAM, "config", "claude-desktop", "--write"]
    subprocess.run(command, check=True, capture_output=True)
    server = servers("claude-desktop", file_of("claude-desktop").read_text())["sikkerkey"]
    with Server([server["command"], *server["args"]]) as process:
        process.initialize()
        assert process.call("whoami")["structuredContent"] == {}


# Paths

HOME = {"linux": "/home/me", "macos": "/Users/me", "windows": "C:\\Users\\me"}
PLACES = {
    "claude-code": ("~/.claude.json",) * 3,
    "claude-desktop": (
        "~/.config/Claude/claude_desktop_config.json",
        "~/Library/Application Support/Claude/claude_desktop_config.json",
        "~/AppData/Roaming/Claude/claude_desktop_config.json",
    ),
    "cursor": ("~/.cursor/mcp.json",) * 3,
    "vscode": (
        "~/.config/Code/User/mcp.json",
        "~/Library/Application Support/Code/User/mcp.json",
        "~/AppData/Roaming/Code/User/mcp.json",
    ),
    "vscode-insiders": (
        "~/.config/Code - Insiders/User/mcp.json",
        "~/Library/Application Support/Code - Insiders/User/mcp.json",
        "~/AppData/Roaming/Code - Insiders/User/mcp.json",
    ),
    "vscodium": (
        "~/.config/VSCodium/User/mcp.json",
        "~/Library/Application Support/VSCodium/User/mcp.json",
        "~/AppData/Roaming/VSCodium/User/mcp.json",
    ),
    "codex": ("~/.codex/config.toml",) * 3,
    "continue": ("~/.continue/config.yaml",) * 3,
    "gemini": ("~/.gemini/settings.json",) * 3,
    "opencode": ("~/.config/opencode/opencode.json",) * 3,
    "copilot": ("~/.copilot/mcp-config.json",) * 3,
    "antigravity": ("~/.gemini/config/mcp_config.json",) * 3,
    "devin": ("~/.config/devin/mcp_config.json",) * 2 + ("~/AppData/Roaming/devin/mcp_config.json",),
    "windsurf": ("~/.codeium/windsurf/mcp_config.json",) * 3,
    "zed": ("~/.config/zed/settings.json",) * 2 + ("~/AppData/Roaming/Zed/settings.json",),
    "goose": ("~/.config/goose/config.yaml",) * 2 + ("~/AppData/Roaming/Block/goose/config/config.yaml",),
    "lm-studio": ("~/.lmstudio/mcp.json",) * 3,
    "kiro": ("~/.kiro/settings/mcp.json",) * 3,
    "warp": ("~/.warp/.mcp.json",) * 3,
}


def test_paths_of_the_clients_files() -> None:
    found = {
        name: tuple(
            clients.user_file(client, {"HOME": HOME[system], "USERPROFILE": HOME[system]}, system)
            for system in clients.SYSTEMS
        )
        for name, client in CLIENTS.items()
        if client.files
    }
    wanted = {
        name: (
            linux.replace("~", HOME["linux"]),
            macos.replace("~", HOME["macos"]),
            windows.replace("~", HOME["windows"]).replace("/", "\\"),
        )
        for name, (linux, macos, windows) in PLACES.items()
    }
    assert found == wanted


@pytest.mark.parametrize(
    ("name", "variable", "path"),
    [
        ("claude-code", "CLAUDE_CONFIG_DIR", "/x y/.claude.json"),
        ("claude-desktop", "XDG_CONFIG_HOME", "/x y/Claude/claude_desktop_config.json"),
        ("vscode", "XDG_CONFIG_HOME", "/x y/Code/User/mcp.json"),
        ("codex", "CODEX_HOME", "/x y/config.toml"),
        ("continue", "CONTINUE_GLOBAL_DIR", "/x y/config.yaml"),
        ("gemini", "GEMINI_CLI_HOME", "/x y/.gemini/settings.json"),
        ("opencode", "XDG_CONFIG_HOME", "/x y/opencode/opencode.json"),
        ("copilot", "COPILOT_HOME", "/x y/mcp-config.json"),
        ("zed", "XDG_CONFIG_HOME", "/x y/zed/settings.json"),
        ("goose", "XDG_CONFIG_HOME", "/x y/goose/config.yaml"),
    ],
)
def test_variable_that_the_client_honours_moves_its_file(name: str, variable: str, path: str) -> None:
    environ = {"HOME": "/home/me"}
    assert clients.user_file(CLIENTS[name], {**environ, variable: "/x y"}, "linux") == path
    assert clients.user_file(CLIENTS[name], {**environ, variable: ""}, "linux").startswith("/home/me/")
    with pytest.raises(sikkerkey_mcp.ConfigError, match=f"^{variable} is not an absolute path$"):
        clients.user_file(CLIENTS[name], {**environ, variable: "x"}, "linux")


def test_file_that_opencode_prefers_is_changed(config: Config, slot: str, home: Path) -> None:
    path = write(home / ".config" / "opencode" / "opencode.jsonc", "{} // mine\n")
    assert config("opencode", "--write").status == 0
    assert path.read_text().endswith("// mine\n")
    assert sorted(each.name for each in path.parent.iterdir()) == ["opencode.jsonc", "opencode.jsonc.sikkerkey.bak"]


def test_older_file_of_opencode_is_used_where_it_is_the_only_one(config: Config, slot: str, home: Path) -> None:
    path = write(home / ".config" / "opencode" / "config.json", '{"model": "a/b"}\n')
    assert config("opencode", "--write").out == f"sikkerkey added to {path}\n"
    write(path.with_name("opencode.json"), "{}\n")
    assert [entry.path for entry in entries.find_entries(os.environ)] == [str(path)]
    assert config("opencode", "--write", "--read-only").out == f"sikkerkey updated in {path}\n"
    assert config("opencode", "--remove").out == f"sikkerkey removed from {path}\n"
    assert json.loads(path.read_text())["model"] == "a/b"
    for name in ("opencode.json", "opencode.jsonc"):
        write(path.with_name(name), "{}\n")
        assert config("opencode", "--write").out == f"sikkerkey added to {path.with_name(name)}\n"
        config("opencode", "--remove")


OLD_CONTINUE = '{"models": [{"title": "GPT", "provider": "openai", "model": "gpt-4o"}]}\n'


def test_config_json_of_continue_is_not_hidden(config: Config, slot: str, home: Path) -> None:
    """A config.yaml would be read instead of it."""
    write(home / ".continue" / "config.json", OLD_CONTINUE)
    before = listing(home)
    block = config("continue").out
    assert json.loads(block)["mcpServers"]["sikkerkey"] == started()
    path = home / ".continue" / "mcpServers" / "sikkerkey.json"
    assert config("continue", "--write").out == f"sikkerkey added to {path}\n"
    assert path.read_text() == block
    assert [entry.path for entry in entries.find_entries(os.environ)] == [str(path)]
    assert config("continue", "--remove").status == 0
    assert listing(home) == before


def test_entry_beside_config_json_of_continue_is_found_after_its_migration(
    config: Config, slot: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home / ".continue" / "config.json", OLD_CONTINUE)
    config("continue", "--write")
    write(home / ".continue" / "config.yaml", "name: a\nversion: 1.0.0\nschema: v1\nmodels: []\n")
    ran = config("continue", "--write", "--read-only")
    assert ran.out == f"sikkerkey updated in {home}/.continue/mcpServers/sikkerkey.json\n"
    config("continue", "--remove")
    assert config("continue", "--write").out == f"sikkerkey added to {home}/.continue/config.yaml\n"


def test_project_file_of_continue_is_one_that_it_reads(
    config: Config, slot: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(home / ".continue" / "config.json", OLD_CONTINUE)
    config("continue", "--project", "--write")
    text = (tmp_path / ".continue" / "mcpServers" / "sikkerkey.json").read_text()
    assert json.loads(text) == {"mcpServers": {"sikkerkey": started()}}


def test_entry_in_the_other_file_of_opencode_is_the_one_that_changes(config: Config, slot: str, home: Path) -> None:
    config("opencode", "--write")
    write(home / ".config" / "opencode" / "opencode.jsonc", "{} // mine\n")
    assert config("opencode", "--write", "--read-only").out.endswith("/opencode.json\n")
    assert config("opencode", "--remove").out.endswith("/opencode.json\n")
    assert config("opencode", "--write").out.endswith("/opencode.jsonc\n")


def located(name: str) -> str:
    """The path of the client's file, relative to the test's home."""
    return os.path.relpath(file_of(name), Path.home())


PLACES_IN_USE = [
    ("claude-desktop", "AppData/Local/Packages/Claude_a1b2/LocalCache/Roaming/", "Claude/claude_desktop_config.json"),
    ("antigravity", ".gemini/antigravity/", "mcp_config.json"),
    ("lm-studio", ".cache/lm-studio/", "mcp.json"),
    ("vscode", ".vscode-server/data/", "User/mcp.json"),
    ("vscode-insiders", ".vscode-server-insiders/data/", "User/mcp.json"),
    ("vscodium", ".vscodium-server/data/", "User/mcp.json"),
]


def test_place_in_use_is_the_one_that_is_written(config: Config, slot: str, home: Path) -> None:
    for name, directory, file in PLACES_IN_USE:
        usual = located(name)
        (home / directory).mkdir(parents=True)
        if name == "antigravity":
            write(home / directory / file, "{}")
        assert located(name) == directory + file != usual, name
        assert config(name, "--write").out == f"sikkerkey added to {home / directory / file}\n", name
        assert servers(name, (home / directory / file).read_text()) == {"sikkerkey": started()}, name
        assert [entry.path for entry in entries.find_entries(os.environ)] == [str(home / directory / file)], name
        config(name, "--remove")


def test_newer_place_comes_before_the_older(home: Path) -> None:
    for name, directory, newer in (
        ("antigravity", ".gemini/antigravity", ".gemini/config"),
        ("lm-studio", ".cache/lm-studio", ".lmstudio"),
        ("vscode", ".vscode-server/data", ".config/Code"),
    ):
        usual = located(name)
        write(home / directory / "mcp_config.json", "{}")
        assert located(name) != usual, name
        (home / newer).mkdir(parents=True)
        assert located(name) == usual, name


def test_one_package_of_claude_desktop_is_chosen(home: Path) -> None:
    packages = home / "[App] Data" / "Packages"
    environ = {"HOME": str(home), "LOCALAPPDATA": str(packages.parent)}
    for package in ("Claude_a", "Claude_b", "Other_c"):
        (packages / package / "LocalCache" / "Roaming").mkdir(parents=True)
    path = "LocalCache/Roaming/Claude/claude_desktop_config.json"
    client = CLIENTS["claude-desktop"]
    assert clients.user_file(client, environ, "linux") == str(packages / "Claude_a" / path)
    write(packages / "Claude_b" / path, "{}")
    assert clients.user_file(client, environ, "linux") == str(packages / "Claude_b" / path)


def test_directory_of_lm_studio_is_named_in_a_file(home: Path) -> None:
    usual, pointer = located("lm-studio"), home / ".lmstudio-home-pointer"
    (home / "models").mkdir()
    for text, path in (
        (f"{home}/models\n", "models/mcp.json"),
        (f"{home}/gone\n", usual),
        ("models\n", usual),
        ("", usual),
        ("\x00" * 5_000, usual),
    ):
        pointer.write_text(text)
        assert located("lm-studio") == path, text
    pointer.write_bytes(b"\xff")
    assert located("lm-studio") == usual


def test_root_of_goose_must_be_absolute(home: Path) -> None:
    client = CLIENTS["goose"]
    for root, path in (
        ("/x y", "/x y/config/config.yaml"),
        ("x", "/h/.config/goose/config.yaml"),
        ("", "/h/.config/goose/config.yaml"),
    ):
        assert clients.user_file(client, {"HOME": "/h", "GOOSE_PATH_ROOT": root}, "linux") == path, root


def test_file_that_windows_redirects_is_refused(
    config: Config, slot: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = "C:\\Program Files\\WindowsApps\\PythonSoftwareFoundation.Python.3.13_3.13.3_x64__qbz5n2kfra8p0"
    path = "C:\\Users\\me\\AppData\\Roaming\\Claude\\claude_desktop_config.json"
    for base_prefix, system, file, expected in (
        (store, "windows", path, True),
        (store, "windows", "C:\\Users\\me\\.claude.json", False),
        ("C:\\Python313", "windows", path, False),
        (store, "linux", path, False),
    ):
        assert clients.is_redirected(file, base_prefix, system) is expected, (base_prefix, system, file)  # type: ignore[arg-type]
    monkeypatch.setattr(config_command, "is_redirected", lambda *_: True)
    ran = config("cursor", "--write")
    assert (ran.status, file_of("cursor").exists()) == (1, False)
    assert "from the Microsoft Store" in ran.err
    assert "use Python from python.org" in ran.err
    assert config("cursor", "--dry-run").status == 0


def test_place_of_a_backup_depends_on_links_below_the_home(home: Path, tmp_path: Path) -> None:
    (tmp_path / "real" / "dir").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    linked = str(tmp_path / "link" / "dir" / "a.json")
    assert config_command.backup_path(linked, str(tmp_path / "link")) == f"{linked}.sikkerkey.bak"
    for base in (str(tmp_path), "/elsewhere"):
        found = config_command.backup_path(linked, base)
        assert re.fullmatch(f"{home}/.sikkerkey/backups/[0-9a-f]{{8}}-a.json.sikkerkey.bak", found), base
    real = str(tmp_path / "real" / "a.json")
    for base in (str(tmp_path), "/elsewhere"):
        assert config_command.backup_path(real, base) == f"{real}.sikkerkey.bak", base


def test_other_profiles_are_named(config: Config, slot: str) -> None:
    config("vscode", "--write")
    assert "profile" not in config("vscode", "--write").err
    profiles = file_of("vscode").parent / "profiles"
    (profiles / "-1a2b").mkdir(parents=True)
    assert f"for others, add the block to {profiles}/*/mcp.json" in config("vscode", "--write").err


# Writing


def test_file_is_readable_by_the_user_only(config: Config, slot: str, home: Path) -> None:
    for name in WITH_FILE:
        ran = config(name, "--write")
        path = file_of(name)
        assert (ran.status, ran.out) == (0, f"sikkerkey added to {path}\n"), name
        assert servers(name, path.read_text()) == {"sikkerkey": started()}, name
        made = [path, *(parent for parent in path.parents if home in parent.parents)]
        assert [mode(each) for each in made] == [0o600] + [0o700] * (len(made) - 1), name
        assert [each.name for each in path.parent.iterdir() if each.is_file()] == [path.name], name


def test_second_run_writes_nothing(config: Config, slot: str, home: Path) -> None:
    for name in WITH_FILE:
        config(name, "--write")
        before, since = listing(home), file_of(name).stat()
        ran = config(name, "--write")
        assert (ran.status, ran.out) == (0, f"sikkerkey is up to date in {file_of(name)}\n"), name
        assert (listing(home), file_of(name).stat()) == (before, since), name


NEIGHBOURS = {
    "json": '{{\r\n\t// søger\r\n\t"x": [1.10, 2e3],\r\n\t"{0}": {{\r\n'
    '\t\t"a": {{"env": {{"TOKEN": "canary"}}}}, // b\r\n\t}},\r\n}}',
    "toml": "# søger\r\n x=1.10\r\n[{0}.a]\r\nenv = {{ TOKEN = 'canary' }} # b\r\n\r\n\r\n",
    "yaml": "# søger\r\nx: 1.10\r\n{0}:\r\n    a: # b\r\n        env: {{TOKEN: canary}}\r\n\r\n# c\r\nz:   1",
    "list": "# søger\r\nx: 1.10\r\n{0}:\r\n-   name: a\r\n    env: {{TOKEN: canary}} # b\r\n\r\n# c\r\nz:   1",
}


def neighbours(name: str) -> bytes:
    """A file with entries of other programs and a byte order mark."""
    shape = CLIENTS[name].shape
    text = NEIGHBOURS["list" if shape.is_list else CLIENTS[name].format].format(shape.container)
    if CLIENTS[name].strict_json:
        text = text.replace("\t// søger\r\n", "").replace(", // b", "").replace("\t},\r\n}", "\t}\r\n}")
    return entries.BOM + text.encode("utf-8")


def test_other_entries_stay_byte_for_byte_and_removal_restores_the_file(config: Config, slot: str, home: Path) -> None:
    for name in WITH_FILE:
        path = write(file_of(name), neighbours(name), 0o640)
        assert config(name, "--write").status == 0, name
        written = path.read_bytes()
        kept = [line for line in neighbours(name).splitlines() if line.strip()]  # a comma may follow
        assert all(line in written for line in kept), name
        assert written != neighbours(name), name
        assert (mode(path), mode(Path(f"{path}.sikkerkey.bak"))) == (0o640, 0o600), name
        assert Path(f"{path}.sikkerkey.bak").read_bytes() == neighbours(name), name
        ran = config(name, "--remove")
        assert (ran.status, ran.out) == (0, f"sikkerkey removed from {path}\n"), name
        assert path.read_bytes() == neighbours(name), name


def test_dry_run_shows_the_change_and_makes_none(config: Config, slot: str, home: Path) -> None:
    for name in WITH_FILE:
        path = write(file_of(name), neighbours(name))
        before = listing(home)
        shown = config(name, "--dry-run")
        assert shown == config(name, "--write", "--dry-run"), name
        assert listing(home) == before, name
        lines = shown.out.splitlines()
        assert lines[:2] == [f"--- {path}", f"+++ {path}"], name
        assert all(line.startswith(("@@ -", "+", "-")) for line in lines), name
        assert sum(AGENT_ID in line for line in lines if line.startswith("+")) == 1, name
        assert "canary" not in shown.out, name
        config(name, "--write")
        removal = config(name, "--remove", "--dry-run").out
        assert "canary" not in removal, name
        assert sum(AGENT_ID in line for line in removal.splitlines() if line.startswith("-")) == 1, name


def test_dry_run_shows_no_setting_that_the_user_added(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in WITH_FILE:
        monkeypatch.setenv("SIKKERKEY_HOME", str(Path.home() / ".sikkerkey"))
        config(name, "--write")
        path = file_of(name)
        path.write_text(path.read_text().replace("SIKKERKEY_HOME", "HTTPS_PROXY"))
        removal = config(name, "--remove", "--dry-run").out
        assert "HTTPS_PROXY" in removal, name
        assert str(Path.home() / ".sikkerkey") not in removal, name


def test_dry_run_of_a_one_line_file_hides_other_entries(config: Config, slot: str) -> None:
    write(file_of("cursor"), '{"mcpServers":{"a":{"env":{"TOKEN":"canary"}}},"z":"canary"}')
    shown = config("cursor", "--dry-run").out
    assert AGENT_ID in shown
    assert "canary" not in shown


def test_dry_run_shows_old_and_new_lines(config: Config, slot: str) -> None:
    config("cursor", "--write")
    path = file_of("cursor")
    path.write_text(path.read_text().replace('"serve",', '"serve", "--read-only",'))
    assert config("cursor", "--dry-run").out.splitlines()[2:] == [
        "@@ -8,1 +8,1 @@",
        '-        "serve", "--read-only",',
        '+        "serve",',
    ]
    path.unlink()
    assert config("cursor", "--dry-run").out.splitlines()[0] == "--- /dev/null"
    assert config("cursor", "--dry-run", "--remove") == (0, "", f"nothing would change in {path}\n")


def test_link_of_a_dot_file_manager_stays_a_link(config: Config, slot: str, home: Path, tmp_path: Path) -> None:
    target = write(tmp_path / "dotfiles" / "claude.json", "{}\n", 0o644)
    file_of("claude-code").symlink_to(target)
    assert config("claude-code", "--write").status == 0
    assert file_of("claude-code").is_symlink()
    assert servers("claude-code", target.read_text()) == {"sikkerkey": started()}
    assert (mode(target), Path(f"{file_of('claude-code')}.sikkerkey.bak").read_text()) == (0o644, "{}\n")


def test_one_backup_is_kept_and_backups_of_the_user_stay(config: Config, slot: str) -> None:
    path = write(file_of("cursor"), "{}\n")
    users = write(Path(f"{path}.bak"), "the only good copy")
    for _ in range(3):
        config("cursor", "--write")
        config("cursor", "--remove")
        path.write_text('{"a": 1}\n')
    assert users.read_text() == "the only good copy"
    names = sorted(each.name for each in path.parent.iterdir())
    assert names == ["mcp.json", "mcp.json.bak", "mcp.json.sikkerkey.bak"]


def test_removal_restores_a_container_that_was_missing_or_null(config: Config, slot: str) -> None:
    cases = (
        ("zed", '{\n  "theme": "One Dark",\n  "vim_mode": true\n}\n'),
        ("cursor", '{\n  "mcpServers": null\n}\n'),
        ("cursor", '{\n  "mcpServers": {}\n}\n'),
        ("cursor", "{}\n"),
        ("goose", "a: 1\nextensions:\n"),
        ("goose", "a: 1\n"),
        ("codex", "a = 1\n"),
    )
    for name, text in cases:
        path = write(file_of(name), text)
        assert (config(name, "--write").status, path.read_text() != text) == (0, True), text
        assert (config(name, "--remove").status, path.read_text()) == (0, text), text


def test_removal_keeps_what_was_changed_since_the_backup(config: Config, slot: str) -> None:
    path = write(file_of("zed"), '{\n  "theme": "One"\n}\n')
    config("zed", "--write")
    path.write_text(path.read_text().replace("One", "Two"))
    config("zed", "--remove")
    assert path.read_text() == '{\n  "theme": "Two"\n}\n'


def test_updates_of_the_entry_keep_what_removal_needs(config: Config, slot: str) -> None:
    for name, text in (
        ("zed", '{\n  "theme": "One"\n}\n'),
        ("cursor", '{"mcpServers": null}\n'),
        ("cursor", "{}"),
        ("cursor", " \n"),
        ("goose", "extensions:\n"),
        ("codex", "\n"),
    ):
        path = write(file_of(name), text)
        for options in ((), ("--read-only",), ("--tools", "whoami")):
            config(name, "--write", *options)
        assert Path(f"{path}.sikkerkey.bak").read_text() == text, (name, text)
        assert (config(name, "--remove").status, path.read_text()) == (0, text), (name, text)
        Path(f"{path}.sikkerkey.bak").unlink()


def test_backup_of_an_update_has_what_the_user_changed_since(config: Config, slot: str) -> None:
    path = write(file_of("zed"), '{\n  "theme": "One"\n}\n')
    config("zed", "--write")
    path.write_text(path.read_text().replace("One", "Two"))
    ran = config("zed", "--write", "--read-only")
    assert f"the file without this entry is kept as {path}.sikkerkey.bak" in ran.err
    assert Path(f"{path}.sikkerkey.bak").read_text() == '{\n  "theme": "Two"\n}\n'
    config("zed", "--remove")
    assert path.read_text() == '{\n  "theme": "Two"\n}\n'


def test_file_that_was_created_is_deleted_if_nothing_else_is_in_it(config: Config, slot: str, home: Path) -> None:
    for name in WITH_FILE:
        before = listing(home)
        config(name, "--write")
        config(name, "--write", "--read-only")
        assert config(name, "--remove", "--dry-run").out.splitlines()[1] == "+++ /dev/null", name
        ran = config(name, "--remove")
        assert (ran.status, ran.out.split()[:3]) == (0, ["sikkerkey", "removed", "from"]), name
        assert "the file contained nothing else and is deleted" in ran.err, name
        assert listing(home) == before, name


def test_file_with_anything_else_is_not_deleted(config: Config, slot: str) -> None:
    for name, addition in (("kiro", "// mine\n"), ("goose", "# mine\n"), ("codex", "# mine\n"), ("codex", "[a]\n")):
        config(name, "--write")
        path = file_of(name)
        path.write_text(path.read_text() + addition)
        config(name, "--remove")
        assert path.read_text().endswith(addition), (name, addition)
        path.unlink()


def test_file_that_changes_before_it_is_deleted_stays(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config("cursor", "--write")
    path = file_of("cursor")
    plainly = config_command.make_directories

    def slowly(directory: str) -> None:
        plainly(directory)
        path.write_text('{"new": 1}')

    monkeypatch.setattr(config_command, "make_directories", slowly)
    assert "was just changed by another program" in config("cursor", "--remove").err
    assert path.read_text() == '{"new": 1}'


def test_no_backup_is_put_into_a_linked_directory(config: Config, slot: str, home: Path, tmp_path: Path) -> None:
    repository = tmp_path / "dotfiles"
    target = write(repository / "zed" / "settings.json", '{"theme": "One"}\n')
    (home / ".config").mkdir()
    (home / ".config" / "zed").symlink_to(repository / "zed")
    for _ in range(2):
        config("zed", "--write", "--read-only")
    assert list(listing(repository)) == ["zed/settings.json"]
    assert f"kept as {home}/.sikkerkey/backups/" in config("zed", "--write").err
    assert (config("zed", "--remove").status, target.read_text()) == (0, '{"theme": "One"}\n')
    assert list(listing(repository)) == ["zed/settings.json"]
    (backup,) = (home / ".sikkerkey" / "backups").iterdir()
    assert (mode(backup.parent), mode(backup)) == (0o700, 0o600)


def test_entry_that_was_saved_again_by_a_yaml_library_is_found(config: Config, slot: str) -> None:
    path = write(file_of("goose"), "a: 1\n")
    for agent in (AGENT_ID, "12345678"):
        entry = {"name": "sikkerkey", "type": "stdio", "cmd": "p", "args": ["-I", "/x/sikkerkey-mcp.pyz", "serve"]}
        text = yaml.safe_dump({"extensions": {"sikkerkey": {**entry, "args": [*entry["args"], "--agent", agent]}}})
        path.write_text(text.replace("'", ""))
        assert config("goose", "--remove", "--agent", agent).out.startswith("sikkerkey removed from"), agent


def test_container_in_use_is_the_one_that_is_changed(config: Config, slot: str) -> None:
    for container in ("servers", "mcpServers", "mcp_servers"):
        path = write(file_of("warp"), "{}")
        before = json.dumps({container: {"a": {"command": "x"}}})
        path = write(file_of("warp"), before)
        assert config("warp", "--write").status == 0, container
        document = json.loads(path.read_text())
        assert (list(document), list(document[container])) == ([container], ["a", "sikkerkey"]), container
        assert entries.find_entries(os.environ)[0].key == "sikkerkey", container
        config("warp", "--remove")
        assert path.read_text() == before, container


def test_nested_container_is_changed_and_restored(config: Config, slot: str) -> None:
    for name in ("warp", "opencode"):
        for before in (
            '{"mcp": {"servers": {}}}',
            json.dumps({"mcp": {"servers": {"a": {"type": "local"}}}, "servers": {}}, indent=2) + "\n",
        ):
            path = write(file_of(name), before)
            assert config(name, "--write").status == 0, name
            document = json.loads(path.read_text())
            assert list(document["mcp"]["servers"])[-1] == "sikkerkey", name
            assert len(document["mcp"]) == 1, name
            assert entries.find_entries(os.environ)[0].key == "sikkerkey", name
            config(name, "--remove")
            assert path.read_text() == before, name
    path = write(file_of("opencode"), '{"mcp": {"servers": {"type": "remote", "url": "http://x"}}}')
    config("opencode", "--write")
    assert list(json.loads(path.read_text())["mcp"]) == ["servers", "sikkerkey"]


def test_file_that_its_client_refuses_is_refused(config: Config, slot: str) -> None:
    for text in ('{\n  // mine\n  "mcpServers": {}\n}\n', '{"mcpServers": {},}'):
        path = write(file_of("claude-code"), text)
        ran = config("claude-code", "--write")
        assert (ran.status, path.read_text()) == (1, text)
        assert "Claude Code refuses this file" in ran.err
        assert "Claude Code refuses this file" in entries.find_entries(os.environ)[0].problem


def test_file_that_was_just_emptied_is_not_taken_for_new(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(file_of("claude-code"), "")
    changed = 1_000_000_000
    os.utime(path, (changed, changed))
    monkeypatch.setattr("time.time", lambda: changed + 1)
    ran = config("claude-code", "--write")
    assert (ran.status, path.read_text()) == (1, "")
    assert "still writing it" in ran.err
    monkeypatch.setattr("time.time", lambda: changed + 3600)
    assert config("claude-code", "--write").status == 0


def test_half_written_file_is_read_when_it_is_complete(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first half of a TOML or YAML file can be read as well."""
    for name, whole in (
        ("codex", '[a]\nb = 1\n[mcp_servers.other]\ncommand = "npx"\n'),
        ("goose", "a: 1\nextensions:\n  other:\n    cmd: npx\n"),
        ("claude-code", '{"mcpServers": {"other": {"command": "npx"}}}\n'),
    ):
        path = write(file_of(name), "")
        writings = [whole[:9], whole[:20], whole]
        path.write_text(writings[0])

        def pause(_seconds: float, path: Path = path, writings: list[str] = writings) -> None:
            writings[:-1] = writings[1:-1]
            path.write_text(writings[0])

        monkeypatch.setattr("time.sleep", pause)
        assert config(name, "--write").status == 0, name
        assert {"other", "sikkerkey"} == set(
            READ[CLIENTS[name].format](path.read_text())[CLIENTS[name].shape.container]
        )


def test_file_that_never_stops_changing_is_refused(config: Config, slot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(file_of("codex"), "a = 0\n")
    path.write_text("a = 1\n")
    monkeypatch.setattr("time.sleep", lambda _seconds: path.write_text(path.read_text() + "# more\n"))
    assert (
        f"{path} is being changed by another program\nhint: run this command again\n" in config("codex", "--write").err
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{\n  "a": 1 "b"}', "line 2, column 10: expected a comma or }"),
        (b'{"a": "\xff"}', "line 1, byte 8: this is not UTF-8"),
        (b"\x1e", "line 1, column 1: expected an object"),
        (b'{"a": \x00}', "line 1, column 7: expected a value"),
        ('{"a": 1}'.encode("utf-16"), "line 1, byte 1: this is not UTF-8"),
        (b'{"mcpServers": []}', "mcpServers is not an object"),
        (b'{"mcpServers": {"sikkerkey": 1}}', "the entry sikkerkey starts another program"),
        (b'{"mcpServers": {"sikkerkey": {"url": "http://x"}}}', "the entry sikkerkey starts another program"),
        (b'{"a":' * 200_000, f"nested more than {edit.DEPTH_MAX} levels deep"),
    ],
)
def test_unsupported_file_is_refused_and_unchanged(
    config: Config, slot: str, home: Path, data: bytes, reason: str
) -> None:
    path = write(file_of("cursor"), data)
    before = listing(home)
    ran = config("cursor", "--write")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"sikkerkey-mcp: error: {path}, ")
    assert reason in ran.err
    assert "\nhint: " in ran.err
    assert listing(home) == before


def test_only_regular_files_are_changed(config: Config, slot: str) -> None:
    path = file_of("cursor")
    path.mkdir(parents=True)
    assert f"{path} is not a regular file" in config("cursor", "--write").err
    path.rmdir()
    os.mkfifo(path)
    assert f"{path} is not a regular file" in config("cursor", "--write").err


def test_file_of_another_user_is_refused(config: Config, slot: str, home: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    path = write(file_of("cursor"), "{}")
    os.chown(path, 12345, 12345)
    assert f"{path} belongs to another user" in config("cursor", "--write").err
    path.unlink()
    os.chown(path.parent, 12345, 12345)
    assert f"{path.parent} belongs to another user" in config("cursor", "--write").err
    assert list(path.parent.iterdir()) == []


def test_change_by_another_program_is_noticed(config: Config, slot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(file_of("cursor"), "{}")
    plainly = config_command._write_new

    def slowly(temporary: str, data: bytes, mode: int) -> None:
        plainly(temporary, data, mode)
        path.write_text('{"new": 1}')

    monkeypatch.setattr(config_command, "_write_new", slowly)
    ran = config("cursor", "--write")
    assert (
        ran.err == f"sikkerkey-mcp: error: {path} was just changed by another program\nhint: run this command again\n"
    )
    assert path.read_text() == '{"new": 1}'
    assert sorted(each.name for each in path.parent.iterdir()) == ["mcp.json", "mcp.json.sikkerkey.bak"]


def test_full_disk_leaves_the_file_as_it_was(config: Config, slot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(file_of("cursor"), "{}")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ran = config("cursor", "--write")
    assert f"{path} cannot be written: No space left on device" in ran.err
    assert listing(path.parent) == {"mcp.json": b"{}"}


def test_file_that_is_read_only_is_left_alone(config: Config, slot: str) -> None:
    path = write(file_of("cursor"), "{}", 0o444)
    ran = config("cursor", "--write")
    assert f"{path} is read-only\nhint: chmod u+w {path}, or add the block by hand" in ran.err
    assert (listing(path.parent), mode(path)) == ({"mcp.json": b"{}"}, 0o444)


def test_change_that_would_affect_more_is_not_written(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(file_of("cursor"), '{"a": 1}')
    monkeypatch.setitem(edit.FORMATS, "json", edit.JSON._replace(put=lambda *_: '{"a": 2}'))
    assert "the change would affect more than the sikkerkey entry" in config("cursor", "--write").err
    assert path.read_text() == '{"a": 1}'


def test_block_scalar_at_the_end_of_the_file_is_not_extended(config: Config, slot: str) -> None:
    path = write(file_of("continue"), "rules: |\n  the last line end is missing")
    assert "the change would affect more than the sikkerkey entry" in config("continue", "--write").err
    write(path, "rules: |\n  the last line end is there\n")
    assert config("continue", "--write").status == 0
    assert config("continue", "--remove").err.startswith("the previous file is kept as")


# Existing entries


def entry_in(name: str) -> dict[str, Any]:
    """The only entry in the file."""
    (held,) = READ[CLIENTS[name].format](file_of(name).read_text())[CLIENTS[name].shape.container].values()
    found: dict[str, Any] = held
    return found


def test_moved_archive_and_new_interpreter_replace_the_old(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in WITH_FILE:
        config(name, "--write")
    monkeypatch.setattr(sys, "argv", ["/new place/sikkerkey-mcp.pyz"])
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3.99")
    for name in WITH_FILE:
        ran = config(name, "--write")
        assert ran.out == f"sikkerkey updated in {file_of(name)}\n", name
        args = ["-I", "/new place/sikkerkey-mcp.pyz", "serve", "--agent", AGENT_ID]
        wanted = {"command": "/usr/bin/python3.99", "args": args}
        assert servers(name, file_of(name).read_text()) == {"sikkerkey": wanted}, name


def test_settings_that_the_user_added_to_the_entry_are_kept(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIKKERKEY_HOME", str(Path.home() / ".sikkerkey"))
    config("kiro", "--write")
    text = file_of("kiro").read_text()
    added = '"disabled": true, "autoApprove": ["whoami"], // mine\n      "timeout": 1.50,\n      "env": {"HTTPS_PROXY": "http://p",'
    file_of("kiro").write_text(text.replace('"env": {', added))
    monkeypatch.delenv("SIKKERKEY_HOME")
    monkeypatch.setenv("SIKKERKEY_CA_BUNDLE", "/ca")
    config("kiro", "--write")
    written = file_of("kiro").read_text()
    assert '"disabled": true, "autoApprove": ["whoami"], // mine\n      "timeout": 1.50,\n' in written
    held = json.loads(written.replace("// mine", ""))["mcpServers"]["sikkerkey"]
    assert held["env"] == {"HTTPS_PROXY": "http://p", "SIKKERKEY_CA_BUNDLE": "/ca"}


def test_variable_that_is_no_longer_set_goes_with_its_member(
    config: Config, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("codex", "goose", "opencode"):
        monkeypatch.setenv("SIKKERKEY_CACHE_DIR", "/cache")
        config(name, "--write")
        monkeypatch.delenv("SIKKERKEY_CACHE_DIR")
        config(name, "--write")
        assert servers(name, file_of(name).read_text()) == {"sikkerkey": started()}


def test_entry_disabled_by_the_user_stays_disabled(config: Config, slot: str) -> None:
    config("opencode", "--write")
    path = file_of("opencode")
    path.write_text(path.read_text().replace('"enabled": true', '"enabled": false'))
    config("opencode", "--write", "--read-only")
    assert entry_in("opencode")["enabled"] is False


DESKTOP = ["DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "BROWSER"]


def test_codex_passes_on_what_a_browser_needs(config: Config, slot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def env_vars() -> Any:
        config("codex", "--write")
        return toml.loads(file_of("codex").read_text())["mcp_servers"]["sikkerkey"].get("env_vars")

    for system, expected in (("macos", None), ("windows", None), ("linux", DESKTOP)):
        monkeypatch.setattr(config_command, "this_system", lambda system=system: system)
        assert env_vars() == expected, system  # the last one is added to an existing entry
    path = file_of("codex")
    path.write_text(re.sub("env_vars = .*", 'env_vars = ["MINE"]', path.read_text()))
    assert env_vars() == ["MINE"]
    path.unlink()
    assert env_vars() == DESKTOP


def test_dropped_restrictions_are_reported(config: Config, slot: str) -> None:
    config("cursor", "--write", "--read-only", "--tools", "whoami")
    ran = config("cursor", "--write", "--tools", "whoami")
    assert "note: sikkerkey was started with --read-only --tools whoami; repeat these options to keep them\n" in ran.err
    assert entry_in("cursor")["args"] == started(AGENT_ID, "--tools", "whoami")["args"]
    assert "note: " not in config("cursor", "--write", "--tools", "whoami", "--read-only").err


def test_agent_keeps_its_key_when_others_come_and_go(config: Config, slot: str, home: Path) -> None:
    config("cursor", "--write")
    make_slot(home, "https://vault.test", OTHER_ID)
    config("cursor", "--write")
    key = entries.server_keys([AGENT_ID, OTHER_ID])[OTHER_ID]
    text = file_of("cursor").read_text()
    assert servers("cursor", text) == {"sikkerkey": started(AGENT_ID), key: started(OTHER_ID)}
    file_of("cursor").write_text(text.replace('"sikkerkey"', '"my vault"'))
    config("cursor", "--write", "--read-only", "--agent", AGENT_ID)
    text = file_of("cursor").read_text()
    assert servers("cursor", text) == {"my vault": started(AGENT_ID, "--read-only"), key: started(OTHER_ID)}
    shutil.rmtree(home / ".sikkerkey" / "agents" / OTHER_ID)
    config("cursor", "--remove", "--agent", OTHER_ID)
    assert list(servers("cursor", file_of("cursor").read_text())) == ["my vault"]
    config("cursor", "--remove")
    assert not file_of("cursor").exists()


def test_removal_leaves_entries_of_other_programs(config: Config, slot: str) -> None:
    text = '{"mcpServers": {"sikkerkey-docs": {"url": "http://x"}, "s": {"command": "npx", "args": ["serve"]}}}'
    path = write(file_of("cursor"), text)
    ran = config("cursor", "--remove")
    assert ran == (0, "", f"no sikkerkey entry in {path}\n")
    assert path.read_text() == text


def test_entry_in_a_flow_collection_is_not_reported_as_removed(config: Config, slot: str) -> None:
    text = f"extensions: {{sikkerkey: {{cmd: python3, args: [-I, {json.dumps(HOSTILE_PATH)}, serve]}}}}\n"
    path = write(file_of("goose"), text)
    ran = config("goose", "--remove")
    assert (ran.status, ran.out, path.read_text()) == (1, "", text)
    assert "expected a block mapping" in ran.err


def test_removal_without_a_file_creates_nothing(config: Config, home: Path) -> None:
    assert config("codex", "--remove").status == 0
    assert listing(home) == {}


# Projects


def test_project_option_changes_the_project_file_only(
    config: Config, slot: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = home.parent
    monkeypatch.chdir(project)
    before = listing(home)
    for name in (name for name, client in CLIENTS.items() if client.project):
        path = project / CLIENTS[name].project
        assert config(name, "--project", "--write").out == f"sikkerkey added to {path}\n", name
        assert servers(name, path.read_text()) == {"sikkerkey": started()}, name
        assert listing(home) == before, name
        assert config(name, "--project", "--remove").status == 0, name


PLANTED_MEMBERS: dict[str, Any] = {
    **{"cwd": "/tmp/x", "alwaysAllow": ["whoami"], "autoApprove": ["*"], "trust": True, "url": "http://evil.test"},
    **{"envFile": ".env", "headers": {"a": "b"}, "default_tools_approval_mode": "approve", "requireApproval": False},
    **{"tools": {"whoami": {"approval_mode": "approve"}}, "workingDirectory": "x", "Env": {"LD_PRELOAD": "x"}},
}
PLANTED_VARIABLES = {
    **dict.fromkeys(("LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "GCONV_PATH", "OPENSSL_CONF"), "/tmp/x"),
    **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://user:word@evil.test:1"),
    **dict.fromkeys(("SSL_CERT_FILE", "SSL_CERT_DIR", "PATH", "HOME", "PYTHONPATH", "SIKKERKEY_API_URL"), "/tmp/x"),
    **{"SIKKERKEY_AGENT_ID": "a", "SIKKERKEY_CONFIRM": "never", "SIKKERKEY_MAX_CALLS": "none"},
    "SIKKERKEY_ACTIVITY_LOG": "0",
}
OF_A_PROJECT = [name for name, client in CLIENTS.items() if client.project]


def plant(name: str, path: Path, members: Mapping[str, Any], variables: Mapping[str, str]) -> bytes:
    """Adds members and variables to the entry in a file that `config` has written; the file's content."""
    client, form = CLIENTS[name], edit.FORMATS[CLIENTS[name].format]
    text = path.read_text()
    client = entries.as_stored(client._replace(format="json" if path.suffix == ".json" else client.format), text)
    form = edit.FORMATS[client.format]
    place = entries.entry_path(client.shape, "sikkerkey")
    for member, value in members.items():
        text = form.put(text, (*place, member), value)
    if variables:
        text = form.put(text, (*place, client.shape.env), dict(variables))
    write(path, text)
    return path.read_bytes()


@pytest.mark.parametrize("name", OF_A_PROJECT)
def test_what_a_stranger_planted_in_a_projects_entry_is_refused(
    config: Config, slot: str, home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(home.parent)
    path = home.parent / CLIENTS[name].project
    attacks: list[tuple[dict[str, Any], dict[str, str], str]] = [
        *(({member: value}, {}, member) for member, value in PLANTED_MEMBERS.items()),
        *(({}, {variable: text}, f".{variable}") for variable, text in PLANTED_VARIABLES.items()),
        ({}, dict(list(PLANTED_VARIABLES.items())[:2]), "LD_LIBRARY_PATH, "),
    ]
    config(name, "--project", "--write")
    written = path.read_bytes()
    others = [["--write", "--read-only"], ["--dry-run"]]  # refuse for the same reason: tried with the first attack
    for members, variables, named in attacks:
        path.write_bytes(written)
        planted = plant(name, path, members, variables)
        for options in (["--write"], *others):
            ran = config(name, "--project", *options)
            assert (ran.status, ran.out) == (1, ""), (name, named)
            assert named in ran.err, (name, named)
            assert "has members that config did not write: " in ran.err, (name, named)
            assert path.read_bytes() == planted
        others = []


def test_name_that_is_used_twice_in_a_projects_entry_is_refused(
    config: Config, slot: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients disagree about which of the two counts, and some merge them."""
    monkeypatch.chdir(home.parent)
    monkeypatch.setenv("SIKKERKEY_CA_BUNDLE", "/ca.pem")
    path = home.parent / CLIENTS["cursor"].project
    config("cursor", "--project", "--write")
    text = path.read_text()
    for first in ('"env": {"LD_PRELOAD": "x"}, "env": {', '"env": {"SIKKERKEY_CA_BUNDLE": "/evil", '):
        planted = text.replace('"env": {', first)
        assert planted != text
        write(path, planted)
        ran = config("cursor", "--project", "--write")
        assert (ran.status, ran.out, path.read_text()) == (1, "", planted)
        assert "this name is used twice here" in ran.err


def test_harmless_members_of_a_projects_entry_stay_and_are_named(
    config: Config, slot: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home.parent)
    path = home.parent / CLIENTS["cursor"].project
    config("cursor", "--project", "--write")
    members = {"disabled": True, "timeout": 9, "disabledTools": ["support"], "alwaysAllow": [], "trust": False}
    plant("cursor", path, members, {"LANG": "C", "SIKKERKEY_READ_ONLY": "1"})
    ran = config("cursor", "--project", "--write")
    assert ran.status == 0
    kept = "alwaysAllow, disabled, disabledTools, env.LANG, env.SIKKERKEY_READ_ONLY, timeout, trust"
    assert f"note: sikkerkey keeps what it had: {kept}\n" in ran.err


def test_options_that_a_stranger_planted_are_not_kept(
    config: Config, slot: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of an agent that is not installed hands its options on to the entry that replaces it."""
    monkeypatch.chdir(home.parent)
    path = home.parent / CLIENTS["cursor"].project
    for options in (["--confirm", "never"], ["--max-calls", "none"], ["--no-activity-log"]):
        entry = {"command": "python3", "args": ["-I", "sikkerkey-mcp.pyz", "serve", "--agent", OTHER_ID, *options]}
        before = write(path, json.dumps({"mcpServers": {"sikkerkey": entry}})).read_bytes()
        ran = config("cursor", "--project", "--write")
        assert (ran.status, ran.out, path.read_bytes()) == (1, "", before), options
        assert f"the entry sikkerkey was started with {' '.join(options)}\n" in ran.err


def test_members_that_the_user_added_to_an_own_file_stay_and_are_named(config: Config, slot: str) -> None:
    config("cursor", "--write")
    plant("cursor", file_of("cursor"), {"alwaysAllow": ["whoami"], "timeout": 9}, {"LD_PRELOAD": "/opt/own.so"})
    ran = config("cursor", "--write", "--read-only")
    assert ran.status == 0
    assert "note: sikkerkey keeps what it had: timeout, alwaysAllow, env.LD_PRELOAD\n" in ran.err
    entry = json.loads(file_of("cursor").read_text())["mcpServers"]["sikkerkey"]
    assert (entry["alwaysAllow"], entry["env"]) == (["whoami"], {"LD_PRELOAD": "/opt/own.so"})


def test_link_out_of_a_project_is_not_followed(
    config: Config, slot: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "cloned"
    project.mkdir()
    monkeypatch.chdir(project)
    before = listing(home)
    (project / ".mcp.json").symlink_to(home / "new.json")
    ran = config("claude-code", "--project", "--write")
    assert f"{project}/.mcp.json leads out of the project, to {home}/new.json\nhint: " in ran.err
    assert listing(home) == before
    (project / ".mcp.json").unlink()
    (project / ".mcp.json").symlink_to("shared.json")
    assert config("claude-code", "--project", "--write").status == 0
    assert (project / "shared.json").is_file()


@pytest.mark.parametrize("arguments", [("windsurf", "--project", "--write"), ("generic", "--write")])
def test_client_without_such_a_file_is_refused(config: Config, slot: str, arguments: tuple[str, ...]) -> None:
    ran = config(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert "\nhint: " in ran.err


@pytest.mark.parametrize("arguments", [(), ("emacs",), ("cursor", "--write", "--remove")])
def test_wrong_usage_exits_with_2(config: Config, arguments: tuple[str, ...]) -> None:
    assert config(*arguments)[:2] == (2, "")


# What doctor finds


def test_entries_for_this_program_are_found_in_all_files(config: Config, slot: str) -> None:
    for name in WITH_FILE:
        config(name, "--write")
    command = [INTERPRETER, *started()["args"]]
    assert entries.find_entries(os.environ) == [
        FoundEntry(name, str(file_of(name)), "sikkerkey", command, {}, "") for name in WITH_FILE
    ]


OWN_COMMANDS = [
    "python3 -I /opt/sikkerkey-mcp.pyz serve", "py -3 C:\\tools\\sikkerkey-mcp-windows-amd64.pyz",
    "python3 /src/sikkerkey_mcp.py", "python3 /src/sikkerkey_cli/__main__.py serve", "python3 /src/sikkerkey_cli",
    "python3 -m sikkerkey_cli serve", "python3 -I /venv/bin/sikkerkey-mcp serve",
]  # fmt: skip
OTHER_COMMANDS = [
    "npx -y sikkerkey-docs", "node /opt/sikkerkey_cli.js", "python3 /opt/my_sikkerkey_cli_tool.py", "python3 serve",
]  # fmt: skip


def test_entry_is_recognized_by_its_command_at_any_path() -> None:
    for commands, own in ((OWN_COMMANDS, True), (OTHER_COMMANDS, False)):
        for command in commands:
            assert entries.Server("x", {}, command.split(), {}).starts_this_program is own, command


def test_entries_by_name_and_files_that_cannot_be_read_are_found(home: Path) -> None:
    text = '{"mcpServers": {"sikkerkey-go": {"command": "x", "env": {"A": "b"}}, "other": {}, "n": 1}}'
    path = write(file_of("cursor"), text)
    broken = write(file_of("codex"), "a = \n")
    odd = write(file_of("goose"), "extensions: 1\n")
    write(file_of("zed"), " \n")
    assert entries.find_entries(os.environ) == [
        FoundEntry("cursor", str(path), "sikkerkey-go", ["x"], {"A": "b"}, ""),
        FoundEntry("codex", str(broken), "", [], {}, "line 1, column 5: expected a value"),
        FoundEntry("goose", str(odd), "", [], {}, "extensions is not an object"),
    ]


def test_relative_home_is_reported_for_each_client() -> None:
    found = entries.find_entries({"HOME": "relative"})
    assert {(each.client, each.problem) for each in found} == {
        (name, "the home directory is not an absolute path") for name, client in CLIENTS.items() if client.files
    }
