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

- **Minimal changes.** `config` keeps comments, order, indentation, line endings and the entries of other servers byte
  for byte. `--remove` restores the original bytes. If `--write` created the file and it contains nothing else,
  `--remove` deletes it.
- **One backup.** `--write` saves the file without the entry as `.sikkerkey.bak`, in the same directory. If the file is
  a symbolic link, the backup is beside the link. If one of its directories is a symbolic link, the backup is in
  `~/.sikkerkey/backups`, because the target may be a repository. Like the file, the backup may contain the tokens of
  other servers.
- **Refused files.** `config` does not change a file if it is malformed, belongs to another user, is being changed by
  another program, has an entry named `sikkerkey` that another program wrote, or contains something that `config` does
  not support (YAML tags, several YAML documents, servers in an inline TOML table, duplicate keys). For a malformed
  file, the error names the line and column. In these cases, print the block and add it by hand.
- **Running it again** changes nothing if the entry is correct. If you moved the archive or use another Python, it
  updates the entry. It keeps and lists what you added (`disabled`, `timeout`, `autoApprove`, variables in `env`). It
  does not keep the options of `serve` (`--read-only`, `--tools A,B`, `--exclude A,B`, `--split-reads`): repeat them.
- **A dry run** shows the changed lines without context. It omits text of other servers on a changed line, because that
  may be a token.
- **`--project`** uses the client's file in the project in the current directory. The entry contains paths of this
  computer, so do not commit the file or its `.sikkerkey.bak` to a shared repository. Somebody else may have written an
  entry that is already there: `--write` refuses to keep members or variables that could run something, send calls
  elsewhere, loosen the server or approve calls (`cwd`, `LD_PRELOAD`, `HTTPS_PROXY`, `alwaysAllow`, ...), and names
  them. It does not check other entries of the file.
- **Several agents** get one entry each, named `sikkerkey-` and the agent's name; long names are shortened, because some
  clients drop tools with long names. `--agent ID` selects one agent. An agent that already has an entry keeps its name
  for it. If an entry's agent no longer exists, a new agent takes over the entry and its restrictions. Continue shows
  the model the tools of all servers by their bare names: give each further agent a prefix, with
  `--agent ID --prefix NAME`.
- **The agent is an argument** (`serve --agent ID`), because some clients do not pass on variables whose names look
  secret.
- **Variables.** `config` adds `SIKKERKEY_HOME`, `SIKKERKEY_CA_BUNDLE`, `SIKKERKEY_CA_BUNDLE_ONLY`,
  `SIKKERKEY_VAULT_USER`, `SIKKERKEY_CACHE_DIR`, `SSL_CERT_FILE` and `SSL_CERT_DIR` to the entry if they are set. It
  also adds variables that restrict the server (`SIKKERKEY_READ_ONLY`, `SIKKERKEY_TOOLS`, `SIKKERKEY_EXCLUDE`,
  `SIKKERKEY_VALUES`, `SIKKERKEY_CONFIRM`, `SIKKERKEY_MAX_CALLS`, `SIKKERKEY_MAX_DESTRUCTIVE`), and never removes these.
- **The proxy.** `config` also adds `HTTPS_PROXY` and `NO_PROXY`, except for Claude Code, Gemini CLI and opencode, which
  pass them on from the terminal. It never writes an address with a password to the file: it says so, and you can add
  the address to the entry yourself. `--write` updates an entry's proxy if one is set. It does not remove a proxy, or
  replace one that has a password.
- **The interpreter** is the absolute path of the Python that runs `config`. `-I` isolates it from the working directory
  and your own packages. `config` warns if it is in a virtual or conda environment, or belongs to uv, pyenv or
  Homebrew's Cellar, because the server stops working when that is deleted or upgraded.

In paths, `${{NAME:-PATH}}` is the value of the variable NAME if it is set, and PATH otherwise. For Claude Code, Codex,
Gemini CLI, opencode and Copilot CLI, the paths and variables were tested with the clients on Linux; the others are
from the clients' documentation.

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
| delete a secret | `manage_secrets`, action `delete` | `manage_secrets`, action `delete` |

- **Claude Code** asks before each call of a tool that you have not allowed, even if the tool is read-only. To allow all
  reads, and nothing else, add these rules to `permissions.allow` in `~/.claude/settings.json`: {rules}.
- **Codex** runs read-only tools without asking, and asks for the others. `codex exec` cannot ask, and refuses the
  others.
- `manage_secrets` refuses its reads, such as `list`, and names the right tool. A read-only tool refuses all other
  actions.
- The option never changes which actions are offered. `--tools` and `--exclude` accept both names: `manage_secrets`
  means all of its actions, and `read_secrets` only its reads.
