"""Finds what a person names: by its whole id, else by its name, else by the beginning of its id."""

from __future__ import annotations

import difflib
import sqlite3
from pathlib import Path
from typing import NamedTuple

from vault.domains import agents
from vault.errors import VaultError
from vault.place import command_line
from vault.terminal import printable

MAX_CANDIDATES = 5
MAX_COMPARED = 5_000  # names, to find those that look like a mistyped one


class Kind(NamedTuple):
    """A kind of thing: its noun, the command that lists it, and a statement that selects id, name and project_id."""

    noun: str
    listed_by: tuple[str, ...]
    statement: str


class Found(NamedTuple):
    """One thing."""

    kind: Kind
    id: str
    name: str


POLICIES = "SELECT id, name, project_id FROM policies WHERE project_id IN (SELECT id FROM live_projects)"
SECRETS = "SELECT id, name, project_id FROM live_secrets WHERE deleted_ms IS"

AGENT = Kind("agent", ("agents",), "SELECT id, name, NULL AS project_id FROM ai_agents")
MACHINE = Kind("machine", ("machines",), "SELECT id, name, NULL AS project_id FROM machines")
PROJECT = Kind("project", ("projects",), "SELECT id, name, NULL AS project_id FROM live_projects")
SECRET = Kind("secret", ("projects",), f"{SECRETS} NULL")
TRASHED = Kind("secret in the trash", ("trash",), f"{SECRETS} NOT NULL")
POLICY = Kind("policy", ("projects",), POLICIES)
INVITATION = Kind("invitation", ("team",), "SELECT id, email AS name, NULL AS project_id FROM team_invites")
TICKET = Kind("ticket", ("tickets",), "SELECT id, title AS name, NULL AS project_id FROM tickets")
TOKEN = Kind(
    "unused token",
    ("tokens",),
    f"SELECT {agents.TOKEN_ID} AS id, coalesce(name, '') AS name, NULL AS project_id FROM bootstrap_tokens"
    " WHERE used_ms IS NULL",
)
MAKER = Kind("agent", ("made",), "SELECT DISTINCT agent_id AS id, agent_id AS name, NULL AS project_id FROM made")

WAYS = ("id = :text", "name = :text", "substr(id, 1, length(:text)) = :text")


def find(db: sqlite3.Connection, directory: Path, text: str, *kinds: Kind, project_id: str | None = None) -> Found:
    """The only thing that is named. Raises VaultError, with candidates, if there is none or more than one."""
    for way in WAYS if text else ():
        found = _only(db, way, text, kinds, project_id)
        if found is not None:
            return found
    raise _unknown(db, directory, text, kinds, project_id)


def find_exact(db: sqlite3.Connection, text: str, *kinds: Kind, project_id: str | None = None) -> Found | None:
    """The only thing with this id or name, or None. Raises VaultError, with candidates, for a name of several."""
    return _only(db, WAYS[0], text, kinds, project_id) or _only(db, WAYS[1], text, kinds, project_id)


def find_many(db: sqlite3.Connection, directory: Path, listed: str, kind: Kind) -> list[str]:
    """The ids of things that are named with commas between them. Raises VaultError."""
    return [find(db, directory, text, kind).id for text in split(listed)]


def split(listed: str) -> list[str]:
    """The parts of a text with commas."""
    return [item.strip() for item in listed.split(",") if item.strip()]


def names(db: sqlite3.Connection, kind: Kind) -> list[Found]:
    """All things of a kind, up to MAX_COMPARED, for completion."""
    return _select(db, kind, "1 OR :text", "", None, limit=MAX_COMPARED)


def _only(db: sqlite3.Connection, way: str, text: str, kinds: tuple[Kind, ...], project_id: str | None) -> Found | None:
    found = [each for kind in kinds for each in _select(db, kind, way, text, project_id)]
    if len(found) > 1:
        hint = f"give the whole id: {_listed(found)}"
        raise VaultError(f"{_nouns(kinds)} {printable(text)} is ambiguous", hint)
    return found[0] if found else None


def _select(
    db: sqlite3.Connection, kind: Kind, way: str, text: str, project_id: str | None, *, limit: int = MAX_CANDIDATES + 1
) -> list[Found]:
    statement = (
        f"SELECT id, name FROM ({kind.statement}) WHERE ({way})"
        " AND (:project IS NULL OR project_id = :project) LIMIT :limit"
    )
    rows = db.execute(statement, {"text": text, "project": project_id, "limit": limit})
    return [Found(kind, row["id"], row["name"]) for row in rows]


def _unknown(
    db: sqlite3.Connection, directory: Path, text: str, kinds: tuple[Kind, ...], project_id: str | None
) -> VaultError:
    every = [each for kind in kinds for each in _select(db, kind, "1 OR :text", "", project_id, limit=MAX_COMPARED)]
    by_word = {word.casefold(): each for each in every for word in (each.id, each.name)}
    near = [by_word[word] for word in difflib.get_close_matches(text.casefold(), by_word, MAX_CANDIDATES)]
    lines = " and ".join(dict.fromkeys(command_line(directory, *kind.listed_by) for kind in kinds))
    if near:
        hint = f"did you mean {_listed(list(dict.fromkeys(near)))}?"
    elif every:
        hint = f"there are {_listed(every)}; list them with: {lines}"
    else:
        hint = "there are none yet"
    return VaultError(f"there is no {_nouns(kinds)} {printable(text)}", hint)


def _listed(found: list[Found]) -> str:
    shown = [
        each.id if each.name in ("", each.id) else f"{each.id} ({printable(each.name)})"
        for each in found[:MAX_CANDIDATES]
    ]
    return ", ".join(shown) + (", ..." if len(found) > MAX_CANDIDATES else "")


def _nouns(kinds: tuple[Kind, ...]) -> str:
    return " or ".join(dict.fromkeys(kind.noun for kind in kinds))
