"""Entries for this server in the clients' files: what one consists of, and those that are already there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple

import sikkerkey_identity
import sikkerkey_mcp
import sikkerkey_options
from sikkerkey_cli import edit
from sikkerkey_cli.clients import CLIENTS, MANUAL_EDIT_HINT, Client, Located, Shape, System, user_files
from sikkerkey_mcp import ConfigError, JsonObject, clean

KEY_MAX_CHARACTERS = 30  # Cursor drops tools if the names of tool and server exceed 60 characters together
NAME_MAX_CHARACTERS = 100  # of an agent's name, from which a key is made
FILE_MAX_BYTES = 64 * 1024 * 1024  # Claude Code's file also contains its history and grows to tens of megabytes
EMPTIED_RECENTLY_S = 10  # a client empties its file and then writes it
CHANGED_RECENTLY_S = 2  # a file that is younger is read until it no longer changes
SETTLE_S = 0.2
SETTLE_TRIES = 10
# Variables that an entry sets, because a client may start the server without the user's environment.
PASSED_PATHS = ("SIKKERKEY_HOME", "SIKKERKEY_CA_BUNDLE", "SIKKERKEY_CACHE_DIR")
PASSED_WORDS = ("SIKKERKEY_CA_BUNDLE_ONLY", "SIKKERKEY_VAULT_USER")
PASSED_VARIABLES = (*PASSED_PATHS, *PASSED_WORDS)
# Set if they restrict the server, and never removed: an entry must not lose a restriction by being written again.
RESTRICTING_VARIABLES = (
    *("SIKKERKEY_READ_ONLY", "SIKKERKEY_TOOLS", "SIKKERKEY_EXCLUDE"),
    *("SIKKERKEY_VALUES", "SIKKERKEY_CONFIRM", "SIKKERKEY_MAX_CALLS", "SIKKERKEY_MAX_DESTRUCTIVE"),
)
PROXY_VARIABLES = ("HTTPS_PROXY", "NO_PROXY")  # set too, as are SSL_CERT_FILE and SSL_CERT_DIR, but never removed
# In a project's file, whose author may be anybody, an entry keeps only these beside what we write: they can neither
# run something nor approve a call. Their values are plain, or lists of plain ones.
HARMLESS_MEMBERS = {
    *("description", "disabled", "enabled", "name", "timeout", "startup_timeout_sec", "tool_timeout_sec"),
    *("tools", "disabledTools", "disabled_tools", "enabled_tools", "excludeTools", "includeTools"),
}
APPROVING_MEMBERS = {"alwaysAllow", "autoApprove", "autoApproved", "trust"}  # harmless while they approve nothing
HARMLESS_VARIABLES = {"LANG", "LC_ALL", "NO_COLOR", "SIKKERKEY_BROWSER", "SIKKERKEY_SPLIT_READS"}
# Without these, a program on Linux cannot open a browser for the user.
DESKTOP_VARIABLES = [
    *("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "BROWSER"),
]
# The archive, the server's module, or the package of a source checkout.
PROGRAM_PATH = r"(^|[/\\])(sikkerkey[-_]mcp[^/\\]*\.pyz?|sikkerkey_cli([/\\]__main__\.py)?)\Z"
BOM = b"\xef\xbb\xbf"

# ---------------------------------------------------------------------------------------------------------------------
# the entry that `config` writes
# ---------------------------------------------------------------------------------------------------------------------

Entries = dict[str, JsonObject]


def server_keys(installed: Sequence[str], new: Mapping[str, str] = MappingProxyType({})) -> dict[str | None, str]:
    """The server's name in the client for each agent. With several agents, it is made from the agent's name.

    `new` has the names of agents that are about to be installed, by their ids.
    """
    if len(installed) <= 1:
        return dict.fromkeys([None, *installed], "sikkerkey")
    words = {agent: _as_word(new[agent], agent) if agent in new else _word_for(agent) for agent in installed}
    shared = [word for word, count in Counter(words.values()).items() if count > 1]
    return {agent: _named_key(agent, word, unique=word not in shared) for agent, word in words.items()}


def _word_for(agent: str) -> str:
    """The agent's name in lower-case letters, digits and dashes; its id if there is no such name."""
    try:
        name = sikkerkey_identity.load_identity(agent, with_key=False).name
    except ConfigError:
        name = ""
    return _as_word(name, agent)


