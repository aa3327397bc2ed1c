"""The supported MCP clients: one row for each, with the file where it keeps its servers and the shape of an entry."""

from __future__ import annotations

import glob
import ntpath
import os
import posixpath
import re
import shutil
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from sikkerkey_core import ConfigError, UsageError

System = Literal["linux", "macos", "windows"]
SYSTEMS: tuple[System, ...] = ("linux", "macos", "windows")

# ---------------------------------------------------------------------------------------------------------------------
# the table of clients
# ---------------------------------------------------------------------------------------------------------------------


# The hint of every error that leaves a file unchanged.
MANUAL_EDIT_HINT = "add the block by hand: `config CLIENT` without --write prints it"
PATH_MAX_CHARACTERS = 4_096
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Shape(NamedTuple):
    """How a client stores servers: the member that contains all of them, and the members of one entry."""

    container: str  # with a dot: a member of a member
    command: str = "command"
    args: str = "args"  # empty: the command is a list that includes them
    env: str = "env"
    name_member: str = ""  # a member that repeats the key
    fixed: Mapping[str, Any] = NOTHING
    defaults: Mapping[str, Any] = NOTHING  # written once, in a new entry; the user may change them
    is_list: bool = False  # the container is a list of items with a `name`
    passed_on: str = ""  # the member that names variables which the server gets although the client drops others

    @property
    def path(self) -> tuple[str, ...]:
        """The path of the container in a document."""
        return tuple(self.container.split("."))


class Files(NamedTuple):
    """The path of a client's user file on each of SYSTEMS, in shell syntax: `${NAME:-default}`, `~`."""

    linux: str
    macos: str
    windows: str


class Place(NamedTuple):
    """A file that a client uses instead of its usual one on computers where `sign` exists."""

    sign: str  # a path in the syntax of Files, in which `*` is a part of a name; or a variable that is set
    file: str = ""  # relative to the sign; empty: the sign itself
    unless: str = ""  # a path in the syntax of Files: where it exists, the usual file is used
    read_too: bool = False  # the client reads both files
    is_pointer: bool = False  # the sign is a file whose first line is the directory that `file` is relative to
    format: str = ""  # of this file, and the shape and the project's file that go with it
    shape: Shape | None = None
    project: str = ""


class Client(NamedTuple):
    """One program that can start this server."""

    title: str
    format: str
    shape: Shape
    files: Files | None  # None: the program does not know where the file is
    project: str  # relative to a project directory; empty: the client has no project file
    success_sign: str  # how a user sees that the server works
    places: tuple[Place, ...] = ()  # the first whose sign exists is used
    initial_text: str = ""  # what a new file begins with
    bare_tool_names: bool = False  # the model sees the tools of all servers by their bare names, so they must differ
    containers: tuple[str, ...] = ()  # other names of the container, of which the client reads the first that exists
    strict_json: bool = False  # the client refuses comments and trailing commas
    has_profiles: bool = False  # each profile but the default one has a file of its own
    program: str = ""  # its command, if no other program is likely to have that name
    passes_proxies_on: bool = (
        False  # the server gets HTTPS_PROXY and NO_PROXY from the terminal that the client runs in
    )


def _everywhere(path: str) -> Files:
    return Files(path, path, path)


def _application(path: str) -> Files:
    """A path below the directory where desktop applications keep their settings."""
    return Files(
        f"${{XDG_CONFIG_HOME:-~/.config}}/{path}",
        f"~/Library/Application Support/{path}",
        f"${{APPDATA:-~/AppData/Roaming}}/{path}",
    )


MCP_SERVERS = Shape("mcpServers")
XDG = "${XDG_CONFIG_HOME:-~/.config}"
APPDATA = "${APPDATA:-~/AppData/Roaming}"
CONTINUE = "${CONTINUE_GLOBAL_DIR:-~/.continue}"

