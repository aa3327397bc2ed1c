"""Marked values are written with every action that takes plaintext, then searched for wherever others can look."""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_mcp
import sikkerkey_refusals
from tests.support import faulty_vault
from tests.support.faulty_vault import Act, Authority, FaultyVault, Wire
from tests.support.harness import (
    ARCHIVE_COMMAND,
    TIMEOUT_S,
    CannedResponse,
    ReceivedRequest,
    Recorder,
    Server,
    make_slot,
)
from tests.support.leak_search import (
    ALONE,
    MARK,
    PROJECT,
    SECRET,
    WRITES,
    SideEffects,
    assert_unmarked,
    by_effect,
    call_verbosely,
    close_and_read,
    effects,
    found,
    on_linux,
    plaintext_rows,
    quick_command,
    source_env,
    spellings,
    verbose_server,
)
from tests.support.local_vault import LocalVault, install
from tests.support.schema_check import wait_until
from tests.support.table_calls import BY_NAME, ROWS, Row, for_each

__all__ = ["effects"]  # a fixture

# the search itself


def test_every_plaintext_argument_is_written() -> None:
    assert {f"{tool}.{arguments['action']}" for tool, arguments in WRITES.values()} == plaintext_rows()


@for_each(spellings(MARK))
def test_search_finds_a_planted_value(form: str) -> None:
    assert found(f"a line of {form} in a log".encode(), [MARK])
    assert found(b"\0" + f"memory with {MARK}".encode("utf-16-le"), [MARK])


@on_linux
@pytest.mark.parametrize("leak", ["print", "a file", "an argument", "the environment", "the answer", "nothing"])
def test_search_finds_a_server_that_leaks(home: Path, effects: SideEffects, recorder: Recorder, leak: str) -> None:
    make_slot(home, recorder.url)
    code = {
        "print": "print(given)",
        "a file": "open(os.environ['TMPDIR'] + '/x', 'w').write(str(given['value']))",
        "an argument": "start([*wait, given['value']])",
        "the environment": "start(wait, env={'V': given['value']})",
        "the answer": "raise m.ArgumentError(given['value'].encode().hex())",
        "nothing": "pass",
    }[leak]
    patch = f"def leak(tool, action, *rest):\n given = check(tool, action, *rest)\n {code}\n return given"
    imports = "import functools, os, subprocess as s, sys, sikkerkey_mcp as m"
    start = "start = functools.partial(s.Popen, stdin=s.PIPE, stdout=s.DEVNULL, stderr=s.DEVNULL)"
    wait = "wait = [sys.executable, '-c', 'import sys; sys.stdin.read()']"  # until the server has ended
    program = f"{imports}\n{start}\n{wait}\ncheck = m.check_arguments\n{patch}\nm.check_arguments = leak\nm.main([])"
    recorder.answer = effects.watching(lambda _seen: CannedResponse())
    with verbose_server([sys.executable, "-c", program], source_env()) as server:
        call_verbosely(server, "manage_secrets", {**WRITES["update_value"][1]})
        close_and_read(server)
    assert bool(found(effects.of(server), [MARK])) == (leak != "nothing")


# answers that repeat the value


def echoes(seen: ReceivedRequest) -> Iterator[CannedResponse]:
    """Answers that repeat the request in many ways."""
    body = seen.json()
    text = seen.body.decode()
    spelled = spellings(MARK)
    for status in (200, 201, 400, 401, 403, 404, 409, 413, 418, 422, 423, 429, 451, 500, 502, 503, 504, 507):
        yield CannedResponse(status, json.dumps({"error": f"bad input {text}", "id": "sk_1", "echo": body}).encode())
        members = {"error": f"value {MARK} is weak", MARK: [MARK, {"x": MARK}]}
        yield CannedResponse(status, json.dumps(members, ensure_ascii=False).encode())
        yield CannedResponse(
            status, json.dumps({"error": " ".join(spelled), "requiredScopes": [MARK], "all": spelled}).encode()
        )
        yield CannedResponse(status, seen.body)
    yield CannedResponse(200, f"not JSON: {text}".encode(), {"Content-Type": "text/plain"})
    yield CannedResponse(500, f"<pre>{text}</pre>".encode(), {"Content-Type": "text/html"})
    yield CannedResponse(302, b"{}", {"Location": "/x?" + urllib.parse.quote(MARK)})
    yield CannedResponse(401, b"{}", {"Date": urllib.parse.quote(MARK), "Retry-After": urllib.parse.quote(MARK)})


