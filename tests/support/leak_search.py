"""Searches for marked plaintext: every spelling of it, in everything that others can see of a process.

The spellings are written independently of the program's own list, so that a mistake there is found.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_mcp
from tests.support import trusting_server
from tests.support.harness import TIMEOUT_S, CannedResponse, ReceivedRequest, Server
from tests.support.table_calls import ROWS, Row

# The part of MARK that is the same in every spelling except base64 and hex, and unique to this run.
ALONE = f"w7q{os.getpid()}zk"
MARK = f'mark <{ALONE}> "søg" \\ it\'s 9c/+=&'  # characters that JSON, URLs and HTML escape
on_linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc to look at")


# spellings


def in_json(text: str) -> Iterator[str]:
    """The inside of a JSON string, as Python, Go, .NET and PHP write it."""
    plain, ascii_only = json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]
    yield from (plain, ascii_only, ascii_only.replace("/", r"\/"))
    yield plain.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
    net = "".join(c if (c.isalnum() and c.isascii()) or c in " .:-_/=" else f"\\u{ord(c):04X}" for c in text)
    yield net.replace(r"\u005C", r"\\")


def sent(text: str) -> str:
    """As the body of the request contains it."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def in_base64(text: str) -> Iterator[str]:
    """The part of the base64 of a longer text that depends on `text` alone, at each alignment."""
    data = text.encode("utf-8", "surrogatepass")
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(b"x" * before + data + b"yy").decode()
            yield whole[(0, 2, 3)[before] : (before + len(data)) // 3 * 4]


def in_html(text: str) -> Iterator[str]:
    """As Python, Go, Ruby, PHP and XML escape it, and with each special character as a number."""
    named = html.escape(text, quote=False)
    for double, single in (("quot", "#x27"), ("#34", "#39"), ("quot", "#39"), ("quot", "#039"), ("quot", "apos")):
        yield named.replace('"', f"&{double};").replace("'", f"&{single};")
    yield html.escape(text).encode("ascii", "xmlcharrefreplace").decode()
    for number in ("&#{:d};", "&#x{:x};", "&#x{:X};"):
        yield "".join(c if c.isalnum() and c.isascii() else number.format(ord(c)) for c in text)


def in_urls(text: str) -> Iterator[str]:
    """Percent-encoded, as in paths, queries, forms and browsers."""
    quoted = [urllib.parse.quote(text, safe=left) for left in ("", "/", "!'()*")]
    for percent in (*quoted, urllib.parse.quote_plus(text)):
        yield percent
        yield re.sub("%..", lambda code: code[0].lower(), percent)


def spellings(text: str) -> list[str]:
    """Every form in which `text` may appear."""
    octets = text.encode("utf-8", "surrogatepass")
    twice = [again for once in in_json(text) for again in in_json(once)]
    marked_up = [form for written in (text, sent(text)) for form in (*in_html(written), *in_urls(written))]
    forms = [text, *in_json(text), *twice, *marked_up, repr(text)[1:-1], repr(octets)[2:-1]]
    whole = base64.b64encode(octets).decode()
    forms += [octets.hex(), octets.hex().upper(), whole, whole.translate({43: 45, 47: 95}).rstrip("=")]
    return list(dict.fromkeys(forms))


def found(data: bytes, secrets: Iterable[str]) -> list[str]:
    """The occurrences of `secrets` in `data`, with their context. UTF-16 is searched for the plain form only."""
    traces = []
    for secret in secrets:
        codes = [form.encode("utf-8", "surrogatepass") for form in (*spellings(secret), *in_base64(secret))]
        for code in dict.fromkeys([*codes, secret.encode("utf-16-le", "surrogatepass")]):
            at = data.find(code)
            traces += [f"{code!r} in {data[max(0, at - 120) : at + 120]!r}"] if at >= 0 else []
    return traces


def assert_unmarked(data: bytes, *secrets: str) -> None:
    """Asserts that `data` holds no spelling of MARK or of `secrets`."""
    assert found(data, [MARK, *secrets]) == []
    assert ALONE.encode() not in data


# what others can see


class SideEffects:
    """What a process leaves behind: its output, and files in its home, cache, temporary and working directory."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        for name in ("tmp", "work"):
            (directory / name).mkdir(exist_ok=True)
        monkeypatch.setenv("TMPDIR", str(directory / "tmp"))
        monkeypatch.chdir(directory / "work")
        self.processes: set[bytes] = set()

    def files(self) -> bytes:
        """The names and contents of all files except private keys."""
        paths = [path for path in self.directory.rglob("*") if path.name != "private.pem"]
        contents = [path.read_bytes() for path in paths if path.is_file() and not path.is_symlink()]
        return b"\0".join([*(str(path).encode() for path in paths), *contents])

    def look_at_processes(self) -> None:
        """Records the command line and environment of every running process."""
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                with suppress(OSError):  # it has ended meanwhile
                    self.processes.add((process / name).read_bytes())

    def watching(
        self, answer: Callable[[ReceivedRequest], CannedResponse]
    ) -> Callable[[ReceivedRequest], CannedResponse]:
        """`answer`, recording the processes while the program waits for it."""

        def answer_and_look(seen: ReceivedRequest) -> CannedResponse:
            self.look_at_processes()
            return answer(seen)

        return answer_and_look

    def of(self, server: Server) -> bytes:
        """Everything that can be seen of a process that has exited."""
        return b"\0".join([*server.lines, server.stderr, self.files(), *self.processes])


@pytest.fixture
def effects(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SideEffects:
    """The directories of a process, and what is found in them."""
    return SideEffects(tmp_path, monkeypatch)


def close_and_read(server: Server) -> None:
    """Closes the input and reads both output streams to their end."""
    server.close()
    server.end()


# processes

QUICK = (
    "import sys, sikkerkey_mcp as m, sikkerkey_http as h; h._SOCKET_TABLES = (); m.BACKOFF_S = 0.0; "
    "m.EXCHANGE_MAX_S = m.CONNECT_MAX_S = {timeout_s}; sys.exit(m.main())"
)


def quick_command(*flags: str, timeout_s: float = TIMEOUT_S) -> list[str]:
    """Serves from the source, without pauses between attempts, and without looking up who listens on loopback."""
    return [sys.executable, *flags, "-c", QUICK.format(timeout_s=timeout_s)]


def source_env(**more: str) -> dict[str, str]:
    """The environment in which `quick_command` finds the module."""
    return {**os.environ, "PYTHONPATH": str(Path(sikkerkey_mcp.__file__).parent), **more}


def verbose_server(command: Iterable[str] = trusting_server.COMMAND, env: dict[str, str] | None = None) -> Server:
    """A server at log level debug."""
    server = Server([*command], env)
    server.initialize()
    server.request("logging/setLevel", level="debug")
    return server


def call_verbosely(server: Server, tool: str, arguments: dict[str, Any]) -> Any:
    """The reply to one call that requests progress notifications."""
    return server.request("tools/call", name=tool, arguments=arguments, _meta={"progressToken": "p"})


# what carries plaintext

PROJECT, SECRET = {"projectId": "proj_1"}, {"secretId": "sk_1"}
STRUCTURED = {"value": json.dumps({"user": "u", "key": MARK}), "fieldNames": ["user", "key"]}
STATIC = {"intervalSeconds": 300, "staticFields": {"pin": MARK, "deep": {"list": [MARK]}}}
LINK = {"value": MARK, "expiresInSeconds": 60}
WRITES: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("manage_secrets", {"action": "create", **PROJECT, "name": "n", "value": MARK}),
    "create structured": ("manage_secrets", {"action": "create", **PROJECT, "name": "n", **STRUCTURED}),
    "update_value": ("manage_secrets", {"action": "update_value", **PROJECT, **SECRET, "value": MARK}),
    "dynamic_create": ("manage_secrets", {"action": "dynamic_create", **PROJECT, "name": "n", **STATIC}),
    "one-time link": ("manage_temporary_secrets", {"action": "create", **PROJECT, "name": "n", **LINK}),
}


def plaintext_rows() -> set[str]:
    """The actions that WRITES must hold."""
    return {str(row) for row in ROWS if any(arg.plaintext for arg in row.action.args)}


def by_effect(rows: Iterable[Row]) -> list[Row]:
    """Reads first and destructive actions last, so that each finds the objects it needs."""
    order = ["read", "write", "destructive", "manage_secrets.delete", "manage_trash.purge", "manage_projects.delete"]
    return sorted(rows, key=lambda row: order.index(str(row) if str(row) in order else row.action.effect))
