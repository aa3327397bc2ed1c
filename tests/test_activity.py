"""The record of what an assistant did: what is in it, what never is, and how it is read."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_activity
import sikkerkey_mcp
import sikkerkey_options
from sikkerkey_activity import ActivityLog, Reader, file_names
from sikkerkey_mcp import AgentConnection, Context, VaultTools
from sikkerkey_options import PersonPolicy
from tests.support.harness import AGENT_ID, SOURCE_COMMAND, Recorder, Server, make_slot
from tests.support.in_process_client import InProcessClient, call, envelope, modern, opening
from tests.support.shell import Shell
from tests.support.table_calls import ROWS, StubApi, reply

MARK = "correct-horse-battery-staple"
NOW_MS = 1_767_225_600_000
NOW = "2026-01-01T00:00:00.000Z"


@pytest.fixture
def slot(home: Path) -> Path:
    make_slot(home, "https://vault.example")
    return home / ".sikkerkey" / "agents" / AGENT_ID


def logging_tools(answer: sikkerkey_mcp.Answer, person: PersonPolicy | None = None) -> VaultTools:
    """The tools of a server that records its calls; the vault gives one answer."""
    agent = AgentConnection()
    agent.identity()
    api = StubApi(answer)
    return VaultTools(lambda: api, now_s=lambda: NOW_MS / 1000, agent=agent, person=person, logs_activity=True)


def entries(slot: Path) -> list[Any]:
    """Every entry of the record, without the durations."""
    found = [json.loads(line) for line in (slot / "activity.jsonl").read_text().splitlines()]
    assert all(isinstance(entry.pop("ms"), int) for entry in found)
    return found


# what is recorded


def test_a_call_is_recorded_with_its_ids_and_its_client(slot: Path) -> None:
    client = InProcessClient(tools=logging_tools(reply(body=b"[]")))
    client.send(call("manage_secrets", action="list", projectId="proj_1", search="words"))
    expected = {"time": NOW, "tool": "manage_secrets", "action": "list", "client": "tests 1"}
    assert entries(slot) == [{**expected, "ids": {"projectId": ["proj_1"]}, "outcome": "ok"}]
    assert stat.S_IMODE((slot / "activity.jsonl").stat().st_mode) == 0o600


def test_a_client_of_the_newest_revision_is_named_too(slot: Path) -> None:
    client = InProcessClient("", logging_tools(reply(body=b"{}")))
    info = {"name": "evil\u202e\n" + "x" * 500, "version": "7" * 50}
    client.send(modern("tools/call", meta=envelope(clientInfo=info), name="whoami", arguments={}))
    (entry,) = entries(slot)
    assert entry["client"] == "evil<U+202E><U+000A>" + "x" * 34 + "... " + "7" * 40 + "..."


@pytest.mark.parametrize("info", [None, 7, [], {}, {"name": 7}, {"name": " ", "version": ""}])
def test_a_client_without_a_name_is_served(slot: Path, info: Any) -> None:
    client = InProcessClient("", logging_tools(reply(body=b"{}")))
    message = opening()
    message["params"]["clientInfo"] = info
    client.session.handle(message)
    made = client.session.handle(call("whoami"))
    assert isinstance(made, sikkerkey_mcp.Call)
    made.run()
    assert [(entry["tool"], "client" in entry) for entry in entries(slot)] == [("whoami", False)]


def test_each_way_to_end_has_its_outcome(slot: Path) -> None:
    cases: list[tuple[int, dict[str, Any], str]] = [
        (200, {"action": "list"}, "ok"),
        (403, {"action": "list"}, "403"),
        (500, {"action": "list"}, "500"),
        (200, {"action": "list", "projectId": 7}, "refused"),
        (200, {"action": MARK}, "refused"),
        (200, {"action": ["list"]}, "refused"),
        (200, {}, "refused"),
    ]
    for status, arguments, _ in cases:
        logging_tools(reply(status, b"[]")).call("manage_projects", arguments, Context())
    assert [entry["outcome"] for entry in entries(slot)] == [outcome for *_, outcome in cases]
    assert [entry["action"] for entry in entries(slot)] == ["list"] * 4 + [""] * 3


def test_a_failure_and_a_cancelled_call_are_recorded(slot: Path) -> None:
    def failing() -> sikkerkey_mcp.Api:
        raise sikkerkey_mcp.ServiceError("no answer")

    tools = logging_tools(reply())
    tools._connect = failing
    cancelled = Context()
    cancelled.cancellation.set()
    tools.call("whoami", {}, Context())
    tools.call("whoami", {}, cancelled)
    assert [entry["outcome"] for entry in entries(slot)] == ["failed", "cancelled"]


def test_a_read_of_a_resource_is_recorded(slot: Path) -> None:
    logging_tools(reply(body=b"{}")).resources.contents("sikkerkey://whoami", Context())
    assert [entry["tool"] for entry in entries(slot)] == ["whoami"]


def test_what_a_person_did_is_recorded(slot: Path) -> None:
    tools = logging_tools(reply(body=b'{"id":"x"}'), PersonPolicy(browser="never"))
    people = tools.person_needed()
    client = InProcessClient(tools=tools)
    shown = client.send(call("manage_machines", action="revoke", machineId="m_1"))
    assert shown["result"]["isError"], shown
    (waiting,) = entries(slot)
    assert (waiting["outcome"], waiting["person"]) == ("waiting", "asked")
    (ticket,) = people._tickets.waiting()
    people.carry_out(ticket.code, {})
    client.send(call("manage_secrets", action="await_person", code=ticket.code))
    _, sent, awaited = entries(slot)
    assert (sent["action"], sent["ids"], sent["outcome"]) == ("revoke", {"machineId": ["m_1"]}, "ok")
    assert (sent["person"], awaited["action"], awaited["person"]) == ("confirmed", "await_person", "confirmed")


def test_no_value_and_no_text_of_any_action_is_recorded(slot: Path) -> None:
    """Every argument that is no id holds the mark, and so does the vault's answer."""
    for row in ROWS:
        arguments: dict[str, Any] = {"action": row.action.name}
        arguments.update({arg.name: f"{MARK} text" for arg in row.action.args})
        logging_tools(reply(body=json.dumps({"value": MARK}).encode())).call(row.tool.name, arguments, Context())
        logging_tools(reply(500, MARK.encode())).call(row.tool.name, {**row.minimal}, Context())
    written = (slot / "activity.jsonl").read_text()
    assert MARK not in written
    assert len(written.splitlines()) >= 2 * len(ROWS)
    names = {arg.name for row in ROWS for arg in row.action.args if arg.kind in ("id", "ids")}
    assert {name for entry in entries(slot) for name in entry.get("ids", {})} <= names


