"""Long answers: what fits is shown, the rest can be reached, and nothing is repeated or lost on the way."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

import sikkerkey_mcp
import sikkerkey_options
import sikkerkey_pages
import sikkerkey_results
from sikkerkey_mcp import Presentation
from sikkerkey_results import RESULT_CHARACTERS
from sikkerkey_times import parse_time
from tests.support.rows import each_of
from tests.support.table_calls import BY_NAME, ROWS, Row, StubApi, call, for_each, reply

LISTS = [row for row in ROWS if any(arg.name == "offset" for arg in row.action.args) and row.action.method == "GET"]
VAULT_PAGED = [row for row in ROWS if row.action.vault_pages]
SECRETS = BY_NAME["manage_secrets.list"]
AUDIT = BY_NAME["read_audit.query"]
EXPORT = BY_NAME["read_audit.export"]
ID_LISTS = ("projectAllowlist", "secretIds")
NOON_MS = 1_767_268_800_000


def row_of(number: int) -> dict[str, Any]:
    """One row as vaults send them, with a member that is null."""
    note = f"note {number}" if number % 7 else "x" * 3_000
    return {"id": f"sk_{number}", "name": f"NAME_{number}", "note": note, "gone": None, "createdAt": NOON_MS + number}


def body_of(row: Row, rows: list[Any]) -> bytes:
    """A vault's answer that holds `rows`, or only their ids in a list of ids."""
    if row.action.rows in ID_LISTS:
        rows = [each["id"] for each in rows]
    return json.dumps(rows if row.action.rows == "items" else {"other": 1, row.action.rows: rows}).encode()


def content(result: Any) -> Any:
    """The structured content of a result that succeeded, whose text holds the same and is no longer than the limit."""
    assert "isError" not in result, result
    [text] = result["content"]
    assert json.loads(text["text"]) == result["structuredContent"]
    assert len(text["text"]) <= RESULT_CHARACTERS
    return result["structuredContent"]


def all_pages(ask: Callable[[dict[str, Any]], Any], member: str) -> list[Any]:
    """Every row, by following `next` as a model would."""
    rows: list[Any] = []
    arguments: dict[str, Any] = {}
    while True:
        page = content(ask(arguments))
        assert page[member]
        rows += page[member]
        if "next" not in page:
            assert len(rows) == page.get("total", len(rows))
            return rows
        assert page["returned"] == len(page[member])
        assert "rows are shown" in page["hint"]
        arguments = {**arguments, **page["next"]}


@for_each(LISTS)
def test_every_list_can_be_read_to_its_end_in_results_that_fit(row: Row) -> None:
    for count in (60, 250):
        answer = reply(body=body_of(row, [row_of(number) for number in range(count)]))
        shown = all_pages(lambda more: call(row, {**row.minimal, **more}, answer), row.action.rows)  # noqa: B023
        ids = shown if row.action.rows in ID_LISTS else [each["id"] for each in shown]
        assert ids == [f"sk_{number}" for number in range(count)]


def test_first_page_of_5000_secrets_says_how_to_go_on() -> None:
    answer = reply(body=body_of(SECRETS, [row_of(number) for number in range(5_000)]))
    page = content(call(SECRETS, SECRETS.minimal, answer))
    assert (page["total"], page["offset"], page["next"]) == (5_000, 0, {"offset": page["returned"]})
    assert page["returned"] >= 48
    assert "of 5,000 rows are shown" in page["hint"]
    assert "`search`" in page["hint"]


def test_list_that_fits_is_complete_and_says_its_total() -> None:
    page = content(call(SECRETS, SECRETS.minimal, reply(body=b'[{"id":"a"},{"id":"b"}]')))
    assert page == {"items": [{"id": "a"}, {"id": "b"}], "total": 2}


def test_each_row_has_a_line_of_its_own() -> None:
    result = call(SECRETS, SECRETS.minimal, reply(body=b'[{"id":"a"},{"id":"b","version":1}]'))
    assert result["content"][0]["text"].splitlines() == [
        '{"items":[', '{"id":"a"},', '{"id":"b","version":1}', '],"total":2}',
    ]  # fmt: skip
    assert sikkerkey_results.json_lines({"items": [{"n": [{"c": 1}]}]}) == '{"items":[\n{"n":[{"c":1}]}\n]}'


