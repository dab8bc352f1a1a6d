"""A direct answer where there is no server: kept until its app is done, then sent the ASGI way.

Decides: nothing. For calls within this process (the control API tries routes that way), which pass no guard;
nobody waits for the first byte of those.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Message, Send

from tray_valet.web.edge.answer_head import AnswerHead
from tray_valet.web.edge.requests import AnswerWriter


class KeptAnswer:
    """A `DirectAnswer`, and its `AnswerWriter`."""

    is_writable = True
    takes_chunks = False

    def __init__(self, body: bytes) -> None:
        """`body`: the request's."""
        self.body: bytes | memoryview = body
        self._messages: list[Message] = []
        self.writer: AnswerWriter = self

    async def drain(self) -> None:
        """At once: it takes everything."""

    def start(self, status: int, head: AnswerHead, length: int | None) -> None:
        """Keep the head."""
        headers = list(head.headers)
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        self._messages.append({"type": "http.response.start", "status": status, "headers": headers})

    def write(self, body: bytes, *, has_more: bool) -> None:
        """Keep a part of the body."""
        self._messages.append({"type": "http.response.body", "body": body, "more_body": has_more})

    def write_chunk(self, chunk: bytes) -> bool:
        """No: there is no HTTP here."""
        return False

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Nobody leaves."""

    async def send_by(self, send: Send) -> None:
        """Send all of it."""
        for message in self._messages:
            await send(message)
