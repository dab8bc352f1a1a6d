"""A large body, from the socket straight into one piece of memory.

Decides: which bodies are worth it, and how much memory is kept for the next. Must not: know HTTP; the length
was said in the head.

What comes through the parser is copied three times, and fresh memory costs as much as a copy: megabytes of it
hold up every stream that passes meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

_LARGE_BYTES = 128 * 1024
_LARGEST_BYTES = 16 * 2**20  # no more memory is taken for a body that has not come yet
_READ_BYTES = 2**20  # at a time, so that others are heard in between
_KEPT_S = 5.0


def is_large(size_bytes: int) -> bool:
    """Whether a body of that length is read this way."""
    return _LARGE_BYTES <= size_bytes <= _LARGEST_BYTES


class BodyMemory:
    """Memory for large bodies; one piece is kept for a moment after its use."""

    def __init__(self) -> None:
        self._kept: bytearray | None = None
        self._forgetting: asyncio.TimerHandle | None = None

    def take(self, size_bytes: int) -> bytearray:
        """Memory for at least that many bytes; it is the caller's."""
        kept, self._kept = self._kept, None
        if kept is not None and len(kept) >= size_bytes:
            return kept
        return bytearray(size_bytes)

    def give_back(self, memory: bytearray) -> None:
        """Keep it for the next body, unless somebody still looks at it."""
        try:
            memory.pop()  # not possible while there is a view of it
        except BufferError:
            return
        memory.append(0)
        self._kept = memory
        if self._forgetting is None:
            loop = asyncio.get_running_loop()
            self._forgetting = loop.call_later(_KEPT_S, self._forget)

    def _forget(self) -> None:
        self._forgetting = None
        self._kept = None


class Connection(Protocol):
    """The protocol whose place is taken."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def body_is_whole(self) -> None:
        """What comes next is another request."""
        ...


class LargeBody(asyncio.BufferedProtocol):
    """Takes the place of a connection's protocol until the body is whole, then puts it back."""

    def __init__(
        self, connection: Connection, transport: asyncio.Transport, memory: bytearray, size_bytes: int
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._view = memoryview(memory)[:size_bytes]
        self._size_bytes = size_bytes
        self._begun_bytes = 0
        self._come_bytes = 0
        self._beyond = bytearray()

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come."""
        return self._come_bytes == self._size_bytes

    def take(self) -> memoryview:
        """The body; this looks at it no more. Its memory may be used again when nobody does.

        uvloop remembers the last protocol of this kind for as long as its connection is open.
        """
        body, self._view = self._view, memoryview(b"")
        return body

    def begin(self, begun: bytes | bytearray) -> None:
        """Read from here on; `begun` has come already, and is less than the whole."""
        self._begun_bytes = self._come_bytes = len(begun)
        self._view[: len(begun)] = begun
        self._transport.set_protocol(self)

    def give_up(self) -> None:
        """Let the connection's parser have what has come, and all that still comes."""
        self._transport.set_protocol(cast(asyncio.BaseProtocol, self._connection))
        self._connection.data_received(bytes(self.take()[self._begun_bytes : self._come_bytes]))

    # -- the socket ------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:  # type: ignore[override,unused-ignore]
        """Where to put what comes next."""
        if self.is_whole:  # asyncio on Windows has read on: into the next request
            self._beyond = bytearray(max(sizehint, 1))
            return self._beyond
        return self._view[self._come_bytes : self._come_bytes + _READ_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        """It is there."""
        if self.is_whole:
            self._connection.data_received(bytes(self._beyond[:nbytes]))
            return
        self._come_bytes += nbytes
        if self._come_bytes == self._size_bytes:
            self._transport.set_protocol(cast(asyncio.BaseProtocol, self._connection))
            self._connection.body_is_whole()

    def eof_received(self) -> bool | None:
        """Its client sends no more."""
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Its client is gone."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """Its client does not read."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Its client reads again."""
        self._connection.resume_writing()
