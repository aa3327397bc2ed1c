"""Many calls at once: how many run, who waits, and what cancelling, progress and logging do meanwhile."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_mcp
from tests.support import fast_server, sample_tools
from tests.support.faulty_vault import silent_port
from tests.support.harness import TIMEOUT_S, CannedResponse, ReceivedRequest, Recorder, make_slot
from tests.support.schema_check import CheckedServer, wait_until

AT_ONCE = 32
WAITING = 1_000
EMPTY = {"content": [{"type": "text", "text": "{}"}], "structuredContent": {}}


class Gate:
    """The vault, answering only as many requests as it has been allowed to."""

    def __init__(self, recorder: Recorder) -> None:
        self._allowed = threading.Semaphore(0)
        self._recorder = recorder
        recorder.answer = self._answer

    def _answer(self, _seen: ReceivedRequest) -> CannedResponse:
        self._allowed.acquire(timeout=TIMEOUT_S)
        return CannedResponse()

    def allow(self, count: int) -> None:
        """Lets that many more requests be answered."""
        for _ in range(count):
            self._allowed.release()

    def wait_for(self, count: int) -> None:
        """Until that many requests have arrived, and no more than that."""
        wait_until(lambda: len(self._recorder.seen) >= count)
        assert len(self._recorder.seen) == count


@pytest.fixture
def mcp(home: Path, recorder: Recorder) -> Iterator[CheckedServer]:
    make_slot(home, recorder.url)
    with CheckedServer() as server:
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
    """Starts so many calls; their ids."""
    return [server.start_call("whoami") for _ in range(count)]


def cancel(server: CheckedServer, request_id: Any) -> None:
    """Cancels a request; returns once the server knows."""
    server.cancel(request_id)
    assert server.request("ping")["result"] == {}


@contextmanager
def loopback() -> Iterator[tuple[socket.socket, str]]:
    """A listening socket and the URL that leads to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def read_request(connection: socket.socket) -> None:
    """Reads a request that has no body."""
    connection.settimeout(TIMEOUT_S)
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536)


# how many run


@pytest.mark.peer(11)
def test_32_calls_take_about_one_calls_time_and_32_connections(mcp: CheckedServer, recorder: Recorder) -> None:
    slow_s = 0.5

    def answer(_seen: ReceivedRequest) -> CannedResponse:
        time.sleep(slow_s)  # this is the slow API, not a wait for an outcome
        return CannedResponse()

    mcp.call("whoami")
    recorder.answer = answer
    begun_s = time.monotonic()
    replies = [mcp.reply(started) for started in whoami(mcp, AT_ONCE)]
    assert slow_s <= time.monotonic() - begun_s < 2 * slow_s
    assert [reply["result"] for reply in replies] == [EMPTY] * AT_ONCE
    assert recorder.connections <= AT_ONCE


def test_connections_are_used_again(mcp: CheckedServer, recorder: Recorder, gate: Gate) -> None:
    for wave in range(1, 4):
        started = whoami(mcp, AT_ONCE)
        gate.wait_for(wave * AT_ONCE)
        gate.allow(AT_ONCE)
        assert {mcp.reply(call)["id"] for call in started} == set(started)
    assert recorder.connections == AT_ONCE


def test_the_33rd_call_waits_its_turn(mcp: CheckedServer, gate: Gate) -> None:
    started = whoami(mcp, AT_ONCE + 1)
    gate.wait_for(AT_ONCE)
    assert mcp.request("ping")["result"] == {}
    gate.wait_for(AT_ONCE)
    gate.allow(1)
    gate.wait_for(AT_ONCE + 1)
    gate.allow(AT_ONCE)
    assert [mcp.reply(call)["result"] for call in started] == [EMPTY] * (AT_ONCE + 1)


def test_waiting_calls_are_carried_out_in_the_order_they_came(
    mcp: CheckedServer, recorder: Recorder, gate: Gate
) -> None:
    whoami(mcp, AT_ONCE)
    gate.wait_for(AT_ONCE)
    machines = [f"machine-{number}" for number in range(8)]
    for machine in machines:
        mcp.start_call("manage_machines", action="get", machineId=machine)
    for number in range(1, len(machines) + 1):
        gate.allow(1)
        gate.wait_for(AT_ONCE + number)
    assert [seen.path for seen in recorder.seen[AT_ONCE:]] == [f"/v1/ai/machines/{machine}" for machine in machines]


