"""Asking the person who uses the client: one interface for tools, and how each era carries question and answer."""

from __future__ import annotations

import base64
import json
import threading
from functools import partial
from typing import Any

import pytest

import sikkerkey_questions
from sikkerkey_mcp import Context, InputRequired, JsonObject, VaultTools
from sikkerkey_questions import (
    Form,
    OpenRequests,
    Page,
    Reply,
    RequestStates,
    read_reply,
)
from sikkerkey_results import text_result
from tests.support.in_process_client import (
    InProcessClient,
    call,
    envelope,
    modern,
    notification,
    refusal,
)
from tests.support.rows import each_of
from tests.support.schema_check import LEGACY, MODERN, conforms, wait_until

FORM: JsonObject = {"elicitation": {"form": {}}}
URL: JsonObject = {"elicitation": {"url": {}}}
BOTH: JsonObject = {"elicitation": {"form": {}, "url": {}}}
YES = {"action": "accept", "content": {"confirm": True}}
CONFIRM = Form("Delete it?", {"confirm": {"type": "boolean", "default": False}}, ("confirm",))
STATE_RULE = "requestState is invalid or has expired; start over"
ANSWERS: list[tuple[Any, str]] = [
    (YES, "accept"),
    ({"action": "accept", "content": {"confirm": False}}, "accept"),
    ({"action": "decline"}, "decline"),
    ({"action": "decline", "content": {"confirm": True}}, "decline"),
    ({"action": "cancel"}, "cancel"),
    ({"action": "accept"}, "cancel"),  # Codex accepts a form that it cannot draw
    ({"action": "accept", "content": {}}, "cancel"),
    ({"action": "accept", "content": {"confirm": "true"}}, "cancel"),
    ({"action": "accept", "content": {"confirm": 1}}, "cancel"),
    ({"action": "accept", "content": {"confirm": True, "other": 1}}, "cancel"),
    ({"action": "accept", "content": None}, "cancel"),
    ({"action": "accept", "content": [True]}, "cancel"),
]
MALFORMED: list[Any] = [{}, {"action": None}, {"action": "yes"}, {"action": ["accept"]}, {"content": {"confirm": True}}]


def first(client: InProcessClient, tool: str = "confirm", capabilities: Any = FORM, **arguments: Any) -> Any:
    """The result of a call that asks."""
    asked = modern("tools/call", 1, envelope(capabilities), name=tool, arguments=arguments)
    return client.send(asked)["result"]


def again(client: InProcessClient, state: Any, answer: Any = YES, **changed: Any) -> Any:
    """The reply when the call is sent again with an answer."""
    params = {"name": "confirm", "arguments": {}, "requestState": state, "inputResponses": {"question": answer}}
    params.update(changed)
    return client.send(modern("tools/call", 2, envelope(FORM), **params))


def decided(answer: Any) -> Any:
    """What the sample tool reports of an answer."""
    return answer["result"]["structuredContent"]


def answer_to(question: Any, answer: Any = YES) -> dict[str, Any]:
    """The client's response to a request of the server."""
    return {"jsonrpc": "2.0", "id": question["id"], "result": answer}


# modern: the call ends with a question and is sent again with the answer


def test_a_question_ends_a_modern_call_and_its_answer_comes_with_the_next() -> None:
    client = InProcessClient("")
    result = first(client)
    assert set(result) == {"resultType", "inputRequests", "requestState", "_meta"}
    conforms(result, "InputRequiredResult", MODERN)
    schema = {
        "type": "object",
        "properties": {"confirm": {"type": "boolean", "default": False}},
        "required": ["confirm"],
    }
    params = {"mode": "form", "message": "Delete it?", "requestedSchema": schema}
    assert result["inputRequests"] == {"question": {"method": "elicitation/create", "params": params}}
    assert client.tools.decisions == []
    assert decided(again(client, result["requestState"])) == {"action": "accept", "content": {"confirm": True}}
    assert client.tools.decisions == [("accept", {"confirm": True})]


