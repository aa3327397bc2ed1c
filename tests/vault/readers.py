"""Machines for the tests of what happens when secrets are read: there at once, approved, and granted."""

from __future__ import annotations

import base64
import uuid

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.harness import Agent, Reply, Vault, public_bytes


class Reader(Agent):
    """A machine: it signs like an agent, and reads."""

    def read(self, secret: str) -> Reply:
        """Ask for a value, by the secret's id or by its path on the agents' side."""
        return self.send("GET", f"/v1/secret/{secret.rpartition('/')[2]}")

    def value(self, secret: str) -> str:
        reply = self.read(secret)
        assert reply.status == 200, reply
        return str(reply.json["value"])


def reader(vault: Vault, *secrets: str) -> Reader:
    """A machine with a grant for each secret, and a member of their projects."""
    key = Ed25519PrivateKey.generate()
    machine = Reader(vault.port, vault.clock, str(uuid.uuid4()), key)
    with vault.store.transaction() as db:
        db.execute(
            "INSERT INTO machines (id, name, kind, hostname, public_key, approved_ms, created_ms)"
            " VALUES (?, 'web-1', 'standard', 'host', ?, ?, ?)",
            (machine.id, base64.b64decode(public_bytes(key)), vault.clock(), vault.clock()),
        )
    for secret in secrets:
        grant(vault, machine, secret)
    return machine


def grant(vault: Vault, machine: Reader, secret: str) -> None:
    """Let a machine read a secret."""
    secret_id = secret.rpartition("/")[2]
    with vault.store.transaction() as db:
        project_id = db.execute("SELECT project_id FROM secrets WHERE id = ?", (secret_id,)).fetchone()[0]
        db.execute("INSERT OR IGNORE INTO project_machines VALUES (?, ?, ?)", (project_id, machine.id, vault.clock()))
        db.execute("INSERT INTO grants VALUES (?, ?, ?)", (machine.id, secret_id, vault.clock()))
