"""The MCP clients: where each keeps its servers and in which shape, and `config`, which puts this server there.

`config` prints a block, or with --write changes the client's own file: the smallest span of it, atomically, with a copy
of what was there. `found` lists what the clients' files say about this server. How text is changed is sikkerkey_edit's.
"""

from __future__ import annotations

import argparse
import hashlib
import ntpath
import os
import posixpath
import re
import shlex
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import sikkerkey_edit as edit
import sikkerkey_mcp as mcp
from sikkerkey_mcp import ConfigError, JsonObject, advise, clean

KEY_MAX_CHARACTERS = 30  # Cursor drops tools whose name and server's name exceed 60 characters together
FILE_MAX_BYTES = 64 * 1024 * 1024  # Claude Code's file also holds its history and grows to tens of megabytes
PASSED_ON = (
    "SIKKERKEY_HOME",
    "SIKKERKEY_CA_BUNDLE",
    "SIKKERKEY_CACHE_DIR",
)  # a client may start us without the user's environment

System = Literal["linux", "macos", "windows"]
SYSTEMS: tuple[System, ...] = ("linux", "macos", "windows")

# ---------------------------------------------------------------------------------------------------------------------
# the clients: a row each
# ---------------------------------------------------------------------------------------------------------------------


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Shape(NamedTuple):
    """How a client writes a server down: the member that holds them all, and the members of each."""

    container: str
    command: str = "command"
    args: str = "args"  # empty: the command is a list and holds them
    env: str = "env"
    named: str = ""  # the member that says the key once more
    always: Mapping[str, Any] = NOTHING
    at_first: Mapping[str, Any] = NOTHING  # for a new entry only: from then on it is the user's
    listed: bool = False  # a list whose items have names, instead of members


class Files(NamedTuple):
    """A client's user file on each of SYSTEMS, as a shell would write it: `${NAME:-default}`, `~`."""

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
        "Settings, Developer shows the server as running"),
    "cursor": Client(
        "Cursor", "json", MCP_SERVERS, _everywhere("~/.cursor/mcp.json"), ".cursor/mcp.json",
        "Settings, MCP shows a green dot and the number of tools"),
    "vscode": Client(
        "VS Code", "json", Shape("servers", always={"type": "stdio"}), _application("Code/User/mcp.json"),
        ".vscode/mcp.json", "the command \"MCP: List Servers\" shows it as running"),
    "codex": Client(
        "Codex", "toml", Shape("mcp_servers"), _everywhere("${CODEX_HOME:-~/.codex}/config.toml"),
        ".codex/config.toml", "`/mcp` in a session lists its tools"),
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
        "`/mcp show` in a session says that it runs"),
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
    variable, default, rest = found.groups("") if found else ("", "", template)
    path: str = ((environ.get(variable) or default) if variable else "") + rest
    if path.startswith("~"):
        home = environ.get("USERPROFILE" if system == "windows" else "HOME") or os.path.expanduser("~")
        path = home + path[1:]
    if not flavour.isabs(path):
        source = variable if variable and environ.get(variable) else "the home directory"
        raise ConfigError(f"{source} is not an absolute path", "set it to one, or put the block in by hand")
    normal: str = flavour.normpath(path)
    return normal


def user_file(client: Client, environ: Mapping[str, str], system: System | None = None) -> str:
    """The client's own file, whether it exists or not. Raises ConfigError."""
    system = system or this_system()
    if client.files is None:
        raise ConfigError("generic has no file of its own", "without --write the block is printed")
    path = expanded(dict(zip(SYSTEMS, client.files))[system], environ, system)
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
    if isinstance(held, list):
        pairs = [(item.get("name"), item) for item in held if isinstance(item, dict)]
    else:
        pairs = list(held.items())
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
        try:
            status = os.fstat(descriptor)
            _refuse_foreign(path, status)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(FILE_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return Content(None, b"", "", 0o600)
    except OSError as error:
        raise ConfigError(f"{clean(path)} cannot be read: {error.strerror}", HAND) from None
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"{clean(path)} is larger than {FILE_MAX_BYTES:,} bytes", HAND)
    return Content(data, *_decoded(data), stat.S_IMODE(status.st_mode))


