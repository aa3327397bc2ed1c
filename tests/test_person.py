"""Values that a person types and calls that a person confirms: what each kind of client brings about, in both eras."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sikkerkey_identity
import sikkerkey_mcp
import sikkerkey_options
import sikkerkey_page
import sikkerkey_person_dialog
import sikkerkey_questions
from sikkerkey_mcp import AgentConnection, VaultTools
from sikkerkey_options import PersonPolicy
from sikkerkey_tickets import REFUSED, Carried, Invalid, Tickets
from tests.support.harness import AGENT_ID, make_slot
from tests.support.in_process_client import InProcessClient, call, envelope, modern, notification
from tests.support.table_calls import MARK, ROWS, for_each, reply

PROJECT, SECRET, MACHINE = "proj_1", "sk_1", "machine_1"
FORM: Any = {"elicitation": {}}
BOTH: Any = {"elicitation": {"form": {}, "url": {}}}
CREATE = {"action": "create", "projectId": PROJECT, "name": "DB_PASSWORD", "fromPerson": True}
UPDATE = {"action": "update_value", "projectId": PROJECT, "secretId": SECRET, "fromPerson": True}
PURGE = {"action": "purge", "secretId": SECRET}
LINK = {
    **{"action": "create", "projectId": PROJECT, "name": "for Bob", "expiresInSeconds": 60},
    **{"generateRandom": True, "toPerson": True},
}
FOUND: dict[str, Any] = {
    "/v1/ai/whoami": {"agentId": AGENT_ID, "scopes": ["projects.secrets.write", "trash.write"]},
    "/v1/ai/projects": [{"id": PROJECT, "name": "Webshop"}],
    f"/v1/ai/projects/{PROJECT}/secrets": [{"id": SECRET, "name": "API_KEY"}],
    f"/v1/ai/projects/{PROJECT}/secrets/{SECRET}": {"id": SECRET, "name": "API_KEY", "fieldNames": None},
    "/v1/ai/trash": [{"id": SECRET, "name": "API_KEY"}],
}
WRITTEN = {
    "id": "sk_9",
    "version": 3,
    "expiresAt": 1_767_225_600_000,
    "name": "told to nobody",
    "url": f"https://v/s/{MARK}",
    "passphrase": "p-" + MARK,
}


class Vault(sikkerkey_mcp.Api):
    """A vault without a network: `found` by the path of a read; writes are recorded and answer `written`."""

    def __init__(self) -> None:
        self.base_url = "https://vault.example"
        self.found, self.written = dict(FOUND), dict(WRITTEN)
        self.writes: list[Any] = []
        self.failure: Exception | None = None

    def send(
        self, request: sikkerkey_mcp.Request, *, safe: bool, context: sikkerkey_mcp.Context
    ) -> sikkerkey_mcp.Answer:
        """The answer of `found` or `written`."""
        assert not context.cancellation.is_set()
        if request.method == "GET":
            answer = self.found.get(request.path, 404)
            body = b'{"error":"no"}' if isinstance(answer, int) else json.dumps(answer).encode()
            return reply(answer if isinstance(answer, int) else 200, body)
        if self.failure:
            raise self.failure
        self.writes.append((request.path, json.loads(request.body or b"null")))
        return reply(200, json.dumps(self.written).encode())


class Page:
    """Stands for the page in the browser: `person` acts when it is shown."""

    shown: list[str]
    person: Callable[[str], None] | None
    carry_out: Callable[[str, Mapping[str, str]], Carried]

    def __init__(self) -> None:
        self.shown, self.seen, self.person = [], set[str](), None

    def pages(self, _tickets: Tickets, carry_out: Any) -> Page:
        """Takes the place of `Pages`."""
        self.carry_out = carry_out
        return self

    def url(self, code: str) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:1/secret-token-{code}"

    def was_opened(self, code: str) -> bool:
        """True once `open` was called for it."""
        return code in self.seen

    def open(self, code: str) -> None:
        """The person opens the page and does what they do."""
        self.seen.add(code)
        self.shown.append(code)
        if self.person:
            self.person(code)


class Desk:
    """A server with a person, and what its client does when it is asked."""

    def __init__(self, page: Page, policy: PersonPolicy) -> None:
        self.page, self.vault = page, Vault()
        agent = AgentConnection()
        self.tools = VaultTools(lambda: self.vault, agent=agent, person=policy)
        self.tickets = Tickets(sikkerkey_identity.tickets_directory())
        self.asked: list[Any] = []

    def client(self, capabilities: Any = None, answer: Callable[[Any], Any] | None = None) -> InProcessClient:
        """A legacy client; `answer` makes the result of each question that it is asked."""
        client = InProcessClient(tools=self.tools, capabilities=capabilities)

        def respond(question: Any) -> Any:
            self.asked.append(question["params"])
            assert answer is not None
            return {"jsonrpc": "2.0", "id": question["id"], "result": answer(question["params"])}

        client.respond = respond
        return client

    def types(self, *values: str) -> Callable[[str], None]:
        """A person who types these values."""

        def person(code: str) -> None:
            fields = self.tickets.find(code).ticket.fields
            self.page.carry_out(code, dict(zip(fields, values)))

        return person

    def only_ticket(self) -> Any:
        """The one ticket that waits."""
        (ticket,) = self.tickets.waiting()
        return ticket


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    page = Page()
    monkeypatch.setattr(sikkerkey_page, "Pages", page.pages)
    monkeypatch.setattr(sikkerkey_page, "can_open_browser", lambda _environ: False)
    monkeypatch.setattr(sikkerkey_person_dialog, "POLL_S", 0.0)
    monkeypatch.setattr(sikkerkey_person_dialog, "WAIT_S", 0.0)
    monkeypatch.setattr(sikkerkey_person_dialog, "UNSEEN_PAGE_S", 0.0)
    return page


@pytest.fixture
def desk(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    make_slot(tmp_path, "https://vault.example")
    monkeypatch.setenv("SIKKERKEY_HOME", str(tmp_path / ".sikkerkey"))
    return Desk(page, PersonPolicy())


def told(answer: Any) -> Any:
    """What the model is told of a call that succeeded."""
    assert "isError" not in answer["result"], answer
    return answer["result"]["structuredContent"]


def failed(answer: Any) -> str:
    """The message of a call that failed."""
    assert answer["result"].get("isError"), answer
    return str(answer["result"]["content"][0]["text"])


def opens(desk: Desk) -> Callable[[Any], Any]:
    """A client that opens the page at once, and whose person acts on it."""

    def answer(params: Any) -> Any:
        assert params["mode"] == "url"
        desk.page.open(params["url"].rpartition("-")[2])
        return {"action": "accept"}

    return answer


def slowly(answer: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """A person's answer, which takes longer than a client that answers by itself."""
    monkeypatch.setattr(sikkerkey_questions, "NOBODY_S", -1.0)
    return lambda _params: answer


