"""A small HTTP/1.1 client for engines on this machine and in its network.

Decides: when a connection is used again, when an answer is over, and which error a failure is.
Must not: know what is asked or answered. Why an own one: it costs a fifth of what libraries cost, and does
what they don't: a connection that turns out to be closed when it is used again, before a byte of the answer,
is replaced once. No proxies, no redirects, no TLS: `cloud_client.py` is for addresses out there.

Framing is llhttp's (httptools); what ends with the connection it does not tell (RFC 9112, 6.3): that is here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import lru_cache
from typing import NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from tray_valet.core.errors import ProviderUnreachable, UpstreamFailed, ValetError

Headers = list[tuple[bytes, bytes]]
CONNECT_TIMEOUT_S = 5.0
_IDLE_S = 4.0  # llama.cpp's server and uvicorn close idle connections after 5 s
_MAX_IDLE = 64  # for one address
_UNREAD_BYTES = 64 * 1024  # more than that unread, and the engine has to wait
_MAX_HEAD_BYTES = 64 * 1024
_JOINED_BYTES = 256 * 1024  # smaller requests go out in one piece


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent. `who` names the provider in errors; `target` is path and query."""

    base_url: str
    target: bytes
    headers: Headers
    body: bytes
    who: str
    method: bytes = b"POST"


class UpstreamResponse(Protocol):
    """An answer, as far as it has come. Header names are lower-case."""

    status: int
    headers: Headers

    @property
    def is_ended(self) -> bool:
        """Whether everything has come and was read."""
        ...

    async def read_chunk(self) -> bytes | None:
        """The next bytes of the body, None at its end. Raises UpstreamFailed if it breaks off."""
        ...

    def close(self) -> None:
        """Be done with it; an answer that is not over is ended by closing its connection."""
        ...


