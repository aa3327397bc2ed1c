"""From the vault's answer to the model's: unchanged data, plaintext cut out, and errors that say what to do next."""

from __future__ import annotations

import base64
import json
import re
import time
from email.utils import formatdate
from html import escape
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

import sikkerkey_mcp
import sikkerkey_members
import sikkerkey_refusals
import sikkerkey_results
from sikkerkey_redact import REDACTED
from sikkerkey_refusals import NEXT_STEP
from sikkerkey_results import WITHHELD
from tests.support.harness import ROOT, CannedResponse, Recorder, Server
from tests.support.rows import each_of
from tests.support.table_calls import (
    BY_NAME,
    MARK,
    ROUTED,
    ROWS,
    Row,
    StubApi,
    call,
    each_routed_row,
    for_each,
    reply,
    strings_in,
)

GET = BY_NAME["manage_machines.get"]
CREATE = BY_NAME["manage_secrets.create"]
SCHEDULE = BY_NAME["manage_secrets.dynamic_create"]
ONE_TIME = BY_NAME["manage_temporary_secrets.create"]
EXPORT = BY_NAME["read_audit.export"]
ATTACHMENT = BY_NAME["support.attachment"]
JSON_ROWS = [row for row in ROUTED if row.action.answer == "json"]


def shown(result: Any) -> str:
    """The one text of a result."""
    [content] = result["content"]
    assert content["type"] == "text"
    text: str = content["text"]
    return text


def always(recorder: Recorder, told: CannedResponse) -> None:
    """Lets `recorder` answer every request with `told`."""
    recorder.answer = lambda _seen: told


def answered(body: bytes, row: Row = GET) -> Any:
    """The result of a call that the vault answers with 200 and `body`, which must succeed."""
    result = call(row, row.minimal, reply(200, body))
    assert set(result) == {"content", "structuredContent"}, result
    assert shown(result) == sikkerkey_results.json_lines(result["structuredContent"])
    return result


# Fidelity


@each_of(
    "body",
    [
        "{}",
        '{"name":1,"id":2,"projects":{"state":[],"kind":null}}',
        '{"name":12345678901234567890,"kind":-98765432109876543210}',
        '{"name":[1.1,-0.0,-1.5e-07,0.1,1.0]}',
        '{"name":"<a href=\'x\'>&amp;</a>","kind":"\u00a0\u3000"}',
        '{"name":"søger 😀","kind":"\\"\\\\\\n\\t\\r\\n"}',
        '{"":{}," ":true,"items":[]}',
    ],
)
@pytest.mark.peer(9)
def test_object_is_shown_as_the_vault_wrote_it(body: str) -> None:
    assert shown(answered(body.encode())) == body


def test_white_space_between_members_is_not_repeated() -> None:
    assert shown(answered(b' {\n  "name" : [ 1 , 2 ]\r\n}\n')) == '{"name":[1,2]}'


def test_lone_surrogate_is_shown_by_its_number_and_the_text_can_be_written() -> None:
    assert shown(answered(b'{"name":"\\ud800 \\u00f8"}')) == '{"name":"<U+D800> ø"}'


@each_of(
    ("body", "text"),
    [
        ("[]", '{"items":[]}'),
        ('[{"id":1.5},null]', '{"items":[\n{"id":1.5},\nnull\n]}'),
        ('"ok"', f'{{"result":"{WITHHELD}"}}'),
        ("7.5", f'{{"result":"{WITHHELD}"}}'),
        ("true", '{"result":true}'),
        ("null", '{"result":null}'),
    ],
)
def test_answer_that_is_no_object_is_put_into_one_in_both_forms(body: str, text: str) -> None:
    assert shown(answered(body.encode())) == text


@pytest.mark.peer(7)
def test_digits_and_characters_survive_the_whole_program(server: Server, recorder: Recorder) -> None:
    body = '{"name":[12345678901234567890,1.5,-0.0],"kind":"<ø>&😀","projects":{"name":1,"id":2}}'
    always(recorder, CannedResponse(200, body.encode()))
    assert server.call("manage_machines", action="get", machineId="m")["content"][0]["text"] == body
    line = server.lines[-1].decode()
    assert f'"structuredContent":{body}' in line
    always(recorder, CannedResponse(200, b'{"name":["\\ud800"]}'))
    assert server.call("manage_machines", action="get", machineId="m")["structuredContent"] == {"name": ["<U+D800>"]}


@for_each(JSON_ROWS)
@pytest.mark.peer(9)
def test_empty_answer_says_that_the_action_succeeded(row: Row) -> None:
    for status in (200, 204):
        result = call(row, row.minimal, reply(status, b""))
        message = f"{row.action.name} succeeded; the vault sent no further data"
        assert result["structuredContent"] == {"ok": True, "message": message}
        assert shown(result) == sikkerkey_results.json_lines(result["structuredContent"])