# fmt: off
CLIENTS: dict[str, Client] = {
    "claude-code": Client(
        "Claude Code", "json", Shape("mcpServers", fixed={"type": "stdio"}),
        _everywhere("${CLAUDE_CONFIG_DIR:-~}/.claude.json"), ".mcp.json",
        "`claude mcp list` says \"Connected\"", strict_json=True, program="claude", passes_proxies_on=True),
    "claude-desktop": Client(
        "Claude Desktop", "json", MCP_SERVERS, _application("Claude/claude_desktop_config.json"), "",
        "Settings, Developer shows the server as running",
        # Installed as an MSIX package, which is usual, it sees only files in its own directory.
        places=(Place("${LOCALAPPDATA:-~/AppData/Local}/Packages/Claude_*/LocalCache/Roaming",
                      "Claude/claude_desktop_config.json"),)),
    "cursor": Client(
        "Cursor", "json", MCP_SERVERS, _everywhere("~/.cursor/mcp.json"), ".cursor/mcp.json",
        "Settings, MCP shows a green dot and the number of tools", program="cursor"),
    "vscode": Client(
        "VS Code", "json", Shape("servers", fixed={"type": "stdio"}), _application("Code/User/mcp.json"),
        ".vscode/mcp.json", "the command \"MCP: List Servers\" shows it as running", has_profiles=True,
        places=(Place("~/.vscode-server/data", "User/mcp.json", f"{XDG}/Code"),)),
    "vscode-insiders": Client(
        "VS Code Insiders", "json", Shape("servers", fixed={"type": "stdio"}),
        _application("Code - Insiders/User/mcp.json"), ".vscode/mcp.json",
        "the command \"MCP: List Servers\" shows it as running", has_profiles=True,
        places=(Place("~/.vscode-server-insiders/data", "User/mcp.json", f"{XDG}/Code - Insiders"),)),
    "vscodium": Client(
        "VSCodium", "json", Shape("servers", fixed={"type": "stdio"}), _application("VSCodium/User/mcp.json"),
        ".vscode/mcp.json", "the command \"MCP: List Servers\" shows it as running", has_profiles=True,
        places=(Place("~/.vscodium-server/data", "User/mcp.json", f"{XDG}/VSCodium"),)),
    "codex": Client(
        "Codex", "toml", Shape("mcp_servers", passed_on="env_vars"), _everywhere("${CODEX_HOME:-~/.codex}/config.toml"),
        ".codex/config.toml", "`/mcp` in a session lists its tools", program="codex"),
    "continue": Client(
        "Continue", "yaml", Shape("mcpServers", is_list=True),
        _everywhere(f"{CONTINUE}/config.yaml"), ".continue/mcpServers/sikkerkey.yaml",
        "the tools menu of agent mode lists it; `/mcp` does in `cn`",
        initial_text="name: Local Config\nversion: 1.0.0\nschema: v1\n", bare_tool_names=True,
        # A config.yaml hides config.json. With config.json, only JSON files beside it are read.
        places=(Place(f"{CONTINUE}/config.json", "../mcpServers/sikkerkey.json", f"{CONTINUE}/config.yaml",
                      read_too=True, format="json", shape=MCP_SERVERS,
                      project=".continue/mcpServers/sikkerkey.json"),)),
    "gemini": Client(
        "Gemini CLI", "json", MCP_SERVERS, _everywhere("${GEMINI_CLI_HOME:-~}/.gemini/settings.json"),
        ".gemini/settings.json", "`gemini mcp list` says \"Connected\"", program="gemini", passes_proxies_on=True),
    "opencode": Client(
        "opencode", "json",
        Shape("mcp", args="", env="environment", fixed={"type": "local"}, defaults={"enabled": True}),
        _everywhere(f"{XDG}/opencode/opencode.json"), "opencode.json", "`opencode mcp list` says \"connected\"",
        initial_text='{\n  "$schema": "https://opencode.ai/config.json"\n}\n', program="opencode",
        passes_proxies_on=True, containers=("mcp.servers",),
        places=(Place(f"{XDG}/opencode/opencode.jsonc", read_too=True),
                Place(f"{XDG}/opencode/config.json", unless=f"{XDG}/opencode/opencode.json", read_too=True))),
    "copilot": Client(
        "Copilot CLI", "json", Shape("mcpServers", fixed={"type": "local"}, defaults={"tools": ["*"]}),
        _everywhere("${COPILOT_HOME:-~/.copilot}/mcp-config.json"), ".github/mcp.json",
        "`/mcp show` in a session shows it as running"),
    "antigravity": Client(
        "Antigravity", "json", MCP_SERVERS, _everywhere("~/.gemini/config/mcp_config.json"), ".agents/mcp_config.json",
        "Manage MCP Servers shows it with its tools",
        places=(Place("~/.gemini/antigravity/mcp_config.json", unless="~/.gemini/config"),)),
    "devin": Client(
        "Devin Desktop", "json", MCP_SERVERS,
        Files("~/.config/devin/mcp_config.json", "~/.config/devin/mcp_config.json", f"{APPDATA}/devin/mcp_config.json"),
        ".devin/mcp_config.json", "the MCP section of the agent panel lists it with its tools"),
    "windsurf": Client(
        "Windsurf", "json", MCP_SERVERS, _everywhere("~/.codeium/windsurf/mcp_config.json"), "",
        "after a refresh, Cascade's list of MCP servers shows a green dot"),
    "zed": Client(
        "Zed", "json", Shape("context_servers", fixed={"source": "custom"}),
        Files(f"{XDG}/zed/settings.json", "~/.config/zed/settings.json", f"{APPDATA}/Zed/settings.json"),
        ".zed/settings.json", "the agent panel's settings show a green dot"),
    "goose": Client(
        "Goose", "yaml",
        Shape("extensions", command="cmd", env="envs", fixed={"type": "stdio"},
              name_member="name",
              defaults={"enabled": True, "timeout": 300}),
        Files(f"{XDG}/goose/config.yaml", f"{XDG}/goose/config.yaml", f"{APPDATA}/Block/goose/config/config.yaml"), "",
        "`goose info -v` shows the extension, and a session lists its tools",
        places=(Place("${GOOSE_PATH_ROOT}", "config/config.yaml"),)),
    "lm-studio": Client(
        "LM Studio", "json", MCP_SERVERS, _everywhere("~/.lmstudio/mcp.json"), "",
        "the Program tab shows `mcp/sikkerkey` as enabled",
        places=(Place("~/.lmstudio-home-pointer", "mcp.json", is_pointer=True),
                Place("~/.cache/lm-studio", "mcp.json", "~/.lmstudio"))),
    "kiro": Client(
        "Kiro", "json", MCP_SERVERS, _everywhere("~/.kiro/settings/mcp.json"), ".kiro/settings/mcp.json",
        "the panel of MCP servers shows it as connected"),
    "warp": Client(
        "Warp", "json", MCP_SERVERS, _everywhere("~/.warp/.mcp.json"), ".warp/.mcp.json",
        "Settings, MCP servers shows it as running",
        containers=("mcp.servers", "servers", "mcpServers", "mcp_servers")),
    "generic": Client(
        "any other client", "json", MCP_SERVERS, None, "", "its list of MCP servers shows it"),
}
# fmt: on


