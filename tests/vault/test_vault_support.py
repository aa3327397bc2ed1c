"""Support tickets: agents write as the customer, the owner answers as the staff."""

from __future__ import annotations

from typing import Any

import pytest

from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault
from vault.domains import support
from vault.domains.support import Attachment
from vault.errors import VaultError

TICKETS = "/v1/ai/tickets"
FILE = Attachment("log.txt", "text/plain", b"line\n")


def ticket(**changed: Any) -> dict[str, Any]:
    return {"categoryId": "bug", "priority": "normal", "title": "It broke", "body": "Here is how.", **changed}


def opened(agent: Agent, **changed: Any) -> str:
    return str(agent.post(TICKETS, ticket(**changed))["id"])


def answer(vault: Vault, ticket_id: str, body: str = "We look.", **more: Any) -> str:
    with vault.store.transaction() as db:
        return support.staff_reply(db, vault.clock(), ticket_id, body, **more)


def expected_json(ticket_id: str, **changed: Any) -> dict[str, Any]:
    plain = {"id": ticket_id, "categoryId": "bug", "priority": "normal", "title": "It broke", "status": "open"}
    times = {"createdAt": START_MS, "updatedAt": START_MS}
    return {**plain, "rating": None, "messageCount": 1, **times, **changed}


def test_categories_have_ids_and_names(agent: Agent) -> None:
    listed = agent.get("/v1/ai/ticket-categories")
    assert {"id": "bug", "name": "Something does not work"} in listed
    for category in listed:
        opened(agent, categoryId=category["id"])


def test_a_new_ticket_is_open_and_can_be_read(vault: Vault, agent: Agent) -> None:
    reply = agent.send("POST", TICKETS, ticket())
    ticket_id = reply.json["id"]
    assert (reply.status, reply.json) == (201, {"id": ticket_id, "title": "It broke", "status": "open"})
    found = agent.get(f"{TICKETS}/{ticket_id}")
    message = {"author": "customer", "body": "Here is how.", "createdAt": START_MS, "attachments": []}
    assert found.pop("conversation") == [{"id": found_id(agent, ticket_id, 0), **message}]
    assert found == expected_json(ticket_id)
    assert [row["detail"] for row in vault.audited("ticket_create")] == [f"ticket {ticket_id} opened"]


def found_id(agent: Agent, ticket_id: str, place: int) -> str:
    return str(agent.get(f"{TICKETS}/{ticket_id}")["conversation"][place]["id"])


def test_a_ticket_outside_the_limits_is_refused(agent: Agent) -> None:
    for changed in [
        {"categoryId": "nothing"},
        {"priority": "asap"},
        {"title": ""},
        {"title": "t" * 257},
        {"body": ""},
        {"body": "b" * 10_001},
        {"status": "closed"},
    ]:
        assert agent.send("POST", TICKETS, ticket(**changed)).status == 400, changed
        assert agent.post(TICKETS + "/query")["total"] == 0, changed


def test_a_ticket_requires_all_keys(agent: Agent) -> None:
    for missing in ["categoryId", "priority", "title", "body"]:
        body = {key: value for key, value in ticket().items() if key != missing}
        assert agent.send("POST", TICKETS, body).error == f"{missing} is required", missing


def test_title_and_body_may_be_as_long_as_the_limits(agent: Agent) -> None:
    found = agent.get(f"{TICKETS}/{opened(agent, title='ø' * 256, body='ø' * 10_000)}")
    assert (found["title"], found["conversation"][0]["body"]) == ("ø" * 256, "ø" * 10_000)


def test_query_pages_through_tickets_by_latest_change(agent: Agent, clock: FakeClock) -> None:
    ids = []
    for _ in range(5):
        ids.append(opened(agent))
        clock.advance(1)
    agent.post(f"{TICKETS}/{ids[0]}/reply", {"body": "More."})
    pages = [agent.post(TICKETS + "/query", {"page": page, "pageSize": 2}) for page in (1, 2, 3, 4)]
    found = [[row["id"] for row in page["tickets"]] for page in pages]
    assert found == [[ids[0], ids[4]], [ids[3], ids[2]], [ids[1]], []]
    assert {(page["total"], page["pageSize"]) for page in pages} == {(5, 2)}
    assert agent.post(TICKETS + "/query", {"status": "waiting_on_staff"}) == {
        "tickets": [expected_json(ids[0], status="waiting_on_staff", messageCount=2, updatedAt=START_MS + 5_000)],
        "total": 1,
        "page": 1,
        "pageSize": 20,
    }
    for body in ({"page": 0}, {"pageSize": 0}, {"pageSize": 101}, {"status": "lost"}):
        assert agent.send("POST", TICKETS + "/query", body).status == 400


