"""An engine that answers with exactly the bytes that a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LENGTH = b"content-length:"


class RawEngine:
    """Each request on a connection is answered by the next of `answers` (the last one again and again).

    An answer is a list of pieces, written one after another; after it the connection stays open unless
    `closes`. Pieces that are None close the connection at once.
    """

    def __init__(self, *answers: list[bytes | None], closes: bool = False) -> None:
        self.answers = list(answers)
        self.closes = closes
        self.connections = 0
        self.requests: list[bytes] = []
        self.left = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(_LENGTH)), 0
                )
                self.requests.append(head + await reader.readexactly(length))
                for piece in self._next_answer():
                    if piece is None:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.closes:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()

    def _next_answer(self) -> list[bytes | None]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@asynccontextmanager
async def raw_engine(*answers: list[bytes | None], closes: bool = False) -> AsyncIterator[RawEngine]:
    engine = RawEngine(*answers, closes=closes)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    engine.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield engine
    finally:
        server.close()
