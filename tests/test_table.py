"""The dispatch table: against the contract's facts, against planted mistakes, and as `tools/list` shows it."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

import sikkerkey_actions
import sikkerkey_core
import sikkerkey_mcp
from tests.support.rows import each_of
from tests.support.table_calls import BY_NAME, ROWS, Row, each_row, for_each
from tests.support.table_checks import complaints

LISTING_MAX_BYTES = 29_000
NOW_MS = 1_767_225_600_000
CONTRACT: list[sikkerkey_mcp.JsonObject] = json.loads(
    (Path(__file__).parent / "contract.json").read_text(encoding="utf-8")
)
PATTERNS = {
    "HH:mm": sikkerkey_mcp.HH_MM,
    "email": sikkerkey_mcp.EMAIL,
    "https URL": sikkerkey_mcp.HTTP_URL,
}  # of formats that the program checks


# The contract's facts


def facts(row: Row) -> sikkerkey_mcp.JsonObject:
    """A row of the table, worded as the contract words it. An action of this program's own has no route."""
    action = row.action
    route = {"method": action.method, "path": action.path, "scope": action.scope}
    return {
        "tool": row.tool.name,
        "action": action.name,
        **({"own": True} if action.own else route),
        "required": sorted(arg.name for arg in action.args if arg.required),
        "args": {arg.name: arg_facts(arg) for arg in action.args if not arg.local},
        "effect": action.effect,
        "inferred": action.inferred,
    }


SENT_AS = {"time": "integer", "object": "object"}  # the types that the vault takes, where clients are offered strings


def arg_facts(arg: sikkerkey_mcp.Arg) -> sikkerkey_mcp.JsonObject:
    schema = sikkerkey_actions.arg_schema(arg)
    schema["type"] = SENT_AS.get(arg.kind, schema["type"])
    description = schema.pop("description", "")
    if arg.most_bytes is not None:
        assert description == f"{arg.text} At most {arg.most_bytes:,} bytes in UTF-8.", arg
        schema["maxBytes"] = arg.most_bytes
    return {**schema, "plaintext": True} if arg.plaintext else schema


def as_checked(row: sikkerkey_mcp.JsonObject) -> sikkerkey_mcp.JsonObject:
    """A row of the contract with its formats as the patterns that this program checks, if it does."""
    args = {name: dict(arg) for name, arg in row["args"].items()}
    for arg in args.values():
        pattern = PATTERNS.get(arg.pop("format", ""))
        if pattern:
            arg["pattern"] = pattern
    return {**row, "args": args, "required": sorted(row["required"])}


def test_table_and_contract_have_the_same_rows_and_the_same_facts() -> None:
    ours = {str(row): facts(row) for row in ROWS}
    contract = {f"{row['tool']}.{row['action']}": as_checked(row) for row in CONTRACT}
    assert set(ours) - set(contract) == set(), "add a line for each to tests/contract.json"
    assert ours == contract


def test_every_id_is_checked_as_an_id_and_nothing_else_is() -> None:
    wrong = [
        f"{row}.{arg.name} is a {arg.kind}"
        for row in ROWS
        for arg in row.action.args
        if not arg.choices and (arg.kind in ("id", "ids")) is not bool(re.search("(Id|Ids)$", arg.name))
    ]
    assert wrong == []


def test_three_actions_mint_a_credential() -> None:
    minting = [str(row) for row in ROWS if row.action.mints]
    assert minting == ["manage_temporary_secrets.create", "manage_enrollment.create", "manage_webhooks.create"]


def test_one_answer_is_csv_and_one_a_file() -> None:
    special = {str(row): row.action.answer for row in ROWS if row.action.answer != "json"}
    assert special == {"read_audit.export": "csv", "support.attachment": "file"}


def test_inferred_rows_are_manage_team_and_project_permissions() -> None:
    inferred = {str(row) for row in ROWS if row.action.inferred}
    team = {str(row) for row in ROWS if row.tool.name == "manage_team"}
    assert inferred == team | {"manage_projects.permissions"}