@for_each(JSON_ROWS)
def test_every_action_shows_text_and_structure_that_hold_the_same(row: Row) -> None:
    answered(b'{"id":"sk_1","rows":[{"version":3,"at":1767225600000}],"n":1.5}', row)


NO_JSON = {
    "a page of a portal": b"<html>Sign in</html>",
    "half a value": b'{"a":',
    "two values": b"{}{}",
    "white space": b" \n",
    "invalid UTF-8": b'{"a":"\xff\xfe"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NaN": b'{"a":NaN}',
    "Infinity": b"[-Infinity]",
    "bottomless nesting": b"[" * 200_000,
    "a control character": b'{"a":"\n"}',
}


@each_of("body", NO_JSON.values(), ids=list(NO_JSON))
def test_answer_that_is_not_json_is_an_error_that_does_not_repeat_it(body: bytes) -> None:
    result = call(GET, GET.minimal, reply(200, body))
    assert result["isError"]
    assert shown(result) == (
        "the vault's answer is not JSON\n"
        "hint: check that the API URL is the vault's and that no portal or proxy answers in its place"
    )


def test_deeply_nested_answer_is_shown_or_refused_in_words() -> None:
    for depth in (10, 100, 400, 900, 990, 1_000, 5_000):
        for row in (GET, CREATE):
            result = call(row, row.minimal, reply(200, b'{"a":' * depth + b"1" + b"}" * depth))
            if depth <= 100:
                assert result["structuredContent"]
            elif "isError" in result:
                words = ("the vault's answer is nested too deeply", "the vault's answer is not JSON")
                assert shown(result).startswith(words)


def test_csv_is_shown_verbatim() -> None:
    csv = 'timestamp,detail\r\n1,"<ø>, ""x"""\r\n2,=1.10\n'
    result = call(EXPORT, EXPORT.minimal, reply(200, csv.encode(), "text/csv; charset=utf-8"))
    assert result == {"content": [{"type": "text", "text": csv}]}


@each_of("ends", [("\n", "2," + "x" * 200_000 + "\n"), ("\r", ""), ("\u2028", ""), ("\n\n", "")])
def test_csv_that_cannot_be_read_is_refused_because_a_column_may_hold_values(ends: tuple[str, str]) -> None:
    row = BY_NAME["read_audit.export"]
    between, rest = ends
    text = f"id,value{between}1,{MARK}{between}{rest}"
    result = call(row, row.minimal, reply(200, text.encode(), "text/csv"))
    assert MARK not in json.dumps(result)
    if between != "\n\n":  # blank lines are none
        assert result["content"][0]["text"].startswith("the vault's answer is not CSV\nhint: ")


def test_csv_with_broken_utf8_is_shown_with_replacement_characters() -> None:
    result = call(EXPORT, EXPORT.minimal, reply(200, b"action,detail\na,\xff\n", "text/csv"))
    assert shown(result) == "action,detail\na,\ufffd\n"


def test_export_that_the_vault_answers_in_json_is_shown_as_json() -> None:
    assert shown(answered(b'{"total":0}', EXPORT)) == '{"total":0}'


# Attachments


def attached(data: bytes, content_type: str) -> Any:
    result = call(ATTACHMENT, {"action": "attachment", "attachmentId": "att_1"}, reply(200, data, content_type))
    line, content = result.pop("content")
    assert result == {}
    assert content["type"] == "resource"
    resource = content["resource"]
    assert line == {"type": "text", "text": f"a file of type {resource['mimeType']}, {len(data):,} bytes\n"}
    return resource


def test_attachment_keeps_every_byte() -> None:
    data = bytes(range(256)) * 3 + b"\r\n\x00"
    resource = attached(data, "image/png")
    assert base64.b64decode(resource.pop("blob"), validate=True) == data
    assert resource == {"uri": "sikkerkey://v1/ai/tickets/attachments/att_1", "mimeType": "image/png"}


def test_attached_text_can_be_read_and_keeps_every_byte() -> None:
    text = "first line\r\n\tsøger <nøgle>"
    resource = attached(text.encode(), "text/x-log; charset=utf-8")
    assert resource == {"uri": "sikkerkey://v1/ai/tickets/attachments/att_1", "mimeType": "text/x-log", "text": text}


OPAQUE = {"latin-1": b"s\xf8ger", "surrogate": b"\xed\xa0\x80", "cut off": b"\xef\xbf", "hidden": "a\u202eb".encode()}


@each_of("data", OPAQUE.values(), ids=OPAQUE)
def test_attached_text_that_is_not_utf_8_or_hides_something_is_kept_as_bytes(data: bytes) -> None:
    assert base64.b64decode(attached(data, "text/plain")["blob"]) == data