@pytest.mark.peer(11)
def test_requests_are_answered_while_calls_run(mcp: CheckedServer, gate: Gate) -> None:
    started = whoami(mcp, AT_ONCE + 8)
    gate.wait_for(AT_ONCE)
    assert len(mcp.request("tools/list")["result"]["tools"]) == 18
    assert mcp.request("logging/setLevel", level="error")["result"] == {}
    assert mcp.request("no/such")["error"]["code"] == -32601
    gate.allow(len(started))


def test_ping_is_answered_while_calls_run(mcp: CheckedServer, gate: Gate) -> None:
    whoami(mcp, AT_ONCE + 8)
    gate.wait_for(AT_ONCE)
    begun_s = time.monotonic()
    assert [mcp.request("ping")["result"] for _ in range(20)] == [{}] * 20
    assert time.monotonic() - begun_s < 0.5
    many = [mcp.start("ping") for _ in range(2_000)]
    assert [mcp.read() for _ in many] == [{"jsonrpc": "2.0", "id": ping, "result": {}} for ping in many]


def test_more_than_1000_waiting_calls_are_refused_and_the_others_answered(mcp: CheckedServer, gate: Gate) -> None:
    started = whoami(mcp, AT_ONCE)
    gate.wait_for(AT_ONCE)  # so that none of them waits
    waiting = whoami(mcp, WAITING)
    surplus = whoami(mcp, 3)
    text = "too many calls are waiting already; nothing was sent: wait for some to be answered"
    refused = {"content": [{"type": "text", "text": text}], "isError": True}
    assert [mcp.reply(call)["result"] for call in surplus] == [refused] * 3
    gate.allow(AT_ONCE + WAITING)
    assert [mcp.reply(call)["result"] for call in started + waiting] == [EMPTY] * (AT_ONCE + WAITING)
    gate.wait_for(AT_ONCE + WAITING)


def test_waiting_calls_are_bounded_by_bytes_too(mcp: CheckedServer, gate: Gate) -> None:
    whoami(mcp, AT_ONCE)
    gate.wait_for(AT_ONCE)
    large = "x" * 3_000_000
    fitting = sikkerkey_mcp.WAITING_MAX_BYTES // 3_000_200
    started = [mcp.start("tools/call", name="whoami", arguments={"x": large}) for _ in range(fitting + 1)]
    assert "too many calls are waiting" in mcp.reply(started[-1])["result"]["content"][0]["text"]
    gate.allow(AT_ONCE)
    assert "unknown argument x" in mcp.reply(started[-2])["result"]["content"][0]["text"]


def test_a_refused_call_does_not_block_its_id(mcp: CheckedServer, gate: Gate) -> None:
    whoami(mcp, AT_ONCE)
    gate.wait_for(AT_ONCE)
    whoami(mcp, WAITING)
    for _ in range(2):
        mcp.send({"jsonrpc": "2.0", "id": "again", "method": "tools/call", "params": {"name": "whoami"}})
        assert mcp.reply("again")["result"]["isError"] is True


def test_32_tools_that_break_leave_32_workers(fixtures: CheckedServer) -> None:
    broken = [fixtures.start_call("break") for _ in range(2 * AT_ONCE)]
    assert [fixtures.reply(call)["error"] for call in broken] == [
        {"code": -32603, "message": "internal error (LookupError)"}
    ] * (2 * AT_ONCE)
    assert fixtures.call("echo", a=1)["structuredContent"] == {"a": 1}
    assert fixtures.close() == 0
    assert fixtures.ended() == (0, b"")


# batches


