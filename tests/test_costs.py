"""What a start and a call cost, in counts that no machine's speed changes: modules, files, connections, bytes kept."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cryptography
import pytest

import sikkerkey_mcp
from tests.support.archive_runs import OTHER_PYTHONS, find_python
from tests.support.harness import AGENT_ID, ROOT, Recorder, Server, make_slot
from tests.support.sample_tools import FixtureTools

OTHER_AGENT_ID = "1f8fad5b-d9cb-469f-a165-70867728950f"
OPENING = (
    '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}\n'
    '{"jsonrpc": "2.0", "id": 2, "method": "tools/list"}\n'
)

# Serves until the input ends and says what was loaded and opened by then; preparing for calls is left out.
WATCHED_START = f"""
import os, sys  # as Python has, when it runs an archive
before, opened = set(sys.modules), []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
sys.path.insert(0, {str(ROOT)!r})
import sikkerkey_mcp

def tell():
    loaded = sorted(set(sys.modules) - before)
    sys.stderr.write(repr((loaded, opened)))
    sys.stderr.flush()
    os._exit(0)

sikkerkey_mcp.VaultTools.prepare = lambda self: None
sikkerkey_mcp.end_process = tell
sikkerkey_mcp.main(["serve", "--agent", {AGENT_ID!r}])
"""

LOADED_AT_START = {"sikkerkey_mcp", "__future__", "_json", "_collections"}


def watched_start(home: Path, python: str) -> tuple[set[str], list[str]]:
    """The modules that a start loads until the tools are listed, and the files that it opens."""
    for agent in (AGENT_ID, OTHER_AGENT_ID):
        make_slot(home, "http://127.0.0.1:9", agent)
    command = [python, "-I", "-S", "-c", WATCHED_START]
    done = subprocess.run(command, input=OPENING, capture_output=True, text=True, check=True, timeout=60)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2], done.stderr
    loaded, opened = eval(done.stderr, {"__builtins__": {}})  # noqa: S307 (our own child's repr)
    return set(loaded), opened


@pytest.mark.parametrize("name", ["this", *OTHER_PYTHONS])
def test_listing_the_tools_loads_hardly_a_module(name: str, home: Path) -> None:
    """Each of json, re, typing, enum, threading and signal takes a tenth of the start or more."""
    loaded, _ = watched_start(home, sys.executable if name == "this" else find_python(name))
    assert loaded - LOADED_AT_START == set()
    assert {"sikkerkey_mcp", "_json"} <= loaded


def test_start_opens_the_chosen_agents_identity_and_not_yet_its_key(home: Path) -> None:
    """A crash before the first call, which forbids cores, would leave the key in one."""
    _, opened = watched_start(home, sys.executable)
    slot = home / ".sikkerkey" / "agents" / AGENT_ID
    assert [path for path in opened if path.startswith(str(home))] == [str(slot / "identity.json")]


# getting ready for the first call


@pytest.fixture
def tools(home: Path, recorder: Recorder) -> Iterator[sikkerkey_mcp.VaultTools]:
    """The vault's tools for an agent of `recorder`, in this process."""
    make_slot(home, recorder.url)
    made: list[sikkerkey_mcp.Api] = []

    def connect() -> sikkerkey_mcp.Api:
        made.append(sikkerkey_mcp.connect())
        return made[-1]

    yield sikkerkey_mcp.VaultTools(connect)
    for api in made:
        for connection in vars(vars(api)["_connections"])["_idle"]:
            connection.close()


def serve_lines(registry: FixtureTools, lines: list[bytes], send: Callable[[Any], None]) -> None:
    """Serves `lines` in this process."""
    pieces = iter([*lines, b""])
    output = sikkerkey_mcp.Output(1)
    vars(output)["send"] = send
    sikkerkey_mcp.StdioServer(registry, lambda: next(pieces), output).run()