def _refuse_foreign(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{clean(path)} is not a regular file", HAND)
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        raise ConfigError(f"{clean(path)} belongs to another user", "run this as its owner")


def _decoded(data: bytes) -> tuple[bytes, str]:
    bom = BOM if data.startswith(BOM) else b""
    try:
        return bom, data[len(bom) :].decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: len(bom) + error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise ConfigError(f"line {line}, byte {column}: this is not UTF-8", HAND) from None


# ---------------------------------------------------------------------------------------------------------------------
# changing a text
# ---------------------------------------------------------------------------------------------------------------------


def with_entry(client: Client, text: str, key: str, block: JsonObject) -> str:
    """The text with the entry: a new one whole; of one that is there, only members of ours that differ."""
    text = text if text.strip() else client.new_file or EMPTY[client.format]
    form, shape, path = edit.FORMATS[client.format], client.shape, location(client.shape, key)
    there = servers(shape, form.read(text)).get(key)
    wanted = members(shape, key, block)
    if there is None:
        return form.put(text, path, {**wanted, **shape.at_first})
    if not there.is_ours:
        raise ConfigError(f"the entry {key} starts another program", "rename it or remove it there, and try again")
    for name, value in wanted.items():
        if name == shape.env and isinstance(there.members.get(name), dict):
            for variable, setting in value.items():
                if there.environment.get(variable) != setting:
                    text = form.put(text, (*path, name, variable), setting)
        elif there.members.get(name) != value:
            text = form.put(text, (*path, name), value)
    return _without_stale(client, text, there, block.get("env", {}))


def _without_stale(client: Client, text: str, there: Server, wanted: JsonObject) -> str:
    """Drops variables that we pass on and that are no longer set; others in the entry are the user's."""
    form, path = edit.FORMATS[client.format], (*location(client.shape, there.key), client.shape.env)
    stale = [name for name in PASSED_ON if name in there.environment and name not in wanted]
    if stale and set(stale) == set(there.environment) and not wanted:
        return form.drop(text, path)
    for name in stale:
        text = form.drop(text, (*path, name))
    return text


EMPTY = {"json": "{}\n", "toml": "", "yaml": ""}


def without_entry(client: Client, text: str, key: str) -> str:
    """The text without the entry."""
    return edit.FORMATS[client.format].drop(text, location(client.shape, key))


def refuse_more_than_ours(client: Client, old: str, new: str, keys: set[str]) -> None:
    """The last check before anything is written: read again, everything else must say what it said before."""
    before, after = (_others(client, text, keys) for text in (old, new))
    if before != after:
        raise ConfigError("more than our entry would change", HAND)


def _others(client: Client, text: str, keys: set[str]) -> tuple[JsonObject, list[Any]]:
    """What a document says beside the entries of those keys; an empty file is what we begin one with."""
    document = parsed(client, text if text.strip() else client.new_file)
    held = document.pop(client.shape.container, None) or {}
    if isinstance(held, dict):
        return document, [(key, value) for key, value in held.items() if key not in keys]
    return document, [item for item in held if not (isinstance(item, dict) and item.get("name") in keys)]


def block_text(client: Client, entries: Entries) -> str:
    """What `config` prints: the entries as a file that holds nothing else."""
    text = EMPTY[client.format]
    for key, block in entries.items():
        text = with_entry(client._replace(new_file=""), text, key, block)
    return text


# ---------------------------------------------------------------------------------------------------------------------
# changing a file
# ---------------------------------------------------------------------------------------------------------------------


def replace_file(path: str, old: Content, new: str) -> str:
    """Writes `new` in place of what was read before, whole or not at all; the path of the copy of the old, if any.

    Raises ConfigError, also if the file has changed since.
    """
    if not old.mode & stat.S_IWUSR:  # a rename would pay no heed to it
        raise ConfigError(f"{clean(path)} is read-only", f"chmod u+w {shlex.quote(path)}, or {HAND}")
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, f".{os.path.basename(path)}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        make_directories(directory)
        backup = back_up(path, old.data)
        try:
            _write_new(temporary, old.bom + new.encode("utf-8"), old.mode)
            if read_file(path).data != old.data:
                raise ConfigError(f"{clean(path)} was changed by another program just now", "run this again")
            os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_directory(directory)
    except OSError as error:
        raise ConfigError(f"{clean(path)} cannot be written: {error.strerror}", HAND) from None
    return backup


def make_directories(directory: str) -> None:
    """Makes what is missing, for the user only. Raises OSError; ConfigError where root would act in a user's home."""
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    if hasattr(os, "getuid") and os.getuid() == 0 and os.stat(directory).st_uid != 0:
        raise ConfigError(f"{clean(directory)} belongs to another user", "run this as its owner")
    for path in reversed(missing):
        os.mkdir(path, 0o700)


def _write_new(path: str, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(path, mode)
    except BaseException:  # half a copy would pass for a whole one
        os.unlink(path)
        raise


def _sync_directory(directory: str) -> None:
    """So that the new name outlives a power cut; Windows opens no directories."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def back_up(path: str, data: bytes | None) -> str:
    """Keeps `data` beside the file, as .bak, .bak.2, ...: no copy is ever overwritten, and none is made twice."""
    if data is None or not data.strip():
        return ""
    number = 1
    while True:
        backup = f"{path}.bak" + (f".{number}" if number > 1 else "")
        if not os.path.lexists(backup):
            _write_new(backup, data, 0o600)
            return backup
        if os.path.isfile(backup) and os.path.getsize(backup) == len(data):
            with open(backup, "rb") as file:
                if file.read() == data:
                    return backup
        number += 1


# ---------------------------------------------------------------------------------------------------------------------
# showing a change
# ---------------------------------------------------------------------------------------------------------------------


def difference(client: Client, old: str, new: str, keys: set[str]) -> Iterator[str]:
    """The hunks of a unified diff without context; what others wrote on a line that changes is cut out.

    It may be a token: a neighbour's line gets a comma when an entry follows it, and some files are one line.
    """
    import difflib

    before, after = ([line.rstrip("\r") for line in text.split("\n")] for text in (old, new))
    ours = [own_lines(client, text, keys) for text in (old, new)]
    head = alike(before, after)
    tail = alike(before[head:][::-1], after[head:][::-1])
    middle = [lines[head : len(lines) - tail] for lines in (before, after)]
    for tag, *bounds in difflib.SequenceMatcher(None, middle[0], middle[1], autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        spans = [range(head + bounds[0], head + bounds[1]), range(head + bounds[2], head + bounds[3])]
        removed, added = ([lines[number] for number in span] for lines, span in zip((before, after), spans))
        if removed and added and not all(set(span) <= own for span, own in zip(spans, ours)):
            removed, added = _without_neighbours(removed, added)
        yield f"@@ -{_bounds(spans[0])} +{_bounds(spans[1])} @@"
        yield from (f"-{clean(line, 4_000)}" for line in removed)
        yield from (f"+{clean(line, 4_000)}" for line in added)


def own_lines(client: Client, text: str, keys: set[str]) -> set[int]:
    """The numbers, from 0, of the lines that hold nothing but those entries."""
    if not text.strip():
        return set()
    found: set[int] = set()
    for key in keys:
        for start, end in edit.FORMATS[client.format].spans(text, location(client.shape, key)):
            first, last = text.count("\n", 0, start), text.count("\n", 0, end)
            begins_line = not text[edit.line_start(text, start) : start].strip(" \t-")
            ends_line = re.compile(r"[ \t]*,?[ \t]*(?=\r?\n|\Z)").match(text, end)
            found |= set(range(first + (not begins_line), last + bool(ends_line)))
    return found


def _without_neighbours(removed: list[str], added: list[str]) -> tuple[list[str], list[str]]:
    """Both without the text with which both begin and end, but for its white space."""
    texts = ["\n".join(lines) for lines in (removed, added)]
    head = alike(*texts)
    tail = alike(*(text[head:][::-1] for text in texts))
    indent = len(texts[0]) - len(texts[0].lstrip())
    begin, end = texts[0][: min(indent, head)] + "..." * (head > indent), "..." * (tail > 0)
    middles = [text[head : len(text) - tail] for text in texts]
    cut = [begin + middle + end * (middle != "" or not begin.endswith("...")) for middle in middles]
    return cut[0].split("\n"), cut[1].split("\n")


def alike(one: Sequence[object], other: Sequence[object]) -> int:
    """How many of the first are the same."""
    return next((place for place, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _bounds(span: range) -> str:
    """A range of lines as diff writes it: counted from 1, and an empty one by the line before it."""
    return f"{span.start + bool(span)},{len(span)}"


# ---------------------------------------------------------------------------------------------------------------------
# config
# ---------------------------------------------------------------------------------------------------------------------


def add_options(config: argparse.ArgumentParser) -> None:
    """The grammar of `config`, but for --agent."""
    config.add_argument("client", choices=tuple(CLIENTS), metavar="CLIENT", help=f"one of: {', '.join(CLIENTS)}")
    way = config.add_mutually_exclusive_group()
    way.add_argument("--write", action="store_true", help="put it into the client's own file")
    way.add_argument("--remove", action="store_true", help="take it out of the client's own file")
    config.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    config.add_argument("--project", action="store_true", help="in the file of the project in this directory")
    harmless = "what changes nothing and makes no credential"
    config.add_argument("--read-only", action="store_true", help=f"the server shall offer {harmless}")
    for name, text in (("--tools", "shall offer these only"), ("--exclude", "shall not offer these")):
        config.add_argument(name, default="", metavar="A,B", help=f"the server {text}: TOOL or TOOL.ACTION")


def command_config(options: argparse.Namespace) -> int:
    """Prints the block for one client, or changes the client's file."""
    client = CLIENTS[options.client]
    if options.remove:
        return _change(options, client, _removal(options.agent))
    installed = mcp.slots()
    wanted = options.agent or os.environ.get("SIKKERKEY_AGENT_ID", "")
    chosen: list[str | None] = [mcp.choose_slot(wanted)] if wanted else [*installed] or [None]
    blocks = {agent: entry(agent, _switches(options)) for agent in chosen}
    if chosen == [None]:
        advise(f"no agent is installed yet: {shlex.join(mcp.program())} install -")
    if sys.prefix != sys.base_prefix:
        advise(f"note: {clean(sys.executable)} lies in a virtual environment, and the server is gone when that is")
    if options.write or options.dry_run:
        return _change(options, client, _addition(blocks, len(installed)))
    entries = {server_key(agent, len(installed)): block for agent, block in blocks.items()}
    print(block_text(client, entries).rstrip("\n"))
    advise(_advice(options, client))
    return 0


def _switches(options: argparse.Namespace) -> list[str]:
    """What goes behind `serve`. Raises ConfigError if a tool is unknown."""
    known = {tool.name for tool in mcp.TOOLS}
    known |= {f"{tool.name}.{action.name}" for tool in mcp.TOOLS for action in tool.actions}
    switches = ["--read-only"] if options.read_only else []
    for name in ("tools", "exclude"):
        given = getattr(options, name)
        if given and not set(given.split(",")) <= known:
            raise ConfigError(f"--{name} names a tool or an action that there is not", "docs/actions.md lists them")
        switches += [f"--{name}", given] if given else []
    return switches


def _advice(options: argparse.Namespace, client: Client) -> str:
    """Where a printed block belongs."""
    if client.files is None:
        return "put it where your client keeps its MCP servers"
    return f"put it into {clean(_file(options, client))}, or have it put there: --write"


def _file(options: argparse.Namespace, client: Client) -> str:
    if not options.project:
        return user_file(client, os.environ)
    if not client.project:
        raise ConfigError(f"{options.client} has no file for a project", "without --project it is the user's own")
    return os.path.join(os.getcwd(), client.project)


class Outcome(NamedTuple):
    """A new text, and what was done to which entries."""

    text: str
    done: dict[str, str]


Change = Callable[[Client, str], Outcome]


def _addition(blocks: dict[str | None, JsonObject], installed: int) -> Change:
    """Puts an entry for each agent; one that serves it already keeps its key, whichever that is."""

    def change(client: Client, text: str) -> Outcome:
        done = {}
        for agent, block in blocks.items():
            there = servers(client.shape, parsed(client, text))
            key = _key_for(agent, server_key(agent, installed), there)
            if key in there:
                _tell_what_is_lost(there[key], block)
            new = with_entry(client, text, key, block)
            done[key] = "is in" if new == text else "changed in" if key in there else "added to"
            text = new
        return Outcome(text, done)

    return change


def _tell_what_is_lost(there: Server, block: JsonObject) -> None:
    """A server that was narrowed should not be widened unnoticed."""
    if not set(there.switches) <= set(block["args"]):
        switches = clean(shlex.join(there.switches), 1_000)
        advise(f"note: {clean(there.key)} was started with {switches}; give these again to keep them")


def _key_for(agent: str | None, usual: str, there: dict[str, Server]) -> str:
    keys = [key for key, server in there.items() if agent and server.is_ours and server.agent == agent]
    return usual if usual in keys or not keys else keys[0]


def _removal(agent: str) -> Change:
    """Takes out the entries that start this program, or those of one agent."""

    def change(client: Client, text: str) -> Outcome:
        there = servers(client.shape, parsed(client, text)).values()
        keys = [server.key for server in there if server.is_ours and agent in ("", server.agent)]
        for key in keys:
            text = without_entry(client, text, key)
        return Outcome(text, dict.fromkeys(keys, "removed from"))

    return change


def _change(options: argparse.Namespace, client: Client, change: Change) -> int:
    """Changes the client's file, or shows how. Raises ConfigError, and then the file is as it was."""
    shown = _file(options, client)
    path = os.path.realpath(shown)  # a link, as managers of dot files make them, stays
    try:
        old = read_file(path)
        new, done = change(client, old.text)
        refuse_more_than_ours(client, old.text, new, set(done))
    except ConfigError as error:
        named = str(error) if clean(path) in str(error) else f"{clean(path)}, {error}"
        raise ConfigError(named, error.hint or HAND) from None
    if options.dry_run:
        _show(client, path, old, new, set(done))
        return 0
    backup = replace_file(path, old, new) if new != old.text else ""
    for key, what in done.items():
        print(f"{clean(key)} {what} {clean(shown, 4_000)}")
    if not done:
        advise(f"nothing of ours is in {clean(shown, 4_000)}")
    if backup:
        advise(f"what was there is kept in {clean(backup, 4_000)}")
    if done and not options.remove:
        advise(f"start {client.title} anew; {client.look}")
    return 0


def _show(client: Client, path: str, old: Content, new: str, keys: set[str]) -> None:
    name = clean(path, 4_000)
    if new == old.text:
        advise(f"nothing would change in {name}")
        return
    print(f"--- {name if old.data is not None else '/dev/null'}\n+++ {name}")
    for line in difference(client, old.text, new, keys):
        print(line)
