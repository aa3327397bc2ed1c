"""Concurrent calls: how many run, which ones wait, and what cancellation, progress and logging do meanwhile."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_mcp
from tests.support import fast_server, sample_tools, trusting_server
from tests.support.faulty_vault import silent_port
from tests.support.harness import TIMEOUT_S, CannedResponse, ReceivedRequest, Recorder, make_slot, open_descriptors
from tests.support.in_process_client import envelope, modern_reply
from tests.support.schema_check import CheckedServer, wait_until

CONCURRENT = 32
WAITING = 1_000
EMPTY = {"content": [{"type": "text", "text": "{}"}], "structuredContent": {}}


class Gate:
    """Lets the vault answer as many requests as a test allows."""

    def __init__(self, recorder: Recorder) -> None:
        self._allowed = threading.Semaphore(0)
        self._recorder = recorder
        recorder.answer = self._answer

    def _answer(self, _seen: ReceivedRequest) -> CannedResponse:
        self._allowed.acquire()
        return CannedResponse()

    def allow(self, count: int) -> None:
        """Allows that many more answers."""
        for _ in range(count):
            self._allowed.release()

    def wait_for(self, count: int) -> None:
        """Waits until that many requests have arrived; there must not be more."""
        wait_until(lambda: len(self._recorder.seen) >= count)
        assert len(self._recorder.seen) == count


@pytest.fixture
def mcp(home: Path, recorder: Recorder) -> Iterator[CheckedServer]:
    make_slot(home, recorder.url)
    with CheckedServer(trusting_server.COMMAND) as server:
        server.initialize()
        yield server


@pytest.fixture
def gate(recorder: Recorder, mcp: CheckedServer) -> Iterator[Gate]:
    made = Gate(recorder)
    yield made
    made.allow(2_000)


@pytest.fixture
def fixtures(home: Path) -> Iterator[CheckedServer]:
    with CheckedServer(sample_tools.COMMAND) as server:
        server.initialize()
        yield server


def whoami(server: CheckedServer, count: int) -> list[int]:
    """Starts `count` calls and returns their ids."""
    return [server.start_call("whoami") for _ in range(count)]


def cancel(server: CheckedServer, request_id: Any) -> None:
    """Cancels a request and waits until the server has read that."""
    server.cancel(request_id)
    assert server.request("ping")["result"] == {}


@contextmanager
def loopback() -> Iterator[tuple[socket.socket, str]]:
    """A listening socket and the URL that leads to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def read_request(connection: socket.socket) -> None:
    """Reads a request without a body."""
    connection.settimeout(TIMEOUT_S)
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536)


# how many run


@pytest.mark.peer(11)
def test_32_calls_run_concurrently_on_32_connections(mcp: CheckedServer, recorder: Recorder, gate: Gate) -> None:
    started = whoami(mcp, CONCURRENT)
    gate.wait_for(CONCURRENT)  # all of them before the first is answered
    gate.allow(CONCURRENT)
    assert [mcp.reply(call)["result"] for call in started] == [EMPTY] * CONCURRENT
    assert recorder.connections == CONCURRENT


