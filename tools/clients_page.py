"""docs/clients.md: a section for each client of the table, with the block that `config` writes."""

from __future__ import annotations

import posixpath

import sikkerkey_mcp
from sikkerkey_cli.clients import CLIENTS, Client, Place
from sikkerkey_cli.config import block_text

INTRO = """\
# Clients

This page says where each MCP client keeps its settings, and what `config` writes there. It is generated from the table
in `sikkerkey_cli/clients.py`; `make docs` rewrites it.

```sh
python3 sikkerkey-mcp.pyz config CLIENT            # prints the block and says where to add it
python3 sikkerkey-mcp.pyz config CLIENT --dry-run  # shows what --write would change, and changes nothing
python3 sikkerkey-mcp.pyz config CLIENT --write    # adds it to the client's own file
python3 sikkerkey-mcp.pyz config CLIENT --remove   # removes it
```

- **Changes are minimal.** Comments, order, indentation, line endings and the entries of other servers stay byte for
  byte, and `--remove` restores the bytes that were there, or deletes the file if `--write` created it and nothing else
  is in it. The file without the entry is kept beside the new one as `.sikkerkey.bak`, of which there is one. Where the
  file is a symbolic link, the backup is beside the link; where a directory on the way is one, it is in
  `~/.sikkerkey/backups`, because the target may be a repository. Like the file, it may contain the tokens of other
  servers.
- **Unclear files are refused**, with line and column, and stay unchanged: malformed files, files with constructs that
  the program does not support (YAML tags, several YAML documents, servers in an inline TOML table, duplicate keys),
  files of another user, files that another program is changing, and files in which another program has an entry named
  `sikkerkey`. In these cases, print the block and add it by hand.
- **Running it again** changes nothing if the entry is correct, and updates it if the archive was moved or another
  Python is used. What you added to the entry (`disabled`, `timeout`, `autoApprove`, variables in `env`) stays, and
  is named. The options of `serve` (`--read-only`, `--tools A,B`, `--exclude A,B`, `--split-reads`) are of the last
  run: repeat them to keep them.
- **A dry run** shows the changed lines without context. Text of other servers on a changed line is cut out, because it
  may be a token.
- **`--project`** uses the client's file in the project in the current directory. The entry contains paths of this
  computer, so do not commit the file or its `.sikkerkey.bak` to a shared repository. An entry that is already there may
  come from somebody else: `--write` refuses one with members or variables that could run something, send calls
  elsewhere, loosen the server or approve calls (`cwd`, `LD_PRELOAD`, `HTTPS_PROXY`, `alwaysAllow`, ...), and names
  them. It does not look at other entries of the file.
- **Several agents** get one entry each (`sikkerkey-` and the agent's name; short, because some clients drop tools with
  long names). `--agent ID` selects one. An agent that already has an entry keeps its key, and an entry of an agent that
  is gone becomes that of a new one, with its restrictions. Continue shows the model the tools of all servers by their
  bare names: give each further agent a prefix, with `--agent ID --prefix NAME`.
- **The agent is an argument** (`serve --agent ID`), because some clients do not pass on variables whose names look
  secret. `SIKKERKEY_HOME`, `SIKKERKEY_CA_BUNDLE`, `SIKKERKEY_CA_BUNDLE_ONLY`, `SIKKERKEY_VAULT_USER`,
  `SIKKERKEY_CACHE_DIR`, `SSL_CERT_FILE` and `SSL_CERT_DIR` are added to the entry if they are set when `config` runs.
  So are variables that restrict the server (`SIKKERKEY_READ_ONLY`, `SIKKERKEY_TOOLS`, `SIKKERKEY_EXCLUDE`,
  `SIKKERKEY_VALUES`, `SIKKERKEY_CONFIRM`, `SIKKERKEY_MAX_CALLS`, `SIKKERKEY_MAX_DESTRUCTIVE`); these are never removed
  from an entry.
- **The proxy.** `HTTPS_PROXY` and `NO_PROXY` are added as well, except for Claude Code, Gemini CLI and opencode, which
  pass them on from the terminal. An address with a password is never written to the file: `config` says so, and you can
  add it to the entry yourself. `--write` updates an entry's proxy if one is set, but neither removes it nor replaces
  one with a password.
- **The interpreter** is the absolute path of the Python that runs `config`. `-I` isolates it from the working directory
  and your own packages. `config` warns if it is in a virtual or conda environment, or belongs to uv, pyenv or
  Homebrew's Cellar, because deleting or upgrading that breaks the server.

In paths, `${{NAME:-PATH}}` is the value of the variable NAME if it is set, and PATH otherwise. For Claude Code, Codex,
Gemini CLI, opencode and Copilot CLI, the paths and variables were tested with the clients on Linux; the others are
taken from the clients' documentation.

## Approve reads only

Clients approve tools, not actions, and most tools contain reads and writes. If you approve `manage_secrets` so that the
assistant can list secrets without asking, it can also delete them. With `--split-reads`, the reads are in separate
tools, which are marked read-only. The other tools contain only actions that change something or create a credential:

```sh
python3 sikkerkey-mcp.pyz config CLIENT --split-reads --write
```

| | without the option | with `--split-reads` |
|---|---|---|
| tools | {usual} | {split} |
| list secrets | `manage_secrets`, action `list` | `read_secrets`, action `list` |
| delete a secret | `manage_secrets`, action `delete` | the same |

- **Claude Code** asks before each call of a tool that you have not allowed, even if the tool is read-only. To allow all
  reads, and nothing else, add the rules to `permissions.allow` in `~/.claude/settings.json`: {rules}.
- **Codex** runs read-only tools without asking, and asks for the others. `codex exec`, where it can ask nobody, refuses
  the others.
- A read that is called in the other tool (`manage_secrets`, action `list`) is refused with the name of the right tool.
  A read-only tool refuses all other actions.
- The option never changes which actions are offered. `--tools` and `--exclude` accept both names: `manage_secrets`
  means all of its actions, and `read_secrets` only its reads.
"""

