"""GET /events: what happens, as server-sent events.

Decides: the framing, the heartbeat, how many may listen. Must not: keep events for slow readers: the
valet folds what they missed into a fresh snapshot (newest wins).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from tray_valet.core.commands import RecordedFact, Valet
from tray_valet.core.errors import QueueFull
from tray_valet.core.snapshot import Snapshot
from tray_valet.web import list_shapes, status_shape

_HEARTBEAT_S = 15.0
_SEND_TIMEOUT_S = 30.0  # a reader that takes nothing for so long is not one
_MAX_CLIENTS = 32
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """An ASGI app for one path. `close` ends all streams at once."""

    def __init__(
        self, valet: Valet, *, heartbeat_s: float = _HEARTBEAT_S, max_clients: int = _MAX_CLIENTS
    ) -> None:
        self._valet = valet
        self._heartbeat_s = heartbeat_s
        self._max_clients = max_clients
        self._clients = 0
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End every stream, and those that would begin."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._clients >= self._max_clients:
            raise QueueFull(
                f"{self._clients} programs listen to the events already.", retry_after_s=self._heartbeat_s
            )
        self._clients += 1
        try:
            await self._stream(scope, receive, send)
        finally:
            self._clients -= 1

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        if scope["method"] != "HEAD":
            events = self._valet.follow()
            gone = asyncio.create_task(_wait_gone(receive), name="events: client leaves")
            closing = asyncio.create_task(self._closing.wait(), name="events: closing")
            try:
                await self._pump(events, send, {gone, closing})
            except TimeoutError:
                pass  # it reads nothing; the connection ends
            finally:
                gone.cancel()
                closing.cancel()
                await _close(events)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(
        self, events: AsyncIterator[Snapshot | RecordedFact], send: Send, ends: set[asyncio.Task[Any]]
    ) -> None:
        upcoming: asyncio.Task[Snapshot | RecordedFact | None] | None = None
        try:
            while True:
                if upcoming is None:
                    upcoming = asyncio.create_task(_next(events), name="events: next")
                done, _ = await asyncio.wait(
                    {upcoming, *ends}, timeout=self._heartbeat_s, return_when=asyncio.FIRST_COMPLETED
                )
                if done & ends:
                    return
                if upcoming not in done:
                    await self._send(send, b": still here\n\n", ends)
                    continue
                event, upcoming = upcoming.result(), None
                if event is None:
                    return
                await self._send(send, self._frame(event), ends)
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.wait({upcoming}, timeout=1.0)

    async def _send(self, send: Send, frame: bytes, ends: set[asyncio.Task[Any]]) -> None:
        """Send a frame; give up when the stream ends meanwhile. Raises TimeoutError for a dead reader."""
        message = {"type": "http.response.body", "body": frame, "more_body": True}
        sending = asyncio.create_task(_sent(send, message), name="events: send")
        done, _ = await asyncio.wait(
            {sending, *ends}, timeout=_SEND_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if sending in done:
            sending.result()
            return
        sending.cancel()
        await asyncio.wait({sending}, timeout=1.0)
        if not done:
            raise TimeoutError

    def _frame(self, event: Snapshot | RecordedFact) -> bytes:
        if isinstance(event, Snapshot):
            data = status_shape.status(event, event.sample, self._valet.settings)
            return b"event: snapshot\ndata: " + msgspec.json.encode(data) + b"\n\n"
        entry = event.entry
        data = list_shapes.fact(event)
        return b"event: %s\nid: %d\ndata: %s\n\n" % (
            entry.kind.encode(),
            entry.id,
            msgspec.json.encode(data),
        )


async def _next(events: AsyncIterator[Snapshot | RecordedFact]) -> Snapshot | RecordedFact | None:
    return await anext(events, None)


async def _sent(send: Send, message: dict[str, Any]) -> None:
    await send(message)


async def _wait_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _close(events: AsyncIterator[Snapshot | RecordedFact]) -> None:
    """End the valet's side of it, where it is a generator (those hold a place until then)."""
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()
