"""The MCP clients: where each keeps its servers and in which shape, and `config`, which puts this server there.

`config` prints a block, or with --write changes the client's own file: the smallest span of it, atomically, with a copy of
what was there. `found` lists what the clients' files say about this server. How text is changed is sikkerkey_edit's.
"""

from __future__ import annotations

import hashlib
import ntpath
import os
import posixpath
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import sikkerkey_edit as edit
import sikkerkey_mcp as mcp
from sikkerkey_mcp import ConfigError, JsonObject, clean

KEY_MAX_CHARACTERS = 30  # Cursor drops tools whose name and server's name exceed 60 characters together
FILE_MAX_BYTES = 64 * 1024 * 1024  # Claude Code keeps its history in the same file, which grows to some tens of megabytes
PASSED_ON = (
    "SIKKERKEY_HOME",
    "SIKKERKEY_CA_BUNDLE",
    "SIKKERKEY_CACHE_DIR",
)  # a client may start us without the user's environment

System = Literal["linux", "macos", "windows"]

# ---------------------------------------------------------------------------------------------------------------------
# the clients: a row each
# ---------------------------------------------------------------------------------------------------------------------


class Shape(NamedTuple):
    """How a client writes a server down: the member that holds them all, and the members of each."""

    container: str
    command: str = "command"
    args: str = "args"  # empty: the command is a list and holds them
    env: str = "env"
    named: str = ""  # the member that says the key once more
    always: JsonObject = {}
    at_first: JsonObject = {}  # for a new entry only: from then on it is the user's
    listed: bool = False  # a list whose items have names, instead of members


class Files(NamedTuple):
    """A client's user file on each system, as a shell would write it: `${NAME:-default}`, `~`."""

    linux: str
    macos: str
    windows: str


class Client(NamedTuple):
    """One program that can start this server."""

    title: str
    format: str
    shape: Shape
    files: Files | None  # None: known by its shape only
    project: str  # relative to a project's directory; empty: there is none
    look: str  # how a person sees that the server works
    other_name: str = ""  # under which the user's file is found too
    new_file: str = ""  # what an empty file begins with


def _everywhere(path: str) -> Files:
    return Files(path, path, path)


def _application(path: str) -> Files:
    """Where desktop programs keep their data."""
    return Files(
        f"${{XDG_CONFIG_HOME:-~/.config}}/{path}",
        f"~/Library/Application Support/{path}",
        f"${{APPDATA:-~/AppData/Roaming}}/{path}",
    )


MCP_SERVERS = Shape("mcpServers")
XDG = "${XDG_CONFIG_HOME:-~/.config}"
APPDATA = "${APPDATA:-~/AppData/Roaming}"

