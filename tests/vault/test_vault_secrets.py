"""Secrets: every action, its effect in the vault, and answers without values."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest

from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault

STRUCTURED = {"value": '{"user": "u", "pass": "p"}', "fieldNames": ["user", "pass"]}


def ident(path: str) -> str:
    return path.rpartition("/")[2]


@pytest.fixture
def base(agent: Agent) -> str:
    return f"/v1/ai/projects/{agent.project()}/secrets"


@pytest.fixture
def secret(agent: Agent, base: str) -> str:
    """The path of a secret with the value `first`."""
    return agent.secret(base.split("/")[4], "first", note="n")


def metadata(path: str, **changed: Any) -> dict[str, Any]:
    plain = {"name": "db", "type": "secret", "fieldNames": None, "note": "n", "version": 1}
    return {"id": ident(path), **plain, "createdAt": START_MS, "updatedAt": START_MS, **changed}


def test_create_returns_id_and_name(vault: Vault, agent: Agent, base: str) -> None:
    body = {"name": "db", "value": "hunter2", "projectId": base.split("/")[4]}
    reply = agent.send("POST", base, body)
    assert (reply.status, reply.json) == (201, {"id": reply.json["id"], "name": "db"})
    assert reply.json["id"].startswith("sk_")
    assert vault.value(reply.json["id"]) == "hunter2"


def test_list_and_get_show_metadata(agent: Agent, base: str, secret: str) -> None:
    assert agent.get(base) == [metadata(secret)]
    assert agent.get(secret) == {**metadata(secret), "projectId": base.split("/")[4]}


def test_a_structured_secret_shows_its_fields(vault: Vault, agent: Agent, base: str) -> None:
    created = agent.post(base, {"name": "db", "note": "n", **STRUCTURED})
    assert agent.get(base) == [metadata(created["id"], type="structured", fieldNames=["user", "pass"])]
    assert vault.value(created["id"]) == STRUCTURED["value"]


def test_a_structured_value_has_exactly_the_declared_keys(agent: Agent, base: str) -> None:
    for value in [
        "plain",
        "[]",
        '{"user": "u"}',
        '{"user": 1, "pass": 2, "more": 3}',
        '{"user": 1, "user": 2, "pass": 3}',
        "{",
    ]:
        reply = agent.send("POST", base, {"name": "db", **STRUCTURED, "value": value})
        expected = "value must be a JSON object, as a string, with exactly the keys of fieldNames"
        assert (reply.status, reply.error) == (400, expected), value
        existing = base + "/" + agent.post(base, {"name": "db", **STRUCTURED})["id"]
        assert agent.send("POST", existing + "/update", {"value": value}).error == expected, value


def test_field_names_are_distinct_names(agent: Agent, base: str) -> None:
    for names in [[], ["a", "a"], [""], ["x" * 101], ["f"] * 51, "user", [1], None]:
        assert agent.send("POST", base, {"name": "db", "value": "{}", "fieldNames": names}).status == 400, names


def test_update_value_makes_a_new_version(vault: Vault, agent: Agent, secret: str, clock: FakeClock) -> None:
    clock.advance(1)
    assert agent.post(secret + "/update", {"value": "second"}) == {"id": ident(secret), "version": 2}
    assert (vault.value(ident(secret)), vault.value(ident(secret), 1)) == ("second", "first")
    assert agent.get(secret)["updatedAt"] == START_MS + 1000


def test_every_version_has_its_own_key(vault: Vault, agent: Agent, secret: str) -> None:
    agent.post(secret + "/update", {"value": "first"})
    with vault.store.transaction() as db:
        rows = [tuple(row) for row in db.execute("SELECT wrapped_key, ciphertext FROM secret_versions")]
    assert len({part for row in rows for part in row}) == 4


def test_rows_moved_to_another_version_do_not_decrypt(vault: Vault, agent: Agent, secret: str) -> None:
    agent.post(secret + "/update", {"value": "second"})
    with vault.store.transaction() as db:
        db.execute("UPDATE secret_versions SET version = 3 WHERE version = 1")
    assert agent.send("POST", secret + "/rollback", {"version": 3}).status == 500
    assert "version 3 does not decrypt" in vault.audited("integrity_failure")[0]["detail"]


def test_versions_are_listed_newest_first(agent: Agent, secret: str, clock: FakeClock) -> None:
    clock.advance(1)
    agent.post(secret + "/rotate", {})
    agent.post(secret + "/rollback", {"version": 1})
    assert agent.get(secret + "/versions") == [
        {"version": 3, "origin": "rollback", "createdAt": START_MS + 1000},
        {"version": 2, "origin": "rotate", "createdAt": START_MS + 1000},
        {"version": 1, "origin": "create", "createdAt": START_MS},
    ]


def test_rollback_writes_the_old_value_as_a_new_version(vault: Vault, agent: Agent, secret: str) -> None:
    agent.post(secret + "/update", {"value": "second"})
    assert agent.post(secret + "/rollback", {"version": 1}) == {"id": ident(secret), "version": 3}
    assert vault.value(ident(secret)) == "first"
    assert agent.send("POST", secret + "/rollback", {"version": 9}).error == "no such version"
    assert agent.send("POST", secret + "/rollback", {"version": 0}).status == 400
    assert agent.send("POST", secret + "/rollback").error == "version is required"


def test_rename_and_note_change_metadata_only(vault: Vault, agent: Agent, secret: str) -> None:
    assert agent.post(secret + "/name", {"name": "api"}) == {"id": ident(secret), "name": "api"}
    assert agent.post(secret + "/note", {"note": "why"}) == {"id": ident(secret), "name": "api"}
    assert (agent.get(secret)["name"], agent.get(secret)["note"], agent.get(secret)["version"]) == ("api", "why", 1)
    agent.post(secret + "/note", {})
    assert agent.get(secret)["note"] == ""
    assert vault.value(ident(secret)) == "first"


def test_delete_moves_to_the_trash_for_30_days(vault: Vault, agent: Agent, base: str, secret: str) -> None:
    month_ms = 30 * 24 * 3600 * 1000
    expected = {"id": ident(secret), "deletedAt": START_MS, "purgeAt": START_MS + month_ms}
    assert agent.post(secret + "/delete") == expected
    assert agent.get(base) == []
    for method, tail, body in (("GET", "", None), ("POST", "/update", {"value": "x"}), ("POST", "/delete", None)):
        assert agent.send(method, secret + tail, body).error == "no such secret"
    with vault.store.transaction() as db:
        assert db.execute("SELECT COUNT(*) FROM secret_versions").fetchone()[0] == 1


def test_rotate_generates_a_value_with_the_given_options(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    for body, pattern in [
        ({}, r"[!-~]{32}"),
        ({"length": 1}, r"[!-~]"),
        ({"length": 1024, "charset": "alphanumeric"}, r"[A-Za-z0-9]{1024}"),
        ({"length": 8, "charset": "numbers"}, r"[0-9]{8}"),
    ]:
        secret = agent.secret(project_id, "first")
        assert agent.post(secret + "/rotate", body) == {"id": ident(secret), "version": 2}, body
        made = vault.value(ident(secret))
        assert re.fullmatch(pattern, made), body
        agent.post(secret + "/rotate", body)
        assert vault.value(ident(secret)) != made or len(made) < 8, body


def test_rotate_can_make_a_uuid(vault: Vault, agent: Agent, secret: str) -> None:
    agent.post(secret + "/rotate", {"charset": "uuid", "length": 5})
    assert uuid.UUID(vault.value(ident(secret))).version == 4


def test_rotating_a_structured_secret_changes_the_given_fields(vault: Vault, agent: Agent, base: str) -> None:
    secret = base + "/" + agent.post(base, {"name": "db", **STRUCTURED})["id"]
    agent.post(secret + "/rotate", {"fields": ["pass"], "length": 5, "charset": "numbers"})
    made = json.loads(vault.value(ident(secret)))
    assert (list(made), made["user"], len(made["pass"])) == (["user", "pass"], "u", 5)
    agent.post(secret + "/rotate")
    assert json.loads(vault.value(ident(secret)))["user"] != "u"
    for fields in (["other"], [], ["pass", "pass"]):
        assert agent.send("POST", secret + "/rotate", {"fields": fields}).status == 400


def test_fields_of_a_plain_secret_cannot_be_rotated(agent: Agent, secret: str) -> None:
    reply = agent.send("POST", secret + "/rotate", {"fields": ["pass"]})
    assert (reply.status, reply.error) == (400, "fields is only allowed for a structured secret")


def test_a_rotation_too_large_to_store_changes_nothing(agent: Agent, base: str) -> None:
    names = [f"f{number}" for number in range(20)]
    value = json.dumps(dict.fromkeys(names, ""))
    secret = base + "/" + agent.post(base, {"name": "db", "value": value, "fieldNames": names})["id"]
    assert agent.send("POST", secret + "/rotate", {"length": 1024}).status == 400
    assert agent.get(secret)["version"] == 1


def test_a_refused_rotation_does_not_depend_on_the_size_of_kept_fields(agent: Agent, base: str) -> None:
    """Otherwise an agent could find the size of a kept field, from the length at which a rotation is refused."""
    names = ["kept", *(f"f{number}" for number in range(11))]
    statuses = []
    for size in (1, 10_000):
        value = json.dumps({**dict.fromkeys(names, ""), "kept": "x" * size})
        secret = base + "/" + agent.post(base, {"name": "db", "value": value, "fieldNames": names})["id"]
        bodies = ({"length": length, "fields": names[1:]} for length in (1, 500, 1_000, 1_024))
        statuses.append([agent.send("POST", f"{secret}/rotate", body).status for body in bodies])
    assert statuses[0] == statuses[1]


def test_rotate_refuses_unknown_options(agent: Agent, secret: str) -> None:
    for body in [{"length": 0}, {"length": 1025}, {"length": True}, {"length": 5.5}, {"charset": "hex"}]:
        assert agent.send("POST", secret + "/rotate", body).status == 400, body


@pytest.mark.parametrize(("value", "status"), [("", 201), ("é" * 6144, 201), ("é" * 6144 + "x", 400)])
def test_a_value_has_at_most_12288_bytes(vault: Vault, agent: Agent, base: str, value: str, status: int) -> None:
    reply = agent.send("POST", base, {"name": "db", "value": value})
    assert reply.status == status
    if status == 201:
        assert vault.value(reply.json["id"]) == value


def test_a_secret_is_found_in_its_own_project_only(agent: Agent, secret: str) -> None:
    other = agent.project("other")
    reply = agent.send("GET", f"/v1/ai/projects/{other}/secrets/{ident(secret)}")
    assert (reply.status, reply.error) == (404, "no such secret")


def test_a_body_that_names_another_project_is_refused(agent: Agent, base: str) -> None:
    reply = agent.send("POST", base, {"name": "db", "value": "x", "projectId": "proj_other00000"})
    assert (reply.status, reply.error) == (400, "projectId must be the project of the path")


def test_a_canary_refuses_a_new_value(vault: Vault, agent: Agent, secret: str) -> None:
    with vault.store.transaction() as db:
        db.execute("UPDATE secrets SET kind = 'canary'")
    assert agent.send("POST", secret + "/update", {"value": "x"}).status == 409
    body = {"secretId": ident(secret), "intervalSeconds": 300}
    assert agent.send("POST", "/v1/ai/dynamic-secrets", body).status == 409


def test_every_write_is_audited_with_its_secret(vault: Vault, agent: Agent, secret: str) -> None:
    agent.post(secret + "/update", {"value": "second"})
    agent.post(secret + "/rotate", {})
    agent.post(secret + "/rollback", {"version": 1})
    agent.post(secret + "/name", {"name": "api"})
    agent.post(secret + "/note", {})
    agent.post(secret + "/delete")
    rows = [entry for entry in reversed(agent.get("/v1/ai/activity")) if entry["secretId"] == ident(secret)]
    assert [entry["action"] for entry in rows] == [
        "secret_create",
        "secret_update",
        "secret_rotate",
        "secret_rollback",
        "secret_rename",
        "secret_note_update",
        "secret_delete",
    ]
    assert {(entry["actorKind"], entry["aiAgentId"], entry["sourceIp"]) for entry in rows} == {
        ("ai_agent", agent.id, "127.0.0.1")
    }