def _as_word(name: str, agent: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name[:NAME_MAX_CHARACTERS].lower()).strip("-") or agent


def _named_key(agent: str, word: str, *, unique: bool) -> str:
    key = f"sikkerkey-{word}"
    if unique and len(key) <= KEY_MAX_CHARACTERS:
        return key
    digest = hashlib.sha256(agent.encode("ascii")).hexdigest()[:8]  # two names may have the same beginning
    return f"{key[: KEY_MAX_CHARACTERS - 9]}-{digest}"


def proxy_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxy that is set, under the usual names. Lower case takes precedence, as for urllib."""
    found = {name: environ.get(name.lower()) or environ.get(name, "") for name in PROXY_VARIABLES}
    return {name: value for name, value in found.items() if value and found["HTTPS_PROXY"]}


def has_password(proxy: str) -> bool:
    """Whether a proxy's address contains a user, and so probably a password."""
    return "@" in proxy


def restricting_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the environment that restrict the server, without those that loosen it. Raises ConfigError."""
    usual = sikkerkey_mcp.read_settings([], {})
    found = {}
    for variable in RESTRICTING_VARIABLES:
        if variable in environ:
            alone = sikkerkey_mcp.read_settings([], {variable: environ[variable]})
            if alone != usual and not _is_looser(alone, usual):
                found[variable] = environ[variable]
    return found


def loosens(options: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether options of `serve` or the environment allow more than no option at all. Raises ConfigError."""
    settings = sikkerkey_mcp.read_settings(options, environ)
    return _is_looser(settings, sikkerkey_mcp.read_settings([], {})) or not settings.logs_activity


def _is_looser(settings: sikkerkey_mcp.ServeSettings, usual: sikkerkey_mcp.ServeSettings) -> bool:
    def rate(limit: sikkerkey_options.Limit) -> float:
        return limit.most / limit.period_s

    more = [
        name not in settings.limits or rate(settings.limits[name]) > rate(usual.limits[name]) for name in usual.limits
    ]
    return any(more) or settings.person.confirm == "never"


def passed_environment(environ: Mapping[str, str], client: Client) -> dict[str, str]:
    """The variables that an entry sets. A proxy's password is never written into a client's file."""
    # Absolute, because the client chooses the directory in which it starts the server.
    found = {name: os.path.abspath(environ[name]) for name in PASSED_PATHS if environ.get(name)}
    found.update((name, environ[name]) for name in PASSED_WORDS if environ.get(name))
    found.update(restricting_environment(environ))
    if environ.get("SSL_CERT_FILE"):
        found["SSL_CERT_FILE"] = os.path.abspath(environ["SSL_CERT_FILE"])
    if environ.get("SSL_CERT_DIR"):
        found["SSL_CERT_DIR"] = os.pathsep.join(map(os.path.abspath, environ["SSL_CERT_DIR"].split(os.pathsep)))
    proxies = {} if client.passes_proxies_on else proxy_variables(environ)
    return {**found, **{name: value for name, value in proxies.items() if not has_password(value)}}


def check_starts(server: Server) -> None:
    """Raises ConfigError if a server would not start because of the options and restrictions in its entry."""
    words = server.command[server.command.index("serve") + 1 :] if "serve" in server.command else []
    environ = {name: str(value) for name, value in server.environment.items()}
    if {"-h", "--help"} & set(words):
        raise ConfigError("the entry has the option --help, which makes the server exit immediately")
    sikkerkey_mcp.read_settings(words, environ)