SEARCHES = [
    ("name_1", {}, ["sk_1", *(f"sk_{number}" for number in range(10, 20))]),
    ("Note 7", {}, []),  # its note is long and has no such text
    ("NOTE 8", {}, ["sk_8"]),
    ("note", {"limit": 2}, ["sk_1", "sk_2"]),
    ("note", {"limit": 2, "offset": 2}, ["sk_3", "sk_4"]),
    ("note", {"offset": 900}, []),
    ("sk_", {}, []),  # ids are not searched
]


@each_of(("text", "more", "ids"), SEARCHES)
def test_search_limit_and_offset_select_rows(text: str, more: dict[str, Any], ids: list[str]) -> None:
    answer = reply(body=body_of(SECRETS, [row_of(number) for number in range(20)]))
    page = content(call(SECRETS, {**SECRETS.minimal, "search": text, **more}, answer))
    assert [row["id"] for row in page["items"]] == ids
    assert ("next" in page) is (
        bool(ids) and page["offset" if "offset" in page else "total"] + len(ids) < page["total"]
    )


def test_search_limit_and_offset_are_not_sent() -> None:
    api = StubApi(reply(body=b"[]"))
    given = {**SECRETS.minimal, "search": "a", "limit": 1, "offset": 3}
    sikkerkey_mcp.VaultTools(lambda: api).call("manage_secrets", given, sikkerkey_mcp.Context())
    assert [(request.path, request.body) for request in api.sent] == [
        (f"/v1/ai/projects/{SECRETS.minimal['projectId']}/secrets", None)
    ]


def test_long_text_is_cut_in_a_list_and_whole_in_get() -> None:
    note = "n" * 5_000
    rows = [{"id": "a", "note": note}]
    [row] = content(call(SECRETS, SECRETS.minimal, reply(body=json.dumps(rows).encode())))["items"]
    assert row["note"] == "n" * 200 + "... [200 of 5,000 characters; get shows all]"
    get = BY_NAME["manage_secrets.get"]
    assert content(call(get, get.minimal, reply(body=json.dumps(rows[0]).encode()))) == rows[0]


def test_one_row_larger_than_a_result_is_cut_in_its_texts() -> None:
    get = BY_NAME["support.get"]
    body = {"id": "t", "conversation": [{"body": "m" * 10_000}, {"body": "n" * 10_000}, *([{"body": "o" * 9_000}] * 5)]}
    shown = all_pages(
        lambda more: call(get, {**get.minimal, **more}, reply(body=json.dumps(body).encode())), "conversation"
    )
    assert [message["body"][0] for message in shown] == ["m", "n", *"ooooo"]
    assert shown[0]["body"].endswith("... [2,500 of 10,000 characters]")


def test_long_list_inside_a_row_is_cut_and_whole_in_get() -> None:
    token = {"id": "enr_1", "secretIds": [f"sk_{number:016}" for number in range(900)]}
    listed, get = BY_NAME["manage_enrollment.list"], BY_NAME["manage_enrollment.get"]
    rows = content(call(listed, listed.minimal, reply(body=json.dumps([token] * 9).encode())))
    assert rows["items"][0]["secretIds"][-1] == "... [119 of 900 items; get shows all]"
    body = reply(body=json.dumps(token).encode())
    assert all_pages(lambda more: call(get, {**get.minimal, **more}, body), "secretIds") == token["secretIds"]


COUNTS: list[tuple[dict[str, Any], Any, dict[str, Any]]] = [
    ({}, 5, {"total": 5, "offset": 0, "returned": 0}),
    ({"offset": 4}, 5, {"total": 5, "offset": 4, "returned": 0}),
    ({"page": 9}, 900, {"total": 900, "offset": 400, "returned": 0}),
    ({}, 0, {"total": 0}),
    ({}, None, {"total": None}),
]


