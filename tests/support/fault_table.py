"""The fault table: faults of a vault, a network or a proxy, and the outcome of each.

A row has a fault and the outcomes of a read and a write. tests/test_faults.py runs each row against a real server
process; docs/faults.md is generated from the same rows.
"""

from __future__ import annotations

import gzip
import ssl
import warnings
from collections.abc import Callable
from email.utils import formatdate
from typing import NamedTuple

from sikkerkey_refusals import NEXT_STEP
from tests.support import faulty_vault
from tests.support.fault_stage import Kind, Stage
from tests.support.faulty_vault import DAY, Act, Wire
from tests.support.harness import ReceivedRequest

HOSTILE = "\x1b[2J\x9b1mmagpie\x07"  # in places that are never shown to the model
HEAD = f"HTTP/1.1 200 {HOSTILE}\r\nContent-Type: application/json\r\nX-Note: {HOSTILE}\r\n".encode("latin-1")
TWENTY = HEAD + b"Content-Length: 20\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FIFTY_MB = 50 * 1024 * 1024
PIECE = b'{"a":1},' * 8192
BOMB = gzip.compress(bytes(1024 * 1024), 1) * 50  # parts that are decompressed as one


class Outcome(NamedTuple):
    """The outcome of a call. In `text`, <URL> is the vault's and * stands for words of the system or of a library."""

    text: str
    sent: int = 1  # requests that arrived at the vault
    tried: int = 1  # attempts, including those that did not arrive
    error: bool = True
    pause_s: float | None = None  # the length of every pause, if the peer asked for one


class Fault(NamedTuple):
    """One row. `arrange` puts the fault in place; a `slow` row runs with short time limits.

    In a `silent` row no byte arrives on the kept connection.
    """

    group: str
    name: str
    arrange: Callable[[Stage], object]
    read: Outcome
    write: Outcome
    stage: Kind = "http"
    slow: bool = False
    silent: bool = False

    def __str__(self) -> str:
        return f"{self.group}, {self.name}"


Pair = tuple[Outcome, Outcome]

# messages

UNKNOWN_AUTHORITY = (
    "if a company proxy or a private authority issued it, set SIKKERKEY_CA_BUNDLE to a PEM file with that issuer's "
    "certificate"
)
MAY_HAVE_BEEN = "hint: the request may have been processed: look (list, get) before repeating it"
NOTHING_CHANGED = "hint: nothing was changed; check the network, HTTPS_PROXY and SIKKERKEY_CA_BUNDLE, then try again"
PORTAL = "hint: check that the API URL is the vault's and that no portal or proxy answers in its place"
ASK_FOR_LESS = "hint: ask for less: a smaller pageSize, a shorter time span, a filter"
CHECK_INTERMEDIARY_HINT = "hint: check what is between this computer and the vault: a proxy, a portal, a gateway"
SHORT = "its answer was cut short or malformed (*)"
LATE = "it did not answer in time"


def both(outcome: Outcome) -> Pair:
    """The same outcome for a read and a write."""
    return outcome, outcome


def answered(text: str) -> Pair:
    """Success, as far as the model can see."""
    return both(Outcome(text, error=False))


def unreached(reason: str, tried: int = 4) -> Pair:
    """Nothing could be sent."""
    attempts = f" after {tried} attempts" if tried > 1 else ""
    return both(Outcome(f"the vault at <URL> cannot be reached{attempts}: {reason}\n{NOTHING_CHANGED}", 0, tried))


def lost(reason: str, tried: int = 4, arrives: bool = True) -> Pair:
    """The request was sent and the answer is incomplete: a read is repeated, a write is not."""
    reached = f"the connection to <URL> failed before its answer was complete: {reason}\n{MAY_HAVE_BEEN}"
    read = unreached(reason, tried)[0]._replace(sent=tried if arrives else 0)
    return read, Outcome(reached, 1 if arrives else 0)


def unreadable(message: str, hint: str) -> Pair:
    """The answer is complete, but cannot be used."""
    return Outcome(f"{message}\n{hint}"), Outcome(f"{message}\n{MAY_HAVE_BEEN}")


