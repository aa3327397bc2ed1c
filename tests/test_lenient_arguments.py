"""What real clients send: null and blanks for what is not given, JSON in strings, times in many spellings."""

from __future__ import annotations

import itertools
import json
from typing import Any

import sikkerkey_mcp
from tests.support.in_process_client import InProcessClient
from tests.support.rows import each_of
from tests.support.table_calls import (
    BY_NAME,
    MARK,
    ROWS,
    Row,
    StubApi,
    call,
    each_argument,
    each_routed_row,
    each_row,
    refusal,
    reply,
    sent,
    sent_body,
)

NOW_MS = 1_764_338_400_123  # 2025-11-28T14:00:00.123Z
DAY_MS = 86_400_000


BLANKS: list[Any] = [None, "", [], {}]


def foreign(row: Row) -> set[str]:
    """The arguments that other actions of the row's tool take, and this one does not."""
    own = {arg.name for arg in row.action.args}
    return {arg.name for action in row.tool.actions for arg in action.args} - own


# null and blanks


@each_routed_row
def test_null_means_that_an_optional_argument_is_not_given(row: Row) -> None:
    nulls = {arg.name: None for arg in row.action.args if arg.name not in row.minimal}
    assert sent(row, {**nulls, **row.minimal}) == sent(row, row.minimal)


@each_row
def test_null_for_a_required_argument_is_refused_as_missing(row: Row) -> None:
    for arg in row.action.args:
        if arg.required:
            message = refusal(row, {**row.minimal, arg.name: None})
            assert message.startswith(f"{arg.name} is required for {row.action.name}; it takes: "), arg.name


@each_routed_row
def test_blanks_for_arguments_of_other_actions_are_ignored(row: Row) -> None:
    for blank in BLANKS:
        blanks = dict.fromkeys(foreign(row), blank)
        assert sent(row, {**blanks, **row.minimal}) == sent(row, row.minimal), blank


@each_row
def test_other_values_for_arguments_of_other_actions_are_refused(row: Row) -> None:
    for name, value in zip(sorted(foreign(row)), itertools.cycle([False, 0, " ", "null", [None], {"a": None}])):
        message = refusal(row, {**row.minimal, name: value})
        assert message.startswith(f"unknown argument {name} for {row.action.name}; "), (name, value)


@each_row
def test_what_no_action_of_the_tool_takes_is_refused_even_if_it_is_blank(row: Row) -> None:
    for blank in BLANKS:
        assert refusal(row, {**row.minimal, "colour": blank}).startswith("unknown argument colour for "), blank