def test_tools_that_talk_to_people_or_to_other_servers_are_marked_as_open_world() -> None:
    marked = [
        tool.name for tool in sikkerkey_mcp.TOOLS if sikkerkey_mcp.tool_listing(tool)["annotations"]["openWorldHint"]
    ]
    assert marked == ["manage_temporary_secrets", "manage_team", "manage_webhooks", "support"]


def test_every_tool_that_changes_something_is_destructive_or_open_world() -> None:
    # Codex runs other tools without asking the user, even if they are not read-only.
    for tool in (*sikkerkey_mcp.TOOLS, *sikkerkey_mcp.split_reads(sikkerkey_mcp.TOOLS)):
        hints = sikkerkey_mcp.tool_listing(tool)["annotations"]
        assert hints["readOnlyHint"] or hints["destructiveHint"] or hints["openWorldHint"], tool.name


# Complaints

ID = sikkerkey_mcp.Arg("projectId", "id", "Project id.")
TEXT = sikkerkey_mcp.Arg("name", "string", "Name.")
LOOK = sikkerkey_actions.Look((), lambda _given, _ask: None)
FINE = sikkerkey_mcp.write("make", "POST /things/{projectId}", "things.write", "Make one.", ID, TEXT)


def having(arg: sikkerkey_mcp.Arg) -> sikkerkey_mcp.Action:
    return FINE._replace(args=(ID, arg))


PLANTED: dict[str, list[sikkerkey_mcp.Action]] = {
    "t: make twice": [FINE, FINE],
    "t: 'Make one' is not a sentence": [FINE._replace(text="Make one")],
    "t: 'Name' is not a sentence": [having(TEXT._replace(text="Name"))],
    "t: 'Name.\\nMore.' is not a sentence": [having(TEXT._replace(text="Name.\nMore."))],
    "t: '' is not a sentence": [FINE._replace(text="")],
    "t.make: parameter projectId is not a required argument": [FINE._replace(args=(TEXT,))],
    "t.make: parameter otherId is not a required argument": [FINE._replace(path="/v1/ai/things/{projectId}/{otherId}")],
    "t.make: parameter name could hold a slash": [FINE._replace(path="/v1/ai/things/{projectId}/{name}")],
    "t.make: argument name twice": [FINE._replace(args=(ID, TEXT, TEXT))],
    "t.make: a GET that writes": [FINE._replace(method="GET", args=(ID,))],
    "t.make: a GET with a body": [FINE._replace(method="GET", effect="read")],
    "t.make: writes without a scope": [FINE._replace(scope=None)],
    "t.make: an argument with a reserved name": [having(TEXT._replace(name="action"))],
    "t.make: name has a rule that its kind does not know": [having(TEXT._replace(kind="integer", choices=("1",)))],
    "t.make: name has a bound that its kind does not know": [having(TEXT._replace(kind="boolean", most=1))],
    "t.make: name accepts no value": [having(TEXT._replace(least=2, most=1))],
    "t.make: only a write with a JSON answer looks first": [FINE._replace(effect="read", look=LOOK)],
    "t.make: name's pattern has no words for messages": [having(TEXT._replace(pattern="^a$"))],
    "t.make: name's pattern is not anchored, as it is checked": [having(TEXT._replace(pattern="^a"))],
    "t.other: name differs from an earlier row's": [FINE, having(TEXT._replace(most=9))._replace(name="other")],
}


def test_table_has_no_mistakes() -> None:
    assert complaints(sikkerkey_mcp.TOOLS) == []


def test_correct_table_has_no_complaints() -> None:
    other = having(sikkerkey_mcp.optional(TEXT))._replace(name="other")
    assert complaints([sikkerkey_mcp.Tool("t", "T", "Things.", (FINE, other))]) == []