@each_of(
    ("content_type", "mime"),
    [
        ("text/plain; charset=utf-8", "text/plain"),
        ("Image/SVG+XML", "image/svg+xml"),
        ("", "application/octet-stream"),
        ("nonsense", "application/octet-stream"),
        ("a/b\u202e", "application/octet-stream"),
        ("a/" + "b" * 500, "application/octet-stream"),
        ("application/json", "application/json"),
    ],
)
def test_attachment_has_the_mime_type_that_the_vault_named(content_type: str, mime: str) -> None:
    assert attached(b"{}", content_type)["mimeType"] == mime


@pytest.mark.peer(9)
def test_attachment_survives_the_whole_program(server: Server, recorder: Recorder) -> None:
    data = bytes(range(256))
    always(recorder, CannedResponse(200, data, {"Content-Type": "application/x-thing"}))
    _, content = server.call("support", action="attachment", attachmentId="att_1")["content"]
    assert base64.b64decode(content["resource"]["blob"]) == data


@pytest.mark.parametrize("where", ["send", "answer"])
def test_lack_of_memory_is_reported_with_its_effect_on_a_write(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*_: Any, **__: Any) -> sikkerkey_mcp.Answer:
        raise MemoryError

    owner, name = {"send": (StubApi, "send"), "answer": (sikkerkey_mcp, "render")}[where]
    monkeypatch.setattr(owner, name, fail)
    lack = "this computer has too little memory for this call"
    assert shown(call(GET, GET.minimal)) == f"{lack}\nhint: {sikkerkey_mcp.ASK_FOR_LESS}"
    assert shown(call(CREATE, CREATE.minimal)) == f"{lack}\nhint: {sikkerkey_mcp.MAY_HAVE_BEEN_PROCESSED}"


def test_empty_attachment_says_so() -> None:
    result = call(ATTACHMENT, ATTACHMENT.minimal, reply(200, b"", "image/png"))
    assert "no further data" in shown(result)


# Plaintext that the vault repeats

SECRET = 'pa<ss>&"wø\\rd/+ (!)' + MARK
PLAIN_ROWS = [row for row in ROWS if any(arg.plaintext for arg in row.action.args)]


def spellings(secret: str) -> dict[str, str]:
    """`secret` in the forms in which a vault may repeat it."""
    data = secret.encode()
    return {
        "as it is": secret,
        "within a sentence": f"bad value {secret}!",
        "doubled": secret + secret,
        "as JSON": json.dumps({"value": secret}),
        "as JSON without escapes": json.dumps({"value": secret}, ensure_ascii=False),
        "as JSON that is safe in HTML": json.dumps(secret, ensure_ascii=False)
        .replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026"),
        "in HTML": escape(secret),
        "in a URL with small letters": re.sub("%..", lambda escaped: escaped[0].lower(), quote(secret, safe="")),
        "in a URL as a browser writes it": quote(secret, safe="!'()*"),
        "in a URL": f"https://x.example/?q={quote(secret, safe='')}",
        "in a URL's path": quote(secret),
        "in a form": quote_plus(secret),
        "in base64": base64.b64encode(data).decode(),
        "in base64 for URLs": base64.urlsafe_b64encode(data).decode().rstrip("="),
    }  # fmt: skip


def traces(secret: str) -> list[str]:
    """What no result may contain: the marked part of a secret, and part of its base64."""
    data = secret.encode()
    return [MARK, quote(MARK), base64.b64encode(data).decode()[8:24], base64.urlsafe_b64encode(data).decode()[8:24]]


def giving(row: Row, secret: str) -> dict[str, Any]:
    """Arguments of `row` with `secret` as their plaintext."""
    if row is SCHEDULE:
        return {**row.minimal, "fieldNames": ["a"], "staticFields": {"a": secret}}
    return {**row.minimal, "value": secret}


def assert_clean(result: Any, secret: str) -> None:
    for text in strings_in(result):
        for trace in traces(secret):
            assert trace not in text, text


@for_each(PLAIN_ROWS)
def test_repeated_plaintext_is_cut_out_of_answers(row: Row) -> None:
    for how, echo in spellings(SECRET).items():
        known: list[Any] = [{"name": echo}, {"name": [echo]}, {"name": json.dumps([echo])}, {echo: 1}]
        unknown: list[Any] = [{"echo": echo}, [echo], echo, {"a": [{"b": {"c": [echo]}}]}]
        for body in known + unknown:
            result = call(row, giving(row, SECRET), reply(200, json.dumps(body).encode()))
            assert_clean(result, SECRET)
            assert (REDACTED if body in known else WITHHELD) in shown(result), how
            assert shown(result) == sikkerkey_results.json_lines(result["structuredContent"])


@for_each(PLAIN_ROWS)
def test_repeated_plaintext_is_cut_out_of_errors(row: Row) -> None:
    for how, echo in spellings(SECRET).items():
        body = {"error": echo, "requiredScopes": [echo, "projects.secrets.write"], "detail": echo}
        for status in (400, 403, 404, 409, 500):
            result = call(row, giving(row, SECRET), reply(status, json.dumps(body).encode(), Retry_After=echo))
            assert result["isError"], how
            assert_clean(result, SECRET)