NOT_JSON = unreadable("the vault's answer is not JSON", PORTAL)
TOO_LARGE = unreadable("the vault's answer is larger than 16,777,216 bytes", ASK_FOR_LESS)
COMPRESSED = unreadable("the vault's answer is compressed, which was not requested", CHECK_INTERMEDIARY_HINT)


def untrusted(reason: str, issuer: str, remedy: str) -> Pair:
    """The certificate was refused, which is not retried."""
    message = f'the vault at <URL> cannot be reached: its certificate is not trusted: {reason} (issuer: "{issuer}")'
    return both(Outcome(f"{message}\nhint: nothing was changed; {remedy}", 0))


# faults


def plays(*acts: Act, body_too: bool = True) -> Callable[[Stage], None]:
    """The vault answers each request by the next of `acts`."""

    def arrange(stage: Stage) -> None:
        stage.vault.acts[:] = acts
        stage.vault.body_too = body_too

    return arrange


def greets(greet: faulty_vault.Greet) -> Callable[[Stage], None]:
    """The vault handles each connection with `greet`."""

    def arrange(stage: Stage) -> None:
        stage.disconnect()
        stage.vault.greet = greet

    return arrange


def leads(name: str, port: Callable[[], faulty_vault.Port]) -> Callable[[Stage], None]:
    """`name` resolves to another port, which stays as it is until the stage is closed."""

    def arrange(stage: Stage) -> None:
        stage.disconnect()
        stage.resolve(name, stage.stack.enter_context(port()))

    return arrange


def unresolved(name: str) -> Callable[[Stage], None]:
    """`name` does not resolve."""

    def arrange(stage: Stage) -> None:
        stage.disconnect()
        stage.resolve(name, 0)

    return arrange


def shows(certificate: Callable[[faulty_vault.Authority], ssl.SSLContext | None]) -> Callable[[Stage], None]:
    """The vault uses another certificate, or no TLS."""

    def arrange(stage: Stage) -> None:
        stage.disconnect()
        stage.vault.tls = certificate(stage.authority)

    return arrange


def through(instead: faulty_vault.Greet) -> Callable[[Stage], None]:
    """The proxy handles each connection with `instead`."""

    def arrange(stage: Stage) -> None:
        stage.disconnect()
        stage.proxy.instead = instead

    return arrange


def says(data: bytes) -> faulty_vault.Greet:
    """Sends `data` and closes."""
    return lambda wire: wire.send(data)


def resets(wire: Wire) -> None:
    """Resets after the first byte; before that, the client could fail to connect."""
    wire.plain.recv(1)
    wire.reset()


def trickles(data: bytes) -> faulty_vault.Greet:
    """Sends `data` byte by byte, ten bytes a second."""
    return lambda wire: faulty_vault.trickle(data, 0.1)(wire, NOBODY)


NOBODY = ReceivedRequest("", "", {}, b"")


def told(status: int, body: bytes = b'{"error":"because"}', *headers: str) -> Act:
    """A complete answer with hostile text in its reason phrase and headers."""
    lines = [f"HTTP/1.1 {status} {HOSTILE}", f"X-Note: {HOSTILE}", *headers, f"Content-Length: {len(body)}", "", ""]
    return faulty_vault.then_go_on("\r\n".join(lines).encode("latin-1") + body)


def old_tls(authority: faulty_vault.Authority) -> ssl.SSLContext:
    """A server that supports TLS 1.0 and 1.1 only."""
    context = authority.server("vault.test")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    return context


def other_authority(name: str) -> Callable[[faulty_vault.Authority], ssl.SSLContext]:
    """A certificate of an authority that is not trusted."""

    def certificate(authority: faulty_vault.Authority) -> ssl.SSLContext:
        other = authority.bundle.parent / "untrusted_authority"
        other.mkdir(exist_ok=True)
        return faulty_vault.Authority(other, name).server("vault.test")

    return certificate


def in_five_seconds(wire: Wire, request: ReceivedRequest) -> bool:
    """429 with a Retry-After date five seconds after the request."""
    date = formatdate(int(request.headers["x-timestamp"]) + 5, usegmt=True)
    return told(429, b'{"error":"because"}', f"Retry-After: {date}")(wire, request)


