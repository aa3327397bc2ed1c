"""Writes what documentation repeats: docs/actions.md from the table and docs/examples.json, docs/clients.md from what
`config` writes, docs/faults.md from the tests' rows, the README's list of tools, docs/platforms.md's of advisories.

With --check nothing is written; the exit status is 1 where something is out of step.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sikkerkey_mcp
from sikkerkey_cli import call
from tools import advisories, clients_page
from tools.clients import record
from tools.examples import ROOT
from tools.faults_page import faults_page

INTRO = """\
# Tools and actions

This page is generated from the dispatch table in `sikkerkey_mcp.py`; `make docs` rewrites it.

There are {tools} tools with {actions} actions. A tool is called with `action` and that action's arguments; `whoami`
alone has a single action and takes no `action`. No action returns the value of a stored secret.

- **Needs** are required, **may have** are optional. Where only certain combinations are allowed, the arguments' text
  says so. Anything else is refused before a request is sent; what is left out is not sent, what is empty is.
- **Scope** is what the vault's owner must have granted to the agent.
- **Effect**: *read* changes nothing and is repeated after a lost connection; *write* can be undone by another call;
  ***destructive*** removes something, replaces a whole set or widens access, so a client should ask its user first.
- **Answer**: a JSON object as text and as structured content. Exceptions: CSV text, a file, and actions that **mint** a
  credential, which the answer shows once and which is to be handed on.
- *inferred*: no public source shows this route. It follows the conventions of the others; not every vault offers it.
- An *id* is 1 to 128 letters, digits, `-` or `_`, as an earlier answer gave it.
- The examples were recorded from a run of every action against the local vault (`make record`); ids and times are
  replaced, of lists two items are shown, and long texts are cut. The hosted service may answer more.
"""

EFFECTS: dict[sikkerkey_mcp.Effect, str] = {"read": "read", "write": "write", "destructive": "***destructive***"}
ANSWERS: dict[sikkerkey_mcp.AnswerKind, str] = {"json": "JSON", "csv": "CSV text", "file": "a file"}
ACTION_HEAD = ("Action", "What it does", "Needs", "May have", "Scope", "Effect", "Answer")
ARGUMENT_HEAD = ("Argument", "Type", "Limits", "Meaning")

MARKS = "<!-- {0}:begin -->\n", "<!-- {0}:end -->"


def actions_page() -> str:
    """The whole of docs/actions.md."""
    intro = INTRO.format(tools=len(sikkerkey_mcp.TOOLS), actions=sum(len(tool.actions) for tool in sikkerkey_mcp.TOOLS))
    return "\n".join([intro, *(_section(tool) for tool in sikkerkey_mcp.TOOLS)])


def _section(tool: sikkerkey_mcp.Tool) -> str:
    parts = [f"## {tool.name}", tool.text, _table(ACTION_HEAD, [_action_cells(action) for action in tool.actions])]
    arguments = {arg.name: arg for action in tool.actions for arg in action.args}
    if arguments:
        parts.append(_table(ARGUMENT_HEAD, [_argument_cells(arg) for arg in arguments.values()]))
    return "\n\n".join([*parts, _examples(tool)]) + "\n"


def _examples(tool: sikkerkey_mcp.Tool) -> str:
    recorded = json.loads((ROOT / "docs" / "examples.json").read_bytes())
    lines = ["<details><summary>Example calls and answers</summary>", "", "```text"]
    for action in tool.actions:
        call = recorded[f"{tool.name}.{action.name}"]
        answer = call["answer"]
        lines += [f"-> {json.dumps(call['arguments'], ensure_ascii=False)}"]
        lines += [f"<- {answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)}", ""]
    return "\n".join([*lines[:-1], "```", "", "</details>"])


def _action_cells(action: sikkerkey_mcp.Action) -> list[str]:
    return [
        f"`{action.name}`",
        (action.long or action.text) + (" *inferred*" if action.inferred else ""),
        _names(action, required=True),
        _names(action, required=False),
        f"`{action.scope}`" if action.scope else "none",
        EFFECTS[action.effect],
        ANSWERS[action.answer] + (", **mints** a credential" if action.mints else ""),
    ]


def _names(action: sikkerkey_mcp.Action, *, required: bool) -> str:
    return ", ".join(f"`{arg.name}`" for arg in action.args if arg.required is required)


def _argument_cells(arg: sikkerkey_mcp.Arg) -> list[str]:
    return [f"`{arg.name}`", call.TYPES[arg.kind], "; ".join(call.limits(arg, "`")), arg.long or arg.text]


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |" for cells in lines)


def tool_list() -> str:
    """The lines between the README's markers: a tool each."""
    rows = [[f"`{tool.name}`", str(len(tool.actions)), tool.text] for tool in sikkerkey_mcp.TOOLS]
    return _table(("Tool", "Actions", "What it is for"), rows)


def client_list() -> str:
    """The lines between the README's markers: a client each, as docs/tested-clients.json keeps it."""
    return _table(record.HEAD, record.rows(record.load()))


def between(name: str, text: str, generated: str) -> str:
    """`text` with `generated` between the markers of that name, if it has them."""
    begin, end = (mark.format(name) for mark in MARKS)
    return re.sub(f"(?<={begin}).*?(?={end})", lambda _old: generated + "\n", text, flags=re.DOTALL)


def pages(root: Path) -> dict[Path, str]:
    """Each generated file below `root` and the text that it should have."""
    readme, platforms = root / "README.md", root / "docs" / "platforms.md"
    parts = (
        (readme, "tools", tool_list()),
        (readme, "clients", client_list()),
        (platforms, "advisories", advisories.accepted_at(advisories.load(), "macos-x86_64")),
    )
    wanted = {
        root / "docs" / "actions.md": actions_page(),
        root / "docs" / "clients.md": clients_page.page(),
        root / "docs" / "faults.md": faults_page(),
    }
    for path, name, generated in parts:
        if path.exists():
            wanted[path] = between(name, wanted.get(path) or path.read_text(encoding="utf-8"), generated)
    return wanted


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Runs the command line; the exit status."""
    stale = {
        path: text
        for path, text in pages(root).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    if arguments == ["--check"]:
        for path in stale:
            print(f"docs: {path.relative_to(root)} is out of step: `make docs` rewrites it", file=sys.stderr)
        return 1 if stale else 0
    for path, text in stale.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