def test_only_a_fitting_answer_is_a_consent_in_both_eras() -> None:
    for answer, action in ANSWERS:
        client = InProcessClient("", lenient=True)
        content = answer["content"] if action == "accept" else {}
        expected = {"action": action, "content": content}
        assert decided(again(client, first(client)["requestState"], answer)) == expected, answer
        client = InProcessClient(capabilities=FORM)
        client.respond = partial(answer_to, answer=answer)
        assert decided(client.send(call("confirm"))) == expected, answer


def test_a_malformed_answer_is_refused() -> None:
    for answer in MALFORMED:
        client = InProcessClient("")
        refused = again(client, first(client)["requestState"], answer)
        assert refused == refusal(-32602, "inputResponses: question must be an ElicitResult", id=2), answer
    wrong: list[Any] = [None, [], "x", {"question": None}, {"question": [YES]}]
    for responses in wrong:
        client = InProcessClient("")
        refused = again(client, first(client)["requestState"], inputResponses=responses)
        assert refused == refusal(-32602, "inputResponses must be an object of objects", id=2), responses
        assert client.tools.decisions == []


def test_a_missing_answer_is_asked_for_again() -> None:
    for responses in ({}, {"other": YES}):
        client = InProcessClient("")
        result = again(client, first(client)["requestState"], inputResponses=responses)["result"]
        assert result["resultType"] == "input_required", responses
        assert decided(again(client, result["requestState"])) == {"action": "accept", "content": {"confirm": True}}


def test_unknown_answers_are_ignored() -> None:
    client = InProcessClient("")
    state = first(client)["requestState"]
    assert (
        decided(again(client, state, inputResponses={"other": {"action": "decline"}, "question": YES}))["action"]
        == "accept"
    )


def test_an_answer_without_a_state_is_no_consent() -> None:
    client = InProcessClient("")
    params = {"name": "confirm", "arguments": {}, "inputResponses": {"question": YES}}
    result = client.send(modern("tools/call", 2, envelope(FORM), **params))["result"]
    assert (result["resultType"], client.tools.decisions) == ("input_required", [])


def altered(state: str, position: int) -> str:
    """The state with one character changed."""
    return state[:position] + ("A" if state[position] != "A" else "B") + state[position + 1 :]


