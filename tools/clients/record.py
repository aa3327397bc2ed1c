"""docs/tested-clients.json, in which each client's last trial is kept, and the README's table made from it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
RECORD = ROOT / "docs" / "tested-clients.json"
HEAD = ("Client", "Version", "Protocol", "What was exercised", "Result", "Date")
# Programs with windows, or without a version that runs unattended; `config` knows them all.
NOT_RUN = ("Claude Desktop", "Cursor", "Goose", "Kiro", "LM Studio", "VS Code", "Warp", "Windsurf", "Zed")


class Outcome(NamedTuple):
    """One client's trial. `package` says where the client comes from, `protocol` the revision agreed on, if any."""

    client: str
    package: str
    version: str
    date: str
    protocol: str
    exercised: list[str]
    outcome: str


def load(path: Path = RECORD) -> list[Outcome]:
    """All outcomes that are kept; none where there is no file."""
    if not path.exists():
        return []
    return [Outcome(**members) for members in json.loads(path.read_text(encoding="utf-8"))]


def keep(fresh: Iterable[Outcome], order: Iterable[str], path: Path = RECORD) -> None:
    """Writes the file anew: fresh outcomes take the place of earlier ones, and clients no longer tried are dropped."""
    outcomes = {outcome.client: outcome for outcome in [*load(path), *fresh]}
    kept = [outcomes[client]._asdict() for client in order if client in outcomes]
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def rows(outcomes: Iterable[Outcome]) -> list[list[str]]:
    """The table's rows below `HEAD`."""
    tried = [[it.client, it.version, it.protocol, "; ".join(it.exercised), it.outcome, it.date] for it in outcomes]
    return [*tried, [", ".join(NOT_RUN), "", "", "the entry in its file, by tests only", "not run here", ""]]
