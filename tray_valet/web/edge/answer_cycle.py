"""One request and its answer on a connection: uvicorn's cycle, with the body whole and a quicker way out.

Decides: how much of a body is kept for whom. What is answered by `start` and `write` is written at once,
wherever its sender stands, and the head with the first of the body: a task's turn and a second call of the
system are the dearest parts of a short answer. Must not: change what uvicorn sends otherwise (by `send`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from tray_valet.web.edge.bodies import ClientGoneError, too_large
from tray_valet.web.edge.known_head import KnownHead
from tray_valet.web.edge.large_body import BodyMemory, Connection, LargeBody, is_large
from tray_valet.web.edge.requests import CYCLE_KEY

_BODILESS = frozenset({204, 304})


class ReadingConnection(Connection, Protocol):
    """The server's side of the connection."""

    body_memory: BodyMemory
    transport: asyncio.Transport
    flow: FlowControl
    logger: logging.Logger

    def on_response_complete(self) -> None: ...

    def give_to_worker(self, cycle: AnswerCycle) -> None: ...

    def listen_for_end(self, cycle: AnswerCycle) -> None: ...


class AnswerCycle(RequestResponseCycle):
    """Takes the place of uvicorn's before the request is begun."""

    # What hardly any request changes is said here once: to set it for each would be half of making one.
    access_log = False
    default_headers: ClassVar[list[tuple[bytes, bytes]]] = []  # type: ignore[misc]
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    is_http_10 = False
    known: KnownHead | None = None  # its head, if that came before
    chunked_encoding: bool | None = None
    expected_content_length = 0
    continued_by: Any = None  # the ASGI app that goes on with it; None = the server's
    _scope: Any = None
    _event: asyncio.Event | None = None
    _is_body_taken = False
    _on_gone: Callable[[], None] | None = None
    _memory: bytearray | None = None  # that a large body is in
    _head: list[bytes] | None = None
    _ends_by_closing = False
    _parts: list[bytes] | None = None  # of a body that `gather` waits for
    _parts_bytes = 0
    _most_bytes = 0

    def __init__(
        self,
        connection: ReadingConnection,
        body: bytes | None = None,
        *,
        is_kept: bool,
        is_question_back: bool = False,
    ) -> None:
        """`body`: all of it, where that has come. `is_kept`: the connection is, afterwards.
        `is_question_back`: the client waits for a word before it sends the body."""
        self.connection = connection
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.on_response = connection.on_response_complete
        self.keep_alive = is_kept
        self.waiting_for_100_continue = is_question_back
        self.body: bytes | bytearray = bytearray()  # type: ignore[assignment]
        if body is not None:
            self.body, self.more_body = body, False

    @property
    def scope(self) -> Any:
        """ASGI's. Of a head that came before: made for those who ask, as hardly any do."""
        scope = self._scope
        if scope is None:
            assert self.known is not None
            scope = self._scope = self.known.scope_for(len(self.body))
            scope[CYCLE_KEY] = self
        return scope

    @scope.setter
    def scope(self, scope: Any) -> None:
        self._scope = scope

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]
        """Set when there is something to receive. Most requests are answered without it, and make none."""
        event = self._event
        if event is None:
            event = self._event = asyncio.Event()
            if not self.more_body and not self._is_body_taken:
                event.set()
        return event

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
        self._is_body_taken = True
        if self._event is not None:
            self._event.clear()

    def forget_self(self) -> None:
        """ASGI's scope has referred to this for those who take the request up; they have."""
        if self._scope is not None:
            self._scope.pop(CYCLE_KEY, None)

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
        return large.take()

    async def _more(self) -> None:
        self.message_event.clear()
        self.flow.resume_reading()
        await self.message_event.wait()

    def end(self) -> None:
        """Nobody works on the request any more. What refers to this is let go, so that it is gone at once."""
        self.continued_by = None
        self.forget_self()
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

    def start(self, status: int, lines: bytes, length: int | None) -> None:
        """The head, which goes out with the first part of the body: that follows at once.

        `lines` of it, each with its line break; `length` of the body, None = not known. For requests other
        than HEAD.
        """
        if self.response_started:
            raise RuntimeError("The answer has begun already.")
        self.response_started = True
        self.waiting_for_100_continue = False
        if status in _BODILESS:
            self.chunked_encoding, self.expected_content_length = False, 0
            framing = b"\r\n"
        elif length is not None:
            self.chunked_encoding, self.expected_content_length = False, length
            framing = b"content-length: %d\r\n\r\n" % length
        elif self.is_http_10:
            # It knows no chunks: there an answer without a length ends with the connection.
            self._ends_by_closing, self.chunked_encoding, self.keep_alive = True, False, False
            framing = b"\r\n"
        else:
            self.chunked_encoding = True
            framing = b"transfer-encoding: chunked\r\n\r\n"
        if not self.keep_alive:
            framing = b"connection: close\r\n" + framing
        self._head = [STATUS_LINE[status], lines, framing]

    @property
    def takes_chunks(self) -> bool:
        """Whether chunks that are framed already may be written from now on, until the last part."""
        return bool(self.chunked_encoding) and self._head is None and not self.response_complete

    def write_chunk(self, chunk: bytes) -> bool:
        """Send a chunk that is framed already, if the client is there and takes it; whether that was so."""
        if self.disconnected or self.flow.write_paused:
            return False
        self.transport.write(chunk)
        return True

    def write(self, body: bytes, *, has_more: bool) -> None:
        """Send a part of the body, and before the first the head. A client that is gone gets nothing."""
        if self.disconnected:
            return
        if self.response_complete:
            raise RuntimeError("The answer is complete already.")
        if self._head is None and has_more and body and self.chunked_encoding:  # as most of a stream
            self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
            return
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
            if self._event is not None:
                self._event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()