"""

NOTES = {
    "claude-code": (
        "The model first sees only the names of tools and the instructions, and loads a tool when it needs it.",
        "Results longer than 50,000 characters are stored in a file.",
        "The file also contains the history, and the client rewrites it while it runs: if `config` says that the file"
        " was just changed, run `config` again.",
        "You must approve a project's `.mcp.json` once, in `claude`.",
        "`claude mcp add` without `-s user` adds servers below `projects` in the same file. `config` ignores these.",
    ),
    "claude-desktop": (
        "It reads the file only when it starts: quit the application, do not only close its window.",
        "Python from the Microsoft Store cannot write this file, because Windows redirects it: `config` says so.",
    ),
    "cursor": (
        "It sends at most 40 tools from all servers together, and drops tools whose name and server name together"
        " exceed 60 characters.",
    ),
    "vscode": (
        "The member is called `servers`, not `mcpServers`.",
        "Each profile except the default one has its own file: print the block, and add it with the command"
        " \"MCP: Open User Configuration\".",
        "If a window is connected to WSL, another computer or a container, run `config` there, with an agent of that"
        " computer. It writes the file that \"MCP: Open Remote User Configuration\" opens.",
    ),
    "vscode-insiders": ("The notes on VS Code also apply here.",),
    "vscodium": ("The notes on VS Code also apply here.",),
    "codex": (
        "A server has 10 seconds to start; `startup_timeout_sec` in the table changes that, and `config` keeps it.",
        "It passes on only a short list of variables, those in `env`, and those that `env_vars` names. On Linux,"
        " `config` adds the variables that a program needs to open a browser to `env_vars`; you can change that list.",
        "It keeps about 12,000 characters of a result.",
        "It uses a project's file only if the project is trusted.",
        "`codex mcp list` does not start the server, so it cannot show whether it works; `doctor` does.",
        "Non-interactive sessions (`codex exec`) refuse every tool that is not read-only. `--split-reads` lets them use"
        " all reads. To allow all tools, approve them beforehand:"
        " `codex exec -c 'mcp_servers.sikkerkey.default_tools_approval_mode=\"approve\"'`.",
    ),
    "continue": (
        "Servers are a list of items with names. The model sees the text of results, but no instructions.",
        "If `config` creates `config.yaml`, the file contains the members that Continue requires; add your models to"
        " it. If you have the older `config.json`, `config` does not create a `config.yaml`, because Continue would"
        " read that instead. It writes the entry to a separate file, which the extensions read and `cn` does not.",
    ),
    "gemini": (
        "Servers do not inherit variables whose names contain KEY, TOKEN or SECRET, except those in `env`.",
        "It keeps the first 8,000 and the last 32,000 characters of a result.",
        "In an untrusted folder, `gemini mcp list` requires `GEMINI_CLI_TRUST_WORKSPACE=true`.",
    ),
    "opencode": (
        "If the file contains `mcp.servers`, the form of version 2, `config` adds the entry there. Version 2 reads both"
        " forms.",
        "Large results are stored in a file.",
    ),
    "copilot": (
        "`tools` lists the tools that the model gets. `[\"*\"]` means all of them; you can change it.",
        "`copilot mcp list` does not start the server, so it cannot show whether it works; `doctor` does.",
        "It uses a project's file only in a trusted folder. It also reads `.mcp.json`, but entries for Claude Code"
        " are different.",
    ),
    "antigravity": ("The editor and the command line `agy` share the file.",),
    "devin": ("Until June 2026, it was called [Windsurf](#windsurf) and read another file.",),
    "windsurf": (
        "Since June 2026, Windsurf is called [Devin Desktop](#devin-desktop) and reads another file.",
        "It offers at most 100 tools from all servers together.",
    ),
    "zed": ("The member is called `context_servers`, in the same file as all other settings.",),
    "goose": ("`timeout` is in seconds. You can change it and `enabled`.",),
    "lm-studio": (),
    "kiro": ("You can set `disabled` and `autoApprove` in the entry.",),
    "warp": (
        "It reads the first of the members `mcp.servers`, `servers`, `mcpServers` and `mcp_servers` that the file has."
        " `config` adds the entry there.",
        "It starts the servers of a project only when you tell it to.",
    ),
    "generic": (
        "Add the block where your client keeps its servers. Many clients use this form; for others, use the command and"
        " the arguments.",
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
    rules = ", ".join(f"`mcp__sikkerkey__{name}`" for name in names[:-1]) + f" and `mcp__sikkerkey__{names[-1]}`"
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
    intro = f"`config {name}{option}` {verb}:"
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
    found = " If one of the files already has an entry, `config` changes that one." if place.read_too else ""
    return f"If {condition}, the file is `{file}`.{found}"
