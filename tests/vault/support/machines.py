"""Machines for tests: enrolled, pending, or registered directly with grants, and tokens that enroll them."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.served_vault import Agent, Reply, Vault, encoded, exchange, public_bytes
from vault.domains import machines, project_machines

TOKENS = "/v1/ai/enrollment-tokens"
HOUR_S = 3600


class Machine(Agent):
    """A machine. It signs like an agent, and reads secrets by their id or by their path for agents."""

    def read(self, secret: str) -> Reply:
        """Read one secret."""
        return self.send("GET", f"/v1/secret/{secret.rpartition('/')[2]}")

    def value(self, secret: str) -> str:
        """The value of a secret that the machine may read."""
        reply = self.read(secret)
        assert reply.status == 200, reply
        return str(reply.json["value"])

    def poll(self, *secrets: str) -> Any:
        """The status of each changed secret."""
        ids = [secret.rpartition("/")[2] for secret in secrets]
        changes = self.post("/v1/secrets/poll", {"watch": ids})["changes"]
        return {key: change["status"] for key, change in changes.items()}


def token_body(**changed: Any) -> dict[str, Any]:
    """The body that creates an enrollment token."""
    plain = {"name": "ci", "projectIds": [], "secretIds": [], "maxUses": 1}
    return {**plain, "tokenLifetimeSeconds": HOUR_S, "machineLifetimeSeconds": HOUR_S, **changed}


def enroll(vault: Vault, token: str, key: Any = None, **more: Any) -> Reply:
    """The reply to an enrollment."""
    known = public_bytes(key or Ed25519PrivateKey.generate())
    body = encoded({"token": token, "publicKey": known, "hostname": "runner-7", **more})
    path = f"/v1/{vault.store.vault_id}/enroll/register"
    return exchange(vault.port, "POST", path, body, [("Content-Type", "application/json")])


def enrolled_machine(vault: Vault, agent: Agent, secrets: list[str], **changed: Any) -> Machine:
    """An enrolled machine with grants for these secrets, given by their paths for agents."""
    projects = {path.split("/")[4] for path in secrets}
    ids = [path.rpartition("/")[2] for path in secrets]
    body = {"projectIds": sorted(projects), "secretIds": ids, **changed}
    key = Ed25519PrivateKey.generate()
    reply = enroll(vault, agent.post(TOKENS, token_body(**body))["token"], key)
    assert reply.status == 200, reply
    return Machine(vault.port, vault.clock, reply.json["machineId"], key)


def pending_machine(vault: Vault, name: str = "web-1", **more: Any) -> Machine:
    """A standard machine that is not approved yet."""
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes_raw()
    known = {"kind": "standard", "hostname": "web-1.example", "public_key": raw, **more}
    with vault.store.transaction() as db:
        machine_id = machines.register(db, vault.clock(), name, **known)
    return Machine(vault.port, vault.clock, machine_id, key)


def granted_machine(vault: Vault, *secrets: str) -> Machine:
    """An approved standard machine with a grant for each secret, without any audit entry."""
    machine = pending_machine(vault, hostname="host")
    with vault.store.transaction() as db:
        db.execute("UPDATE machines SET approved_ms = ? WHERE id = ?", (vault.clock(), machine.id))
    for secret in secrets:
        grant(vault, machine, secret)
    return machine


def grant(vault: Vault, machine: Machine, secret: str) -> None:
    """Add a machine to the project of a secret, and grant it the secret."""
    secret_id = secret.rpartition("/")[2]
    with vault.store.transaction() as db:
        project_id = db.execute("SELECT project_id FROM secrets WHERE id = ?", (secret_id,)).fetchone()[0]
        db.execute("INSERT OR IGNORE INTO project_machines VALUES (?, ?, ?)", (project_id, machine.id, vault.clock()))
        project_machines.grant(db, vault.clock(), machine.id, secret_id)