def test_modern_calls_run_concurrently_beside_legacy_ones(mcp: CheckedServer, recorder: Recorder, gate: Gate) -> None:
    legacy = whoami(mcp, CONCURRENT // 2)
    new = [mcp.start("tools/call", name="whoami", arguments={}, _meta=envelope()) for _ in range(CONCURRENT // 2)]
    gate.wait_for(CONCURRENT)  # all of them before the first is answered
    gate.allow(CONCURRENT)
    assert [mcp.reply(call)["result"] for call in legacy] == [EMPTY] * len(legacy)
    assert [mcp.reply(call) for call in new] == [modern_reply(EMPTY, call) for call in new]


def test_32_modern_calls_run_concurrently_without_initialize(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    gate = Gate(recorder)
    with CheckedServer(trusting_server.COMMAND) as server:
        started = [server.start("tools/call", name="whoami", arguments={}, _meta=envelope()) for _ in range(CONCURRENT)]
        gate.wait_for(CONCURRENT)
        assert server.request("server/discover", _meta=envelope())["result"]["resultType"] == "complete"
        server.cancel(started[0])
        gate.allow(CONCURRENT)
        assert [server.reply(call) for call in started[1:]] == [modern_reply(EMPTY, call) for call in started[1:]]
        assert server.close() == 0
        server.ended()
        assert started[0] not in server.answered()


def test_connections_are_used_again(mcp: CheckedServer, recorder: Recorder, gate: Gate) -> None:
    for wave in range(1, 4):
        started = whoami(mcp, CONCURRENT)
        gate.wait_for(wave * CONCURRENT)
        gate.allow(CONCURRENT)
        assert {mcp.reply(call)["id"] for call in started} == set(started)
    assert recorder.connections == CONCURRENT


def test_the_33rd_call_waits_for_a_worker(mcp: CheckedServer, gate: Gate) -> None:
    started = whoami(mcp, CONCURRENT + 1)
    gate.wait_for(CONCURRENT)
    assert mcp.request("ping")["result"] == {}
    gate.wait_for(CONCURRENT)
    gate.allow(1)
    gate.wait_for(CONCURRENT + 1)
    gate.allow(CONCURRENT)
    assert [mcp.reply(call)["result"] for call in started] == [EMPTY] * (CONCURRENT + 1)


def test_waiting_calls_are_carried_out_in_the_order_they_came(
    mcp: CheckedServer, recorder: Recorder, gate: Gate
) -> None:
    whoami(mcp, CONCURRENT)
    gate.wait_for(CONCURRENT)
    machines = [f"machine-{number}" for number in range(8)]
    for machine in machines:
        mcp.start_call("manage_machines", action="get", machineId=machine)
    for number in range(1, len(machines) + 1):
        gate.allow(1)
        gate.wait_for(CONCURRENT + number)
    assert [seen.path for seen in recorder.seen[CONCURRENT:]] == [f"/v1/ai/machines/{machine}" for machine in machines]


@pytest.mark.peer(11)
def test_requests_are_answered_while_calls_run(mcp: CheckedServer, gate: Gate) -> None:
    started = whoami(mcp, CONCURRENT + 8)
    gate.wait_for(CONCURRENT)
    assert len(mcp.request("tools/list")["result"]["tools"]) == len(sikkerkey_mcp.TOOLS)
    assert mcp.request("logging/setLevel", level="error")["result"] == {}
    assert mcp.request("no/such")["error"]["code"] == -32601
    gate.allow(len(started))


def test_ping_is_answered_while_calls_run(mcp: CheckedServer, gate: Gate) -> None:
    whoami(mcp, CONCURRENT + 8)
    gate.wait_for(CONCURRENT)
    assert [mcp.request("ping")["result"] for _ in range(20)] == [{}] * 20
    many = [mcp.start("ping") for _ in range(500)]
    assert [mcp.read() for _ in many] == [{"jsonrpc": "2.0", "id": ping, "result": {}} for ping in many]


def test_more_than_1000_waiting_calls_are_refused_and_the_others_answered(mcp: CheckedServer, gate: Gate) -> None:
    started = whoami(mcp, CONCURRENT)
    gate.wait_for(CONCURRENT)  # so that none of them waits
    waiting = whoami(mcp, WAITING)
    surplus = whoami(mcp, 3)
    text = "too many calls are waiting already; nothing was sent: wait until some are answered"
    refused = {"content": [{"type": "text", "text": text}], "isError": True}
    assert [mcp.reply(call)["result"] for call in surplus] == [refused] * 3
    gate.allow(CONCURRENT + WAITING)
    assert [mcp.reply(call)["result"] for call in started + waiting] == [EMPTY] * (CONCURRENT + WAITING)
    gate.wait_for(CONCURRENT + WAITING)


def test_waiting_calls_are_bounded_by_bytes_too(mcp: CheckedServer, gate: Gate) -> None:
    whoami(mcp, CONCURRENT)
    gate.wait_for(CONCURRENT)
    large = "x" * 3_000_000
    fitting = sikkerkey_mcp.CALLS_WAITING_MAX_BYTES // 3_000_200
    started = [mcp.start("tools/call", name="whoami", arguments={"x": large}) for _ in range(fitting + 1)]
    assert "too many calls are waiting" in mcp.reply(started[-1])["result"]["content"][0]["text"]
    gate.allow(CONCURRENT)
    assert "unknown argument x" in mcp.reply(started[-2])["result"]["content"][0]["text"]


def test_a_refused_call_does_not_block_its_id(mcp: CheckedServer, gate: Gate) -> None:
    whoami(mcp, CONCURRENT)
    gate.wait_for(CONCURRENT)
    whoami(mcp, WAITING)
    for _ in range(2):
        mcp.send({"jsonrpc": "2.0", "id": "again", "method": "tools/call", "params": {"name": "whoami"}})
        assert mcp.reply("again")["result"]["isError"] is True


def test_32_tools_that_break_leave_32_workers(fixtures: CheckedServer) -> None:
    broken = [fixtures.start_call("break") for _ in range(2 * CONCURRENT)]
    assert [fixtures.reply(call)["error"] for call in broken] == [
        {"code": -32603, "message": "internal error (LookupError)"}
    ] * (2 * CONCURRENT)
    assert fixtures.call("echo", a=1)["structuredContent"] == {"a": 1}
    assert fixtures.close() == 0
    assert fixtures.ended() == (0, b"")


# batches


def test_a_batch_is_answered_as_one_when_its_last_call_has_ended(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    with CheckedServer(trusting_server.COMMAND) as server:
        server.initialize("2025-03-26")
        gate = Gate(recorder)
        call = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "whoami"}}
        server.send([{**call, "id": "a"}, {"jsonrpc": "2.0", "id": "b", "method": "ping"}, {**call, "id": "c"}, call])
        gate.wait_for(2)
        gate.allow(1)
        server.notify("notifications/cancelled", requestId="no such")
        assert server.request("ping")["result"] == {}
        gate.allow(1)
        text = {"content": EMPTY["content"]}
        assert sorted(server.read(), key=lambda message: message["id"]) == [
            {"jsonrpc": "2.0", "id": "a", "result": text},
            {"jsonrpc": "2.0", "id": "b", "result": {}},
            {"jsonrpc": "2.0", "id": "c", "result": text},
        ]
        gate.wait_for(2)


@pytest.mark.parametrize("others", [[], [8]])
def test_a_batch_is_answered_without_its_cancelled_call(home: Path, recorder: Recorder, others: list[int]) -> None:
    make_slot(home, recorder.url)
    with CheckedServer(trusting_server.COMMAND) as server:
        server.initialize("2025-03-26")
        gate = Gate(recorder)
        call = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "whoami"}}
        server.send([{**call, "id": number} for number in [7, *others]])
        gate.wait_for(1 + len(others))
        cancel(server, 7)
        gate.allow(2)
        assert [message["id"] for number in others for message in server.read()] == others
        assert server.close() == 0
        assert server.read() is None


# cancellation


@pytest.mark.peer(11)
def test_a_cancelled_running_call_is_never_answered(mcp: CheckedServer, gate: Gate) -> None:
    first, second = whoami(mcp, 2)
    gate.wait_for(2)
    cancel(mcp, first)
    gate.allow(3)
    assert mcp.reply(second)["result"] == EMPTY
    assert mcp.call("whoami") == EMPTY
    assert mcp.close() == 0
    mcp.ended()
    assert first not in mcp.answered()


def test_a_cancelled_waiting_call_is_never_sent(mcp: CheckedServer, gate: Gate) -> None:
    *running, waiting = whoami(mcp, CONCURRENT + 1)
    gate.wait_for(CONCURRENT)
    cancel(mcp, waiting)
    gate.allow(CONCURRENT + 1)
    assert [mcp.reply(call)["result"] for call in running] == [EMPTY] * CONCURRENT
    assert mcp.call("whoami") == EMPTY  # had the cancelled one been sent, there would be two more
    gate.wait_for(CONCURRENT + 1)
    assert waiting not in mcp.answered()


def test_a_cancelled_call_frees_its_worker(mcp: CheckedServer, gate: Gate) -> None:
    *running, _waiting = whoami(mcp, CONCURRENT + 1)
    gate.wait_for(CONCURRENT)
    mcp.cancel(running[5])
    gate.wait_for(CONCURRENT + 1)  # the others are still unanswered


def test_a_cancelled_calls_connection_is_closed(home: Path) -> None:
    with loopback() as (listener, url):
        make_slot(home, url)
        with CheckedServer(trusting_server.COMMAND) as server:
            server.initialize()
            call = server.start_call("whoami")
            with listener.accept()[0] as connection:
                read_request(connection)
                server.cancel(call)
                assert connection.recv(1) == b""
            assert server.request("ping")["result"] == {}
            assert server.answered() == [1, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="connections are listed by /proc")
@pytest.mark.peer(11)
def test_calls_cancelled_while_connecting_free_their_workers(home: Path, recorder: Recorder) -> None:
    names, speed = home / "names", home / "speed"
    speed.write_text("0.01 1")  # connecting may take 1000 s, longer than this test waits for a reply
    env = {**os.environ, "TEST_NAMES": str(names), "TEST_SPEED_FILE": str(speed)}
    make_slot(home, recorder.url.replace("127.0.0.1", "localhost"))
    with silent_port() as port, CheckedServer(fast_server.COMMAND, env=env) as server:
        names.write_text(f"localhost 127.0.0.1 {port}\n")
        server.initialize()
        others = connecting_to(port)  # those that keep it silent
        stuck = whoami(server, CONCURRENT)
        wait_until(lambda: connecting_to(port) >= others + CONCURRENT)
        names.write_text(f"localhost 127.0.0.1 {recorder.url.rpartition(':')[2]}\n")
        for call in stuck:
            server.cancel(call)
        assert server.call("whoami") == EMPTY
        assert not set(stuck) & set(server.answered())


def connecting_to(port: int) -> int:
    """The connections to a local port that have not been accepted, as Linux lists them."""
    fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(entry[2].endswith(f":{port:04X}") and entry[3] == "02" for entry in fields)


def test_unknown_finished_and_malformed_cancellations_are_ignored(mcp: CheckedServer, gate: Gate) -> None:
    gate.allow(1)
    finished, running = mcp.request("tools/call", name="whoami")["id"], mcp.start_call("whoami")
    gate.wait_for(2)
    others: list[Any] = [finished, 999, "no such", str(running), None, running + 0.5, [running], {}, True]
    for request_id in others:
        mcp.cancel(request_id)
    mcp.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}})
    mcp.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": [running]})
    mcp.send({"jsonrpc": "2.0", "method": "notifications/cancelled"})
    assert mcp.request("ping")["result"] == {}
    gate.allow(1)
    assert mcp.reply(running)["result"] == EMPTY


