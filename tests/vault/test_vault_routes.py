"""The HTTP API: routes, bodies and errors."""

from __future__ import annotations

import re

import pytest

from tests.vault.support.served_vault import ALL, Agent, Vault, exchange
from vault.router import Route
from vault.schema import ROUTES, open_store

PROJECTS = "/v1/ai/projects"
MARK = "MARKED-7f3a"
SIGNED = [route for route in ROUTES if route.caller != "open"]
OPEN = {"/v1/ai-bootstrap/register", "/v1/{vaultId}/enroll/register", "/s/{token}"}


def filled(route: Route) -> str:
    return re.sub(r"\{\w+\}", "x0123456789", route.path)


def test_every_route_is_there_once_and_its_scope_exists() -> None:
    pairs = [(route.method, route.path) for route in ROUTES]
    assert len(set(pairs)) == len(pairs)
    assert {route.scope for route in ROUTES} - {None} <= set(ALL)
    assert {route.path for route in ROUTES if route.caller == "open"} == OPEN


def test_every_signed_route_checks_identity_and_scope(vault: Vault) -> None:
    scopeless = vault.agent(("support.write",))
    for route in SIGNED:
        assert exchange(vault.port, route.method, filled(route), b"", []).status == 401, route.path
        reply = scopeless.send(route.method, filled(route))
        if route.scope not in (None, "support.write"):
            assert (reply.status, reply.json["requiredScopes"]) == (403, [route.scope]), route.path


def test_an_unknown_path_is_not_found(agent: Agent) -> None:
    for path in ["/", "/v1/ai", "/v1/ai/nothing", "/v1/secret", PROJECTS + "/../whoami", PROJECTS + "//x"]:
        reply = agent.send("GET", path)
        assert (reply.status, reply.json, reply.headers["content-type"]) == (
            404,
            {"error": "not found"},
            "application/json",
        ), path


def test_a_wrong_method_is_refused(agent: Agent) -> None:
    for method in ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "POST"]:
        reply = agent.send(method, "/v1/ai/whoami")
        assert (reply.status, reply.headers["allow"]) == (405, "GET"), method


def test_a_body_that_is_not_a_json_object_is_refused(agent: Agent) -> None:
    for body in [
        b"{",
        b"[]",
        b'"name"',
        b"null",
        b"{'name': 'x'}",
        b'{"name": "x"} x',
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b'{"name": "x", "name": "y"}',
        b'{"name": NaN}',
        b'{"name": 1e999}',
        b'{"name": ' + b"9" * 5000 + b"}",
        b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xef\xbb\xbf{}",
    ]:
        reply = agent.send("POST", PROJECTS, body)
        assert (reply.status, reply.json) == (400, {"error": "the body is not a JSON object in UTF-8"}), body


def test_a_body_needs_its_content_type(agent: Agent) -> None:
    body = b'{"name": "x"}'
    headers = agent.headers("POST", PROJECTS, body)[:-1]
    assert exchange(agent.port, "POST", PROJECTS, body, headers).status == 400
    headers = [*agent.headers("POST", PROJECTS, body)[:-1], ("Content-Type", "application/json; charset=utf-8")]
    assert exchange(agent.port, "POST", PROJECTS, body, headers).status == 201


def test_a_refused_body_names_the_key_and_the_rule_and_no_value(agent: Agent) -> None:
    for body, error in [
        ({}, "name is required"),
        ({"name": ""}, "name must be a string of 1 to 100 characters"),
        ({"name": MARK * 20}, "name must be a string of 1 to 100 characters"),
        ({"name": None}, "name must be a string of 1 to 100 characters"),
        ({"name": [MARK]}, "name must be a string of 1 to 100 characters"),
        ({"name": "x", "description": 1}, "description must be a string of 0 to 10000 characters"),
        ({"name": "x", "colour": MARK}, "unknown key colour: this route takes name, description"),
        ({"name": "x", MARK + "!": "y"}, "unknown key: this route takes name, description"),
    ]:
        reply = agent.send("POST", PROJECTS, body)
        assert (reply.status, reply.json) == (400, {"error": error}), (body, error)


def test_a_route_without_arguments_takes_none(agent: Agent) -> None:
    reply = agent.send("GET", PROJECTS, {"page": 1})
    assert (reply.status, reply.error) == (400, "unknown key page: this route takes no keys")


def test_names_are_counted_in_characters(agent: Agent) -> None:
    assert agent.send("POST", PROJECTS, {"name": "ø" * 100}).status == 201


def test_a_body_over_the_limit_is_refused(agent: Agent) -> None:
    for size, status in ((256 * 1024, 400), (256 * 1024 + 1, 413), (1024 * 1024, 413)):
        assert agent.send("POST", PROJECTS, b"x" * size).status == status


def test_answers_are_not_cached(agent: Agent) -> None:
    headers = agent.send("GET", PROJECTS).headers
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert "server" not in headers


def test_an_unexpected_error_is_one_line_of_log_without_values(
    vault: Vault, agent: Agent, capfd: pytest.CaptureFixture[str]
) -> None:
    with vault.store.transaction() as db:
        db.execute(f"CREATE TRIGGER broken BEFORE INSERT ON projects BEGIN SELECT RAISE(ABORT, '{MARK}'); END")
    reply = agent.send("POST", PROJECTS, {"name": MARK})
    assert (reply.status, reply.json) == (500, {"error": "internal error"})
    log = capfd.readouterr().err
    assert re.fullmatch(r"vault: error: POST /v1/ai/projects: IntegrityError at projects\.py:\d+\n", log)


def test_a_locked_database_is_503_with_retry_after(vault: Vault, agent: Agent) -> None:
    vault.store._db.execute("PRAGMA busy_timeout = 0")
    with open_store(vault.directory) as other, other.transaction():
        reply = agent.send("POST", PROJECTS, {"name": "x"})
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert agent.get(PROJECTS) == []


def test_a_full_disk_is_507_and_changes_nothing(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    with vault.store.transaction() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    vault.store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    statuses = []
    while 507 not in statuses:
        reply = agent.send("POST", f"{PROJECTS}/{project_id}/secrets", {"name": "db", "value": "v" * 12_000})
        statuses.append(reply.status)
    assert reply.json == {"error": "the disk of this vault is full: nothing was changed"}
    vault.store._db.execute("PRAGMA max_page_count = 1000000")
    assert len(agent.get(f"{PROJECTS}/{project_id}/secrets")) == statuses.count(201)
