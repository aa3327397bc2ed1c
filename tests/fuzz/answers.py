"""Answers of the vault that are almost HTTP, almost JSON, or neither, from a real socket.

Each call must end with a result that the schema allows. No nonce is sent twice, a write is repeated only after an
answer that says that it was not processed, and the next call, which gets a valid answer, must succeed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any
from unittest import mock

import sikkerkey_identity
import sikkerkey_mcp
from sikkerkey_actions import build_request, check_arguments
from tests.fuzz.mutation import mutated, odd, pieces
from tests.support.faulty_vault import FaultyVault, Wire, answer
from tests.support.harness import AGENT_ID, VAULT_ID, ReceivedRequest
from tests.support.schema_check import conforms
from tests.support.table_calls import ROUTED, Row

EXCHANGE_MAX_S, CONNECT_MAX_S = 0.1, 0.3
LIMITS: dict[str, Any] = {
    "RETRY_MAX_S": 0.5,
    "BACKOFF_S": 0.001,
    "ANSWER_MAX_BYTES": 200_000,
}

BODIES: tuple[Any, ...] = (
    {}, [], {"items": []}, {"id": "sk_abcdefghij", "name": "n", "version": 3}, "text", 5, None,
    [{"id": "proj_abcdefghij", "value": "v", "n": 1.10}],
    {"error": "no"}, {"error": "missing scope", "requiredScopes": ["projects.read", 5, None]}, {"error": {"deep": [1]}},
)  # fmt: skip
REFUSALS = (301, 304, 307, 400, 401, 403, 404, 409, 423, 429, 500, 502, 503, 504, 530, 599, 999)
STATUSES = (200,) * 8 + (201, 204, 206, 100, 103, *REFUSALS)
HEADERS = (
    b"Content-Type: application/json", b"Content-Type: text/csv", b"Content-Type: a\x00b", b"Content-Encoding: gzip",
    b"Retry-After: 0", b"Retry-After: -5", b"Retry-After: 99999999999", b"Retry-After: Fri, 31 Feb 2099 25:61:61 GMT",
    b"Transfer-Encoding: chunked, identity", b"Connection: close", b"Connection: upgrade", b"Location: http://x.invalid/",
    b"Content-Length: 3", b"Content-Length: -1", b"Content-Length: 18446744073709551616", b"Set-Cookie: a=b",
    b": empty", b"no colon", b"Date: x", b"X: \xff\xfe",
    b"Long: " + b"x" * 70_000, b"\r\n".join(b"H%d: x" % number for number in range(120)),
)  # fmt: skip


def _chunked(rng: Random, body: bytes) -> bytes:
    sizes = (b"%x", b"%X", b"0%x", b"%x;ext=1", b"-%x", b" %x ")
    spelt = sizes[: rng.choice((1, 6))]
    chunks = [rng.choice(spelt) % len(part) + b"\r\n" + part + b"\r\n" for part in pieces(rng, body)]
    return b"".join(chunks) + rng.choice((b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n", b"0\r\n", b"ffffffff\r\n", b""))


def answer_bytes(rng: Random) -> tuple[int, bytes]:
    """The intended status and the bytes of an answer."""
    status = rng.choice(STATUSES)
    body = mutated(rng, sikkerkey_mcp.to_json(odd(rng, rng.choice(BODIES))).encode("utf-8", "surrogatepass"))
    first = b"HTTP/1.%d %d Said" % (rng.choice((1, 1, 1, 0, 2)), status)
    head = [first, *rng.sample(HEADERS, rng.choice((0, 0, 1, 2, 4)))]
    if rng.random() < 0.3:
        head, body = [*head, b"Transfer-Encoding: chunked"], _chunked(rng, body)
    elif rng.random() < 0.9:
        head.append(b"Content-Length: %d" % (len(body) + rng.choice((0, 0, 0, 0, 1, -1, 10_000))))
    return status, mutated(rng, b"\r\n".join([*head, b"", b""]) + body)


class _Script:
    """Gives the next answer of a case and remembers its status, and the method of its request."""

    def __init__(self) -> None:
        self.rng = Random(0)  # noqa: S311 (replaced by each case's own)
        self.statuses: list[tuple[str, str, int]] = []  # method, path, status

    def __call__(self, wire: Wire, request: ReceivedRequest) -> bool:
        status, data = answer_bytes(self.rng)
        words = data.split(b"\n", 1)[0].split(None, 2)
        with suppress(IndexError, ValueError):  # a mutation may have changed 409 into 429
            status = int(words[1])
        self.statuses.append((request.method, request.path, status))
        for part in pieces(self.rng, data):
            wire.send(part)
        chance = self.rng.random()
        if chance < 0.01:
            wire.stopped.wait(2 * EXCHANGE_MAX_S)
        elif chance < 0.1:
            wire.reset()
        return chance > 0.9


def _call(api: sikkerkey_mcp.Api, row: Row) -> dict[str, Any]:
    return sikkerkey_mcp.VaultTools(lambda: api).call(row.tool.name, row.minimal, sikkerkey_mcp.Context())


def check_nonces(seen: list[ReceivedRequest]) -> None:
    """No two requests carry the same nonce."""
    nonces = [request.headers["x-nonce"] for request in seen]
    assert len(set(nonces)) == len(nonces)


def _api(url: str) -> sikkerkey_mcp.Api:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return sikkerkey_mcp.agent_api(
        sikkerkey_identity.Identity({"agentId": AGENT_ID, "vaultId": VAULT_ID, "apiUrl": url}, pem)
    )


@contextmanager
def target() -> Iterator[Callable[[Random], None]]:
    """Runs a faulty vault on loopback, with time limits short enough for many cases."""
    script, valid = _Script(), answer(b'{"valid":true}', 200, "Content-Type: application/json")
    with FaultyVault(script) as vault:
        api = _api(vault.url)
        limits = api._connections.limits

        def case(rng: Random) -> None:
            script.rng, script.statuses = rng, []
            row, vault.acts = rng.choice(ROUTED), [script]
            api._connections.limits = limits._replace(exchange_s=EXCHANGE_MAX_S, connect_s=CONNECT_MAX_S)
            with mock.patch.multiple(sikkerkey_mcp, **LIMITS):
                conforms(_call(api, row), "CallToolResult")
            api._connections.limits = limits
            if row.action.effect != "read":
                # A request of an earlier case may arrive late on a busy machine, but hardly one with the same path.
                sent = ("POST", build_request(row.action, check_arguments(row.tool, row.action, row.minimal, 0)).path)
                writes = [status for *request, status in script.statuses if tuple(request) == sent]
                assert set(writes[:-1]) <= {429}, "a write was sent again"
            attempts = [seen for seen in vault.seen if (seen.method == "POST") is (row.action.method == "POST")]
            assert len(attempts) <= 1 + sikkerkey_mcp.RETRIES_MAX
            vault.acts = [valid]
            assert _call(api, ROUTED[0])["structuredContent"]["valid"] is True
            check_nonces(vault.seen)
            del vault.seen[:], vault.wires[:]

        yield case
        api.close()