def test_getting_ready_begins_after_the_tools_have_been_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = FixtureTools()
    sent: list[Any] = []
    seen_by: list[int] = []

    def at_once(function: Callable[[], None], _arguments: tuple[()]) -> None:
        seen_by.append(len(sent))
        function()

    monkeypatch.setattr(sikkerkey_mcp, "start_new_thread", at_once)
    listing = b'{"jsonrpc": "2.0", "id": 2, "method": "tools/list"}\n'
    first, _ = OPENING.encode().splitlines(keepends=True)
    serve_lines(registry, [first, listing, listing], sent.append)
    assert (len(sent), seen_by, registry.preparations) == (3, [2], 1)


# Serves nobody: gets ready for calls and says what was loaded for that.
WATCHED_READINESS = f"""
import sys
sys.path[:0] = {[str(ROOT), str(Path(cryptography.__file__).parent.parent)]!r}
before = set(sys.modules)
import sikkerkey_mcp
sikkerkey_mcp.VaultTools(lambda: sikkerkey_mcp.connect({AGENT_ID!r})).prepare()
print(*sorted(set(sys.modules) - before))
"""
# urllib.request, which knows proxies, takes 4 MB; each of the others 0.3 to 2.
NOT_FOR_CALLS = {"ctypes", "email", "encodings.idna", "http.client", "inspect", "urllib.parse", "urllib.request"}


def test_getting_ready_loads_only_what_calls_use(home: Path) -> None:
    make_slot(home, "https://vault.test")
    command = [sys.executable, "-I", "-S", "-c", WATCHED_READINESS]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert {"sikkerkey_wire", "ssl", "cryptography.hazmat.primitives.asymmetric.ed25519"} <= set(loaded)
    assert NOT_FOR_CALLS.intersection(loaded) == set()
    assert len(loaded) <= 80, "about 75 on every Python"


def test_getting_ready_sends_nothing(tools: sikkerkey_mcp.VaultTools, recorder: Recorder) -> None:
    tools.prepare()
    assert (recorder.connections, recorder.seen) == (0, [])
    assert "isError" not in tools.call("whoami", {}, sikkerkey_mcp.Context())
    assert len(recorder.seen) == 1


def test_what_fails_while_getting_ready_is_told_by_the_call(tools: sikkerkey_mcp.VaultTools, home: Path) -> None:
    key = home / ".sikkerkey" / "agents" / AGENT_ID / "private.pem"
    sound = key.read_bytes()
    key.write_bytes(b"no key")
    tools.prepare()
    assert "private.pem holds no" in tools.call("whoami", {}, sikkerkey_mcp.Context())["content"][0]["text"]
    key.write_bytes(sound)
    assert "isError" not in tools.call("whoami", {}, sikkerkey_mcp.Context())


def test_getting_ready_without_an_agent_is_silent(home: Path) -> None:
    tools = sikkerkey_mcp.VaultTools(sikkerkey_mcp.connect)
    tools.prepare()
    assert "no agent is installed" in tools.call("whoami", {}, sikkerkey_mcp.Context())["content"][0]["text"]


# calls


def test_calls_one_after_the_other_share_one_connection(server: Server, recorder: Recorder) -> None:
    for _ in range(50):
        assert "isError" not in server.call("whoami")
    assert (len(recorder.seen), recorder.connections) == (50, 1)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted by Linux's /proc")
def test_calls_leave_no_descriptors_behind(server: Server) -> None:
    def open_now() -> int:
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    server.call("whoami")
    before = open_now()
    for _ in range(50):
        server.call("manage_projects", action="list")
    assert open_now() == before


