"""A request for every route of the vault, to a vault that `vault_fill` has filled.

A new route gets its body from its own fields. If that is refused, or if it would spoil the requests after it, give it a
body or other ids here.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.datastructures import Headers

from bench.vault_fill import PROJECT, TOKEN, Filled, Identity
from vault.app import Answer, VaultApp
from vault.inputs import Field
from vault.router import Received, Route

PARAMS = {
    "projectId": PROJECT,
    "secretId": "sk_0",
    "agentId": "pending",
    "machineId": "machine_1",
    "canaryId": "sk_1",
    "policyId": "pol_filled",
    "tokenId": "enr_filled",
    "entryId": "ip_filled",
    "inviteId": "inv_filled",
    "memberId": "mem_filled",
    "ticketId": "tk_filled",
    "attachmentId": "ta_filled",
    "webhookId": "wh_filled",
    "sdkId": "python",
    "token": "unknown",
}
PUBLIC_KEY = base64.b64encode(hashlib.sha256(b"key").digest()).decode()
SCHEDULED = {"secretId": "sk_12"}
SECRET = "/v1/ai/projects/{projectId}/secrets/{secretId}"  # noqa: S105  # a path
SCHEDULE = "/v1/ai/dynamic-secrets/{secretId}"
AGENT = "/v1/ai/ai-agents/{agentId}"
MACHINE = "/v1/ai/machines/{machineId}"
MEMBER = "/v1/ai/projects/{projectId}/machines/{machineId}"

# Other ids for a route.
IDS: Mapping[str, Mapping[str, str]] = {
    SECRET + "/delete": {"secretId": "sk_3"},
    SCHEDULE: SCHEDULED,
    SCHEDULE + "/update": SCHEDULED,
    SCHEDULE + "/delete": {"secretId": "sk_13"},
    AGENT + "/deny": {"agentId": "denied"},
    MACHINE + "/approve": {"machineId": "waiting"},
    MACHINE + "/deny": {"machineId": "refused"},
    MACHINE + "/revoke": {"machineId": "machine_2"},
    MEMBER + "/detach": {"machineId": "machine_3"},
    "/v1/ai/projects/{projectId}/delete": {"projectId": "proj_empty"},
    "/v1/ai/projects/{projectId}/policies/{policyId}/delete": {"policyId": "pol_free"},
    "/v1/ai/enrollment-tokens/{tokenId}/revoke": {"tokenId": "enr_other"},
    "/v1/ai/tickets/{ticketId}/rate": {"ticketId": "tk_other"},
    "/v1/ai/team/{memberId}/remove": {"memberId": "mem_other"},
    "/v1/ai/trash/{secretId}/restore": {"secretId": "sk_9"},
    "/v1/ai/trash/{secretId}/purge": {"secretId": "sk_19"},
    "/v1/ai/webhooks/{webhookId}/delete": {"webhookId": "wh_other"},
}
# Bodies for a route, if those from its fields are no good. Each makes a request.
BODIES: Mapping[str, tuple[Mapping[str, object], ...]] = {
    "/v1/ai-bootstrap/register": ({"token": TOKEN, "publicKey": PUBLIC_KEY},),
    "/v1/{vaultId}/enroll/register": ({"token": TOKEN, "publicKey": PUBLIC_KEY, "hostname": "h"},),
    "/v1/secrets/list": ({"projectId": PROJECT},),
    "/v1/secrets/poll": ({"watch": ["sk_0"]},),
    "/v1/ai/alerts": ({"enabledActions": ["secret_create"]},),
    "/v1/ai/canaries": ({"projectId": PROJECT, "name": "canary"},),
    "/v1/ai/canaries/{canaryId}/config": ({"triggerFreezeProject": True},),
    "/v1/ai/dynamic-secrets": (
        {"projectId": PROJECT, "name": "new", "intervalSeconds": 300},
        {"secretId": "sk_4", "intervalSeconds": 300},
    ),
    SCHEDULE + "/update": ({"length": 20},),
    SECRET + "/rollback": ({"version": 1},),
    "/v1/ai/enrollment-tokens": (
        {
            **{"name": "t", "projectIds": [PROJECT], "secretIds": ["sk_0"], "maxUses": 1},
            **{"tokenLifetimeSeconds": 60, "machineLifetimeSeconds": 60},
        },
    ),
    "/v1/ai/ipallowlist": ({"cidr": "10.0.0.0/8"},),
    "/v1/ai/ipallowlist/bulk-delete": ({"entryIds": ["ip_other"]},),
    "/v1/ai/projects/{projectId}/update": ({"description": "new"},),
    "/v1/ai/projects/{projectId}/delete": ({"preview": True}, {"confirmName": "empty"}),
    "/v1/ai/projects/{projectId}/machines": ({"machineId": "outside"},),
    "/v1/ai/projects/{projectId}/machines/query": tuple(
        {"sortBy": order, **more}
        for order, more in itertools.product(("name", "added", "secretCount"), ({}, {"search": "machine"}))
    ),
    MEMBER + "/grants": ({"secretIds": ["sk_0", "sk_5"]},),
    "/v1/ai/projects/{projectId}/policies/{policyId}/update": ({"description": "new"},),
    "/v1/ai/secrets/{secretId}/binding": ({"policyId": "pol_filled"},),
    "/v1/ai/projects/{projectId}/permissions": ({"memberId": "mem_filled", "permissions": []},),
    "/v1/ai/team/invites": ({"email": "d@example.com"},),
    "/v1/ai/projects/{projectId}/temporary-secrets": ({"name": "n", "value": "v", "expiresInSeconds": 60},),
    "/v1/ai/tickets/query": ({}, {"status": "open"}),
    "/v1/ai/audit/query": (
        {},
        {"page": 3, "pageSize": 10},
        {"actions": ["secret_read_denied"]},
        {"actions": ["auth_failure", "secret_update"]},
        {"severities": ["critical", "high"]},
        {"sourceIp": "10.0.0.1"},
        {"sourceIp": "10.0.0.1", "actions": ["secret_read"]},
        {"sourceIp": "10.0.0.1", "actions": ["canary_triggered"]},
        {"search": "no entry has these words"},
        {"search": "number 5", "actions": ["secret_read"]},
        {"from": 1, "to": 2**52},
        {"sortBy": "action", "sortDir": "asc"},
        {"sortBy": "severity"},
        {"sortBy": "severity", "severities": ["info", "low"]},
        {"sortBy": "sourceIp"},
    ),
    "/v1/ai/audit/export": ({"from": 1, "to": 2},),
    "/v1/ai/webhooks": ({"url": "https://example.com/", "actions": ["ticket_create"]},),
    "/v1/ai/webhooks/{webhookId}/update": ({"enabled": True},),
    "/s/{token}": ({"passphrase": "words"},),
}
MINIMUM = {"integer": 1, "boolean": True, "text_list": [], "object": {}}


class Ask(NamedTuple):
    """One request: who sends it (None if nobody signs it), the route, and what goes over the wire."""

    who: Identity | None
    route: Route
    path: str
    body: Mapping[str, object] | None

    def __str__(self) -> str:
        who = "" if self.who is None else f" by {self.who.id}"
        return f"{self.route.method} {self.route.path} {json.dumps(self.body)}{who}"


def asks(filled: Filled, vault_id: str, routes: tuple[Route, ...]) -> Iterator[Ask]:
    """The requests for every route: of the agent, and of the restricted agent for the routes that only read."""
    for route in routes:
        whos: dict[str, list[Identity | None]] = {
            "open": [None],
            "machine": [filled.machine],
            "agent": [filled.agent, *([filled.restricted] if route.reads else [])],
        }
        path = route.path.format(**{**PARAMS, "vaultId": vault_id, **IDS.get(route.path, {})})
        for body in _bodies(route):
            for who in whos[route.caller]:
                yield Ask(who, route, path, body)


def answer(app: VaultApp, ask: Ask, now_ms: int) -> Answer:
    """Sign the request and let the application answer it, without a server."""
    raw, headers = b"", {}
    if ask.body is not None and ask.route.takes == "form":
        raw, headers = b"passphrase=words", {"content-type": "application/x-www-form-urlencoded"}
    elif ask.body:
        raw, headers = json.dumps(ask.body).encode(), {"content-type": "application/json"}
    if ask.who is not None:
        headers.update(_signed(ask.who, ask.route.method, ask.path, raw, now_ms // 1000))
    given = Received(ask.route.method, ask.path, b"", Headers(headers), raw, "127.0.0.1", "http://127.0.0.1:1")
    return app.answer(given)


def _signed(who: Identity, method: str, path: str, raw: bytes, timestamp_s: int) -> dict[str, str]:
    nonce = os.urandom(16).hex()
    text = f"{method}:{path}:{timestamp_s}:{nonce}:{hashlib.sha256(raw).hexdigest()}"
    signature = base64.b64encode(Ed25519PrivateKey.from_private_bytes(who.key).sign(text.encode())).decode()
    proof = {"x-timestamp": str(timestamp_s), "x-nonce": nonce, "x-signature": signature}
    return {"x-agent-id": who.id, "x-machine-id": who.id, **proof}


def _bodies(route: Route) -> tuple[Mapping[str, object] | None, ...]:
    if route.method == "GET":
        return (None,)
    if route.path in BODIES:
        return BODIES[route.path]
    return ({name: _value(field) for name, field in route.fields.items() if field.is_required},)


def _value(field: Field) -> Any:
    if field.choices:
        return [field.choices[0]] if field.kind == "text_list" else field.choices[0]
    if field.kind == "integer":
        return field.low
    return MINIMUM.get(field.kind, "x" * max(1, field.low))