# fmt: off
CLIENTS: dict[str, Client] = {
    "claude-code": Client(
        "Claude Code", "json", Shape("mcpServers", always={"type": "stdio"}),
        _everywhere("${CLAUDE_CONFIG_DIR:-~}/.claude.json"), ".mcp.json",
        "`claude mcp list` says \"Connected\""),
    "claude-desktop": Client(
        "Claude Desktop", "json", MCP_SERVERS, _application("Claude/claude_desktop_config.json"), "",
        "quit it and start it again; Settings, Developer shows the server as running"),
    "cursor": Client(
        "Cursor", "json", MCP_SERVERS, _everywhere("~/.cursor/mcp.json"), ".cursor/mcp.json",
        "Settings, MCP shows a green dot and the number of tools"),
    "vscode": Client(
        "VS Code", "json", Shape("servers", always={"type": "stdio"}), _application("Code/User/mcp.json"),
        ".vscode/mcp.json", "the command \"MCP: List Servers\" shows it as running"),
    "codex": Client(
        "Codex", "toml", Shape("mcp_servers"), _everywhere("${CODEX_HOME:-~/.codex}/config.toml"),
        ".codex/config.toml", "`codex mcp list` shows it as enabled, and `/mcp` in a session lists its tools"),
    "continue": Client(
        "Continue", "yaml", Shape("mcpServers", listed=True),
        _everywhere("${CONTINUE_GLOBAL_DIR:-~/.continue}/config.yaml"), ".continue/mcpServers/sikkerkey.yaml",
        "the tools menu of agent mode lists it; `/mcp` does in `cn`",
        new_file="name: Local Config\nversion: 1.0.0\nschema: v1\n"),
    "gemini": Client(
        "Gemini CLI", "json", MCP_SERVERS, _everywhere("${GEMINI_CLI_HOME:-~}/.gemini/settings.json"),
        ".gemini/settings.json", "`gemini mcp list` says \"Connected\""),
    "opencode": Client(
        "opencode", "json",
        Shape("mcp", args="", env="environment", always={"type": "local"}, at_first={"enabled": True}),
        _everywhere(f"{XDG}/opencode/opencode.json"), "opencode.json", "`opencode mcp list` says \"connected\"",
        other_name="opencode.jsonc", new_file='{\n  "$schema": "https://opencode.ai/config.json"\n}\n'),
    "copilot": Client(
        "Copilot CLI", "json", Shape("mcpServers", always={"type": "local"}, at_first={"tools": ["*"]}),
        _everywhere("${COPILOT_HOME:-~/.copilot}/mcp-config.json"), ".github/mcp.json",
        "`copilot mcp list` lists it, and `/mcp show` in a session says that it runs"),
    "windsurf": Client(
        "Windsurf", "json", MCP_SERVERS, _everywhere("~/.codeium/windsurf/mcp_config.json"), "",
        "refresh in Cascade's list of MCP servers shows a green dot"),
    "zed": Client(
        "Zed", "json", Shape("context_servers", always={"source": "custom"}),
        Files(f"{XDG}/zed/settings.json", "~/.config/zed/settings.json", f"{APPDATA}/Zed/settings.json"),
        ".zed/settings.json", "the agent panel's settings show a green dot"),
    "goose": Client(
        "Goose", "yaml",
        Shape("extensions", command="cmd", env="envs", always={"type": "stdio"},
              named="name",
              at_first={"enabled": True, "timeout": 300}),
        Files(f"{XDG}/goose/config.yaml", f"{XDG}/goose/config.yaml", f"{APPDATA}/Block/goose/config/config.yaml"), "",
        "`goose info -v` shows the extension, and a session lists its tools"),
    "lm-studio": Client(
        "LM Studio", "json", MCP_SERVERS, _everywhere("~/.lmstudio/mcp.json"), "",
        "the Program tab shows `mcp/sikkerkey` switched on"),
    "kiro": Client(
        "Kiro", "json", MCP_SERVERS, _everywhere("~/.kiro/settings/mcp.json"), ".kiro/settings/mcp.json",
        "the panel of MCP servers shows it as connected"),
    "warp": Client(
        "Warp", "json", MCP_SERVERS, _everywhere("~/.warp/.mcp.json"), "",
        "Settings, MCP Servers shows it as running"),
    "generic": Client(
        "any other client", "json", MCP_SERVERS, None, "", "its own list of MCP servers"),
}
# fmt: on


# ---------------------------------------------------------------------------------------------------------------------
# places
# ---------------------------------------------------------------------------------------------------------------------


def this_system() -> System:
    """Which of the three this computer is; other POSIX systems keep files where Linux does."""
    if sys.platform == "win32":
        return "windows"
    return "macos" if sys.platform == "darwin" else "linux"