@each_of(("complaint", "actions"), PLANTED.items(), ids=list(PLANTED))
def test_planted_mistake_is_the_only_complaint(complaint: str, actions: list[sikkerkey_mcp.Action]) -> None:
    assert complaints([sikkerkey_mcp.Tool("t", "T", "Things.", tuple(actions))]) == [complaint]


def test_optional_argument_in_a_path_is_a_mistake() -> None:
    row = FINE._replace(args=(sikkerkey_mcp.optional(ID), TEXT))
    assert complaints([sikkerkey_mcp.Tool("t", "T", "Things.", (row,))]) == [
        "t.make: parameter projectId is not a required argument"
    ]


def test_body_function_of_a_get_is_a_mistake() -> None:
    row = FINE._replace(method="GET", effect="read", args=(ID,), body=dict)
    assert complaints([sikkerkey_mcp.Tool("t", "T", "Things.", (row,))]) == ["t.make: a GET with a body"]


def test_two_tools_of_one_name_are_a_mistake() -> None:
    tool = sikkerkey_mcp.Tool("t", "T", "Things.", (FINE,))
    assert complaints([tool, tool]) == ["t: tool twice"]


# tools/list

LISTING = [sikkerkey_mcp.tool_listing(tool) for tool in sikkerkey_mcp.TOOLS]
each_listed = pytest.mark.parametrize("listed", LISTING, ids=[listed["name"] for listed in LISTING])


def texts(listed: sikkerkey_mcp.JsonObject) -> dict[str, str]:
    properties = listed["inputSchema"]["properties"]
    found = {name: schema["description"] for name, schema in properties.items() if "description" in schema}
    return {"": listed["description"], **found}


def keys_of_schemas(schema: sikkerkey_mcp.JsonObject) -> set[str]:
    found = set(schema)
    for inner in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
        found |= keys_of_schemas(inner)
    return found


def objects_without_properties(schema: sikkerkey_mcp.JsonObject, where: str) -> list[str]:
    """Where a schema has an object without properties: Google's API refuses the whole listing for one."""
    inner = schema.get("properties", {}).items()
    found = [where] if schema.get("type") == "object" and not inner else []
    for name, each in [*inner, *([("items", schema["items"])] if "items" in schema else [])]:
        found += objects_without_properties(each, f"{where}.{name}")
    return found


def test_no_schema_holds_an_object_without_properties() -> None:
    found = [where for listed in LISTING for where in objects_without_properties(listed["inputSchema"], listed["name"])]
    assert found == []
    deep = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {}}}}}
    assert objects_without_properties(deep, "t") == ["t.a.items"]


def test_whole_listing_stays_under_its_bound() -> None:
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"tools": LISTING}}
    assert len(sikkerkey_mcp.to_json(answer).encode()) <= LISTING_MAX_BYTES


@each_row
def test_argument_is_described_unless_its_name_says_the_same(row: Row) -> None:
    properties = sikkerkey_actions.tool_schema(row.tool)["properties"]
    for arg in row.action.args:
        repeated = sikkerkey_actions.text_from_name(arg.name)
        assert properties[arg.name].get("description", repeated).startswith(arg.text)


def test_text_that_a_name_says_is_its_words() -> None:
    assert sikkerkey_actions.text_from_name("projectId") == "Project id."
    assert sikkerkey_actions.text_from_name("name") == "Name."


ACTION_LINE = re.compile(r"(\w+)\(([^()]*)\): (.+)")


def described(listed: sikkerkey_mcp.JsonObject) -> dict[str, tuple[list[str], str]]:
    """Each action in a tool's description, with its arguments and its text."""
    found = {}
    for line in listed["description"].split("\n")[1:]:
        match = ACTION_LINE.fullmatch(line)
        assert match, line
        found[match[1]] = (match[2].split(", "), match[3])
    return found


@each_listed
def test_description_has_a_line_for_each_action_and_for_nothing_else(listed: sikkerkey_mcp.JsonObject) -> None:
    actions = listed["inputSchema"]["properties"].get("action", {}).get("enum", [])
    assert sorted(described(listed)) == sorted(actions)