def test_a_batch_is_answered_as_one_when_its_last_call_has_ended(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    with CheckedServer() as server:
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
    with CheckedServer() as server:
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
    *running, waiting = whoami(mcp, AT_ONCE + 1)
    gate.wait_for(AT_ONCE)
    cancel(mcp, waiting)
    gate.allow(AT_ONCE + 1)
    assert [mcp.reply(call)["result"] for call in running] == [EMPTY] * AT_ONCE
    assert mcp.call("whoami") == EMPTY  # had the cancelled one been sent, there would be two more
    gate.wait_for(AT_ONCE + 1)
    assert waiting not in mcp.answered()


def test_a_cancelled_calls_worker_is_free_at_once(mcp: CheckedServer, gate: Gate) -> None:
    *running, _waiting = whoami(mcp, AT_ONCE + 1)
    gate.wait_for(AT_ONCE)
    begun_s = time.monotonic()
    mcp.cancel(running[5])
    gate.wait_for(AT_ONCE + 1)  # the others are still unanswered
    assert time.monotonic() - begun_s < 0.5


def test_a_cancelled_calls_connection_is_closed(home: Path) -> None:
    with loopback() as (listener, url):
        make_slot(home, url)
        with CheckedServer() as server:
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
def test_cancelled_calls_that_still_connect_make_room_at_once(home: Path, recorder: Recorder) -> None:
    names = home / "names"
    env = {**os.environ, "TEST_NAMES": str(names), "TEST_SPEED": "1"}
    make_slot(home, recorder.url.replace("127.0.0.1", "localhost"))
    with silent_port() as port, CheckedServer(fast_server.COMMAND, env=env) as server:
        names.write_text(f"localhost 127.0.0.1 {port}\n")
        server.initialize()
        others = connecting_to(port)  # those that keep it silent
        stuck = whoami(server, AT_ONCE)
        wait_until(lambda: connecting_to(port) >= others + AT_ONCE)
        names.write_text(f"localhost 127.0.0.1 {recorder.url.rpartition(':')[2]}\n")
        begun_s = time.monotonic()
        for call in stuck:
            server.cancel(call)
        assert server.call("whoami") == EMPTY
        assert time.monotonic() - begun_s < 5.0  # connecting is given up after 10 s
        assert not set(stuck) & set(server.answered())


def connecting_to(port: int) -> int:
    """How many connections to a port of this machine nobody has taken up, as Linux lists them."""
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
        # the others read, wait for the end of input, for signals, and for the client's end
        assert len(list((process / "task").iterdir())) <= AT_ONCE + 4
        assert len(list((process / "fd").iterdir())) <= AT_ONCE + 8


# progress and logging


def failing_once(recorder: Recorder) -> None:
    """The vault is busy at the first request."""
    told = iter([CannedResponse(503, b"{}")])
    recorder.answer = lambda _seen: next(told, CannedResponse())


def told_before(server: CheckedServer, request_id: int) -> list[Any]:
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
    told = [message["params"] for message in told_before(mcp, call) if message != WARNING]
    assert told == [
        {"progressToken": "p-1", "progress": step, "message": f"asking the vault, attempt {step}"} for step in (1, 2)
    ]
    assert mcp.request("ping")["result"] == {}
    assert mcp.close() == 0
    assert mcp.read() is None


def test_without_a_token_no_progress_is_told_and_retries_are_logged(mcp: CheckedServer, recorder: Recorder) -> None:
    failing_once(recorder)
    assert told_before(mcp, mcp.start_call("whoami")) == [WARNING]


def test_a_higher_level_silences_warnings(mcp: CheckedServer, recorder: Recorder) -> None:
    failing_once(recorder)
    mcp.request("logging/setLevel", level="error")
    assert told_before(mcp, mcp.start_call("whoami")) == []


def test_level_debug_shows_every_call_without_its_arguments(mcp: CheckedServer, recorder: Recorder) -> None:
    mcp.request("logging/setLevel", level="debug")
    arguments = {"action": "rename", "machineId": "canary-id", "name": "canary name"}
    told = told_before(mcp, mcp.start_call("manage_machines", **arguments))
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
    assert len(listings[0]) < 24_000
    with CheckedServer() as other:
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
        pass  # nobody listens there any more
    make_slot(home, url)
    with CheckedServer() as server:
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
