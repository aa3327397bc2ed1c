"""Temporary secrets: links that show a value once. `test_vault_share_page` tests the page in a browser."""

from __future__ import annotations

import html
import re
import threading
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.exceptions import InvalidTag

from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Reply, Vault, disk, exchange, run_job
from vault.app import create_app
from vault.crypto import decrypt
from vault.domains import temporary_secrets
from vault.domains.temporary_secrets import expire_due
from vault.jobs import JobRunner
from vault.schema import jobs

MARK = "MARKED-value-4b7e"
FORM = [("Content-Type", "application/x-www-form-urlencoded")]


@pytest.fixture
def project_id(agent: Agent) -> str:
    return agent.project()


def base(project_id: str) -> str:
    return f"/v1/ai/projects/{project_id}/temporary-secrets"


def made(agent: Agent, project_id: str, **more: Any) -> dict[str, Any]:
    body = {"name": "db", "expiresInSeconds": 60, **({} if "generateRandom" in more else {"value": MARK}), **more}
    created: dict[str, Any] = agent.post(base(project_id), body)
    return created


def load(vault: Vault, token: str) -> Reply:
    return exchange(vault.port, "GET", f"/s/{token}", b"", [])


def enter(vault: Vault, token: str, passphrase: str, form: str = "") -> Reply:
    body = f"passphrase={quote(passphrase)}" + (f"&form={form}" if form else "")
    return exchange(vault.port, "POST", f"/s/{token}", body.encode(), FORM)


def form_id(vault: Vault, token: str) -> str:
    """The random id in the form of a newly loaded page."""
    found = re.search(r'name="form" value="([0-9a-f]{32})"', load(vault, token).raw.decode())
    assert found
    return found[1]


def value_in(reply: Reply) -> str:
    found = re.search(r"<pre[^>]*>\n(.*)</pre>", reply.raw.decode(), re.S)
    assert found, reply.raw
    return html.unescape(found[1])


def statuses(agent: Agent, project_id: str) -> list[str]:
    return [row["status"] for row in agent.get(base(project_id))]


def test_a_link_is_shown_once_and_listed_without_its_credentials(vault: Vault, agent: Agent, project_id: str) -> None:
    reply = agent.send("POST", base(project_id), {"name": "db", "value": MARK, "expiresInSeconds": 60})
    created = reply.json
    token, passphrase = created["token"], created["passphrase"]
    url = f"http://127.0.0.1:{vault.port}/s/{token}"
    secret = {"id": created["id"], "token": token, "passphrase": passphrase, "expiresAt": START_MS + 60_000}
    assert (reply.status, created) == (201, {**secret, "url": url})
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert re.fullmatch(r"([2-9a-hjkmnp-z]{4}-){5}[2-9a-hjkmnp-z]{4}", passphrase)
    times = {"createdAt": START_MS, "expiresAt": START_MS + 60_000, "closedAt": None}
    assert agent.get(base(project_id)) == [{"id": created["id"], "name": "db", "status": "pending", **times}]
    assert [row["detail"] for row in vault.audited("temporary_secret_create")] == [
        f"temporary secret {created['id']} created as db"
    ]


def test_the_right_passphrase_shows_the_value_once(
    vault: Vault, agent: Agent, project_id: str, clock: FakeClock
) -> None:
    created = made(agent, project_id)
    clock.advance(5)
    first = enter(vault, created["token"], created["passphrase"])
    assert (first.status, value_in(first)) == (200, MARK)
    again = enter(vault, created["token"], created["passphrase"])
    assert (again.status, MARK.encode() in again.raw) == (410, False)
    assert b"has been shown already" in again.raw
    row = agent.get(base(project_id))[0]
    assert (row["status"], row["closedAt"]) == ("viewed", START_MS + 5_000)
    entry = vault.audited("temporary_secret_view")[0]
    assert (entry["actor_kind"], entry["source_ip"], entry["project_id"]) == ("external", "127.0.0.1", project_id)


def test_a_wrong_passphrase_destroys_the_secret_and_says_so(vault: Vault, agent: Agent, project_id: str) -> None:
    created = made(agent, project_id)
    wrong = enter(vault, created["token"], "not this")
    assert (wrong.status, b"has been destroyed" in wrong.raw) == (403, True)
    right = enter(vault, created["token"], created["passphrase"])
    assert (right.status, MARK.encode() in right.raw) == (410, False)
    assert statuses(agent, project_id) == ["destroyed"]
    assert len(vault.audited("temporary_secret_destroy")) == 1