@each_argument("strings", "ids")
def test_null_inside_a_list_is_refused(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for items in ([None], "[null]"):
        message = refusal(row, {**row.base_for(arg.name), arg.name: items})
        assert message == f"each item of {arg.name} must be a string"


@each_argument(where=lambda arg: arg.kind not in ("string", "id", "time"))
def test_blank_string_for_an_argument_of_the_action_is_refused(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    assert refusal(row, {**row.base_for(arg.name), arg.name: ""}).startswith(f"{arg.name} must be ")


def test_empty_note_clears_and_empty_set_is_sent() -> None:
    note = {"action": "update_note", "projectId": "proj_1", "secretId": "sk_1", "note": ""}
    assert sent_body(BY_NAME["manage_secrets.update_note"], note) == {"note": ""}
    assert sent_body(BY_NAME["manage_alerts.set"], {"action": "set", "enabledActions": []}) == {"enabledActions": []}


# JSON in strings


@each_argument(where=lambda arg: arg.kind not in ("string", "id", "time"))
def test_json_in_a_string_is_the_value(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for given in row.examples.values():
        if arg.name in given:
            value = given[arg.name]
            decoded, text = (json.loads(value), value) if arg.kind == "object" else (value, json.dumps(value))
            expected = sent(row, {**given, arg.name: decoded})
            for written in (text, f" {text}\n"):
                assert sent(row, {**given, arg.name: written}) == expected


@each_argument(where=lambda arg: arg.kind not in ("string", "id", "time"))
def test_json_is_parsed_once_and_checked_like_any_value(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    example = row.base_for(arg.name)[arg.name]
    text = example if isinstance(example, str) else json.dumps(example)
    for wrong in (json.dumps(text), "null", "[" * 10_000, text + "x", "NaN", '"\ud800"', f'"{MARK}"', f"'{MARK}'"):
        message = refusal(row, {**row.base_for(arg.name), arg.name: wrong})
        assert message.startswith(f"{arg.name} must be "), wrong[:20]


def test_bounds_hold_for_json_in_strings() -> None:
    page = BY_NAME["read_audit.list"]
    assert refusal(page, {"action": "list", "pageSize": "201"}) == "pageSize must be between 1 and 200"
    assert sent_body(page, {"action": "list", "pageSize": "2e2"})["pageSize"] == 200
    query = BY_NAME["read_audit.query"]
    assert refusal(query, {"action": "query", "severities": '["loud"]'}).startswith("each item of severities must be ")
    schedule = {"action": "dynamic_create", "existingSecretId": "sk_1", "intervalSeconds": "300"}
    text = '{"user":"a","user":"b","n":5.0}'
    assert sent_body(BY_NAME["manage_secrets.dynamic_create"], {**schedule, "staticFields": text}) == {
        **{"secretId": "sk_1", "intervalSeconds": 300},
        **{"staticFields": {"user": "b", "n": 5.0}},
    }


@each_argument("string", where=lambda arg: not arg.choices and not arg.pattern and not arg.local)
def test_text_that_is_json_stays_exactly_what_it_is(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    given = row.base_for(arg.name)
    if "fieldNames" in given or given.get("preview"):  # then other rules apply
        given = row.minimal
    if arg.name in given:
        for text in ('["a"]', '{"a":1}', "null", "true", "5", ' "a" '):
            body = sent_body(row, {**given, arg.name: text})
            assert body[arg.name] == text, text


def test_plaintext_in_a_json_string_is_redacted_in_both_spellings() -> None:
    row = BY_NAME["manage_secrets.dynamic_create"]
    text = f'{{"user":"caf\\u00e9-password","pin":73019460.10,"deep":["{MARK}"]}}'
    given = {"action": "dynamic_create", "existingSecretId": "sk_1", "intervalSeconds": 300, "staticFields": text}
    echoes = ["café-password", "caf\\u00e9-password", "73019460.10", "73019460.1", MARK, text]
    for status in (200, 400):
        for echo in echoes:
            answer = reply(status, json.dumps({"error": f"no {echo}!", "again": [echo]}).encode())
            shown = json.dumps(call(row, given, answer), ensure_ascii=False)
            for secret in echoes:
                assert secret not in shown, (status, echo)
                assert json.dumps(secret)[1:-1] not in shown, (status, echo)


# times


def at_now(row: Row, arguments: sikkerkey_mcp.JsonObject) -> Any:
    """The body that a call at NOW_MS sends."""
    api = StubApi(reply())
    tools = sikkerkey_mcp.VaultTools(lambda: api, now_s=lambda: NOW_MS / 1000)
    result = tools.call(row.tool.name, arguments, sikkerkey_mcp.Context())
    assert "isError" not in result, result
    return json.loads(api.sent[-1].body or b"null")


@each_argument("time")
def test_each_way_to_write_a_time_is_sent_in_milliseconds(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    base = {name: value for name, value in row.base_for(arg.name).items() if name not in ("from", "to")}
    for written, sent_ms in {
        "2025-11-28T14:00:00.123Z": NOW_MS,
        "2025-11-28T15:00:00.123+0100": NOW_MS,
        "2025-11-28": NOW_MS - 14 * DAY_MS // 24 - 123,
        "-24h": NOW_MS - DAY_MS,
        "+90d": NOW_MS + 90 * DAY_MS,
        str(NOW_MS): NOW_MS,
        NOW_MS: NOW_MS,
        float(NOW_MS): NOW_MS,
    }.items():
        assert at_now(row, {**base, arg.name: written})[arg.name] == sent_ms, written


@each_argument("time")
def test_seconds_are_refused_with_the_milliseconds(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for seconds in (1_764_338_400, "1764338400"):
        message = refusal(row, {**row.base_for(arg.name), arg.name: seconds})
        rule = "must be in milliseconds: 1764338400 can only be seconds, which is 1764338400000"
        assert message == f"{arg.name} {rule}"


@each_row
def test_from_must_be_before_to(row: Row) -> None:
    if {"from", "to"} <= {arg.name for arg in row.action.args}:
        for span in (("2025-11-29", "2025-11-28"), ("2025-11-28", "2025-11-28"), ("+1h", "now"), ("-1h", "-2h")):
            message = refusal(row, {**row.minimal, "from": span[0], "to": span[1]})
            assert message.startswith("from must be before to\nhint: "), span
        if not row.action.own:
            assert sent(row, {**row.minimal, "from": "2025-11-28", "to": "2025-11-28T00:00:00.001Z"})


def test_every_time_of_the_table_is_a_time_argument() -> None:
    named = {
        arg.name for row in ROWS for arg in row.action.args if arg.name in ("from", "to") or arg.name.endswith("At")
    }
    assert named == {arg.name for row in ROWS for arg in row.action.args if arg.kind == "time"}


# names that the vault lists

LISTED = ["secret_read", "secret_read_denied", "secret_update", "machine_approve"]


class ListingApi(StubApi):
    """A vault that answers look-ups with `listed` and everything else with an empty object."""

    def __init__(self, listed: sikkerkey_mcp.Answer | Exception) -> None:
        super().__init__(reply())
        self.listed = listed

    def send(
        self, request: sikkerkey_mcp.Request, *, safe: bool, context: sikkerkey_mcp.Context
    ) -> sikkerkey_mcp.Answer:
        """Records the request and answers."""
        super().send(request, safe=safe, context=context)
        if not request.path.endswith("/actions"):
            return self.answer
        assert safe
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed

    @property
    def paths(self) -> list[str]:
        """What was asked for, without the common beginning."""
        return [request.path.removeprefix("/v1/ai") for request in self.sent]


def listing(value: Any) -> sikkerkey_mcp.Answer:
    return reply(body=json.dumps(value).encode())


CHECKED = {
    "read_audit.query": "actions",
    "read_audit.export": "actions",
    "manage_alerts.set": "enabledActions",
    "manage_webhooks.create": "actions",
    "manage_webhooks.update": "actions",
}


def with_names(row: Row, *names: str) -> sikkerkey_mcp.JsonObject:
    return {**row.minimal, CHECKED[str(row)]: list(names)}


def test_arguments_that_name_audit_actions_are_checked_against_the_vaults_list() -> None:
    assert {str(row): arg.name for row in ROWS for arg in row.action.args if arg.listed_by} == CHECKED
    lists = {arg.listed_by for row in ROWS for arg in row.action.args if arg.listed_by}
    assert {BY_NAME[name].action.effect for name in lists} == {"read"}
    assert [arg for name in lists for arg in BY_NAME[name].action.args if arg.required or not arg.local] == []


def test_unknown_name_is_refused_with_similar_ones_and_nothing_else_is_sent() -> None:
    for name, argument in CHECKED.items():
        row, api = BY_NAME[name], ListingApi(listing(LISTED))
        tools = sikkerkey_mcp.VaultTools(lambda api=api: api)  # type: ignore[misc]
        result = tools.call(row.tool.name, with_names(row, "secret_update", "secrets_read"), sikkerkey_mcp.Context())
        listed_by = "read_audit.actions" if row.tool.name == "read_audit" else "manage_alerts.actions"
        assert result["content"][0]["text"] == (
            f"item 2 of {argument} is not a name that the vault knows\n"
            f"hint: similar names: secret_read, secret_read_denied, secret_update; {listed_by} lists all names"
        ), name
        assert [path.split("/")[-1] for path in api.paths] == ["actions"], name
        text = call_text(tools, row, with_names(row, MARK))
        assert text.endswith(f"hint: {listed_by} lists all names"), name
        assert MARK not in text


def call_text(tools: sikkerkey_mcp.VaultTools, row: Row, arguments: sikkerkey_mcp.JsonObject) -> str:
    result = tools.call(row.tool.name, arguments, sikkerkey_mcp.Context())
    text: str = result["content"][0]["text"]
    return text


QUERY = BY_NAME["read_audit.query"]


def test_list_is_asked_for_once_and_only_if_there_is_a_name_to_check() -> None:
    api = ListingApi(listing(LISTED))
    tools = sikkerkey_mcp.VaultTools(lambda: api)
    for arguments in (QUERY.minimal, with_names(QUERY), {**QUERY.minimal, "actions": None}):
        call_text(tools, QUERY, arguments)
    assert api.paths == ["/audit/query"] * 3
    for _repeat in range(3):
        assert call_text(tools, QUERY, with_names(QUERY, "secret_read")) == "{}"
    assert api.paths == ["/audit/query"] * 3 + ["/audit/actions"] + ["/audit/query"] * 3


def test_list_is_asked_for_again_when_it_is_old() -> None:
    now_s = [0.0]
    words = sikkerkey_mcp.WordLists({"read_audit.actions"}, lambda: now_s[0])
    asked: list[tuple[str, str, sikkerkey_mcp.Arguments]] = []

    def ask(*what: Any) -> list[str]:
        asked.append(what)
        return LISTED

    for now_s[0] in (1.0, sikkerkey_mcp.WORDS_CACHED_S, sikkerkey_mcp.WORDS_CACHED_S + 1.0):
        words.check(QUERY.action, {"actions": ["secret_read"]}, ask)
    assert asked == [("read_audit", "actions", {})] * 2


@each_of(
    "listed",
    [
        *(reply(status, b'{"error":"no"}') for status in (400, 401, 403, 404, 405, 501)),
        *(reply(body=body) for body in (b"", b"not JSON", b"{}", b"[]", b"null", b'[["secret_read"]]', b"[1]")),
        listing([*LISTED, "with a space"]),
        listing([*LISTED] * 2_000),
        listing({"count": 4}),
    ],
)
def test_without_a_usable_list_there_is_no_check(listed: sikkerkey_mcp.Answer) -> None:
    api = ListingApi(listed)
    tools = sikkerkey_mcp.VaultTools(lambda: api)
    for _repeat in range(2):
        assert call_text(tools, QUERY, with_names(QUERY, "anything")) == "{}"
    assert api.paths == ["/audit/actions", "/audit/query", "/audit/query"]


def test_list_that_fails_for_a_moment_is_asked_for_again() -> None:
    api = ListingApi(reply(503, b'{"error":"sealed"}'))
    tools = sikkerkey_mcp.VaultTools(lambda: api)
    assert call_text(tools, QUERY, with_names(QUERY, "anything")) == "{}"
    api.listed = listing(LISTED)
    assert call_text(tools, QUERY, with_names(QUERY, "anything")).startswith("item 1 of actions is not a name")


def test_vault_that_does_not_answer_is_not_asked_twice() -> None:
    api = ListingApi(sikkerkey_mcp.ServiceError("the vault could not be reached"))
    tools = sikkerkey_mcp.VaultTools(lambda: api)
    assert call_text(tools, QUERY, with_names(QUERY, "secret_read")) == "the vault could not be reached"
    assert api.paths == ["/audit/actions"]


@each_of(
    "listed",
    [
        LISTED,
        {"actions": LISTED},
        {"total": 4, "items": LISTED},
        [{"action": name, "severity": "low"} for name in LISTED],
        [{"name": name} for name in LISTED],
    ],
)
def test_list_may_come_in_several_shapes(listed: Any) -> None:
    tools = sikkerkey_mcp.VaultTools(lambda: ListingApi(listing(listed)))
    assert call_text(tools, QUERY, with_names(QUERY, "secret_read")) == "{}"
    for wrong in ("secret_reads", "secret.read", "SECRET_READ", "secretRead", "read"):
        assert "similar names: secret_read" in call_text(tools, QUERY, with_names(QUERY, wrong)), wrong


def test_withheld_list_is_not_asked_for() -> None:
    api = ListingApi(listing(LISTED))
    restrictions = sikkerkey_mcp.read_restrictions({"--exclude": "read_audit.actions"})
    tools = sikkerkey_mcp.VaultTools(lambda: api, restrictions)
    assert call_text(tools, QUERY, with_names(QUERY, "anything")) == "{}"
    assert api.paths == ["/audit/query"]


# null in the messages around the arguments

PROMPT = {"ref": {"type": "ref/prompt", "name": "onboard_ci_runner"}, "argument": {"name": "sdkId", "value": "g"}}


@each_of(
    ("method", "absent", "blank"),
    [
        ("ping", {}, None),
        ("tools/list", {}, None),
        ("tools/list", {}, {"cursor": None}),
        ("tools/list", {}, {"cursor": ""}),
        ("prompts/list", {}, {"cursor": ""}),
        ("resources/list", {}, {"cursor": "", "_meta": None}),
        ("tools/call", {"name": "whoami"}, {"name": "whoami", "arguments": None}),
        ("prompts/get", {"name": "check_coverage"}, {"name": "check_coverage", "arguments": None}),
        ("prompts/get", {"name": "check_coverage"}, {"name": "check_coverage", "arguments": {"projectId": None}}),
        ("completion/complete", PROMPT, {**PROMPT, "context": None}),
        ("completion/complete", PROMPT, {**PROMPT, "context": {"arguments": None}}),
    ],
)
def test_null_and_an_empty_cursor_are_as_good_as_absent(method: str, absent: Any, blank: Any) -> None:
    tools = sikkerkey_mcp.VaultTools(lambda: StubApi(reply()))
    client = InProcessClient(tools=tools, lenient=True)
    message = {"jsonrpc": "2.0", "id": 1, "method": method}
    answer = client.send({**message, "params": blank})
    assert "result" in answer
    assert answer == client.send({**message, "params": absent})
