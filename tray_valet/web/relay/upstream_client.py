"""A small HTTP/1.1 client for engines on this machine and in its network.

Decides: when a connection is used again, and which error it is when none can be made.
Must not: know what is asked or answered, or read answers (`upstream_connection.py` does). Why an own one: it
costs a fifth of what libraries cost, and does what they don't: a connection that turns out to be closed when
it is used again, before a byte of the answer, is replaced once. No proxies, no redirects, no TLS:
`cloud_client.py` is for addresses out there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from tray_valet.core.errors import ProviderUnreachable
from tray_valet.web.relay.upstream_connection import Connection, Listener, StaleConnectionError

Headers = list[tuple[bytes, bytes]]
Pieces = list[bytes | memoryview]
CONNECT_TIMEOUT_S = 5.0
_IDLE_S = 4.0  # llama.cpp's server and uvicorn close idle connections after 5 s
_MAX_IDLE = 64  # for one address


class UpstreamHead(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The head of a question, all but its length: the same for all that are asked the same way. `target` is
    path and query; `headers` have no framing of their own."""

    base_url: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    method: bytes = b"POST"

    @cached_property
    def address(self) -> Address:
        """Where it goes. Raises ProviderUnreachable where that is no `http:` address."""
        return address_of(self.base_url)

    @cached_property
    def lines(self) -> bytes:
        """It as bytes, up to the figure of the body's length."""
        address = self.address
        start = (self.method, b" ", address.prefix, self.target, b" HTTP/1.1\r\nhost: ", address.authority)
        lines = (b"\r\n%b: %b" % pair for pair in self.headers)
        return b"".join((*start, *lines, b"\r\ncontent-length: "))


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent. `who` names the provider in errors. A large body comes in pieces: each copy of it costs
    time in which nothing else is done."""

    head: UpstreamHead
    body: bytes | Pieces
    who: str


class UpstreamResponse(Protocol):
    """An answer, as far as it has come. Header names are lower-case."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]  # but for `Date` and `Content-Length`: they differ each time
    length: int | None  # of the body; None = not told

    @property
    def is_complete(self) -> bool:
        """Whether everything has come."""
        ...

    @property
    def has_unread(self) -> bool:
        """Whether something has come that was not read."""
        ...

    @property
    def is_ended(self) -> bool:
        """Whether everything has come and was read."""
        ...

    def take(self) -> bytes:
        """What has come of the body and was not read yet; b"" = nothing."""
        ...

    async def read_chunk(self) -> bytes | None:
        """The next bytes of the body, None at its end. Raises UpstreamFailed if it breaks off."""
        ...

    def close(self) -> None:
        """Be done with it; an answer that is not over is ended by closing its connection."""
        ...


class UpstreamClient(Protocol):
    """Asks upstreams."""

    def send(self, request: UpstreamRequest) -> Connection | None:
        """Send a request on a connection that is open already; None where there is none, as for clients that
        have no such way. `Connection.expect` is due at once."""
        ...

    async def open(
        self, request: UpstreamRequest, listener: Listener | None = None, sent: Connection | None = None
    ) -> UpstreamResponse:
        """Ask, and return with the answer's head. Raises ProviderUnreachable, UpstreamFailed.

        `sent`: what `send` has returned for this request. The listener may also never be told anything.
        """
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

    def send(self, request: UpstreamRequest) -> Connection | None:
        """Send a request on a connection that is open already; None where there is none."""
        connection = self._take(request.head.address)
        if connection is not None:
            try:
                _send(connection, request)
            except BaseException:
                connection.abort()
                raise
        return connection

    async def open(
        self, request: UpstreamRequest, listener: Listener | None = None, sent: Connection | None = None
    ) -> Connection:
        """Ask, and return with the answer's head. Raises ProviderUnreachable, UpstreamFailed.

        `sent`: what `send` has returned for this request.
        """
        connection = sent
        if connection is None and (connection := self.send(request)) is not None:
            connection.expect(listener)
        if connection is not None:
            try:
                await connection.head()
            except StaleConnectionError:
                pass  # the engine closed it before it read the question
            else:
                return connection
        connection = await self._connect(request.head.address, request.who)
        _send(connection, request)
        connection.expect(listener)
        await connection.head()
        return connection

    async def close(self) -> None:
        """Close every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in tuple(self._all):
            connection.abort()
        self._idle.clear()

    async def _connected(self, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(self, loop, (address.host, address.port))
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await loop.create_connection(lambda: connection, address.host, address.port)
        except BaseException:
            # uvloop closes one that was made in the very moment of a cancellation, and tells nobody.
            connection.abort()
            self.note_lost(connection)
            raise
        return connection

    async def _connect(self, address: Address, who: str) -> Connection:
        try:
            return await self._connected(address)
        except TimeoutError as error:
            raise ProviderUnreachable(f"{who} does not answer in time.") from error
        except (OSError, UnicodeError) as error:  # refused, no route, no such name
            raise ProviderUnreachable(f"{who} does not answer.") from error

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
        loop = connection.loop
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


def _send(connection: Connection, request: UpstreamRequest) -> None:
    connection.send(_written(request), who=request.who, is_head=request.head.method == b"HEAD")


def _written(request: UpstreamRequest) -> Pieces:
    """The request as bytes."""
    lines, body = request.head.lines, request.body
    if isinstance(body, bytes):
        return [b"%b%d\r\n\r\n%b" % (lines, len(body), body)]
    return [b"%b%d\r\n\r\n" % (lines, sum(map(len, body))), *body]