def expanded(template: str, environ: Mapping[str, str], system: System) -> str:
    """A path as one of Files has it, for this environment. Raises ConfigError if it would not be absolute."""
    flavour = ntpath if system == "windows" else posixpath
    found = re.fullmatch(r"(?:\$\{(\w+):-(.*?)\})?(.*)", template)
    variable, default, rest = found.groups() if found else ("", "", template)
    path = ((environ.get(variable) or default) if variable else "") + rest
    if path.startswith("~"):
        home = environ.get("USERPROFILE" if system == "windows" else "HOME") or os.path.expanduser("~")
        path = home + path[1:]
    if not flavour.isabs(path):
        source = variable if variable and environ.get(variable) else "the home directory"
        raise ConfigError(f"{source} is not an absolute path", "set it to one, or put the block in by hand")
    return flavour.normpath(path)


def user_file(client: Client, environ: Mapping[str, str], system: System | None = None) -> str:
    """The client's own file, whether it exists or not. Raises ConfigError."""
    system = system or this_system()
    if client.files is None:
        raise ConfigError("generic has no file of its own", "without --write the block is printed")
    path = expanded(getattr(client.files, system), environ, system)
    other = os.path.join(os.path.dirname(path), client.other_name)
    return other if client.other_name and os.path.exists(other) else path


# ---------------------------------------------------------------------------------------------------------------------
# entries: what this server is to a client
# ---------------------------------------------------------------------------------------------------------------------

Entries = dict[str, JsonObject]


def server_key(agent: str | None, count: int) -> str:
    """The server's name in the client: with several agents each has its own, taken from its id."""
    if agent is None or count <= 1:
        return "sikkerkey"
    key = f"sikkerkey-{agent}"
    if len(key) <= KEY_MAX_CHARACTERS:
        return key
    digest = hashlib.sha256(agent.encode("ascii")).hexdigest()[:8]  # ids may begin alike
    return f"{key[: KEY_MAX_CHARACTERS - 9]}-{digest}"


def entry(agent: str | None, switches: Sequence[str] = ()) -> JsonObject:
    """One server: `command`, `args`, and `env` if there is any. Raises ConfigError.

    -I keeps the working directory and the user's packages from standing in for ours.
    """
    interpreter, path = mcp.program()
    args = ["-I", path, "serve", *(["--agent", agent] if agent else []), *switches]
    # Absolute, since the client starts us in a directory of its choice.
    environment = {name: os.path.abspath(os.environ[name]) for name in PASSED_ON if os.environ.get(name)}
    for text in (interpreter, path, *environment.values()):
        if not text.isprintable() and re.search("[\ud800-\udfff]", text):
            raise ConfigError(f"{clean(text)} has a name that is not UTF-8", "no client's file can hold it: rename it")
    return {"command": interpreter, "args": args, **({"env": environment} if environment else {})}


def members(shape: Shape, key: str, block: JsonObject) -> JsonObject:
    """The entry as this client wants it, without what it gets at first only."""
    command = {shape.command: block["command"], shape.args: block["args"]}
    if not shape.args:
        command = {shape.command: [block["command"], *block["args"]]}
    named = {shape.named: key} if shape.named else {}
    environment = {shape.env: block["env"]} if "env" in block else {}
    return {**named, **shape.always, **command, **environment}


def location(shape: Shape, key: str) -> edit.Path:
    """Where an entry stands in a document."""
    return (shape.container, edit.Item(key) if shape.listed else key)


class Server(NamedTuple):
    """An entry that is there already."""

    key: str
    members: JsonObject
    command: list[str]
    environment: JsonObject

    @property
    def agent(self) -> str:
        """Whom it serves; empty if it does not say."""
        return next((after for word, after in zip(self.command, self.command[1:]) if word == "--agent"), "")

    @property
    def is_ours(self) -> bool:
        """Whether it starts this program, wherever it lay then: any file of its name, or anything started as we are."""
        names = [re.split(r"[/\\]", word)[-1] for word in self.command]
        if any(re.fullmatch(r"sikkerkey[-_]mcp.*\.pyz?", name) for name in names):
            return True
        started_alike = len(self.command) > 3 and self.command[1] == "-I" and self.command[3] == "serve"
        return started_alike or self.command[1:3] == ["-m", "sikkerkey_mcp"] or mcp.program()[1] in self.command[:4]

    @property
    def switches(self) -> list[str]:
        """What narrows it: the words behind `serve`, but for the agent."""
        words = self.command[self.command.index("serve") + 1 :] if "serve" in self.command else []
        pairs = zip(["", *words], words)
        return [word for before, word in pairs if "--agent" not in (before, word)]


