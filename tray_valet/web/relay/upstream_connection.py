"""A connection to an engine, and the one answer that is on it.

Decides: when an answer is over, what of it may still come, and which error a failure is.
Must not: be used by two requests at once, or outlive an answer that was given up.

Framing is llhttp's (httptools); what ends with the connection it does not tell (RFC 9112, 6.3): that is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import httptools

from tray_valet.core.errors import UpstreamFailed, ValetError
from tray_valet.web.relay.engine_heads import MAX_HEAD_BYTES, Headers, end_of_first_frame, read_headers

_UNREAD_BYTES = 64 * 1024  # more than that unread, and the engine has to wait
_MOST_LINES = 256
_LENGTH_OF_LENGTH = len(b"content-length")


class StaleConnectionError(Exception):
    """A connection was closed while it was idle: the question was not read."""


class Pool(Protocol):
    """Who keeps connections: the client."""

    def note_open(self, connection: Connection) -> None: ...

    def note_lost(self, connection: Connection) -> None: ...

    def keep(self, connection: Connection) -> None: ...


class Listener(Protocol):
    """Who passes an answer on as it comes. What it raises is raised where somebody waits for the answer."""

    def on_data(self, response: Connection) -> bool:
        """More than before has come, and somebody waits for it; whether that one may sleep on."""
        ...

    def by_chunks(self) -> Callable[[bytes], bool] | None:
        """Who looks at what comes from here on, before anybody else, as long as it takes that; None: nobody.

        It takes nothing but single chunks of the body that are whole, framing and all.
        """
        ...


class Connection(asyncio.Protocol):
    """One connection, and the answer on it. It is its parser's listener too."""

    def __init__(self, client: Pool, loop: asyncio.AbstractEventLoop, key: tuple[str, int]) -> None:
        self.key = key
        self.loop = loop
        self.idle_since_s = 0.0
        self.status = 0
        self.headers: Headers = ()
        self.length: int | None = None
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._uses = 0
        self._who = ""
        self._is_waiting_for_answer = False
        self._is_reading_paused = False
        self._begin()

    def _begin(self) -> None:
        self._lines: list[tuple[bytes, bytes]] = []  # of a head that is not whole
        self._chunks: list[bytes] = []
        self._unread_bytes = 0
        self._head_bytes = 0
        self._is_head_only = False
        self._has_begun = False  # a byte of the answer has come
        self._has_head = False
        self._is_interim = False
        self.is_complete = False
        self._is_framed = False  # its end is told by a length or by chunks
        self._keeps = False
        self._error: Exception | None = None
        self._is_between_chunks = False  # as far as the parser knows
        self._on_chunk: Callable[[bytes], bool] | None = None  # looks at what comes before it is parsed
        self._listener: Listener | None = None
        self._on_wake: Callable[[], None] | None = None

    # -- asking ----------------------------------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_ended(self) -> bool:
        return self.is_complete and not self._chunks

    @property
    def has_unread(self) -> bool:
        return bool(self._chunks)

    def send(
        self,
        data: Sequence[bytes | memoryview],
        *,
        who: str,
        is_head: bool = False,
    ) -> None:
        """Send a request; `head` waits for its answer."""
        transport = self._transport
        assert transport is not None
        # First of all: the engine may work on it while we prepare for its answer.
        if len(data) == 1:
            transport.write(data[0])
        else:
            transport.writelines(data)
        self._begin()
        self.status, self.headers, self.length = 0, (), None
        self._who = who
        self._uses += 1
        self._is_head_only = is_head
        self._is_waiting_for_answer = True

    def expect(
        self,
        listener: Listener | None,
        on_wake: Callable[[], None] | None = None,
    ) -> None:
        """Say who is interested in the answer, before the loop goes on.

        Where nobody waits for it yet, `on_wake` is called once instead of waking.
        """
        self._listener, self._on_wake = listener, on_wake

    async def head(self) -> None:
        """Wait for the head of the answer. Raises StaleConnectionError, UpstreamFailed; then (and when it is
        cancelled) the connection is closed."""
        self._on_wake = None
        try:
            while not self._has_head:
                if self._error is not None:
                    raise self._error
                waiter = self._waiter = self.loop.create_future()
                await waiter
        except BaseException:
            self.abort()
            raise
        finally:
            self._waiter = None

    def leave_to_task(self) -> None:
        """Somebody is going to wait for it: `on_wake` is not called any more."""
        self._on_wake = self._on_chunk = None

    def take(self) -> bytes:
        """All that has come and was not read yet; b"" = nothing."""
        chunks = self._chunks
        if not chunks:
            return b""
        chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._unread_bytes = 0
        if self._is_reading_paused:
            self._is_reading_paused = False
            if self.is_usable:
                assert self._transport is not None
                self._transport.resume_reading()
        return chunk

    async def read_chunk(self) -> bytes | None:
        """All that has come, or what comes next; None at the end. Raises UpstreamFailed if it breaks off."""
        while not self._chunks:
            if self.is_complete:
                return None
            if self._error is not None:
                raise self._error
            waiter = self._waiter = self.loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None
        return self.take()

    def close(self) -> None:
        """Keep the connection if the answer is over and another may follow; else close it."""
        self._let_go()
        if self.is_complete and self._keeps and self.is_usable and not self._is_reading_paused:
            self._client.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close it at once: the engine notices that nobody listens."""
        self._let_go()
        if self._transport is not None:
            self._transport.abort()

    def _let_go(self) -> None:
        self._is_waiting_for_answer = False
        self._listener = self._on_wake = self._on_chunk = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            if not waiter.done():
                waiter.set_result(None)
        elif self._on_wake is not None:
            on_wake, self._on_wake = self._on_wake, None
            on_wake()

    def _fail(self, error: ValetError) -> None:
        if not self.is_complete and self._error is None:
            self._error = error
        self._keeps = False
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    # -- the socket ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by descent
        self._client.note_open(self)

    def data_received(self, data: bytes) -> None:
        """Part of an answer, or what nobody asked for."""
        on_chunk = self._on_chunk
        if on_chunk is not None:
            try:
                if on_chunk(data):
                    return  # the parser, between two chunks, is where it was
            except Exception as error:  # noqa: BLE001  # as in `_tell`
                self._error, self._on_chunk = error, None
                self._wake()
                return
            self._on_chunk = None
        if not self._is_waiting_for_answer or self.is_complete:
            self._keeps = False
            self.abort()
            return
        if self._error is not None:
            return  # it is told to who waits
        if not self._has_head:
            # Its first frame is passed on before the rest of a burst is parsed.
            if not self._has_begun and (end := end_of_first_frame(data)):
                self.data_received(data[:end])
                self.data_received(data[end:])
                return
            self._has_begun = True
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(UpstreamFailed(f"{self._who} answered something that is not HTTP."))
            return
        if self._has_head:
            waiter = self._waiter
            # Who works on the answer without being awaited looks by itself.
            if self._on_wake is not None if waiter is None else not waiter.done():
                listener = self._tell()
                # Between two chunks: in the middle of one's first line no line ends, and behind that line the
                # parser knows of it.
                if listener is not None and self._is_between_chunks and data.endswith(b"\r\n"):
                    self._on_chunk = listener.by_chunks()
        elif self._head_bytes > 2 * MAX_HEAD_BYTES:  # with preliminary ones
            self._fail(UpstreamFailed(f"{self._who} does not come to the end of its answer's head."))
            return
        if self._unread_bytes > _UNREAD_BYTES:
            self._limit_unread()

    def _tell(self) -> Listener | None:
        """Have what has come passed on; wake who waits where that takes more. Returns who may get more."""
        listener = self._listener
        try:
            if listener is not None and listener.on_data(self):
                return listener
        except Exception as error:  # noqa: BLE001  # a callback's guard: it is raised where one waits
            self._error = error
        self._wake()
        return None

    def _limit_unread(self) -> None:
        """Take no more from the socket for now."""
        if not self._is_reading_paused and self.is_usable:
            assert self._transport is not None
            self._is_reading_paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by either side."""
        self._client.note_lost(self)
        self._keeps = False
        if self._is_waiting_for_answer and not self.is_complete and self._error is None:
            if self._has_head and not self._is_framed and exc is None:
                self.is_complete = True
            elif self._uses > 1 and not self._has_begun:
                self._error = StaleConnectionError()
            elif self._has_head:
                self._error = UpstreamFailed(f"{self._who} broke off in the middle of an answer.")
            else:
                self._error = UpstreamFailed(f"{self._who} broke off before it answered.")
        self._wake()

    # -- the parser ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins: of this answer, or (after its end) of one too many."""
        if self.is_complete:
            self._keeps = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one of a trailer, which nobody reads."""
        if self._has_head:
            return
        if len(name) == _LENGTH_OF_LENGTH and name.lower() == b"content-length":
            self.length = int(value)
        else:
            self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole; a preliminary one (1xx) is passed over."""
        if self.is_complete:
            return
        status = self._parser.get_status_code()
        lines, self._lines = self._lines, []
        if status < 200:
            self._is_interim, self.length = True, None
            return
        self.status = status
        if len(lines) > _MOST_LINES:
            raise ValueError("too many headers")
        self.headers, is_in_chunks = read_headers(tuple(lines))
        self._is_framed = is_in_chunks or self.length is not None
        self._has_head = True
        self._keeps = self._parser.should_keep_alive() and not self._is_head_only
        if self._is_head_only:
            self.is_complete = True

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._is_between_chunks = False

    def on_chunk_complete(self) -> None:
        """A chunk is over, with the line break behind it."""
        self._is_between_chunks = True

    def on_body(self, body: bytes) -> None:
        """Bytes of the body."""
        if not self.is_complete:
            self._chunks.append(body)
            self._unread_bytes += len(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._is_interim:
            self._is_interim = False
        else:
            self.is_complete = True
