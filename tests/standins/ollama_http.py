"""A small HTTP/1.1 server over asyncio and h11, for stand-ins: starts in milliseconds, notices at once when
a client hangs up and cancels its handler, as Go's net/http does with a request's context.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import h11

MAX_BODY_BYTES = 64 * 2**20


class HttpError(Exception):
    """An answer with a status other than 200, in the style of the route that raised it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Request:
    """One request, with its whole body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Reply:
    """The answer to one request, sent as it is made."""

    def __init__(self, connection: h11.Connection, writer: asyncio.StreamWriter) -> None:
        self._connection = connection
        self._writer = writer
        self.is_started = False

    async def whole(self, status: int, body: bytes, content_type: str) -> None:
        """Send everything at once."""
        self._start(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        self._send(h11.Data(data=body))
        await self.end()

    async def json(self, value: Any, status: int = 200) -> None:
        """Send a JSON value."""
        await self.whole(status, json.dumps(value).encode(), "application/json; charset=utf-8")

    async def part(self, data: str, content_type: str) -> None:
        """Send the next part of a stream, with the head before the first one."""
        if not self.is_started:
            self._start(200, [("Content-Type", content_type), ("Transfer-Encoding", "chunked")])
        self._send(h11.Data(data=data.encode()))
        await self._writer.drain()

    async def end(self) -> None:
        """End the answer."""
        self._send(h11.EndOfMessage())
        await self._writer.drain()

    def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.is_started = True
        self._send(h11.Response(status_code=status, headers=headers))

    def _send(self, event: h11.Event) -> None:
        data = self._connection.send(event)
        if data:
            self._writer.write(data)


Handler = Callable[[Request, Reply], Awaitable[None]]


async def serve(handler: Handler, host: str, port: int) -> asyncio.Server:
    """Listen; port 0 takes a free one."""

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _converse(handler, reader, writer)
        except (ConnectionError, h11.ProtocolError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    return await asyncio.start_server(on_connection, host, port)


async def _converse(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = h11.Connection(h11.SERVER)
    while True:
        request = await _next_request(connection, reader)
        if request is None:
            return
        reply = Reply(connection, writer)
        answering = asyncio.create_task(_guarded(handler, request, reply), name=f"answer-{request.path}")
        if not await _watched(answering, reader, connection):
            return
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return
        connection.start_next_cycle()


async def _guarded(handler: Handler, request: Request, reply: Reply) -> None:
    """The edge: what a handler did not foresee is a 500, not a dead connection."""
    try:
        await handler(request, reply)
    except ConnectionError:
        raise
    except Exception as error:
        if reply.is_started:
            raise
        await reply.json({"error": f"{type(error).__name__}: {error}"}, 500)


async def _watched(
    answering: asyncio.Task[None], reader: asyncio.StreamReader, connection: h11.Connection
) -> bool:
    """Wait for the answer; cancel it when the client hangs up. Returns whether the client is there."""
    watching = asyncio.create_task(reader.read(65536), name="watch-client")
    try:
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done() and not watching.cancelled() and not answering.done():
            data = b"" if watching.exception() else watching.result()
            if not data:
                answering.cancel()
                await asyncio.wait({answering})
                return False
            connection.receive_data(data)
        await answering
        return True
    finally:
        for task in (answering, watching):
            if not task.done():
                task.cancel()
                await asyncio.wait({task})


async def _next_request(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                return None
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
            path = unquote(urlsplit(head.target.decode()).path)
            return Request(head.method.decode(), path, headers, bytes(body))
        else:
            return None