def test_plaintext_longer_than_the_error_limit_is_cut_out_entirely() -> None:
    secret = MARK * 100
    result = call(CREATE, giving(CREATE, secret), reply(400, json.dumps({"error": f"bad {secret}"}).encode()))
    assert_clean(result, secret)


@each_of("number", ["73619284650", "7361.9284650", "73619284650.10", "-73619284650", "7.3619284e+40"])
def test_plaintext_that_comes_back_as_a_number_is_cut_out(number: str) -> None:
    for body in (f'{{"a":{number}}}', f"[{number}]", f'{{"{number}":[{{"b":{number}}}]}}'):
        result = call(CREATE, giving(CREATE, number), reply(200, body.encode()))
        assert "7361" not in json.dumps(result)
        assert "7.3619" not in json.dumps(result)


def test_each_string_and_number_inside_a_structured_value_is_cut_out() -> None:
    values = {"user": MARK + "-one", "deep": {"list": [MARK + "-two", 73619284650]}, "pin": 1.10}
    for value in (json.dumps(values), "\n " + json.dumps(values), json.dumps([values])):
        echoed = [MARK + "-two"]
        body = {
            "name": values["user"],
            "note": echoed,
            "version": 73619284650,
            "type": "pin 1.1",
            "fieldNames": ["user"],
        }
        result = call(CREATE, giving(CREATE, value), reply(200, json.dumps(body).encode()))
        assert result["structuredContent"] == {
            "name": REDACTED, "note": [REDACTED], "version": REDACTED, "type": f"pin {REDACTED}", "fieldNames": ["user"]
        }  # fmt: skip


def test_static_fields_that_hold_json_are_cut_out_inside_as_well() -> None:
    fields = {"a": json.dumps({"token": MARK}), "b": {"c": [MARK + "-deep"]}}
    given = {**SCHEDULE.minimal, "fieldNames": ["a"], "staticFields": fields}
    result = call(SCHEDULE, given, reply(200, json.dumps({"name": MARK, "note": MARK + "-deep"}).encode()))
    assert result["structuredContent"] == {"name": REDACTED, "note": REDACTED}


def test_short_plaintext_is_cut_out_as_a_word_and_ids_stay_whole() -> None:
    body = {"id": "sk_a1b2", "note": "value 'a1' is weak", "a1": "a1", "version": 1, "name": "a1b2"}
    result = call(CREATE, giving(CREATE, "a1"), reply(200, json.dumps(body).encode()))
    cut = REDACTED
    expected = {"id": "sk_a1b2", "note": f"value '{cut}' is weak", cut: WITHHELD, "version": 1, "name": "a1b2"}
    assert result["structuredContent"] == expected


def test_other_text_is_not_cut_out() -> None:
    body = b'{"id":"sk_1","name":["some name","some note",1.5,true,null]}'
    for row in PLAIN_ROWS:
        assert shown(call(row, giving(row, SECRET), reply(200, body))) == body.decode()


def test_empty_plaintext_cuts_nothing_out() -> None:
    given = giving(CREATE, "")
    assert shown(call(CREATE, given, reply(200, b'{"id":"sk_1"}'))) == '{"id":"sk_1"}'


def test_plaintext_is_in_no_stream_for_any_status(server: Server, recorder: Recorder) -> None:
    server.request("logging/setLevel", level="debug")
    echo = json.dumps({"error": SECRET, "value": SECRET, "requiredScopes": [SECRET], SECRET: SECRET}).encode()
    headers = {"Content-Type": "application/json", "X-Echo": quote(SECRET), "Retry-After": "999"}
    for status in (200, 201, 400, 401, 403, 404, 409, 418, 423, 429, 500, 502, 503, 507):
        always(recorder, CannedResponse(status, echo, headers))
        for row in PLAIN_ROWS:
            server.call(row.tool.name, **giving(row, SECRET))
    assert any(MARK.encode() in seen.body for seen in recorder.seen)
    assert server.close() == 0
    server.end()
    assert MARK not in server.stderr.decode() + b"".join(server.lines).decode()


def test_members_keep_their_names_whatever_the_plaintext_is() -> None:
    body = {"id": "sk_1", "name": "version", "version": 2}
    for value in ("id", '{"id": "name", "name": "version"}', "version", '["id", "name", "version"]'):
        result = call(CREATE, giving(CREATE, value), reply(200, json.dumps(body).encode()))
        assert list(result["structuredContent"]) == ["id", "name", "version"], value
        assert result["structuredContent"]["id"] == "sk_1", value


def test_no_member_takes_the_place_of_another() -> None:
    body = {MARK: None, f"{MARK}-2": True, REDACTED: False, "a\u202e": None, "a<U+202E>": True}
    result = call(CREATE, giving(CREATE, MARK), reply(200, json.dumps(body).encode()))["structuredContent"]
    assert list(result.values()) == list(body.values())
    assert MARK not in json.dumps(result)


