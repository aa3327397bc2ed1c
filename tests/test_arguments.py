"""The argument rules for every row: what is refused, with which message, and what is sent.

A refusal names the argument and the rule, never the value, and sends nothing; `refusal` checks the last two.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

import sikkerkey_actions
import sikkerkey_core
import sikkerkey_mcp
import sikkerkey_rules
import sikkerkey_times
from tests.support.harness import Recorder, Server
from tests.support.rows import each_of
from tests.support.table_calls import (
    BY_NAME,
    MARK,
    ROWS,
    Row,
    StubApi,
    each_argument,
    each_routed_row,
    each_row,
    refusal,
    reply,
    sent,
    sent_body,
)

ID_RULE = "must be an id: 1 to 128 letters, digits, - or _, as an earlier answer gave it"
LONE = "\ud800" + MARK


def decoded(json_text: str) -> Any:
    """JSON decoded like the arguments of a message."""
    return sikkerkey_mcp.parse_json(json_text.encode("utf-8"))


def items_of(arg: sikkerkey_mcp.Arg) -> str:
    """How a refusal names the strings of `arg`."""
    return f"each item of {arg.name}" if arg.kind in ("strings", "ids") else arg.name


def put(arg: sikkerkey_mcp.Arg, text: str) -> Any:
    """`text` as the argument's value, or as one of its items."""
    return [text] if arg.kind in ("strings", "ids") else text


# Names


@each_row
@pytest.mark.peer(6)
def test_unknown_argument_is_refused_with_the_list_of_those_that_exist(row: Row) -> None:
    for name, shown in (("colour", "colour"), ("x2", "x2"), (f"{MARK}!", "(name not shown)"), ("", "(name not shown)")):
        message = refusal(row, {**row.minimal, name: MARK})
        assert message == f"unknown argument {shown} for {row.action.name}; {takes(row)}"


def takes(row: Row) -> str:
    names = [arg.name if arg.required else f"{arg.name}?" for arg in row.action.args]
    return f"it takes: {', '.join(names)}" if names else "it takes no arguments"