class UpstreamClient(Protocol):
    """Asks upstreams."""

    async def open(self, request: UpstreamRequest) -> UpstreamResponse:
        """Ask, and return with the answer's head. Raises ProviderUnreachable, UpstreamFailed."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class Address(NamedTuple):
    """Where an upstream is. `prefix` comes before every path."""

    host: str
    port: int
    authority: bytes
    prefix: bytes


class LocalClient:
    """Keeps connections open for a moment, by address. No total time-out: models may think for long."""

    def __init__(self, *, connect_timeout_s: float = CONNECT_TIMEOUT_S, idle_s: float = _IDLE_S) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._idle: dict[tuple[str, int], deque[Connection]] = {}
        self._all: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """How many are open, idle ones included."""
        return len(self._all)

    async def open(self, request: UpstreamRequest) -> UpstreamResponse:
        """Ask, and return with the answer's head. Raises ProviderUnreachable, UpstreamFailed."""
        address = address_of(request.base_url)
        data = _written(request, address)
        connection = self._take(address)
        if connection is not None:
            try:
                return await self._ask(connection, request, data)
            except StaleConnectionError:
                pass  # the engine closed it before it read the question
        return await self._ask(await self._connect(address, request.who), request, data)

    async def close(self) -> None:
        """Close every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in tuple(self._all):
            connection.abort()
        self._idle.clear()

    async def _ask(self, connection: Connection, request: UpstreamRequest, data: list[bytes]) -> Connection:
        connection.ask(data, who=request.who, is_head=request.method == b"HEAD")
        try:
            await connection.head()
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _connect(self, address: Address, who: str) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, (address.host, address.port)), address.host, address.port
                )
        except TimeoutError as error:
            raise ProviderUnreachable(f"{who} does not answer in time.") from error
        except (OSError, UnicodeError) as error:  # refused, no route, no such name
            raise ProviderUnreachable(f"{who} does not answer.") from error
        return connection

    # -- connections that wait for their next use ------------------------------------------------------

    def note_open(self, connection: Connection) -> None:
        """A connection was made."""
        self._all.add(connection)

    def note_lost(self, connection: Connection) -> None:
        """A connection is closed."""
        self._all.discard(connection)
        idle = self._idle.get(connection.key)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[connection.key]

    def keep(self, connection: Connection) -> None:
        """Keep an open connection for the next request to that address."""
        idle = self._idle.get(connection.key)
        if idle is None:
            idle = self._idle[connection.key] = deque()
        if len(idle) >= _MAX_IDLE:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        idle.append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(self._idle_s, self._close_idle)

    def _take(self, address: Address) -> Connection | None:
        idle = self._idle.get((address.host, address.port))
        while idle:
            connection = idle.pop()  # the one used last: the others get old, and are closed
            if connection.is_usable:
                return connection
        return None

    def _close_idle(self) -> None:
        self._sweep = None
        loop = asyncio.get_running_loop()
        latest_s = loop.time() - self._idle_s
        for key, idle in tuple(self._idle.items()):
            while idle and idle[0].idle_since_s <= latest_s:
                idle.popleft().abort()
            if not idle:
                self._idle.pop(key, None)
        if self._idle:
            self._sweep = loop.call_later(self._idle_s / 2, self._close_idle)


class StaleConnectionError(Exception):
    """A connection was closed while it was idle: the question was not read."""


class Connection(asyncio.Protocol):
    """One connection, and the answer on it. It is its parser's listener too."""

    def __init__(self, client: LocalClient, key: tuple[str, int]) -> None:
        self.key = key
        self.idle_since_s = 0.0
        self.status = 0
        self.headers: Headers = []
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._uses = 0
        self._who = ""
        self._is_waiting_for_answer = False
        self._is_reading_paused = False
        self._begin()

    def _begin(self) -> None:
        self._chunks: list[bytes] = []
        self._unread_bytes = 0
        self._head_bytes = 0
        self._is_head_only = False
        self._has_begun = False  # a byte of the answer has come
        self._has_head = False
        self._is_interim = False
        self._is_complete = False
        self._is_framed = False  # its end is told by a length or by chunks
        self._keeps = False
        self._error: Exception | None = None

    # -- asking ----------------------------------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_ended(self) -> bool:
        return self._is_complete and not self._chunks

    def ask(self, data: list[bytes], *, who: str, is_head: bool = False) -> None:
        """Send a request; its answer's head is awaited next."""
        self._begin()
        self.status, self.headers = 0, []
        self._who = who
        self._uses += 1
        self._is_head_only = is_head
        self._is_waiting_for_answer = True
        assert self._transport is not None
        for piece in data:
            self._transport.write(piece)

    async def head(self) -> None:
        """Wait for the head. Raises StaleConnectionError, UpstreamFailed."""
        while not self._has_head:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def read_chunk(self) -> bytes | None:
        """All that has come, or what comes next; None at the end. Raises UpstreamFailed if it breaks off."""
        while not self._chunks:
            if self._is_complete:
                return None
            if self._error is not None:
                raise self._error
            await self._wait()
        chunks = self._chunks
        chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._unread_bytes = 0
        if self._is_reading_paused:
            self._is_reading_paused = False
            if self.is_usable:
                assert self._transport is not None
                self._transport.resume_reading()
        return chunk

    def close(self) -> None:
        """Keep the connection if the answer is over and another may follow; else close it."""
        self._is_waiting_for_answer = False
        if self._is_complete and self._keeps and self.is_usable and not self._is_reading_paused:
            self._client.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close it at once: the engine notices that nobody listens."""
        self._is_waiting_for_answer = False
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: ValetError) -> None:
        if not self._is_complete and self._error is None:
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
        if not self._is_waiting_for_answer or self._is_complete:
            self._keeps = False
            self.abort()
            return
        self._has_begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(UpstreamFailed(f"{self._who} answered something that is not HTTP."))
            return
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by either side."""
        self._client.note_lost(self)
        self._keeps = False
        if self._is_waiting_for_answer and not self._is_complete and self._error is None:
            if self._has_head and not self._is_framed and exc is None:
                self._is_complete = True
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
        if self._is_complete:
            self._keeps = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one of a trailer, which nobody reads."""
        if self._has_head:
            return
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise ValueError("head too large")  # the parser makes an error of its own of it
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._is_framed = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole; a preliminary one (1xx) is passed over."""
        if self._is_complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._is_interim, self._is_framed = True, False
            self.headers = []
            return
        self.status = status
        self._has_head = True
        self._keeps = self._parser.should_keep_alive() and not self._is_head_only
        if self._is_head_only:
            self._is_complete = True

    def on_body(self, body: bytes) -> None:
        """Bytes of the body; too many unread ones, and no more are taken from the socket."""
        if self._is_complete:
            return
        self._chunks.append(body)
        self._unread_bytes += len(body)
        if self._unread_bytes > _UNREAD_BYTES and not self._is_reading_paused and self.is_usable:
            assert self._transport is not None
            self._is_reading_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._is_interim:
            self._is_interim = False
        else:
            self._is_complete = True


@lru_cache(maxsize=256)
def address_of(base_url: str) -> Address:
    """Take an upstream's base address (`http://host:port/prefix`) apart. Raises ProviderUnreachable."""
    try:
        parts = urlsplit(base_url)
        port = parts.port or 80
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(base_url)
        host = parts.hostname
        name = f"[{host}]" if ":" in host else host
        authority = (name if port == 80 else f"{name}:{port}").encode("ascii")
        return Address(host, port, authority, parts.path.rstrip("/").encode("ascii"))
    except ValueError as error:
        raise ProviderUnreachable(
            f"{base_url!r} is not an address.", remedy="Use http://host:port."
        ) from error


def _written(request: UpstreamRequest, address: Address) -> list[bytes]:
    """The request as bytes; the caller's headers have no framing of their own."""
    parts = [
        request.method,
        b" ",
        address.prefix,
        request.target,
        b" HTTP/1.1\r\nhost: ",
        address.authority,
        b"\r\ncontent-length: %d\r\n" % len(request.body),
    ]
    for name, value in request.headers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n")
    if len(request.body) <= _JOINED_BYTES:
        parts.append(request.body)
        return [b"".join(parts)]
    return [b"".join(parts), request.body]