def test_a_forged_or_foreign_state_is_refused() -> None:
    client = InProcessClient("")
    state = first(client)["requestState"]
    text, _, mac = state.partition(".")
    other = first(InProcessClient(""))["requestState"]
    forged = [
        *("", ".", "x", "AAAA.BBBB", text, f"{text}.", f".{mac}", state + "A", f"{state}.{mac}"),
        *("\u00e9" + state, "x" * 200_000),
        *(altered(state, position) for position in (0, len(text) // 2, len(text) + 1, len(state) - 2)),
        *(other, f"{text}.{other.partition('.')[2]}", None, 1, [state], {"a": state}),
    ]  # fmt: skip
    for value in forged:
        assert again(client, value) == refusal(-32602, STATE_RULE, id=2), value
    assert client.tools.decisions == []
    assert decided(again(client, state))["action"] == "accept"


def test_a_state_is_refused_before_the_first_was_made() -> None:
    client = InProcessClient("")
    assert again(client, "AAAA.BBBB") == refusal(-32602, STATE_RULE, id=2)
    assert client.tools.calls == []


@each_of(
    "changed",
    [
        {"arguments": {"name": "production"}},
        {"arguments": {"": ""}},
        {"name": "open_page"},
        {"name": "echo"},
        {"other": 1},
    ],
)
def test_a_state_is_for_one_tool_and_its_arguments(changed: dict[str, Any]) -> None:
    client = InProcessClient("")
    assert again(client, first(client)["requestState"], **changed) == refusal(-32602, STATE_RULE, id=2)
    assert client.tools.calls == [("confirm", {})]


def test_a_state_is_for_one_method() -> None:
    client = InProcessClient("")
    asked = modern(
        "prompts/get", 2, envelope(FORM), name="ask", arguments={}, requestState=first(client)["requestState"]
    )
    assert client.send(asked)["error"]["code"] in (-32601, -32602)


def test_a_state_is_used_once() -> None:
    client = InProcessClient("")
    state = first(client)["requestState"]
    assert decided(again(client, state, {"action": "decline"}))["action"] == "decline"
    assert again(client, state) == refusal(-32602, STATE_RULE, id=2)
    assert client.tools.decisions == [("decline", {})]


def test_a_state_that_came_with_another_subject_or_question_is_asked_again() -> None:
    client = InProcessClient("")
    state = first(client)["requestState"]
    client.tools.subject = "another agent"
    result = again(client, state)["result"]
    assert (result["resultType"], client.tools.decisions) == ("input_required", [])
    assert decided(again(client, result["requestState"]))["action"] == "accept"


def test_the_argument_that_gemini_adds_may_differ() -> None:
    client = InProcessClient("")
    state = first(client)["requestState"]
    assert decided(again(client, state, arguments={"wait_for_previous": True}))["action"] == "accept"


def test_states_say_nothing_about_arguments() -> None:
    client = InProcessClient("")
    state = first(client, value="canary")["requestState"]
    assert decided(again(client, state, arguments={"value": "canary"}))["action"] == "accept"
    assert b"canary" not in base64.urlsafe_b64decode(state.partition(".")[0])


def two_questions(name: str, arguments: JsonObject, context: Context) -> JsonObject:
    """A tool that asks twice."""
    replies = [context.ask(Form(words, {"ok": {"type": "boolean"}})) for words in ("First?", "Second?")]
    return {"content": [], "structuredContent": {"replies": [[reply.action, reply.content] for reply in replies]}}


def test_a_call_may_ask_more_than_once() -> None:
    client = InProcessClient("")
    client.tools.call = two_questions  # type: ignore[method-assign]
    result, words = first(client), []
    for content in ({"ok": True}, {"ok": False}):
        words.append(result["inputRequests"]["question"]["params"]["message"])
        answered = again(client, result["requestState"], {"action": "accept", "content": content})
        result = answered["result"]
    assert words == ["First?", "Second?"]
    assert decided(answered) == {"replies": [["accept", {"ok": True}], ["accept", {"ok": False}]]}


def test_the_question_in_a_prompt_or_resource_ends_it_too() -> None:
    client = InProcessClient("", tools := InProcessClient("").tools)
    tools.capabilities = ("tools", "resources", "prompts", "completions")
    client = InProcessClient("", tools)
    library: Any = tools.resources
    ask = {"text": lambda context: context.ask(CONFIRM).action}
    library.contents = lambda uri, context: [{"uri": uri, "text": ask["text"](context)}]
    library.prompt = lambda _name, _arguments, context: {
        "messages": [{"role": "user", "content": {"type": "text", "text": ask["text"](context)}}]
    }
    for method, params in (("resources/read", {"uri": "test://text"}), ("prompts/get", {"name": "greet"})):
        result = client.send(modern(method, 1, envelope(FORM), **params))["result"]
        assert (result["resultType"], "ttlMs" in result) == ("input_required", False), method
        answered = {"inputResponses": {"question": YES}, "requestState": result["requestState"]}
        done = client.send(modern(method, 2, envelope(FORM), **params, **answered))["result"]
        assert '"accept"' in json.dumps(done), method


def test_no_other_method_asks() -> None:
    client = InProcessClient("")
    client.tools.capabilities = ("tools", "resources", "prompts", "completions")
    client = InProcessClient("", client.tools)
    library: Any = client.session.tools.resources
    library.suggestions = lambda *arguments: [arguments[-1].ask(CONFIRM).action]
    params = {"ref": {"type": "ref/prompt", "name": "ask"}, "argument": {"name": "what", "value": ""}}
    answer = client.send(modern("completion/complete", 1, envelope(FORM), **params))
    assert answer == refusal(-32603, "this request may not ask for more input", id=1)


def test_a_legacy_client_cannot_be_asked_by_a_result() -> None:
    def needs_input(name: str, arguments: JsonObject, context: Context) -> JsonObject:
        raise InputRequired({"x": {"method": "roots/list", "params": {}}}, {})

    client = InProcessClient()
    client.tools.call = needs_input  # type: ignore[method-assign]
    result = client.send(call("echo"))["result"]
    text = "this client cannot be asked for more input in the middle of a request"
    assert result == {"content": [{"type": "text", "text": text}], "isError": True}


# what a client must have declared

UNSUPPORTED: list[Any] = [{}, {"elicitation": None}, {"elicitation": []}, {"sampling": {}, "roots": {}}]


def test_nothing_is_asked_that_the_client_did_not_declare() -> None:
    forms, pages = [FORM, BOTH, {"elicitation": {}}, {"elicitation": {"x": {}}}], [URL, BOTH]
    for capabilities in [*UNSUPPORTED, *forms, *pages]:
        for tool, able in (("confirm", capabilities in forms), ("open_page", capabilities in pages)):
            result = first(InProcessClient("", lenient=True), tool, capabilities)
            assert result["resultType"] == ("input_required" if able else "complete"), (tool, capabilities)
            client = InProcessClient(capabilities=capabilities, lenient=True)
            client.respond = lambda asked: {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}}
            action = decided(client.send(call(tool)))["action"]
            assert action == ("decline" if able else "unsupported"), (tool, capabilities)


def test_capabilities_of_one_era_do_not_count_in_the_other() -> None:
    client = InProcessClient(capabilities=BOTH)
    assert first(client, capabilities={})["structuredContent"]["action"] == "unsupported"
    client = InProcessClient("2025-11-25")
    assert first(client)["resultType"] == "input_required"
    assert decided(client.send(call("confirm")))["action"] == "unsupported"
    assert client.notifications == []


def test_a_call_on_the_command_line_cannot_ask() -> None:
    assert Context().ask(CONFIRM) == Reply("unsupported", {}, "", 0.0)


class AskingVaultTools(VaultTools):
    """The vault's tools, of which each asks before it does anything."""

    def answer(self, name: str, arguments: JsonObject, context: Context, presentation: Any = None) -> JsonObject:
        return text_result(context.ask(CONFIRM, "an agent").action)


def test_the_vaults_tools_pass_questions_and_errors_of_the_protocol_on() -> None:
    client = InProcessClient("", AskingVaultTools(lambda: pytest.fail("the vault was called")))
    params = {"name": "whoami", "arguments": {}}
    expected: list[tuple[Any, Any]] = [
        (YES, {"content": [{"type": "text", "text": "accept"}]}),
        ({"action": "maybe"}, {"code": -32602, "message": "inputResponses: question must be an ElicitResult"}),
    ]
    for answer, outcome in expected:
        asked = client.send(modern("tools/call", 1, envelope(FORM), **params))["result"]
        retry = {**params, "requestState": asked["requestState"], "inputResponses": {"question": answer}}
        reply = client.send(modern("tools/call", 2, envelope(FORM), **retry))
        assert {**reply, **reply.get("result", reply.get("error"))}.items() >= outcome.items()


# pages


def test_a_page_has_an_id_in_both_eras() -> None:
    client = InProcessClient("")
    result = first(client, "open_page", URL)
    params = result["inputRequests"]["question"]["params"]
    page = params["elicitationId"]
    address = f"http://127.0.0.1:1/{page}"
    assert params == {"mode": "url", "message": "Type it there.", "url": address, "elicitationId": page}
    retry = {"name": "open_page", "arguments": {}, "requestState": result["requestState"]}
    answered = client.send(
        modern("tools/call", 2, envelope(URL), **retry, inputResponses={"question": {"action": "accept"}})
    )
    assert decided(answered) == {"action": "accept", "page": page}
    assert client.notifications == []

    client = InProcessClient(capabilities=URL)
    client.respond = lambda asked: {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}}
    page = decided(client.send(call("open_page")))["page"]
    asked, completed = client.notifications
    assert asked["params"] == {**params, "url": f"http://127.0.0.1:1/{page}", "elicitationId": page}
    assert completed == notification("notifications/elicitation/complete", elicitationId=page)