@each_argument()
def test_misspelt_argument_gets_a_suggestion(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    given = {name: value for name, value in row.base_for(arg.name).items() if name != arg.name}
    message = refusal(row, {**given, f"{arg.name}s": MARK})
    assert message.split("\nhint: ")[0] == f"unknown argument {arg.name}s for {row.action.name}; {takes(row)}"
    known = {f"did you mean {name}?" for name in [arg.name, *(other.name for other in row.action.args)]}
    assert message.split("\nhint: ")[1] in known


@each_row
def test_arguments_of_another_action_are_refused(row: Row) -> None:
    own = {arg.name for arg in row.action.args}
    foreign = {arg.name for action in row.tool.actions for arg in action.args} - own
    for name in foreign:
        assert refusal(row, {**row.minimal, name: MARK}).startswith(f"unknown argument {name} for {row.action.name}; ")


@each_routed_row
def test_wait_for_previous_is_accepted_and_not_sent(row: Row) -> None:
    for ignored in (True, False, None, "x"):
        assert sent(row, {**row.minimal, "wait_for_previous": ignored}) == sent(row, row.minimal)


@each_of("tool", sikkerkey_mcp.TOOLS[1:], ids=[tool.name for tool in sikkerkey_mcp.TOOLS[1:]])
def test_action_must_be_one_of_the_tools(tool: sikkerkey_mcp.Tool) -> None:
    row = Row(tool, tool.actions[0])
    listed = ", ".join(action.name for action in tool.actions)
    values: list[Any] = [MARK, "", 7, True, [tool.actions[0].name], {}, tool.actions[0].name + "\n", "LIST"]
    hint = tool.text
    for wrong in values:
        message, _, told = refusal(row, {**row.minimal, "action": wrong}).partition("\nhint: ")
        assert message == f"action must be one of: {listed}"
        meant = "list" if wrong == "LIST" else tool.actions[0].name
        assert told in (hint, f"did you mean {meant}?")
    for missing in ({}, {"action": None}):
        assert refusal(row, missing) == f"action is required and must be one of: {listed}\nhint: {hint}"


@each_of(
    ("tool", "action", "hint"),
    [
        ("manage_secrets", "lst", "did you mean list?"),
        ("manage_secrets", "dynamic_crate", "did you mean dynamic_create?"),
        ("manage_secrets", "purge", "that is an action of manage_trash"),
        ("manage_project_machines", "approve", "that is an action of manage_machines and manage_ai_agents"),
        ("manage_secrets", "get_value", "Secrets: metadata, new values, rotation. No action reads a value. "),
        ("manage_secrets", "read", "Secrets: metadata, new values, rotation. No action reads a value. "),
        ("manage_secrets", "l" * 10_000, "Secrets: metadata, new values"),
    ],
)
def test_wrong_action_gets_a_suggestion(tool: str, action: str, hint: str) -> None:
    result = sikkerkey_mcp.VaultTools(lambda: StubApi(reply())).call(tool, {"action": action}, sikkerkey_mcp.Context())
    assert result["content"][0]["text"].split("\nhint: ")[1].startswith(hint)


def test_whoami_takes_no_action() -> None:
    message = refusal(BY_NAME["whoami.whoami"], {"action": "whoami"}).partition("\n")[0]
    assert message == "unknown argument action for whoami; it takes: activity?"


@each_argument(where=lambda arg: arg.required)
@pytest.mark.peer(6)
def test_missing_required_argument_is_refused_by_name(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    given = {name: value for name, value in row.minimal.items() if name != arg.name}
    assert refusal(row, given) == f"{arg.name} is required for {row.action.name}; {takes(row)}"


def test_all_missing_arguments_are_named_together() -> None:
    row = BY_NAME["manage_secrets.create"]
    rule = "projectId and name are required for create"
    assert refusal(row, {"action": "create"}) == f"{rule}; {takes(row)}"
    row = BY_NAME["support.create"]
    assert refusal(row, {"action": "create"}).startswith(
        "categoryId, priority, title and body are required for create; "
    )


# Types

WRONG: dict[str, tuple[str, list[Any]]] = {
    "string": ("must be a string", [7, 1.5, True, False, [MARK], {MARK: MARK}, []]),
    "id": ("must be a string", [7, 1.5, True, False, [MARK], {MARK: MARK}, []]),
    "integer": ("must be an integer", [MARK, "", True, False, 5.7, 1e300, [5], {MARK: 5}]),
    "boolean": ("must be true or false", [MARK, "", 0, 1, 1.0, [True], {}]),
    "time": (sikkerkey_times.RULE, [MARK, "", True, False, 5.7, 1e300, -1, [5], {MARK: 5}]),
    "strings": ("must be an array of strings", [MARK, "", 7, True, {MARK: MARK}, {}]),
    "ids": ("must be an array of strings", [MARK, "", 7, True, {MARK: MARK}, {}]),
    "object": ("must be an object", [MARK, "", 7, True, [MARK], []]),
}


@each_argument()
@pytest.mark.peer(6)
def test_wrong_type_is_refused(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    rule, wrong = WRONG[arg.kind]
    for value in wrong:
        assert refusal(row, {**row.base_for(arg.name), arg.name: value}) == f"{arg.name} {rule}"


@each_argument("strings", "ids")
@pytest.mark.peer(6)
def test_item_that_is_no_string_is_refused(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    good = row.base_for(arg.name)
    for item in (None, 7, 1.5, True, [MARK], {MARK: MARK}):
        for items in ([item], [*good[arg.name], item]):
            assert refusal(row, {**good, arg.name: items}) == f"each item of {arg.name} must be a string"


@each_argument("boolean", where=lambda arg: not arg.local and arg.name not in ("preview", "generateRandom"))
def test_both_truth_values_are_sent_as_they_are(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for value in (True, False):
        assert sent_body(row, {**row.base_for(arg.name), arg.name: value})[arg.name] is value


# Integers, through real JSON


def bounds(arg: sikkerkey_mcp.Arg) -> tuple[int, int]:
    return (-sikkerkey_core.INTEGER_MAX if arg.least is None else arg.least), (
        sikkerkey_core.INTEGER_MAX if arg.most is None else arg.most
    )


@each_argument("integer")
def test_integer_out_of_range_is_refused_at_both_ends_with_the_range(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    low, high = bounds(arg)
    for wrong in (low - 1, high + 1, -(10**19), 10**19, 2**64):
        message = refusal(row, {**row.base_for(arg.name), arg.name: decoded(str(wrong))})
        assert message == f"{arg.name} must be between {low:,} and {high:,}"


@each_argument("integer", where=lambda arg: not arg.local)
def test_integer_at_either_end_of_its_range_is_sent_exactly(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for right in bounds(arg):
        body = sent_body(row, {**row.base_for(arg.name), arg.name: decoded(str(right))})
        assert (body[arg.name], type(body[arg.name])) == (right, int)


@each_argument("integer", where=lambda arg: not arg.local)
def test_whole_number_with_a_fraction_of_zero_is_that_integer(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    low, _high = bounds(arg)
    whole = max(low, 0) + 1 if low != 1 else 5
    for written in (f"{whole}.0", f"{whole}.00"):
        body = sent_body(row, {**row.base_for(arg.name), arg.name: decoded(written)})
        assert (body[arg.name], type(body[arg.name])) == (whole, int)


@each_argument("integer")
@pytest.mark.peer(7)
def test_number_that_is_not_whole_or_not_plain_is_refused(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for written in ("5.7", "1e19", "0.1", "1.10", f"{2**53 + 2}.0"):
        message = refusal(row, {**row.base_for(arg.name), arg.name: decoded(written)})
        assert message == f"{arg.name} must be an integer"


@each_argument("integer", where=lambda arg: arg.most is None and not arg.local)
@pytest.mark.peer(7)
def test_integer_beyond_a_floats_precision_keeps_every_digit(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for whole in (2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1):
        request = sent(row, {**row.base_for(arg.name), arg.name: decoded(f"{whole}")})
        assert f'"{arg.name}":{whole}'.encode() in (request.body or b"")


# Sizes and choices


def grown(arg: sikkerkey_mcp.Arg, size: int) -> Any:
    if arg.kind in ("strings", "ids"):
        return [arg.choices[0] if arg.choices else "a"] * size
    return "https://" + "a" * (size - 8) if arg.pattern and size > 8 else "ø" * size


@each_argument("string", "strings", "ids", where=lambda arg: arg.least is not None or arg.most is not None)
def test_size_is_bounded_at_both_ends_in_characters_or_items(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    base = row.base_for(arg.name)
    unit = "characters" if arg.kind == "string" else "items"
    for size in outside(arg):
        message = refusal(row, {**base, arg.name: grown(arg, size)})
        assert message == f"{arg.name} must have {span(arg)} {unit}"
    for size in {arg.least or 10, arg.most or 20}:
        assert sent_body(row, {**base, arg.name: grown(arg, size)})[arg.name] == grown(arg, size)


def outside(arg: sikkerkey_mcp.Arg) -> list[int]:
    below = [arg.least - 1] if arg.least else []
    return below + ([arg.most + 1] if arg.most else [])


def span(arg: sikkerkey_mcp.Arg) -> str:
    if arg.least is None:
        return f"at most {arg.most:,}"
    return f"at least {arg.least:,}" if arg.most is None else f"between {arg.least:,} and {arg.most:,}"


@each_argument(where=lambda arg: arg.most_bytes is not None)
def test_byte_limit_counts_utf8(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    base, most = row.minimal, arg.most_bytes or 0
    for filling in ("a", "ø", "€", "😀") if most < 20_000 else ("€",):
        width = len(filling.encode())
        longest = filling * (most // width) + "a" * (most % width)
        assert sent_body(row, {**base, arg.name: longest})[arg.name] == longest
        for longer in (longest + "a", MARK + longest):
            assert refusal(row, {**base, arg.name: longer}) == f"{arg.name} must be at most {most:,} bytes in UTF-8"


@each_argument(where=lambda arg: bool(arg.choices))
def test_value_outside_the_choices_is_refused_with_the_choices(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    base, choice = row.base_for(arg.name), arg.choices[0]
    for wrong in (MARK, "", choice.upper(), choice + "\n", " " + choice, choice + "\0"):
        message = refusal(row, {**base, arg.name: put(arg, wrong)})
        assert message == f"{items_of(arg)} must be one of: {', '.join(arg.choices)}"


@each_argument(where=lambda arg: bool(arg.choices))
def test_each_choice_is_sent(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for choice in arg.choices:
        request = sent(row, {**row.base_for(arg.name), arg.name: put(arg, choice)})
        assert choice in request.path + (request.body or b"").decode()


# Ids, patterns, Unicode

NO_IDS = [
    *("", ".", "..", "../x", "a/b", "/", "a\\b", "%2e", "%2e%2e", "%2F", "a%20b", "a b", " a", "a ", "a\tb"),
    *("a\n", "\na", "a\r", "a\0", "a\x1b[2J", "a\x7f", "a.b", "a?b", "a#b", "a;b", "a:b", "a@b", "{projectId}"),
    *("-a", "_a", "a" * 129, "١٢٣", "٥", "æ", "ａ", "аdmin", "a\u200b", "a\u202e", "😀", MARK + "/..", MARK + "\n"),
]


@each_argument("id", "ids")
@pytest.mark.peer(8)
def test_id_that_could_lead_elsewhere_is_refused(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    base = row.base_for(arg.name)
    for wrong in NO_IDS:
        assert refusal(row, {**base, arg.name: put(arg, wrong)}) == f"{items_of(arg)} {ID_RULE}"


@each_argument("id", "ids")
def test_id_of_1_to_128_letters_digits_hyphens_and_underscores_is_sent(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for right in ("a", "0", "a" * 128, "proj_a1-B2_", "a--__"):
        request = sent(row, {**row.base_for(arg.name), arg.name: put(arg, right)})
        in_path = arg.name in sikkerkey_mcp.path_parameters(row.action.path)
        assert right in (request.path.split("/") if in_path else (request.body or b"").decode())


@each_argument("string", "id", "strings", "ids")
def test_lone_surrogate_is_refused(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    message = refusal(row, {**row.base_for(arg.name), arg.name: put(arg, LONE)})
    assert message.startswith(f"{items_of(arg)} must ")


@each_argument("object")
def test_lone_surrogate_inside_an_object_is_refused(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for value in ({"a": LONE}, {LONE: "a"}, {"a": {"b": [LONE]}}):
        message = refusal(row, {**row.base_for(arg.name), arg.name: value})
        assert message == f"{arg.name} must be valid Unicode, without lone surrogates"


@each_argument("object")
def test_bottomless_object_is_refused(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    value: Any = MARK
    for _level in range(100_000):
        value = {"a": value}
    assert refusal(row, {**row.base_for(arg.name), arg.name: value}) == f"{arg.name} is nested too deeply"


AGAINST = {
    sikkerkey_mcp.HH_MM: [
        "",
        MARK,
        "24:00",
        "9:00",
        "09:60",
        "09:00\n",
        "\n09:00",
        "09:00:00",
        "0９:00",
        "1٢:30",
        "09.00",
    ],
    sikkerkey_mcp.EMAIL: ["", MARK, "a@", "@b", "a@b@c", "a b@c", "a@b\n", "a@b c", f"{MARK}@{MARK}\n", "a@b\u00a0"],
    sikkerkey_mcp.HTTP_URL: [
        "",
        MARK,
        "https://",
        "ftp://a",
        "https://a\n",
        "https://a b",
        "https://ø",
        "//a",
        "HTTPS://a",
    ],
}


@each_argument(where=lambda arg: bool(arg.pattern))
def test_string_against_its_pattern_is_refused_in_words(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for wrong in AGAINST[arg.pattern]:
        message = refusal(row, {**row.base_for(arg.name), arg.name: wrong})
        assert message == f"{arg.name} must be {sikkerkey_actions.FORMATS[arg.pattern]}"


@each_argument(where=lambda arg: arg.pattern == sikkerkey_mcp.HH_MM)
def test_every_hour_and_minute_is_a_time(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    for time in ("00:00", "09:59", "19:05", "20:00", "23:59"):
        assert sent_body(row, {**row.minimal, "timeWindowEnabled": True, arg.name: time})[arg.name] == time


# What is sent


def free(arg: sikkerkey_mcp.Arg) -> bool:
    return not (arg.least or arg.pattern or arg.choices or arg.local)


@each_argument("string", where=free)
@pytest.mark.peer(10)
def test_empty_string_is_sent(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    base = row.minimal if arg.name == "value" else row.base_for(arg.name)
    assert sent_body(row, {**base, arg.name: ""})[arg.name] == ""


@each_argument("strings", "ids", where=lambda arg: not arg.least)
@pytest.mark.peer(10)
def test_empty_list_is_sent(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    assert sent_body(row, {**row.base_for(arg.name), arg.name: []})[arg.name] == []


@each_argument("string", where=lambda arg: free(arg) or (arg.name == "name" and not arg.local))
def test_characters_are_sent_as_they_are(row: Row, arg: sikkerkey_mcp.Arg) -> None:
    text = "<a href='x'>&\"\\\n\t\u2028 søger 😀 \u202e\0"
    base = row.minimal if arg.name == "value" else row.base_for(arg.name)
    body = sent(row, {**base, arg.name: text}).body or b""
    assert json.loads(body)[arg.name] == text
    assert b"<a href='x'>&" in body
    assert "\u2028 søger 😀 \u202e".encode() in body


SENT_TIMES = {
    "2026-01-01T00:00:00Z": 1_767_225_600_000,
    "2026-01-02": 1_767_312_000_000,
    "2026-01-02T00:00:00.000Z": 1_767_312_000_000,
}


def as_sent(arg: sikkerkey_mcp.Arg, value: Any) -> Any:
    """An example's value as the vault gets it."""
    if arg.kind == "time":
        return SENT_TIMES[value]
    return json.loads(value) if arg.kind == "object" else value


@each_routed_row
def test_arguments_are_sent_in_the_path_or_the_body_and_nothing_else_is(row: Row) -> None:
    for given in row.examples.values():
        if row.action.body is None and not (row.action.vault_pages and "offset" in given):
            request = sent(row, given)
            in_path = sikkerkey_mcp.path_parameters(row.action.path)
            args = [arg for arg in row.action.args if not arg.local]
            in_body = [arg for arg in args if arg.name in given and arg.name not in in_path]
            takes_body = any(arg.name not in in_path for arg in args)
            body = json.loads(request.body) if request.body is not None else None
            assert body == ({arg.name: as_sent(arg, given[arg.name]) for arg in in_body} if takes_body else None)
            assert request.path == row.action.path.format(**given)


@each_routed_row
def test_order_of_the_arguments_does_not_matter(row: Row) -> None:
    for given in row.examples.values():
        assert sent(row, dict(reversed(given.items()))) == sent(row, given)


@each_routed_row
def test_get_has_no_body(row: Row) -> None:
    for given in row.examples.values():
        assert row.action.method == "POST" or sent(row, given).body is None


# Rows whose arguments depend on each other

PROJECT = {"projectId": "proj_1"}
PREVIEWED = [BY_NAME["manage_projects.delete"], BY_NAME["manage_machines.revoke"]]
each_previewed = pytest.mark.parametrize("row", PREVIEWED, ids=str)


def test_two_actions_have_a_preview() -> None:
    assert [row for row in ROWS if any(arg.name == "preview" for arg in row.action.args)] == PREVIEWED


@each_previewed
def test_preview_sends_the_preview_and_nothing_else(row: Row) -> None:
    expected = b'{"preview":true}'
    assert sent(row, row.examples["preview"]).body == expected
    assert sent(row, {**row.examples["full"], "preview": True}).body == expected


@each_previewed
@pytest.mark.peer(6)
def test_preview_of_a_wrong_type_is_refused(row: Row) -> None:
    values: list[Any] = ["True", "1", "null", '"true"', "", 1, 0, 1.0, [], [True], {}, MARK]
    for wrong in values:
        assert refusal(row, {**row.examples["full"], "preview": wrong}) == "preview must be true or false"


def test_project_is_deleted_by_its_name() -> None:
    row = BY_NAME["manage_projects.delete"]
    given = {"action": "delete", **PROJECT}
    assert sent_body(row, {**given, "confirmName": "a"}) == {"confirmName": "a"}
    assert sent_body(row, {**given, "confirmName": "a", "preview": False}) == {"confirmName": "a"}
    for missing in (given, {**given, "preview": False}):
        assert refusal(row, missing) == "confirmName is required unless preview is true"


def test_machine_is_revoked_without_a_body() -> None:
    row = BY_NAME["manage_machines.revoke"]
    assert sent_body(row, row.minimal) is None
    assert sent_body(row, {**row.minimal, "preview": False}) is None


def test_note_that_is_left_out_is_cleared() -> None:
    row = BY_NAME["manage_secrets.update_note"]
    given = {"action": "update_note", **PROJECT, "secretId": "sk_1"}
    assert sent_body(row, given) == {"note": ""}
    assert sent_body(row, {**given, "note": "n"}) == {"note": "n"}


def test_newest_audit_entries_are_asked_for_by_direction() -> None:
    row = BY_NAME["read_audit.list"]
    assert sent_body(row, {"action": "list"}) == {"sortDir": "desc"}
    assert sent_body(row, {"action": "list", "page": 2}) == {"page": 2, "sortDir": "desc"}
    assert refusal(row, {"action": "list", "sortDir": MARK}).startswith("unknown argument sortDir for list; ")


def test_new_secret_carries_its_project_in_path_and_body() -> None:
    given = {**PROJECT, "name": "n", "value": "v"}
    request = sent(BY_NAME["manage_secrets.create"], {"action": "create", **given})
    assert request.path == "/v1/ai/projects/proj_1/secrets"
    assert json.loads(request.body or b"") == given


FITTING = '{"user":"a","password":"b"}'


@each_of("value", ["", MARK, "[]", "{}", '{"user":1}', FITTING[:-1] + f',"x":"{MARK}"}}', FITTING[:-1], "[" * 900])
def test_structured_value_must_have_the_named_fields(value: str) -> None:
    given = {"action": "create", **PROJECT, "name": "n", "value": value, "fieldNames": ["user", "password"]}
    message = refusal(BY_NAME["manage_secrets.create"], given)
    assert message == "value must be a JSON object in a string, with exactly the keys that fieldNames lists"


def test_structured_value_with_the_named_fields_is_sent_verbatim() -> None:
    value = ' {"password": "b", "user":"a"}\n'
    given = {**PROJECT, "name": "n", "value": value, "fieldNames": ["user", "password"]}
    assert sent_body(BY_NAME["manage_secrets.create"], {"action": "create", **given}) == given


def test_new_policy_says_whether_each_axis_counts() -> None:
    row = BY_NAME["manage_policies.create"]
    for switch, limits in sikkerkey_rules.AXIS_SWITCHES.items():
        for limit in limits:
            given = {**row.minimal, limit: row.base_for(limit)[limit]}
            assert refusal(row, given) == (
                f"{limit} limits nothing without {switch}\n"
                f"hint: set {switch} to true; false keeps {limit} without effect"
            )
            for enabled in (True, False):
                assert sent_body(row, {**given, switch: enabled})[switch] is enabled
    update = BY_NAME["manage_policies.update"]  # there the axis may be enabled already
    given = {**update.minimal, "ipAllowlistCidrs": ["10.0.0.0/8"]}
    assert sent_body(update, given)["ipAllowlistCidrs"] == ["10.0.0.0/8"]


def test_schedule_for_an_existing_secret_names_it_as_secret_id() -> None:
    given = {"action": "dynamic_create", "existingSecretId": "sk_1", "intervalSeconds": 300}
    assert sent_body(BY_NAME["manage_secrets.dynamic_create"], given) == {"secretId": "sk_1", "intervalSeconds": 300}


def test_schedule_has_exactly_one_target() -> None:
    row = BY_NAME["manage_secrets.dynamic_create"]
    given = {"action": "dynamic_create", "intervalSeconds": 300}
    neither = "either existingSecretId or both projectId and name are required"
    for half in ({}, PROJECT, {"name": "n"}):
        assert refusal(row, {**given, **half}) == neither
    for name, value in {**PROJECT, "name": "n"}.items():
        message = refusal(row, {**given, "existingSecretId": "sk_1", name: value})
        assert message == f"{name} cannot be combined with existingSecretId"


ONCE = {"action": "create", **PROJECT, "name": "n", "expiresInSeconds": 60}
ONE_TIME = BY_NAME["manage_temporary_secrets.create"]


def test_one_time_secret_with_a_value_has_no_generator_options() -> None:
    expected = {"name": "n", "value": "v", "expiresInSeconds": 60}
    assert sent_body(ONE_TIME, {**ONCE, "value": "v"}) == expected
    assert sent_body(ONE_TIME, {**ONCE, "value": "v", "generateRandom": False}) == expected


def test_generated_one_time_secret_carries_no_value() -> None:
    given = {"generateRandom": True, "length": 12, "charset": "numbers"}
    assert sent_body(ONE_TIME, {**ONCE, **given}) == {"name": "n", **given, "expiresInSeconds": 60}


def test_one_time_secret_is_either_given_or_generated() -> None:
    missing = f"value is required unless fromPerson or generateRandom is true\nhint: {sikkerkey_rules.PREFER_PERSON}"
    assert refusal(ONE_TIME, ONCE) == missing
    assert refusal(ONE_TIME, {**ONCE, "generateRandom": False, "length": 5}) == missing
    both = refusal(ONE_TIME, {**ONCE, "value": MARK, "generateRandom": True})
    assert both == "value cannot be combined with generateRandom true"
    for name, value in {"length": 5, "charset": "uuid"}.items():
        assert refusal(ONE_TIME, {**ONCE, "value": MARK, name: value}) == f"{name} requires generateRandom true"


# A real process


def test_marked_values_are_in_no_stream_of_a_process_that_refuses_them(server: Server, recorder: Recorder) -> None:
    server.request("logging/setLevel", level="debug")
    for row in ROWS:
        for arg in row.action.args:
            for wrong in (MARK + "/..", [MARK, None], {MARK: MARK}):
                if arg.kind in ("string", "object") and not isinstance(wrong, list):
                    continue
                result = server.call(row.tool.name, **{**row.base_for(arg.name), arg.name: wrong})
                assert result["isError"], (str(row), arg.name)
        assert server.call(row.tool.name, **row.minimal, colour=MARK)["isError"]
    assert recorder.seen == []
    assert server.close() == 0
    server.end()
    assert MARK not in server.stderr.decode() + b"".join(server.lines).decode()


def test_digits_arrive_at_the_vault_as_they_were_written(server: Server, recorder: Recorder) -> None:
    written = {"9007199254740993": 2**53 + 1, "5.00": 5, "5.0": 5, '"9007199254740993"': 2**53 + 1}
    for number, (text, whole) in enumerate(written.items(), start=1_000):
        arguments = f'{{"action":"rollback","projectId":"proj_1","secretId":"sk_1","version":{text}}}'
        params = f'{{"name":"manage_secrets","arguments":{arguments}}}'
        server.send_bytes(f'{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{params}}}\n'.encode())
        assert "isError" not in server.reply(number)["result"]
        assert recorder.seen[-1].body == f'{{"version":{whole}}}'.encode()
    for number, text in enumerate(
        ("1e19", "9007199254740994.0", "9223372036854775808", "5.7", "true", '"5.7"'), start=2_000
    ):
        arguments = f'{{"action":"rollback","projectId":"proj_1","secretId":"sk_1","version":{text}}}'
        params = f'{{"name":"manage_secrets","arguments":{arguments}}}'
        server.send_bytes(f'{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{params}}}\n'.encode())
        assert server.reply(number)["result"]["isError"]
    assert len(recorder.seen) == len(written)