def server_entry(client: Client, agent: str | None, options: Sequence[str] = ()) -> JsonObject:
    """One server: `command`, `args`, and `env` if a variable is set. Raises ConfigError.

    -I prevents the working directory and the user's packages from replacing modules of this program.
    """
    interpreter, path = sikkerkey_mcp.program()
    args = ["-I", path, "serve", *(["--agent", agent] if agent else []), *options]
    environment = passed_environment(os.environ, client)
    for text in (interpreter, path, *environment.values()):
        if not text.isprintable() and re.search("[\ud800-\udfff]", text):
            raise ConfigError(f"the path {clean(text)} is not UTF-8", "rename it: a client's file cannot contain it")
    return {"command": interpreter, "args": args, **({"env": environment} if environment else {})}


def entry_members(shape: Shape, key: str, block: JsonObject) -> JsonObject:
    """The entry in this client's shape, without the defaults of a new entry."""
    command = {shape.command: block["command"], shape.args: block["args"]}
    if not shape.args:
        command = {shape.command: [block["command"], *block["args"]]}
    name = {shape.name_member: key} if shape.name_member else {}
    environment = {shape.env: block["env"]} if "env" in block else {}
    return {**name, **shape.fixed, **command, **environment}


def additional_members(shape: Shape, system: System) -> JsonObject:
    """Members that are added where they are missing; the user may change them."""
    return {shape.passed_on: DESKTOP_VARIABLES} if shape.passed_on and system == "linux" else {}


def kept_members(shape: Shape, server: Server, block: JsonObject) -> tuple[list[str], list[str]]:
    """What an entry holds beside what we write: the harmless members and variables, and all others, each sorted."""
    ours = {**shape.defaults, **additional_members(shape, "linux"), **entry_members(shape, server.key, block)}
    harmless: list[str] = []
    others: list[str] = []
    for name, value in server.members.items():
        if name == shape.env and isinstance(value, dict):
            for variable, text in value.items():
                if text != block.get("env", {}).get(variable):
                    is_harmless = variable in HARMLESS_VARIABLES or _restricts(variable, text)
                    (harmless if is_harmless else others).append(f"{name}.{variable}")
        elif name not in ours or value != ours[name]:
            is_approving = name in APPROVING_MEMBERS and value
            is_harmless = name in HARMLESS_MEMBERS | APPROVING_MEMBERS and not is_approving and _is_plain(value)
            (harmless if is_harmless else others).append(name)
    return sorted(harmless), sorted(others)


def _restricts(variable: str, text: object) -> bool:
    return variable in RESTRICTING_VARIABLES and not loosens([], {variable: str(text)})


def _is_plain(value: object) -> bool:
    return not isinstance(value, dict) and not (
        isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value)
    )


def entry_path(shape: Shape, key: str) -> edit.Path:
    """The path of an entry in a document."""
    return (*shape.path, edit.Item(key) if shape.is_list else key)


# ---------------------------------------------------------------------------------------------------------------------
# entries in a document
# ---------------------------------------------------------------------------------------------------------------------