def api_answering(response: CannedResponse) -> sikkerkey_mcp.Api:
    """An Api whose vault always gives the same answer."""

    class Fixed(sikkerkey_mcp.Api):
        def send(
            self, request: sikkerkey_mcp.Request, *, safe: bool, context: sikkerkey_mcp.Context
        ) -> sikkerkey_mcp.Answer:
            return sikkerkey_mcp.Answer(
                response.status, {name.lower(): value for name, value in response.headers.items()}, response.body
            )

    return Fixed("http://127.0.0.1:1", lambda _request: {})


@pytest.mark.parametrize("write", WRITES)
def test_echoed_value_is_cut_out_of_every_answer(write: str) -> None:
    tool, arguments = WRITES[write]
    action = sikkerkey_mcp.find_action(next(t for t in sikkerkey_mcp.TOOLS if t.name == tool), arguments)
    request = sikkerkey_mcp.build_request(
        action, {name: value for name, value in arguments.items() if name != "action"}
    )
    assert request.body is not None
    for response in echoes(ReceivedRequest(request.method, request.path, {}, request.body)):
        api = api_answering(response)
        result = sikkerkey_mcp.VaultTools(lambda api=api: api).call(tool, arguments, sikkerkey_mcp.Context())  # type: ignore[misc]
        assert_unmarked(sikkerkey_mcp.to_json(result).encode())
        assert sikkerkey_mcp.to_json(result)


def test_value_in_the_base64_of_a_whole_body_is_cut_out(server: Server, recorder: Recorder) -> None:
    for before in range(4):
        recorder.answer = lambda seen, n=before: CannedResponse(
            400, b'{"error": "%s"}' % base64.b64encode(b"x" * n + seen.body)
        )  # type: ignore[misc]
        result = server.call("manage_secrets", action="create", **PROJECT, name="n", value="correct horse battery")
        assert found(json.dumps(result).encode(), ["correct horse battery"]) == []
        assert sikkerkey_refusals.WORDS_HOLD_PLAINTEXT in json.dumps(result)


def written(seen: list[ReceivedRequest]) -> list[ReceivedRequest]:
    """The writes. What a row looks at first holds nothing of its arguments but ids."""
    assert all(request.body == b"" for request in seen if request.method == "GET")
    return [request for request in seen if request.method != "GET"]


