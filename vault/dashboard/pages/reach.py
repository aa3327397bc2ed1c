"""What several forms share: the choice of scopes and of projects."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from vault.dashboard.web import Visit
from vault.domains import agents, projects

MAX_CHOICES = 100  # projects with a checkbox; others are given by id

# fmt: off
SCOPE_GROUPS = (
    ("Projects and secrets", (
        ("projects.read",           "see projects"),
        ("projects.write",          "create, change and delete projects"),
        ("projects.secrets.read",   "see metadata of secrets and links, never a value"),
        ("projects.secrets.write",  "create, replace, rotate and delete secrets; create one-time links"),
        ("trash.read",              "see deleted secrets"),
        ("trash.write",             "restore or purge deleted secrets"),
    )),
    ("Policies and canaries", (
        ("projects.policies.read",  "see policies and canaries"),
        ("projects.policies.write", "change policies and canaries, unfreeze projects"),
    )),
    ("Machines", (
        ("machines.read",           "see machines"),
        ("machines.write",          "approve, rename and revoke machines"),
        ("projects.machines.read",  "see which machines may read which secrets"),
        ("projects.machines.write", "add machines to projects and grant them secrets"),
        ("enrollment.read",         "see enrollment tokens"),
        ("enrollment.write",        "create and revoke enrollment tokens"),
    )),
    ("Agents and people", (
        ("aiagents.read",           "see other agents"),
        ("aiagents.write",          "approve, disable, rename and revoke other agents"),
        ("team.read",               "see the team"),
        ("team.write",              "invite people and change their rights"),
    )),
    ("Audit and alerts", (
        ("audit.read",              "read the audit log and statistics"),
        ("alerts.read",             "see alerts and webhooks"),
        ("alerts.write",            "change alerts and webhooks"),
    )),
    ("Network and support", (
        ("ipallowlist.read",        "see the IP allowlist"),
        ("ipallowlist.write",       "change the IP allowlist"),
        ("support.write",           "read and write support tickets"),
    )),
)
# fmt: on

READ_ONLY = tuple(scope for scope in agents.SCOPES if scope.endswith(".read"))
SAFE = tuple(scope for scope in agents.SCOPES if scope not in agents.LEADS_TO_PLAINTEXT)
PRESETS = {
    "read-only": ("Read only", READ_ONLY),
    "no-plaintext": ("Everything except the scopes that lead to plaintext", SAFE),
    "everything": ("Everything", agents.SCOPES),
}


class ProjectChoice(NamedTuple):
    """The projects of a form. `options` are pairs of id and name; `more` are ids that a person typed."""

    options: list[tuple[str, str]]
    chosen: Collection[str]
    limited: bool  # to the chosen ones
    has_more: bool
    more: str = ""


def project_choice(
    db: sqlite3.Connection, chosen: Collection[str] = (), *, limited: bool = False, more: str = ""
) -> ProjectChoice:
    """All projects if there are few, or the first ones and those that are chosen."""
    found = projects.names(db, MAX_CHOICES + 1, chosen)
    return ProjectChoice(list(found.items()), set(chosen), limited, len(found) > MAX_CHOICES, more)


def chosen_projects(visit: Visit) -> list[str]:
    """The ids that were ticked or typed."""
    return list(dict.fromkeys([*visit.fields("project"), *visit.field("more").split()]))


def project_names(db: sqlite3.Connection, listed: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The names of the projects on the allowlists of agents or tokens, by id."""
    ids = {each for item in listed for each in item["projectAllowlist"] or ()}
    return projects.names(db, 0, ids)


def leads_to_plaintext(scopes: Iterable[str]) -> dict[str, str]:
    """The given scopes that lead to plaintext, and why."""
    return {scope: agents.LEADS_TO_PLAINTEXT[scope] for scope in scopes if scope in agents.LEADS_TO_PLAINTEXT}
