"""Generates documentation from the code.

- docs/actions.md: the table of actions, with the calls recorded in docs/examples.json
- docs/clients.md: the clients' table
- docs/client-dialogs.md: what people see, from docs/tested-clients.json
- docs/faults.md: the rows of the fault tests
- docs/tested-clients.md: the results of the last trials, from docs/tested-clients.json and docs/set-ups.json
- docs/requests.md: what the requests of people cost a model, from docs/requests.json
- README.md: the list of tools, the clients that were tested; docs/badges/clients/: a badge for each of them
- docs/mcp.md: the protocol revisions that clients use
- docs/platforms.md: the accepted advisories

With --check it writes nothing and exits with status 1 if a file is out of date.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sikkerkey_actions
import sikkerkey_mcp
from sikkerkey_cli import tools as cli_tools
from tools import advisories, clients_page
from tools.clients import asking, record, set_ups
from tools.examples import ROOT
from tools.faults_page import faults_page
from tools.user_requests.page import page as requests_page

INTRO = """\
# Tools and actions

This page lists every action that an assistant can call, with its arguments, limits, scope and an example. It is
generated from the dispatch table in `sikkerkey_mcp.py`; `make docs` rewrites it.

There are {tools} tools with {actions} actions. Call a tool with `action` and the arguments of that action. `whoami` has
a single action and takes no `action` argument. No action returns the value of a stored secret.

- **Required** and **Optional** list an action's arguments. If only some combinations are allowed, the descriptions of
  the arguments say which. The server refuses any other argument before it sends a request. It does not send arguments
  that you omit; it does send empty ones.
