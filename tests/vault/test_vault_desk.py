"""The owner's way to the API's functions: the same effect, checks and refusals, audited as the owner's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vault.support.served_vault import START_MS, FakeClock
from vault.desk import Desk
from vault.errors import Refusal, SealedDenied, Tampered
from vault.schema import open_store


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(open_store(tmp_path / "vault"), FakeClock(), source_ip="127.0.0.1")


def last_entry(desk: Desk) -> dict[str, object]:
    with desk.transaction() as db:
        return dict(db.execute("SELECT * FROM audit ORDER BY id DESC LIMIT 1").fetchone())


def test_a_route_runs_as_the_owner_and_is_audited_as_the_owners(desk: Desk) -> None:
    project = desk.call("POST", "/v1/ai/projects", {"name": "Webshop"})
    assert [each["name"] for each in desk.call("GET", "/v1/ai/projects")] == ["Webshop"]
    entry = last_entry(desk)
    assert (entry["action"], entry["actor_kind"], entry["user_id"]) == ("project_create", "user", "owner")
    assert (entry["source_ip"], entry["created_ms"], entry["project_id"]) == ("127.0.0.1", START_MS, project["id"])


def test_refusals_are_those_of_the_api_and_change_nothing(desk: Desk) -> None:
    for method, path, body, status in (
        ("POST", "/v1/ai/projects", {}, 400),
        ("POST", "/v1/ai/projects", {"name": "x" * 101}, 400),
        ("POST", "/v1/ai/projects", {"name": "x", "colour": "red"}, 400),
        ("GET", "/v1/ai/projects/proj_unknown/secrets", {}, 404),
        ("GET", "/v1/ai/nothing", {}, 404),
        ("GET", "/v1/secrets", {}, 404),  # a machine's route
    ):
        with pytest.raises(Refusal) as refused:
            desk.call(method, path, body)
        assert refused.value.status == status, path
    assert desk.call("GET", "/v1/ai/projects") == []


def test_slow_work_runs_between_two_transactions(desk: Desk) -> None:
    project = desk.call("POST", "/v1/ai/projects", {"name": "Webshop"})["id"]
    link = desk.call(
        "POST",
        f"/v1/ai/projects/{project}/temporary-secrets",
        {"name": "For Ada", "value": "hunter2-m4rked", "expiresInSeconds": 3600},
    )
    assert link["url"]
    with desk.transaction() as db:
        assert db.execute("SELECT COUNT(*) FROM made").fetchone()[0] == 0  # made lists what agents made


def test_a_sealed_vault_and_changed_data_are_refused(desk: Desk) -> None:
    project = desk.call("POST", "/v1/ai/projects", {"name": "Webshop"})["id"]
    path = f"/v1/ai/projects/{project}/secrets"
    secret = desk.call("POST", path, {"name": "API_KEY", "value": "hunter2-m4rked"})["id"]
    with desk.transaction() as db:
        db.execute("UPDATE secret_versions SET ciphertext = x'00'")
    with pytest.raises(Tampered):
        desk.call("POST", f"{path}/{secret}/rollback", {"version": 1})
    assert last_entry(desk)["action"] == "integrity_failure"
    desk.store.seal(START_MS)
    with pytest.raises(SealedDenied):
        desk.call("GET", "/v1/ai/projects")
