"""Measures how long the results of all list actions are, with few and with many rows, and writes bench/LISTS.md.

    .venv/bin/python -m bench.lists [--before ARCHIVE]

The archive answers from a local vault in which every list that grows with the vault has the same number of rows. The
figures of `tools/list` are bytes, all others characters of the text that a client passes on to the model. With
--before, the figures of an older archive are measured instead; they are kept in bench/lists.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import sikkerkey_mcp
import sikkerkey_results
from bench.client import ARCHIVE, FLAGS, INITIALIZE, INITIALIZED, LIST, Server, call_line
from bench.report import table
from sikkerkey_mcp import Action, Tool
from tests.support import large_vault
from tests.support.harness import AGENT_ID, make_slot
from tests.support.local_vault import LocalVault
from vault.domains import agents
from vault.router import wall_clock
from vault.schema import open_store

HERE = Path(__file__).resolve().parent
FIGURES, PAGE = HERE / "lists.json", HERE / "LISTS.md"
ROWS = (60, 500, 5_000)
WHEN = ("before", "now")
TOOLS_BEFORE = 18
LISTING = "tools/list"
IDS = {
    "projectId": large_vault.PROJECT,
    "secretId": large_vault.identifier("sk_", 0),
    "machineId": large_vault.uuid(0),
    "agentId": large_vault.uuid(0),
    "policyId": large_vault.identifier("pol_", 0),
    "memberId": large_vault.identifier("mem_", 0),
    "ticketId": large_vault.identifier("tk_", 0),
    "tokenId": large_vault.identifier("enr_", 0),
}
DECOYS = {"projectId": large_vault.DECOYS}
OTHERS: dict[str, dict[str, Any]] = {
    "manage_policies.list": DECOYS,
    "manage_policies.get": DECOYS,
    "manage_canaries.list": DECOYS,
    "review.find": {"name": "SERVICE"},
    "review.access": {"machine": large_vault.uuid(0)},
    "review.reads": {"machine": large_vault.uuid(0)},
}

Figures = dict[str, dict[str, int]]  # for each number of rows as text, the length of each result

TEXT = """\
# Lengths of lists

`.venv/bin/python -m bench.lists` writes this page.

The table shows how many characters of each list a model receives, by the number of rows that the vault has. The calls
have no arguments except the required ones. *Before* is the server of commit 087dd8d, whose results had no limit. Now a
result has at most {limit:,} characters, and `next` leads to the other rows.

{table}

- `manage_secrets.dynamic_list` lists rotation schedules. The vault's pages have 50 entries of the audit log, 20 tickets
  or 50 machines of a project, and its name histories 100 names.
- Alert actions, categories and SDKs do not grow with the vault.
- `review` asks at most 5,000 questions. With 5,000 projects, it needs more: `coverage` says how far it got, and `reads`
  refuses and asks for a smaller part.