def test_ids_are_bounded(slot: Path) -> None:
    ids = [f"p_{number}" for number in range(500)]
    arguments = {"action": "create", "projectIds": ids, "secretIds": "p" * 5000}
    logging_tools(reply()).call("manage_machines", arguments, Context())
    assert (slot / "activity.jsonl").stat().st_size < 1_000


# the switch


@pytest.mark.parametrize(("options", "text", "expected"), [
    ([], None, True), ([], "1", True), ([], "0", False), ([], "off", False), (["--no-activity-log"], None, False),
    (["--no-activity-log"], "1", False),
])  # fmt: skip
def test_switch(options: list[str], text: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if text is not None:
        monkeypatch.setenv("SIKKERKEY_ACTIVITY_LOG", text)
    assert sikkerkey_options.activity_is_logged(sikkerkey_options.parse_serve_options(options)[1]) is expected


@pytest.mark.parametrize("text", ["perhaps", "2"])
def test_a_wrong_switch_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_ACTIVITY_LOG", text)
    with pytest.raises(sikkerkey_mcp.ConfigError, match="SIKKERKEY_ACTIVITY_LOG must be one of"):
        sikkerkey_options.activity_is_logged({})


def test_the_server_records_unless_it_is_switched_off(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    slot = home / ".sikkerkey" / "agents" / AGENT_ID
    for options in (["--no-activity-log"], []):
        with Server([*SOURCE_COMMAND, "serve", *options]) as server:
            server.initialize()
            server.request("tools/call", name="whoami", arguments={})
        assert (slot / "activity.jsonl").exists() is (not options)
    assert [entry["client"] for entry in entries(slot)] == ["tests 1"]


def test_config_passes_the_switch_on(shell: Shell, slot: Path) -> None:
    assert slot.exists()
    assert '"--no-activity-log"' in shell("config", "generic", "--no-activity-log").out


# the file


class Told:
    """What an ActivityLog tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.log = ActivityLog(self.lines.append)


def add_one(told: Told, directory: Path, number: int = 0) -> None:
    told.log.add(str(directory), NOW_MS + number, {"tool": "t", "outcome": "ok", "n": number})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_what_cannot_be_written_is_told_once_and_fails_nothing(tmp_path: Path) -> None:
    def missing(directory: Path) -> None:
        directory.rmdir()

    makers: list[Callable[[Path], None]] = [
        missing,
        lambda directory: os.mkfifo(directory / "activity.jsonl"),
        lambda directory: (directory / "activity.jsonl").mkdir(),
        lambda directory: (directory / "activity.jsonl").symlink_to(tmp_path / "victim"),
    ]
    for number, make in enumerate(makers):
        directory, told = tmp_path / str(number), Told()
        directory.mkdir()
        make(directory)
        add_one(told, directory)
        add_one(told, directory)
        assert [line.partition(": ")[2].partition(": ")[0] for line in told.lines] == [
            "the activity log cannot be written"
        ], number
    assert not (tmp_path / "victim").exists()


def test_a_full_disk_fails_nothing(slot: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    tools = logging_tools(reply(body=b"{}"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert "isError" not in tools.call("whoami", {}, Context())
        assert "isError" not in tools.call("whoami", {}, Context())
    assert capsys.readouterr().err == ("sikkerkey-mcp: the activity log cannot be written: No space left on device\n")
    tools.call("whoami", {}, Context())
    assert len(entries(slot)) == 1


def test_stderr_that_nobody_reads_fails_nothing(tmp_path: Path) -> None:
    def broken(_line: str) -> None:
        raise BrokenPipeError

    ActivityLog(broken).add(str(tmp_path / "missing"), NOW_MS, {})


def test_the_rest_of_a_torn_line_does_not_swallow_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, told = os.write, Told()
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:9]))
        add_one(told, tmp_path)
    add_one(told, tmp_path, 1)
    assert len(told.lines) == 1
    assert [entry["time"] for entry in Reader(str(tmp_path)).new_entries()] == ["2026-01-01T00:00:00.001Z"]


def test_the_record_is_rotated_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_activity, "FILE_MAX_BYTES", 500)
    (tmp_path / "activity.mine.jsonl").write_text("mine")
    told = Told()
    for number in range(200):
        add_one(told, tmp_path, number)
    names = file_names(str(tmp_path))
    assert (told.lines, len(names), names[-1]) == ([], sikkerkey_activity.FULL_FILES_MAX + 1, "activity.jsonl")
    assert max((tmp_path / name).stat().st_size for name in names) <= 500
    times = [entry["time"] for entry in Reader(str(tmp_path)).new_entries()]
    assert times == sorted(times)
    assert times[-1] == "2026-01-01T00:00:00.199Z"
    assert (tmp_path / "activity.mine.jsonl").read_text() == "mine"


def test_a_file_that_cannot_be_renamed_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_paths: str) -> None:
        raise PermissionError

    monkeypatch.setattr(sikkerkey_activity, "FILE_MAX_BYTES", 500)
    monkeypatch.setattr(os, "rename", busy)
    told = Told()
    for number in range(100):
        add_one(told, tmp_path, number)
    assert (tmp_path / "activity.jsonl").stat().st_size <= 1_000
    assert told.lines == ["sikkerkey-mcp: the activity log cannot be written: it is full and cannot be renamed"]


def test_several_servers_lose_no_entry(tmp_path: Path) -> None:
    """Each has a lock of its own, as processes do."""

    def work(first: int) -> None:
        told = Told()
        for number in range(first, first + 200):
            add_one(told, tmp_path, number)
        assert told.lines == []

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 800, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "activity.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["n"] for line in lines) == list(range(800))


# `log`


def write_record(slot: Path, *found: Any) -> None:
    (slot / "activity.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in found))


def test_log_shows_the_record_and_cleans_it(shell: Shell, slot: Path) -> None:
    hostile = "\x1b]0;x\x07\u202e"
    write_record(
        slot,
        {
            "time": NOW,
            "tool": "manage_secrets",
            "action": "list",
            "ids": {"projectId": ["p_1"]},
            "outcome": "ok",
            "ms": 7,
        },
        {"time": NOW, "client": hostile, "tool": hostile, "ids": {hostile: [hostile]}, "person": hostile, "extra": 1},
        {"time": 7, "tool": "no entry"},
        "no entry",
    )
    ran = shell("log")
    first, second = ran.out.splitlines()
    assert first == f"{NOW}  ok              7 ms  -  manage_secrets.list  projectId=p_1"
    assert ran.out.replace("\n", "").isprintable()
    assert "<U+001B>]0;x<U+0007><U+202E>" in second
    as_json = [json.loads(line) for line in shell("log", "--json").out.splitlines()]
    assert as_json[0] == {
        "time": NOW, "tool": "manage_secrets", "action": "list", "outcome": "ok", "ids": {"projectId": ["p_1"]}, "ms": 7
    }  # fmt: skip
    assert shell("log", "--json").out.replace("\n", "").isprintable()
    assert "extra" not in as_json[1]


def test_log_since_a_time(shell: Shell, slot: Path) -> None:
    write_record(slot, {"time": NOW, "tool": "a"}, {"time": "2026-01-02T00:00:00.000Z", "tool": "b"}, {"time": "?"})
    assert [line.split()[-1] for line in shell("log", "--since", "2026-01-02").out.splitlines()] == ["b"]
    assert shell("log", "--since", "-1m").out == shell("log", "--json", "--since=-1m").out
    ran = shell("log", "--since", "2099-01-01")
    assert (ran.status, ran.out, ran.err) == (0, "", f"no calls are recorded since then for agent {AGENT_ID}\n")
    assert shell("log", "--since", "1m").out == shell("log", "--since", "-1m").out
    ran = shell("log", "--since", "last week")
    assert (ran.status, ran.out) == (2, "")
    assert "--since must be a time" in ran.err


def test_log_follows(shell: Shell, slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, rounds = Told(), iter([1, 2, None])
    add_one(told, slot, 0)

    def pause(_seconds: float) -> None:
        number = next(rounds)
        if number is None:
            raise KeyboardInterrupt
        with (slot / "activity.jsonl").open("a") as file:
            file.write('{"time": "half')  # a line that is still being written
        if number == 2:
            (slot / "activity.jsonl").rename(slot / f"activity.{number:019}.jsonl")
        told.log._is_torn = True
        add_one(told, slot, number)

    monkeypatch.setattr(time, "sleep", pause)
    ran = shell("log", "--follow", "--json")
    assert ran.status == 130
    assert [json.loads(line)["time"][-4:-1] for line in ran.out.splitlines()] == ["000", "001", "002"]


def test_log_without_a_record_or_an_agent(shell: Shell, home: Path) -> None:
    assert shell("log").err.startswith("sikkerkey-mcp: error: no agent is installed on this computer")
    make_slot(home, "https://vault.example")
    assert shell("log") == (0, "", f"no calls are recorded for agent {AGENT_ID}\n")


def test_log_reads_no_link(shell: Shell, slot: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text(json.dumps({"time": NOW, "tool": "victim"}))
    (slot / "activity.jsonl").symlink_to(tmp_path / "victim")
    ran = shell("log")
    assert (ran.status, ran.out) == (1, "")


def test_revoke_deletes_the_record_and_no_other_file(shell: Shell, slot: Path) -> None:
    for name in ("activity.jsonl", "activity.1767225600000000000.jsonl", "activity.mine.jsonl"):
        (slot / name).write_text("{}\n")
    assert shell("revoke", "--yes").status == 0
    assert [path.name for path in slot.iterdir()] == ["activity.mine.jsonl"]