def test_loading_the_page_changes_nothing(vault: Vault, agent: Agent, project_id: str) -> None:
    created = made(agent, project_id)
    for _ in range(3):
        assert load(vault, created["token"]).status == 200
    assert exchange(vault.port, "HEAD", f"/s/{created['token']}", b"", []).status == 405
    assert statuses(agent, project_id) == ["pending"]
    assert value_in(enter(vault, created["token"], created["passphrase"])) == MARK


def test_the_content_is_deleted_at_the_first_attempt(vault: Vault, agent: Agent, project_id: str) -> None:
    right, wrong = made(agent, project_id), made(agent, project_id)
    enter(vault, right["token"], right["passphrase"])
    enter(vault, wrong["token"], "x")
    with vault.store.transaction() as db:
        rows = db.execute("SELECT salt, passphrase_hash, ciphertext FROM temporary_secrets").fetchall()
    assert [tuple(row) for row in rows] == [(None, None, None)] * 2


def test_of_many_concurrent_attempts_one_sees_the_value(vault: Vault, agent: Agent, project_id: str) -> None:
    created, replies, together = made(agent, project_id), [], threading.Barrier(8)

    def attempt() -> None:
        together.wait()
        replies.append(enter(vault, created["token"], created["passphrase"]))

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.status for reply in replies) == [200] + [410] * 7
    assert sum(MARK.encode() in reply.raw for reply in replies) == 1


