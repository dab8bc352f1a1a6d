"""A feed: an answer that goes on, piece by piece, until it ends, its reader leaves or the server stops.

Decides: when such an answer ends, and how many of a kind may be open. Must not: know what the pieces say.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette.types import Receive, Scope, Send

from tray_valet.core.errors import QueueFull
from tray_valet.web.edge.bodies import ClientGoneError

_SEND_TIMEOUT_S = 30.0  # a reader that takes nothing for so long is not one
_MAX_CLIENTS = 32
_LAST_WORD_S = 0.3
SSE_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)
_HEARTBEAT = b": still here\n\n"
_T = TypeVar("_T")


class SseFeed(ABC):
    """An ASGI app of server-sent events for one path. Subclasses make the frames."""

    def __init__(self, *, what: str, heartbeat_s: float, max_clients: int = _MAX_CLIENTS) -> None:
        """`what` names them in the refusal of one reader too many: “the events”."""
        self._what = what
        self._heartbeat_s = heartbeat_s
        self._max_clients = max_clients
        self._clients = 0
        self._closing = asyncio.Event()

    @abstractmethod
    def frames(self) -> AsyncIterator[bytes]:
        """The events for one reader, framed."""

    def close(self) -> None:
        """End every stream, and those that would begin."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._clients >= self._max_clients:
            raise QueueFull(
                f"{self._clients} programs listen to {self._what} already.", retry_after_s=self._heartbeat_s
            )
        self._clients += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
            if scope["method"] != "HEAD":
                await pump(
                    self.frames(),
                    receive,
                    send,
                    closing=self._closing,
                    heartbeat=(_HEARTBEAT, self._heartbeat_s),
                )
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._clients -= 1


async def begin(start: Coroutine[Any, Any, _T], receive: Receive, *, closing: asyncio.Event) -> _T | None:
    """Do what an answer begins with; None when `closing` comes first: it is cancelled then.

    Raises ClientGoneError when the reader leaves first, and what `start` raises.
    """
    starting = asyncio.create_task(start, name="feed: begin")
    gone, closed = _ends(receive, closing)
    try:
        await asyncio.wait({starting, gone, closed}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            return starting.result()
        if closed.done():
            return None
        raise ClientGoneError
    finally:
        for task in (starting, gone, closed):
            task.cancel()
        await asyncio.wait({starting}, timeout=1.0)


async def pump(
    pieces: AsyncIterator[bytes],
    receive: Receive,
    send: Send,
    *,
    closing: asyncio.Event,
    heartbeat: tuple[bytes, float] | None = None,
) -> None:
    """Send the pieces as parts of a body that has begun, until they end, the reader leaves or `closing`.

    `heartbeat`: what is sent after so many seconds without a piece. The caller ends the body.
    """
    ends = _ends(receive, closing)
    try:
        await _pumped(pieces, send, set(ends), heartbeat)
    except TimeoutError:
        pass  # it reads nothing; the connection ends
    finally:
        for end in ends:
            end.cancel()
        close = getattr(pieces, "aclose", None)  # a generator holds its sources until then
        if close is not None:
            await close()


def _ends(receive: Receive, closing: asyncio.Event) -> tuple[asyncio.Task[Any], asyncio.Task[Any]]:
    """What waits until the reader leaves, and until the server stops. To be cancelled."""
    return (
        asyncio.create_task(_wait_gone(receive), name="feed: client leaves"),
        asyncio.create_task(closing.wait(), name="feed: closing"),
    )


async def _pumped(
    pieces: AsyncIterator[bytes],
    send: Send,
    ends: set[asyncio.Task[Any]],
    heartbeat: tuple[bytes, float] | None,
) -> None:
    upcoming: asyncio.Task[bytes | None] | None = None
    beat, every_s = heartbeat or (b"", None)
    try:
        while True:
            upcoming = upcoming or asyncio.create_task(_next(pieces), name="feed: next")
            done, _ = await asyncio.wait(
                {upcoming, *ends}, timeout=every_s, return_when=asyncio.FIRST_COMPLETED
            )
            if done & ends:
                return
            if upcoming not in done:
                await _send(send, beat, ends)
                continue
            piece, upcoming = upcoming.result(), None
            if piece is None:
                return
            await _send(send, piece, ends)
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.wait({upcoming}, timeout=1.0)


async def _send(send: Send, piece: bytes, ends: set[asyncio.Task[Any]]) -> None:
    """Send a piece; give up when the feed ends meanwhile. Raises TimeoutError for a dead reader."""
    message = {"type": "http.response.body", "body": piece, "more_body": True}
    sending = asyncio.create_task(_sent(send, message), name="feed: send")
    done, _ = await asyncio.wait(
        {sending, *ends}, timeout=_SEND_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
    )
    if sending not in done and done:
        await asyncio.wait({sending}, timeout=_LAST_WORD_S)  # it is on its way: better whole
    if sending.done():
        sending.result()
        return
    sending.cancel()
    await asyncio.wait({sending}, timeout=1.0)
    if not done:
        raise TimeoutError


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


async def _sent(send: Send, message: dict[str, Any]) -> None:
    await send(message)


async def _wait_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