# values typed by a person


def test_a_typed_value_is_stored_and_the_model_learns_id_and_version_only(desk: Desk) -> None:
    desk.page.person = desk.types(MARK)
    answer = desk.client(BOTH, opens(desk)).send(call("manage_secrets", **UPDATE))
    assert told(answer) == {
        "status": "done",
        "message": "a person typed the value, and the vault stored it",
        "id": "sk_9",
        "version": 3,
        "expiresAt": "2026-01-01T00:00:00.000Z",
    }
    assert desk.vault.writes == [(f"/v1/ai/projects/{PROJECT}/secrets/{SECRET}/update", {"value": MARK})]
    assert MARK not in json.dumps(answer)
    assert "secret-token" not in json.dumps(answer)  # nor the page's address


def test_the_person_reads_what_is_asked_in_the_vaults_own_names(desk: Desk) -> None:
    desk.client().send(call("manage_secrets", **UPDATE))
    ticket = desk.only_ticket()
    assert ticket.title == 'Replace the value of the secret "API_KEY"'
    assert ("Project", '"Webshop" (proj_1)') in ticket.details
    assert ticket.details[-1] == ("Agent", "test agent")
    assert ticket.quoted == ()
    desk.client().send(call("manage_secrets", **{**CREATE, "note": "\u202eevil", "name": "N" * 255}))
    ticket = desk.tickets.waiting()[1]
    assert ticket.quoted == (("name", "N" * 200 + "..."), ("note", "<U+202E>evil"))


def test_no_name_ends_its_quotation_to_speak_as_the_program(desk: Desk) -> None:
    name = 'A". Code 7777. Already agreed: "'
    desk.client().send(call("manage_secrets", **{**CREATE, "name": name}))
    assert desk.only_ticket().title == r'Store a new secret "A\". Code 7777. Already agreed: \""'
    desk.vault.found["/v1/ai/projects/proj_1/secrets/sk_1"] = {"id": "sk_1", "name": name}
    desk.client().send(call("manage_secrets", **UPDATE))
    titles = [ticket.title for ticket in desk.tickets.waiting()]
    assert titles[1] == r'Replace the value of the secret "A\". Code 7777. Already agreed: \""'


def test_each_field_of_a_structured_secret_is_asked_for(desk: Desk) -> None:
    desk.page.person = desk.types("h", "p")
    client = desk.client(BOTH, opens(desk))
    told(client.send(call("manage_secrets", **CREATE, fieldNames=["host", "password"])))
    assert json.loads(desk.vault.writes[0][1]["value"]) == {"host": "h", "password": "p"}
    desk.vault.found[f"/v1/ai/projects/{PROJECT}/secrets/{SECRET}"] = {"id": SECRET, "fieldNames": ["a", "b"]}
    told(client.send(call("manage_secrets", **UPDATE)))
    assert json.loads(desk.vault.writes[1][1]["value"]) == {"a": "h", "b": "p"}


def test_fixed_fields_of_a_schedule_are_asked_for(desk: Desk) -> None:
    schedule = {
        **{"action": "dynamic_create", "projectId": PROJECT, "name": "db", "intervalSeconds": 300},
        **{"fieldNames": ["host", "password"], "fields": ["password"], "fromPerson": True},
    }
    desk.page.person = desk.types(MARK)
    answer = desk.client(BOTH, opens(desk)).send(call("manage_secrets", **schedule))
    assert told(answer)["id"] == "sk_9"
    body = desk.vault.writes[0][1]
    assert body["staticFields"] == {"host": MARK}
    assert "fromPerson" not in body
    assert MARK not in json.dumps(answer)


def test_exactly_one_source_of_a_value(desk: Desk) -> None:
    client = desk.client()
    link = {name: value for name, value in LINK.items() if name not in ("generateRandom", "toPerson")}
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("manage_secrets", {**CREATE, "value": MARK}, "value cannot be combined with fromPerson true"),
        ("manage_secrets", {**UPDATE, "fromPerson": False}, "value is required unless fromPerson is true"),
        ("manage_temporary_secrets", link, "value is required unless fromPerson or generateRandom is true"),
        ("manage_temporary_secrets", {**LINK, "value": MARK}, "value cannot be combined with generateRandom true"),
        ("manage_temporary_secrets", {**LINK, "fromPerson": True}, "generateRandom cannot be combined with fromPerson"),
    ]
    for tool, arguments, rule in wrong:
        assert failed(client.send(call(tool, **arguments))).startswith(rule), arguments
    assert desk.vault.writes == []
    assert desk.tickets.waiting() == []