@each_listed
def test_no_two_actions_of_a_tool_have_the_same_text(listed: sikkerkey_mcp.JsonObject) -> None:
    said = [text for _, text in described(listed).values() if text]
    assert [text for text in said if said.count(text) > 1] == []


@each_row
def test_actions_with_a_preview_recommend_it(row: Row) -> None:
    if any(arg.name == "preview" for arg in row.action.args):
        assert "preview true first" in row.action.text


def test_descriptions_say_that_values_cannot_be_read_back() -> None:
    descriptions = {listed["name"]: texts(listed) for listed in LISTING}
    assert "No action reads a value" in descriptions["manage_secrets"][""]
    assert "no answer shows it" in descriptions["manage_secrets"]["value"]
    assert "never their content" in descriptions["manage_temporary_secrets"][""]


def test_descriptions_say_what_decides_between_actions() -> None:
    said = {
        "manage_secrets.rotate": ("replaces the vault's copy only", "A structured secret needs fields"),
        "manage_secrets.dynamic_create": ("replaces the vault's copy only", "needs fields"),
        "manage_secrets.create": ("Refused if the project has a secret of that name", "update_value"),
        "manage_secrets.list": ("including canaries", "updatedAt also changes", "versions"),
        "manage_canaries.create": ("until a machine has a grant", "exports all its secrets"),
        "manage_project_machines.grants_set": ("call grants_get first", "names canaries"),
        "manage_team.permissions_set": ("no read-only member",),
        "manage_temporary_secrets.create": ("cannot share a stored secret",),
    }
    missing = [(name, part) for name, parts in said.items() for part in parts if part not in BY_NAME[name].action.text]
    assert missing == []
    assert "cannot move to another project" in BY_NAME["manage_secrets.get"].tool.text


@each_listed
def test_descriptions_are_printable_ascii(listed: sikkerkey_mcp.JsonObject) -> None:
    assert all(re.fullmatch(r"[ -~\n]+", text) for text in [*texts(listed).values(), listed["title"]])


@each_listed
def test_listed_tool_has_a_title_and_all_three_hints(listed: sikkerkey_mcp.JsonObject) -> None:
    assert listed["title"].strip()
    assert list(listed["annotations"].items()) == [
        (name, bool(listed["annotations"][name])) for name in ("readOnlyHint", "destructiveHint", "openWorldHint")
    ]


@each_row
def test_hints_of_a_tool_hold_for_each_of_its_actions(row: Row) -> None:
    hints = sikkerkey_mcp.tool_listing(row.tool)["annotations"]
    assert not (hints["readOnlyHint"] and row.action.effect != "read")
    assert not (row.action.effect == "destructive" and not hints["destructiveHint"])


