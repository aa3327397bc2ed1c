"""The audit log: its entries, its filters, and what each agent sees."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault
from vault import audit_index
from vault.audit_index import Filters

QUERY = "/v1/ai/audit/query"


@pytest.fixture
def history(agent: Agent, clock: FakeClock) -> str:
    """Create a project `a`, and create and delete a project `b`: four entries, a second apart, after the set-up."""
    first = agent.project("a")
    clock.advance(1)
    second = agent.project("b")
    clock.advance(1)
    agent.post(f"/v1/ai/projects/{second}/delete", {"confirmName": "b"})
    clock.advance(1)
    agent.send("GET", "/v1/ai/whoami", signature="AAAA")
    return first


def found(agent: Agent, **filters: Any) -> list[str]:
    return [entry["action"] for entry in agent.post(QUERY, filters)["entries"]]


MINE = ["auth_failure", "project_delete", "project_create", "project_create"]
SETUP = ["ai_agent_approve", "ai_agent_register", "bootstrap_token_create"]


@pytest.mark.usefixtures("history")
def test_a_query_without_filters_is_the_newest_page(agent: Agent) -> None:
    page = agent.post(QUERY)
    assert [entry["action"] for entry in page["entries"]] == MINE + SETUP
    assert (page["total"], page["page"], page["pageSize"]) == (7, 1, 50)


def test_an_entry_has_the_fields_of_the_contract(agent: Agent, history: str) -> None:
    entry = agent.post(QUERY, {"search": "CREATED AS a"})["entries"][0]
    assert entry == {
        "id": entry["id"],
        "action": "project_create",
        "severity": "low",
        "actorKind": "ai_agent",
        "userId": None,
        "machineId": None,
        "aiAgentId": agent.id,
        "secretId": None,
        "sourceIp": "127.0.0.1",
        "detail": f"project {history} created as a",
        "timestamp": START_MS,
    }


@pytest.mark.usefixtures("history")
def test_filters_sorting_and_pages(agent: Agent) -> None:
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"actions": ["project_delete", "auth_failure"]}, MINE[:2]),
        ({"actions": []}, []),
        ({"severities": ["high"]}, ["project_delete"]),
        ({"sourceIp": "10.0.0.1"}, []),
        ({"search": "bad SIGNATURE"}, ["auth_failure"]),
        ({"search": "100%_'"}, []),
        ({"from": START_MS + 2000}, MINE[:2]),
        ({"from": START_MS + 1000, "to": START_MS + 2000}, ["project_delete", "project_create"]),
        (
            {"sortBy": "action", "sortDir": "asc", "from": START_MS + 1000},
            ["auth_failure", "project_create", "project_delete"],
        ),
        ({"sortBy": "severity", "sortDir": "desc", "pageSize": 2}, ["project_delete", "auth_failure"]),
        ({"sortBy": "sourceIp", "sortDir": "asc", "pageSize": 2}, ["bootstrap_token_create", "ai_agent_approve"]),
        ({"sortDir": "asc", "pageSize": 2, "page": 2}, ["ai_agent_approve", "project_create"]),
        ({"page": 99}, []),
    ]
    for filters, expected in cases:
        assert found(agent, **filters) == expected, (filters, expected)


def test_a_query_outside_the_limits_is_refused(agent: Agent) -> None:
    for filters in [
        {"pageSize": 0},
        {"pageSize": 201},
        {"page": 0},
        {"sortBy": "detail"},
        {"severities": ["loud"]},
        {"limit": 1},
    ]:
        assert agent.send("POST", QUERY, filters).status == 400, filters


def test_activity_is_the_last_20(agent: Agent) -> None:
    for number in range(25):
        agent.project(f"p{number}")
    details = [entry["detail"] for entry in agent.get("/v1/ai/activity")]
    assert [detail.rpartition(" ")[2] for detail in details] == [f"p{number}" for number in range(24, 4, -1)]


def test_actions_lists_every_name(agent: Agent) -> None:
    names = agent.get("/v1/ai/audit/actions")
    assert names == sorted(names)
    assert {"auth_failure", "project_create", "secret_rotate", "dynamic_secret_update"} <= set(names)


def test_an_agent_with_an_allowlist_sees_entries_of_its_projects_and_its_own(
    vault: Vault, agent: Agent, history: str
) -> None:
    narrow = vault.agent(projects=[history])
    own = narrow.send("GET", "/v1/ai/projects/proj_doesnotexist/secrets")
    assert own.status == 403
    assert found(narrow) == ["auth_failure", "project_create"]
    assert [entry["action"] for entry in narrow.get("/v1/ai/activity")] == ["auth_failure", "project_create"]
    assert narrow.post(QUERY)["total"] == 2


def test_the_total_of_an_agent_with_an_allowlist_needs_no_counting(vault: Vault, agent: Agent, history: str) -> None:
    """What it did elsewhere stays visible to it, what others did does not, and nothing counts twice."""
    other = agent.project("other")
    narrow = vault.agent(projects=[history, other])
    for project in (history, other):
        narrow.post(f"/v1/ai/projects/{project}/update", {"description": "mine"})
        agent.post(f"/v1/ai/projects/{project}/update", {"description": "of another"})
    narrow.send("POST", "/v1/ai/projects/proj_doesnotexist/update", {"description": "x"})
    for expected in (7, 5):
        if expected == 5:
            agent.post(f"/v1/ai/projects/{other}/delete", {"confirmName": "other"})
        page = narrow.post(QUERY, {"pageSize": 3})
        entries = narrow.post(QUERY, {"pageSize": 200})["entries"]
        assert (page["total"], len({entry["id"] for entry in entries}), len(entries)) == (expected,) * 3
        assert narrow.get("/v1/ai/usage")["used"]["auditEntries"] == expected
        assert "totalIsAtLeast" not in page


def test_a_search_looks_at_the_newest_entries_and_says_so(
    vault: Vault, agent: Agent, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_index, "SEARCHED", 3)
    for number in range(6):
        agent.project(f"name {number}")
        clock.advance(1)
    page = agent.post(QUERY, {"search": "as name"})
    assert [entry["detail"][-1] for entry in page["entries"]] == ["5", "4", "3"]
    assert (page["total"], page["totalIsAtLeast"], page["searchStart"]) == (3, True, START_MS + 3000)
    older = agent.post(QUERY, {"search": "as name", "to": page["searchStart"] - 1})
    assert [entry["detail"][-1] for entry in older["entries"]] == ["2", "1", "0"]
    for filters in (
        {"search": "name 0"},
        {"search": "name 0", "sortBy": "action"},
        {"search": "name 1", "sortDir": "asc"},
    ):
        page = agent.post(QUERY, filters)
        assert (page["entries"], page["searchStart"]) == ([], START_MS + 3000), filters
    # Only entries that match the other filters count.
    page = agent.post(QUERY, {"search": "agent", "actions": ["ai_agent_approve", "ai_agent_register"]})
    assert (len(page["entries"]), "searchStart" in page, "totalIsAtLeast" in page) == (2, False, False)


@pytest.mark.usefixtures("history")
def test_of_several_filters_the_one_with_few_entries_is_followed(vault: Vault, agent: Agent) -> None:
    wanted = {"sourceIp": "127.0.0.1", "actions": ["project_delete"]}
    assert found(agent, **wanted) == ["project_delete"]
    filters = Filters(source_ips=["127.0.0.1"], actions=["project_delete"])
    with vault.store.reader() as db:
        followed = {}
        for few in (1, 2, 100):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(audit_index, "FEW", few)
                followed[few] = audit_index._walks(db, filters, "timestamp")[1]
    assert followed == {1: "source_ips", 2: "actions", 100: "source_ips"}


@pytest.mark.parametrize("statement", ["DELETE FROM audit", "UPDATE audit SET detail = ''"])
@pytest.mark.usefixtures("history")
def test_entries_cannot_be_changed_or_removed(vault: Vault, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), vault.store.transaction() as db:
        db.execute(statement)


def test_an_effect_that_fails_leaves_no_entry(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    with vault.store.transaction() as db:
        db.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON secret_versions BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END"
        )
    reply = agent.send("POST", f"/v1/ai/projects/{project_id}/secrets", {"name": "db", "value": "x"})
    assert (reply.status, reply.json) == (500, {"error": "internal error"})
    assert vault.audited("secret_create") == []
    assert agent.get(f"/v1/ai/projects/{project_id}/secrets") == []
