"""The dashboard's pages about AI agents and their tokens."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.dashboard import Browser, SignedIn
from tests.vault.support.dashboard_data import by_owner
from tests.vault.support.pages import HOSTILE, is_harmless, message, ticked
from tests.vault.support.served_vault import Agent, Spawned, Vault, exchange
from vault.control import ask
from vault.dashboard.pages import reach
from vault.dashboard.queries.listings import PAGE_SIZE
from vault.domains import agents


def fingerprint(vault: Vault, agent: Agent) -> str:
    with vault.store.transaction() as db:
        return str(agents.describe(db, agent.id)["fingerprint"])


def test_groups_of_scopes_hold_every_scope_once() -> None:
    listed = [scope for _, scopes in reach.SCOPE_GROUPS for scope, _ in scopes]
    assert sorted(listed) == sorted(agents.SCOPES)


def test_no_agents_yet(signed_in: SignedIn) -> None:
    page = signed_in.text("/agents")
    assert "No agents yet" in page
    assert '/dashboard/agents/tokens"' in page


def test_an_agent_that_waits_is_shown_with_its_key_and_scopes_and_approved(vault: Vault, signed_in: SignedIn) -> None:
    pending = vault.pending(("projects.read", "aiagents.write"))
    page = signed_in.text("/agents")
    waiting = page[page.index('id="waiting"') : page.index("</section>")]
    assert "1 agent is waiting for your approval" in waiting
    assert fingerprint(vault, pending) in waiting
    assert "projects.read aiagents.write" in waiting
    assert "leads to plaintext: aiagents.write" in waiting
    assert signed_in.post(f"/agents/{pending.id}/approve", {"from": "list"}) == "/agents"
    page = signed_in.text("/agents")
    assert message(page) == "Approved AI agent."
    assert "waiting for your approval" not in page
    assert pending.get("/v1/ai/whoami")["approved"]
    assert by_owner(vault, "ai_agent_approve") == [f"agent {pending.id} approved"]


def test_an_agent_is_denied(vault: Vault, signed_in: SignedIn) -> None:
    pending = vault.pending()
    assert signed_in.post(f"/agents/{pending.id}/deny") == "/agents"
    assert by_owner(vault, "ai_agent_deny") == [f"agent {pending.id} (AI agent) denied"]
    assert signed_in.get(f"/agents/{pending.id}").status == 404
    status, problem = signed_in.refused(f"/agents/{vault.agent().id}/deny")
    assert (status, problem) == (409, "The agent is not pending, it is approved.")


def test_an_agent_is_disabled_and_enabled(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    path = f"/agents/{agent.id}"
    assert signed_in.post(path + "/disable") == path
    assert agent.send("GET", "/v1/ai/whoami").status == 403
    assert "by you: no agent can enable it" in signed_in.text(path)
    assert signed_in.post(path + "/enable") == path
    assert agent.get("/v1/ai/whoami")["enabled"]
    assert by_owner(vault, "ai_agent_disable") == [f"agent {agent.id} disabled"]
    assert by_owner(vault, "ai_agent_enable") == [f"agent {agent.id} enabled"]


def test_an_agent_is_renamed(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    path = f"/agents/{agent.id}"
    assert signed_in.post(path + "/rename", {"name": " laptop "}) == path
    page = signed_in.text(path)
    assert "<h1>laptop</h1>" in page
    assert "<td>AI agent</td><td>laptop</td>" in page
    assert by_owner(vault, "ai_agent_rename") == [f"agent {agent.id} renamed from AI agent to laptop"]
    for name in ("", "x" * 256):
        status, problem = signed_in.refused(path + "/rename", {"name": name})
        assert (status, problem[:5]) == (400, "Name ")


def test_scopes_and_projects_are_edited(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    webshop, other = agent.project("Webshop"), agent.project("Other")
    path = f"/agents/{agent.id}"
    page = signed_in.text(path)
    assert ticked(page, "scope") == set(agents.SCOPES)
    assert (ticked(page, "reach"), ticked(page, "project")) == ({"all"}, set())
    for why in agents.LEADS_TO_PLAINTEXT.values():
        assert page.count(why) == 2  # beside the checkbox, and in the warning about this agent
    chosen = {"scope": ["projects.read", "audit.read"], "reach": "some", "project": webshop}
    assert signed_in.post(path + "/scopes", chosen) == path
    known = agent.get("/v1/ai/whoami")
    assert (known["scopes"], known["projectAllowlist"]) == (["projects.read", "audit.read"], [webshop])
    assert agent.send("GET", f"/v1/ai/projects/{other}/secrets").status == 403
    page = signed_in.text(path)
    assert (ticked(page, "scope"), ticked(page, "project")) == ({"projects.read", "audit.read"}, {webshop})
    assert "a way to get" not in page
    assert by_owner(vault, "ai_agent_scopes")[0].startswith(f"agent {agent.id}: scopes removed: ")
    assert signed_in.post(path + "/scopes", {"scope": "projects.read", "reach": "all", "project": webshop}) == path
    assert agent.get("/v1/ai/whoami")["projectAllowlist"] is None


def test_a_refused_edit_keeps_what_was_chosen(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project, path = agent.project(), f"/agents/{agent.id}/scopes"
    for fields, problem in (
        ({"reach": "some", "project": project}, "Choose at least one scope."),
        ({"scope": "projects.read", "reach": "some"}, "Choose at least one project."),
        ({"scope": "projects.read", "reach": "some", "more": "proj_x"}, "There is no project proj_x."),
        ({"scope": "everything"}, "Unknown scope everything."),
    ):
        reply = signed_in.send(path, {"csrf": signed_in.csrf, **fields})
        page = reply.raw.decode()
        assert (reply.status, problem in page) == (400, True), fields
        assert ticked(page, "scope") == {fields.get("scope")} & set(agents.SCOPES), fields
        assert ticked(page, "project") == {fields["project"]} if "project" in fields else True
    assert agent.get("/v1/ai/whoami")["scopes"] == list(agents.SCOPES)


def test_an_agent_is_revoked_with_what_it_made(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    body = {"name": "ci", "projectIds": [], "secretIds": [], "maxUses": 1}
    lives = {"tokenLifetimeSeconds": 60, "machineLifetimeSeconds": 60}
    first, second = agent, vault.agent()
    for each in (first, second):
        each.post("/v1/ai/enrollment-tokens", {**body, **lives})
    page = signed_in.text(f"/agents/{first.id}")
    assert "Still working: 1 thing." in page
    assert "enrollment token" in page
    assert signed_in.post(f"/agents/{first.id}/revoke") == "/agents"
    assert message(signed_in.text("/agents")) == "Revoked AI agent. Things that it made, still working: 1."
    assert signed_in.post(f"/agents/{second.id}/revoke", {"made": "yes"}) == "/agents"
    assert "now ended: 1." in message(signed_in.text("/agents"))
    assert len(by_owner(vault, "ai_agent_revoke")) == 2
    assert len(by_owner(vault, "enroll_token_revoke")) == 1
    assert second.send("GET", "/v1/ai/whoami").status == 401


def test_the_latest_entries_of_an_agent(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    path = f"/agents/{agent.id}"
    assert "None yet." in signed_in.text(path)
    agent.project("Webshop")
    page = signed_in.text(path)
    assert "created as Webshop" in page
    assert f"/dashboard/audit?agent={agent.id}" in page


def test_a_token_is_shown_once_and_registers_an_agent(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project = agent.project("Webshop")
    fields = {"name": "laptop", "scope": ["projects.read"], "reach": "some", "project": project}
    reply = signed_in.send("/agents/tokens/create", {"csrf": signed_in.csrf, **fields})
    page = reply.raw.decode()
    found = re.search(r'id="token"[^>]*>([0-9a-f]{64})<', page)
    assert found
    assert page.count(found[1]) == 1
    assert f"SIKKERKEY_API_URL={signed_in.origin} python3 sikkerkey-mcp.pyz install -" in page
    assert "lead to plaintext" not in page
    listed = signed_in.text("/agents/tokens")
    assert found[1] not in listed
    assert ">Webshop</a>" in listed
    key = Ed25519PrivateKey.generate()
    registered = vault.register(found[1], key).json
    assert registered["name"] == "laptop"
    assert '<p class="faint">None.</p>' in signed_in.text("/agents/tokens")
    assert by_owner(vault, "bootstrap_token_create") == ["scopes: projects.read"]


def test_the_command_for_an_agent_pins_the_certificate(tmp_path: Path) -> None:
    """A server of its own: only `serve` knows the fingerprint."""
    served = Spawned(tmp_path / "vault", "--port", "0")
    try:
        running = ask(tmp_path / "vault", "dashboard") or {}
        signed_in = exchange(served.port, "GET", urlsplit(running["dashboardUrl"]).path, b"", [])
        sent = [("Cookie", signed_in.headers["set-cookie"].partition(";")[0]), ("Origin", served.url)]
        form = exchange(served.port, "GET", "/dashboard/agents/tokens", b"", sent).raw.decode()
        csrf = re.findall(r'name="csrf" value="([^"]+)"', form)[0]
        body = f"csrf={csrf}&scope=projects.read".encode()
        page = exchange(served.port, "POST", "/dashboard/agents/tokens/create", body, sent).raw.decode()
    finally:
        served.end()
    assert re.fullmatch(r"https://127\.0\.0\.1:\d+#sha256=[0-9a-f]{64}", running["agentUrl"])
    assert f"SIKKERKEY_API_URL={running['agentUrl']} python3 sikkerkey-mcp.pyz install -" in page


def test_presets_tick_the_scopes(signed_in: SignedIn) -> None:
    for preset, (_, scopes) in reach.PRESETS.items():
        assert ticked(signed_in.text(f"/agents/tokens?preset={preset}"), "scope") == set(scopes), preset
    assert ticked(signed_in.text("/agents/tokens"), "scope") == set(agents.SCOPES) - set(agents.LEADS_TO_PLAINTEXT)
    assert ticked(signed_in.text("/agents/tokens?preset=x"), "scope") == set()


def test_a_token_that_cannot_be_made_says_why(signed_in: SignedIn) -> None:
    status, problem = signed_in.refused("/agents/tokens/create", {"name": "laptop"})
    assert (status, problem) == (400, "Choose at least one scope.")
    reply = signed_in.send("/agents/tokens/create", {"csrf": signed_in.csrf, "name": "laptop"})
    assert 'value="laptop"' in reply.raw.decode()


def test_a_token_is_cancelled(vault: Vault, signed_in: SignedIn) -> None:
    token = vault.token(("projects.read",))
    found = re.search(r"/agents/tokens/([0-9a-f]{12})/cancel", signed_in.text("/agents/tokens"))
    assert found
    assert signed_in.post(f"/agents/tokens/{found[1]}/cancel") == "/agents/tokens"
    assert vault.register(token, Ed25519PrivateKey.generate()).status == 401
    assert by_owner(vault, "bootstrap_token_cancel") == [f"bootstrap token {found[1]} cancelled"]
    assert signed_in.refused(f"/agents/tokens/{found[1]}/cancel")[0] == 409


def test_hostile_names_are_only_text(vault: Vault, signed_in: SignedIn) -> None:
    key = Ed25519PrivateKey.generate()
    registered = vault.register(vault.token(name=HOSTILE), key, name=HOSTILE).json
    vault.token(name=HOSTILE)
    agent = vault.agent()
    agent.project(HOSTILE)
    signed_in.post(f"/agents/{agent.id}/rename", {"name": HOSTILE})
    for path in ("/agents", f"/agents/{registered['agentId']}", f"/agents/{agent.id}", "/agents/tokens"):
        assert is_harmless(signed_in.text(path)), path


def test_long_lists_have_pages(vault: Vault, signed_in: SignedIn) -> None:
    with vault.store.transaction() as db:
        rows = [(f"agent-{n}", f"agent {n}", bytes([n]) * 32, n) for n in range(PAGE_SIZE + 1)]
        db.executemany(
            "INSERT INTO ai_agents (id, name, public_key, scopes, restricted, approved_ms, created_ms)"
            " VALUES (?, ?, ?, '[\"audit.read\"]', 0, 1, ?)",
            rows,
        )
    first, second = signed_in.text("/agents"), signed_in.text("/agents?page=2")
    assert first.count('<th scope="row">') == PAGE_SIZE
    assert second.count('<th scope="row">') == 1
    assert "Page 2 of 2" in second
    assert signed_in.text("/agents?page=%C2%B2").count('<th scope="row">') == PAGE_SIZE


@pytest.mark.parametrize("path", ["/agents/x", "/agents/..%2fx"])
def test_unknown_agents(signed_in: SignedIn, path: str) -> None:
    assert signed_in.get(path).status == 404


def test_a_person_approves_an_agent_that_polls(vault: Vault, browser: Browser) -> None:
    """The page is open before the agent registers; the agent asks until it is let in, as `doctor` does."""
    browser.open("/agents")
    assert "No agents yet" in browser.main
    pending = vault.pending()
    assert pending.send("GET", "/v1/ai/whoami").status == 403
    browser.until(lambda: fingerprint(vault, pending) in browser.main)
    browser.press("Approve AI agent")
    browser.until(lambda: "Approved AI agent." in browser.main)
    browser.until(lambda: pending.send("GET", "/v1/ai/whoami").status == 200)


def test_a_person_edits_scopes_and_the_agent_sees_it(browser: Browser, agent: Agent) -> None:
    browser.open(f"/agents/{agent.id}")
    for scope in agents.LEADS_TO_PLAINTEXT:
        browser.one(f'[name="scope"][value="{scope}"]').click()
    browser.press("Save")
    browser.until(lambda: "Saved the scopes and projects of AI agent." in browser.main)
    assert set(agent.get("/v1/ai/whoami")["scopes"]) == set(reach.SAFE)
    assert "a way to get" not in browser.main