# legacy: the server's own request


class Waiting:
    """A legacy call that waits for an answer, on a thread of its own."""

    def __init__(self, client: InProcessClient, request_id: Any) -> None:
        self.before = len(client.notifications)
        self.reply: Any = None
        self.started = client.start(call("confirm", request_id))
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        wait_until(lambda: len(client.notifications) > self.before)
        self.question = client.notifications[self.before]

    def _run(self) -> None:
        self.reply = self.started.run()

    def end(self) -> Any:
        """The reply to the call."""
        self.thread.join(20)
        return self.reply


def test_a_legacy_client_is_sent_a_request() -> None:
    client = InProcessClient(capabilities=FORM)
    waiting = Waiting(client, 1)
    conforms(waiting.question, "ElicitRequest", LEGACY)
    assert waiting.question["params"] == CONFIRM.params("")
    assert client.send(answer_to(waiting.question)) is None
    assert decided(waiting.end()) == {"action": "accept", "content": {"confirm": True}}


def test_a_cancelled_call_withdraws_its_question_and_ignores_a_late_answer() -> None:
    client = InProcessClient(capabilities=FORM)
    waiting = Waiting(client, 3)
    client.send(notification("notifications/cancelled", requestId=3))
    assert waiting.end() is None
    withdrawn = client.notifications[-1]
    assert (withdrawn["method"], withdrawn["params"]["requestId"]) == (
        "notifications/cancelled",
        waiting.question["id"],
    )
    assert client.send(answer_to(waiting.question)) is None
    assert client.tools.decisions == [("cancel", {})]
    assert len(client.notifications) == 2


