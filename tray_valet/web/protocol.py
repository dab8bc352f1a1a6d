"""HTTP/1.1 on a socket: uvicorn's httptools protocol, with limits of our own and JSON refusals.

Decides: how long a head may take, how large it may be, which request targets are taken.
Must not: know paths or keys; that is the guard's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tray_valet.web.answer_cycle import AnswerCycle
from tray_valet.web.errors import EdgeCode, ErrorType, HttpError, answer_for
from tray_valet.web.requests import BODY_KEY, GONE_KEY

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 1024
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_MASK = b"x-mask-"  # as long as `upgrade`
_PHRASES = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}


class ValetHttpProtocol(HttpToolsProtocol):
    """One connection. A head must be whole within `HEAD_TIMEOUT_S` and `MAX_HEAD_BYTES`."""

    _head_bytes = 0
    _head_deadline: asyncio.TimerHandle | None = None
    _is_refused = False
    _is_in_head = True
    _is_lost = False
    _on_gone: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are far too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell who works for it."""
        self._is_lost = True
        self._forget_deadline()
        super().connection_lost(exc)
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            on_gone()

    def whole_body(self) -> bytes | None:
        """The body of the request that is being answered, if it is whole already, as most are."""
        cycle = self.cycle
        if cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue or self.pipeline:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        return body

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Have `call` called when the client closes the connection; None: nothing any more.

        For the request that is being answered. Soon, if it has left already. It spares a task that waits for
        `receive`.
        """
        self._on_gone = call
        if call is None:
            return
        if self._is_lost:
            self._on_gone = None
            self.loop.call_soon(call)
        elif not self.pipeline:
            self.flow.resume_reading()  # a body that came in one large piece has stopped it

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and say in JSON what is wrong with a head that it refuses."""
        if self._is_refused:
            return  # the answer is on its way; what still comes in is not a request
        try:
            super().data_received(self._without_upgrade(data) if self._is_in_head else data)
        except (httptools.HttpParserError, ValueError):
            self.send_400_response("The request is malformed.")

    def on_message_begin(self) -> None:
        """A new head begins."""
        super().on_message_begin()
        self.scope[GONE_KEY] = self.when_gone  # type: ignore[literal-required]
        self.scope[BODY_KEY] = self.whole_body  # type: ignore[literal-required]
        self._head_bytes = 0
        self._await_head()

    def on_url(self, url: bytes) -> None:
        """Collect the request target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header, as uvicorn does."""
        self._count(len(name) + len(value) + 4)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        if name != _MASK:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start the request, if its target is a path of ours."""
        self._forget_deadline()
        self._is_in_head = False
        self._reconcile_target()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole; what follows is another head."""
        self._is_in_head = True
        super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Begin a request; uvicorn makes its cycle by a name of its own, so it is changed here."""
        cycle.__class__ = AnswerCycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in JSON like everything else."""
        self._refuse(400, msg)

    def _without_upgrade(self, data: bytes) -> bytes:
        """Hide offers to change the protocol: httptools drops the body of a request that makes one.

        Java's HttpClient offers h2c with every request; a server may pass that over (RFC 9110, 7.8).
        """
        if _UPGRADE.search(data) is None:
            return data
        head, separator, rest = data.partition(b"\r\n\r\n")
        return _UPGRADE.sub(b"\r\n" + _MASK + b":", head) + separator + rest

    def _reconcile_target(self) -> None:
        """Make the guard see the authority of an absolute-form target (RFC 9112, 3.2.2).

        A server must believe it over the Host header. Ours believes neither if they differ: two Host
        headers are refused.
        """
        if self.url.startswith(b"/"):
            return
        _, separator, rest = self.url.partition(b"://")
        if not separator:
            raise ValueError("the request target is neither a path nor a URL")
        for stop in (b"/", b"?", b"#"):
            rest = rest.partition(stop)[0]
        if [value.strip().lower() for name, value in self.headers if name == b"host"] != [rest.lower()]:
            self.headers.append((b"host", rest))

    def _count(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")
            raise ValueError("head too large")

    def _await_head(self) -> None:
        self._forget_deadline()
        self._head_deadline = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()

    def _forget_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _refuse(self, status: int, message: str) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            is_answering = self.cycle.response_started
            self.cycle.disconnected = True  # its answer would come after ours
            self.cycle.message_event.set()
            if is_answering:
                self.transport.abort()  # in the middle of an answer there is no place for another
                return
        refusal = HttpError(status, ErrorType.INVALID_REQUEST, EdgeCode.MALFORMED, message)
        body = answer_for(refusal).body
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n%s"
            % (status, _PHRASES[status], len(body), body)
        )
        # Not closed at once: unread data would reset the connection before the answer is read.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(0.5, self._give_up)


def protocol_class() -> type[Any]:
    """The class that uvicorn is to use for each connection."""
    return ValetHttpProtocol
