"""docs/clients.md: a section for each client of the table, with the block that the program itself writes."""

from __future__ import annotations

from sikkerkey_cli.clients import CLIENTS, Client
from sikkerkey_cli.config import block_text

INTRO = """\
# Clients

This page is generated from the clients' table in `sikkerkey_cli/clients.py`; `make docs` rewrites it.

```sh
python3 sikkerkey-mcp.pyz config CLIENT            # prints the block and says where it belongs
python3 sikkerkey-mcp.pyz config CLIENT --dry-run  # shows what --write would change, and changes nothing
python3 sikkerkey-mcp.pyz config CLIENT --write    # puts it into the client's own file
python3 sikkerkey-mcp.pyz config CLIENT --remove   # takes it out again
```

- **What is changed** is the smallest span of the file: comments, order, indentation, line ends and the entries of
  other servers stay as they are, and `--remove` gives back the bytes that were there. What was there is also kept
  beside the file as `.bak`, `.bak.2` and so on; none of these is ever overwritten, and they may hold other servers'
  tokens, as the file does.
- **What is refused**, with line and column and without touching the file: a file that is malformed or more than the
  program can judge (YAML with anchors or several documents, servers in one inline table of TOML, a key that stands
  twice), one that belongs to another user, one that another program changes at that moment, and an entry of our name
  that starts something else. Then print the block and put it in by hand.
- **Running it again** changes nothing if the entry is right, and puts it right if the archive has moved or Python is
  another. What you added to the entry (`disabled`, `timeout`, `autoApprove`, variables in `env`) stays. Switches
  (`--read-only`, `--tools A,B`, `--exclude A,B`) are those of the last run: give them again to keep them.
- **A dry run** shows changed lines without their neighbours, and cuts out what others have on a line that changes,
  since that may be a token.
- **`--project`** uses the file of the project in the current directory, where the client has one. It names the
  archive and Python of this computer, and is not for a shared repository; nor is its `.bak`.
- **Several agents** get an entry each (`sikkerkey-` and the beginning of the id; short, because some clients drop
  tools with long names), or `--agent ID` picks one. An agent that has an entry keeps it, whatever you have called it.
- **The agent is an argument** (`serve --agent ID`), since some clients do not pass on variables whose names look
  secret. `SIKKERKEY_HOME`, `SIKKERKEY_CA_BUNDLE` and `SIKKERKEY_CACHE_DIR`, if they are set when `config` runs, go
  into the entry.
- **The interpreter** is the one that ran `config`, by its absolute path, and `-I` keeps the working directory and
  your own packages away from it. If it lies in a virtual environment, `config` says so: with that, the server would
  be gone.

In paths, `${NAME:-PATH}` is the variable NAME if it is set, and else PATH. Of Claude Code, Codex, Gemini CLI,
opencode and Copilot CLI the files, the projects' files and the variables were tried with the clients themselves on
Linux; the rest is what the clients' documentation says.
"""

NOTES = {
    "claude-code": (
        "The model sees names and instructions first and loads a tool when it wants it.",
        "Results of more than 50,000 characters go to a file.",
        "The file also holds its history and is rewritten while it runs: if `config` says that it was changed just now,"
        " run it again.",
        "A project's `.mcp.json` has to be approved once, in `claude`.",
        "What `claude mcp add` adds without `-s user` stands below `projects` in the same file, where `config` does not"
        " look.",
    ),
    "claude-desktop": ("It reads the file when it starts: quit it, not only its window.",),
    "cursor": (
        "It sends at most 40 tools, over all servers, and drops those whose name and server's name exceed 60"
        " characters.",
    ),
    "vscode": ("The member is `servers`, not `mcpServers`.",),
    "codex": (
        "A server has 10 seconds to start; `startup_timeout_sec` in the table changes that, and is kept.",
        "It passes a short list of variables on, and those in `env`.",
        "It keeps about 12,000 characters of a result.",
        "A project's file counts only where the project is trusted.",
        "`codex mcp list` does not start the server and says nothing about it; `doctor` does.",
        "A session without a person (`codex exec`) refuses every tool that is not read-only, unless the server's entry"
        " allows it: `codex exec -c 'mcp_servers.sikkerkey.default_tools_approval_mode=\"approve\"'`.",
    ),
    "continue": (
        "Servers are a list of items with names. The model sees the text of results, and no instructions.",
        "A new `config.yaml` gets the members that Continue insists on; add your models to it.",
    ),
    "gemini": (
        "It takes variables whose names contain KEY, TOKEN or SECRET out of what servers inherit; those in `env` reach"
        " them.",
        "It keeps the first 8,000 and the last 32,000 characters of a result.",
        "In a folder that is not trusted, `gemini mcp list` wants `GEMINI_CLI_TRUST_WORKSPACE=true`.",
    ),
    "opencode": (
        "Where there is an `opencode.jsonc` beside it, that one is changed.",
        "Large results go to a file.",
    ),
    "copilot": (
        "`tools` says which tools are offered; `[\"*\"]` is all of them, and yours to change.",
        "`copilot mcp list` does not start the server and says nothing about it; `doctor` does.",
        "A project's file counts only in a trusted folder. It reads `.mcp.json` too, which is left to Claude Code,"
        " whose entries differ.",
    ),
    "windsurf": ("It offers at most 100 tools, over all servers.",),
    "zed": ("The member is `context_servers`, in the same file as all other settings, with its comments.",),
    "goose": ("`timeout` is in seconds and yours to change, as `enabled` is.",),
    "lm-studio": (),
    "kiro": ("`disabled` and `autoApprove` in the entry are yours.",),
    "warp": (),
    "generic": ("Put it where your client keeps its servers. Many take this shape; the command is what matters.",),
}  # fmt: skip

EXAMPLE = {
    "command": "/usr/bin/python3",
    "args": ["-I", "/opt/sikkerkey-mcp.pyz", "serve", "--agent", "0f8fad5b-d9cb-469f-a165-70867728950e"],
}


def page() -> str:
    """The whole page."""
    return "\n".join([INTRO, *(_section(name, client) for name, client in CLIENTS.items())])


def _section(name: str, client: Client) -> str:
    title = client.title[0].upper() + client.title[1:] if name == "generic" else client.title
    notes = [f"- {note}" for note in (*_places(client), f"To see that it works: {client.success_sign}.", *NOTES[name])]
    block = block_text(client, {"sikkerkey": EXAMPLE}).rstrip("\n")
    command = f"`config {name}{' --write' if client.files else ''}`"
    return "\n".join([f"## {title}", "", f"{command} gives", "", f"```{client.format}", block, "```", "", *notes, ""])


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
    return [f"{places}.", *([f"With `--project`: `{client.project}`."] if client.project else [])]
