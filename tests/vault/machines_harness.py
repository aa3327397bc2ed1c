"""Machines for the tests: enrolled ones that sign by the contract, and tokens that enroll them."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.harness import Agent, Reply, Vault, encoded, exchange, public_bytes
from vault import machines

TOKENS = "/v1/ai/enrollment-tokens"
HOUR_S = 3600


class Machine(Agent):
    """Signs like an agent; a machine is told apart by where its id leads."""

    def read(self, secret: str) -> Reply:
        """One secret, by its id or by its path on the agents' side."""
        return self.send("GET", f"/v1/secret/{secret.rpartition('/')[2]}")

    def poll(self, *secrets: str) -> Any:
        ids = [secret.rpartition("/")[2] for secret in secrets]
        changes = self.post("/v1/secrets/poll", {"watch": ids})["changes"]
        return {key: change["status"] for key, change in changes.items()}


def token_body(**changed: Any) -> dict[str, Any]:
    plain = {"name": "ci", "projectIds": [], "secretIds": [], "maxUses": 1}
    return {**plain, "tokenLifetimeSeconds": HOUR_S, "machineLifetimeSeconds": HOUR_S, **changed}


def enroll(vault: Vault, token: str, key: Any = None, **more: Any) -> Reply:
    """What the vault answers to somebody who holds a token."""
    known = public_bytes(key or Ed25519PrivateKey.generate())
    body = encoded({"token": token, "publicKey": known, "hostname": "runner-7", **more})
    path = f"/v1/{vault.store.vault_id}/enroll/register"
    return exchange(vault.port, "POST", path, body, [("Content-Type", "application/json")])


def enrolled(vault: Vault, agent: Agent, secrets: list[str], **changed: Any) -> Machine:
    """A machine that may read these secrets, given by their paths on the agents' side."""
    projects = {path.split("/")[4] for path in secrets}
    ids = [path.rpartition("/")[2] for path in secrets]
    body = {"projectIds": sorted(projects), "secretIds": ids, **changed}
    key = Ed25519PrivateKey.generate()
    reply = enroll(vault, agent.post(TOKENS, token_body(**body))["token"], key)
    assert reply.status == 200, reply
    return Machine(vault.port, vault.clock, reply.json["machineId"], key)


def waiting(vault: Vault, name: str = "web-1", **more: Any) -> Machine:
    """A standard machine that nobody has approved yet."""
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes_raw()
    known = {"kind": "standard", "hostname": "web-1.example", "public_key": raw, **more}
    with vault.store.transaction() as db:
        machine_id = machines.register(db, vault.clock(), name, **known)
    return Machine(vault.port, vault.clock, machine_id, key)