def test_1000_cancellations_in_flight_leave_a_server_that_serves(
    mcp: CheckedServer, recorder: Recorder, gate: Gate
) -> None:
    started = whoami(mcp, 1_000)
    for call in started:
        mcp.cancel(call)
    assert mcp.request("ping")["result"] == {}
    gate.allow(1_000)
    assert mcp.call("whoami") == EMPTY
    assert not set(started) & set(mcp.answered())
    if sys.platform == "linux":
        process = Path(f"/proc/{mcp.process.pid}")
        # the others read, wait for the end of input, for signals, and for the client's end; one more may be ending
        wait_until(lambda: len(list((process / "task").iterdir())) <= CONCURRENT + 4)
        assert open_descriptors(mcp.process.pid) <= CONCURRENT + 8


# progress and logging


def failing_once(recorder: Recorder) -> None:
    """The vault is busy at the first request."""
    told = iter([CannedResponse(503, b"{}")])
    recorder.answer = lambda _seen: next(told, CannedResponse())


def notifications_before(server: CheckedServer, request_id: int) -> list[Any]:
    """The notifications before a reply, which must be the next other message."""
    told = []
    while "method" in (message := server.read()):
        told.append(message)
    assert message["id"] == request_id
    return told


WARNING = {
    "jsonrpc": "2.0",
    "method": "notifications/message",
    "params": {
        "level": "warning",
        "logger": "sikkerkey-mcp",
        "data": "the vault answered 503; trying again in 0.2 s",
    },
}


