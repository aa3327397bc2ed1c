"""Registration of agents: the one-time token, the public key, and whoami."""

from __future__ import annotations

import base64
import threading

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.served_vault import ALL, Agent, FakeClock, Vault, disk, encoded, exchange, public_bytes
from vault.domains.identities import FIELD, ORDER_8_Y

REGISTER = "/v1/ai-bootstrap/register"
JSON = [("Content-Type", "application/json")]


def test_a_token_makes_a_pending_agent(vault: Vault) -> None:
    reply = vault.register(vault.token(), Ed25519PrivateKey.generate(), name="Claude")
    assert reply.status == 201
    assert reply.json == {"agentId": reply.json["agentId"], "name": "Claude", "vaultId": vault.store.vault_id}
    assert vault.store.vault_id.startswith("vault_")
    assert len(reply.json["agentId"]) == 36


def test_the_name_falls_back_to_the_token_and_then_to_a_default(vault: Vault) -> None:
    assert vault.register(vault.token(name="Bob"), Ed25519PrivateKey.generate()).json["name"] == "Bob"
    assert vault.register(vault.token(), Ed25519PrivateKey.generate()).json["name"] == "AI agent"


def test_whoami_returns_the_agents_record(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    known = agent.get("/v1/ai/whoami")
    recent = known.pop("recentAudit")
    assert known == {
        "agentId": agent.id,
        "name": "AI agent",
        "vaultId": vault.store.vault_id,
        "approved": True,
        "enabled": True,
        "scopes": list(ALL),
        "projectAllowlist": None,
    }
    assert [(entry["action"], entry["aiAgentId"]) for entry in recent] == [("project_create", agent.id)]
    assert vault.agent(("audit.read",), [project_id]).get("/v1/ai/whoami")["projectAllowlist"] == [project_id]


def test_whoami_shows_the_last_20_entries(agent: Agent) -> None:
    for number in range(22):
        agent.project(f"p{number}")
    details = [entry["detail"] for entry in agent.get("/v1/ai/whoami")["recentAudit"]]
    assert [detail.rpartition(" ")[2] for detail in details] == [f"p{number}" for number in range(21, 1, -1)]


def test_a_token_works_once_with_20_concurrent_registrations(vault: Vault) -> None:
    token, replies = vault.token(), []
    gate = threading.Barrier(20)

    def race() -> None:
        key = Ed25519PrivateKey.generate()
        gate.wait()
        replies.append(vault.register(token, key).status)

    threads = [threading.Thread(target=race) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == [201] + [401] * 19


def test_a_token_expires_after_a_day(vault: Vault, clock: FakeClock) -> None:
    token = vault.token()
    clock.advance(24 * 3600)
    assert vault.register(token, Ed25519PrivateKey.generate()).status == 401


def test_an_unknown_token_is_audited_without_its_value(vault: Vault) -> None:
    token = "ab" * 32
    reply = vault.register(token, Ed25519PrivateKey.generate())
    assert (reply.status, reply.error) == (401, "the bootstrap token is unknown, used or expired")
    assert [row["actor_kind"] for row in vault.audited("auth_failure")] == ["external"]
    assert token.encode() not in disk(vault.directory)


def test_the_token_is_stored_as_a_hash_only(vault: Vault) -> None:
    token = vault.token()
    vault.register(token, Ed25519PrivateKey.generate())
    assert token.encode() not in disk(vault.directory)
    assert bytes.fromhex(token) not in disk(vault.directory)


def test_a_malformed_token_is_a_bad_request(vault: Vault) -> None:
    for token in ["", "ab", "AB" * 32, "g" * 64, "a" * 65, "a" * 64 + "\n"]:
        assert vault.register(token, Ed25519PrivateKey.generate()).status == 400, token


# The eight points of small order, and second spellings: y coordinates that are not below the size of the field.
UNSAFE_KEYS = [
    (y + sign).to_bytes(32, "little")
    for y in (0, 1, FIELD - 1, ORDER_8_Y, FIELD - ORDER_8_Y, FIELD, FIELD + 1, FIELD + 5, 2**255 - 1)
    for sign in (0, 2**255)
]


def test_a_bad_public_key_does_not_use_up_the_token(vault: Vault) -> None:
    for public_key in [
        "",
        "AAAA",
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        "*" * 44,
        "ø",
        *(base64.b64encode(key).decode() for key in UNSAFE_KEYS),
    ]:
        token = vault.token()
        body = encoded({"token": token, "publicKey": public_key})
        assert exchange(vault.port, "POST", REGISTER, body, JSON).status == 400, public_key
        assert vault.register(token, Ed25519PrivateKey.generate()).status == 201, public_key


def test_one_key_cannot_be_two_agents(vault: Vault) -> None:
    key, token = Ed25519PrivateKey.generate(), vault.token()
    vault.register(vault.token(), key)
    assert vault.register(token, key).status == 409
    assert vault.register(token, Ed25519PrivateKey.generate()).status == 201


def test_registration_takes_known_keys_only(vault: Vault) -> None:
    body = encoded({"token": vault.token(), "publicKey": public_bytes(Ed25519PrivateKey.generate()), "scopes": ["all"]})
    reply = exchange(vault.port, "POST", REGISTER, body, JSON)
    assert (reply.status, reply.error) == (400, "unknown key scopes: this route takes token, publicKey, name")