ESCAPED = ['tab\there "quoted" back\\slash', f'{MARK}"\\\t', '"\\\t"\\\t"\\\t"\\\t']


def test_value_in_an_encoded_body_is_cut_out_also_if_json_escapes_it() -> None:
    for secret in ESCAPED:
        for body in (json.dumps({"name": "n", "value": secret}), sikkerkey_mcp.to_json({"value": secret})):
            for before in range(3):
                data = b" " * before + body.encode()
                for encoded in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode(), data.hex()):
                    result = call(CREATE, giving(CREATE, secret), reply(200, json.dumps({"note": encoded}).encode()))
                    assert REDACTED in result["structuredContent"]["note"], (secret, encoded)
                    failed = call(CREATE, giving(CREATE, secret), reply(400, json.dumps({"error": encoded}).encode()))
                    assert encoded[8:20] not in shown(failed)


LONG_SECRET = "Tr0ub4dor&3-Correct"
DISGUISES = {
    "in capitals": LONG_SECRET.upper(),
    "in full width": "".join(chr(ord(c) + 0xFEE0) for c in LONG_SECRET),
    "in mathematical letters": "".join(chr(0x1D41A + ord(c) - 97) if c.islower() else c for c in LONG_SECRET),
    "with spaces": " ".join(LONG_SECRET),
    "with hyphens": "-".join(LONG_SECRET),
    "with soft hyphens": "\xad".join(LONG_SECRET),
    "without punctuation": LONG_SECRET.replace("&", "").replace("-", ""),
    "without its end": LONG_SECRET[:10],
    "without its beginning": LONG_SECRET[-10:],
    "in lines": "\n".join(LONG_SECRET[at : at + 3] for at in range(0, 19, 3)),
    "in base64 in lines": base64.encodebytes(b"." * 50 + LONG_SECRET.encode()).decode(),
    "in hex in pairs": LONG_SECRET.encode().hex(":"),
    "in hex with spaces": LONG_SECRET.encode().hex(" "),
}


def test_string_that_holds_plaintext_in_disguise_is_cut_out_whole() -> None:
    for how, disguise in DISGUISES.items():
        body = {"id": "sk_1", "name": f"it is {disguise}.", "note": "some note"}
        result = call(CREATE, giving(CREATE, LONG_SECRET), reply(200, json.dumps(body).encode()))
        assert result["structuredContent"] == {"id": "sk_1", "name": REDACTED, "note": "some note"}, how
        refused = call(CREATE, giving(CREATE, LONG_SECRET), reply(400, json.dumps({"error": body["name"]}).encode()))
        assert shown(refused).startswith(
            f"the vault answered 400; {sikkerkey_refusals.WORDS_HOLD_PLAINTEXT}\nhint: "
        ), how


def test_words_of_a_failure_are_shown_if_they_hold_no_plaintext() -> None:
    given = {**giving(CREATE, "postgres://db.example.com/main"), "name": "postgres-main"}
    for said in ("name is taken", 'a secret named "postgres-main" exists'):
        result = call(CREATE, given, reply(409, json.dumps({"error": said}).encode()))
        assert shown(result).startswith(f"the vault answered 409, saying {json.dumps(said)}"), said
    result = call(CREATE, given, reply(201, b'{"id":"sk_1","name":"postgres-main"}'))
    assert result["structuredContent"] == {"id": "sk_1", "name": "postgres-main"}


# Plaintext in other arguments

SPELLED = [
    "{}", "x{}y", "the value is {}", "TR0UB4DOR&3-CORRECT", "tr0ub4dor 3 correct",
    base64.b64encode(LONG_SECRET.encode()).decode(), LONG_SECRET.encode().hex(), quote(LONG_SECRET),
]  # fmt: skip


def unsent(row: Row, given: dict[str, Any]) -> str:
    """The message of a call that is refused before anything is sent."""
    api = StubApi(reply())
    text = shown(sikkerkey_mcp.VaultTools(lambda: api).call(row.tool.name, given, sikkerkey_mcp.Context()))
    assert (api.sent, api.looked) == ([], [])
    return text


@for_each(PLAIN_ROWS)
def test_name_or_note_that_holds_the_value_is_not_sent(row: Row) -> None:
    texts = [arg.name for arg in row.action.args if arg.name in ("name", "note")]
    for name in texts:
        for spelled in SPELLED:
            given = {**giving(row, LONG_SECRET), name: spelled.format(LONG_SECRET)}
            said = unsent(row, given)
            assert said.startswith(f"{name} holds the value itself; nothing was sent\nhint: "), spelled
            assert "Tr0ub4" not in said


def test_note_that_holds_a_field_or_a_line_of_the_value_is_not_sent() -> None:
    for value in (json.dumps({"user": "ada", "password": LONG_SECRET}), f"user=ada\n{LONG_SECRET}\n"):
        said = unsent(CREATE, {**giving(CREATE, value), "note": f"ada, {LONG_SECRET}"})
        assert said.startswith("note holds the value itself; nothing was sent"), value


