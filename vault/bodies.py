"""Reads the body of a request, within limits of size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from vault.errors import Refusal

MAX_BODY_BYTES = 256 * 1024  # twice the largest value of the contract, 100 KB, in JSON escapes
READ_TIMEOUT_S = 30.0  # for a whole body, so an incomplete one cannot hold a connection
MAX_DRAINED_BYTES = 8 * MAX_BODY_BYTES  # read and discarded, so the client can still receive the 413


async def read(request: Request) -> bytes:
    """The body. Raises Refusal, 413 if it is too large and 408 if it is too slow, or ClientDisconnect."""
    try:
        return await asyncio.wait_for(_read(request), READ_TIMEOUT_S)
    except asyncio.TimeoutError:
        raise Refusal(408, "the body did not arrive in time") from None


async def _read(request: Request) -> bytes:
    body, size = b"", 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_DRAINED_BYTES:
            break
        body = body + chunk if size <= MAX_BODY_BYTES else b""
    if size > MAX_BODY_BYTES:
        raise Refusal(413, f"a body has at most {MAX_BODY_BYTES} bytes")
    return body