@each_listed
def test_schema_is_flat_and_valid_json_schema(listed: sikkerkey_mcp.JsonObject) -> None:
    schema = listed["inputSchema"]
    Draft202012Validator.check_schema(schema)
    known = {"type", "properties", "required", "description", "enum", "pattern", "items"}
    bounds = {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"}
    assert keys_of_schemas(schema) <= known | bounds
    assert schema["type"] == "object"


@each_row
@pytest.mark.peer(16)
def test_description_shows_required_and_optional_arguments(row: Row) -> None:
    if not sikkerkey_mcp.has_actions(row.tool):
        return
    names, text = described(sikkerkey_mcp.tool_listing(row.tool))[row.action.name]
    sent = [arg for arg in row.action.args if not arg.local]
    needed = {arg.name for arg in sent if arg.required}
    possible = {f"{arg.name}?" for arg in sent if not arg.required}
    shown = {name for name in names if name}
    rest = {"..."} if len(sent) < len(row.action.args) else set()
    assert shown == needed | possible | rest or (possible and shown == needed | {"..."})
    assert text == row.action.text


# Schemas and the program: what the program takes, the schema takes.


def values(arg: sikkerkey_mcp.Arg) -> st.SearchStrategy[Any]:
    """Values that `arg` accepts."""
    if arg.kind == "boolean":
        return st.booleans()
    if arg.kind == "integer":
        low, high = (
            arg.least if arg.least is not None else -sikkerkey_core.INTEGER_MAX,
            arg.most or sikkerkey_core.INTEGER_MAX,
        )
        whole = st.integers(low, high)
        return st.one_of(whole, st.integers(max(low, -(2**40)), min(high, 2**40)).map(float))
    if arg.kind == "time":
        return st.one_of(st.integers(-(10**6), 10**6).map("{:+}h".format), st.datetimes().map(datetime.isoformat))
    if arg.kind == "object":
        members = st.one_of(st.text(max_size=9), st.integers(), st.none())
        return st.dictionaries(st.text(max_size=9), members, max_size=3).map(json.dumps)
    if arg.kind in ("strings", "ids"):
        return st.lists(strings(arg), min_size=arg.least or 0, max_size=4)
    low, high = arg.least or 0, min(arg.most or 30, 300)
    return strings(arg).filter(lambda text: low <= len(text) <= high)


def strings(arg: sikkerkey_mcp.Arg) -> st.SearchStrategy[str]:
    if arg.choices:
        return st.sampled_from(arg.choices)
    if arg.kind in ("id", "ids"):
        return st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
    if arg.pattern:
        return st.from_regex(arg.pattern.strip("^$"), fullmatch=True).filter(lambda text: len(text) <= 30)
    return st.text(min_size=arg.least or 0 if arg.kind == "string" else 0, max_size=30)


def arguments(row: Row) -> st.SearchStrategy[sikkerkey_mcp.JsonObject]:
    """Arguments that `row` accepts: one of its examples, with other values where no rule ties them together."""
    tied = (
        {"value", "fieldNames", "preview", "generateRandom", "fromPerson", "from", "to"}
        if row.action.rule
        else {"preview"}
    )
    free = {arg.name: values(arg) for arg in row.action.args if arg.name not in tied}
    return st.one_of(*(_like(example, free) for example in row.examples.values()))


def _like(
    example: sikkerkey_mcp.JsonObject, free: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[sikkerkey_mcp.JsonObject]:
    return st.fixed_dictionaries({name: free.get(name, st.just(value)) for name, value in example.items()})


@for_each(sikkerkey_mcp.TOOLS)
def test_schema_accepts_what_the_program_accepts(tool: sikkerkey_mcp.Tool) -> None:
    """Arguments of all rows of a tool make one example: generating them row by row takes five times as long."""
    validator = Draft202012Validator(sikkerkey_actions.tool_schema(tool))
    rows = [Row(tool, action) for action in tool.actions]

    @settings(max_examples=3)
    @given(st.tuples(*map(arguments, rows)))
    def agree(given_arguments: tuple[sikkerkey_mcp.JsonObject, ...]) -> None:
        for row, given_one in zip(rows, given_arguments):
            action = sikkerkey_mcp.find_action(tool, given_one)
            assert action is row.action
            sikkerkey_mcp.check_arguments(tool, action, given_one, NOW_MS)
            assert [error.message for error in validator.iter_errors(given_one)] == [], row

    agree()


@each_row
def test_schema_accepts_every_example(row: Row) -> None:
    validator = Draft202012Validator(sikkerkey_actions.tool_schema(row.tool))
    assert [list(validator.iter_errors(example)) for example in row.examples.values()] == [[] for _ in row.examples]


def test_schema_refuses_what_no_action_takes() -> None:
    validator = Draft202012Validator(sikkerkey_actions.tool_schema(BY_NAME["manage_secrets.rotate"].tool))
    assert not validator.is_valid({"action": "rotate", "length": 1_025})
    assert not validator.is_valid({"action": "rotate", "charset": "emoji"})
    assert not validator.is_valid({"action": "read"})
    assert not validator.is_valid({})