def test_a_double_click_shows_the_value_too(vault: Vault, agent: Agent, project_id: str, clock: FakeClock) -> None:
    created, together = made(agent, project_id), threading.Barrier(2)
    token, passphrase = created["token"], created["passphrase"]
    form, other = form_id(vault, token), form_id(vault, token)
    replies = []

    def click() -> None:
        together.wait()
        replies.append(enter(vault, token, passphrase, form))

    threads = [threading.Thread(target=click) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.advance(1)
    replies.append(enter(vault, token, passphrase, form))
    assert [value_in(reply) for reply in replies] == [MARK] * 3
    assert len(vault.audited("temporary_secret_view")) == 1
    assert enter(vault, token, passphrase, other).status == 410
    assert (enter(vault, token, "wrong", form).status, statuses(agent, project_id)) == (403, ["viewed"])
    clock.advance(1)
    assert enter(vault, token, passphrase, form).status == 410


def test_the_ciphertext_of_an_opened_link_is_forgotten(
    vault: Vault, agent: Agent, project_id: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_secrets, "_AGAIN", {})
    created = made(agent, project_id)
    enter(vault, created["token"], created["passphrase"], form_id(vault, created["token"]))
    run_job(expire_due, vault.store, clock())
    assert len(temporary_secrets._AGAIN) == 1
    clock.advance(2)
    run_job(expire_due, vault.store, clock())
    assert not temporary_secrets._AGAIN


def test_a_passphrase_may_be_typed_with_capitals_and_without_hyphens(
    vault: Vault, agent: Agent, project_id: str
) -> None:
    created = made(agent, project_id)
    typed = f"  {created['passphrase'].replace('-', ' ').upper()}\n"
    assert value_in(enter(vault, created["token"], typed)) == MARK


def test_a_link_expires_on_time_and_the_job_deletes_its_content(
    vault: Vault, agent: Agent, project_id: str, clock: FakeClock
) -> None:
    created = made(agent, project_id, expiresInSeconds=60)
    clock.now_ms += 59_999
    assert (load(vault, created["token"]).status, statuses(agent, project_id)) == (200, ["pending"])
    run_job(expire_due, vault.store, clock())
    clock.now_ms += 1
    assert (load(vault, created["token"]).status, statuses(agent, project_id)) == (410, ["expired"])
    assert enter(vault, created["token"], created["passphrase"]).status == 410
    JobRunner(vault.store, clock, jobs()).tick()
    with vault.store.transaction() as db:
        assert db.execute("SELECT ciphertext FROM temporary_secrets").fetchone()[0] is None
    assert agent.get(base(project_id))[0]["closedAt"] == START_MS + 60_000
    assert [row["actor_kind"] for row in vault.audited("temporary_secret_expire")] == ["system"]


def test_a_closed_link_is_deleted_after_thirty_days(
    vault: Vault, agent: Agent, project_id: str, clock: FakeClock
) -> None:
    token = made(agent, project_id)["token"]
    enter(vault, token, "x")
    clock.advance(30 * 24 * 3600 - 1)
    run_job(expire_due, vault.store, clock())
    assert statuses(agent, project_id) == ["destroyed"]
    clock.advance(1)
    run_job(expire_due, vault.store, clock())
    assert statuses(agent, project_id) == []
    assert load(vault, token).status == 404


def test_a_value_can_be_generated(vault: Vault, agent: Agent, project_id: str) -> None:
    created = made(agent, project_id, generateRandom=True, length=50, charset="numbers")
    assert set(created) == {"id", "token", "passphrase", "expiresAt", "url"}
    assert re.fullmatch(r"[0-9]{50}", value_in(enter(vault, created["token"], created["passphrase"])))
    plain = made(agent, project_id, generateRandom=True)
    assert len(value_in(enter(vault, plain["token"], plain["passphrase"]))) == 32
    unique = made(agent, project_id, generateRandom=True, charset="uuid")
    assert re.fullmatch(r"[0-9a-f-]{36}", value_in(enter(vault, unique["token"], unique["passphrase"])))


def test_an_invalid_link_is_refused(agent: Agent, project_id: str) -> None:
    cases: list[tuple[dict[str, Any], str | None]] = [
        ({"value": None}, "value must be a string of at most 102400 bytes in UTF-8"),
        ({"value": "ø" * 51_201}, "value must be a string of at most 102400 bytes in UTF-8"),
        ({"value": "a\0b"}, "value must not contain the character NUL: no web page can show it"),
        ({"generateRandom": True}, "value cannot be combined with generateRandom"),
        ({"length": 5}, "length requires generateRandom"),
        ({"charset": "uuid", "generateRandom": False}, "charset requires generateRandom"),
        ({"name": ""}, "name must be a string of 1 to 256 characters"),
        ({"name": "n" * 257}, "name must be a string of 1 to 256 characters"),
        ({"expiresInSeconds": 59}, "expiresInSeconds must be an integer from 60 to 86400"),
        ({"expiresInSeconds": 86_401}, "expiresInSeconds must be an integer from 60 to 86400"),
        ({"passphrase": "mine"}, None),
    ]
    for changed, error in cases:
        reply = agent.send("POST", base(project_id), {"name": "db", "value": "v", "expiresInSeconds": 60, **changed})
        assert (reply.status, reply.error) == (400, error or reply.error), (changed, error)
        assert agent.get(base(project_id)) == [], (changed, error)


def test_required_keys_are_named(agent: Agent, project_id: str) -> None:
    whole = {"name": "db", "value": "v", "expiresInSeconds": 60}
    for missing, error in (
        ("name", "name is required"),
        ("expiresInSeconds", "expiresInSeconds is required"),
        ("value", "value is required, unless generateRandom is true"),
    ):
        body = {key: value for key, value in whole.items() if key != missing}
        assert agent.send("POST", base(project_id), body).error == error
    for charset, length in (("words", 5), ("numbers", 0), ("numbers", 1025)):
        body = {"name": "db", "generateRandom": True, "expiresInSeconds": 60, "charset": charset, "length": length}
        assert agent.send("POST", base(project_id), body).status == 400


def test_the_largest_value_arrives_whole(vault: Vault, agent: Agent, project_id: str) -> None:
    value = "<&>\n" * 25_600
    created = made(agent, project_id, value=value, expiresInSeconds=86_400)
    assert value_in(enter(vault, created["token"], created["passphrase"])) == value


def test_neither_value_token_nor_passphrase_is_on_disk_or_in_the_log(
    vault: Vault, agent: Agent, project_id: str, capfd: pytest.CaptureFixture[str]
) -> None:
    viewed, destroyed, pending = (made(agent, project_id) for _ in range(3))
    enter(vault, viewed["token"], viewed["passphrase"])
    enter(vault, destroyed["token"], "wrong-MARKED-guess")
    exchange(vault.port, "POST", f"/s/{pending['token']}", b'{"passphrase": "MARKED-json"}', FORM)
    output = "".join(capfd.readouterr())
    stored = disk(vault.directory)
    credentials = [created[key] for created in (viewed, destroyed, pending) for key in ("token", "passphrase")]
    bare = [credential.replace("-", "") for credential in credentials]
    for secret in ["MARKED", *credentials, *bare]:
        assert secret.encode() not in stored
        assert secret not in output


def test_the_database_and_the_root_key_together_do_not_open_a_link(vault: Vault, agent: Agent, project_id: str) -> None:
    created = made(agent, project_id)
    with vault.store.transaction() as db:
        row = db.execute("SELECT * FROM temporary_secrets").fetchone()
    stored_keys = [row["passphrase_hash"], row["token_hash"], vault.store.keys._root_key]
    for key in stored_keys:
        with pytest.raises(InvalidTag):
            decrypt(key, row["ciphertext"], temporary_secrets._label(created["id"]))
    assert temporary_secrets._decrypt(row, created["passphrase"]) == MARK


def test_the_content_security_policy_allows_only_the_style_and_the_form(
    vault: Vault, agent: Agent, project_id: str
) -> None:
    created = made(agent, project_id)
    pages = [load(vault, created["token"]), enter(vault, created["token"], created["passphrase"])]
    for page in [*pages, load(vault, created["token"]), load(vault, "x" * 43)]:
        policy = dict(rule.strip().partition(" ")[::2] for rule in page.headers["content-security-policy"].split(";"))
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy.pop("style-src"))
        nothing = "'none'"
        assert policy == {
            "default-src": nothing,
            "form-action": "'self'",
            "base-uri": nothing,
            "frame-ancestors": nothing,
        }
        expected = {
            "content-type": "text/html; charset=utf-8",
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "x-frame-options": "DENY",
            "x-content-type-options": "nosniff",
            "x-robots-tag": "noindex, nofollow",
        }
        assert {name: page.headers.get(name) for name in expected} == expected
        assert b"<script" not in page.raw
        assert b"http" not in page.raw