def slow_body(head: bytes, body: bytes) -> Act:
    """Sends `head` immediately and `body` at ten bytes a second."""

    def act(wire: Wire, request: ReceivedRequest) -> bool:
        wire.send(head)
        return faulty_vault.trickle(body, 0.1)(wire, request)

    return act


# fmt: off
# ruff: disable[E501] (one row a line: a table is read down its columns)

CONNECTING = [
    Fault("connecting", "refused", leads("localhost", faulty_vault.refused_port), *unreached("Connection refused")),
    Fault("connecting", "no answer to the connection attempt", leads("localhost", faulty_vault.silent_port), *unreached(LATE, tried=2), slow=True),
    Fault("connecting", "the name does not resolve", unresolved("localhost"), *unreached("its name cannot be resolved")),
    Fault("connecting", "closed immediately", greets(lambda _wire: None), *lost("*", arrives=False)),
    Fault("connecting", "reset at the first byte", greets(resets), *lost("*", arrives=False)),
    Fault("connecting", "the vault restarted since the last call", Stage.disconnect, *answered("{}")),
    Fault("connecting", "a TLS server at an http:// URL", shows(lambda authority: authority.server("localhost")), *lost("*", arrives=False)),
]

BROKEN = [Fault("broken answers", name, plays(act), *lost(reason)) for name, act, reason in [
    ("closed before the answer",       faulty_vault.then_close(),                                  "the connection broke"),
    ("reset before the answer",        faulty_vault.then_reset(),                                  "Connection reset by peer"),
    ("closed in the status line",  faulty_vault.then_close(b"HTTP/1.1 2"),                     SHORT),
    ("closed after the status line",   faulty_vault.then_close(b"HTTP/1.1 200 OK\r\n"),            SHORT),
    ("closed in the headers",      faulty_vault.then_close(HEAD + b"Content-Le"),              SHORT),
    ("closed between two headers",     faulty_vault.then_close(HEAD),                              SHORT),
    ("closed between headers and body", faulty_vault.then_close(TWENTY),                           SHORT),
    ("closed between headers and body, without a length",     faulty_vault.then_close(HEAD + b"\r\n"),                    SHORT),
    ("reset between headers and body", faulty_vault.then_reset(TWENTY),                            "*"),
    ("closed in the body",         faulty_vault.then_close(TWENTY + b'{"secrets'),             SHORT),
    ("reset in the body",          faulty_vault.then_reset(TWENTY + b'{"secrets'),             "*"),
    ("closed in a chunk",          faulty_vault.then_close(CHUNKED + b"9\r\n{\"a"),            SHORT),
    ("closed between chunks",          faulty_vault.then_close(CHUNKED + b"2\r\n{}\r\n"),          "*"),
    ("closed in a chunk size",   faulty_vault.then_close(CHUNKED + b"2\r\n{}\r\n1"),         "*"),
    ("a chunk size that is not a number",             faulty_vault.then_close(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"), SHORT),
    ("a chunk longer than its size",    faulty_vault.then_close(CHUNKED + b"1\r\n{}\r\n0\r\n\r\n"), "*"),
    ("a chunk shorter than its size",   faulty_vault.then_close(CHUNKED + b"9\r\n{}\r\n0\r\n\r\n"), "*"),
    ("a length longer than the body",  faulty_vault.then_close(TWENTY + b"{}"),                    SHORT),
    ("a length that is not a number",     faulty_vault.then_close(HEAD + b"Content-Length: magpie\r\n\r\n{}"), SHORT),
    ("a negative length",              faulty_vault.then_close(HEAD + b"Content-Length: -1\r\n\r\n{}"), SHORT),
    ("two lengths",                    faulty_vault.then_close(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), SHORT),
    ("an unknown transfer coding",     faulty_vault.then_close(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n"), SHORT),
    ("a header without a colon",       faulty_vault.then_close(HEAD + b"magpie\r\n\r\n{}"),         SHORT),
    ("HTTP/0.9",                       faulty_vault.then_close(b"<h1>magpie</h1>"),                SHORT),
    ("102 Processing first",           faulty_vault.then_close(b"HTTP/1.1 102 Processing\r\n\r\n" + faulty_vault.message()), SHORT),
    ("103 Early Hints first",          faulty_vault.then_close(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + faulty_vault.message()), SHORT),
    ("endless 103 Early Hints",        faulty_vault.flood(b"", b"HTTP/1.1 103 magpie\r\n\r\n" * 1_000, 1_000), SHORT),
    ("another protocol",               faulty_vault.then_close(b"SSH-2.0-magpie\r\n"),             SHORT),
    ("HTTP/2",                         faulty_vault.then_close(b"HTTP/2.0 200 OK\r\n\r\n{}"),      SHORT),
    ("a status that is not a number",     faulty_vault.then_close(b"HTTP/1.1 abc magpie\r\n\r\n"),    SHORT),
    ("a status beyond 999",            faulty_vault.then_close(b"HTTP/1.1 2000 magpie\r\n\r\n"),   SHORT),
    ("a negative status",              faulty_vault.then_close(b"HTTP/1.1 -20 magpie\r\n\r\n"),    SHORT),
    ("control characters",             faulty_vault.then_close(b"\x00\x1b[2J\xff\r\n\r\n"),        SHORT),
    ("101 Switching Protocols",        faulty_vault.then_close(b"HTTP/1.1 101 magpie\r\n\r\n\x81\x02hi\r\n"), SHORT),
    ("a header of 70,000 bytes",       faulty_vault.then_close(HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n"), SHORT),
    ("200 headers",                    faulty_vault.then_close(HEAD + b"X: x\r\n" * 200 + b"\r\n"), SHORT),
    ("endless headers",            faulty_vault.flood(HEAD, b"X: x\r\n" * 1_000, 10_000),      SHORT),
]] + [
    Fault("broken answers", "closed before the request body was read", plays(faulty_vault.then_close(), body_too=False), *lost("*")),
    Fault("broken answers", "reset before the request body was read", plays(faulty_vault.then_reset(), body_too=False), *lost("*")),
]

SLOW = [Fault("slow answers", "silence", plays(faulty_vault.then_silence()), *lost(LATE, tried=2), slow=True, silent=True)]

SLOW += [Fault("slow answers", name, plays(act), *lost(LATE, tried=1), slow=True) for name, act in [
    ("silence between two headers",  faulty_vault.then_silence(HEAD)),
    ("silence in the body",      faulty_vault.then_silence(TWENTY + b"{}")),
    ("headers at one byte a second", faulty_vault.trickle(faulty_vault.message(), 0.1)),
    ("body at one byte a second",    slow_body(TWENTY, b"x" * 20)),
    ("chunks at one byte a second",  slow_body(CHUNKED, b"1\r\nx\r\n" * 9)),
]]

SLOW += [Fault("slow answers", "endless 100 Continue", plays(faulty_vault.flood(b"", b"HTTP/1.1 100 magpie\r\n\r\n" * 1_000, 1_000)), *TOO_LARGE)]

# http.client reads these as if they were complete, and what it reads is what was meant.
LENIENT = [Fault("odd but readable answers", name, plays(act), *answered("{}")) for name, act in [
    ("closed in the trailers", faulty_vault.then_close(CHUNKED + b"2\r\n{}\r\n0\r\nX: ")),
    ("a chunk size with a sign", faulty_vault.then_close(CHUNKED + b"+2\r\n{}\r\n0\r\n\r\n")),
    ("a header with a bare LF", faulty_vault.then_close(HEAD + b"X: magpie\nContent-Length: 2\r\n\r\n{}")),
    ("a header with a NUL", faulty_vault.then_close(HEAD + b"X: magpie\x00\r\nContent-Length: 2\r\n\r\n{}")),
    ("lines that end in a bare LF", faulty_vault.then_close(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}")),
    ("a chunk size that ends in a bare LF", faulty_vault.then_close(CHUNKED + b"2\n{}\r\n0\r\n\r\n")),
]]

UNUSUAL = [Fault("unusual but complete answers", name, plays(faulty_vault.then_go_on(data)), *answered('{"":[]}')) for name, data in [
    ("100 Continue first",         b"HTTP/1.1 100 Continue\r\n\r\n" + faulty_vault.message(b'{"":[]}')),
    ("chunks and trailers",        CHUNKED + b"3;x=y\r\n{\"\"\r\n4\r\n:[]}\r\n0\r\nT: t\r\n\r\n"),
    ("a chunked answer with a length", HEAD + b"Content-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{\"\":[]}\r\n0\r\n\r\n"),
    ("a folded header",            b"HTTP/1.1 200 OK\r\nX: magpie\r\n\tmagpie\r\nContent-Length:\r\n 7\r\n\r\n{\"\":[]}"),
    ("the same length twice",      b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 7\r\n\r\n{\"\":[]}"),
    ("empty headers",              b"HTTP/1.1 200 OK\r\nX:\r\nContent-Encoding: \r\nContent-Length: 7\r\n\r\n{\"\":[]}"),
    ("a chunk size with trailing spaces", CHUNKED + b"7  \r\n{\"\":[]}\r\n0 \r\n\r\n"),
    ("no reason phrase",           b"HTTP/1.1 200\r\ncontent-length: 7\r\n\r\n{\"\":[]}"),
    ("bytes after the answer",     faulty_vault.message(b'{"":[]}') + faulty_vault.message(b'{"planted":true}')),
]] + [Fault("unusual but complete answers", name, plays(faulty_vault.then_close(data)), *answered('{"":[]}')) for name, data in [
    ("HTTP/1.0",                   b"HTTP/1.0 200 OK\r\n\r\n{\"\":[]}"),
    ("no length",                  HEAD + b"\r\n{\"\":[]}"),
]] + [
    Fault("unusual but complete answers", "204 No Content", plays(told(204, b"")),
          Outcome('{"ok":true,"message":"stats succeeded; the vault sent no further data"}', error=False),
          Outcome('{"ok":true,"message":"create succeeded; the vault sent no further data"}', error=False)),
]

REDIRECTS = [Fault("redirects", str(status), plays(told(status, b"", "Location: http://127.0.0.1:1/magpie")),
                   Outcome(f"the vault answered {status}, a redirect, which is never followed\nhint: check the API URL"),
                   Outcome(f"the vault answered {status}, a redirect, which is never followed\nhint: check the API URL" + more))
             for status, more in [*((status, "; " + MAY_HAVE_BEEN[6:]) for status in (300, 301, 302, 303, 304)), (307, ""), (308, "")]]


def status(code: int, read: str, write: str = "", *, tried: int = 1) -> Fault:
    """An answer with a status, and the hints for a read and a write."""
    said = f'the vault answered {code}, saying "because"\nhint: '
    return Fault("statuses", str(code), plays(told(code)), Outcome(said + read, tried, tried), Outcome(said + (write or read)))


OF_NO_USE = "repeating the same call does not help"
LATER = "the vault failed; try again later"
MAY = MAY_HAVE_BEEN[6:]
APPROVED = "the agent must be approved and enabled"

STATUSES = [
    status(400, NEXT_STEP[400]),
    status(401, "if this agent was revoked, the user creates a token on the vault's dashboard and runs: *"),
    status(402, OF_NO_USE),
    status(403, f"{APPROVED}, and have the scope audit.read; {NEXT_STEP[403]}", f"{APPROVED}, and have the scope projects.write; {NEXT_STEP[403]}"),
    *(status(code, NEXT_STEP[code]) for code in (404, 405, 407, 408, 409, 410, 413)),
    *(status(code, OF_NO_USE) for code in (415, 418, 421)),
    *(status(code, NEXT_STEP[code]) for code in (422, 423, 425)),
    *(status(code, OF_NO_USE) for code in (426, 431, 451)),
    status(500, LATER, MAY),
    status(501, NEXT_STEP[501]),
    status(502, LATER, MAY, tried=4),
    status(503, NEXT_STEP[503], tried=4),
    status(504, LATER, MAY, tried=4),
    status(507, NEXT_STEP[507]),
    *(status(code, LATER, MAY) for code in (505, 508, 511, *range(520, 531), 599, 999)),
    Fault("statuses", "503 without an error message", plays(told(503, b"<h1>magpie</h1>")),
          Outcome(f"the vault answered 503\nhint: {NEXT_STEP[503]}", 4, 4), Outcome(f"the vault answered 503\n{MAY_HAVE_BEEN}")),
    Fault("statuses", "413 before the body was read, then closed", plays(faulty_vault.then_close(faulty_vault.message(b"", 413)), body_too=False),
          *both(Outcome(f"the vault answered 413\nhint: {NEXT_STEP[413]}"))),
    Fault("statuses", "400 with a hostile message", plays(told(400, b'{"error":"\\u001b[2Jno\\u202e \\udb40\\udc41"}')),
          *both(Outcome(f'the vault answered 400, saying "<U+001B>[2Jno<U+202E> <U+E0041>"\nhint: {NEXT_STEP[400]}'))),
    Fault("statuses", "400 with a message of 5 MB", plays(told(400, b'{"error":"%b"}' % (b"x" * 5_000_000))),
          *both(Outcome(f'the vault answered 400, saying "{"x" * 500}..."\nhint: {NEXT_STEP[400]}'))),
    Fault("statuses", "400 with a message of 50 MB", plays(faulty_vault.flood(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % FIFTY_MB, PIECE, 800)), *TOO_LARGE),
    Fault("statuses", "500 with bad UTF-8", plays(told(500, b'{"error":"\xff\xfe"}')), Outcome(f"the vault answered 500\nhint: {LATER}"), Outcome(f"the vault answered 500\n{MAY_HAVE_BEEN}")),
    Fault("statuses", "206 with a partial body", plays(told(206, b'{"a":')), *NOT_JSON),
]


def busy(name: str, act: Act, hint: str, tried: int, pause_s: float | None = None) -> Fault:
    """An answer with status 429."""
    outcome = Outcome(f'the vault answered 429, saying "because"\nhint: {hint}', tried, tried, pause_s=pause_s)
    return Fault("429 Too Many Requests", name, plays(act), *both(outcome))


def after(value: str) -> Act:
    """429 with such a Retry-After."""
    return told(429, b'{"error":"because"}', f"Retry-After: {value}")


BUSY = [
    busy("no Retry-After",          told(429),                              NEXT_STEP[429], 4),
    busy("after 2 seconds",         after("2"),                             "too many requests: repeat after 2 s", 4, 2.0),
    busy("after 9 seconds",         after("9"),                             "too many requests: repeat after 9 s", 3, 9.0),
    busy("after two minutes",       after("120"),                           "too many requests: repeat after 120 s", 1),
    busy("after 31 years",          after("999999999"),                     "too many requests: repeat after 999999999 s", 1),
    busy("after a number of 30 digits", after("9" * 30),                    NEXT_STEP[429], 4),
    busy("after a negative time",   after("-5"),                            NEXT_STEP[429], 4),
    busy("after a fraction",        after("1.5"),                           NEXT_STEP[429], 4),
    busy("at a date in 5 seconds",  in_five_seconds,                        "too many requests: repeat after * s", 4, 5.0),
    busy("at a date in the past",   after("Thu, 01 Jan 1970 00:00:00 GMT"), "too many requests: repeat after 0 s", 4),
    busy("at a date in 2199",       after("Fri, 31 Dec 2199 23:59:59 GMT"), "too many requests: repeat after * s", 1),
    busy("at an invalid date",              after(HOSTILE),                         NEXT_STEP[429], 4),
]

CONTENTS = [Fault("content of answers", name, plays(told(200, body)), *NOT_JSON) for name, body in [
    ("a web page",               b"<!doctype html><title>magpie</title>"),
    ("bad UTF-8",                b'{"name":"\xff\xfe magpie"}'),
    ("UTF-16",                   '{"name":"magpie"}'.encode("utf-16")),
    ("a byte order mark",        b"\xef\xbb\xbf{}"),
    ("NaN",                      b'{"a":NaN}'),
    ("Infinity",                 b'{"a":-Infinity}'),
    ("a number beyond a float",  b'{"a":1e999999}'),
    ("half an object",           b'{"name":"cana'),
    ("two objects",              b"{}{}"),
    ("an integer of 10,000,000 digits", b'{"a":%b}' % (b"7" * 10_000_000)),
    ("nested 100,000 deep",      b"[" * 100_000 + b"]" * 100_000),
    ("a length shorter than the body", b'{"name":'),
    ("zeros",                    bytes(1_000)),
    ("gzip that is not declared", BOMB),
]] + [Fault("content of answers", name, plays(told(200, body)), *answered(text)) for name, body, text in [
    ("duplicate keys",           b'{"total":1,"total":2}',                            '{"total":2}'),
    ("large numbers",            b'{"total":12345678901234567890}',                   '{"total":12345678901234567890}'),
    ("half a surrogate pair",    b'{"\\ud800":null}',                                 '{"<U+D800>":null}'),
    ("a list",                   b"[null]",                                           '{"items":[null]}'),
    ("null",                     b"null",                                             '{"result":null}'),
    ("16 MB in one name",        b'{"%b":null}' % (b"x" * 16_777_000),                "The first 9,500 of 16,777,009 characters are shown.*"),
    ("16 MB of small objects",   b'[%b{"%b":null}]' % (b'{"total":1},' * 25_000, b"x" * 16_450_000), "The first 9,500 of 16,7*"),
]] + [Fault("content of answers", "50 MB of small objects" + name, plays(faulty_vault.flood(head, piece, FIFTY_MB // len(PIECE))), *TOO_LARGE) for name, head, piece in [
    (", with a length",    HEAD + b"Content-Length: %d\r\n\r\n" % FIFTY_MB, PIECE),
    (", without a length", HEAD + b"Connection: close\r\n\r\n",             PIECE),
    (", in chunks",        CHUNKED,                                         b"%x\r\n%b\r\n" % (len(PIECE), PIECE)),
    (", in one chunk",     CHUNKED + b"%x\r\n" % FIFTY_MB,                  PIECE),
]] + [Fault("content of answers", "a gzip bomb" + name, plays(told(code, BOMB, "Content-Encoding: gzip")), *COMPRESSED) for name, code in [
    ("", 200), (" as an error", 500),
]] + [
    Fault("content of answers", "16 MB of empty objects", plays(told(200, b"[%b{}]" % (b"{}," * 5_500_000))), *unreadable("the vault's answer has more than 300,000 values", ASK_FOR_LESS)),
    Fault("content of answers", "chunks of one byte", plays(faulty_vault.flood(CHUNKED, b"1\r\nx\r\n" * 10_000, 1_000)), *TOO_LARGE),
    Fault("content of answers", "endless trailers", plays(faulty_vault.flood(CHUNKED + b"0\r\n", b"X: x\r\n" * 10_000, 1_000)), *TOO_LARGE),
]

EXPIRED = untrusted("certificate has expired", "test authority", "check this computer's clock; if it is right, the vault's operator must renew the certificate")
SELF_SIGNED = untrusted("self*signed certificate", "vault.test", UNKNOWN_AUTHORITY)
OTHER_HOST = untrusted("Hostname mismatch, certificate is not valid for 'vault.test'.", "test authority", "check the vault's address, and whether a portal or proxy answers in its place")
UNTRUSTED = untrusted("unable to get local issuer certificate", "untrusted_authority", UNKNOWN_AUTHORITY)
ODD_NAME = "\x1b[2J\u202e<b>\"1. Ø & Co.\n"
ODDLY_NAMED = untrusted("unable to get local issuer certificate", "2Jb1. Ø & Co.", UNKNOWN_AUTHORITY)

TLS = [Fault("TLS", name, shows(certificate), *pair, stage="https") for name, certificate, pair in [
    ("an expired certificate",        lambda authority: authority.server("vault.test", ends_in=-1 * DAY), EXPIRED),
    ("a self-signed certificate",     lambda authority: authority.server("vault.test", itself=True),      SELF_SIGNED),
    ("a certificate of another host", lambda authority: authority.server("other.test", "127.0.0.1"),      OTHER_HOST),
    ("an untrusted authority",        other_authority("untrusted_authority"),                             UNTRUSTED),
    ("an untrusted authority with an odd name", other_authority(ODD_NAME),                                ODDLY_NAMED),
]] + [
    Fault("TLS", "1.0 and 1.1 only", shows(old_tls), *unreached("TLS failed: *"), stage="https"),
    Fault("TLS", "plain HTTP at an https:// URL", greets(says(faulty_vault.message(b'{"error":"magpie"}', 400))), *unreached("TLS failed: *"), stage="https"),
    Fault("TLS", "closed before the handshake", greets(lambda _wire: None), *unreached("*"), stage="https"),
    Fault("TLS", "reset in the handshake", greets(resets), *unreached("*"), stage="https"),
    Fault("TLS", "silence instead of a handshake", greets(Wire.wait_for_the_client_to_leave), *unreached("*", tried=2), stage="https", slow=True),
    Fault("TLS", "closed in the body", plays(faulty_vault.then_close(TWENTY + b"{}")), *lost("the connection broke"), stage="https"),
    Fault("TLS", "closed without close_notify and without a length", plays(faulty_vault.then_close(HEAD + b"\r\n{}")), *lost("the connection broke"), stage="https"),
    Fault("TLS", "closed with close_notify, without a length", plays(faulty_vault.then_close_tls(HEAD + b"\r\n{}")), *answered("{}"), stage="https"),
    Fault("TLS", "reset in the body", plays(faulty_vault.then_reset(TWENTY + b"{}")), *lost("*"), stage="https"),
    Fault("TLS", "the vault restarted since the last call", Stage.disconnect, *answered("{}"), stage="https"),
    Fault("TLS", "the vault restarted with an expired certificate", shows(lambda authority: authority.server("vault.test", ends_in=-1 * DAY)), *EXPIRED, stage="https"),
]

PROXIES = [Fault("proxies", name, arrange, *pair, stage="proxy") for name, arrange, pair in [
    ("none: the proxy accepts the credentials", Stage.disconnect,            answered("{}")),
    ("refused",                    leads("proxy.test", faulty_vault.refused_port),   unreached("the proxy at proxy.test:*: Connection refused")),
    ("its name does not resolve", unresolved("proxy.test"),                  unreached("the proxy at proxy.test:*: its name cannot be resolved")),
    ("407: wrong credentials",     through(faulty_vault.refusal(407)),               unreached("the proxy answered 407", tried=1)),
    ("403: host not allowed",         through(faulty_vault.refusal(403)),               unreached("the proxy answered 403", tried=1)),
    ("502: the vault is unreachable", through(faulty_vault.refusal(502)),              unreached("the proxy answered 502")),
    ("closed before its answer",   through(lambda _wire: None),                unreached("*")),
    ("closed in its answer",   through(says(b"HTTP/1.1 200 magpie\r\nX")), unreached("*")),
    ("closed after its answer",    through(says(b"HTTP/1.1 200 OK\r\n\r\n")),  unreached("*")),
    ("reset before its answer",    through(Wire.reset),                        unreached("*")),
    ("another protocol",           through(says(b"SSH-2.0-magpie\r\n")),       unreached("*")),
    ("its own certificate",   shows(lambda authority: authority.server("vault.test", itself=True)), SELF_SIGNED),
    ("the vault closes in the body", plays(faulty_vault.then_close(TWENTY)),     lost("the connection broke")),
]] + [
    Fault("proxies", "silence", through(Wire.wait_for_the_client_to_leave), *unreached(f"the proxy at *: {LATE}", tried=2), stage="proxy", slow=True),
    Fault("proxies", "headers at one byte a second", through(trickles(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000)), *unreached(f"the proxy at *: {LATE}", tried=2), stage="proxy", slow=True),
]
# ruff: enable[E501]
# fmt: on

FAULTS = [*CONNECTING, *BROKEN, *SLOW, *LENIENT, *UNUSUAL, *REDIRECTS, *STATUSES, *BUSY, *CONTENTS, *TLS, *PROXIES]
