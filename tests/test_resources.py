"""Resources: the answers of tools by URI, and completion of the ids in their templates."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_mcp
import sikkerkey_results
from sikkerkey_mcp import IDS_CACHED_S, RESOURCES, Restriction, VaultResources
from sikkerkey_results import WITHHELD
from tests.support.harness import ARCHIVE_COMMAND, CannedResponse, ReceivedRequest, Recorder, Server, make_slot
from tests.support.in_process_client import VERSIONS, InProcessClient, opening, refusal, request
from tests.support.in_process_client import reply as answered
from tests.support.local_vault import LocalVault, install
from tests.support.rows import each_of
from tests.support.schema_check import CheckedServer, conforms
from tests.support.table_calls import BY_NAME, StubApi, reply

TEMPLATE = "sikkerkey://projects/{id}/secrets"
SECRETS = "sikkerkey://projects/proj_a1b2c3d4e5/secrets"
URIS = {
    "sikkerkey://whoami": ("whoami", {}),
    "sikkerkey://projects": ("manage_projects", {"action": "list"}),
    "sikkerkey://audit/recent": ("read_audit", {"action": "list"}),
    SECRETS: ("manage_secrets", {"action": "list", "projectId": "proj_a1b2c3d4e5"}),
}
each_uri = pytest.mark.parametrize(("uri", "called"), URIS.items(), ids=list(URIS))


def without(*names: str) -> list[Restriction]:
    return [Restriction("--exclude", "--exclude", names)]


def client_of(answer: sikkerkey_mcp.Answer, switches: Any = ()) -> tuple[InProcessClient, StubApi]:
    """A client of the real tools, whose vault always gives the same answer."""
    api = StubApi(answer)
    return InProcessClient(tools=sikkerkey_mcp.VaultTools(lambda: api, switches)), api


def not_found(uri: str, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": -32002, "message": message, "data": {"uri": uri}}}


# lists


def test_resources_are_listed_with_their_types() -> None:
    client, api = client_of(reply())
    result = client.send(request("resources/list"))["result"]
    conforms(result, "ListResourcesResult")
    assert [(resource["uri"], resource["mimeType"]) for resource in result["resources"]] == [
        ("sikkerkey://whoami", "application/json"),
        ("sikkerkey://projects", "application/json"),
        ("sikkerkey://audit/recent", "application/json"),
    ]
    assert all(resource["title"] and resource["description"] for resource in result["resources"])
    assert api.sent == []


def test_the_template_is_listed_apart() -> None:
    client, _ = client_of(reply())
    result = client.send(request("resources/templates/list"))["result"]
    conforms(result, "ListResourceTemplatesResult")
    [template] = result["resourceTemplates"]
    assert (template["uriTemplate"], template["mimeType"]) == (TEMPLATE, "application/json")


def test_every_resource_is_a_read_of_the_table_that_makes_no_credential() -> None:
    actions = [BY_NAME[f"{resource.tool}.{resource.action}"].action for resource in RESOURCES]
    assert [action.name for action in actions if action.effect != "read" or action.mints] == []


@each_of("version", VERSIONS)
def test_the_vaults_registry_declares_resources_prompts_and_completion(version: str) -> None:
    declared = InProcessClient("", sikkerkey_mcp.VaultTools(lambda: StubApi(reply()))).send(opening(version))["result"][
        "capabilities"
    ]
    kinds = ["logging", "tools", "resources", "prompts"] + (["completions"] if version != "2024-11-05" else [])
    assert declared == {kind: {} for kind in kinds}


def test_declared_capabilities_match_the_library() -> None:
    tools = sikkerkey_mcp.VaultTools(lambda: StubApi(reply()))
    assert tools.capabilities == ("tools", *tools.resources.capabilities)


# reading


@each_uri
def test_a_resource_is_what_its_tool_answers(uri: str, called: tuple[str, Any]) -> None:
    body = '[{"name":"søger <1>","size":12345678901234567890,"note":"a\\u2028b"}]'.encode()
    api = StubApi(reply(body=body))
    client = InProcessClient(tools=sikkerkey_mcp.VaultTools(lambda: api, now_s=lambda: 1_767_225_600.0))
    result = client.send(request("resources/read", uri=uri))["result"]
    conforms(result, "ReadResourceResult")
    tool, arguments = called
    same = client.send(request("tools/call", name=tool, arguments=arguments))["result"]
    assert result == {"contents": [{"uri": uri, "mimeType": "application/json", "text": same["content"][0]["text"]}]}
    assert api.sent[0] == api.sent[1]


@each_uri
def test_a_long_resource_names_the_tool_that_goes_on(uri: str, called: tuple[str, Any]) -> None:
    tool, arguments = called
    if tool == "whoami":
        return
    rows = [{"id": f"sk_{number}", "name": "n" * 150} for number in range(200)]
    client, _ = client_of(reply(body=json.dumps({"entries": rows} if tool == "read_audit" else rows).encode()))
    text = client.send(request("resources/read", uri=uri))["result"]["contents"][0]["text"]
    shown = json.loads(text)
    assert shown["next"] == {**arguments, "offset": shown["returned"]}
    assert shown["hint"].endswith(f"rows are shown; for more, call {tool}.list with the arguments of `next`")
    assert len(text) <= sikkerkey_results.RESULT_CHARACTERS


def test_a_value_that_the_vault_should_not_send_is_withheld_here_too() -> None:
    client, _ = client_of(reply(body=b'[{"id":"sk_1","value":"canary-value"}]'))
    text = client.send(request("resources/read", uri=SECRETS))["result"]["contents"][0]["text"]
    assert json.loads(text) == {"items": [{"id": "sk_1", "value": WITHHELD}], "total": 1}


@each_of(
    "uri",
    ["", "sikkerkey:", "sikkerkey://", "sikkerkey://secrets", "sikkerkey://projects/", "SIKKERKEY://projects"]
    + ["sikkerkey://projects/a/b/secrets", "sikkerkey://whoami\n", "file:///etc/passwd", TEMPLATE[:-1]],
)
def test_an_unknown_uri_is_no_resource_and_nothing_is_sent(uri: str) -> None:
    client, api = client_of(reply())
    told = uri.replace("\n", "<U+000A>")
    assert client.send(request("resources/read", uri=uri)) == not_found(told, "there is no such resource")
    assert api.sent == []


@each_of("name", ["", "..", ".", "%2e%2e", "a b", "{id}", "a" * 129, "ø", "a\x1b[2J"])
def test_an_invalid_id_is_no_resource_and_nothing_is_sent(name: str) -> None:
    client, api = client_of(reply())
    uri = f"sikkerkey://projects/{name}/secrets"
    rule = "projectId must be an id: 1 to 128 letters, digits, - or _, as an earlier answer gave it"
    assert client.send(request("resources/read", uri=uri)) == not_found(sikkerkey_mcp.clean(uri), rule)
    assert api.sent == []


def test_a_long_unknown_uri_is_shortened() -> None:
    client, _ = client_of(reply())
    error = client.send(request("resources/read", uri="x" * 10_000))["error"]
    assert error["data"] == {"uri": "x" * 200 + "..."}


def test_a_404_of_the_vault_is_an_unknown_resource() -> None:
    client, _ = client_of(reply(404, b'{"error":"no such project"}'))
    error = client.send(request("resources/read", uri=SECRETS))["error"]
    assert (error["code"], error["data"]) == (-32002, {"uri": SECRETS})
    assert error["message"].startswith('the vault answered 404, saying "no such project"\nhint: ')


@each_of("status", [401, 403, 423, 429, 500, 503])
def test_an_error_of_the_vault_says_what_to_do(status: int) -> None:
    client, _ = client_of(reply(status))
    error = client.send(request("resources/read", uri="sikkerkey://projects"))["error"]
    told = client.send(request("tools/call", name="manage_projects", arguments={"action": "list"}))["result"]
    assert error == {"code": -32603, "message": told["content"][0]["text"]}


def test_without_an_agent_a_read_says_what_to_do() -> None:
    def connect() -> sikkerkey_mcp.Api:
        raise sikkerkey_mcp.ConfigError("no agent is installed", "install one")

    answer = InProcessClient(tools=sikkerkey_mcp.VaultTools(connect)).send(
        request("resources/read", uri="sikkerkey://whoami")
    )
    assert answer == refusal(-32603, "no agent is installed\nhint: install one", id=1)


# switches


@each_of("resource", RESOURCES, ids=lambda resource: resource.uri)
def test_a_resource_whose_action_is_withheld_is_neither_listed_nor_read(resource: Any) -> None:
    client, api = client_of(reply(), without(f"{resource.tool}.{resource.action}"))
    listed = client.send(request("resources/list"))["result"]["resources"]
    listed += client.send(request("resources/templates/list"))["result"]["resourceTemplates"]
    uri = resource.uri.replace("{id}", "proj_1")
    assert resource.uri not in {row.get("uri") or row["uriTemplate"] for row in listed}
    assert client.send(request("resources/read", uri=uri)) == not_found(uri, "there is no such resource")
    assert api.sent == []


def test_read_only_leaves_every_resource() -> None:
    client, _ = client_of(reply(), [Restriction("--read-only", "--read-only")])
    assert len(client.send(request("resources/list"))["result"]["resources"]) == 3


def test_without_any_resource_or_prompt_neither_is_offered() -> None:
    switches = [Restriction("--tools", "--tools", ("manage_trash",))]
    client = InProcessClient("", sikkerkey_mcp.VaultTools(lambda: StubApi(reply()), switches))
    assert client.send(opening())["result"]["capabilities"] == {"logging": {}, "tools": {}}
    methods = ["resources/list", "prompts/list", "completion/complete"]
    assert {client.send(request(method))["error"]["code"] for method in methods} == {-32601}


# completion

ROWS = b'[{"id":"proj_web","name":"Shop"},{"id":"proj_api","name":"web API"},{"id":"../x","name":"web"},{"name":"w"},7]'


def complete(client: InProcessClient, begun: str, uri: str = TEMPLATE, name: str = "id") -> Any:
    argument = {"name": name, "value": begun}
    answer = client.send(request("completion/complete", ref={"type": "ref/resource", "uri": uri}, argument=argument))
    return answer["result"]["completion"]["values"] if "result" in answer else answer


@each_of(
    ("begun", "values"),
    [
        ("", ["proj_web", "proj_api"]),
        ("proj_a", ["proj_api"]),
        ("WEB", ["proj_api"]),
        ("shop", ["proj_web"]),
        ("x", []),
        ("../", []),
    ],
)
@each_of("body", [ROWS, b'{"notices":[{"id":"web_1"}],"projects":' + ROWS + b"}"], ids=["list", "object"])
def test_ids_are_completed_by_prefix_and_by_name(begun: str, values: list[str], body: bytes) -> None:
    client, _ = client_of(reply(body=body))
    assert complete(client, begun) == values


def test_matching_ids_come_before_matching_names() -> None:
    client, _ = client_of(reply(body=b'[{"id":"b","name":"a"},{"id":"a","name":"b"}]'))
    assert complete(client, "a") == ["a", "b"]


@each_of("body", [b"{}", b"[]", b'{"projects":7}', b'"x"'])
def test_an_answer_without_ids_completes_nothing(body: bytes) -> None:
    assert complete(client_of(reply(body=body))[0], "") == []


def test_a_thousand_ids_are_completed_by_the_first_hundred() -> None:
    rows = [{"id": f"proj_{number}", "note": "x" * 99} for number in range(1_000)]
    client, _ = client_of(reply(body=json.dumps(rows).encode()))
    assert len(complete(client, "proj")) == 100


def test_the_vault_is_asked_once_for_a_while() -> None:
    now_s, asked = [0.0], []

    def answer(*_call: Any) -> sikkerkey_mcp.JsonObject:
        pytest.fail("completion needs no result")

    def all_rows(tool: str, arguments: sikkerkey_mcp.JsonObject, _context: sikkerkey_mcp.Context) -> list[Any]:
        asked.append((tool, arguments))
        return [{"id": f"p{len(asked)}"}]

    offered = {"manage_projects.list", "manage_secrets.list"}
    library = VaultResources(answer, all_rows, offered, monotonic_s=lambda: now_s[0])
    reference, found = {"type": "ref/resource", "uri": TEMPLATE}, []
    for now_s[0] in (0.1, 1.0, IDS_CACHED_S, IDS_CACHED_S + 0.2):
        found += library.suggestions(reference, "id", "", {}, sikkerkey_mcp.Context())
    assert found == ["p1", "p1", "p1", "p2"]
    assert asked == [("manage_projects", {"action": "list"})] * 2


def test_kept_ids_are_only_for_the_agent_that_listed_them() -> None:
    apis = [StubApi(reply(body=b'[{"id":"proj_first"}]')), StubApi(reply(body=b'[{"id":"proj_second"}]'))]
    client = InProcessClient(tools=sikkerkey_mcp.VaultTools(lambda: apis[0]))
    assert complete(client, "proj") == ["proj_first"]
    apis.pop(0)
    assert complete(client, "proj") == ["proj_second"]


def test_ids_are_not_completed_where_their_list_is_withheld() -> None:
    client, api = client_of(reply(body=ROWS), without("manage_projects.list"))
    assert complete(client, "") == []
    assert api.sent == []


@each_of(("uri", "name"), [(TEMPLATE, "projectId"), (SECRETS, "id"), ("sikkerkey://projects", "id"), ("", "")])
def test_completion_of_an_unknown_argument_of_a_template_is_refused(uri: str, name: str) -> None:
    client, api = client_of(reply(body=ROWS))
    rule = "no prompt or resource template here has that argument"
    assert complete(client, "", uri, name) == refusal(-32602, rule, id=1)
    assert api.sent == []


# the program


def test_a_read_reports_progress_and_can_be_cancelled(home: Path, recorder: Recorder) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def answer(_seen: ReceivedRequest) -> CannedResponse:
        arrived.set()
        go_on.wait(5)
        return CannedResponse()

    recorder.answer = answer
    make_slot(home, recorder.url)
    with CheckedServer() as server:
        server.initialize()
        asked = server.start("resources/read", uri="sikkerkey://projects", _meta={"progressToken": "t"})
        told = server.read()["params"]
        assert told == {"progressToken": "t", "progress": 1, "message": "asking the vault, attempt 1"}
        arrived.wait(5)
        assert server.request("ping") == answered({}, 3)
        server.cancel(asked)
        assert server.request("ping") == answered({}, 4)
        go_on.set()
        assert server.close() == 0
        server.ended()
        assert asked not in server.answered()


def test_the_archive_serves_the_local_vaults_resources(local_vault: LocalVault) -> None:
    local_vault.owner("approve", install(local_vault))
    with Server(ARCHIVE_COMMAND) as server:
        server.initialize()
        project = server.call("manage_projects", action="create", name="catalogue")["structuredContent"]["id"]
        server.call("manage_secrets", action="create", projectId=project, name="s", value="a marked value")
        uris = ["sikkerkey://whoami", "sikkerkey://projects", f"sikkerkey://projects/{project}/secrets"]
        read = [server.request("resources/read", uri=uri)["result"]["contents"][0] for uri in uris]
        told = [
            server.call("whoami"),
            server.call("manage_projects", action="list"),
            server.call("manage_secrets", action="list", projectId=project),
        ]
        argument = {"name": "id", "value": "catal"}
        reference = {"type": "ref/resource", "uri": TEMPLATE}
        completed = server.request("completion/complete", ref=reference, argument=argument)["result"]["completion"]
    assert [part["uri"] for part in read] == uris
    assert [json.loads(part["text"]) for part in read[1:]] == [result["structuredContent"] for result in told[1:]]
    assert json.loads(read[0]["text"])["scopes"] == told[0]["structuredContent"]["scopes"]
    assert completed == {"values": [project], "total": 1, "hasMore": False}
    assert "a marked value" not in json.dumps(read)