# ---------------------------------------------------------------------------------------------------------------------
# paths of the clients' files
# ---------------------------------------------------------------------------------------------------------------------


def this_system() -> System:
    """The system of this computer. Other POSIX systems use the same paths as Linux."""
    if sys.platform == "win32":
        return "windows"
    return "macos" if sys.platform == "darwin" else "linux"


def expand_path(template: str, environ: Mapping[str, str], system: System) -> str:
    """Expands a path template of Files. Raises ConfigError if the result is not an absolute path."""
    flavour = ntpath if system == "windows" else posixpath
    found = re.fullmatch(r"(?:\$\{(\w+):-(.*?)\})?(.*)", template)
    variable, default, rest = found.groups("") if found else ("", "", template)
    path: str = ((environ.get(variable) or default) if variable else "") + rest
    if path.startswith("~"):
        home = environ.get("USERPROFILE" if system == "windows" else "HOME") or os.path.expanduser("~")
        path = home + path[1:]
    if not flavour.isabs(path):
        source = variable if variable and environ.get(variable) else "the home directory"
        raise ConfigError(f"{source} is not an absolute path", f"set it to an absolute path, or {MANUAL_EDIT_HINT}")
    normal: str = flavour.normpath(path)
    return normal


def installed_clients(environ: Mapping[str, str]) -> list[str]:
    """The clients that this computer seems to have: the file, the directory of that, or the command exists."""
    paths = {}
    for name, client in CLIENTS.items():
        with suppress(ConfigError):
            paths[name] = user_file(client, environ)
    return [name for name, path in paths.items() if _is_installed(CLIENTS[name], path, environ, paths.values())]


