"""Request bodies: read whole, but never more of them, or for longer, than the policy allows.

Decides: when a body is too large or too slow. Must not: parse it.
"""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive

from tray_valet.web.edge.errors import EdgeCode, ErrorType, HttpError
from tray_valet.web.edge.requests import Cycle, RequestHead

Body = bytes | memoryview
_LINGER_S = 2.0
_LINGER_BYTES = 64 * 2**20


class ClientGoneError(Exception):
    """The client closed the connection; there is nobody to answer."""


def declared_length(head: RequestHead) -> int | None:
    """The Content-Length; None where none is given. Raises 400 for one that is no length."""
    if not head.has(b"content-length"):
        return None
    value = head.one(b"content-length")
    text = value.strip() if value is not None else b""
    if not text.isdigit() or len(text) > 18:
        raise HttpError(
            400, ErrorType.INVALID_REQUEST, EdgeCode.BAD_LENGTH, "The Content-Length is not a length."
        )
    return int(text)


def too_large(max_bytes: int) -> HttpError:
    """The refusal of a body over the limit (bytes)."""
    return HttpError(
        413,
        ErrorType.INVALID_REQUEST,
        EdgeCode.TOO_LARGE,
        f"The body is larger than the {max_bytes} bytes that are allowed (max_body_bytes).",
    )


async def read_body(
    receive: Receive,
    *,
    max_bytes: int,
    timeout_s: float,
    keep: bool = True,
    cycle: Cycle | None = None,
    size_bytes: int | None = None,
) -> Body:
    """Read the body whole, counting as it comes in. `keep` False: count it only, and return b"".

    `cycle` is our server's quick way to a body that is kept; `size_bytes` its declared length.
    Raises 413 over `max_bytes`, 408 after `timeout_s` seconds, ClientGoneError.
    """
    try:
        async with asyncio.timeout(timeout_s):
            if keep and cycle is not None:
                return await cycle.gather(max_bytes, size_bytes)
            return await _received(receive, max_bytes, keep=keep)
    except TimeoutError:
        raise HttpError(
            408,
            ErrorType.TIMEOUT,
            EdgeCode.BODY_TOO_SLOW,
            f"The body did not arrive within {timeout_s:g} seconds.",
        ) from None


async def _received(receive: Receive, max_bytes: int, *, keep: bool) -> bytes:
    parts: list[bytes] = []
    total_bytes = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        total_bytes += len(part)
        if total_bytes > max_bytes:
            raise too_large(max_bytes)
        if keep and part:
            parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def discard_rest(receive: Receive) -> None:
    """Read on for a moment after a refusal, so that the client gets to read it.

    A socket closed with unread data in it is reset, and the reset overtakes the answer.
    """
    total_bytes = 0
    try:
        async with asyncio.timeout(_LINGER_S):
            while total_bytes <= _LINGER_BYTES:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                total_bytes += len(message.get("body", b""))
    except TimeoutError:
        return


def replay(body: Body, receive: Receive) -> Receive:
    """A `receive` that gives the whole body first, and then what the connection says."""
    is_given = False

    async def receive_again() -> Message:
        nonlocal is_given
        if not is_given:
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return receive_again
