"""The fixtures of `make conformance`, which itself needs npm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.support.harness import Server

PLACE = Path(__file__).parent / "conformance"


def test_every_fixture_answers_as_the_schema_says() -> None:
    with Server([sys.executable, "-I", str(PLACE / "registry.py")]) as server:
        assert set(server.initialize()["result"]["capabilities"]) == {
            *("logging", "tools", "resources", "prompts", "completions")
        }
        for tool in server.request("tools/list")["result"]["tools"]:
            assert server.call(tool["name"]).get("isError", False) is (tool["name"] == "test_error_handling")
        uris = [row["uri"] for row in server.request("resources/list")["result"]["resources"]]
        for uri in (*uris, "test://template/123/data"):
            assert server.request("resources/read", uri=uri)["result"]["contents"]
        for prompt in server.request("prompts/list")["result"]["prompts"]:
            arguments = {argument["name"]: "a value" for argument in prompt.get("arguments", [])}
            assert server.request("prompts/get", name=prompt["name"], arguments=arguments)["result"]["messages"]


def test_the_pinned_packages_have_digests_and_no_addresses() -> None:
    text = (PLACE / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    assert [name for name, package in packages.items() if name and not package["integrity"].startswith("sha512-")] == []
    assert '"resolved"' not in text
