"""One request and its answer on a connection: uvicorn's cycle, with the body whole and a quicker way out.

Decides: how much of a body is kept for whom. What is answered by `start` and `write` is written at once,
wherever its sender stands, and the head with the first of the body: a task's turn and a second call of the
system are the dearest parts of a short answer. Must not: change what uvicorn sends otherwise (by `send`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from tray_valet.web.bodies import ClientGoneError, too_large
from tray_valet.web.large_body import BodyMemory, Connection, LargeBody, is_large

Headers = list[tuple[bytes, bytes]]
_BODILESS = frozenset({204, 304})


class ReadingConnection(Connection, Protocol):
    """The server's side of the connection."""

    body_memory: BodyMemory

    def give_to_worker(self, cycle: AnswerCycle) -> None: ...

    def listen_for_end(self, cycle: AnswerCycle) -> None: ...


class AnswerCycle(RequestResponseCycle):
    """Takes the place of uvicorn's before the request is begun."""

    connection: ReadingConnection
    continued_by: Any = None  # the ASGI app that goes on with it; None = the server's
    _on_gone: Callable[[], None] | None = None
    _memory: bytearray | None = None  # that a large body is in
    _head: list[bytes] | None = None
    _ends_by_closing = False
    _parts: list[bytes] | None = None  # of a body that `gather` waits for
    _parts_bytes = 0
    _most_bytes = 0

    def add(self, body: bytes) -> bool:
        """Take a piece of the body. Whether no more should be read until somebody asks for it."""
        parts = self._parts
        if parts is None:
            self.body += body
            self.message_event.set()
            return len(self.body) > HIGH_WATER_LIMIT
        parts.append(body)
        self._parts_bytes += len(body)
        if self._parts_bytes > self._most_bytes:
            self.message_event.set()
        return False

    def whole_body(self) -> bytes | None:
        """The body if it is whole already, as most are; else None."""
        if self.more_body or self.disconnected or self.waiting_for_100_continue:
            return None
        return bytes(self.body)

    def forget_body(self) -> None:
        """It has been taken."""
        self.body = bytearray()
        self.message_event.clear()

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Have `call` called when the client leaves, soon if it has left already; None: nothing any more.

        It spares a task that waits for `receive`.
        """
        self._on_gone = call
        if call is not None:
            self.connection.listen_for_end(self)

    def tell_gone(self) -> None:
        """The client has left."""
        call, self._on_gone = self._on_gone, None
        if call is not None:
            call()

    def hand_over(self, app: Any) -> None:
        """Have a task go on with a request that was begun without one: `app` (ASGI) does it."""
        self.continued_by = app
        self.connection.give_to_worker(self)

    async def gather(self, max_bytes: int, size_bytes: int | None) -> bytes | memoryview:
        """Wait for the whole body: one wake-up, and no stop of the reading, for however many pieces.

        `size_bytes`: its length, where the head tells. Raises 413 over `max_bytes`, ClientGoneError.
        """
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if size_bytes is not None and is_large(size_bytes) and len(self.body) < size_bytes:
            return await self._gather_large(size_bytes)
        parts = self._parts = [bytes(self.body)]
        self.body = bytearray()
        self._parts_bytes, self._most_bytes = len(parts[0]), max_bytes
        try:
            while self.more_body and not self.disconnected and self._parts_bytes <= max_bytes:
                await self._more()
        finally:
            self._parts = None
        if self.disconnected:
            raise ClientGoneError
        if self._parts_bytes > max_bytes:
            raise too_large(max_bytes)
        self.message_event.clear()
        return b"".join(parts)

    async def _gather_large(self, size_bytes: int) -> memoryview:
        memory = self._memory = self.connection.body_memory.take(size_bytes)
        large = LargeBody(self.connection, self.transport, memory, size_bytes)
        large.begin(self.body)
        self.body = bytearray()
        try:
            while not large.is_whole and not self.disconnected:
                await self._more()
        finally:
            if not large.is_whole and not self.disconnected:
                large.give_up()
        if self.disconnected:
            raise ClientGoneError
        self.message_event.clear()
        return large.body

    async def _more(self) -> None:
        self.message_event.clear()
        self.flow.resume_reading()
        await self.message_event.wait()

    def end(self) -> None:
        """Nobody works on the request any more."""
        memory, self._memory = self._memory, None
        if memory is not None:
            self.connection.body_memory.give_back(memory)

    # -- the answer, without a task's help -------------------------------------------------------------

    @property
    def is_writable(self) -> bool:
        """Whether the client is there and takes what is written."""
        return not self.flow.write_paused and not self.disconnected

    async def drain(self) -> None:
        """Wait until the client takes more, or is gone."""
        await self.flow.drain()

    def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        """The head, which goes out with the first part of the body: that follows at once.

        `lines`: more of it (each with its line break), after `headers`. For requests other than HEAD.
        """
        if self.response_started:
            raise RuntimeError("The answer has begun already.")
        head = [STATUS_LINE[status]]
        # HTTP/1.0 knows no chunks: there an answer without a length ends with the connection.
        self._ends_by_closing = self.scope["http_version"] == "1.0"
        self.chunked_encoding = not self._ends_by_closing and status not in _BODILESS
        for name, value in headers:
            head += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = self._ends_by_closing = False
        text = b"".join(head)
        if text.count(b"\n") != len(headers) + 1 or text.count(b"\r") != len(headers) + 1 or b"\0" in text:
            raise RuntimeError("A header has a line break in it.")
        self._head = [text, lines]
        if status in _BODILESS:
            self.expected_content_length, self._ends_by_closing = 0, False
        if self._ends_by_closing:
            self.keep_alive = False
        if not self.keep_alive:
            self._head.append(b"connection: close\r\n")
        self._head.append(b"transfer-encoding: chunked\r\n\r\n" if self.chunked_encoding else b"\r\n")
        self.response_started = True
        self.waiting_for_100_continue = False

    def write(self, body: bytes, *, has_more: bool) -> None:
        """Send a part of the body, and before the first the head. A client that is gone gets nothing."""
        if self.disconnected:
            return
        if self.response_complete:
            raise RuntimeError("The answer is complete already.")
        parts, self._head = self._head or [], None
        if self.chunked_encoding:
            if body:
                parts += (b"%x\r\n" % len(body), body, b"\r\n")
            if not has_more:
                parts.append(b"0\r\n\r\n")
        elif self._ends_by_closing:
            parts.append(body)
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (self.expected_content_length and not has_more):
                raise RuntimeError("The body is not as long as its Content-Length says.")
            parts.append(body)
        self.transport.write(b"".join(parts))
        if not has_more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()
