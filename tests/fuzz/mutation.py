"""Bytes and JSON values that are almost valid."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

TOKENS = (
    b"\x00", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b"\x1b[2J", b'"', b"\\",
    b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b"NaN", b"-Infinity", b"1e999", b"-0", b"1.10", b"null",
    b"9" * 400, b"9" * 5_000, b"[" * 5_000, b'{"a":' * 2_000, b'"id":1,', b'"id":null,', b'"jsonrpc":"2.0",',
    b" " * 70_000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.5, -0.0, 2**53 + 1, 2**63, -(2**63) - 1, 10**400,
    "", " ", ".", "..", "../x", "a/b", "%2e", "\x00", "\n", "\u202e", "\U000e0041", "\ud800", "x" * 300, "x" * 20_000,
    [], {}, [[]], [None], {"a": {}}, ["", 1, True],
    "tools/call", "initialize", "2.0", "list", "delete", "true",
)  # fmt: skip

Mutator = Callable[[Random, bytearray], None]


def _flip(rng: Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _delete(rng: Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 10, len(data)))]


def _repeat(rng: Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.choice((1, 8, 200))]


def _insert(rng: Random, data: bytearray) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.choice(TOKENS)


def _cut(rng: Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


MUTATORS: tuple[Mutator, ...] = (_flip, _flip, _delete, _repeat, _insert, _insert, _cut)


def mutated(rng: Random, data: bytes) -> bytes:
    """A copy of `data` with some changes, often none."""
    changed = bytearray(data)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
        if changed:
            rng.choice(MUTATORS)(rng, changed)
    return bytes(changed)


def pieces(rng: Random, data: bytes) -> list[bytes]:
    """`data` in pieces, as a stream may deliver it: whole, byte by byte, or cut anywhere."""
    if len(data) < 2_000 and rng.random() < 0.1:
        return [data[i : i + 1] for i in range(len(data))]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 1, 5, 30))))
    parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)])]
    return [part for part in parts if part]


def odd(rng: Random, value: Any) -> Any:
    """A copy of a decoded JSON value with some parts replaced, removed, renamed or wrapped."""
    changed = copy.deepcopy(value)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        changed = _odd_once(rng, changed)
    return changed


def _odd_once(rng: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        chance = rng.random()
        if chance < 0.2:
            del value[key]
        elif chance < 0.3:
            value[rng.choice(("", "action", "Action", "constructor", "\u202e", key + "s"))] = value.pop(key)
        else:
            value[key] = _odd_once(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.random() < 0.7:
        index = rng.randrange(len(value))
        value[index] = _odd_once(rng, value[index])
        return value
    return copy.deepcopy(rng.choice((rng.choice(VALUES), [value], {"value": value}, str(value), value)))


def as_line(rng: Random, value: Any) -> bytes:
    """One line of JSON, in one of the permitted spellings."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5, separators=rng.choice(((",", ":"), (", ", ": "))))
    return text.encode("utf-8", "surrogatepass") + rng.choice((b"\n", b"\n", b"\r\n"))
