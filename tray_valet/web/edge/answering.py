"""Answers as they leave either API: with the headers that all of them carry, and refusals read to the end.

Decides: which headers those are. Must not: decide whether a request is refused.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate

from starlette.types import Message, Receive, Send

from tray_valet.web.edge.answer_head import ALL_CARRY, AnswerHead, answer_head
from tray_valet.web.edge.bodies import Body, discard_rest
from tray_valet.web.edge.errors import Answer
from tray_valet.web.edge.policies import GuardPolicy
from tray_valet.web.edge.requests import Cycle, Origin, RequestHead

_Headers = list[tuple[bytes, bytes]]
_ALWAYS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_PAGE_POLICY = b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'"
_ALLOWED_HEADERS = b"content-type, authorization, x-api-key, x-request-priority"
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2048}")
_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


class UsualHeaders:
    """The headers of an answer that brings none of them along, for a caller that is no page of elsewhere.

    Made once a second, as one of them is the date.
    """

    def __init__(self) -> None:
        self._second = -1
        self._date = b""
        self._of_data: tuple[_Headers, bytes] = ([], b"")
        self._of_page: tuple[_Headers, bytes] = ([], b"")

    def date(self) -> bytes:
        """The header `Date` of this second."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date = formatdate(second, usegmt=True).encode()
            self._of_data, self._of_page = self._written(is_page=False), self._written(is_page=True)
        return self._date

    def headers(self, *, is_page: bool) -> _Headers:
        """All of them; not to be changed."""
        self.date()
        return (self._of_page if is_page else self._of_data)[0]

    def lines(self, *, is_page: bool) -> bytes:
        """The same as lines of a head."""
        self.date()
        return (self._of_page if is_page else self._of_data)[1]

    def _written(self, *, is_page: bool) -> tuple[_Headers, bytes]:
        headers = completed([], self._date, is_page=is_page, origin=None)
        return headers, b"".join(b"%b: %b\r\n" % pair for pair in headers)


class Answering:
    """Sends answers with the headers that all of them carry."""

    __slots__ = (
        "_head",
        "_is_page",
        "_is_started",
        "_origin",
        "_send",
        "_usual",
        "body",
        "has_body_left",
        "writer",
    )

    writer: Cycle  # takes the body of the answer, after its start; only under our own server

    def __init__(
        self, send: Send, cycle: Cycle | None, head: RequestHead, policy: GuardPolicy, usual: UsualHeaders
    ) -> None:
        """`cycle`: our own server's quicker way than `send`, which `start` needs."""
        self._send = send
        if cycle is not None:
            self.writer = cycle
        self.body: Body = b""
        self._head = head
        self._usual = usual
        self._is_page = head.path in policy.page_paths or head.path.startswith("/ui/")
        self._origin: str | None = None
        self._is_started = False
        self.has_body_left = not head.has_none_of(_BODY_HEADERS)

    def allow_origin(self, origin: Origin | None) -> None:
        """Let the page of that origin read the answer."""
        self._origin = self._head.text(b"origin") if origin is not None else None

    async def send(self, message: Message) -> None:
        """ASGI `send`, adding our headers to the start of the answer."""
        if not self._is_started and message["type"] == "http.response.start":
            self._is_started = True
            message["headers"] = self._complete(list(message.get("headers", ())))
        await self._send(message)

    def start(self, status: int, head: AnswerHead, length: int | None) -> None:
        """The head, with our headers; it goes out with the first part of the body. See `DirectAnswer`."""
        if head.is_plain and self._origin is None:
            lines = head.lines + self._usual.lines(is_page=self._is_page)
        else:
            lines = answer_head(tuple(self._complete(list(head.headers)))).lines
        self.writer.start(status, lines, length)
        self._is_started = True

    async def refuse(self, answer: Answer, receive: Receive) -> None:
        """Answer with an error. After the start of another answer the server ends the connection."""
        if self._is_started:
            return
        headers: _Headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer.body)).encode()),
            *answer.headers,
        ]
        if not self.has_body_left:
            await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await self._send({"type": "http.response.body", "body": answer.body, "more_body": False})
            return
        headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": True})
        await discard_rest(receive)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def preflight(self) -> None:
        """Tell the browser what pages of an allowed origin may do."""
        headers: _Headers = [
            (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
            (b"access-control-allow-headers", _wished(self._head) or _ALLOWED_HEADERS),
            (b"access-control-max-age", b"600"),
        ]
        if self._head.text(b"access-control-request-private-network").lower() == "true":
            headers.append((b"access-control-allow-private-network", b"true"))
        await self.send({"type": "http.response.start", "status": 204, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _is_usual(self, headers: _Headers) -> bool:
        """Whether an answer with these headers gets the same ones of ours as nearly all do."""
        return self._origin is None and ALL_CARRY.isdisjoint(dict(headers))

    def _complete(self, headers: _Headers) -> _Headers:
        if self._is_usual(headers):
            return headers + self._usual.headers(is_page=self._is_page)
        return completed(headers, self._usual.date(), is_page=self._is_page, origin=self._origin)


def completed(headers: _Headers, date: bytes, *, is_page: bool, origin: str | None) -> _Headers:
    """The headers of an answer and those that it lacks. `origin`: that of a page which may read it."""
    present = {name for name, _ in headers}
    whole = [*headers, *(pair for pair in _ALWAYS if pair[0] not in present)]
    whole += ((b"vary", b"Origin"), (b"date", date))
    if b"cache-control" not in present:
        whole.append((b"cache-control", b"no-cache" if is_page else b"no-store"))
    if b"content-security-policy" not in present:
        whole.append((b"content-security-policy", _PAGE_POLICY if is_page else _DATA_POLICY))
    if origin is None:
        whole.append((b"cross-origin-resource-policy", b"same-origin"))
        return whole
    exposed = b"Retry-After, X-Valet-Provider, X-Valet-Model, X-Valet-Reason"
    whole.append((b"access-control-allow-origin", origin.encode("latin-1")))
    whole.append((b"access-control-expose-headers", exposed))
    return whole


def _wished(head: RequestHead) -> bytes:
    """The headers that a page of an allowed origin wants to send; b"" where it does not say.

    All of them: OpenAI's and Anthropic's clients send a dozen of their own (`x-stainless-…`,
    `anthropic-version`), and the origin is one that the user trusts.
    """
    values = head.all(b"access-control-request-headers")
    return values[0] if len(values) == 1 and _HEADER_NAMES.fullmatch(values[0]) else b""