def test_note_that_shares_words_or_a_short_value_is_sent() -> None:
    for value, note in (
        ("postgres://ada@db.example.com/main", "the postgres database db.example.com"),
        ("hunter2", "hunter2"),
        (json.dumps({"user": "ada", "pin": 1234567}), "ada 1234567"),
    ):
        result = call(CREATE, {**giving(CREATE, value), "note": note}, reply(201, b'{"id":"sk_1"}'))
        assert result["structuredContent"] == {"id": "sk_1"}, note


# Stored values and minted credentials

MINTS = [row for row in JSON_ROWS if row.action.mints]
NO_MINTS = [row for row in JSON_ROWS if not row.action.mints]
HARMLESS = {
    "archived": True,
    "readCount": 3,
    "graceSeconds": 60,
    "lastUsedAt": 5,
    "movedAt": "2026-01-01T00:00:00.000Z",
    "ownerId": "user_1",
    "peerIds": ["a", "b"],
    "successor": None,
    "tags": [],
}


def stored_values() -> dict[str, Any]:
    """Members in which a vault might send a stored value."""
    names = ["value", "values", "plaintext", "currentValue", "secretValue", "fieldValues", "data", "secret", "password"]
    contents: list[Any] = [MARK, {"user": MARK}, {"name": MARK, "id": MARK}, [MARK], [{"name": MARK}], [[MARK]]]
    contents += [73619284650, 7361.9284650, {"pin": 73619284650}, [73619284650]]
    texts = {f"{name}{number}": each for name in names for number, each in enumerate(contents)}
    # Names that actions know for something else.
    return {
        **dict.fromkeys(names, MARK),
        **texts,
        "payload": MARK,
        "content": MARK,
        "pin": 123,
        "fields": {"user": MARK},
    }


def test_every_action_of_the_vault_has_its_members() -> None:
    named = {f"{row.tool.name}.{row.action.name}": row.action for row in ROUTED}
    assert list(sikkerkey_members.ANSWERS) == list(named)
    for name, action in named.items():
        members = sikkerkey_members.members_of(name)
        assert not action.rows or action.rows in members.objects | members.plain, name
        assert action.mints == bool(members.plain & set(sikkerkey_members.CREDENTIAL.split()) - {"url"}), name


def test_recorded_examples_hold_nothing_that_is_withheld() -> None:
    examples = json.loads((ROOT / "docs" / "examples.json").read_bytes())
    for name in sikkerkey_members.ANSWERS:
        answer = examples[name]["answer"]
        if isinstance(answer, dict) and name != "support.attachment":
            ours = {"person", "notice", "next", "hint", "offset", "returned", "total"}
            kept = {member: value for member, value in answer.items() if member not in ours}
            assert sikkerkey_results.sanitize_json(kept, str, sikkerkey_members.members_of(name)) == kept, name


@for_each(NO_MINTS)
def test_what_an_action_does_not_answer_with_is_withheld_and_named(row: Row) -> None:
    stored = stored_values()
    member = row.action.rows or "items"
    for body in (stored, [stored], {member: [stored], "total": 1}, {**stored, "id": "x"}, {"a": stored}, [[stored]]):
        result = call(row, row.minimal, reply(200, json.dumps(body).encode()))
        text = json.dumps(result)
        assert MARK not in text
        assert "7361" not in text
        if body == {member: [stored], "total": 1}:
            for named in result["structuredContent"].get(member, []):
                if named == WITHHELD:  # a list of ids, which has no objects
                    continue
                assert list(named) == list(stored)
                assert set(named.values()) == {WITHHELD}


@for_each([row for row in JSON_ROWS if not any(arg.listed_by for arg in row.action.args)])
def test_what_cannot_be_a_value_is_shown(row: Row) -> None:
    assert HARMLESS.items() <= answered(json.dumps(HARMLESS).encode(), row)["structuredContent"].items()


def test_texts_and_numbers_with_harmless_names_are_withheld() -> None:
    members = {
        "ownerId": f"{MARK} !",
        "movedAt": MARK,
        "readCount": MARK,
        "lastUsedAt": 1.5,
        "peerIds": ["a", f"{MARK} !"],
    }
    assert set(answered(json.dumps(members).encode())["structuredContent"].values()) == {WITHHELD}


def test_value_in_a_list_of_words_or_a_column_of_its_own_is_withheld() -> None:
    secrets = BY_NAME["manage_secrets.list"]
    for body in (b'["%b"]', b'{"items":["%b"]}', b'{"secrets":["%b"]}', b'"%b"'):
        assert MARK not in shown(call(secrets, secrets.minimal, reply(200, body % MARK.encode())))
    csv = f"id,value,detail\r\n1,{MARK},read,{MARK}\r\n2,,read\r\n"
    assert shown(call(EXPORT, EXPORT.minimal, reply(200, csv.encode(), "text/csv"))) == (
        f"id,value,detail\r\n1,{WITHHELD},read,{WITHHELD}\r\n2,,read\r\n"
    )