def test_nobody_types_for_a_call_that_must_fail(desk: Desk) -> None:
    client = desk.client(BOTH, lambda _params: pytest.fail("a person was asked"))
    desk.vault.found["/v1/ai/whoami"] = {"scopes": ["projects.read"]}
    assert failed(client.send(call("manage_secrets", **CREATE))).startswith(
        "this agent lacks the scope projects.secrets.write"
    )
    desk.vault.found["/v1/ai/whoami"] = FOUND["/v1/ai/whoami"]
    assert failed(client.send(call("manage_secrets", **{**UPDATE, "secretId": "sk_2"}))).startswith(
        "the vault answered 404"
    )
    assert failed(client.send(call("manage_secrets", **{**CREATE, "projectId": "proj_2"}))).startswith("projectId is")
    assert failed(client.send(call("manage_secrets", **{**CREATE, "name": "API_KEY"}))).startswith("name belongs")
    assert failed(client.send(call("manage_secrets", **{**CREATE, "name": ""}))).startswith("name must")
    assert desk.tickets.waiting() == []


# what each client does


def test_a_client_that_cannot_ask_gets_a_code_and_a_command(desk: Desk) -> None:
    answer = told(desk.client().send(call("manage_secrets", **UPDATE)))
    ticket = desk.only_ticket()
    assert (answer["status"], answer["code"]) == ("waiting", ticket.code)
    assert answer["command"].endswith(f" fill {ticket.code}")
    assert 590 < answer["expiresInSeconds"] <= 600
    assert "await_person" in answer["hint"]
    assert "page" not in answer["hint"]


def test_a_call_too_large_to_wait_is_the_models_to_shorten(desk: Desk) -> None:
    message = failed(desk.client().send(call("manage_secrets", **UPDATE, wait_for_previous="x" * 600_000)))
    assert message.startswith(
        "a call of more than 524,288 bytes cannot wait for a person; nothing was sent\nhint: shorten"
    )
    assert desk.tickets.waiting() == []


def test_a_client_that_answers_for_its_user_has_not_asked(desk: Desk) -> None:
    for action in ("decline", "cancel"):
        client = desk.client(BOTH, lambda _params, action=action: {"action": action})  # type: ignore[misc]
        assert told(client.send(call("manage_secrets", **UPDATE)))["status"] == "waiting", action
    assert [params["mode"] for params in desk.asked] == ["url", "url"]
    assert desk.vault.writes == []
    desk.only_ticket()  # the second call found the first one's


def test_a_person_who_refuses_is_not_asked_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for action in ("decline", "cancel"):
        client = desk.client(BOTH, slowly({"action": action}, monkeypatch))
        message = failed(client.send(call("manage_secrets", **UPDATE)))
        assert message == f"nothing was sent: {REFUSED}"
    assert desk.tickets.waiting() == desk.vault.writes == []


def test_closing_a_page_that_was_opened_is_a_refusal_however_fast(desk: Desk) -> None:
    def answer(params: Any) -> Any:
        desk.page.open(params["url"].rpartition("-")[2])
        return {"action": "cancel"}

    assert "refused" in failed(desk.client(BOTH, answer).send(call("manage_secrets", **UPDATE)))


