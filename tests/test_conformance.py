"""The fixtures of `make conformance`, which itself needs npm."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.conformance.registry import ROUNDS, ConformanceTools
from tests.support.harness import TIMEOUT_S, Server
from tests.support.in_process_client import InProcessClient, envelope, modern, request
from tools.streamable_http import Bridge, from_loopback, header_problem

PLACE = Path(__file__).parent / "conformance"


def test_every_fixture_answers_as_the_schema_says() -> None:
    with Server([sys.executable, "-I", str(PLACE / "registry.py")]) as server:
        assert set(server.initialize()["result"]["capabilities"]) == {
            *("logging", "tools", "resources", "prompts", "completions")
        }
        refusing = {"test_error_handling", "test_missing_capability", *ROUNDS}  # the last ones: this client is legacy
        for tool in server.request("tools/list")["result"]["tools"]:
            answer = server.request("tools/call", name=tool["name"])
            refused = "error" in answer or answer["result"].get("isError", False)
            assert refused is (tool["name"] in refusing), tool
        uris = [row["uri"] for row in server.request("resources/list")["result"]["resources"]]
        for uri in (*uris, "test://template/123/data"):
            assert server.request("resources/read", uri=uri)["result"]["contents"]
        for prompt in server.request("prompts/list")["result"]["prompts"][:-1]:  # the last one asks
            arguments = {argument["name"]: "a value" for argument in prompt.get("arguments", [])}
            assert server.request("prompts/get", name=prompt["name"], arguments=arguments)["result"]["messages"]


def test_every_fixture_asks_for_what_the_suite_answers() -> None:
    able: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
    answers: dict[str, Any] = {
        "elicitation/create": {"action": "accept", "content": {}},
        "sampling/createMessage": {"role": "assistant", "content": {"type": "text", "text": "x"}, "model": "m"},
        "roots/list": {"roots": []},
    }
    client = InProcessClient("", ConformanceTools())
    for name, rounds in ROUNDS.items():
        params: dict[str, Any] = {"name": name, "arguments": {}}
        for asked in rounds:
            result = client.send(modern("tools/call", meta=envelope(able), **params))["result"]
            assert result["inputRequests"] == asked, name
            responses = {key: answers[each["method"]] for key, each in asked.items()}
            params.update(inputResponses=responses, requestState=result["requestState"])
        done = client.send(modern("tools/call", meta=envelope(able), **params))["result"]
        assert done["resultType"] == "complete", name


TOLD = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "echo"}


def test_the_bridge_compares_headers_and_body() -> None:
    message = modern("tools/call", name="echo")
    assert header_problem(TOLD, message) is None
    assert header_problem({**TOLD, "Mcp-Method": "tools/list"}, modern("tools/list")) is None
    for name in TOLD:
        assert header_problem({**TOLD, name: "other"}, message) == (
            -32020,
            f"the header {name} does not agree with the body",
        )
    missing = header_problem(TOLD, request("tools/call", name="echo"))
    assert missing == (-32602, "_meta must have io.modelcontextprotocol/protocolVersion")


def test_the_bridge_serves_this_computer_only() -> None:
    for host in ("localhost:80", "127.0.0.1", "[::1]:80"):
        assert from_loopback({"Host": host, "Origin": f"http://{host}"})
        assert from_loopback({"Host": host})
    for told in ({"Host": "evil.example"}, {"Host": "localhost", "Origin": "http://evil.example"}, {}):
        assert not from_loopback(told)


def test_the_bridge_passes_messages_on() -> None:
    with Bridge([sys.executable, "-I", str(PLACE / "registry.py")]) as bridge:
        for tool, kind in (("test_simple_text", "application/json"), ("test_tool_with_progress", "text/event-stream")):
            message = modern("tools/call", "an id", envelope(progressToken=1), name=tool, arguments={})
            told = {**TOLD, "Mcp-Name": tool, "Content-Type": "application/json"}
            asked = urllib.request.Request(bridge.url, json.dumps(message).encode(), told)
            with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as answer:
                lines = answer.read().decode().replace("data: ", "").splitlines()
            replies = [json.loads(line) for line in lines if line.startswith("{")]
            assert answer.headers["Content-Type"] == kind
            assert [reply.get("id") for reply in replies] == [None] * (len(replies) - 1) + ["an id"]


def test_the_pinned_packages_have_digests_and_no_addresses() -> None:
    text = (PLACE / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    assert [name for name, package in packages.items() if name and not package["integrity"].startswith("sha512-")] == []
    assert '"resolved"' not in text