@for_each(MINTS)
def test_minting_action_shows_its_credential(row: Row) -> None:
    body = '{"id":"x","token":"t0k3n","secret":"whsec_1","passphrase":"three-word-phrase","url":"https://s/x#t0k3n"}'
    given = {**row.minimal, "value": SECRET} if row is ONE_TIME else row.minimal
    assert shown(call(row, given, reply(201, body.encode()))) == body
    withheld = call(row, given, reply(201, json.dumps({"value": MARK, "data": {"token": MARK}}).encode()))
    assert withheld["structuredContent"] == {"value": WITHHELD, "data": WITHHELD}


# Errors that say what to do next


def failed(status: int, body: Any = None, row: Row = GET, **headers: str) -> tuple[str, str]:
    """The message and the hint of a call that the vault answers with an error."""
    result = call(row, row.minimal, reply(status, b"" if body is None else json.dumps(body).encode(), **headers))
    assert set(result) == {"content", "isError"}
    assert result["isError"] is True
    message, hint = shown(result).split("\nhint: ")
    assert not message.endswith(".")
    assert not hint.endswith(".")
    return message, hint


@each_routed_row
def test_error_of_the_vault_is_quoted_and_has_no_structure(row: Row) -> None:
    message, hint = failed(400, {"error": "name is taken"}, row)
    assert message == 'the vault answered 400, saying "name is taken"'
    assert hint == "the vault refused the arguments: correct them"


WORDS = {
    "actions must contain names of audit actions: see /v1/ai/alerts/actions": (
        "actions must contain names of audit actions: see manage_alerts.actions"
    ),
    "use POST /v1/ai/secrets/{secretId}/binding/delete first": "use manage_policies.binding_unbind first",
    "use POST /v1/ai/trash/sk_1/restore.": "use manage_trash.restore.",
    "see /v1/ai/alerts, or (GET /v1/ai/projects/:projectId/secrets)": (
        "see manage_alerts.list, or (manage_secrets.list)"
    ),
    "see GET /v1/ai/trash/sk_1/restore and /v1/ai/nothing": "see GET /v1/ai/trash/sk_1/restore and /v1/ai/nothing",
    f"timeWindowStart must match {sikkerkey_mcp.HH_MM}": "timeWindowStart must be a time of day as HH:MM",
    r"timeWindowEnd must match the pattern /^\d\d:\d\d$/": "timeWindowEnd must be a time of day as HH:MM",
    r"does not match: ^([01][0-9]|2[0-3]):[0-5][0-9]$": "does not match: a time of day as HH:MM",
    r"name must match ^[a-z]+$": r"name must match ^[a-z]+$",
}


@each_of(("said", "shown"), WORDS.items())
def test_error_of_the_vault_names_actions_and_formats_in_words(said: str, shown: str) -> None:
    message, _ = failed(400, {"error": said}, BY_NAME["manage_policies.create"])
    assert message == f"the vault answered 400, saying {json.dumps(shown)}"


@for_each([*range(400, 432), 451, *range(500, 531)])
def test_every_status_has_a_next_step(status: int) -> None:
    message, hint = failed(status, {"error": "no"})
    assert message == f'the vault answered {status}, saying "no"'
    assert len(hint) > 20
    if status < 500:
        assert "the vault failed" not in hint


@each_of(
    ("status", "step"),
    [
        (401, "may have been revoked"),
        (403, "repeating the call does not help"),
        (404, "check the ids with a list action"),
        (409, "resolve the conflict"),
        (413, "send less"),
        (423, "manage_canaries.unfreeze_project"),
        (429, "wait, then repeat"),
        (501, "does not offer this action"),
        (503, "its owner must unseal it"),
        (507, "disk is full"),
        (500, "try again later"),
        (530, "try again later"),
        (405, "does not offer this action"),
        (407, "HTTPS_PROXY"),
        (408, "repeat it"),
        (410, "no longer exists"),
        (418, "does not help"),
        (422, "correct them"),
        (425, "repeat it"),
    ],
)
def test_specific_status_has_a_specific_next_step(status: int, step: str) -> None:
    assert step in failed(status)[1]


@pytest.mark.parametrize("status", [500, 502, 504])
def test_failure_of_a_write_says_that_it_may_have_been_processed(status: int) -> None:
    for row in ROUTED:
        assert ("may have been processed" in failed(status, row=row)[1]) is (row.action.effect != "read")


NOW_S = 1_767_225_600