- `tools/list` has {now:,} bytes with {tools} tools. Before, it had {before:,} bytes with {tools_before} tools.
"""


def list_actions() -> list[tuple[Tool, Action]]:
    """The actions that return pages of a list."""
    return [
        (tool, action)
        for tool in sikkerkey_mcp.TOOLS
        for action in tool.actions
        if any(arg.name == "offset" for arg in action.args)
    ]


def arguments(tool: Tool, action: Action) -> dict[str, Any]:
    """The required arguments, and the action. Raises KeyError if a required argument is not in IDS."""
    given = OTHERS.get(f"{tool.name}.{action.name}", {})
    required = [arg.name for arg in action.args if arg.required and arg.name not in given]
    return {"action": action.name, **{name: IDS[name] for name in required}, **given}


def measure(archive: Path, rows: int) -> dict[str, int]:
    """The length of each result with this number of rows; an action that the archive lacks is left out."""
    found: dict[str, int | None] = {}
    with tempfile.TemporaryDirectory() as name:
        vault = LocalVault(Path(name) / "vault")
        try:
            with open_store(vault.directory) as store, store.transaction() as db:
                large_vault.fill_every_list(db, rows, wall_clock())
            with _served(archive, vault, Path(name) / "home", AGENT_ID) as server:
                found[LISTING] = len(server.request(LIST))
                for tool, action in list_actions():
                    if tool.name != "review":
                        found[f"{tool.name}.{action.name}"] = _length(server, tool, action)
            for number, (tool, action) in enumerate(list_actions()):
                if tool.name == "review":  # each as another agent, because one may send 3,000 requests a minute
                    with _served(archive, vault, Path(name) / action.name, large_vault.uuid(rows + number)) as server:
                        found[f"{tool.name}.{action.name}"] = _length(server, tool, action)
        finally:
            vault.close()
    return {name: length for name, length in found.items() if length is not None}


@contextmanager
def _served(archive: Path, vault: LocalVault, home: Path, agent_id: str) -> Iterator[Server]:
    """A server for an agent that the vault approved, with its key below `home`."""
    home.mkdir()
    key = make_slot(home, vault.url, agent_id)
    agent = {
        "id": agent_id,
        "name": "bench",
        "public_key": key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
        "scopes": json.dumps(agents.SCOPES),
        "restricted": 0,
        **dict.fromkeys(("approved_ms", "created_ms"), wall_clock()),
    }
    with open_store(vault.directory) as store, store.transaction() as db:
        large_vault.insert(db, "ai_agents", [agent])
    env = {"HOME": str(home), "SIKKERKEY_CACHE_DIR": str(home / "cache")}
    with Server([sys.executable, *FLAGS, str(archive), "serve"], env) as server:
        server.request(INITIALIZE)
        server.write(INITIALIZED)
        yield server


def _length(server: Server, tool: Tool, action: Action) -> int | None:
    """The length of the result's text; None if an older archive lacks the action or `review` refuses.

    Raises RuntimeError on any other error, which would otherwise be recorded as a refusal.
    """
    given = arguments(tool, action)
    server.write(call_line(3, tool.name, **given))
    answer = json.loads(server.read())
    while "method" in answer:  # a notification, for example that a slow answer is asked for again
        answer = json.loads(server.read())
    result = answer.get("result", {"isError": True})
    if not result.get("isError"):
        return len(result["content"][0]["text"])
    if tool.name != "review":
        raise RuntimeError(f"{tool.name}.{given['action']} failed")
    return None


def page(figures: dict[str, Figures]) -> str:
    """The text of LISTS.md."""
    most = str(ROWS[-1])
    names = [f"{tool.name}.{action.name}" for tool, action in list_actions()]
    cells = [[f"`{name}`", *(_cell(figures, when, rows, name) for rows in ROWS for when in WHEN)] for name in names]
    return TEXT.format(
        limit=sikkerkey_results.RESULT_CHARACTERS,
        table=table(["action", *(text for rows in ROWS for text in (f"{rows:,} rows, before", "now"))], cells),
        now=figures["now"][most][LISTING],
        before=figures["before"][most][LISTING],
        tools=len(sikkerkey_mcp.TOOLS),
        tools_before=TOOLS_BEFORE,
    )


def _cell(figures: dict[str, Figures], when: str, rows: int, name: str) -> object:
    missing = "refused" if when == "now" else "no such action"
    return figures[when][str(rows)].get(name, missing)


def too_long(figures: Figures) -> list[str]:
    """The actions with a result above the limit."""
    lengths = [(name, length) for each in figures.values() for name, length in each.items() if name != LISTING]
    return sorted({name for name, length in lengths if length > sikkerkey_results.RESULT_CHARACTERS})


def main() -> int:
    """Measures and writes; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.lists", description=__doc__)
    parser.add_argument("--before", type=Path, metavar="ARCHIVE")
    archive = parser.parse_args().before
    figures = json.loads(FIGURES.read_bytes())
    figures["before" if archive else "now"] = {str(rows): measure(archive or ARCHIVE, rows) for rows in ROWS}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(figures), encoding="utf-8")
    for name in too_long(figures["now"]):
        print(f"too long: {name}", file=sys.stderr)
    return 1 if too_long(figures["now"]) else 0


if __name__ == "__main__":
    sys.exit(main())