def test_an_answer_just_before_the_cancellation_is_no_consent() -> None:
    client = InProcessClient(capabilities=FORM)

    def accept_and_cancel(asked: Any) -> Any:
        client.send(answer_to(asked))
        return notification("notifications/cancelled", requestId=1)

    client.respond = accept_and_cancel
    assert client.send(call("confirm")) is None
    assert client.tools.decisions == [("cancel", {})]


def test_an_answer_counts_for_its_own_question_only() -> None:
    client = InProcessClient(capabilities=FORM)
    one, two = Waiting(client, 1), Waiting(client, 2)
    assert one.question["id"] != two.question["id"]
    others: list[Any] = ["question-99", 1, 2, None, [], {}]
    for other in others:
        client.send({"jsonrpc": "2.0", "id": other, "result": YES})
    client.send(answer_to(two.question, {"action": "decline"}))
    client.send(answer_to(two.question, YES))
    assert decided(two.end())["action"] == "decline"
    client.send(answer_to(one.question))
    assert decided(one.end())["action"] == "accept"


def test_few_questions_may_be_open() -> None:
    client = InProcessClient(capabilities=FORM)
    waiting = [Waiting(client, number) for number in range(2)]
    refused = client.send(call("confirm", "x"))["result"]
    assert refused["isError"] is True
    assert "waiting for answers" in refused["content"][0]["text"]
    for each in waiting:
        client.send(answer_to(each.question))
        assert decided(each.end())["action"] == "accept"
    client.respond = answer_to
    assert decided(client.send(call("confirm")))["action"] == "accept"


def test_a_client_that_answers_with_an_error_cannot_ask() -> None:
    client = InProcessClient(capabilities=FORM)
    client.respond = lambda asked: {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}}
    assert decided(client.send(call("confirm")))["action"] == "unsupported"


def test_a_malformed_legacy_answer_is_no_consent() -> None:
    for answer in [*MALFORMED, None, [], "accept"]:
        client = InProcessClient(capabilities=FORM)
        client.respond = partial(answer_to, answer=answer)
        assert decided(client.send(call("confirm")))["action"] == "cancel", answer


def asked_at(times_s: list[float], answer: Any = None) -> tuple[Reply, list[str]]:
    """What comes of a question when the clock shows these times, and the methods of what is sent or reported."""
    said: list[str] = []
    clock = iter(times_s)

    def send(message: Any) -> None:
        said.append(message["method"])
        if answer and "id" in message:
            requests.answered(answer_to(message, answer))

    requests = OpenRequests(send, lambda: next(clock))
    return requests.ask(CONFIRM, on_cancel=lambda _abort: None, progress=said.append), said


def test_an_old_question_is_withdrawn_and_progress_is_reported_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_questions, "PROGRESS_S", 0.0)
    reply, said = asked_at([100.0, 105.0, 399.0, 400.0, 401.0])
    assert (reply.action, reply.content, reply.after_s) == ("cancel", {}, 301.0)
    assert said == ["elicitation/create", *["waiting for an answer"] * 2, "notifications/cancelled"]


def test_a_reply_says_how_long_it_took() -> None:
    """An answer within a second was given by a program."""
    reply, said = asked_at([100.0, 103.5], YES)
    assert (reply.action, reply.after_s, said) == ("accept", 3.5, ["elicitation/create"])
    asked = Form("x", {})
    assert read_reply(asked, {"action": "decline"}, "id", 0.25) == Reply("decline", {}, "id", 0.25)