@each_of(("more", "total", "expected"), COUNTS)
def test_a_page_without_the_rows_that_the_vault_counts_has_no_next(
    more: dict[str, Any], total: Any, expected: dict[str, Any]
) -> None:
    for row in VAULT_PAGED:
        given = {
            **row.minimal,
            **{name: each for name, each in more.items() if name in {arg.name for arg in row.action.args}},
        }
        page = content(call(row, given, reply(body=json.dumps({row.action.rows: [], "total": total}).encode())))
        assert page.pop(row.action.rows) == []
        hint = page.pop("hint", "")
        assert page == expected
        assert hint.startswith("the vault counts ") == ("returned" in expected)


def test_a_total_that_is_a_lower_bound_is_called_one() -> None:
    body = {"entries": [row_of(number) for number in range(50)], "total": 20_050, "totalIsAtLeast": True}
    page = content(call(AUDIT, AUDIT.minimal, reply(body=json.dumps(body).encode())))
    assert f"{page['returned']} of at least 20,050 rows are shown" in page["hint"]


def test_rows_beyond_the_total_of_the_vault_are_not_lost() -> None:
    rows = [row_of(number) for number in range(250)]
    answer = reply(body=json.dumps({"entries": rows, "total": 1}).encode())
    first = content(call(AUDIT, {**AUDIT.minimal, "pageSize": 200}, answer))
    assert first["next"]["offset"] == first["returned"] < first["total"] == 250


def test_answer_without_rows_that_is_too_long_is_cut_and_names_the_way_to_all_of_it() -> None:
    get = BY_NAME["manage_machines.get"]
    result = call(get, get.minimal, reply(body=json.dumps({"name": "x" * 20_000}).encode()))
    remark, text = [item["text"] for item in result["content"]]
    assert len(remark) + len(text) <= RESULT_CHARACTERS
    assert remark.startswith("The first 9,500 of 20,011 characters are shown. A person gets all of it with `")
    assert "call manage_machines get ... --to-file FILE`" in remark


def test_credential_that_is_shown_once_is_never_cut() -> None:
    create = BY_NAME["manage_enrollment.create"]
    answer = {"token": "t" * 20_000}
    result = call(create, create.minimal, reply(body=json.dumps(answer).encode()))
    assert result["structuredContent"] == answer


def test_null_members_are_left_out_of_rows_and_kept_elsewhere() -> None:
    [row] = content(call(SECRETS, SECRETS.minimal, reply(body=b'[{"id":"a","n":null,"fieldNames":[null]}]')))["items"]
    assert row == {"id": "a", "fieldNames": [None]}
    get = BY_NAME["manage_secrets.get"]
    assert content(call(get, get.minimal, reply(body=b'{"id":"a","n":null}'))) == {"id": "a", "n": None}


# Lists that the vault pages