def test_progress_increases_and_ends_with_the_answer(mcp: CheckedServer, recorder: Recorder) -> None:
    failing_once(recorder)
    call = mcp.start("tools/call", name="whoami", arguments={}, _meta={"progressToken": "p-1"})
    told = [message["params"] for message in notifications_before(mcp, call) if message != WARNING]
    assert told == [
        {"progressToken": "p-1", "progress": step, "message": f"asking the vault, attempt {step}"} for step in (1, 2)
    ]
    assert mcp.request("ping")["result"] == {}
    assert mcp.close() == 0
    assert mcp.read() is None


def test_without_a_token_there_is_no_progress_and_retries_are_logged(mcp: CheckedServer, recorder: Recorder) -> None:
    failing_once(recorder)
    assert notifications_before(mcp, mcp.start_call("whoami")) == [WARNING]


def test_a_higher_level_silences_warnings(mcp: CheckedServer, recorder: Recorder) -> None:
    failing_once(recorder)
    mcp.request("logging/setLevel", level="error")
    assert notifications_before(mcp, mcp.start_call("whoami")) == []


def test_level_debug_shows_every_call_without_its_arguments(mcp: CheckedServer, recorder: Recorder) -> None:
    mcp.request("logging/setLevel", level="debug")
    arguments = {"action": "rename", "machineId": "canary-id", "name": "canary name"}
    told = notifications_before(mcp, mcp.start_call("manage_machines", **arguments))
    assert [message["params"]["level"] for message in told] == ["debug"]
    assert told[0]["params"]["data"].startswith("manage_machines.rename: 200 in ")
    assert "canary" not in json.dumps(told)


