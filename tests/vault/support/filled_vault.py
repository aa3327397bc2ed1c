"""A vault with something of every kind, made through the API's functions: with ordinary names, or with hostile ones.

ids = fill(Desk(store, clock), ordinary)
ids["secret"]                                       # the id of one secret
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.served_vault import public_bytes
from vault import audit
from vault.dashboard.index import PAGES
from vault.dashboard.web import Page
from vault.desk import Desk
from vault.domains import agents, canaries, enrollment, ip_allowlist, machines, support, team
from vault.router import Actor, Call

Namer = Callable[[str], str]  # what a thing of this kind, or this text, is called

ORDINARY: Mapping[str, str] = {
    "project": "Webshop",
    "project description": "The shop's servers and its payments",
    "other project": "Newsletter",
    "secret": "DB_PASSWORD",
    "note": "Of the main database. Rotated on the first of each month.",
    "structured": "STRIPE",
    "field": "secret_key",
    "canary": "AWS_ROOT_KEY",
    "policy": "office hours",
    "policy description": "Only from the office, on weekdays",
    "agent": "laptop-of-ada",
    "pending agent": "laptop-of-bob",
    "machine": "web-1",
    "pending machine": "web-2",
    "hostname": "web-1.example.com",
    "token": "ci runners",
    "token description": "For the build machines",
    "link": "Password of the printer",
    "email": "carla@example.com",
    "invited": "dan@example.com",
    "network": "The office",
    "ticket": "The nightly backup cannot read its key",
    "message": "The machine web-1 gets 403 for DB_PASSWORD since Tuesday. Who changed its grants?",
    "file": "steps.txt",
    "url path": "/hooks/vault",
    "trash": "OLD_API_KEY",
    "source": "198.51.100.9",
    "detail": "POST /v1/ai/projects: the agent lacks the scope projects.write",
}


# In the paths of what a browser saves instead of showing it.
FILES = re.compile(r"download|export|attachment|\.(?:txt|csv)$")
# What a parameter named `id` means, by the part of the path before it.
KINDS = {
    "agents": "agent",
    "machines": "machine",
    "projects": "project",
    "enrollment": "token",
    "team": "member",
    "ip-allowlist": "entry",
    "canaries": "canary",
    "links": "link",
    "trash": "trash",
    "webhooks": "webhook",
    "tickets": "ticket",
    "policies": "policy",
    "secrets": "secret",
}


def ordinary(kind: str) -> str:
    """What a person would call it."""
    return ORDINARY[kind]


def fill(desk: Desk, name: Namer, meanwhile: Callable[[dict[str, str]], object] = dict) -> dict[str, str]:
    """Make one or two of everything, and return an id of each kind. `meanwhile` runs before the last events."""
    ids = _projects_and_secrets(desk, name)
    _access(desk, name, ids)
    meanwhile(ids)
    _watch(desk, name, ids)
    return ids


def _projects_and_secrets(desk: Desk, name: Namer) -> dict[str, str]:
    body: dict[str, Any] = {"name": name("project"), "description": name("project description")}
    project = desk.call("POST", "/v1/ai/projects", body)["id"]
    desk.call("POST", "/v1/ai/projects", {"name": name("other project")})
    secrets = f"/v1/ai/projects/{project}/secrets"
    secret = desk.call("POST", secrets, {"name": name("secret"), "value": "of no use", "note": name("note")})["id"]
    desk.call("POST", f"{secrets}/{secret}/rotate")
    structured = {"name": name("structured"), "value": _structure(name("field")), "fieldNames": [name("field")]}
    desk.call("POST", secrets, structured)
    trashed = desk.call("POST", secrets, {"name": name("trash"), "value": "of no use", "note": name("note")})["id"]
    desk.call("POST", f"{secrets}/{trashed}/delete")
    desk.call("POST", "/v1/ai/dynamic-secrets", {"secretId": secret, "intervalSeconds": 86_400})
    body = {"name": name("policy"), "description": name("policy description"), "maxReadsPerDay": 100}
    policy = desk.call("POST", f"/v1/ai/projects/{project}/policies", {**body, "rateCapEnabled": True})["id"]
    desk.call("POST", f"/v1/ai/secrets/{secret}/binding", {"policyId": policy})
    canary = desk.call("POST", "/v1/ai/canaries", {"projectId": project, "name": name("canary")})["id"]
    body = {"name": name("link"), "value": "of no use", "expiresInSeconds": 3_600}
    link = desk.call("POST", f"/v1/ai/projects/{project}/temporary-secrets", body)["id"]
    return {"project": project, "secret": secret, "policy": policy, "canary": canary, "trash": trashed, "link": link}


def _structure(field: str) -> str:
    return json.dumps({field: "of no use"})


def _access(desk: Desk, name: Namer, ids: dict[str, str]) -> None:
    project, secret = ids["project"], ids["secret"]
    ids["agent"], ids["pending_agent"] = _agent(desk, name("agent")), _agent(desk, name("pending agent"))
    ids["machine"] = _machine(desk, name("machine"), name("hostname"))
    ids["pending_machine"] = _machine(desk, name("pending machine"), name("hostname"))
    with desk.transaction() as db:
        agents.approve_as_owner(db, desk.clock(), ids["agent"])
        machines.approve_as_owner(db, desk.clock(), ids["machine"])
        agents.issue_token(db, desk.clock(), agents.SCOPES[:2], [project], name("agent"))
    desk.call("POST", f"/v1/ai/projects/{project}/machines", {"machineId": ids["machine"]})
    path = f"/v1/ai/projects/{project}/machines/{ids['machine']}/grants"
    desk.call("POST", path, {"secretIds": [secret, ids["canary"]]})
    body = {"name": name("token"), "description": name("token description"), "projectIds": [project]}
    limits = {"tokenLifetimeSeconds": 86_400, "machineLifetimeSeconds": 3_600, "maxUses": 10}
    ids["token"] = desk.call("POST", enrollment.ALL, {**body, **limits, "secretIds": [secret]})["id"]
    ids["invite"] = desk.call("POST", "/v1/ai/team/invites", {"email": name("email")})["inviteId"]
    with desk.transaction() as db:
        ids["member"] = str(team.accept(db, desk.clock(), ids["invite"])["memberId"])
    permissions = {"memberId": ids["member"], "permissions": list(team.PERMISSIONS[:1])}
    desk.call("POST", f"/v1/ai/projects/{project}/permissions", permissions)
    ids["invite"] = desk.call("POST", "/v1/ai/team/invites", {"email": name("invited")})["inviteId"]
    entry = desk.call("POST", ip_allowlist.BASE, {"cidr": "192.0.2.0/24", "label": name("network")})
    ids["entry"] = entry["id"]


def _watch(desk: Desk, name: Namer, ids: dict[str, str]) -> None:
    everything = ["canary_triggered", "ai_agent_register", "machine_register", "project_freeze"]
    desk.call("POST", "/v1/ai/alerts", {"enabledActions": everything})
    url = f"http://127.0.0.1:9{name('url path')}"  # nobody listens there
    ids["webhook"] = desk.call("POST", "/v1/ai/webhooks", {"url": url, "actions": everything})["id"]
    desk.call("POST", f"/v1/ai/webhooks/{ids['webhook']}/test")
    body = {"categoryId": "bug", "priority": "high", "title": name("ticket"), "body": name("message")}
    ids["ticket"] = desk.call("POST", "/v1/ai/tickets", body)["id"]
    file = support.Attachment(name("file"), "text/plain", name("message").encode())
    with desk.transaction() as db:
        support.staff_reply(db, desk.clock(), ids["ticket"], name("message"), attachments=[file])
        who = Actor("ai_agent", ids["agent"], "127.0.0.1")
        audit.record(db, desk.clock(), who, "auth_failure", name("detail"), project_id=ids["project"])
        audit.record(db, desk.clock(), Actor("external", None, name("source")), "auth_failure", name("detail"))
    conversation = desk.call("GET", f"/v1/ai/tickets/{ids['ticket']}")["conversation"]
    ids["attachment"] = conversation[-1]["attachments"][0]["id"]
    with desk.transaction() as db:
        call = as_machine(desk.as_call(db), ids["machine"])
        canaries.trigger(call, db.execute("SELECT * FROM secrets WHERE id = ?", (ids["canary"],)).fetchone())


def as_machine(call: Call, machine_id: str) -> Call:
    """The call with a machine as its caller."""
    return replace(call, caller=machines.find(call.db, machine_id), source_ip="192.0.2.7")


def _agent(desk: Desk, name: str) -> str:
    with desk.transaction() as db:
        token = agents.issue_token(db, desk.clock(), agents.SCOPES, None, name)
        call = replace(desk.as_call(db), caller=None, body=_registration(token, name))
        registered: Any = agents.register(call)
    return str(registered["agentId"])


def _registration(token: str, name: str) -> dict[str, str]:
    return {"token": token, "publicKey": public_bytes(Ed25519PrivateKey.generate()), "name": name}


def _machine(desk: Desk, name: str, hostname: str) -> str:
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with desk.transaction() as db:
        return machines.register(db, desk.clock(), name, kind="standard", hostname=hostname, public_key=key)


def path_of(page: Page, ids: dict[str, str]) -> str:
    """The path of a page with ids that exist. Raises KeyError for a parameter of an unknown kind."""
    parts = page.path.split("/")
    for place, part in enumerate(parts):
        if part.startswith("{"):
            name = part.strip("{}").removesuffix("_id")
            parts[place] = ids[KINDS[parts[place - 1]] if name == "id" else name]
    return "/".join(parts)


def pages_to_see(ids: dict[str, str]) -> Iterator[str]:
    """The paths of all pages that show something to somebody who is signed in."""
    for page in PAGES:
        is_shown = page.path not in ("/unseal", "/session")  # the second is for the pages' script
        if page.method == "GET" and not page.is_open and is_shown and not FILES.search(page.path):
            yield path_of(page, ids)
