"""The owner's view of the audit log: everything, filtered, and as it grows."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any, Callable

from vault import alerts, audit
from vault.console import Output, add, changing, existing, listing, moment
from vault.store import Store
from vault.terminal import printable

if TYPE_CHECKING:
    from vault.console import Commands

COLUMNS = ("TIME", "SEVERITY", "ACTION", "ACTOR", "DETAIL")
POLL_S = 1.0
LIMIT_MAX = 1_000  # entries a query or a poll; what a poll leaves is in the next

NEWEST = """
SELECT * FROM audit WHERE (:action IS NULL OR action = :action) AND (:project IS NULL OR project_id = :project)
    AND (:search IS NULL OR instr(lower(action || ' ' || detail), lower(:search)) > 0)
    AND severity IN (SELECT value FROM json_each(:severities))
ORDER BY id DESC LIMIT :limit
"""
NEXT = NEWEST.replace("ORDER BY id DESC", "AND id > :after ORDER BY id")


def add_all(commands: Commands) -> None:
    """Declare the commands of this file."""
    reading = add(commands, "audit", _audit, "show the audit log, oldest first")
    reading.add_argument("--limit", type=_limit, default=50, metavar="N", help=f"the last N, at most {LIMIT_MAX} (50)")
    reading.add_argument("--action", choices=sorted(audit.ACTIONS), metavar="NAME", help="only this action")
    reading.add_argument("--severity", choices=audit.SEVERITIES, default="info", help="this severity and above")
    reading.add_argument("--project", metavar="ID", help="only what happened in this project")
    reading.add_argument("--search", metavar="TEXT", help="only entries whose action or detail holds this")
    reading.add_argument("--follow", action="store_true", help="go on with new entries, one a line, until interrupted")
    add(commands, "alerts", _alerts, f"show the last {alerts.SHOWN} alerts, newest first")


def _audit(options: argparse.Namespace) -> Output | None:
    with existing(options.dir) as store:
        entries = latest(store, _filters(options))
        if not options.follow:
            return Output(entries, listing(COLUMNS, [_row(entry) for entry in entries]))
        for entry in entries:
            _print(entry, as_json=options.json)
        follow(store, options, entries[-1]["id"] if entries else 0, _wait)
    return None


def _alerts(options: argparse.Namespace) -> Output:
    with changing(options) as db:
        found: list[dict[str, Any]] = alerts.overview(db)
    return Output(found, listing(COLUMNS, [_row(entry) for entry in found]))


def latest(store: Store, filters: dict[str, object]) -> list[dict[str, Any]]:
    """The newest entries that pass, oldest of them first."""
    with store.transaction() as db:
        return [audit.entry(row) for row in db.execute(NEWEST, filters)][::-1]


def follow(store: Store, options: argparse.Namespace, after: int, wait: Callable[[], bool]) -> None:
    """Print what is new after every wait, until a wait answers no."""
    filters = {**_filters(options), "limit": LIMIT_MAX}
    while wait():
        with store.transaction() as db:
            entries = [audit.entry(row) for row in db.execute(NEXT, {**filters, "after": after})]
        for entry in entries:
            _print(entry, as_json=options.json)
            after = int(str(entry["id"]))


def _wait() -> bool:
    time.sleep(POLL_S)
    return True


def _filters(options: argparse.Namespace) -> dict[str, object]:
    wanted = audit.SEVERITIES[audit.SEVERITIES.index(options.severity) :]
    named = {"action": options.action, "project": options.project, "search": options.search}
    return {**named, "severities": json.dumps(wanted), "limit": options.limit}


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    identity = entry["userId"] or entry["machineId"] or entry["aiAgentId"]
    actor = entry["actorKind"] if identity is None else f"{entry['actorKind']} {identity}"
    return moment(entry["timestamp"]), entry["severity"], entry["action"], actor, entry["detail"]


def _print(entry: dict[str, Any], *, as_json: bool) -> None:
    line = json.dumps(entry) if as_json else "  ".join(printable(cell) for cell in _row(entry))
    print(line, flush=True)


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LIMIT_MAX:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {LIMIT_MAX}")
    return int(text)
