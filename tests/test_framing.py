"""Splitting a byte stream into lines, wherever it is cut."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sikkerkey_mcp import LINE_MAX_BYTES, split_lines
from tests.support.harness import Server
from tests.support.rows import each_of
from tests.support.schema_check import CheckedServer

LIMIT = 8

STREAM = b"one\ntwo\r\n\n \n12345678\n123456789\nlast\n" + b"x" * 30 + b"\nhalf"
LINES = [b"one", b"two\r", b"", b" ", b"12345678", None, b"last", None, b"half"]


def lines_of(pieces: list[bytes], limit: int = LIMIT) -> list[bytes | None]:
    """The lines of a stream that arrives in `pieces`, without the empty ones."""
    feed = itertools.chain(filter(None, pieces), itertools.repeat(b""))
    return list(split_lines(lambda: next(feed), limit))


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """`stream` cut at `places`."""
    edges = [0, *sorted(places), len(stream)]
    return [stream[start:end] for start, end in zip(edges, edges[1:])]


def expected(stream: bytes, limit: int) -> list[bytes | None]:
    """The expected lines, computed from the whole stream."""
    lines = stream.split(b"\n")
    return [None if len(line) > limit else line for line in (lines if lines[-1] else lines[:-1])]


def test_pieces_of_any_size_give_the_same_lines() -> None:
    for size in range(1, len(STREAM) + 1):
        assert lines_of(cut(STREAM, list(range(size, len(STREAM), size)))) == LINES, size


def test_a_cut_at_any_single_place_gives_the_same_lines() -> None:
    assert [lines_of(cut(STREAM, [place])) for place in range(len(STREAM))] == [LINES] * len(STREAM)


@given(
    st.lists(st.binary(max_size=2 * LIMIT) | st.sampled_from([b"", b"\r", b"x" * LIMIT]), max_size=8),
    st.lists(st.integers(0, 100), max_size=12),
)
def test_any_cutting_of_any_stream_gives_the_same_lines(parts: list[bytes], places: list[int]) -> None:
    stream = b"\n".join(parts)
    assert lines_of(cut(stream, [place for place in places if place < len(stream)])) == expected(stream, LIMIT)


def test_an_empty_stream_has_no_lines() -> None:
    assert lines_of([]) == []


@each_of(
    ("stream", "lines"),
    [
        (b"12345678\n", [b"12345678"]),
        (b"12345678", [b"12345678"]),
        (b"123456789\n", [None]),
        (b"123456789", [None]),
        (b"1234567\r\n", [b"1234567\r"]),
        (b"x" * 100 + b"\nok\n", [None, b"ok"]),
        (b"x" * 100 + b"\n" + b"x" * 100 + b"\n\nok", [None, None, b"", b"ok"]),
    ],
)
def test_a_line_may_be_as_long_as_the_limit_and_no_longer(stream: bytes, lines: list[bytes | None]) -> None:
    assert [lines_of(cut(stream, list(range(0, len(stream), size)))) for size in (1, 3, 200)] == [lines] * 3


def test_an_endless_line_is_dropped_piece_by_piece() -> None:
    pieces = itertools.chain(itertools.repeat(bytes(65_536), 500), [b"\nok\n"], itertools.repeat(b""))
    assert list(split_lines(lambda: next(pieces), 100_000)) == [None, b"ok"]


# The same through a real process.


def ping(request_id: Any) -> bytes:
    """A request as bytes, without an end of line."""
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "ping"}).encode()


def pong(request_id: Any) -> Any:
    """Its reply."""
    return {"jsonrpc": "2.0", "id": request_id, "result": {}}


PARSE_ERROR = {"jsonrpc": "2.0", "error": {"code": -32700, "message": "the line is not a JSON message in UTF-8"}}
TOO_LONG = {"jsonrpc": "2.0", "error": {"code": -32600, "message": "the message is longer than 4,194,304 bytes"}}


@pytest.fixture
def process(home: Path) -> Iterator[Server]:
    with CheckedServer() as started:
        yield started


def read_all(process: Server) -> list[Any]:
    """Closes the input; every message up to the end, which must be a good one."""
    assert process.close() == 0
    return list(iter(process.read, None))


def test_a_message_that_arrives_byte_by_byte_is_answered(process: Server) -> None:
    for byte in ping("ø→🔑") + b"\n":
        process.send_bytes(bytes([byte]))
    assert process.read() == pong("ø→🔑")


def test_messages_that_arrive_together_are_answered_in_order(process: Server) -> None:
    process.send_bytes(b"".join(ping(number) + b"\n" for number in range(2_000)))
    assert [process.read() for _ in range(2_000)] == [pong(number) for number in range(2_000)]


def test_crlf_and_blank_lines_do_no_harm(process: Server) -> None:
    process.send_bytes(b"\r\n\n  \n\t\r\n" + ping(1) + b"\r\n\n" + b"  " + ping(2) + b"\t\n\n")
    assert read_all(process) == [pong(1), pong(2)]


def test_a_last_line_without_an_end_is_answered(process: Server) -> None:
    process.send_bytes(ping(1) + b"\n" + ping(2))
    assert read_all(process) == [pong(1), pong(2)]


def test_half_a_message_at_the_end_is_a_parse_error(process: Server) -> None:
    process.send_bytes(ping(1) + b"\n" + ping(2)[:-5])
    assert read_all(process) == [pong(1), PARSE_ERROR]


@pytest.mark.peer(1)
def test_a_message_of_exactly_the_limit_is_answered(process: Server) -> None:
    process.send_bytes(ping(1).ljust(LINE_MAX_BYTES) + b"\n")
    assert process.read() == pong(1)


@pytest.mark.peer(1)
def test_messages_after_overlong_ones_are_answered(process: Server) -> None:
    overlong = ping(1).ljust(LINE_MAX_BYTES + 1) + b"\n"
    process.send_bytes(overlong + ping(2) + b"\n" + overlong + ping(3) + b"\n")
    assert [process.read() for _ in range(4)] == [TOO_LONG, pong(2), TOO_LONG, pong(3)]


def test_messages_after_garbage_are_answered(process: Server) -> None:
    process.send_bytes(b"\xff\xfe\n{]\n\x00\n" + ping(1) + b"\n")
    assert [process.read() for _ in range(4)] == [PARSE_ERROR, PARSE_ERROR, PARSE_ERROR, pong(1)]