def test_calls_leave_no_memory_behind(tools: sikkerkey_mcp.VaultTools, recorder: Recorder) -> None:
    def call(times: int) -> None:
        for _ in range(times):
            tools.call("manage_secrets", {"action": "list", "projectId": "proj_a1"}, sikkerkey_mcp.Context())
        recorder.seen.clear()
        gc.collect()

    ours = [tracemalloc.Filter(inclusive=True, filename_pattern=str(ROOT / "sikkerkey_*.py"))]
    tracemalloc.start()
    try:
        call(50)
        before = tracemalloc.take_snapshot().filter_traces(ours)
        call(200)
        after = tracemalloc.take_snapshot().filter_traces(ours)
    finally:
        tracemalloc.stop()
    grown = sum(change.size_diff for change in after.compare_to(before, "filename"))
    assert grown < 200 * 10, "ten bytes a call are within what the counters and caches of Python vary by"


# growth: what is four times as large costs four times as much, or less. bench/growth.py shows the same in milliseconds


def functions_called(act: Callable[[], object]) -> int:
    """By this thread, Python's own included."""
    called = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal called
        called += event.endswith("call")

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return called


def peak_bytes(act: Callable[[], object]) -> int:
    """The most that is allocated at a time, beyond what was before."""
    gc.collect()
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_linear(acts: list[Callable[[], object]]) -> None:
    """Of three acts, each four times as large as the one before."""
    for act in acts:
        act()  # what is loaded and kept is not counted
    for cost, most in ((functions_called, 4.0), (peak_bytes, 4.5)):  # bytes: lists and arrays grow in leaps
        small, medium, large = (cost(act) for act in acts)
        assert medium <= most * small, f"{cost.__name__}: {small, medium, large}"
        assert large <= most * medium, f"{cost.__name__}: {small, medium, large}"


class CannedApi(sikkerkey_mcp.Api):
    """A vault whose every answer is `body`."""

    def __init__(self, body: bytes) -> None:
        super().__init__("http://127.0.0.1:9", lambda _request: {})
        self.body = body

    def send(
        self, request: sikkerkey_mcp.Request, *, safe: bool, context: sikkerkey_mcp.Context
    ) -> sikkerkey_mcp.Reply:
        return sikkerkey_mcp.Reply(200, {"content-type": "application/json"}, self.body)


def audit_page(entries: int) -> bytes:
    entry = {"action": "secret_read", "severity": "low", "timestamp": 1767225600000, "detail": "x" * 80}
    return json.dumps({"entries": [{**entry, "id": number} for number in range(entries)]}).encode()


def answered(body: bytes, times: int = 1) -> Callable[[], object]:
    """Calls whose answers are `body`, from the arguments to the line that carries the result."""
    tools = sikkerkey_mcp.VaultTools(lambda: CannedApi(body))

    def act() -> None:
        for number in range(times):
            sikkerkey_mcp.to_json(
                sikkerkey_mcp.reply_to(number, tools.call("read_audit", {"action": "query"}, sikkerkey_mcp.Context()))
            )

    return act


def test_listing_grows_with_the_tools() -> None:
    row = next(tool for tool in sikkerkey_mcp.TOOLS if tool.name == "manage_secrets")

    def listed(count: int) -> Callable[[], object]:
        tools = [row._replace(name=f"tool_{number:03}") for number in range(count)]
        return lambda: sikkerkey_mcp.to_json([sikkerkey_mcp.tool_listing(tool) for tool in tools])

    assert_linear([listed(count) for count in (18, 72, 288)])


def test_call_grows_with_its_answer() -> None:
    assert_linear([answered(audit_page(entries)) for entries in (100, 400, 1_600)])


def test_session_grows_with_its_calls() -> None:
    assert_linear([answered(audit_page(10), times) for times in (20, 80, 320)])


def test_lines_grow_with_their_length_however_they_come() -> None:
    def read_in_pieces(count: int) -> Callable[[], object]:
        def act() -> None:
            pieces = iter([b"x" * 1_000] * count + [b"\n", b""])
            lines = [line or b"" for lines in sikkerkey_mcp.split_lines(lambda: next(pieces)) for line in lines]
            assert [len(line) for line in lines] == [1_000 * count]

        return act

    assert_linear([read_in_pieces(count) for count in (64, 256, 1_024)])
