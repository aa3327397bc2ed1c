"""What a few writes read before they are sent: refusals, notices, and what happens if that read fails."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_mcp
import sikkerkey_rules
from tests.support.harness import CannedResponse, ReceivedRequest, Recorder, make_slot
from tests.support.rows import each_of
from tests.support.table_calls import BY_NAME, MARK, ROWS, for_each, reply

LOOKING = [row for row in ROWS if row.action.look]
PROJECT, SECRET, MACHINE = "proj_1", "sk_1", "machine_1"
SECRETS = f"GET /v1/ai/projects/{PROJECT}/secrets"
ONE, SCHEDULE = f"{SECRETS}/{SECRET}", f"GET /v1/ai/dynamic-secrets/{SECRET}"
PLAIN = {"id": SECRET, "name": "db", "type": "secret", "fieldNames": None}
LOGIN = {"id": SECRET, "name": "db", "type": "structured", "fieldNames": ["host", "user", "password"]}
FIELDS_REFUSED = 'fields is required, because the secret is structured; it has: "host", "user", "password"\nhint: '
EXISTING = {"action": "dynamic_create", "existingSecretId": SECRET, "intervalSeconds": 300}
CREATE = {"action": "create", "projectId": PROJECT, "name": "db", "value": MARK}
ROTATE = {"action": "rotate", "projectId": PROJECT, "secretId": SECRET}
UPDATE = {"action": "dynamic_update", "secretId": SECRET}
GRANT = {"action": "grants_set", "projectId": PROJECT, "machineId": MACHINE, "secretIds": [SECRET, "sk_2"]}


TOKEN = {
    **{"action": "create", "name": "ci", "projectIds": [PROJECT, "proj_2"], "secretIds": ["sk_2"], "maxUses": 1},
    **{"tokenLifetimeSeconds": 60, "machineLifetimeSeconds": 60},
}


class Vault(sikkerkey_mcp.Api):
    """A vault without a network. `found` maps each read to its answer, a value or a status; writes answer `written`."""

    def __init__(self, found: dict[str, Any], written: Any) -> None:
        self.base_url = "https://vault.example"
        self.found, self.written = found, written
        self.asked: list[str] = []
        self.writes: list[sikkerkey_mcp.Request] = []
        self.error: sikkerkey_mcp.ServiceError | None = None  # raised for every read

    def send(
        self, request: sikkerkey_mcp.Request, *, safe: bool, context: sikkerkey_mcp.Context
    ) -> sikkerkey_mcp.Answer:
        """The answer of `found` or `written`; 404 for a read that is not in `found`."""
        assert safe is (request.method == "GET")
        assert not context.cancellation.is_set()
        if request.method == "POST":
            self.writes.append(request)
            return reply(200, json.dumps(self.written).encode())
        self.asked.append(f"GET {request.path}")
        if self.error:
            raise self.error
        answer = self.found.get(self.asked[-1], 404)
        return reply(answer, b'{"error":"no"}') if isinstance(answer, int) else reply(200, json.dumps(answer).encode())


def called(tool: str, arguments: Any, found: dict[str, Any], written: Any = None) -> tuple[Any, Vault]:
    """The result of a call, and the vault that it met."""
    vault = Vault(found, {"id": "sk_9"} if written is None else written)
    result = sikkerkey_mcp.VaultTools(lambda: vault).call(tool, arguments, sikkerkey_mcp.Context())
    assert MARK not in json.dumps(result)
    return result, vault


def refused(tool: str, arguments: Any, found: dict[str, Any]) -> str:
    """The message of a refused call. Asserts that nothing was written."""
    result, vault = called(tool, arguments, found)
    assert vault.writes == []
    assert result["isError"]
    text: str = result["content"][0]["text"]
    return text


def accepted(tool: str, arguments: Any, found: dict[str, Any]) -> Vault:
    """The vault of a call that was sent once, with an answer that nothing was added to."""
    result, vault = called(tool, arguments, found)
    assert result["structuredContent"] == {"id": "sk_9"}, result
    assert len(vault.writes) == 1
    return vault


# A structured secret needs `fields`


def test_rotation_of_a_structured_secret_needs_fields() -> None:
    text = refused("manage_secrets", ROTATE, {ONE: LOGIN})
    assert text.startswith(FIELDS_REFUSED)
    assert "host and user names included" in text
    assert refused("manage_secrets", {**ROTATE, "fields": []}, {ONE: LOGIN}) == text


def test_rotation_with_fields_or_of_a_plain_secret_is_sent() -> None:
    assert accepted("manage_secrets", {**ROTATE, "fields": ["password"]}, {}).asked == []
    assert accepted("manage_secrets", ROTATE, {ONE: PLAIN}).asked == [ONE]


@each_of("odd", [None, [], "text", 5.5, {}, {"fieldNames": "x"}, {"fieldNames": []}])
def test_metadata_that_cannot_be_understood_refuses_nothing(odd: Any) -> None:
    accepted("manage_secrets", ROTATE, {ONE: odd})
    accepted("manage_secrets", UPDATE, {SCHEDULE: odd})


def test_field_names_are_shown_safely() -> None:
    names = ["\u202eevil\x1b", "x" * 5_000, {"no": "text"}]
    text = refused("manage_secrets", ROTATE, {ONE: {**LOGIN, "fieldNames": names}})
    assert '"<U+202E>evil' in text
    assert "\x1b" not in text
    assert len(text) < 1_000


def test_schedule_for_an_existing_structured_secret_needs_fields() -> None:
    projects = [{"id": "proj_0"}, {"id": PROJECT}, {"id": "proj_2"}]
    found = {"GET /v1/ai/projects": projects, ONE: LOGIN}
    assert refused("manage_secrets", EXISTING, found).startswith(FIELDS_REFUSED)
    vault = accepted("manage_secrets", EXISTING, {**found, ONE: PLAIN})
    assert vault.asked == ["GET /v1/ai/projects", ONE.replace(PROJECT, "proj_0"), ONE]
    assert accepted("manage_secrets", {**EXISTING, "fields": ["password"]}, found).asked == []


def test_search_for_a_secret_ends() -> None:
    projects = [{"id": f"proj_{number}"} for number in range(2, 500)]
    vault = accepted("manage_secrets", EXISTING, {"GET /v1/ai/projects": {"projects": projects}})
    assert len(vault.asked) == 1 + sikkerkey_rules.PROJECTS_SEARCHED_MAX


def test_search_for_a_secret_stops_at_a_missing_scope() -> None:
    projects = [{"id": PROJECT}, {"id": "proj_2"}]
    assert accepted("manage_secrets", EXISTING, {"GET /v1/ai/projects": projects, ONE: 403}).asked[1:] == [ONE]


def test_changed_schedule_of_a_structured_secret_needs_fields_unless_it_has_them() -> None:
    change = {**UPDATE, "intervalSeconds": 600}
    every = {"secretId": SECRET, "fieldNames": LOGIN["fieldNames"], "fields": None}
    assert refused("manage_secrets", change, {SCHEDULE: every}).startswith(FIELDS_REFUSED)
    accepted("manage_secrets", change, {SCHEDULE: {**every, "fields": ["password"]}})
    assert accepted("manage_secrets", {**change, "fields": ["password"]}, {}).asked == []
    assert accepted("manage_secrets", {**UPDATE, "enabled": False}, {SCHEDULE: every}).asked == []
    refused("manage_secrets", {**UPDATE, "enabled": True}, {SCHEDULE: every})


# A name belongs to one secret

SCHEDULED = {"action": "dynamic_create", "projectId": PROJECT, "name": "db", "intervalSeconds": 300}


@pytest.mark.parametrize("arguments", [CREATE, SCHEDULED], ids=["create", "dynamic_create"])
def test_second_secret_of_a_name_is_refused(arguments: Any) -> None:
    text = refused("manage_secrets", arguments, {SECRETS: [{**PLAIN, "id": "sk_0", "name": "DB"}, PLAIN]})
    assert text.startswith("name belongs to a secret of this project already: sk_1\nhint: nothing was stored; update_")
    assert accepted("manage_secrets", {**arguments, "name": "db2"}, {SECRETS: {"secrets": [PLAIN]}}).asked == [SECRETS]
    canary = {**PLAIN, "type": "canary"}
    assert "already: sk_1, a canary\n" in refused("manage_secrets", arguments, {SECRETS: {"items": [canary]}})


def test_refused_name_shows_neither_the_name_nor_the_value() -> None:
    named = {**CREATE, "name": f"the {MARK}"}
    text = refused("manage_secrets", named, {SECRETS: [{**PLAIN, "name": f"the {MARK}"}]})
    assert text.startswith("name holds the value itself")
    text = refused(
        "manage_secrets", {**CREATE, "value": "sk_1-and-more"}, {SECRETS: [{**PLAIN, "id": "sk_1-and-more"}]}
    )
    assert "sk_1" not in text


def test_several_secrets_of_the_name_are_listed_in_part() -> None:
    rows = [{**PLAIN, "id": f"sk_{number}"} for number in range(2_000)]
    assert "already: sk_0, sk_1, sk_2\n" in refused("manage_secrets", CREATE, {SECRETS: rows})


@each_of("odd", [None, {}, "text", [1, None], [{"name": "db"}], {"items": 5}, {"items": [{"id": "/"}]}])
def test_list_that_cannot_be_understood_refuses_nothing(odd: Any) -> None:
    accepted("manage_secrets", CREATE, {SECRETS: odd})
    accepted("manage_project_machines", GRANT, {SECRETS: odd})


# Canaries among grants


def test_grant_of_a_canary_says_so() -> None:
    rows = [PLAIN, {"id": "sk_2", "type": "canary"}, {"id": "sk_3", "type": "canary"}]
    result, vault = called("manage_project_machines", GRANT, {SECRETS: rows}, {"notice": "all is well", "n": 1})
    assert len(vault.writes) == 1
    shown = result["structuredContent"]
    assert list(shown) == ["notice", "n"]
    assert shown["notice"].startswith("sk_2 is a canary: when a machine reads it, the vault raises an alarm")
    assert json.loads(result["content"][0]["text"]) == shown
    both, _ = called("manage_project_machines", {**GRANT, "secretIds": ["sk_2", "sk_3"]}, {SECRETS: rows})
    assert both["structuredContent"]["notice"].startswith("sk_2, sk_3 are canaries: ")


def test_notice_stands_before_an_answer_that_is_too_long() -> None:
    rows = [{"id": "sk_2", "type": "canary"}]
    result, _ = called("manage_project_machines", GRANT, {SECRETS: rows}, {"projectId": "x" * 20_000})
    notice, remark, text = (item["text"] for item in result["content"])
    assert "sk_2 is a canary" in notice
    assert remark.startswith("The first 9,500 of ")
    assert text.startswith('{"projectId":"xxx')
    assert "isError" not in result


def test_grants_without_a_canary_or_without_any_secret_get_no_notice() -> None:
    assert accepted("manage_project_machines", GRANT, {SECRETS: [PLAIN]}).asked == [SECRETS]
    assert accepted("manage_project_machines", {**GRANT, "secretIds": []}, {}).asked == []


def test_enrollment_token_that_grants_a_canary_says_so() -> None:
    found = {SECRETS: [PLAIN], SECRETS.replace(PROJECT, "proj_2"): [{"id": "sk_2", "type": "canary"}]}
    result, vault = called("manage_enrollment", TOKEN, found, {"token": "shown once"})
    assert len(vault.writes) == 1
    assert result["structuredContent"]["notice"].startswith("sk_2 is a canary: ")
    assert result["structuredContent"]["token"] == "shown once"
    assert accepted("manage_enrollment", {**TOKEN, "projectIds": []}, {}).asked == []


def test_refused_grant_gets_no_notice() -> None:
    vault = Vault({SECRETS: [{"id": "sk_2", "type": "canary"}]}, {})
    vault.send = lambda request, **more: (  # type: ignore[method-assign]
        reply(409, b'{"error":"no"}') if request.method == "POST" else Vault.send(vault, request, **more)
    )
    result = sikkerkey_mcp.VaultTools(lambda: vault).call("manage_project_machines", GRANT, sikkerkey_mcp.Context())
    assert result["content"][0]["text"].startswith('the vault answered 409, saying "no"\n')


# If the look fails


def looking() -> list[tuple[str, Any]]:
    """Calls of every row that looks first, each of which asks for something."""
    return [
        *(("manage_secrets", arguments) for arguments in (CREATE, ROTATE, EXISTING, SCHEDULED, UPDATE)),
        ("manage_project_machines", GRANT),
        ("manage_enrollment", TOKEN),
    ]


def test_every_row_that_looks_is_called() -> None:
    assert {f"{tool}.{given['action']}" for tool, given in looking()} == {str(row) for row in LOOKING}


@for_each(looking())
def test_rows_look_only_at_what_they_declare(call: tuple[str, Any]) -> None:
    tool, arguments = call
    [row] = [row for row in LOOKING if str(row) == f"{tool}.{arguments['action']}"]
    assert row.action.look
    _, vault = called(tool, arguments, {"GET /v1/ai/projects": [{"id": PROJECT}], SECRETS: [], ONE: PLAIN})
    reads = [BY_NAME[name].action for name in row.action.look.reads]
    patterns = [re.sub(r"\{\w+\}", "[^/]+", f"{read.method} {read.path}") for read in reads]
    assert vault.asked
    assert [asked for asked in vault.asked if not any(re.fullmatch(each, asked) for each in patterns)] == []
    assert {read.effect for read in reads} == {"read"}


@for_each(looking())
def test_refused_look_is_done_without(call: tuple[str, Any]) -> None:
    tool, arguments = call
    for status in (400, 401, 403, 404, 405, 423):
        projects = {"GET /v1/ai/projects": status, SECRETS: status, ONE: status, SCHEDULE: status}
        assert accepted(tool, arguments, projects).asked


@for_each(looking())
def test_look_that_fails_otherwise_stops_the_write(call: tuple[str, Any]) -> None:
    tool, arguments = call
    for status in (429, 500, 502, 503):
        found = {"GET /v1/ai/projects": status, SECRETS: status, ONE: status, SCHEDULE: status}
        text = refused(tool, arguments, found)
        begin = f"{arguments['action']} was not sent, because the check before it failed: the vault answered {status}"
        assert text.startswith(begin)
        assert sikkerkey_mcp.MAY_HAVE_BEEN_PROCESSED not in text


@for_each(looking())
def test_unreachable_vault_stops_the_write(call: tuple[str, Any]) -> None:
    vault = Vault({}, {})
    vault.error = sikkerkey_mcp.ServiceError("the vault cannot be reached", "nothing was changed")
    result = sikkerkey_mcp.VaultTools(lambda: vault).call(*call, sikkerkey_mcp.Context())
    assert result["content"][0]["text"].endswith("failed: the vault cannot be reached\nhint: nothing was changed")
    assert vault.writes == []


@for_each(looking())
def test_look_at_more_than_is_read_is_done_without(call: tuple[str, Any]) -> None:
    vault = Vault({}, {})
    vault.error = sikkerkey_mcp.AnswerTooLarge("the vault's answer is too large")
    result = sikkerkey_mcp.VaultTools(lambda: vault).call(*call, sikkerkey_mcp.Context())
    assert result["structuredContent"] == {}
    assert len(vault.writes) == 1


def test_call_that_is_cancelled_while_it_looks_writes_nothing(recorder: Recorder, home: Path) -> None:
    make_slot(home, recorder.url)
    context = sikkerkey_mcp.Context()

    def cancel(_seen: ReceivedRequest) -> CannedResponse:
        context.cancellation.set()
        return CannedResponse(200, b"[]")

    recorder.answer = cancel
    result = sikkerkey_mcp.VaultTools(sikkerkey_mcp.AgentConnection().api).call("manage_secrets", CREATE, context)
    assert result["isError"]
    assert [request.method for request in recorder.seen] == ["GET"]


def test_restrictions_do_not_concern_looks() -> None:
    vault = Vault({ONE: LOGIN}, {})
    only_rotate = [sikkerkey_mcp.Restriction("--tools", "--tools", ("manage_secrets.rotate",))]
    tools = sikkerkey_mcp.VaultTools(lambda: vault, only_rotate)
    result = tools.call("manage_secrets", ROTATE, sikkerkey_mcp.Context())
    assert result["content"][0]["text"].startswith(FIELDS_REFUSED)
    assert vault.writes == []
