"""Authentication: the signature, and the order of the checks."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.datastructures import Headers

from tests.vault.support.served_vault import NONCES, Agent, FakeClock, Vault, exchange, signature
from vault.domains import agents
from vault.gate import signed_text, verify
from vault.router import Received

WHOAMI = "/v1/ai/whoami"
DAY_S = 24 * 3600
CLOCK_SET_BACK = "the nonces of this time are forgotten: the vault's clock was set back"
VECTOR_KEY = base64.b64decode("A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=")
VECTORS = [
    (
        "GET",
        WHOAMI,
        "",
        "vdeXplEoO2Jdil7pqnJ7sTkBg2NsLl4WGrlKUvr/go6RPWXIFrxcRRNrvvFR8QkN9rGL8L9U1tEVfOPCLhO4Ag==",
    ),
    (
        "POST",
        "/v1/ai/projects/proj_a1b2c3d4e5/secrets",
        '{"name":"søger <nøgle>","value":"hunter2"}',
        "eXKg14pw725+2xa1+xkXPGXmZhMN2grg6JMTFVUhfXqgv1smRmJq/mUFOQVaRcOq9Uhao8hlRWNGo6oRQ8ULBw==",
    ),
]


def test_the_vectors_of_the_contract_verify() -> None:
    headers = Headers({"x-timestamp": "1767225600", "x-nonce": "00112233445566778899aabbccddeeff"})
    for method, path, body, expected in VECTORS:
        received = Received(method, path, b"", headers, body.encode(), None, "http://localhost")
        assert verify(VECTOR_KEY, expected, signed_text(received)), path
        assert not verify(VECTOR_KEY, expected, signed_text(received._replace(method="PUT"))), path


def test_either_identity_header_is_accepted(agent: Agent) -> None:
    for name in ("X-Agent-Id", "X-Machine-Id"):
        headers = [pair for pair in agent.headers("GET", WHOAMI) if not pair[0].endswith("-Id")]
        assert exchange(agent.port, "GET", WHOAMI, b"", [(name, agent.id), *headers]).status == 200


def test_two_identities_that_differ_are_refused(vault: Vault, agent: Agent) -> None:
    other = vault.agent()
    headers = [(name, other.id if name == "X-Machine-Id" else text) for name, text in agent.headers("GET", WHOAMI)]
    reply = exchange(agent.port, "GET", WHOAMI, b"", headers)
    assert (reply.status, reply.error) == (401, "the identity headers differ")


def test_a_request_without_one_of_the_headers_is_refused(agent: Agent) -> None:
    for drop in ["X-Timestamp", "X-Nonce", "X-Signature", "-Id"]:
        headers = [pair for pair in agent.headers("GET", WHOAMI) if not pair[0].endswith(drop)]
        assert exchange(agent.port, "GET", WHOAMI, b"", headers).status == 401, drop


def test_an_unknown_identity_is_refused_first(agent: Agent) -> None:
    unknown = Agent(agent.port, agent.clock, "11111111-2222-3333-4444-555555555555", Ed25519PrivateKey.generate())
    assert unknown.send("GET", WHOAMI, timestamp="1").error == "unknown identity"


@pytest.mark.parametrize("offset_s", [-300, 300])
def test_a_clock_five_minutes_off_is_accepted(agent: Agent, clock: FakeClock, offset_s: int) -> None:
    clock.now_ms += 999  # a fraction of a second must not shrink the window
    assert agent.send("GET", WHOAMI, timestamp=str(clock() // 1000 + offset_s)).status == 200


@pytest.mark.parametrize("offset_s", [-301, 301])
def test_a_timestamp_outside_the_window_is_refused_before_the_signature(
    agent: Agent, clock: FakeClock, offset_s: int
) -> None:
    reply = agent.send("GET", WHOAMI, timestamp=str(clock() // 1000 + offset_s), signature="AAAA")
    assert (reply.status, reply.error) == (401, "the timestamp is more than 300 seconds off")
    assert "date" in reply.headers


def test_a_timestamp_that_is_no_number_is_refused(agent: Agent) -> None:
    for timestamp in ["", "now", "1767225600.0", "-1", "1" * 13, "1٧67225600".encode().decode("latin-1")]:
        assert agent.send("GET", WHOAMI, timestamp=timestamp).error == "the timestamp is not a number of seconds", (
            timestamp
        )


def test_a_signature_over_anything_else_is_refused(vault: Vault, agent: Agent) -> None:
    path = "/v1/ai/projects"
    good = agent.headers("POST", path, b'{"name":"a"}')
    assert exchange(agent.port, "POST", path, b'{"name":"b"}', good).error == "bad signature"
    assert exchange(agent.port, "GET", path, b"", good).error == "bad signature"
    mine = dict(agent.headers("GET", path))["X-Signature"]
    assert vault.agent().send("GET", path, signature=mine).error == "bad signature"
    assert agent.get(path) == []


def test_a_malformed_signature_is_refused(agent: Agent) -> None:
    for forged in ["", "AAAA", "not base64", base64.b64encode(bytes(64)).decode()]:
        assert agent.send("GET", WHOAMI, signature=forged).error == "bad signature", forged
    headers = dict(agent.headers("GET", WHOAMI))
    good = headers.pop("X-Signature")
    for forged in ("!" + good, good[:40] + " " + good[40:], good + "="):
        reply = exchange(agent.port, "GET", WHOAMI, b"", [*headers.items(), ("X-Signature", forged)])
        assert reply.error == "bad signature", forged
    assert exchange(agent.port, "GET", WHOAMI, b"", [*headers.items(), ("X-Signature", good)]).status == 200


def test_a_replayed_request_is_refused(agent: Agent) -> None:
    headers = agent.headers("GET", WHOAMI)
    assert exchange(agent.port, "GET", WHOAMI, b"", headers).status == 200
    replayed = exchange(agent.port, "GET", WHOAMI, b"", headers)
    assert (replayed.status, replayed.error) == (401, "the nonce was used before")


def test_a_forged_request_does_not_use_up_the_nonce(agent: Agent) -> None:
    nonce = NONCES.next()
    forger = Agent(agent.port, agent.clock, agent.id, Ed25519PrivateKey.generate())
    assert forger.send("GET", WHOAMI, nonce=nonce).error == "bad signature"
    assert agent.send("GET", WHOAMI, nonce=nonce).status == 200


def test_requests_may_arrive_out_of_order(agent: Agent, clock: FakeClock) -> None:
    early = agent.headers("GET", WHOAMI)
    clock.advance(60)
    assert agent.send("GET", WHOAMI).status == 200
    assert exchange(agent.port, "GET", WHOAMI, b"", early).status == 200


def test_a_refused_request_cannot_be_sent_again(vault: Vault) -> None:
    agent = vault.pending()
    headers = agent.headers("GET", WHOAMI)
    assert exchange(vault.port, "GET", WHOAMI, b"", headers).status == 403
    with vault.store.transaction() as db:
        agents.approve_as_owner(db, vault.clock(), agent.id)
    assert exchange(vault.port, "GET", WHOAMI, b"", headers).error == "the nonce was used before"


def test_a_nonce_is_kept_while_its_signature_is_valid(agent: Agent, clock: FakeClock) -> None:
    headers = agent.headers("GET", WHOAMI, timestamp=str(clock() // 1000 + 300))
    assert exchange(agent.port, "GET", WHOAMI, b"", headers).status == 200
    clock.advance(600)
    assert exchange(agent.port, "GET", WHOAMI, b"", headers).error == "the nonce was used before"
    clock.advance(1)
    assert exchange(agent.port, "GET", WHOAMI, b"", headers).error == "the timestamp is more than 300 seconds off"


def nonce_count(vault: Vault) -> int:
    with vault.store.transaction() as db:
        return int(db.execute("SELECT COUNT(*) FROM nonces").fetchone()[0])


def test_old_nonces_are_deleted(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    agent.get(WHOAMI)
    agent.get(WHOAMI)
    clock.advance(DAY_S + 1)
    agent.get(WHOAMI)
    assert nonce_count(vault) == 1


@pytest.mark.parametrize("hours", [1, 23, 24 * 365])
def test_a_request_cannot_be_replayed_after_the_clock_is_set_back(
    vault: Vault, agent: Agent, clock: FakeClock, hours: int
) -> None:
    """The clock is wrong for a moment, other requests arrive, and the clock is right again."""
    headers = agent.headers("GET", WHOAMI)
    assert exchange(vault.port, "GET", WHOAMI, b"", headers).status == 200
    clock.advance(hours * 3600)
    assert agent.send("GET", WHOAMI).status == 200
    clock.advance(-hours * 3600)
    reply = exchange(vault.port, "GET", WHOAMI, b"", headers)
    known = "the nonce was used before" if hours < 24 else CLOCK_SET_BACK
    assert (reply.status, reply.error) == (401, known)
    clock.advance(300)
    assert agent.send("GET", WHOAMI).status == 200


def test_a_clock_that_was_ahead_for_days_does_not_lock_the_vault(agent: Agent, clock: FakeClock) -> None:
    clock.advance(365 * DAY_S)
    for _ in range(4):
        agent.get(WHOAMI)
        clock.advance(DAY_S)
    clock.advance(-365 * DAY_S)
    agent.get(WHOAMI)


def test_a_nonce_has_16_to_128_printable_characters(agent: Agent) -> None:
    for nonce, status in [("n" * 15, 401), ("n" * 16, 200), ("n" * 128, 200), ("n" * 129, 401), ("n" * 16 + " n", 401)]:
        assert agent.send("GET", WHOAMI, nonce=nonce).status == status, (nonce, status)


def test_a_pending_agent_and_a_disabled_one_are_refused(vault: Vault) -> None:
    agent = vault.pending()
    assert agent.send("GET", WHOAMI).error == "Agent is pending approval"
    with vault.store.transaction() as db:
        agents.approve_as_owner(db, vault.clock(), agent.id)
        agents.set_enabled(db, vault.clock(), agent.id, enabled=False)
    reply = agent.send("GET", WHOAMI)
    assert (reply.status, reply.json) == (403, {"error": "Agent is disabled"})
    with vault.store.transaction() as db:
        agents.set_enabled(db, vault.clock(), agent.id, enabled=True)
    assert agent.send("GET", WHOAMI).status == 200


def test_a_missing_scope_is_named(vault: Vault) -> None:
    reply = vault.agent(("projects.read",)).send("POST", "/v1/ai/projects", {"name": "x"})
    expected = {"error": "the agent lacks the scope projects.write", "requiredScopes": ["projects.write"]}
    assert (reply.status, reply.json) == (403, expected)


def test_an_agent_reaches_only_projects_on_its_allowlist(vault: Vault, agent: Agent) -> None:
    mine, other = agent.project("mine"), agent.project("other")
    foreign = agent.secret(other, "x")
    narrow = vault.agent(projects=[mine])
    assert [project["id"] for project in narrow.get("/v1/ai/projects")] == [mine]
    for project_id in (other, "proj_doesnotexist"):
        reply = narrow.send("GET", f"/v1/ai/projects/{project_id}/secrets")
        assert (reply.status, reply.error) == (403, "the project is not on the agent's allowlist")
    for secret_id in (foreign.rpartition("/")[2], "sk_doesnotexist00"):
        assert narrow.send("GET", f"/v1/ai/dynamic-secrets/{secret_id}").status == 403
        body = {"secretId": secret_id, "intervalSeconds": 300}
        assert narrow.send("POST", "/v1/ai/dynamic-secrets", body).status == 403
    assert narrow.send("GET", foreign.replace(other, mine)).status == 403


def test_the_allowlist_comes_before_the_scope(vault: Vault, agent: Agent) -> None:
    mine, other = agent.project(), agent.project()
    narrow = vault.agent(("audit.read",), [mine])
    assert "requiredScopes" not in narrow.send("GET", f"/v1/ai/projects/{other}/secrets").json
    assert "requiredScopes" in narrow.send("GET", f"/v1/ai/projects/{mine}/secrets").json


def test_a_new_project_joins_the_allowlist_of_its_creator(vault: Vault, agent: Agent) -> None:
    narrow = vault.agent(projects=[agent.project()])
    made = narrow.project("made")
    assert made in narrow.get(WHOAMI)["projectAllowlist"]
    assert narrow.get(f"/v1/ai/projects/{made}/secrets") == []


def test_an_empty_allowlist_still_restricts(vault: Vault, agent: Agent) -> None:
    mine = agent.project("mine")
    narrow = vault.agent(projects=[mine])
    agent.project("other")
    agent.post(f"/v1/ai/projects/{mine}/delete", {"confirmName": "mine"})
    assert narrow.get(WHOAMI)["projectAllowlist"] == []
    assert narrow.get("/v1/ai/projects") == []


def test_denied_requests_are_audited(vault: Vault, agent: Agent) -> None:
    weak = vault.agent(("projects.read",))
    weak.send("POST", "/v1/ai/projects", {"name": "x"})
    agent.send("GET", WHOAMI, signature="AAAA")
    Agent(vault.port, vault.clock, "nobody", Ed25519PrivateKey.generate()).send("GET", WHOAMI)
    seen = [(row["actor_kind"], row["agent_id"], row["detail"]) for row in vault.audited("auth_failure")]
    assert seen == [
        ("ai_agent", weak.id, "POST /v1/ai/projects: the agent lacks the scope projects.write"),
        ("ai_agent", agent.id, "GET /v1/ai/whoami: bad signature"),
        ("external", None, "GET /v1/ai/whoami: unknown identity"),
    ]


def test_a_query_string_on_a_signed_route_is_refused(agent: Agent) -> None:
    for path in (WHOAMI + "?a=1", WHOAMI + "?%20"):
        assert agent.send("GET", path).error == "a signed route takes no query string"


def test_a_path_has_one_spelling(agent: Agent) -> None:
    for path in ["/v1/ai/%77hoami", "/v1/ai/./whoami", "/v1//ai/whoami", "/v1/ai/whoami/", "/V1/ai/whoami"]:
        assert agent.send("GET", path).status == 404, path


def test_a_signature_for_the_decoded_path_is_invalid(agent: Agent) -> None:
    signed = signature(agent.key, "GET", WHOAMI, str(agent.clock() // 1000), "n" * 20, body=b"")
    assert agent.send("GET", "/v1/ai/who%61mi", nonce="n" * 20, signature=signed).status == 404
