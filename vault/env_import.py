"""Imports the entries of a `.env` file into a project: first what would happen, then the import itself.

    steps = plan(desk, project_id, dotenv.parse(text))
    apply(desk, project_id, steps)

For the owner's command and the dashboard. A step says what becomes of one entry and never shows a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from vault.desk import Desk
from vault.domains import secrets
from vault.dotenv import Entry
from vault.errors import Refusal
from vault.inputs import checked
from vault.router import Call

MAX_FILE_BYTES = 512 * 1024  # of the file: both ways to give one read no more

Outcome = Literal["new", "replaced", "unchanged", "refused"]


class Step(NamedTuple):
    """What becomes of one entry. `reason` says why an entry is refused."""

    entry: Entry
    outcome: Outcome
    secret_id: str | None = None
    reason: str = ""

    def as_json(self) -> dict[str, object]:
        """The step without its value."""
        shown = {"name": self.entry.name, "line": self.entry.line, "outcome": self.outcome, "secretId": self.secret_id}
        return {**shown, "reason": self.reason} if self.reason else shown


def plan(desk: Desk, project_id: str, entries: Iterable[Entry]) -> list[Step]:
    """What an import would do, in the order of the file. Changes nothing. Raises Refusal."""
    existing: dict[str, list[dict[str, Any]]] = {}
    for secret in desk.call("GET", f"/v1/ai/projects/{project_id}/secrets"):
        existing.setdefault(secret["name"], []).append(secret)
    return [_step(desk, entry, existing.get(entry.name, [])) for entry in entries]


def apply(desk: Desk, project_id: str, steps: Iterable[Step]) -> None:
    """Create and replace the secrets, all or none. Refused and unchanged entries are skipped. Raises Refusal."""

    def store(call: Call) -> None:
        for step in steps:
            body = {"name": step.entry.name, "value": step.entry.value}
            if step.outcome == "new":
                secrets.create(replace(call, params={"projectId": project_id}, body=body))
            elif step.outcome == "replaced" and step.secret_id:
                params = {"projectId": project_id, "secretId": step.secret_id}
                secrets.update_value(replace(call, params=params, body=body))

    desk.run("import", store)


def _step(desk: Desk, entry: Entry, found: list[dict[str, Any]]) -> Step:
    try:
        checked({"name": entry.name, "value": entry.value}, secrets.CREATE_FIELDS)
    except Refusal as refused:
        return Step(entry, "refused", reason=str(refused))
    if not found:
        return Step(entry, "new")
    if len(found) > 1:
        return Step(entry, "refused", reason=f"{len(found)} secrets of the project have this name")
    secret = found[0]
    reason = _why_not(desk, secret)
    if reason:
        return Step(entry, "refused", secret["id"], reason)
    return Step(entry, "unchanged" if _current(desk, secret["id"]) == entry.value else "replaced", secret["id"])


def _why_not(desk: Desk, secret: Mapping[str, Any]) -> str:
    """Why the value of an existing secret cannot be replaced, or nothing."""
    if secret["type"] == "canary":
        return "it is a canary: the vault controls its value"
    if secret["fieldNames"]:
        return "it is a structured secret"
    if secret["type"] == "managed" and desk.call("GET", f"/v1/ai/dynamic-secrets/{secret['id']}")["enabled"]:
        return "it has an active rotation schedule"
    return ""


def _current(desk: Desk, secret_id: str) -> str:
    """The current value, which is compared and never shown."""
    with desk.transaction() as db:
        secret = secrets.find(db, secret_id)
        return secrets.plaintext(db, desk.store.keys, secret, secret["version"])