def servers(shape: Shape, document: JsonObject) -> dict[str, Server]:
    """The entries of a document by their keys, those of other programs too. Raises ConfigError."""
    held = document.get(shape.container)
    if held is None:
        return {}
    if not isinstance(held, list if shape.listed else dict):
        raise ConfigError(f"{shape.container} is not {'a list' if shape.listed else 'an object'}", HAND)
    pairs = [(item.get("name"), item) for item in held if isinstance(item, dict)] if shape.listed else held.items()
    return {key: _server(shape, key, value) for key, value in pairs if isinstance(key, str)}


HAND = "put the block in by hand: without --write it is printed"


def _server(shape: Shape, key: str, value: Any) -> Server:
    held = value if isinstance(value, dict) else {}
    command, args, environment = held.get(shape.command), held.get(shape.args, []), held.get(shape.env)
    words = [*(command if isinstance(command, list) else [command]), *(args if isinstance(args, list) else [])]
    return Server(
        key,
        held,
        [word for word in words if isinstance(word, str)],
        environment if isinstance(environment, dict) else {},
    )


# ---------------------------------------------------------------------------------------------------------------------
# reading the clients' files
# ---------------------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """An entry of ours in a client's user file; or, where `problem` says so, a file that cannot be understood."""

    client: str
    path: str
    key: str
    command: list[str]
    environment: JsonObject
    problem: str


def found(environ: Mapping[str, str]) -> list[Found]:
    """Our entries in all clients' user files: those that start this program, and those whose key begins like ours."""
    return [entry for name in CLIENTS if name != "generic" for entry in _found_in(name, environ)]


def _found_in(name: str, environ: Mapping[str, str]) -> Iterator[Found]:
    client, path = CLIENTS[name], ""
    try:
        path = user_file(client, environ)
        if not os.path.lexists(path):
            return
        there = servers(client.shape, parsed(client, read_file(path).text))
    except ConfigError as error:
        yield Found(name, path, "", [], {}, str(error))
        return
    for server in there.values():
        if server.is_ours or server.key.startswith("sikkerkey"):
            yield Found(name, path, server.key, server.command, server.environment, "")


def parsed(client: Client, text: str) -> JsonObject:
    """The document; an empty file is an empty one. Raises ConfigError."""
    return edit.FORMATS[client.format].read(text) if text.strip() else {}


class Content(NamedTuple):
    """A file as it was read; `data` is None where there is none."""

    data: bytes | None
    bom: bytes
    text: str
    mode: int


BOM = b"\xef\xbb\xbf"


def read_file(path: str) -> Content:
    """A client's file, which may be missing. Raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        return Content(None, b"", "", 0o600)
    except OSError as error:
        raise ConfigError(f"{clean(path)} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{clean(path)} is not a regular file")
        if hasattr(os, "getuid") and status.st_uid != os.getuid():
            raise ConfigError(f"{clean(path)} belongs to another user", "run this as its owner")
        data = file.read(FILE_MAX_BYTES + 1)
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"{clean(path)} is larger than {FILE_MAX_BYTES:,} bytes", HAND)
    return Content(data, *_decoded(data), stat.S_IMODE(status.st_mode))


def _decoded(data: bytes) -> tuple[bytes, str]:
    bom = BOM if data.startswith(BOM) else b""
    try:
        return bom, data[len(bom) :].decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: len(bom) + error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise ConfigError(f"line {line}, byte {column}: this is not UTF-8", HAND) from None
