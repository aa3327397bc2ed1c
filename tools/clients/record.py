"""docs/tested-clients.json, the last trial of each client, and the rows of docs/tested-clients.md."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
RECORD = ROOT / "docs" / "tested-clients.json"
HEAD = ("Client", "Version", "Protocol", "What was exercised", "Result", "Date")
# Clients that `config` supports but that cannot run unattended.
NOT_RUN = ("Claude Desktop", "Cursor", "Goose", "Kiro", "LM Studio", "VS Code", "Warp", "Windsurf", "Zed")


class Outcome(NamedTuple):
    """One client's trial. `package` names the registry and package, `protocol` the negotiated revision, if any."""

    client: str
    package: str
    version: str
    date: str
    protocol: str
    exercised: list[str]
    outcome: str


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
    return [*tried, [", ".join(NOT_RUN), "", "", "the entry in its file, by tests only", "not run here", ""]]