def test_a_call_that_was_cancelled_before_it_asks_withdraws_at_once() -> None:
    sent: list[Any] = []
    registered: list[Any] = []

    def on_cancel(abort: Any) -> None:
        registered.append(abort)
        if abort:
            abort()

    reply = OpenRequests(sent.append).ask(CONFIRM, on_cancel=on_cancel, progress=lambda _message: None)
    assert (reply.action, [message["method"] for message in sent]) == (
        "cancel",
        ["elicitation/create", "notifications/cancelled"],
    )
    assert registered[-1] is None  # what comes after the question registers its own


# states and answers by themselves


class Clocks:
    """Two clocks that tests set."""

    def __init__(self) -> None:
        self.now_s = self.monotonic_s = 1_000.0
        self.states = RequestStates(lambda: self.now_s, lambda: self.monotonic_s)


@pytest.mark.parametrize(("clock", "passed_s"), [("now_s", 301), ("monotonic_s", 301)])
def test_a_state_expires_by_either_clock(clock: str, passed_s: float) -> None:
    clocks = Clocks()
    state = clocks.states.seal({"a": 1}, "request", 300.0)
    setattr(clocks, clock, 1_000.0 + passed_s)
    with pytest.raises(ValueError, match="expired"):
        clocks.states.open(state, "request")


def test_a_state_returns_the_note_and_its_age() -> None:
    clocks = Clocks()
    state = clocks.states.seal({"a": 1}, ["request"], 300.0)
    clocks.monotonic_s += 300
    clocks.now_s += 300
    assert clocks.states.open(state, ["request"]) == ({"a": 1}, 300.0)


def test_the_oldest_state_makes_room() -> None:
    states = RequestStates()
    sealed = [states.seal({}, "", 300.0) for _ in range(101)]
    with pytest.raises(ValueError, match="used before"):
        states.open(sealed[0], "")
    assert [states.open(state, "").note for state in sealed[1:]] == [{}] * 100


def test_a_request_that_is_nested_too_deeply_is_refused() -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    states = RequestStates()
    with pytest.raises(ValueError, match="nested"):
        states.open(states.seal({}, "", 300.0), nested)
    while nested:  # without this, freeing it may take too much stack
        nested = nested.pop()


STRING = {"type": "string", "minLength": 2, "maxLength": 3}
FITTING: list[tuple[JsonObject, list[Any], list[Any]]] = [
    ({"type": "boolean"}, [True, False], [0, 1, "true", None]),
    (STRING, ["ab", "abc"], ["a", "abcd", 12, None, ["ab"]]),
    ({"type": "string", "enum": ["a", "b"]}, ["a"], ["c", "", None]),
    ({"type": "string", "oneOf": [{"const": "a", "title": "A"}]}, ["a"], ["A", "Other"]),
    ({"type": "integer", "minimum": 1, "maximum": 3}, [1, 3], [0, 4, 1.5, True, "1"]),
    ({"type": "number", "minimum": 1}, [1, 1.5], [0.5, True, "1"]),
    ({"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1}, [["a"], ["a", "b"]], [[], ["c"], "a", [1]]),
    ({"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}}, [[], ["a"]], [["A"], {}]),
]  # fmt: skip


def test_answers_fit_the_fields_that_were_asked_for() -> None:
    for schema, good, bad in FITTING:
        form = Form("", {"field": schema})
        for values, action in ((good, "accept"), (bad, "cancel")):
            for value in values:
                answered = read_reply(form, {"action": "accept", "content": {"field": value}}, "", 0.0)
                assert answered.action == action, (schema, value)


def test_optional_fields_may_be_missing() -> None:
    assert read_reply(Form("", {"a": STRING}), {"action": "accept", "content": {}}, "", 0.0).action == "accept"


def test_accepting_a_page_carries_nothing() -> None:
    page = Page("", lambda _page_id: "http://127.0.0.1/")
    assert read_reply(page, {"action": "accept", "content": {"a": 1}}, "id", 2.0) == Reply("accept", {}, "id", 2.0)