@each_of(
    ("ours_minus_theirs_s", "words"),
    [
        (301, "this computer's clock is 301 s ahead of the vault's: the user must set it"),
        (-86_400, "this computer's clock is 86400 s behind the vault's: the user must set it"),
        (299, NEXT_STEP[401]),
        (0, NEXT_STEP[401]),
    ],
)
def test_401_blames_the_clock_if_the_date_header_does(
    monkeypatch: pytest.MonkeyPatch, ours_minus_theirs_s: int, words: str
) -> None:
    monkeypatch.setattr(time, "time", lambda: float(NOW_S))
    assert failed(401, Date=formatdate(NOW_S - ours_minus_theirs_s, usegmt=True))[1] == words


@each_of("date", ["yesterday", "", "Thu, 99 Jan 99999 00:00:00 GMT", "\u202e", "1767225600"])
def test_401_with_an_unreadable_date_says_what_it_says_without_one(date: str) -> None:
    assert failed(401, Date=date)[1] == NEXT_STEP[401]


def test_403_names_the_scopes_that_the_vault_wants() -> None:
    _message, hint = failed(403, {"error": "no", "requiredScopes": ["projects.read", "audit.read"]})
    assert hint.startswith("missing scope: projects.read, audit.read; only the vault's owner can ")


@each_of("scopes", [None, [], "projects.read", 7, [None, 7], {"a": 1}])
def test_403_without_readable_scopes_names_the_rows_own(scopes: Any) -> None:
    _message, hint = failed(403, {"error": "no", "requiredScopes": scopes})
    assert hint.startswith("the agent must be approved and enabled, have the scope machines.read, and have the project")


def test_403_on_a_route_with_an_id_names_the_allowlist() -> None:
    _message, hint = failed(403, {"error": "no"}, BY_NAME["manage_secrets.list"])
    needed = "have the scope projects.secrets.read, and have the project on its allowlist"
    assert hint == f"the agent must be approved and enabled, {needed}; {NEXT_STEP[403]}"


def test_403_on_whoami_can_only_mean_the_agents_state() -> None:
    _message, hint = failed(403, {"error": "Agent is pending approval"}, BY_NAME["whoami.whoami"])
    assert hint == f"the agent must be approved and enabled; {NEXT_STEP[403]}"


def test_403_does_not_repeat_scopes_without_end_or_with_hidden_characters() -> None:
    _message, hint = failed(403, {"requiredScopes": ["a\n\u202eb" + "x" * 500] * 1000})
    assert "\n" not in hint
    assert "\u202e" not in hint
    assert len(hint) < 1_000


def test_404_on_an_inferred_row_says_that_this_vault_does_not_offer_it() -> None:
    for row in ROUTED:
        _message, hint = failed(404, row=row)
        assert hint.startswith(f"this vault does not offer the action {row.action.name}") is row.action.inferred


def test_429_says_how_long_to_wait() -> None:
    assert failed(429, Retry_After="17")[1] == "too many requests: repeat after 17 s"
    assert failed(429, Retry_After="soon")[1] == "too many requests: wait, then repeat"
    assert failed(429, Retry_After="-1")[1] == "too many requests: wait, then repeat"


def test_429_with_a_date_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: float(NOW_S))
    for ahead_s, words in ((90, "90 s"), (-90, "0 s")):
        assert failed(429, Retry_After=formatdate(NOW_S + ahead_s, usegmt=True))[1].endswith(f"repeat after {words}")


WORDLESS = [b"", b"<html>", b"\xff", b"[1]", b'"no"', b'{"error":7}', b'{"error":""}', b"[" * 200_000]


@each_of("body", WORDLESS)
def test_error_without_readable_words_is_its_status_alone(body: bytes) -> None:
    result = call(GET, GET.minimal, reply(400, body))
    assert shown(result).startswith("the vault answered 400\nhint: ")


@pytest.mark.peer(13)
def test_words_of_the_vault_are_bounded_and_cannot_hide_anything() -> None:
    message, _hint = failed(400, {"error": "a\n\x1b[2Jb\u202ec\u200bd\ud800" + "x" * 5_000})
    assert message.startswith('the vault answered 400, saying "a<U+000A><U+001B>[2Jb<U+202E>c<U+200B>d<U+D800>xxx')
    assert message.endswith('x..."')
    assert len(message) < 700


@each_of("status", [300, 301, 302, 303, 304, 307, 308, 399])
def test_redirect_is_an_error(status: int) -> None:
    message, hint = failed(status, Location="https://evil.example/")
    assert message == f"the vault answered {status}, a redirect, which is never followed"
    assert hint == "check the API URL"


def test_redirect_is_not_followed_to_another_host(server: Server, recorder: Recorder) -> None:
    with Recorder() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            always(recorder, CannedResponse(status, b"", {"Location": f"{elsewhere.url}/v1/ai/projects"}))
            for row in (GET, CREATE):
                assert server.call(row.tool.name, **giving(row, SECRET) if row is CREATE else row.minimal)["isError"]
        assert elsewhere.seen == []
    assert len(recorder.seen) == 10
