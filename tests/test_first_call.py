"""What happens before and at the first call: which files are read, what is sent, and where failures are reported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sikkerkey_mcp
from tests.support.harness import AGENT_ID, ROOT, Recorder, Server, make_slot, open_descriptors

OTHER_AGENT_ID = "1f8fad5b-d9cb-469f-a165-70867728950f"
OPENING = (
    '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}\n'
    '{"jsonrpc": "2.0", "id": 2, "method": "tools/list"}\n'
)

# Serves until the input ends, without the preparation for calls, then prints the paths that were opened.
RECORD_OPENED_FILES = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
import sikkerkey_mcp
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)

def print_opened():
    sys.stderr.write("\\n".join(opened))
    sys.stderr.flush()
    os._exit(0)

sikkerkey_mcp.VaultTools.prepare = lambda self: None
sikkerkey_mcp.end_process = print_opened
sikkerkey_mcp.main(["--agent", {AGENT_ID!r}])
"""


def test_start_reads_identities_but_no_key(home: Path) -> None:
    """A crash before the first call, which disables core dumps, must not write the key into one."""
    for agent in (AGENT_ID, OTHER_AGENT_ID):
        make_slot(home, "http://127.0.0.1:9", agent)
    command = [sys.executable, "-I", "-c", RECORD_OPENED_FILES]
    done = subprocess.run(command, input=OPENING, capture_output=True, text=True, check=True, timeout=60)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2], done.stderr
    opened = {Path(path) for path in done.stderr.splitlines() if path.startswith(str(home))}
    assert home / ".sikkerkey" / "agents" / AGENT_ID / "identity.json" in opened
    assert {path.name for path in opened} == {"identity.json"}, "others are read to see which agents they replace"


@pytest.fixture
def tools(home: Path, recorder: Recorder) -> Iterator[sikkerkey_mcp.VaultTools]:
    """The vault's tools for an agent of `recorder`, in this process."""
    make_slot(home, recorder.url)
    connection = sikkerkey_mcp.AgentConnection()
    yield sikkerkey_mcp.VaultTools(connection.api, agent=connection)
    if api := vars(connection)["_api"]:
        api.close()


def test_preparation_sends_nothing(tools: sikkerkey_mcp.VaultTools, recorder: Recorder) -> None:
    tools.prepare()
    assert (recorder.connections, recorder.seen) == (0, [])
    assert "isError" not in tools.call("whoami", {}, sikkerkey_mcp.Context())
    assert len(recorder.seen) == 1


def test_session_without_calls_sends_nothing(server: Server, recorder: Recorder) -> None:
    assert server.request("tools/list")["result"]["tools"]
    assert server.close() == 0
    assert (recorder.connections, recorder.seen) == (0, [])


def test_failed_preparation_is_reported_by_the_call(tools: sikkerkey_mcp.VaultTools, home: Path) -> None:
    key = home / ".sikkerkey" / "agents" / AGENT_ID / "private.pem"
    valid_pem = key.read_bytes()
    key.write_bytes(b"no key")
    tools.prepare()
    assert "private.pem does not contain" in tools.call("whoami", {}, sikkerkey_mcp.Context())["content"][0]["text"]
    key.write_bytes(valid_pem)
    assert "isError" not in tools.call("whoami", {}, sikkerkey_mcp.Context())


def test_preparation_without_an_agent_is_silent(home: Path) -> None:
    tools = sikkerkey_mcp.VaultTools(sikkerkey_mcp.connect)
    tools.prepare()
    assert "no agent is installed" in tools.call("whoami", {}, sikkerkey_mcp.Context())["content"][0]["text"]


def test_agent_that_is_installed_later_serves_the_next_call(home: Path, recorder: Recorder) -> None:
    with Server() as server:
        server.initialize()
        assert server.call("whoami")["isError"]
        make_slot(home, recorder.url)
        assert server.call("whoami")["structuredContent"] == {}
    assert len(recorder.seen) == 1


def test_sequential_calls_share_one_connection(server: Server, recorder: Recorder) -> None:
    for _ in range(50):
        assert "isError" not in server.call("whoami")
    assert (len(recorder.seen), recorder.connections) == (50, 1)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
def test_calls_leave_no_descriptors_open(server: Server) -> None:
    server.call("whoami")
    before = open_descriptors(server.process.pid)
    for _ in range(50):
        server.call("manage_projects", action="list")
    assert open_descriptors(server.process.pid) == before
