"""One request and its answer on a connection: uvicorn's cycle, sending a head together with what follows.

Decides: when a head waits for its body: where the sender says that one follows at once. Two writes are two
calls of the system, the dearest part of a short answer. Must not: change what uvicorn sends otherwise.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

HELD = "tray_valet.held"  # in `http.response.start`: the first part of the body follows at once


class AnswerCycle(RequestResponseCycle):
    """Takes the place of uvicorn's before the request is begun."""

    _head: list[bytes] | None = None

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        head = self._head
        if head is None:
            if HELD in message and not self.response_started and self.scope["method"] != "HEAD":
                self._hold(message)
            else:
                await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        self._head = None
        if self.disconnected:
            return
        body, has_more = message.get("body", b""), message.get("more_body", False)
        if self.chunked_encoding:
            head.append(b"%x\r\n%b\r\n" % (len(body), body) if body else b"")
            if not has_more:
                head.append(b"0\r\n\r\n")
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (self.expected_content_length and not has_more):
                raise RuntimeError("The body is not as long as its Content-Length says.")
            head.append(body)
        self.transport.write(b"".join(head))
        if not has_more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _hold(self, message: Any) -> None:
        """Write the head, but not to the socket yet."""
        headers = message["headers"]
        head = [STATUS_LINE[message["status"]]]
        self.chunked_encoding = True
        for name, value in headers:
            head += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
        text = b"".join(head)
        if text.count(b"\n") != len(headers) + 1 or text.count(b"\r") != len(headers) + 1 or b"\0" in text:
            raise RuntimeError("A header has a line break in it.")
        if not self.keep_alive:
            text += b"connection: close\r\n"
        if self.chunked_encoding:
            text += b"transfer-encoding: chunked\r\n"
        self._head = [text, b"\r\n"]
        self.response_started = True
        self.waiting_for_100_continue = False