def _is_installed(client: Client, path: str, environ: Mapping[str, str], paths: Collection[str]) -> bool:
    directory = os.path.dirname(path)
    is_shared = any(other != path and other.startswith(os.path.join(directory, "")) for other in paths)
    if os.path.exists(path) or (os.path.isdir(directory) and not is_shared):
        return True
    return bool(client.program and shutil.which(client.program, path=environ.get("PATH")))


class Located(NamedTuple):
    """A client as it stores servers in the file at `path`."""

    client: Client
    path: str


def user_files(client: Client, environ: Mapping[str, str], system: System | None = None) -> list[Located]:
    """The client's user files: first the one for a new entry, whether or not it exists. Raises ConfigError."""
    system = system or this_system()
    if client.files is None:
        raise UsageError("the program does not know where a generic client keeps its file", MANUAL_EDIT_HINT)
    usual = Located(client, expand_path(dict(zip(SYSTEMS, client.files))[system], environ, system))
    bases = [(place, _base(place, environ, system)) for place in client.places]
    first = next((_at(client, place, base) for place, base in bases if base), usual)
    read_too = [_at(client, place, expand_path(place.sign, environ, system)) for place, _ in bases if place.read_too]
    others = [found for found in (usual, *read_too) if read_too and found.path != first.path]
    return [first, *(found for found in others if os.path.exists(found.path))]


def _base(place: Place, environ: Mapping[str, str], system: System) -> str:
    """The path that the place's file is relative to; empty if the place is not in use."""
    if variable := re.fullmatch(r"\$\{(\w+)\}", place.sign):
        value = environ.get(variable[1], "")
        return value if os.path.isabs(value) else ""
    if place.unless and os.path.exists(expand_path(place.unless, environ, system)):
        return ""
    sign = expand_path(place.sign, environ, system)
    if place.is_pointer:
        return _directory_named_in(sign)
    if "*" not in place.sign:
        return sign if os.path.exists(sign) else ""
    found = sorted(glob.glob(glob.escape(sign).replace("[*]", "*")))
    return next((base for base in found if os.path.exists(os.path.join(base, place.file))), "".join(found[:1]))


def _directory_named_in(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            named = file.readline(PATH_MAX_CHARACTERS).strip()
    except (OSError, ValueError):
        return ""
    return named if os.path.isabs(named) and os.path.isdir(named) else ""


def _at(client: Client, place: Place, base: str) -> Located:
    path = os.path.normpath(os.path.join(base, place.file))
    if not place.format:
        return Located(client, path)
    shape, project = place.shape or client.shape, place.project or client.project
    return Located(client._replace(format=place.format, shape=shape, project=project, initial_text=""), path)


def user_file(client: Client, environ: Mapping[str, str], system: System | None = None) -> str:
    """The path of the file for a new entry, whether or not it exists. Raises ConfigError."""
    return user_files(client, environ, system)[0].path


def is_redirected(path: str, base_prefix: str, system: System) -> bool:
    """Whether Windows gives the Python at `base_prefix` a copy of its own of the directory of this path.

    It does so for Python from the Microsoft Store: what that creates below AppData, no other program sees.
    """
    is_from_store = re.search(r"[\\/]WindowsApps[\\/]PythonSoftwareFoundation\.", base_prefix)
    return system == "windows" and bool(is_from_store) and "\\appdata\\" in path.lower().replace("/", "\\")
