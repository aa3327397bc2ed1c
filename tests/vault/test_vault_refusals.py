"""Refused requests of unknown senders are counted, not written to the audit log one by one."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.machines import enroll
from tests.vault.support.served_vault import Agent, FakeClock, Vault, exchange, run_job
from vault import refusals
from vault.app import create_app
from vault.domains import agents
from vault.errors import UnprovenDenied
from vault.router import Actor
from vault.schema import ROUTES

WHOAMI = "/v1/ai/whoami"


def failures(vault: Vault) -> list[tuple[str | None, str]]:
    return [(row["agent_id"], row["detail"]) for row in vault.audited("auth_failure")]


def tick(vault: Vault) -> None:
    run_job(refusals.report_due, vault.store, vault.clock())


def test_a_flood_of_unsigned_requests_is_one_entry_and_a_count(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    for number in range(60):
        path = WHOAMI if number else "/v1/ai/projects"
        assert exchange(vault.port, "GET", path, b"", [("X-Agent-Id", f"nobody-{number}")]).status == 401
    first = (None, "GET /v1/ai/projects: unknown identity")
    assert failures(vault) == [first]
    tick(vault)
    assert failures(vault) == [first]
    clock.advance(60)
    tick(vault)
    tick(vault)
    assert failures(vault) == [first, (None, "59 more refused requests within one minute: unknown identity")]
    assert {row["source_ip"] for row in vault.audited("auth_failure")} == {"127.0.0.1"}
    assert agent.get(WHOAMI)["recentAudit"] == []


def test_what_is_pending_or_disabled_cannot_fill_the_log(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    pending = vault.pending()
    with vault.store.transaction() as db:
        agents.set_enabled(db, clock(), agent.id, enabled=False)
    for _ in range(20):
        assert (pending.send("GET", WHOAMI).status, agent.send("GET", WHOAMI).status) == (403, 403)
    clock.advance(60)
    tick(vault)
    count = "19 more refused requests within one minute: Agent is"
    assert sorted(failures(vault)) == sorted(
        [
            (pending.id, "GET /v1/ai/whoami: Agent is pending approval"),
            (agent.id, "GET /v1/ai/whoami: Agent is disabled"),
            (pending.id, f"{count} pending approval"),
            (agent.id, f"{count} disabled"),
        ]
    )


def test_each_kind_of_unproven_request_has_its_first_entry(vault: Vault, agent: Agent) -> None:
    other = vault.agent()
    agent.send("GET", WHOAMI, nonce="n" * 20)
    for _ in range(3):
        agent.send("GET", WHOAMI, signature="AAAA")
        other.send("GET", WHOAMI, signature="AAAA")
        agent.send("GET", WHOAMI, timestamp="1")
        agent.send("GET", WHOAMI, nonce="n" * 20)
        vault.register("f" * 64, Ed25519PrivateKey.generate())
        enroll(vault, "f" * 64)
    where = "GET /v1/ai/whoami: "
    assert failures(vault) == [
        (agent.id, where + "bad signature"),
        (other.id, where + "bad signature"),
        (agent.id, where + "the timestamp is more than 300 seconds off"),
        (agent.id, where + "the nonce was used before"),
        (None, "POST /v1/ai-bootstrap/register: the bootstrap token is unknown, used or expired"),
        (None, "POST /v1/{vaultId}/enroll/register: the enrollment token is unknown, revoked, used up or expired"),
    ]


def test_what_an_agent_signed_is_audited_each_time(vault: Vault) -> None:
    weak = vault.agent(("projects.read",))
    for _ in range(3):
        weak.send("POST", "/v1/ai/projects", {"name": "x"})
    assert failures(vault) == [(weak.id, "POST /v1/ai/projects: the agent lacks the scope projects.write")] * 3


def test_open_routes_of_a_sealed_vault_are_counted(vault: Vault) -> None:
    vault.store.seal(vault.clock())
    for _ in range(3):
        assert exchange(vault.port, "GET", "/s/" + "x" * 43, b"", []).status == 503
    assert len(vault.audited("vault_sealed_refusal")) == 1


def test_many_addresses_share_an_entry(vault: Vault, clock: FakeClock) -> None:
    with vault.store.transaction() as db:
        for minute in (0, 1, -1):  # also if the clock is set back
            for number in range(200):
                actor = Actor("external", None, f"127.0.0.{number}")
                now_ms = clock() + 60_000 * minute
                refusals.record(db, now_ms, actor, UnprovenDenied(401, "unknown identity"), "GET /x")
    details = [detail for _, detail in failures(vault)]
    assert len(details) == 3 * (refusals.MAX_KINDS + 1) + 2
    assert [detail for detail in details if "many" in detail or "more" in detail][:2] == [
        "GET /x: refused, one of many in this minute",
        "179 more refused requests within one minute: from other addresses or for other reasons",
    ]


def test_a_host_of_somebody_else_is_refused_on_every_route(vault: Vault, agent: Agent) -> None:
    for route in ROUTES:
        path = route.path.replace("{", "").replace("}", "")
        headers = [("Host", f"evil.example:{vault.port}"), *agent.headers(route.method, path)]
        reply = exchange(vault.port, route.method, path, b"", headers)
        assert (reply.status, "Host" in reply.error) == (421, True), route.path
    for host in ("localhost.evil.example", "user@localhost", "127.0.0.1.nip.io", "localhost.", "10.0.0.1"):
        assert exchange(vault.port, "GET", WHOAMI, b"", [("Host", host)]).status == 421, host
    assert exchange(vault.port, "GET", "/nowhere", b"", [("Host", "evil.example")]).status == 421
    assert vault.audited("auth_failure") == []


def test_the_vaults_own_hosts_are_accepted(vault: Vault, agent: Agent) -> None:
    vault._shared_server.app = create_app(vault.store, clock=vault.clock, public_url="https://Vault.example:8443")
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", f"127.0.0.1:{vault.port}", "[::1]:9", "vault.example"):
        headers = [("Host", host), *agent.headers("GET", WHOAMI)]
        assert exchange(vault.port, "GET", WHOAMI, b"", headers).status == 200, host
