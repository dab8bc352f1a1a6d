"""One request and its answer on a connection: uvicorn's cycle, with the body whole and fewer writes.

Decides: how much of a body is kept for whom, and when a head waits for its body: where the sender says that
one follows at once. Two writes are two calls of the system, the dearest part of a short answer.
Must not: change what uvicorn sends otherwise.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from tray_valet.web.bodies import ClientGoneError, too_large

HELD = "tray_valet.held"  # in `http.response.start`: the first part of the body follows at once
LINES = (
    "tray_valet.lines"  # beside HELD: lines (bytes, each with its line break) for the head, after `headers`
)
_BODILESS = frozenset({204, 304})


class AnswerCycle(RequestResponseCycle):
    """Takes the place of uvicorn's before the request is begun."""

    _head: list[bytes] | None = None
    _was_held = False
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
        """The body if it is whole already, as most are; else None, and nothing is taken."""
        if self.more_body or self.disconnected or self.waiting_for_100_continue:
            return None
        body, self.body = bytes(self.body), bytearray()
        self.message_event.clear()
        return body

    async def gather(self, max_bytes: int) -> bytes:
        """Wait for the whole body: one wake-up, and no stop of the reading, for however many pieces.

        Raises 413 over `max_bytes`, ClientGoneError.
        """
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        parts = self._parts = [bytes(self.body)]
        self.body = bytearray()
        self._parts_bytes, self._most_bytes = len(parts[0]), max_bytes
        try:
            while self.more_body and not self.disconnected and self._parts_bytes <= max_bytes:
                self.message_event.clear()
                self.flow.resume_reading()
                await self.message_event.wait()
        finally:
            self._parts = None
        if self.disconnected:
            raise ClientGoneError
        if self._parts_bytes > max_bytes:
            raise too_large(max_bytes)
        self.message_event.clear()
        return b"".join(parts)

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        if self._was_held:
            if self.flow.write_paused and not self.disconnected:
                await self.flow.drain()
            if not self.disconnected:
                self._write(message["body"], has_more=message.get("more_body", False))
        elif HELD in message and not self.response_started and self.scope["method"] != "HEAD":
            self._hold(message)
        else:
            await super().send(message)

    def _hold(self, message: Any) -> None:
        """Write the head, but not to the socket yet."""
        headers, status = message["headers"], message["status"]
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
        self._head = [text, message.get(LINES, b"")]
        if status in _BODILESS:
            self.expected_content_length, self._ends_by_closing = 0, False
        if self._ends_by_closing:
            self.keep_alive = False
        if not self.keep_alive:
            self._head.append(b"connection: close\r\n")
        self._head.append(b"transfer-encoding: chunked\r\n\r\n" if self.chunked_encoding else b"\r\n")
        self.response_started = self._was_held = True
        self.waiting_for_100_continue = False

    def _write(self, body: bytes, *, has_more: bool) -> None:
        """Send a part of the body of an answer whose head was held, and that head before the first."""
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