def test_an_invalid_form_does_not_count_as_an_attempt(vault: Vault, agent: Agent, project_id: str) -> None:
    created = made(agent, project_id)
    right = f"passphrase={created['passphrase']}".encode()
    bodies = [
        (b"", FORM, 400),
        (b"passphrase=", FORM, 400),
        (b"word=x", FORM, 400),
        (right + b"&passphrase=x", FORM, 400),
        (right + b"&more=x", FORM, 400),
        (b"passphrase=%ff", FORM, 400),
        (b"passphrase=\xff", FORM, 400),
        (b"passphrase=" + b"x" * 257, FORM, 400),
        (b"passphrase=" + b"x" * 4_096, FORM, 413),
        (right, [], 400),
        (right, [("Content-Type", "application/json")], 400),
    ]
    for body, headers, status in bodies:
        assert exchange(vault.port, "POST", f"/s/{created['token']}", body, headers).status == status, body[:40]
    assert statuses(agent, project_id) == ["pending"]


def test_unknown_links_are_404_and_then_rate_limited(
    vault: Vault, agent: Agent, project_id: str, clock: FakeClock
) -> None:
    created = made(agent, project_id)
    for number in range(20):
        assert enter(vault, f"{number:043}", "x").status == 404
    refused = enter(vault, "x" * 43, "x")
    assert (refused.status, refused.headers["retry-after"], b"Nothing was opened" in refused.raw) == (429, "60", True)
    assert statuses(agent, project_id) == ["pending"]
    assert load(vault, created["token"]).status == 200
    clock.now_ms += 59_999
    assert enter(vault, "x" * 43, "x").status == 429
    clock.now_ms += 1
    assert enter(vault, "x" * 43, "x").status == 404


def test_a_link_starts_with_the_public_url_if_there_is_one(vault: Vault, agent: Agent, project_id: str) -> None:
    vault._shared_server.app = create_app(vault.store, clock=vault.clock, public_url="https://vault.example")
    created = made(agent, project_id)
    assert created["url"] == f"https://vault.example/s/{created['token']}"


def test_the_host_header_does_not_affect_the_link(vault: Vault, agent: Agent, project_id: str) -> None:
    body = b'{"name": "db", "value": "v", "expiresInSeconds": 60}'
    headers = [("Host", "localhost:1"), *agent.headers("POST", base(project_id), body)]
    created = exchange(vault.port, "POST", base(project_id), body, headers)
    assert created.json["url"].startswith(f"http://127.0.0.1:{vault.port}/s/")


def test_pending_links_per_project_are_limited(
    vault: Vault, agent: Agent, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_secrets, "MAX_PENDING", 1)
    first = made(agent, project_id)
    assert agent.send("POST", base(project_id), {"name": "x", "value": "v", "expiresInSeconds": 60}).status == 409
    enter(vault, first["token"], "x")
    made(agent, project_id)


def test_links_are_deleted_with_their_project(vault: Vault, agent: Agent, project_id: str) -> None:
    token = made(agent, project_id)["token"]
    delete = f"/v1/ai/projects/{project_id}/delete"
    assert agent.post(delete, {"preview": True})["cascade"]["temporarySecrets"] == 1
    agent.post(delete, {"confirmName": "Demo"})
    assert load(vault, token).status == 404


def test_a_restricted_agent_cannot_use_other_projects(vault: Vault, agent: Agent, project_id: str) -> None:
    restricted = vault.agent(projects=[agent.project("own")])
    for path in (base(project_id), base("proj_doesnotexist")):
        assert restricted.send("GET", path).status == 403
        assert restricted.send("POST", path, {"name": "x", "value": "v", "expiresInSeconds": 60}).status == 403
    assert agent.send("GET", base("proj_doesnotexist")).status == 404
    assert agent.get(base(project_id)) == []