NOTES = {
    "claude-code": (
        "The model sees names and instructions first, and loads a tool when it needs it.",
        "Results longer than 50,000 characters are stored in a file.",
        "The file also contains the history and is rewritten while the client runs: if `config` says that it was just"
        " changed, run it again.",
        "A project's `.mcp.json` must be approved once, in `claude`.",
        "`claude mcp add` without `-s user` adds servers below `projects` in the same file, which `config` ignores.",
    ),
    "claude-desktop": (
        "It reads the file only at startup: quit the application, not only its window.",
        "Python from the Microsoft Store cannot write this file, because Windows redirects it: `config` says so.",
    ),
    "cursor": (
        "It sends at most 40 tools from all servers together, and drops tools whose name and server name together"
        " exceed 60 characters.",
    ),
    "vscode": (
        "The member is `servers`, not `mcpServers`.",
        "Each profile but the default one has a file of its own: print the block, and add it with the command"
        " \"MCP: Open User Configuration\".",
        "In a window that is connected to WSL, to another computer or to a container, run `config` there, with an agent"
        " of that computer. It writes the file that \"MCP: Open Remote User Configuration\" opens.",
    ),
    "vscode-insiders": ("The notes on VS Code apply to it as well.",),
    "vscodium": ("The notes on VS Code apply to it as well.",),
    "codex": (
        "A server has 10 seconds to start; `startup_timeout_sec` in the table changes that, and `config` keeps it.",
        "It passes on only a short list of variables, those in `env`, and those that `env_vars` names. On Linux,"
        " `config` adds the ones that a program needs to open a browser; you can change that list.",
        "It keeps about 12,000 characters of a result.",
        "A project's file is used only if the project is trusted.",
        "`codex mcp list` does not start the server, so it cannot show whether it works; `doctor` does.",
        "Non-interactive sessions (`codex exec`) refuse every tool that is not read-only. `--split-reads` lets them use"
        " all reads. To allow all tools, approve them beforehand:"
        " `codex exec -c 'mcp_servers.sikkerkey.default_tools_approval_mode=\"approve\"'`.",
    ),
    "continue": (
        "Servers are a list of items with names. The model sees the text of results, but no instructions.",
        "A new `config.yaml` contains the members that Continue requires; add your models to it. With the older"
        " `config.json`, no `config.yaml` is created, because Continue would read it instead: the entry is in a file of"
        " its own, which the extensions read, but not `cn`.",
    ),
    "gemini": (
        "Servers do not inherit variables whose names contain KEY, TOKEN or SECRET, except those in `env`.",
        "It keeps the first 8,000 and the last 32,000 characters of a result.",
        "In an untrusted folder, `gemini mcp list` requires `GEMINI_CLI_TRUST_WORKSPACE=true`.",
    ),
    "opencode": (
        "If the file has `mcp.servers`, the form of version 2, the entry is added there. Version 2 reads both forms.",
        "Large results are stored in a file.",
    ),
    "copilot": (
        "`tools` lists the tools that are offered; `[\"*\"]` means all, and you can change it.",
        "`copilot mcp list` does not start the server, so it cannot show whether it works; `doctor` does.",
        "A project's file is used only in a trusted folder. It also reads `.mcp.json`, but entries for Claude Code"
        " differ.",
    ),
    "antigravity": ("The editor and the command line `agy` share the file.",),
    "devin": ("It was called Windsurf until June 2026, and then read another file: see below.",),
    "windsurf": (
        "Windsurf is called Devin Desktop since June 2026, and reads another file: see above.",
        "It offers at most 100 tools from all servers together.",
    ),
    "zed": ("The member is `context_servers`, in the same file as all other settings.",),
    "goose": ("`timeout` is in seconds. You can change it and `enabled`.",),
    "lm-studio": (),
    "kiro": ("You can set `disabled` and `autoApprove` in the entry.",),
    "warp": (
        "Of the members `mcp.servers`, `servers`, `mcpServers` and `mcp_servers`, it reads the first: the entry is"
        " added to that.",
        "Servers of a project are started only when you say so.",
    ),
    "generic": (
        "Add it where your client keeps its servers. Many use this shape; otherwise, use the command and arguments.",
    ),
}  # fmt: skip