def test_replies_change_the_status(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    ticket_id = opened(agent)
    path = f"{TICKETS}/{ticket_id}"
    clock.advance(1)
    answer(vault, ticket_id, "Which version?")
    assert agent.get(path)["status"] == "waiting_on_customer"
    clock.advance(1)
    replied = agent.post(path + "/reply", {"body": "This one."})
    assert replied == {"id": ticket_id, "messageId": found_id(agent, ticket_id, 2), "status": "waiting_on_staff"}
    answer(vault, ticket_id, "Done.", status="resolved")
    assert agent.get(path)["status"] == "resolved"
    said = [(row["author"], row["body"], row["createdAt"] - START_MS) for row in agent.get(path)["conversation"]]
    assert said == [
        ("customer", "Here is how.", 0),
        ("staff", "Which version?", 1_000),
        ("customer", "This one.", 2_000),
        ("staff", "Done.", 2_000),
    ]
    assert agent.post(path + "/reply", {"body": "Not quite."})["status"] == "waiting_on_staff"
    assert [row["actor_kind"] for row in vault.audited("ticket_answer")] == ["user", "user"]
    assert [row["agent_id"] for row in vault.audited("ticket_reply")] == [agent.id, agent.id]


def test_a_closed_ticket_refuses_replies(vault: Vault, agent: Agent) -> None:
    ticket_id = opened(agent)
    answer(vault, ticket_id, status="closed")
    reply = agent.send("POST", f"{TICKETS}/{ticket_id}/reply", {"body": "But"})
    assert (reply.status, reply.error) == (409, "the ticket is closed: open another one")
    with pytest.raises(VaultError, match="is closed"):
        answer(vault, ticket_id)
    assert agent.get(f"{TICKETS}/{ticket_id}")["messageCount"] == 2


@pytest.mark.parametrize("body", [{}, {"body": ""}, {"body": "b" * 10_001}])
def test_a_reply_outside_the_limits_is_refused(agent: Agent, body: dict[str, Any]) -> None:
    path = f"{TICKETS}/{opened(agent)}"
    assert agent.send("POST", path + "/reply", body).status == 400
    assert agent.get(path)["messageCount"] == 1


@pytest.mark.parametrize("status", ["resolved", "closed"])
def test_a_resolved_ticket_is_rated_once(vault: Vault, agent: Agent, status: str) -> None:
    ticket_id = opened(agent)
    path = f"{TICKETS}/{ticket_id}"
    answer(vault, ticket_id, status=status)
    for rating in (0, 6, "5"):
        assert agent.send("POST", path + "/rate", {"rating": rating}).status == 400
    assert agent.post(path + "/rate", {"rating": 4}) == {"id": ticket_id, "rating": 4}
    again = agent.send("POST", path + "/rate", {"rating": 5})
    assert (again.status, again.error) == (409, "the ticket was already rated")
    assert (agent.get(path)["rating"], len(vault.audited("ticket_rate"))) == (4, 1)


@pytest.mark.parametrize("status", ["open", "waiting_on_customer", "waiting_on_staff"])
def test_an_open_ticket_cannot_be_rated(vault: Vault, agent: Agent, status: str) -> None:
    ticket_id = opened(agent)
    answer(vault, ticket_id, status=status)
    assert agent.send("POST", f"{TICKETS}/{ticket_id}/rate", {"rating": 5}).status == 409
    assert agent.get(f"{TICKETS}/{ticket_id}")["rating"] is None


def test_an_attachment_is_unchanged_and_sandboxed(vault: Vault, agent: Agent) -> None:
    ticket_id = opened(agent)
    picture = Attachment('søren "x".html', "text/html; charset=utf-8", bytes(range(256)) * 300)
    answer(vault, ticket_id, attachments=[FILE, picture])
    listed = agent.get(f"{TICKETS}/{ticket_id}")["conversation"][1]["attachments"]
    assert [(row["name"], row["contentType"], row["sizeBytes"]) for row in listed] == [
        ("log.txt", "text/plain", 5),
        ('søren "x".html', "text/html; charset=utf-8", 76_800),
    ]
    for file, row in zip((FILE, picture), listed):
        reply = agent.send("GET", f"{TICKETS}/attachments/{row['id']}")
        assert (reply.status, reply.raw, reply.headers["content-type"]) == (200, file.content, file.content_type)
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''s%C3%B8ren%20%22x%22.html"


def test_a_reply_of_the_staff_outside_the_limits_is_refused(vault: Vault, agent: Agent) -> None:
    cases: list[dict[str, Any]] = [
        {"body": ""},
        {"body": "b" * 10_001},
        {"status": "lost"},
        {"attachments": [FILE] * 11},
        {"attachments": [FILE._replace(content=b"x" * (5 * 1024 * 1024 + 1))]},
        {"attachments": [FILE._replace(name="")]},
        {"attachments": [FILE._replace(name="n" * 256)]},
        {"attachments": [FILE._replace(content_type="text/plain\r\nX-Bad: 1")]},
    ]
    for more in cases:
        ticket_id = opened(agent)
        with pytest.raises(VaultError):
            answer(vault, ticket_id, **more)
        assert agent.get(f"{TICKETS}/{ticket_id}")["messageCount"] == 1, more


def test_unknown_tickets_and_attachments_are_not_found(vault: Vault, agent: Agent) -> None:
    with pytest.raises(VaultError, match="there is no ticket"):
        answer(vault, "tk_nothing")
    for method, path, body in (
        ("GET", "tk_0123456789", None),
        ("GET", "attachments/ta_0123456789", None),
        ("POST", "tk_0123456789/reply", {"body": "x"}),
        ("POST", "tk_0123456789/rate", {"rating": 1}),
    ):
        assert agent.send(method, f"{TICKETS}/{path}", body).status == 404, path


def test_a_restricted_agent_sees_only_its_own_tickets(vault: Vault, agent: Agent) -> None:
    restricted = vault.agent(projects=[agent.project()])
    other, own = opened(agent), opened(restricted)
    answer(vault, other, attachments=[FILE])
    file_id = agent.get(f"{TICKETS}/{other}")["conversation"][1]["attachments"][0]["id"]
    assert [row["id"] for row in restricted.post(TICKETS + "/query")["tickets"]] == [own]
    assert restricted.post(TICKETS + "/query")["total"] == 1
    assert {row["id"] for row in agent.post(TICKETS + "/query")["tickets"]} == {own, other}
    for path in (other, "tk_0123456789"):
        reply = restricted.send("GET", f"{TICKETS}/{path}")
        assert (reply.status, reply.error) == (403, "the ticket is not one of the agent's own")
        assert restricted.send("POST", f"{TICKETS}/{path}/reply", {"body": "x"}).status == 403
    for path in (file_id, "ta_0123456789"):
        reply = restricted.send("GET", f"{TICKETS}/attachments/{path}")
        assert (reply.status, reply.error) == (403, "the attachment is not one of the agent's own")
    assert restricted.get(f"{TICKETS}/{own}")["id"] == own


def test_the_number_of_tickets_and_messages_is_limited(
    vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "MAX_OPEN", 2)
    monkeypatch.setattr(support, "MAX_MESSAGES", 2)
    first, _ = opened(agent), opened(agent)
    assert agent.send("POST", TICKETS, ticket()).status == 409
    agent.post(f"{TICKETS}/{first}/reply", {"body": "x"})
    assert agent.send("POST", f"{TICKETS}/{first}/reply", {"body": "x"}).status == 409
    answer(vault, first, status="closed")
    opened(agent)


def test_the_owner_sees_open_tickets_and_their_messages(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    first = opened(agent)
    clock.advance(1)
    second, third = opened(agent), opened(agent)
    answer(vault, third, status="closed")
    with vault.store.transaction() as db:
        assert [row["id"] for row in support.overview(db)] == [first, second]
        assert [row["author"] for row in support.conversation(db, third)] == ["customer", "staff"]
        with pytest.raises(VaultError):
            support.conversation(db, "tk_nothing")