# what a session looks like as a whole


def test_tools_list_is_small_and_the_same_bytes_each_time(mcp: CheckedServer) -> None:
    for _ in range(3):
        mcp.send({"jsonrpc": "2.0", "id": "list", "method": "tools/list"})
        mcp.reply("list")
        mcp.call("whoami")
    listings = [line for line in mcp.lines if b'"id":"list"' in line]
    assert listings == [listings[0]] * 3
    assert len(listings[0]) < 29_100
    mcp.send({"jsonrpc": "2.0", "id": "new", "method": "tools/list", "params": {"_meta": envelope()}})
    mcp.reply("new")
    assert len(mcp.lines[-1]) - len(listings[0]) < 200
    with CheckedServer(trusting_server.COMMAND) as other:
        other.initialize("2025-06-18")
        other.send({"jsonrpc": "2.0", "id": "list", "method": "tools/list"})
        other.reply("list")
        assert other.lines[-1] == listings[0]


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_the_vaults_failure_is_a_result(mcp: CheckedServer, recorder: Recorder, status: int) -> None:
    recorder.answer = lambda _seen: CannedResponse(status, b'{"error":"because"}')
    result = mcp.call("whoami")
    assert result.keys() == {"content", "isError"}
    assert result["content"][0]["text"].startswith(f'the vault answered {status}, saying "because"\nhint: ')


def test_the_networks_failure_is_a_result(home: Path) -> None:
    with loopback() as (_listener, url):
        pass  # the port is closed again
    make_slot(home, url)
    with CheckedServer(trusting_server.COMMAND) as server:
        server.initialize()
        result = server.call("manage_machines", action="rename", machineId="m", name="n")
        assert result["isError"] is True
        assert result["content"][0]["text"].startswith(f"the vault at {url} cannot be reached after 4 attempts")


def test_the_server_asks_the_client_nothing_and_announces_no_change(mcp: CheckedServer) -> None:
    mcp.request("logging/setLevel", level="debug")
    mcp.request("tools/list")
    mcp.call("whoami")
    assert mcp.close() == 0
    mcp.ended()
    methods = {json.loads(line).get("method") for line in mcp.lines}
    assert methods == {None, "notifications/message"}