- `search`, `limit` and `offset` select rows of a list: see [Results](protocol.md#results).
- **Scope** is the permission that the vault's owner must grant to the agent.
- **Effect**: a *read* changes nothing, and the server retries it after a lost connection. Another call can undo a
  *write*. A ***destructive*** action removes something, replaces a whole set or widens access: clients should ask the
  user first.
- **Result** is a JSON object, as text and as structured content, except for actions that return CSV text or a file. An
  action that **mints** a credential shows it once, in its result, for you to pass on.
- *looks first*: before the write, the server reads the objects that it affects, with the agent's scopes, to refuse a
  mistake or to add a `notice` to the answer. Restrictions such as `--exclude` do not apply to these reads. If the vault
  refuses them, the server sends the write anyway.
- *inferred*: no public source documents this route. It follows the conventions of the other routes, and some vaults do
  not offer it.
- *confirmed*: a person must confirm the call. For some actions, this applies only to calls that widen access or turn
  off an alarm: see [Values typed by a person, and confirmations](person.md).
- *own*: SikkerKey has no such action. The server answers it from many reads, each of which needs its own scope (see
  [Reviews](reviews.md)), or from what people did (`await_person`).
- An *id* is 1 to 128 letters, digits, `-` or `_`. Take ids from earlier results.
- The examples are recorded from real calls to the local vault (`make record`). Ids and times are replaced, lists are
  cut to two items, and long texts are shortened. The hosted service may return more.
"""

TESTED_CLIENTS_INTRO = """\
# Tested clients

This page lists the clients that were tested, their versions and the results. It is generated from
`docs/tested-clients.json`; `make test-clients` updates the results, `make docs` the page.

`make test-clients` downloads the clients and gives each one an empty home directory and a local vault. A scripted model
drives the assistants; a small program drives the SDKs. Each makes five calls: `whoami`, create a project, create a
secret in it, list the secrets, and a call with an invalid id, which must be refused. The SDKs also list and read the
resources. Claude Code and Codex get a second session with `--split-reads`, in which only reads are approved: the model
calls every tool, and only calls of approved tools may reach the server.

The trial compares what the client received with what the server sent and what the vault stores. The secret's value must
be in the vault and must not come back. On Linux, the trial runs in a network namespace that contains only loopback.
"""

PEOPLE = """\

## What people are asked

In a separate session (`make test-clients PEOPLE=1`), the model creates a secret whose value a person types, and a
one-time link that only a person may see. Then it deletes two projects. Claude Code, Codex and Copilot CLI run in a
terminal (tmux). Scripted key presses, and a program in place of the browser, play the person. All six assistants also
run without a terminal: there, the person runs the commands from the server's answers in another terminal.

The vault must store exactly what was typed. A deletion that was not confirmed must not be sent. The page must show the
same code as the dialog. The value, the link and its passphrase must not appear in a request to the model, a message of
the server, a file, the output or the screen of the client. The value must not appear in a command line either, nor the
page's address in a request to the model. Where the server opens the page, as for Codex, the address must not be in the
browser's command line.

*Asked after* is the time from the model's call to the dialog, or to the answer with the command. *Result after* is the
time from the person's last key, or from the submission of the page, until the model receives the result. Claude Code
waits until the person chooses *I'm done, continue*, which takes 1.5 s here. [What people see](client-dialogs.md) shows
the dialogs.
"""

DIALOGS = """\
# What people see

This page shows what people see in each client when a call needs them. It is generated from `docs/tested-clients.json`;
`make test-clients` updates the dialogs, `make docs` the page. [Tested clients](tested-clients.md) says how the dialogs
were recorded; [Values typed by a person, and confirmations](person.md) says what they mean. Ids, ports, addresses and
codes are replaced, and blank lines are left out.

"""

LONG_LISTS = """\

## Long lists

In another session, the assistants use a vault with 5,000 secrets in one project, 2,000 machines and 10,000 audit
entries. The model asks for each list, follows `next` twice, and jumps to the last rows with `offset`. Each page must
reach the model exactly as the server sent it, with the right total, and the last page must end with the last row.

The table shows how many of the rows in the server's first answer reached the model. *Before* is the same session with
the server of commit 087dd8d, which did not limit results: secrets and machines came in one result, and the audit log in
pages of 50 entries. [bench/LISTS.md](../bench/LISTS.md) has the lengths of all lists.
"""

SET_UPS = """\

## Broken set-ups

`make test-clients SET_UPS=now` breaks the set-up of each assistant in sixteen ways, after `config --write`. The model
calls `whoami`, if the client shows it. The first table shows how many tools the model saw, and whether the call's
result or the instructions told it the cause. The second table adds what the client's `mcp list` prints, if that command
starts the server. No client prints what the server writes to stderr: people learn the cause from the assistant, or from
`doctor`. *Before* is the server of commit 087dd8d (`make test-clients SET_UPS=before`).

In these trials, a wrapper around the interpreter sets the variables and options that the entry would contain. It also
reports an old version, to imitate an interpreter that is too old.
"""

EFFECTS: dict[sikkerkey_mcp.Effect, str] = {"read": "read", "write": "write", "destructive": "***destructive***"}
ANSWERS: dict[sikkerkey_actions.AnswerKind, str] = {"json": "JSON", "csv": "CSV text", "file": "a file"}
ACTION_HEAD = ("Action", "What it does", "Required", "Optional", "Scope", "Effect", "Result")
ARGUMENT_HEAD = ("Argument", "Type", "Limits", "Meaning")
NOT_RECORDED = "(not recorded yet: `make record`)"

MARKERS = "<!-- {0}:begin -->\n", "<!-- {0}:end -->"


def actions_page() -> str:
    """The text of docs/actions.md."""
    intro = INTRO.format(tools=len(sikkerkey_mcp.TOOLS), actions=action_count())
    recorded = json.loads((ROOT / "docs" / "examples.json").read_bytes())
    return "\n".join([intro, *(_section(tool, recorded) for tool in sikkerkey_mcp.TOOLS)])


def action_count() -> int:
    """The number of actions in the table."""
    return sum(len(tool.actions) for tool in sikkerkey_mcp.TOOLS)


def _section(tool: sikkerkey_mcp.Tool, recorded: dict[str, Any]) -> str:
    parts = [f"## {tool.name}", tool.text, _table(ACTION_HEAD, [_action_cells(action) for action in tool.actions])]
    arguments = {arg.name: arg for action in tool.actions for arg in action.args}
    if arguments:
        parts.append(_table(ARGUMENT_HEAD, [_argument_cells(arg) for arg in arguments.values()]))
    return "\n\n".join([*parts, examples(tool, recorded)]) + "\n"


def examples(tool: sikkerkey_mcp.Tool, recorded: dict[str, Any]) -> str:
    """A tool's example calls. `recorded` maps "tool.action" to its arguments and answer; a new action has none yet."""
    lines = ["<details><summary>Example calls and results</summary>", "", "```text"]
    for action in tool.actions:
        call = recorded.get(f"{tool.name}.{action.name}")
        if call is None:
            lines += [f"{action.name}: {NOT_RECORDED}", ""]
            continue
        answer = call["answer"]
        lines += [f"-> {json.dumps(call['arguments'], ensure_ascii=False)}"]
        lines += [f"<- {answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)}", ""]
    return "\n".join([*lines[:-1], "```", "", "</details>"])


def _marks(action: sikkerkey_mcp.Action) -> list[tuple[str, bool]]:
    confirmed = ("confirmed", bool(action.warning))
    return [("looks first", action.look is not None), confirmed, ("inferred", action.inferred), ("own", action.own)]


def _action_cells(action: sikkerkey_mcp.Action) -> list[str]:
    return [
        f"`{action.name}`",
        action.text + "".join(f" *{mark}*" for mark, holds in _marks(action) if holds),
        _names(action, required=True),
        _names(action, required=False),
        f"`{action.scope}`" if action.scope else "various" if action.own else "none",
        EFFECTS[action.effect],
        ANSWERS[action.answer] + (", **mints** a credential" if action.mints else ""),
    ]


def _names(action: sikkerkey_mcp.Action, *, required: bool) -> str:
    return ", ".join(f"`{arg.name}`" for arg in action.args if arg.required is required)


def _argument_cells(arg: sikkerkey_mcp.Arg) -> list[str]:
    limits = "; ".join(cli_tools.limits(arg, "`"))
    return [f"`{arg.name}`", cli_tools.TYPES[arg.kind], limits, cli_tools.describe(arg)]


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |" for cells in lines)


def tool_list() -> str:
    """The README's list of tools, with their number and that of the actions."""
    rows = [[f"`{tool.name}`", str(len(tool.actions)), tool.text] for tool in sikkerkey_mcp.TOOLS]
    table = _table(("Tool", "Actions", "What it is for"), rows)
    return f"The assistant gets {len(rows)} tools with {action_count()} actions:\n\n{table}"


def tested_clients_page() -> str:
    """The text of docs/tested-clients.md, from docs/tested-clients.json and docs/set-ups.json."""
    outcomes = record.load()
    clients, lists = record.rows(outcomes), record.shown_rows(outcomes)
    seen = set_ups.load()
    parts = [TESTED_CLIENTS_INTRO, _table(record.HEAD, clients), PEOPLE, _table(asking.HEAD, asking.rows(_people()))]
    parts += [LONG_LISTS, _table(record.SHOWN_HEAD, lists)]
    parts += [SET_UPS, _table(set_ups.HEAD, set_ups.rows(seen))]
    return "\n".join([*parts, "", _table(set_ups.CLIENT_HEAD, set_ups.client_rows(seen)), ""])


def _people() -> dict[str, list[asking.Seen]]:
    """What people were asked, by client."""
    return {it.client: [asking.Seen(**row) for row in it.people] for it in record.load() if it.people}


def revision_list() -> str:
    """The README's list of protocol revisions with the tested clients that chose them, newest first."""
    tried: dict[str, list[str]] = {}
    for outcome in record.load():
        if outcome.protocol:
            tried.setdefault(outcome.protocol, []).append(outcome.client)
    rows = [[revision, ", ".join(clients)] for revision, clients in sorted(tried.items(), reverse=True)]
    return _table(("Protocol revision", "Tested clients that use it"), rows)


def badge(name: str, value: str) -> str:
    """A badge as SVG: two words or phrases side by side."""
    left, right = (14 + 6.6 * len(text) for text in (name, value))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{left + right:g}" height="20" role="img">
<title>{name}: {value}</title>
<rect width="{left + right:g}" height="20" rx="3" fill="#2c6e49"/>
<path d="M3 0h{left - 3:g}v20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" fill="#333"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{left / 2:g}" y="14">{name}</text>
<text x="{left + right / 2:g}" y="14">{value}</text>
</g>
</svg>
"""


def client_badges() -> dict[str, tuple[str, str, str]]:
    """The file name, the client and its version, for each client whose last trial passed."""
    return {
        f"{outcome.client.lower().replace(' ', '-')}.svg": (outcome.client, outcome.version, outcome.date)
        for outcome in record.load()
        if outcome.outcome == "passed"
    }


def client_list() -> str:
    """The README's line of badges."""
    badges = client_badges().items()
    return " ".join(f"![{client} {version}](docs/badges/clients/{name})" for name, (client, version, _) in badges)


def between(name: str, text: str, generated: str) -> str:
    """Replaces the text between the markers called `name` with `generated`; without such markers, `text` as it is."""
    begin, end = (marker.format(name) for marker in MARKERS)
    return re.sub(f"(?<={begin}).*?(?={end})", lambda _found: generated + "\n", text, flags=re.DOTALL)


def pages(root: Path) -> dict[Path, str]:
    """Maps each generated file below `root` to the text that it should have."""
    readme, platforms = root / "README.md", root / "docs" / "platforms.md"
    parts = (
        (readme, "tools", tool_list()),
        (readme, "clients", client_list()),
        (root / "docs" / "mcp.md", "revisions", revision_list()),
        (platforms, "advisories", advisories.accepted_at(advisories.load(), "macos-x86_64")),
    )
    expected = {
        root / "docs" / "actions.md": actions_page(),
        root / "docs" / "client-dialogs.md": f"{DIALOGS}{asking.dialogs(_people()).rstrip()}\n",
        root / "docs" / "clients.md": clients_page.page(),
        root / "docs" / "faults.md": faults_page(),
        root / "docs" / "requests.md": requests_page(ROOT / "docs" / "requests.json"),
        root / "docs" / "tested-clients.md": tested_clients_page(),
        **{
            root / "docs" / "badges" / "clients" / name: badge(client, version)
            for name, (client, version, _) in client_badges().items()
        },
    }
    for path, name, generated in parts:
        if path.exists():
            expected[path] = between(name, expected.get(path) or path.read_text(encoding="utf-8"), generated)
    return expected


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Runs the command line and returns the exit status."""
    stale = {
        path: text
        for path, text in pages(root).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    if arguments == ["--check"]:
        for path in stale:
            print(f"docs: {path.relative_to(root)} is out of date: run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for path, text in stale.items():
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
