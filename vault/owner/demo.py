"""A small project to look at: secrets of each kind, a policy, a canary, and a machine that has read.

Everything is made through the API as the owner, so the audit log shows how it was made.
"""

from __future__ import annotations

import base64
import json
import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.datastructures import Headers

from vault import audit, gate
from vault.app import VaultApp
from vault.desk import Desk
from vault.domains import machines
from vault.domains.secrets import GeneratorOptions, generate_string
from vault.errors import VaultError
from vault.router import OWNER, Received

PROJECT = "Webshop"
DAY_S = 24 * 3600


def fill(desk: Desk, app: VaultApp) -> str:
    """Make the project, and return its id. The machine's key is discarded after it has read."""
    project = desk.call("POST", "/v1/ai/projects", {"name": PROJECT, "description": "a demo: nothing here is real"})[
        "id"
    ]
    stripe, database = _make_secrets(desk, project)
    caps = {"rateCapEnabled": True, "maxReadsPerMinute": 10, "maxReadsPerDay": 1_000}
    policy = desk.call("POST", f"/v1/ai/projects/{project}/policies", {"name": "Read rarely", **caps})["id"]
    desk.call("POST", f"/v1/ai/secrets/{stripe}/binding", {"policyId": policy})
    desk.call("POST", "/v1/ai/canaries", {"projectId": project, "name": "ROOT_PASSWORD"})
    _read_once(desk, app, project, [stripe, database])
    return str(project)


def _make_secrets(desk: Desk, project: str) -> tuple[str, str]:
    """The secrets of the project. Returns the ids of those that the machine reads."""
    path = f"/v1/ai/projects/{project}/secrets"
    stripe = {"name": "STRIPE_API_KEY", "value": _generated(), "note": "for payments; owned by the checkout team"}
    database = {
        "name": "DATABASE",
        "value": json.dumps({"host": "db.webshop.example", "user": "shop", "password": _generated()}),
        "fieldNames": ["host", "user", "password"],
        "note": "the shop's own database",
    }
    smtp = {"name": "SMTP_PASSWORD", "value": _generated()}
    ids = [str(desk.call("POST", path, body)["id"]) for body in (stripe, database, smtp)]
    session = {"projectId": project, "name": "SESSION_KEY", "intervalSeconds": DAY_S, "note": "rotates every day"}
    desk.call("POST", "/v1/ai/dynamic-secrets", session)
    return ids[0], ids[1]


def _generated() -> str:
    return generate_string(GeneratorOptions(charset="alphanumeric"))


def _read_once(desk: Desk, app: VaultApp, project: str, secret_ids: list[str]) -> None:
    """Let a new machine read each of the secrets once."""
    key = Ed25519PrivateKey.generate()
    public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    with desk.transaction() as db:
        machine = machines.register(
            db, desk.clock(), "web-1", kind="standard", hostname="web-1.webshop.example", public_key=public_key
        )
        detail = f"machine {machine} registered as web-1, pending approval"
        audit.record(db, desk.clock(), OWNER, "machine_register", detail)
    desk.call("POST", f"/v1/ai/machines/{machine}/approve")
    members = f"/v1/ai/projects/{project}/machines"
    desk.call("POST", members, {"machineId": machine})
    desk.call("POST", f"{members}/{machine}/grants", {"secretIds": secret_ids})
    for secret_id in secret_ids:
        answer = app.answer(_signed(key, machine, f"/v1/secret/{secret_id}", desk.clock()))
        if answer.status != 200:
            raise VaultError(f"the demo's machine could not read: status {answer.status}", "see the audit log")


def _signed(key: Ed25519PrivateKey, machine_id: str, path: str, now_ms: int) -> Received:
    """A read as the machine's client sends it."""
    proof = {"x-machine-id": machine_id, "x-timestamp": str(now_ms // 1000), "x-nonce": secrets.token_hex(16)}
    unsigned = Received("GET", path, b"", Headers(proof), b"", "127.0.0.1", "")
    signature = base64.b64encode(key.sign(gate.signed_text(unsigned))).decode()
    return unsigned._replace(headers=Headers({**proof, "x-signature": signature}))
