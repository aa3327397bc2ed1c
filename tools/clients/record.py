"""docs/tested-clients.json, the last trial of each client, and the rows of docs/tested-clients.md."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
RECORD = ROOT / "docs" / "tested-clients.json"
HEAD = ("Client", "Version", "Protocol", "What was exercised", "Result", "Date")
SHOWN_HEAD = ("Client", "Secrets", "before", "Machines", "before", "Audit entries", "before", "Last row")
# The rows that reached the model when results had no limit: secrets, machines, audit entries. Continue asked for the
# secrets again and again.
SHOWN_BEFORE = {
    "Claude Code": ("0 of 5,000", "0 of 2,000", "50 of 50"),
    "Codex": ("57 of 5,000", "54 of 2,000", "39 of 50"),
    "Gemini CLI": ("190 of 5,000", "183 of 2,000", "50 of 50"),
    "opencode": ("0 of 5,000", "0 of 2,000", "50 of 50"),
    "Copilot CLI": ("3 of 5,000", "2 of 2,000", "50 of 50"),
    "Continue CLI": ("0 of 5,000", "not reached", "not reached"),
}
# Clients that `config` supports but that cannot run unattended.
NOT_RUN = (
    *("Antigravity", "Claude Desktop", "Cursor", "Devin Desktop", "Goose", "Kiro", "LM Studio", "VS Code"),
    *("VS Code Insiders", "VSCodium", "Warp", "Windsurf", "Zed"),
)


class Outcome(NamedTuple):
    """One client's trial. `package` names the registry and package, `protocol` the negotiated revision, if any."""

    client: str
    package: str
    version: str
    date: str
    protocol: str
    exercised: list[str]
    outcome: str
    shown: list[dict[str, Any]]  # of each long list, as `Shown` in tools/clients/large_vault.py
    people: list[dict[str, Any]]  # of each question to a person, as `Seen` in tools/clients/asking.py


def load(path: Path = RECORD) -> list[Outcome]:
    """The recorded outcomes; an empty list if there is no file."""
    if not path.exists():
        return []
    return [Outcome(**members) for members in json.loads(path.read_text(encoding="utf-8"))]


def keep(fresh: Iterable[Outcome], order: Iterable[str], path: Path = RECORD) -> None:
    """Updates the file: new outcomes replace earlier ones, and clients that are not in `order` are dropped."""
    outcomes = {outcome.client: outcome for outcome in [*load(path), *fresh]}
    kept = [outcomes[client]._asdict() for client in order if client in outcomes]
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def rows(outcomes: Iterable[Outcome]) -> list[list[str]]:
    """The rows of the table below `HEAD`."""
    tried = [[it.client, it.version, it.protocol, "; ".join(it.exercised), it.outcome, it.date] for it in outcomes]
    return [*tried, [", ".join(NOT_RUN), "", "", "the entry in its file, in tests only", "not run", ""]]


def shown_rows(outcomes: Iterable[Outcome]) -> list[list[str]]:
    """The rows of the table below `SHOWN_HEAD`."""
    return [_shown_cells(outcome) for outcome in outcomes if outcome.shown]


def _shown_cells(outcome: Outcome) -> list[str]:
    before = SHOWN_BEFORE.get(outcome.client, ("not measured",) * len(outcome.shown))
    cells = [outcome.client]
    for row, earlier in zip(outcome.shown, before):
        cells += [f"{row['received']:,} of {row['sent']:,}" + (", cut" if row["cut"] else ""), earlier]
    return [*cells, "reached" if all(row["last_row"] for row in outcome.shown) else "not reached"]
