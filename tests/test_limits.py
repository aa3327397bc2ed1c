"""How often a model may call: a loop is stopped, and told when to go on."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

import sikkerkey_mcp
import sikkerkey_options
from sikkerkey_mcp import Context, RateLimit, VaultTools
from sikkerkey_options import OPTIONS, Limit, PersonPolicy, read_limits
from tests.support.harness import SOURCE_COMMAND, Recorder, Server, make_slot
from tests.support.shell import Shell
from tests.support.table_calls import BY_NAME, StubApi, reply

CALLS, DESTRUCTIVE = "--max-calls", "--max-destructive"


class Limited:
    """The tools of a server with limits, and a clock."""

    def __init__(self, person: PersonPolicy | None = None, **limits: tuple[int, float]) -> None:
        self.api, self.now_s = StubApi(reply(body=b'{"ok":true}')), 1_000.0
        each = {f"--max-{name}": Limit(f"--max-{name}", *limit) for name, limit in limits.items()}
        agent = sikkerkey_mcp.AgentConnection() if person else None
        self.tools = VaultTools(
            lambda: self.api, limits=each, monotonic_s=lambda: self.now_s, person=person, agent=agent
        )  # fmt: skip

    def call(self, name: str, **arguments: Any) -> str:
        """The refusal; empty if there is none."""
        return self.called(name, arguments)

    def called(self, name: str, arguments: dict[str, Any]) -> str:
        """The same."""
        tool, _, action = name.partition(".")
        result = self.tools.call(tool, {"action": action, **arguments} if action else {}, Context())
        return str(result["content"][0]["text"]) if "isError" in result else ""

    def minimal(self, name: str, **more: Any) -> str:
        """The same for a call with the arguments that the action requires."""
        given = {**BY_NAME[name].minimal, **more}
        given.pop("action")
        return self.called(name, given)


# the limits that are set


def test_limits_by_default() -> None:
    assert read_limits({}) == {CALLS: Limit(CALLS, 120, 60.0), DESTRUCTIVE: Limit(DESTRUCTIVE, 60, 3_600.0)}


def test_options_take_precedence_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_MAX_CALLS", "7/hour")
    monkeypatch.setenv("SIKKERKEY_MAX_DESTRUCTIVE", "none")
    assert read_limits({}) == {CALLS: Limit(CALLS, 7, 3_600.0)}
    _, options = sikkerkey_options.parse_serve_options(["--max-calls", "100000/minute", "--max-destructive=5/day"])
    expected = {CALLS: Limit(CALLS, 100_000, 60.0), DESTRUCTIVE: Limit(DESTRUCTIVE, 5, 86_400.0)}
    assert read_limits(options) == expected


@pytest.mark.parametrize(
    "text", ["", " ", "120", "0/minute", "-1/hour", "1.5/hour", "100001/minute", "5/second", "5/", "/minute", "many"]
)
def test_a_wrong_limit_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in (CALLS, DESTRUCTIVE):
        variable = OPTIONS[option].variable
        with pytest.raises(sikkerkey_mcp.ConfigError, match=f"^{option} must be a number of calls"):
            read_limits({option: text})
        with monkeypatch.context() as patched:
            patched.setenv(variable, text)
            with pytest.raises(sikkerkey_mcp.ConfigError, match=f"^{variable} must be a number of calls"):
                read_limits({})


def test_config_writes_limits_and_refuses_wrong_ones(shell: Shell) -> None:
    words = '"--max-calls",\n        "9/minute",\n        "--max-destructive",\n        "2/hour"'
    assert words in shell("config", "generic", "--max-calls", "9/minute", "--max-destructive", "2/hour").out
    ran = shell("config", "generic", "--max-calls", "9")
    assert (ran.status, ran.out) == (2, "")


# counting


def test_a_loop_is_refused_and_told_when_to_go_on() -> None:
    limited = Limited(calls=(3, 60.0))
    assert [limited.call("whoami") for _ in range(3)] == ["", "", ""]
    limited.now_s += 20.5
    expected = "nothing was sent: this server carries out 3 calls each minute (--max-calls)\nhint: go on in 40 s; "
    assert limited.call("whoami").startswith(expected)
    assert len(limited.api.sent) == 3
    limited.now_s += 39.4
    assert "go on in 1 s" in limited.call("whoami")
    limited.now_s += 1
    assert limited.call("whoami") == ""


def test_refused_calls_do_not_postpone_the_next() -> None:
    limited = Limited(calls=(1, 60.0))
    for _ in range(59):
        limited.call("whoami")
        limited.now_s += 1
    limited.now_s += 1
    assert limited.call("whoami") == ""


def test_the_hint_is_true() -> None:
    """Whoever waits as long as the hint says is served, also in the fractions of a second."""
    for step in range(40):
        limited = Limited(calls=(1, 60.0))
        limited.now_s += step / 7
        limited.call("whoami")
        limited.now_s += step * 1.5
        wait_s = re.search(r"go on in ([0-9]+) s", limited.call("whoami"))
        limited.now_s += int(wait_s[1]) if wait_s else 0
        assert limited.call("whoami") == ""


def test_destructive_calls_have_a_limit_of_their_own() -> None:
    limited = Limited(destructive=(2, 3_600.0))
    for _ in range(5):
        assert limited.minimal("manage_secrets.list") == ""
        assert limited.minimal("manage_projects.delete", preview=True, confirmName=None) == ""
        assert limited.minimal("manage_secrets.create") == ""
    assert [limited.minimal("manage_secrets.rotate") for _ in range(2)] == ["", ""]
    sent = len(limited.api.sent)
    refusal = limited.minimal("manage_secrets.delete")
    assert refusal.startswith("nothing was sent: this server carries out 2 destructive calls each hour")
    assert "go on in 3,601 s" in refusal
    assert len(limited.api.sent) == sent
    assert limited.minimal("manage_secrets.list") == ""


def test_a_call_with_wrong_arguments_uses_up_no_destructive_call() -> None:
    limited = Limited(destructive=(1, 3_600.0))
    for _ in range(3):
        assert "are required" in limited.call("manage_secrets.delete")
    assert limited.minimal("manage_secrets.delete") == ""


def test_no_person_is_asked_beyond_the_limit(home: Any) -> None:
    make_slot(home, "https://vault.example")
    limited = Limited(PersonPolicy(browser="never", confirm="destructive"), destructive=(1, 3_600.0))
    limited.tools._limits[DESTRUCTIVE].take()
    assert "nothing was sent" in limited.minimal("manage_secrets.delete")
    assert limited.tools.person_needed()._tickets.waiting() == []


def test_a_call_that_waits_for_a_person_uses_up_no_destructive_call(home: Any) -> None:
    make_slot(home, "https://vault.example")
    limited = Limited(PersonPolicy(browser="never", confirm="destructive"), destructive=(1, 3_600.0))
    for number in range(3):
        refusal = limited.minimal("manage_team.invite", email=f"{number}@example.org")
        assert "this needs a person's confirmation; nothing was done" in refusal


def test_threads_together_stay_within_a_limit() -> None:
    limit, passed = RateLimit(Limit(CALLS, 50, 60.0), lambda: 0.0), []

    def work() -> None:
        for _ in range(50):
            try:
                limit.take()
            except sikkerkey_mcp.ArgumentError:
                continue
            passed.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 50


def test_the_server_has_the_limits_of_its_options(home: Any, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    with Server([*SOURCE_COMMAND, "serve", "--max-calls", "1/day"]) as server:
        server.initialize()
        results = [server.request("tools/call", name="whoami", arguments={})["result"] for _ in range(2)]
    assert [result.get("isError", False) for result in results] == [False, True]
    assert "go on in " in results[1]["content"][0]["text"]
    assert len(recorder.seen) == 1


def test_a_review_and_a_long_list_count_once_for_each_call() -> None:
    """Sessions of people: a review asks the vault many times, and is one call."""
    limited = Limited(calls=(1, 60.0))
    assert limited.called("review.find", {"name": "x"}) == ""
    assert len(limited.api.sent) > 1 or limited.api.looked