class PagedVault(StubApi):
    """A vault with an audit log, newest first, that grows with each request."""

    def __init__(self, count: int, detail: str = "d") -> None:
        super().__init__(reply())
        self.entries = [
            {"id": n, "timestamp": NOON_MS + n // 3, "detail": detail * 40, "x": None} for n in range(count)
        ]

    def send(self, request: sikkerkey_mcp.Request, **_options: Any) -> sikkerkey_mcp.Answer:
        self.sent.append(request)
        asked = json.loads(request.body or b"{}")
        size, page = asked.get("pageSize", 50), asked.get("page", 1)
        seen = [entry for entry in reversed(self.entries) if entry["timestamp"] <= asked.get("to", 2**62)]
        answer = {"entries": seen[(page - 1) * size :][:size], "total": len(seen), "page": page, "pageSize": size}
        number = len(self.entries)
        self.entries.append({"id": number, "timestamp": NOON_MS + number, "detail": "new", "x": None})
        return reply(body=json.dumps(answer).encode())


def asking(api: StubApi, row: Row, **given: Any) -> Callable[[dict[str, Any]], Any]:
    tools = sikkerkey_mcp.VaultTools(lambda: api)
    return lambda more: tools.call(row.tool.name, {**row.minimal, **given, **more}, sikkerkey_mcp.Context())


@each_of("name", ["query", "list"])
@each_of("size", [None, 3, 50, 200])
def test_audit_log_that_grows_is_read_once_and_whole(name: str, size: int | None, monkeypatch: Any) -> None:
    row = BY_NAME[f"read_audit.{name}"]
    # The times of `next` go back to the vault as it knows them, in milliseconds.
    api = PagedVault(310, detail="detail ")
    given = {} if size is None else {"pageSize": size}
    shown = all_pages(asking(api, row, **given), "entries")
    assert [entry["id"] for entry in shown] == list(range(309, -1, -1))
    assert shown[0] == {"id": 309, "timestamp": "2026-01-01T12:00:00.103Z", "detail": "detail " * 40}


def test_rows_that_did_not_fit_come_first_on_the_next_page() -> None:
    api = PagedVault(400, detail="a longer detail ")
    page = content(asking(api, AUDIT, pageSize=200)({}))
    assert page["returned"] < 200
    following = content(asking(api, AUDIT, pageSize=200)(page["next"]))
    assert following["entries"][0]["id"] == page["entries"][-1]["id"] - 1


def test_page_of_the_vault_continues_with_its_offset() -> None:
    page = content(asking(PagedVault(400), AUDIT)({"page": 3, "pageSize": 20, "to": NOON_MS + 9_999}))
    assert (page["offset"], page["next"]) == (40, {"offset": 60})


def test_an_offset_within_a_page_asks_for_two_pages() -> None:
    api = PagedVault(400)
    page = content(asking(api, AUDIT)({"offset": 70, "pageSize": 20, "sortDir": "asc"}))
    assert [json.loads(request.body or b"")["page"] for request in api.sent] == [4, 5]
    assert len(page["entries"]) == 20


@for_each(VAULT_PAGED)
def test_page_and_offset_cannot_be_combined(row: Row) -> None:
    result = call(row, {**row.minimal, "page": 2, "offset": 3})
    assert result["content"][0]["text"] == "offset cannot be combined with page"


@for_each(VAULT_PAGED)
def test_every_list_that_the_vault_pages_is_read_whole(row: Row) -> None:
    rows = [row_of(number) for number in range(130)]

    class Vault(StubApi):
        def send(self, request: sikkerkey_mcp.Request, **_options: Any) -> sikkerkey_mcp.Answer:
            asked = json.loads(request.body or b"{}")
            size, page = asked.get("pageSize", 50), asked.get("page", 1)
            answer = {row.action.rows: rows[(page - 1) * size :][:size], "total": 130, "page": page, "pageSize": size}
            return reply(body=json.dumps(answer).encode())

    shown = all_pages(asking(Vault(reply()), row), row.action.rows)
    assert [each["id"] for each in shown] == [each["id"] for each in rows]


# Export


def exported(count: int) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["id", "timestamp", "detail"])
    writer.writerows([number, NOON_MS - number, 'two\r\nlines, "quoted"'] for number in range(count))
    return text.getvalue().encode()


def test_short_export_is_shown_whole_with_readable_times() -> None:
    result = call(EXPORT, EXPORT.minimal, reply(200, exported(2), "text/csv"))
    [text] = [item["text"] for item in result["content"]]
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[1:] == [
        ["0", "2026-01-01T12:00:00.000Z", 'two\r\nlines, "quoted"'],
        ["1", "2026-01-01T11:59:59.999Z", 'two\r\nlines, "quoted"'],
    ]


def test_long_export_says_how_many_rows_there_are_and_how_a_person_gets_them() -> None:
    result = call(EXPORT, EXPORT.minimal, reply(200, exported(3_000), "text/csv"))
    remark, text = [item["text"] for item in result["content"]]
    assert len(remark) + len(text) <= RESULT_CHARACTERS
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert remark.startswith(f"{len(rows) - 1:,} of 3,000 rows are shown. A person gets all of it with `")
    assert "call read_audit export ... --to-file FILE`" in remark
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(len(rows) - 1)]
    assert "at most 10,000" not in remark


def test_export_at_the_vaults_cap_says_so() -> None:
    result = call(EXPORT, EXPORT.minimal, reply(200, exported(10_000), "text/csv"))
    assert "The vault exports at most 10,000 entries" in result["content"][0]["text"]
    assert "`to`" in result["content"][0]["text"]


# Attachments