class Server(NamedTuple):
    """An entry of a client's file."""

    key: str
    members: JsonObject
    command: list[str]
    environment: JsonObject

    @property
    def agent(self) -> str:
        """The agent that the entry names; empty if it names none."""
        return self._value_of("--agent")

    @property
    def prefix(self) -> str:
        """What the tools' names begin with; empty if the entry does not say."""
        return self._value_of(sikkerkey_options.PREFIX)

    @property
    def is_in_this_home(self) -> bool:
        """Whether it uses the agents that this command sees."""
        own = self.environment.get("SIKKERKEY_HOME") or os.path.expanduser("~/.sikkerkey")
        return os.path.normpath(str(own)) == sikkerkey_identity.home()

    def _value_of(self, option: str) -> str:
        return next((after for word, after in zip(self.command, self.command[1:]) if word == option), "")

    @property
    def starts_this_program(self) -> bool:
        """Whether it starts this program, from any path: by the file's name, or by a command as `config` writes it."""
        if any(re.search(PROGRAM_PATH, word) for word in self.command):
            return True
        if len(self.command) > 3 and self.command[1] == "-I" and self.command[3] == "serve":
            return True
        as_module = self.command[1:2] == ["-m"] and self.command[2:3] in (["sikkerkey_cli"], ["sikkerkey_mcp"])
        return as_module or sikkerkey_mcp.program()[1] in self.command[:4]

    @property
    def options(self) -> list[str]:
        """The options after `serve` that restrict the server, without --agent."""
        words = self.command[self.command.index("serve") + 1 :] if "serve" in self.command else []
        pairs = zip(["", *words], words)
        return [word for before, word in pairs if "--agent" not in (before, word)]


def container_in(shape: Shape, document: JsonObject) -> Any:
    """The container in a document; None if it is missing or null."""
    found: Any = document
    for name in shape.path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def servers(shape: Shape, document: JsonObject) -> dict[str, Server]:
    """All entries of a document by their keys, including those of other programs. Raises ConfigError."""
    container = container_in(shape, document)
    if container is None:
        return {}
    if not isinstance(container, list if shape.is_list else dict):
        kind = "a list" if shape.is_list else "an object"
        raise ConfigError(f"{shape.container} is not {kind}", MANUAL_EDIT_HINT)
    if isinstance(container, list):
        pairs = [(item.get("name"), item) for item in container if isinstance(item, dict)]
    else:
        pairs = list(container.items())
    return {key: _server(shape, key, value) for key, value in pairs if isinstance(key, str)}


def _server(shape: Shape, key: str, value: Any) -> Server:
    members = value if isinstance(value, dict) else {}
    command, args, environment = members.get(shape.command), members.get(shape.args, []), members.get(shape.env)
    words = [*(command if isinstance(command, list) else [command]), *(args if isinstance(args, list) else [])]
    return Server(
        key,
        members,
        [word.text if isinstance(word, edit.Raw) else word for word in words if isinstance(word, (str, edit.Raw))],
        environment if isinstance(environment, dict) else {},
    )


# ---------------------------------------------------------------------------------------------------------------------
# reading the clients' files
# ---------------------------------------------------------------------------------------------------------------------


class FoundEntry(NamedTuple):
    """An entry for this server in a client's user file; or, if `problem` is set, a file that cannot be read."""

    client: str
    path: str
    key: str
    command: list[str]
    environment: JsonObject
    problem: str


def find_entries(environ: Mapping[str, str]) -> list[FoundEntry]:
    """The entries in all clients' user files that start this program or whose key begins with `sikkerkey`."""
    return [entry for name in CLIENTS if name != "generic" for entry in _entries_in(name, environ)]


def _entries_in(name: str, environ: Mapping[str, str]) -> Iterator[FoundEntry]:
    try:
        files = user_files(CLIENTS[name], environ)
    except ConfigError as error:
        yield FoundEntry(name, "", "", [], {}, str(error))
        return
    for client, path in files:
        try:
            existing = _servers_in_file(client, path) if os.path.lexists(path) else {}
        except ConfigError as error:
            yield FoundEntry(name, path, "", [], {}, str(error))
            continue
        for server in existing.values():
            if server.starts_this_program or server.key.startswith("sikkerkey"):
                yield FoundEntry(name, path, server.key, server.command, server.environment, "")


def _servers_in_file(client: Client, path: str) -> dict[str, Server]:
    text = read_now(path).text
    return servers(as_stored(client, text).shape, parse(client, text))


def file_to_change(client: Client, environ: Mapping[str, str]) -> Located:
    """Of the client's user files, the one that has an entry for this server, otherwise the one for a new entry."""
    files = user_files(client, environ)
    for located in files if len(files) > 1 else ():
        with suppress(ConfigError):  # reported if this file is the one to change
            if any(server.starts_this_program for server in _servers_in_file(*located).values()):
                return located
    return files[0]