EXAMPLE = {
    "command": "/usr/bin/python3",
    "args": ["-I", "/opt/sikkerkey-mcp.pyz", "serve", "--agent", "0f8fad5b-d9cb-469f-a165-70867728950e"],
}


def _intro() -> str:
    split = sikkerkey_mcp.split_reads(sikkerkey_mcp.TOOLS)
    read_only = [tool.name for tool in split if all(map(sikkerkey_mcp.is_harmless, tool.actions))]
    names = [name for name in read_only if not name.startswith("read_")] + ["read_*"]
    rules = " and ".join(f"`mcp__sikkerkey__{name}`" for name in names)
    return INTRO.format(usual=len(sikkerkey_mcp.TOOLS), split=len(split), rules=rules)


def page() -> str:
    """The whole page."""
    return "\n".join([_intro(), *(_section(name, client) for name, client in CLIENTS.items())])


def _section(name: str, client: Client) -> str:
    title = client.title[0].upper() + client.title[1:] if name == "generic" else client.title
    notes = [
        f"- {note}" for note in (*_places(client), f"To check that it works: {client.success_sign}.", *NOTES[name])
    ]
    block = block_text(client, {"sikkerkey": EXAMPLE}, "linux").rstrip("\n")
    verb, option = ("writes", " --write") if client.files else ("prints", "")
    intro = f"`config {name}{option}` {verb}"
    return "\n".join([f"## {title}", "", intro, "", f"```{client.format}", block, "```", "", *notes, ""])


def _places(client: Client) -> list[str]:
    if client.files is None:
        return []
    linux, macos, windows = client.files
    if linux == macos == windows:
        places = f"File: `{linux}`"
    elif linux == macos:
        places = f"File: on Linux and macOS `{linux}`, on Windows `{windows}`"
    else:
        places = f"File: on Linux `{linux}`, on macOS `{macos}`, on Windows `{windows}`"
    others = [_place(place) for place in client.places]
    return [f"{places}.", *others, *([f"With `--project`: `{client.project}`."] if client.project else [])]


def _place(place: Place) -> str:
    file = posixpath.normpath(posixpath.join("FIRST LINE" if place.is_pointer else place.sign, place.file))
    condition = f"`{place.sign}` " + ("is set" if place.sign.endswith("}") else "exists")
    condition += f" and `{place.unless}` does not" if place.unless else ""
    found = " An entry that is in one of the files already is changed there." if place.read_too else ""
    return f"Where {condition}, the file is `{file}`.{found}"