def opens_pages(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets this program open pages in a browser; the codes of those that it opens."""
    opened: list[str] = []

    def open_browser(_url: str, code: str, _directory: str) -> bool:
        opened.append(code)
        desk.page.open(code)
        return True

    monkeypatch.setattr(sikkerkey_page, "can_open_browser", lambda _environ: True)
    monkeypatch.setattr(sikkerkey_page, "open_browser", open_browser)
    return opened


def test_a_form_asks_before_this_program_opens_the_page(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opens_pages(desk, monkeypatch)
    desk.page.person = desk.types(MARK)

    def codex(params: Any) -> Any:
        return {"action": "decline"} if params["mode"] == "url" else {"action": "accept", "content": {"open": True}}

    answer = desk.client(BOTH, codex).send(call("manage_secrets", **UPDATE))
    assert told(answer)["version"] == 3
    assert [params["mode"] for params in desk.asked] == ["url", "form"]
    assert len(opened) == 1
    assert "127.0.0.1" not in json.dumps(desk.asked[1])  # no address in a form


def test_an_accepted_form_without_consent_opens_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_page, "can_open_browser", lambda _environ: True)
    monkeypatch.setattr(sikkerkey_page, "open_browser", lambda *_given: pytest.fail("opened"))
    client = desk.client(FORM, lambda _params: {"action": "accept", "content": {"open": False}})
    assert "refused" in failed(client.send(call("manage_secrets", **UPDATE)))


def test_without_elicitation_the_page_opens_where_there_is_a_display(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sikkerkey_page, "can_open_browser", lambda _environ: True)

    def open_browser(_url: str, code: str, _directory: str) -> bool:
        desk.page.open(code)
        return True

    monkeypatch.setattr(sikkerkey_page, "open_browser", open_browser)
    desk.page.person = desk.types(MARK)
    assert told(desk.client().send(call("manage_secrets", **UPDATE)))["status"] == "done"
    desk.page.person = None
    waiting = told(desk.client().send(call("manage_secrets", **UPDATE)))
    assert "or to use the page that has opened if it shows this code" in waiting["hint"]
    never = Desk(desk.page, PersonPolicy(browser="never"))
    monkeypatch.setattr(sikkerkey_page, "open_browser", lambda *_given: pytest.fail("opened"))
    assert told(never.client().send(call("manage_secrets", **UPDATE)))["status"] == "waiting"


def test_a_ticket_that_is_deleted_meanwhile_is_told_in_words(desk: Desk) -> None:
    def delete(params: Any) -> Any:
        for path in Path(desk.tickets.directory).iterdir():
            path.unlink()
        return {"action": "accept"}

    message = failed(desk.client(BOTH, delete).send(call("manage_secrets", **UPDATE)))
    assert message.startswith(
        "what waited for a person was deleted from this computer\nhint: the request may have been"
    )


def test_repeating_a_call_while_the_person_types_refuses_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opens_pages(desk, monkeypatch)
    for capabilities, action in ((None, ""), (BOTH, "decline"), (BOTH, "cancel")):
        client = desk.client(capabilities, lambda _params, action=action: {"action": action})  # type: ignore[misc]
        given = {**CREATE, "name": f"N{len(opened)}"}
        codes = [told(client.send(call("manage_secrets", **given)))["code"] for _ in range(3)]
        assert codes == [opened[-1]] * 3
    assert len(opened) == 3
    desk.page.carry_out(opened[0], {"": MARK})


def test_a_modern_call_is_sent_again_when_the_person_is_done(desk: Desk) -> None:
    client = InProcessClient("", desk.tools)
    arguments = {"name": "manage_secrets", "arguments": CREATE}
    first = client.send(modern("tools/call", 1, envelope(BOTH), **arguments))["result"]
    assert first["resultType"] == "input_required"
    params = first["inputRequests"]["question"]["params"]
    assert params["mode"] == "url"
    assert f"Code {desk.only_ticket().code}." in params["message"]
    desk.page.person = desk.types(MARK)
    desk.page.open(params["url"].rpartition("-")[2])
    # The vault has a secret of that name now, which would refuse a further call.
    desk.vault.found[f"/v1/ai/projects/{PROJECT}/secrets"] = [{"id": "sk_9", "name": "DB_PASSWORD"}]
    again = {"requestState": first["requestState"], "inputResponses": {"question": {"action": "accept"}}}
    answer = client.send(modern("tools/call", 2, envelope(BOTH), **arguments, **again))
    assert told(answer)["status"] == "done"
    assert len(desk.vault.writes) == 1


def test_a_modern_client_that_answers_for_its_user_does_not_make_the_model_wait(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sikkerkey_person_dialog.PersonDialog, "_wait", lambda *_given: pytest.fail("waited"))
    client = InProcessClient("", desk.tools)

    def call_again(tool: str, arguments: Any) -> Any:
        given = {"name": tool, "arguments": arguments}
        result = client.send(modern("tools/call", 1, envelope(BOTH), **given))["result"]
        while result["resultType"] == "input_required":
            again = {"requestState": result["requestState"], "inputResponses": {"question": {"action": "cancel"}}}
            result = client.send(modern("tools/call", 2, envelope(BOTH), **given, **again))["result"]
        return {"result": result}

    assert told(call_again("manage_secrets", UPDATE))["status"] == "waiting"
    assert "needs a person's confirmation; nothing was done" in failed(call_again("manage_trash", PURGE))
    opened: list[str] = []
    monkeypatch.setattr(sikkerkey_page, "can_open_browser", lambda _environ: True)

    def open_browser(_url: str, code: str, _directory: str) -> bool:
        opened.append(code)
        return True

    monkeypatch.setattr(sikkerkey_page, "open_browser", open_browser)
    monkeypatch.setattr(sikkerkey_person_dialog.PersonDialog, "_wait", lambda *_given: None)
    for _ in range(2):
        code = told(call_again("manage_secrets", CREATE))["code"]
    assert opened == [code]


def test_a_legacy_page_is_closed_when_the_person_is_done(desk: Desk) -> None:
    desk.page.person = desk.types(MARK)
    client = desk.client(BOTH, opens(desk))
    client.send(call("manage_secrets", **UPDATE))
    asked, closed = client.notifications
    assert closed["method"] == "notifications/elicitation/complete"
    assert closed["params"] == {"elicitationId": asked["params"]["elicitationId"]}


# waiting


def test_await_person_tells_each_ending(desk: Desk) -> None:
    client = desk.client()
    endings: dict[str, Callable[[str], object]] = {
        "typed": lambda code: desk.page.carry_out(code, {"": MARK}),
        "refused": lambda code: desk.tickets.refuse(code, "the user refused"),
    }
    for ending, act in endings.items():
        code = told(client.send(call("manage_secrets", **UPDATE)))["code"]
        assert told(client.send(call("manage_secrets", action="await_person", code=code)))["status"] == "waiting"
        act(code)
        for _ in range(2):  # a client may have lost the first answer
            answer = client.send(call("manage_secrets", action="await_person", code=code.lower()))
            if ending == "typed":
                assert told(answer)["version"] == 3
            else:
                assert failed(answer) == "nothing was sent: the user refused"
    assert failed(client.send(call("manage_secrets", action="await_person", code="2222"))).startswith(
        "there is no call"
    )


def test_the_same_call_finds_its_ticket_and_later_asks_again(desk: Desk) -> None:
    client = desk.client()
    code = told(client.send(call("manage_secrets", **UPDATE)))["code"]
    assert told(client.send(call("manage_secrets", **UPDATE)))["code"] == code
    desk.page.carry_out(code, {"": MARK})
    assert told(client.send(call("manage_secrets", **UPDATE)))["status"] == "done"
    assert told(client.send(call("manage_secrets", **UPDATE)))["code"] != code


def test_a_cancelled_call_is_never_completed(desk: Desk) -> None:
    client = desk.client(BOTH)
    started = client.start(call("manage_secrets", 7, **UPDATE))

    def respond(question: Any) -> Any:
        client.send(notification("notifications/cancelled", requestId=7))
        return {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}

    client.respond = respond
    assert started.run() is None
    assert desk.tickets.waiting() == []


class Unanswered(sikkerkey_mcp.Context):
    """A client whose user does not answer until `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.released = threading.Event(), threading.Event()

    def ask(self, question: Any, subject: str = "") -> Any:
        """Blocks."""
        self.asked.set()
        self.released.wait()
        return super().ask(question, subject)


def test_a_third_question_at_once_becomes_a_command(desk: Desk) -> None:
    waiting = [Unanswered(), Unanswered()]
    calls = [
        threading.Thread(target=desk.tools.call, args=("manage_secrets", {**CREATE, "name": f"N{number}"}, context))
        for number, context in enumerate(waiting)
    ]
    for thread, context in zip(calls, waiting):
        thread.start()
        context.asked.wait()
    third = desk.tools.call("manage_secrets", UPDATE, Unanswered())
    assert third["structuredContent"]["status"] == "waiting"
    for thread, context in zip(calls, waiting):
        context.released.set()
        thread.join()


# failures


def test_a_person_may_try_again_if_nothing_was_sent(desk: Desk) -> None:
    code = told(desk.client().send(call("manage_secrets", **UPDATE)))["code"]
    desk.vault.failure = sikkerkey_mcp.ServiceError("the vault cannot be reached")
    with pytest.raises(Invalid, match="nothing was sent: the vault cannot be reached"):
        desk.page.carry_out(code, {"": MARK})
    desk.vault.failure = None
    assert desk.page.carry_out(code, {"": MARK}).outcome.state == "done"


def test_a_write_that_may_have_been_processed_says_so(desk: Desk) -> None:
    client = desk.client()
    code = told(client.send(call("manage_secrets", **UPDATE)))["code"]
    desk.vault.failure = sikkerkey_mcp.ServiceError("no answer", sikkerkey_mcp.MAY_HAVE_BEEN_PROCESSED)
    assert desk.page.carry_out(code, {"": MARK}).outcome.state == "unclear"
    message = failed(client.send(call("manage_secrets", action="await_person", code=code)))
    assert message == f"no answer\nhint: {sikkerkey_mcp.MAY_HAVE_BEEN_PROCESSED}"


def test_what_the_vault_repeats_of_the_value_is_redacted(desk: Desk) -> None:
    client = desk.client()
    code = told(client.send(call("manage_secrets", **UPDATE)))["code"]
    desk.vault.failure = sikkerkey_mcp.ServiceError("the vault answered 400", "correct it", 400)
    assert desk.page.carry_out(code, {"": MARK}).outcome.state == "failed"
    assert failed(client.send(call("manage_secrets", action="await_person", code=code))).startswith(
        "the vault answered"
    )


def test_a_crash_while_sending_ends_the_ticket_and_shows_no_value(desk: Desk) -> None:
    client = desk.client()
    code = told(client.send(call("manage_secrets", **UPDATE)))["code"]
    desk.vault.failure = RuntimeError("bug")
    with pytest.raises(RuntimeError):
        desk.page.carry_out(code, {"": MARK})
    assert "not recorded" in failed(client.send(call("manage_secrets", action="await_person", code=code)))


def test_typed_values_are_checked_before_the_ticket_is_taken(desk: Desk) -> None:
    code = told(desk.client().send(call("manage_secrets", **UPDATE)))["code"]
    wrong: list[dict[str, str]] = [{}, {"": ""}, {"other": MARK}, {"": MARK, "more": MARK}, {"": MARK * 12_288}]
    for values in wrong:
        with pytest.raises(Invalid) as refused:
            desk.page.carry_out(code, values)
        assert MARK not in str(refused.value)
    assert desk.only_ticket().code == code
    assert desk.vault.writes == []


def test_typed_value_that_stands_in_the_name_or_note_is_not_sent(desk: Desk) -> None:
    for name in ("name", "note"):
        given = {"action": "create", "projectId": PROJECT, "name": "n", "fromPerson": True, name: f"it is {MARK}"}
        code = told(desk.client().send(call("manage_secrets", **given)))["code"]
        with pytest.raises(Invalid, match=f"{name} holds the value itself; nothing was sent") as refused:
            desk.page.carry_out(code, {"": MARK})
        assert MARK not in str(refused.value)
        assert desk.vault.writes == []
        assert desk.page.carry_out(code, {"": "another value"}).outcome.state == "done"
        desk.vault.writes.clear()


def test_a_ticket_serves_only_the_agent_that_it_was_made_for(desk: Desk, tmp_path: Path) -> None:
    code = told(desk.client().send(call("manage_secrets", **UPDATE)))["code"]
    other = "0" * 8 + AGENT_ID[8:]
    make_slot(tmp_path, "https://vault.example", other)
    people = sikkerkey_mcp.person_calls(other)
    with pytest.raises(Invalid, match="another agent"):
        people.carry_out(code, {"": MARK})


# credentials for a person's eyes


def test_a_credential_is_shown_to_the_person_and_the_model_gets_its_id(desk: Desk) -> None:
    client = desk.client()
    answer = told(client.send(call("manage_temporary_secrets", **LINK)))
    assert desk.vault.writes == []  # it is created when the person is there
    assert answer["command"].endswith(f" show {answer['code']}")
    carried = desk.page.carry_out(answer["code"], {})
    assert dict(carried.shown) == {"name": "told to nobody", "url": f"https://v/s/{MARK}", "passphrase": "p-" + MARK}
    result = client.send(call("manage_secrets", action="await_person", code=answer["code"]))
    assert told(result)["id"] == "sk_9"
    assert MARK not in json.dumps(result)
    assert "toPerson" not in desk.vault.writes[0][1]


def test_a_value_of_the_model_is_never_in_a_file(desk: Desk) -> None:
    link = {name: value for name, value in LINK.items() if name != "generateRandom"}
    for policy in (PersonPolicy(), PersonPolicy(confirm="writes")):
        client = Desk(desk.page, policy).client()
        message = failed(client.send(call("manage_temporary_secrets", **link, value=MARK)))
        assert message.startswith(
            "value cannot be combined with toPerson true; nothing was sent\nhint: give no value and"
        )
        client.send(call("manage_temporary_secrets", **{**link, "toPerson": False}, value=MARK))
    assert desk.tickets.waiting() == []
    for path in Path(os.environ["SIKKERKEY_HOME"]).rglob("*"):
        assert path.is_dir() or MARK.encode() not in path.read_bytes()


def test_a_link_to_a_typed_value_is_typed_and_shown_on_one_page(desk: Desk) -> None:
    link = {**LINK, "fromPerson": True}
    del link["generateRandom"]
    desk.client().send(call("manage_temporary_secrets", **link))
    ticket = desk.only_ticket()
    assert (ticket.kind, ticket.fields, ticket.shows) == ("fill", ("",), True)
    carried = desk.page.carry_out(ticket.code, {"": "typed"})
    assert "url" in dict(carried.shown)
    assert desk.vault.writes[0][1]["value"] == "typed"


# confirmations


def ticks(params: Any) -> Any:
    """A person who ticks the box."""
    assert list(params["requestedSchema"]["properties"]) == ["confirm"]
    return {"action": "accept", "content": {"confirm": True}}


def test_what_cannot_be_undone_is_sent_after_a_tick(desk: Desk) -> None:
    client = desk.client(FORM, ticks)
    assert told(client.send(call("manage_trash", **PURGE)))["id"] == "sk_9"
    assert len(desk.vault.writes) == 1
    (params,) = desk.asked
    field = params["requestedSchema"]["properties"]["confirm"]
    assert field["title"] == 'Destroy the secret "API_KEY" with all its versions'
    assert field["default"] is False
    assert params["requestedSchema"]["required"] == ["confirm"]
    assert params["message"].startswith(f"{field['title']}?\nThis cannot be undone.\n")
    assert params["message"].endswith("\nAgent: test agent")


def test_what_is_removed_stands_where_every_client_shows_it(desk: Desk) -> None:
    desk.vault.written = {"cascade": {"secrets": 2, "policies": 0}}
    client = desk.client(FORM, lambda _params: {"action": "decline"})
    client.send(call("manage_projects", action="delete", projectId=PROJECT, confirmName="Webshop"))
    lines = desk.asked[0]["message"].splitlines()  # Claude Code shows three of them at first
    assert lines[1:4] == ["This cannot be undone.", "Removes: secrets: 2", f'Project: "Webshop" ({PROJECT})']


def test_everything_but_a_tick_denies(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [
        {"action": "accept", "content": {"confirm": False}},
        {"action": "accept", "content": {}},
        {"action": "accept"},
        {"action": "accept", "content": {"confirm": "true"}},
        {"action": "accept", "content": {"confirm": True, "more": 1}},
        {"action": "decline"},
        {"action": "cancel"},
    ]
    for answer in answers:
        message = failed(desk.client(FORM, slowly(answer, monkeypatch)).send(call("manage_trash", **PURGE)))
        assert message.startswith("purge was not confirmed; nothing was sent"), answer
    assert desk.vault.writes == []


def test_where_nobody_was_asked_a_person_confirms_by_command(desk: Desk) -> None:
    headless: list[Any] = [{"action": "decline"}, {"action": "cancel"}, {"action": "accept", "content": {}}]
    for capabilities, answer in [(None, None), *((FORM, answer) for answer in headless)]:
        client = desk.client(capabilities, lambda _params, answer=answer: answer)  # type: ignore[misc]
        message = failed(client.send(call("manage_trash", **PURGE)))
        assert "this needs a person's confirmation; nothing was done" in message
        assert f" confirm {desk.only_ticket().code}; then call manage_secrets.await_person" in message
    assert desk.vault.writes == []
    code = desk.only_ticket().code
    assert desk.page.carry_out(code, {}).outcome.state == "done"
    assert told(desk.client().send(call("manage_secrets", action="await_person", code=code)))["id"] == "sk_9"


def test_the_model_cannot_confirm_itself(desk: Desk) -> None:
    client = desk.client()
    client.send(call("manage_trash", **PURGE))
    code = desk.only_ticket().code
    for arguments in ({"confirm": True}, {"confirm": code}, {"code": code}):
        assert failed(client.send(call("manage_trash", **PURGE, **arguments))).startswith("unknown argument")
    for _ in range(3):
        client.send(call("manage_secrets", action="await_person", code=code))
        client.send(call("manage_trash", **PURGE))
    assert desk.vault.writes == []


def test_a_confirmation_fits_one_call_of_one_agent(desk: Desk, tmp_path: Path) -> None:
    client = InProcessClient("", desk.tools, lenient=True)
    desk.vault.found["/v1/ai/trash"] = [{"id": SECRET, "name": "A"}, {"id": "sk_2", "name": "B"}]
    arguments = {"name": "manage_trash", "arguments": PURGE}
    first = client.send(modern("tools/call", 1, envelope(FORM), **arguments))["result"]
    yes = {
        "requestState": first["requestState"],
        "inputResponses": {"question": {"action": "accept", "content": {"confirm": True}}},
    }
    other = {"name": "manage_trash", "arguments": {**PURGE, "secretId": "sk_2"}}
    assert "error" in client.send(modern("tools/call", 2, envelope(FORM), **other, **yes))
    assert desk.vault.writes == []
    assert told(client.send(modern("tools/call", 3, envelope(FORM), **arguments, **yes)))["id"] == "sk_9"
    assert "error" in client.send(modern("tools/call", 4, envelope(FORM), **arguments, **yes))  # replayed
    assert len(desk.vault.writes) == 1


def test_previews_and_reads_are_never_asked_about(desk: Desk) -> None:
    client = desk.client(FORM, lambda _params: pytest.fail("asked"))
    preview = {"action": "delete", "projectId": PROJECT, "preview": True}
    told(client.send(call("manage_projects", **preview)))
    told(client.send(call("manage_trash", action="list")))
    told(client.send(call("manage_secrets", action="delete", projectId=PROJECT, secretId=SECRET)))  # 30 days of trash


def test_levels_decide_what_is_confirmed(page: Page, desk: Desk) -> None:
    rename = ("manage_secrets", {"action": "rename", "projectId": PROJECT, "secretId": SECRET, "name": "new"})
    delete = ("manage_secrets", {"action": "delete", "projectId": PROJECT, "secretId": SECRET})
    purge = ("manage_trash", PURGE)
    asked = {"never": [], "irreversible": [purge], "destructive": [purge, delete], "writes": [purge, delete, rename]}
    for level, expected in asked.items():
        other = Desk(page, PersonPolicy(confirm=level))
        for tool, arguments in (rename, delete, purge):
            result = other.client().send(call(tool, **arguments))["result"]
            assert bool(result.get("isError")) is ((tool, arguments) in expected), (level, arguments)


def test_a_value_from_the_model_is_in_no_question_and_in_no_file(page: Page, desk: Desk) -> None:
    careful = Desk(page, PersonPolicy(confirm="writes"))
    arguments = {"action": "update_value", "projectId": PROJECT, "secretId": SECRET, "value": MARK}
    for capabilities in (None, FORM):
        client = careful.client(capabilities, lambda _params: {"action": "cancel"})
        message = failed(client.send(call("manage_secrets", **arguments)))
        assert message.startswith("update_value needs a person's confirmation; nothing was sent\nhint: give no value")
    assert careful.tickets.waiting() == []
    assert MARK not in json.dumps(careful.asked)
    told(careful.client(FORM, ticks).send(call("manage_secrets", **arguments)))
    assert careful.vault.writes[0][1] == {"value": MARK}


def test_a_directory_that_others_can_use_stops_only_what_needs_it(desk: Desk) -> None:
    directory = Path(sikkerkey_identity.tickets_directory())
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    client = desk.client(FORM, ticks)
    rename = {"action": "rename", "projectId": PROJECT, "secretId": SECRET, "name": "new"}
    told(client.send(call("manage_secrets", **rename)))
    told(client.send(call("manage_trash", **PURGE)))  # the client asks, without a file
    for arguments in (UPDATE, {"action": "await_person", "code": "2222"}):
        assert str(directory) in failed(desk.client().send(call("manage_secrets", **arguments)))


def test_an_agent_is_told_nothing_of_another_agents_calls(desk: Desk, tmp_path: Path) -> None:
    code = told(desk.client().send(call("manage_secrets", **UPDATE)))["code"]
    other = "0" * 8 + AGENT_ID[8:]
    make_slot(tmp_path, "https://vault.example", other)
    tools = VaultTools(lambda: desk.vault, agent=AgentConnection(other), person=PersonPolicy())
    answer = InProcessClient(tools=tools).send(call("manage_secrets", action="await_person", code=code))
    assert failed(answer).startswith("there is no call")


def test_only_what_widens_or_disarms_is_asked_about(desk: Desk) -> None:
    desk.vault.found[f"/v1/ai/projects/{PROJECT}/machines/{MACHINE}/secrets"] = [{"id": SECRET}, {"id": "sk_2"}]
    desk.vault.found["/v1/ai/alerts"] = ["secret_read", "canary_read"]
    policy = {"action": "update", "projectId": PROJECT, "policyId": "p_1"}
    grants = {"action": "grants_set", "projectId": PROJECT, "machineId": MACHINE}
    cases: list[tuple[str, dict[str, Any], bool]] = [
        ("manage_project_machines", {**grants, "secretIds": [SECRET]}, False),
        ("manage_project_machines", {**grants, "secretIds": []}, False),
        ("manage_project_machines", {**grants, "secretIds": [SECRET, "sk_3"]}, True),
        ("manage_policies", {**policy, "rateCapEnabled": True}, False),
        ("manage_policies", {**policy, "rateCapEnabled": False}, True),
        ("manage_alerts", {"action": "set", "enabledActions": ["canary_read", "secret_read", "x_y"]}, False),
        ("manage_alerts", {"action": "set", "enabledActions": ["secret_read"]}, True),
        ("manage_canaries", {"action": "config", "canaryId": "c", "triggerFreezeProject": True}, False),
        ("manage_canaries", {"action": "config", "canaryId": "c", "triggerFreezeProject": False}, True),
        ("manage_webhooks", {"action": "update", "webhookId": "w", "enabled": True}, False),
        ("manage_webhooks", {"action": "update", "webhookId": "w", "enabled": False}, True),
    ]
    desk.vault.found.update({"/v1/ai/canaries/c": {}, "/v1/ai/webhooks/w": {}, f"/v1/ai/machines/{MACHINE}": {}})
    desk.vault.found[f"/v1/ai/projects/{PROJECT}/policies/p_1"] = {}
    for tool, arguments, is_asked in cases:
        result = desk.client().send(call(tool, **arguments))["result"]
        assert bool(result.get("isError")) is is_asked, (arguments, result)
    desk.vault.found[f"/v1/ai/projects/{PROJECT}/machines/{MACHINE}/secrets"] = 403  # it cannot be known
    assert desk.client().send(call("manage_project_machines", **grants, secretIds=[SECRET]))["result"]["isError"]


@for_each([row for row in ROWS if row.action.warning])
def test_each_warning_has_a_title_for_the_person(row: Any) -> None:
    assert row.action.title
    assert row.action.effect != "read"
    names = {arg.name for arg in row.action.args}
    assert {part.partition("}")[0] for part in row.action.title.split("{")[1:]} <= names


# policies


def test_values_may_be_left_to_people_altogether(page: Page, desk: Desk) -> None:
    strict = Desk(page, PersonPolicy(values="from-person", values_source="SIKKERKEY_VALUES"))
    for tool in strict.tools.listing():
        assert not {"value", "staticFields"} & set(tool["inputSchema"]["properties"]), tool["name"]
    arguments = {**CREATE, "value": MARK}
    del arguments["fromPerson"]
    message = failed(strict.client().send(call("manage_secrets", **arguments)))
    assert message.startswith("value is withheld by SIKKERKEY_VALUES\nhint: set fromPerson true")
    code = told(strict.client().send(call("manage_secrets", **UPDATE)))["code"]
    assert strict.page.carry_out(code, {"": "typed"}).outcome.state == "done"


def test_whoami_shows_the_policy_if_it_is_not_the_default(page: Page, desk: Desk) -> None:
    assert "person" not in told(desk.client().send(call("whoami")))
    loud = Desk(page, PersonPolicy(confirm="never"))
    assert told(loud.client().send(call("whoami")))["person"] == {"confirm": "never", "values": "any"}


def test_options_and_variables_set_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    policy_options = [option for option in sikkerkey_options.OPTIONS.values() if option.choices]
    for each in policy_options:
        monkeypatch.delenv(each.variable, raising=False)
    assert sikkerkey_options.read_person_policy({})[:3] == ("irreversible", "any", "auto")
    monkeypatch.setenv("SIKKERKEY_VALUES", "from-person")
    assert sikkerkey_options.read_person_policy({"--confirm": "writes"})[:3] == ("writes", "from-person", "auto")
    for option, variable, known in [(each.name, each.variable, each.choices) for each in policy_options]:
        for wrong in ("none", "Never", " never"):
            monkeypatch.setenv(variable, wrong)
            with pytest.raises(sikkerkey_mcp.ConfigError, match=f"{variable} must be one of: {', '.join(known)}"):
                sikkerkey_options.read_person_policy({})
            monkeypatch.delenv(variable)
            with pytest.raises(sikkerkey_mcp.ConfigError, match=f"{option} must be one of"):
                sikkerkey_options.read_person_policy({option: wrong})


# every client as it was measured: what it declares, and what comes back from it

OPENED = object()  # the client opens the page, on which the person types
TICKED = {"action": "accept", "content": {"confirm": True}}
UNTICKED = {"action": "accept", "content": {"confirm": False}}
CONSENT = {"action": "accept", "content": {"open": True}}
EMPTY = {"action": "accept", "content": {}}
DECLINE, CANCEL = {"action": "decline"}, {"action": "cancel"}


class Client(NamedTuple):
    """A client: its capabilities, its answers to a page, to `open` and to `confirm`, and what comes of two calls."""

    name: str
    capabilities: Any
    page: Any
    open: Any
    confirm: Any
    typed: str
    confirmed: str
    eras: tuple[str, ...] = ("legacy", "modern")
    slow: bool = False  # each answer takes as long as a person's


CLIENTS = [
    Client("Claude Code", BOTH, OPENED, None, TICKED, "done", "sent"),
    Client("Claude Code, not ticked", BOTH, OPENED, None, UNTICKED, "done", "refused"),
    Client("Claude Code and Copilot CLI, Esc", BOTH, OPENED, None, CANCEL, "done", "refused", slow=True),
    Client("Claude Code and Copilot CLI, declined", BOTH, OPENED, None, DECLINE, "done", "refused", slow=True),
    Client("Claude Code that declares forms only", FORM, None, CONSENT, TICKED, "done", "sent", ("legacy",)),
    Client("Claude Code -p", BOTH, CANCEL, CANCEL, CANCEL, "waiting", "command"),
    Client("Copilot CLI", BOTH, OPENED, None, TICKED, "done", "sent"),
    Client("Copilot CLI -p", BOTH, DECLINE, DECLINE, DECLINE, "waiting", "command"),
    Client("Codex", BOTH, DECLINE, CONSENT, TICKED, "done", "sent", ("legacy",)),
    Client("codex exec", BOTH, DECLINE, DECLINE, DECLINE, "waiting", "command", ("legacy",)),
    Client("codex exec, full access", BOTH, DECLINE, EMPTY, EMPTY, "waiting", "command", ("legacy",)),
    Client("Gemini CLI, opencode, Continue", {}, None, None, None, "waiting", "command"),
]


def answer_of(desk: Desk, client: Client, params: Any) -> Any:
    """What the client's user, or the client itself, answers to a question."""
    if params["mode"] == "form":
        return client.open if "open" in params["requestedSchema"]["properties"] else client.confirm
    if client.page is not OPENED:
        return client.page
    desk.page.open(params["url"].rpartition("-")[2])
    return {"action": "accept"}


def called(desk: Desk, client: Client, era: str, tool: str, arguments: Any) -> Any:
    """The result of a call in one era; a modern call is sent again with each answer."""
    if era == "legacy":
        return desk.client(client.capabilities, lambda params: answer_of(desk, client, params)).send(
            call(tool, **arguments)
        )
    session, given = InProcessClient("", desk.tools), {"name": tool, "arguments": arguments}
    reply = session.send(modern("tools/call", 1, envelope(client.capabilities), **given))
    while reply["result"]["resultType"] == "input_required":
        answer = answer_of(desk, client, reply["result"]["inputRequests"]["question"]["params"])
        again = {"requestState": reply["result"]["requestState"], "inputResponses": {"question": answer}}
        reply = session.send(modern("tools/call", 1, envelope(client.capabilities), **given, **again))
    return reply


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_each_client_brings_about_what_it_should(client: Client, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_page, "can_open_browser", lambda _environ: client.open is not None)
    if client.slow:
        monkeypatch.setattr(sikkerkey_questions, "NOBODY_S", -1.0)

    def open_browser(_url: str, code: str, _directory: str) -> bool:
        if client.open == CONSENT:
            desk.page.open(code)
        return True

    monkeypatch.setattr(sikkerkey_page, "open_browser", open_browser)
    desk.page.person = desk.types(MARK)
    for era in client.eras:
        desk.vault.writes.clear()
        answer = called(desk, client, era, "manage_secrets", {**UPDATE, "secretId": SECRET})
        assert told(answer)["status"] == client.typed, era
        assert len(desk.vault.writes) == (client.typed == "done")
        assert MARK not in json.dumps(answer)
        assert "secret-token" not in json.dumps(answer)
        desk.vault.writes.clear()
        text = json.dumps(called(desk, client, era, "manage_trash", PURGE)["result"])
        outcome = "sent" if desk.vault.writes else "refused" if "not confirmed" in text else "command"
        assert outcome == client.confirmed, (era, text)
        for ticket in desk.tickets.waiting():
            desk.tickets.refuse(ticket.code, "the test is over")
            desk.tickets.delivered(ticket.code)