def is_blank(text: str) -> bool:
    """Whether a file is empty. Unlike str.strip, this does not ignore characters that the client would not ignore."""
    return not text.strip(" \t\r\n")


def parse(client: Client, text: str) -> JsonObject:
    """The document; an empty one for an empty file. Raises ConfigError."""
    if is_blank(text):
        return {}
    document = edit.FORMATS[client.format].read(text)
    if client.strict_json:
        try:
            json.loads(text)
        except ValueError:
            reason = f"{client.title} refuses this file: it contains a comment or a trailing comma"
            raise ConfigError(reason, "remove comments and trailing commas from the file") from None
    return document


def as_stored(client: Client, text: str) -> Client:
    """The client with the container that its file uses. Raises ConfigError."""
    if not client.containers:
        return client
    document = parse(client, text)
    shapes = [client.shape._replace(container=name) for name in client.containers]
    used = next((shape for shape in shapes if _is_container(container_in(shape, document))), client.shape)
    return client._replace(shape=used)


def _is_container(found: Any) -> bool:
    """Whether a member contains servers. Below `mcp`, `servers` may also be the name of one of them."""
    return isinstance(found, dict) and not {"command", "type", "url"} & set(found)


class FileContent(NamedTuple):
    """A file as it was read; `data` is None if there is no file."""

    data: bytes | None
    bom: bytes
    text: str
    mode: int


MISSING = FileContent(None, b"", "", 0o600)


def read_file(path: str) -> FileContent:
    """A client's file, which may be missing, as its last complete version. Raises ConfigError."""
    found = _read(path)
    if found is None:
        return MISSING
    tries = 0
    while abs(time.time() - found[1].st_mtime) < CHANGED_RECENTLY_S:  # perhaps only a part is written yet
        time.sleep(SETTLE_S)
        before, found = found, _read(path)
        if found is None:
            return MISSING
        if found[0] == before[0]:
            break
        tries += 1
        if tries == SETTLE_TRIES:
            raise ConfigError(f"{clean(path)} is being changed by another program", "run this command again")
    data, status = found
    if not data.strip() and abs(time.time() - status.st_mtime) < EMPTIED_RECENTLY_S:
        reason = f"{clean(path)} is empty and was changed just now, perhaps by a program that is still writing it"
        raise ConfigError(reason, f"run this command again in {EMPTIED_RECENTLY_S} seconds")
    return _content(data, status)


def read_now(path: str) -> FileContent:
    """A file as it is at this moment. Raises ConfigError."""
    found = _read(path)
    return _content(*found) if found else MISSING


def _content(data: bytes, status: os.stat_result) -> FileContent:
    return FileContent(data, *_decode(data), stat.S_IMODE(status.st_mode))


def _read(path: str) -> tuple[bytes, os.stat_result] | None:
    """The data and the status of a file; None if there is no file. Raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            status = os.fstat(descriptor)
            _check_type_and_owner(path, status)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(FILE_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{clean(path)} cannot be read: {error.strerror}", MANUAL_EDIT_HINT) from None
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"{clean(path)} is larger than {FILE_MAX_BYTES:,} bytes", MANUAL_EDIT_HINT)
    return data, status


def _check_type_and_owner(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{clean(path)} is not a regular file", MANUAL_EDIT_HINT)
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        raise ConfigError(f"{clean(path)} belongs to another user", "run this as its owner")


def _decode(data: bytes) -> tuple[bytes, str]:
    """The byte order mark and the text."""
    bom = BOM if data.startswith(BOM) else b""
    try:
        return bom, data[len(bom) :].decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: len(bom) + error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise ConfigError(f"line {line}, byte {column}: this is not UTF-8", MANUAL_EDIT_HINT) from None