def test_no_trace_of_a_value_outside_the_request(home: Path, effects: SideEffects, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    answers: dict[str, Callable[[ReceivedRequest], CannedResponse]] = {
        "ok": lambda seen: CannedResponse(201, b'{"id": "sk_1", "echo": ' + seen.body + b"}"),
        "refused": lambda seen: CannedResponse(409, json.dumps({"error": seen.body.decode()}).encode()),
    }
    with verbose_server(ARCHIVE_COMMAND) as server:
        for answer in answers.values():
            recorder.answer = effects.watching(answer)
            for tool, arguments in WRITES.values():
                call_verbosely(server, tool, arguments)
        assert len(written(recorder.seen)) == len(answers) * len(WRITES)
        assert all(ALONE.encode() in seen.body for seen in written(recorder.seen))
        close_and_read(server)
    assert any(b"notifications/message" in line for line in server.lines)
    assert any(b"notifications/progress" in line for line in server.lines)
    assert_unmarked(effects.of(server))


# exchanges that fail


def repeating(make: Callable[[bytes], bytes]) -> Act:
    """Answers with bytes made from the request body and closes in the same TCP segment.

    A close that arrives later, as after more than 60 KB, may cross the next request, which is then lost.
    """

    def act(wire: Wire, seen: ReceivedRequest) -> bool:
        wire.plain.sendall(make(seen.body), getattr(socket, "MSG_MORE", 0))
        wire.plain.shutdown(socket.SHUT_WR)
        return False

    return act


FAILURES: dict[str, Act] = {
    "no answer": faulty_vault.then_close(),
    "a reset": faulty_vault.then_reset(),
    "silence": faulty_vault.then_silence(),
    "no HTTP at all": repeating(lambda body: body + b"\r\n\r\n"),
    "a status line": repeating(lambda body: b"HTTP/1.1 400 " + body + b"\r\nContent-Length: 0\r\n\r\n"),
    "headers": repeating(lambda body: b"HTTP/1.1 400 No\r\nDate: %b\r\nRetry-After: %b\r\n\r\n" % (body, body)),
    "a broken header": repeating(lambda body: b"HTTP/1.1 200 OK\r\n" + body + b"\r\nContent-Length: 2\r\n\r\n{}"),
    "a content type": repeating(
        lambda body: faulty_vault.message(b"{}", 200, "Content-Type: " + body.decode("latin-1"))
    ),
    "an encoding": repeating(
        lambda body: faulty_vault.message(b"{}", 200, "Content-Encoding: " + body.decode("latin-1"))
    ),
    "a redirect": repeating(
        lambda body: faulty_vault.message(body, 307, "Location: https://x/" + body.decode("latin-1"))
    ),
    "half a body": repeating(lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + body),
    "a length": repeating(lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: " + body + b"\r\n\r\n{}"),
    "a chunk's size": repeating(lambda body: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"\r\n"),
    "no JSON": repeating(lambda body: faulty_vault.message(b"<p>" + body)),
    "no UTF-8": repeating(
        lambda body: faulty_vault.message(b'{"error": "\xff' + body.replace(b'"', b"'") + b'"}', 400)
    ),
    "too much": repeating(lambda body: faulty_vault.message(json.dumps([body.decode() * 1_000] * 200).encode())),
    "endless nesting": repeating(lambda body: faulty_vault.message(b"[" * 9_999 + body + b"]" * 9_999, 400)),
}


@pytest.mark.parametrize(
    ("failures", "timeout_s"),
    [([name for name in FAILURES if name != "silence"], TIMEOUT_S), (["silence"], 0.3)],
    ids=["answers", "silence"],
)
def test_no_breakdown_shows_a_value(home: Path, effects: SideEffects, failures: list[str], timeout_s: float) -> None:
    with FaultyVault() as vault:
        make_slot(home, vault.url)
        with verbose_server(quick_command(timeout_s=timeout_s), source_env()) as server:
            for failure in failures:
                vault.acts[:] = [faulty_vault.after_looking(FAILURES[failure])]
                lines, seen = len(server.lines), len(vault.seen)
                writes = ["create"] if failure == "too much" else [*WRITES]  # each would take 16 MB
                for tool, arguments in map(WRITES.__getitem__, writes):
                    assert "result" in call_verbosely(server, tool, arguments), failure
                assert found(b"".join(server.lines[lines:]), [MARK]) == [], failure
                arrived = [ALONE.encode() in request.body for request in written(vault.seen[seen:])]
                assert arrived == [True] * len(writes), failure
            assert server.request("ping")["result"] == {}
            close_and_read(server)
    assert_unmarked(effects.of(server))


def test_unreachable_vault_is_reported_without_the_value(home: Path, effects: SideEffects) -> None:
    with faulty_vault.refused_port() as port:
        make_slot(home, f"http://127.0.0.1:{port}")
        with verbose_server(quick_command(), source_env()) as server:
            for tool, arguments in WRITES.values():
                assert call_verbosely(server, tool, arguments)["result"]["isError"]
            close_and_read(server)
    assert_unmarked(effects.of(server))


LOUD = {
    "PYTHONDEVMODE": "1",
    "PYTHONFAULTHANDLER": "1",
    "PYTHONMALLOCSTATS": "1",
    "PYTHONASYNCIODEBUG": "1",
    "PYTHONPROFILEIMPORTTIME": "1",
    "PYTHONVERBOSE": "1",
    "PYTHONWARNINGS": "always",
    "PYTHONUNBUFFERED": "1",
    "PYTHONINSPECT": "1",
    "OPENSSL_TRACE": "all",
}
TLS_SERVERS = {"a good certificate": {}, "an expired one": {"ends_in": -faulty_vault.DAY}}


@pytest.mark.parametrize("certificate", TLS_SERVERS)
def test_verbose_python_over_tls_shows_neither_value_nor_session_key(
    home: Path, effects: SideEffects, tmp_path: Path, certificate: str
) -> None:
    authority = Authority(tmp_path)
    tls = authority.server("localhost", **TLS_SERVERS[certificate])  # type: ignore[arg-type]
    keys = tmp_path / "session keys"
    env = source_env(**LOUD, SSLKEYLOGFILE=str(keys), SIKKERKEY_CA_BUNDLE=str(authority.bundle))

    def repeat(wire: Wire, seen: ReceivedRequest) -> bool:
        wire.send(faulty_vault.message(json.dumps({"error": seen.body.decode()}).encode(), 409))
        return True

    with FaultyVault(faulty_vault.after_looking(repeat), tls=tls, host="localhost") as vault:
        make_slot(home, vault.url)
        with verbose_server(quick_command("-v", "-X", "dev", "-b"), env) as server:
            for tool, arguments in WRITES.values():
                assert call_verbosely(server, tool, arguments)["result"]["isError"]
            close_and_read(server)
        assert len(written(vault.seen)) == (0 if TLS_SERVERS[certificate] else len(WRITES))
    assert b"import " in server.stderr
    assert not keys.exists()
    assert_unmarked(effects.of(server))


def has_seen(vault: FaultyVault, count: int) -> bool:
    return len(written(vault.seen)) == count


def test_cancelled_call_leaves_no_trace(home: Path, effects: SideEffects) -> None:
    with FaultyVault(faulty_vault.after_looking(faulty_vault.then_silence())) as vault:
        make_slot(home, vault.url)
        with verbose_server() as server:
            for number, (tool, arguments) in enumerate(WRITES.values(), 1):
                call = server.start("tools/call", name=tool, arguments=arguments)
                wait_until(functools.partial(has_seen, vault, number))
                server.notify("notifications/cancelled", requestId=call, reason=MARK)
            assert server.request("ping")["result"] == {}
            close_and_read(server)
    assert_unmarked(effects.of(server))


SIGNALS = ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGSEGV"]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("name", SIGNALS)
def test_process_that_dies_in_the_middle_of_a_call_leaves_no_trace(home: Path, effects: SideEffects, name: str) -> None:
    with FaultyVault(faulty_vault.after_looking(faulty_vault.then_silence())) as vault:
        make_slot(home, vault.url)
        with verbose_server() as server:
            server.start("tools/call", name=WRITES["create"][0], arguments=WRITES["create"][1])
            wait_until(lambda: written(vault.seen))
            server.process.send_signal(getattr(signal, name))
            server.process.wait(TIMEOUT_S)
            server.end()
    assert_unmarked(effects.of(server))


CORE_MAX_BYTES = 1 << 30  # of the server, with room to spare


def core_pattern() -> str:
    """Where the kernel writes core dumps."""
    path = Path("/proc/sys/kernel/core_pattern")
    return path.read_text().strip() if path.exists() else "unknown"


def why_no_cores() -> str:
    """Why core dumps are not available, or an empty string."""
    if re.fullmatch(r"[A-Za-z0-9_.%-]+", core_pattern()) is None:
        return f"a crash does not leave a file in the working directory (core_pattern is {core_pattern()})"
    import resource

    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    fits = most == resource.RLIM_INFINITY or most >= CORE_MAX_BYTES
    return "" if fits else f"a core may have {most} bytes at most (hard limit of `ulimit -c`)"


@pytest.mark.parametrize(("name", "undefended"), [("SIGABRT", False), ("SIGSEGV", False), ("SIGABRT", True)])
def test_crash_leaves_no_core(home: Path, effects: SideEffects, name: str, undefended: bool) -> None:
    if reason := why_no_cores():
        pytest.skip(reason)
    undo = "m.disable_core_dumps = i.forbid_inspection = lambda: None; " if undefended else ""
    unlimited = "import resource as r; most = r.getrlimit(r.RLIMIT_CORE)[1]; r.setrlimit(r.RLIMIT_CORE, (most, most)); "
    program = f"{unlimited}import sikkerkey_identity as i, sikkerkey_mcp as m; {undo}m.main([])"
    with FaultyVault(faulty_vault.after_looking(faulty_vault.then_silence())) as vault:
        make_slot(home, vault.url)
        with verbose_server([sys.executable, "-c", program], source_env()) as server:
            server.start("tools/call", name=WRITES["create"][0], arguments=WRITES["create"][1])
            wait_until(lambda: written(vault.seen))
            server.process.send_signal(getattr(signal, name))
            server.process.wait(TIMEOUT_S)
            server.end()
    cores = [path.read_bytes() for path in Path.cwd().iterdir()]
    assert [bool(found(core, [MARK])) for core in cores] == ([True] if undefended else [])


# refused arguments


def wrong_arguments() -> Iterator[tuple[str, dict[str, Any]]]:
    """For every argument of every row: the mark where it is invalid, and under an unknown name."""
    for tool in sikkerkey_mcp.TOOLS:
        for action in tool.actions:
            start = {"action": action.name} if sikkerkey_mcp.has_actions(tool) else {}
            yield tool.name, {**start, MARK: MARK}
            yield tool.name, {**start, "unknown": MARK}
            yield tool.name, {**start, WORD: 1}
            for arg in action.args:
                for wrong in (MARK, [MARK], {MARK: MARK}, [[MARK]], MARK + "\ud800", [MARK, 1], {WORD: WORD}):
                    yield tool.name, {**start, arg.name: wrong}
        yield tool.name, {"action": MARK}
        yield tool.name, {"action": WORD}


OWN = {row.tool.name for row in ROWS if row.action.own}  # what these look for is not sent as it is
WORD = "correct-horse-battery-staple"  # a passphrase that looks like a name


def test_refused_arguments_are_never_repeated(server: Server, recorder: Recorder) -> None:
    refused = list(wrong_arguments())
    for tool, arguments in refused:
        result = server.call(tool, **arguments)
        if not result.get("isError") and tool not in OWN:  # free text may be anything, so it is sent
            row = BY_NAME[f"{tool}.{arguments.get('action', tool)}"]
            kept = [arguments.get(arg.name) for arg in row.action.args if arg.local]  # used here, not sent
            assert ALONE.encode() in recorder.seen[-1].body or any(ALONE in str(value) for value in kept)
    close_and_read(server)
    assert len(refused) > 1_500
    assert_unmarked(b"".join(server.lines) + server.stderr, WORD)


def test_protocol_errors_never_repeat_what_was_sent(server: Server) -> None:
    for message in (
        {"jsonrpc": "2.0", "id": 1, "method": MARK},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": MARK}},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "whoami", "arguments": MARK}},
        {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": MARK},
        {"jsonrpc": "2.0", "id": 5, "method": "logging/setLevel", "params": {"level": MARK}},
        {"jsonrpc": "2.0", "id": 6, "method": "tools/list", "params": {"cursor": MARK}},
        {"jsonrpc": "2.0", "id": {MARK: MARK}, "method": "ping"},
        {"jsonrpc": MARK, "id": 7, "method": "ping"},
        [MARK],
        MARK,
    ):
        server.send(message)
    server.send_bytes(b'{"jsonrpc": "2.0", "id": 8, "params": {"value": "' + MARK.encode() + b"\n")
    server.request("ping")
    server.close()
    assert_unmarked(b"".join(server.lines) + server.stderr)


# keys, tokens and stored values


def parts_of(key_file: Path) -> list[str]:
    """What would reveal a private key: the line in its file, either half of it, and the key in hex."""
    inner = key_file.read_text().splitlines()[1]
    return [inner, inner[:22], inner[-22:], base64.b64decode(inner)[-32:].hex()]


def test_private_key_never_leaves_its_file(home: Path, effects: SideEffects, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    key_file = next(home.rglob("private.pem"))
    parts = parts_of(key_file)
    for damage in ("", "garbage"):
        key_file.write_text(key_file.read_text().replace("-----END", damage + "-----END"))
        recorder.answer = effects.watching(lambda _seen: CannedResponse())
        with verbose_server() as server:
            call_verbosely(server, "whoami", {})
            close_and_read(server)
        assert found(effects.of(server), parts) == []
    assert len(recorder.seen) == 1
    assert found(str(recorder.seen).encode(), parts) == []


def test_token_appears_nowhere_but_in_the_registration(home: Path, effects: SideEffects, recorder: Recorder) -> None:
    token = "0123456789abcdef" * 4
    env = {**os.environ, **LOUD, "SIKKERKEY_API_URL": recorder.url, "PYTHONINSPECT": ""}
    refused, accepted = {"error": f"token {token} is spent"}, {"agentId": "a-1", "name": token, "vaultId": "v"}
    for response in (
        CannedResponse(400, json.dumps(refused).encode()),
        CannedResponse(201, json.dumps(accepted).encode()),
    ):
        recorder.answer = effects.watching(lambda _seen, response=response: response)  # type: ignore[misc]
        command = [sys.executable, "-v", str(ARCHIVE_COMMAND[-1]), "install", "-"]
        done = subprocess.run(command, input=token.encode(), env=env, capture_output=True, check=False)
        assert found(done.stdout + done.stderr + effects.files() + b"".join(effects.processes), [token]) == []
    assert [seen.json()["token"] for seen in recorder.seen] == [token, token]


class FilledVault:
    """A vault with one object of each kind, created through the server; `known` maps argument names to their ids."""

    def __init__(self, vault: LocalVault, server: Server, directory: Path) -> None:
        self.vault, self.server = vault, server
        self.minted: list[str] = []
        self.succeeded: set[str] = set()
        self.known: dict[str, Any] = {"projectId": self.create("manage_projects", action="create", name="p")}
        project = {"projectId": self.known["projectId"]}
        value = {"action": "create", **project, "value": MARK}
        self.known["secretId"] = self.create("manage_secrets", name="s", **value)
        self.known["existingSecretId"] = self.create("manage_secrets", name="s2", **value)
        self.known["canaryId"] = self.create("manage_canaries", action="create", **project, name="c")
        self.known["policyId"] = self.create("manage_policies", action="create", **project, name="p", ttlMaxReads=9)
        self.known["entryId"] = self.create("manage_ipallowlist", action="add", cidr="192.0.2.1/32")
        self.known["inviteId"] = self.create("manage_team", action="invite", email="kim@example.org")
        self.known["memberId"] = self.accepted()
        self.known["agentId"] = install(vault, "projects.read")
        self.known["machineId"] = self.machine(directory)
        self.known["categoryId"] = self.ask("support", action="categories")["items"][0]["id"]
        self.known |= {"actions": ["secret_create"], "url": "http://127.0.0.1:9/hook", **self.ticket(directory)}

    def ask(self, tool: str, **arguments: Any) -> Any:
        """The answer to one call, which must succeed."""
        result = self.server.call(tool, **arguments)
        assert not result.get("isError"), (tool, arguments, result)
        return result["structuredContent"]

    def create(self, tool: str, **arguments: Any) -> str:
        """The id of a new object."""
        answer = self.ask(tool, **arguments)
        return str(answer.get("id") or answer["inviteId"])

    def accepted(self) -> str:
        member = json.loads(self.vault.owner("accept-invite", self.known["inviteId"], "--json"))
        return str(member.get("memberId") or member["id"])

    def machine(self, directory: Path) -> str:
        url = self.vault.url.replace("127.0.0.1", "localhost")
        words = ("machine-bootstrap", "--name", "m", "--home", str(directory / "machine"), "--url", url, "--json")
        return str(json.loads(self.vault.owner(*words))["machineId"])

    def ticket(self, directory: Path) -> dict[str, str]:
        ask = {"categoryId": self.known["categoryId"], "priority": "low", "title": "t", "body": "b"}
        ticket = self.create("support", action="create", **ask)
        (directory / "file").write_text("attached")
        self.vault.reply(ticket, "See the file.", directory / "file")
        shown = self.ask("support", action="get", ticketId=ticket)
        files = [file["id"] for message in shown["conversation"] for file in message.get("attachments", [])]
        return {"ticketId": ticket, "attachmentId": files[0]}

    def arguments(self, row: Row, kind: str) -> dict[str, Any]:
        """An example of the row's arguments, with existing ids and the mark as plaintext."""
        given = {**row.examples[kind]}
        for arg in row.action.args:
            if arg.name in given and arg.name in self.known:
                given[arg.name] = self.known[arg.name]
            elif arg.kind == "ids" and arg.name in given:
                given[arg.name] = [self.known[arg.name[:-1]]]
            elif arg.plaintext and arg.name in given:
                given[arg.name] = {"user": MARK} if arg.kind == "object" else MARK
        if isinstance(given.get("value"), str) and "fieldNames" in given:
            given["value"] = json.dumps(dict.fromkeys(given["fieldNames"], MARK))
        return given

    def learn(self, row: Row, answer: dict[str, Any]) -> None:
        """Records the id of an enrollment token or a webhook that the action created."""
        name = {"manage_enrollment.create": "tokenId", "manage_webhooks.create": "webhookId"}.get(str(row))
        if name:
            self.known[name] = answer["id"]

    def drive(self, row: Row) -> None:
        """Calls an action with each of its examples. Records a minted credential and sets its line apart."""
        for kind in row.examples:
            reply = call_verbosely(self.server, row.tool.name, self.arguments(row, kind))
            if not reply["result"].get("isError"):
                self.succeeded.add(str(row))
                self.learn(row, reply["result"].get("structuredContent", {}))
            if row.action.mints and "structuredContent" in reply["result"]:
                answer = reply["result"]["structuredContent"]
                named = {"token", "passphrase", "secret", "signingSecret"} & set(answer)
                assert named, answer
                self.minted += [answer[name] for name in named]
                line = next(line for line in reversed(self.server.lines) if self.minted[-1].encode() in line)
                self.server.lines.remove(line)
                assert found(line, [MARK]) == []


@on_linux
def test_no_action_on_a_real_vault_shows_a_stored_value(
    home: Path, effects: SideEffects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault_directory = tmp_path.parent / f"{tmp_path.name}-vault"  # outside the directories that are searched
    vault_directory.mkdir()
    vault = LocalVault(vault_directory / "data")
    try:
        agent = install(vault)
        vault.owner("approve", agent)
        monkeypatch.setenv("SIKKERKEY_CONFIRM", "never")
        with verbose_server([*ARCHIVE_COMMAND, "serve", "--agent", agent]) as server:
            filled = FilledVault(vault, server, vault_directory)
            for row in [row for row in ROWS if row.action.effect == "write"] + by_effect(ROWS):  # reads find objects
                filled.drive(row)
            effects.look_at_processes()
            assert server.request("ping")["result"] == {}
            close_and_read(server)
        stored = vault.value_of(filled.known["existingSecretId"])
    finally:
        vault.close()
    parts = parts_of(home / ".sikkerkey" / "agents" / agent / "private.pem")
    assert found(effects.of(server), [MARK, *filled.minted, *parts]) == []
    assert stored == MARK
    assert len(filled.succeeded) > 80  # test_every_action.py checks that each of them works
    assert len(filled.minted) >= 5


def test_crash_in_a_tool_shows_no_argument(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    broken = "import sikkerkey_mcp as m; m.build_request = lambda action, given: 1 // 0; m.main([])"
    with Server([sys.executable, "-c", broken], {**os.environ, "PYTHONPATH": os.getcwd()}) as server:
        server.initialize()
        tool, arguments = WRITES["create"]
        reply = server.request("tools/call", name=tool, arguments=arguments)
        assert reply["error"] == {"code": sikkerkey_mcp.INTERNAL_ERROR, "message": "internal error (ZeroDivisionError)"}
        assert server.request("ping")["result"] == {}
        server.close()
    assert_unmarked(b"".join(server.lines) + server.stderr)


def test_deeply_nested_value_is_no_error_after_it_was_stored(server: Server, recorder: Recorder) -> None:
    recorder.answer = lambda _seen: CannedResponse(201, b'{"id": "sk_1"}')
    for depth in (400, 600, 900):
        value = "[" * depth + "]" * depth
        result = server.call("manage_secrets", action="create", **PROJECT, name="n", value=value)
        assert result["structuredContent"] == {"id": "sk_1"}, depth


def test_trimmed_and_partial_echoes_are_cut_out(server: Server, recorder: Recorder) -> None:
    value = "  -----BEGIN THING-----\nfirst-line-of-it-7f3a\n  second-line-of-it-7f3a  \n"
    for repeated in (value.strip(), value.splitlines()[2], value.strip().encode().hex()):
        response = CannedResponse(400, json.dumps({"error": f"bad: {repeated}"}).encode())
        recorder.answer = lambda _seen, response=response: response  # type: ignore[misc]
        result = server.call("manage_secrets", action="create", **PROJECT, name="n", value=value)
        assert "7f3a" not in json.dumps(result), repeated
        assert b"7f3a".hex() not in json.dumps(result), repeated


def test_stored_values_are_withheld_under_any_name_made_of_value(server: Server, recorder: Recorder) -> None:
    names = ("value", "Value", "secretValue", "current_value", "plainText", "PLAINTEXT")
    stored = {"id": "sk_1", **dict.fromkeys(names, "stored-7f3a")}
    recorder.answer = lambda _seen: CannedResponse(200, json.dumps(stored).encode())
    result = server.call("manage_secrets", action="get", **PROJECT, **SECRET)
    assert "7f3a" not in json.dumps(result)
    assert result["structuredContent"]["id"] == "sk_1"