@pytest.mark.parametrize(("data", "mime"), [(b"a" * 10_001, "text/plain"), (b"\x89PNG" * 3_000, "image/png")])
def test_file_that_is_too_long_is_not_shown(data: bytes, mime: str) -> None:
    row = BY_NAME["support.attachment"]
    [item] = call(row, row.minimal, reply(200, data, mime))["content"]
    assert item["text"].startswith(f"a file of type {mime}, {len(data):,} bytes, too long to be shown. A person gets")


# Times


def test_times_are_converted_without_loss() -> None:
    rng = random.Random(1)  # noqa: S311
    times = [10**11, 253_402_300_799_999, *(rng.randrange(10**11, 253_402_300_799_999) for _ in range(2_000))]
    for time_ms in times:
        shown = sikkerkey_pages.with_iso_times({"createdAt": time_ms})["createdAt"]
        assert parse_time(shown, 0) == time_ms, shown


def test_only_times_are_converted() -> None:
    value = {"createdAt": 7, "id": NOON_MS, "enabledAt": True, "revokedAt": None, "timeWindowStart": "22:00"}
    assert sikkerkey_pages.with_iso_times(value) == value
    shown = sikkerkey_pages.with_iso_times({"rows": [{"ttlExpiresAt": NOON_MS, "from": NOON_MS, "periodEnd": NOON_MS}]})
    assert set(shown["rows"][0].values()) == {"2026-01-01T12:00:00.000Z"}


# whoami


def test_whoami_shows_activity_only_on_request() -> None:
    api = StubApi(reply(body=b'{"agentId":"a","recentAudit":[{"id":1,"machineId":null}]}'))
    tools = sikkerkey_mcp.VaultTools(lambda: api, now_s=lambda: NOON_MS / 1000)
    now = "2026-01-01T12:00:00.000Z"
    for given, activity in (({}, False), ({"activity": False}, False), ({"activity": True}, True)):
        expected = {"agentId": "a", **({"recentAudit": [{"id": 1}]} if activity else {}), "time": now}
        assert content(tools.call("whoami", given, sikkerkey_mcp.Context())) == expected


# The limit


def test_a_program_gets_everything_as_the_vault_sent_it() -> None:
    body = body_of(SECRETS, [row_of(number) for number in range(500)])
    exact = Presentation(characters=None, hidden_visible=False, exact=True)
    tools = sikkerkey_mcp.VaultTools(lambda: StubApi(reply(body=body)), presentation=exact)
    result = tools.call("manage_secrets", SECRETS.minimal, sikkerkey_mcp.Context())
    assert result["structuredContent"] == {"items": [row_of(number) for number in range(500)], "total": 500}


def test_another_limit_is_kept() -> None:
    for characters in (1_000, 4_000, 50_000):
        body = body_of(SECRETS, [row_of(number) for number in range(500)])
        presentation = Presentation(characters)
        tools = sikkerkey_mcp.VaultTools(lambda: StubApi(reply(body=body)), presentation=presentation)  # noqa: B023
        result = tools.call("manage_secrets", SECRETS.minimal, sikkerkey_mcp.Context())
        assert characters - 900 < len(result["content"][0]["text"]) <= characters


@each_of("text", ["0", "999", "1000001", "ten", "-5000", "1e4", "9" * 5_000])
def test_limit_that_is_no_number_in_range_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        sikkerkey_mcp.ConfigError, match="--answer-limit must be an integer between 1,000 and 1,000,000"
    ):
        sikkerkey_options.read_answer_limit({"--answer-limit": text})
    monkeypatch.setenv("SIKKERKEY_ANSWER_LIMIT", text)
    with pytest.raises(sikkerkey_mcp.ConfigError, match="SIKKERKEY_ANSWER_LIMIT must be"):
        sikkerkey_options.read_answer_limit({})


def test_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_ANSWER_LIMIT", "2000")
    assert sikkerkey_options.read_answer_limit({}) == 2_000
    _agent, options = sikkerkey_options.parse_serve_options(["--answer-limit", "3000"])
    assert sikkerkey_options.read_answer_limit(options) == 3_000
    monkeypatch.delenv("SIKKERKEY_ANSWER_LIMIT")
    assert sikkerkey_options.read_answer_limit({}) == RESULT_CHARACTERS
