"""One exchange with an upstream: the request goes there, its answer comes back as it arrives.

Decides: which headers pass, and what an engine's refusal means for the next candidate.
Must not: choose the upstream, wait for a model, or tell a client of failures (they are raised).
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from tray_valet.core.commands import Lease
from tray_valet.core.dialects import Framing
from tray_valet.core.errors import UpstreamFailed
from tray_valet.web.delivery import Delivery
from tray_valet.web.ends import Silence
from tray_valet.web.question import Question, question_for
from tray_valet.web.request_body import Asked
from tray_valet.web.token_tail import TokenTail
from tray_valet.web.upstream_client import UpstreamClient, UpstreamRequest, UpstreamResponse

_Headers = list[tuple[bytes, bytes]]
_REFUSAL_BYTES = 256 * 1024  # of an engine's refusal that is kept for the case that nobody answers
_REFUSAL_S = 5.0
_UNKNOWN, _FAILURE, _OVERLOADED, _ERROR, _OK = 501, 500, 429, 400, 200
_PREVIEW_BYTES = 200
# RFC 9110, 7.6.1, and what belongs to one hop or to us alone.
_NOT_UPSTREAM = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade host content-length authorization x-api-key api-key cookie "
    b"accept-encoding expect origin referer forwarded x-forwarded-for x-forwarded-host "
    b"x-forwarded-proto x-request-priority content-type sec-fetch-site sec-fetch-mode sec-fetch-dest "
    b"sec-fetch-user".split()
)
_NOT_DOWNSTREAM = frozenset(
    b"connection keep-alive proxy-authenticate proxy-connection te trailer transfer-encoding upgrade "
    b"server date set-cookie access-control-allow-origin access-control-allow-credentials "
    b"access-control-allow-methods access-control-allow-headers access-control-expose-headers "
    b"access-control-allow-private-network access-control-max-age "
    b"x-valet-provider x-valet-model x-valet-reason".split()  # another valet's: ours say who answered
)
_SHORT_BYTES = 64 * 1024
_JSON = (b"content-type", b"application/json")
_UNBUFFERED = (b"x-accel-buffering", b"no")
_FRAMINGS = {
    b"text/event-stream": Framing.EVENTS,
    b"application/x-ndjson": Framing.LINES,
}


class Watch(Protocol):
    """Somebody who looks at each piece of an answer."""

    def add(self, piece: bytes, *, is_stream: bool) -> None: ...


class RejectedError(UpstreamFailed):
    """The engine answered with a refusal of its own, which another candidate may make good."""

    def __init__(self, who: str, status: int, headers: _Headers, body: bytes) -> None:
        said = _message_of(body)
        super().__init__(f"{who} answered {status}: {said}" if said else f"{who} answered {status}.")
        self.status = status
        self.headers = headers
        self.body = body


class Exchange:
    """One request forwarded under a lease. `run` it, and `close` it in any case."""

    __slots__ = ("_asked", "_client", "_delivery", "_lease", "_response", "_silence", "_tail")

    def __init__(
        self,
        client: UpstreamClient,
        lease: Lease,
        asked: Asked,
        delivery: Delivery,
        tail: TokenTail,
        *,
        silence: Silence,
    ) -> None:
        self._client = client
        self._lease = lease
        self._asked = asked
        self._delivery = delivery
        self._tail = tail
        self._response: UpstreamResponse | None = None
        self._silence = silence

    async def run(self) -> None:
        """Forward and stream back.

        Raises RejectedError, ProviderUnreachable, UpstreamFailed; what ends it from outside cancels it.
        """
        question = question_for(self._asked, self._lease)
        response = await self._open(question)
        if is_failure(response.status) or (
            response.status >= _ERROR
            and (self._is_for_the_next(response.status) or self._delivery.is_started)
        ):
            raise RejectedError(
                self._lease.ref.provider,
                response.status,
                self._headers(response, is_stream=False),
                await self._refusal(response, question),
            )
        if question.assembler is not None and response.status == _OK and _framing_of(response) is not None:
            await self._put_together(response, question)
        elif question.native is not None:
            await self._translate(response, question)
        else:
            await self._pass_on(response)

    def close(self) -> None:
        """End what is still going on with the engine."""
        if self._response is not None:
            self._response.close()

    # -- asking ----------------------------------------------------------------------------------------

    async def _open(self, question: Question) -> UpstreamResponse:
        upstream = self._lease.upstream
        headers = _passed_on(self._asked.headers, _NOT_UPSTREAM)
        headers.append(_JSON)
        for name, value in upstream.headers.items():
            headers.append(_encoded(name, value))
        request = UpstreamRequest(
            base_url=upstream.base_url,
            target=question.target,
            headers=headers,
            body=question.body,
            who=self._lease.ref.provider,
        )
        self._silence.begins()
        self._response = response = await self._client.open(request)
        self._silence.is_over()
        return response

    async def _next(self, response: UpstreamResponse) -> bytes | None:
        self._silence.begins()
        chunk = await response.read_chunk()
        self._silence.is_over()
        return chunk

    def _is_for_the_next(self, status: int) -> bool:
        return (status >= _FAILURE or status == _OVERLOADED) and self._lease.has_next

    async def _refusal(self, response: UpstreamResponse, question: Question) -> bytes:
        """The body of a refusal; one that is endless or slow is left as far as it came."""
        pieces: list[bytes] = []
        size_bytes = 0
        try:
            async with asyncio.timeout(_REFUSAL_S):
                while size_bytes < _REFUSAL_BYTES and (chunk := await response.read_chunk()) is not None:
                    pieces.append(chunk)
                    size_bytes += len(chunk)
        except (TimeoutError, UpstreamFailed):
            pass
        body = b"".join(pieces)
        return question.native.error(response.status, body) if question.native is not None else body

    # -- passing on ------------------------------------------------------------------------------------

    async def _pass_on(self, response: UpstreamResponse) -> None:
        """The engine's bytes as they are."""
        framing = _framing_of(response)
        is_stream = framing is not None
        # The head waits for the first byte: until then another candidate may answer.
        chunk = response.take() or await self._next(response)
        delivery, tail = self._delivery, self._tail
        if framing is None and delivery.status:
            raise self._no_stream(chunk)
        if framing is None and chunk is not None and not response.is_ended and _is_short(response):
            chunk = await self._all_of(response, chunk)
        await delivery.begin(response.status, self._headers(response, is_stream=is_stream), framing)
        while chunk is not None:
            tail.add(chunk, is_stream=is_stream)
            if response.is_ended:
                await delivery.finish(chunk)
                return
            await delivery.write(chunk)
            chunk = response.take() or await self._next(response)
        await delivery.finish()

    async def _all_of(self, response: UpstreamResponse, begun: bytes) -> bytes:
        """A short answer to its end: should it break off, another candidate may still answer."""
        pieces = [begun]
        while (chunk := await self._next(response)) is not None:
            pieces.append(chunk)
        return b"".join(pieces)

    def _no_stream(self, chunk: bytes | None) -> UpstreamFailed:
        """A client that was promised events must not get something else."""
        shown = (chunk or b"")[:_PREVIEW_BYTES].decode(errors="replace")
        return UpstreamFailed(f"{self._lease.ref.provider} did not stream its answer: {shown}")

    async def _put_together(self, response: UpstreamResponse, question: Question) -> None:
        """A whole answer from a stream that only we asked for."""
        assembler = question.assembler
        assert assembler is not None
        while (chunk := await self._next(response)) is not None:
            assembler.feed(chunk)
            self._tail.add(chunk, is_stream=True)
            if assembler.error is not None:
                break
        if assembler.error is not None:
            status, body = assembler.error
            if is_failure(status) or self._is_for_the_next(status):
                raise RejectedError(self._lease.ref.provider, status, self._own_headers(), body)
            await self._deliver_whole(status, body)
            return
        await self._deliver_whole(_OK, assembler.finish())

    async def _translate(self, response: UpstreamResponse, question: Question) -> None:
        """Ollama's answer in the words that the client knows."""
        native, delivery = question.native, self._delivery
        assert native is not None
        if response.status != _OK:
            body = await self._refusal(response, question)
            await self._deliver_whole(response.status, body)
            return
        status, kind = native.head(response.status)
        while (chunk := await self._next(response)) is not None:
            self._tail.add(chunk, is_stream=native.is_stream)
            if piece := native.feed(chunk):
                if not delivery.has_answer:
                    await delivery.begin(status, self._own_headers(kind), Framing.EVENTS)
                await delivery.write(piece)
        rest = native.finish()
        if not native.is_stream:
            await self._deliver_whole(status, rest)
            return
        if not delivery.has_answer:
            await delivery.begin(status, self._own_headers(kind), Framing.EVENTS)
        await delivery.finish(rest)

    async def _deliver_whole(self, status: int, body: bytes) -> None:
        headers = [*self._own_headers(), (b"content-length", str(len(body)).encode())]
        await self._delivery.begin(status, headers, None)
        await self._delivery.finish(body)

    # -- headers ---------------------------------------------------------------------------------------

    def _headers(self, response: UpstreamResponse, *, is_stream: bool) -> _Headers:
        headers = _passed_on(response.headers, _NOT_DOWNSTREAM)
        if is_stream or response.status >= _ERROR:
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        headers += _lease_headers(self._lease)
        return headers

    def _own_headers(self, kind: bytes = _JSON[1]) -> _Headers:
        return [(b"content-type", kind), *_lease_headers(self._lease)]


def _lease_headers(lease: Lease) -> tuple[tuple[bytes, bytes], ...]:
    ref = lease.ref
    return _headers_of(ref.provider, ref.model, lease.reason)


@lru_cache(maxsize=256)
def _headers_of(provider: str, model: str, reason: str) -> tuple[tuple[bytes, bytes], ...]:
    """What all answers carry: who answered, and why that one."""
    return (
        _UNBUFFERED,
        (b"x-valet-provider", _header_text(provider)),
        (b"x-valet-model", _header_text(model)),
        (b"x-valet-reason", _header_text(reason)),
    )


def _header_text(text: str) -> bytes:
    # Header values are Latin-1 at most and one line; reasons are sentences with typographic marks.
    if text.isascii() and text.isprintable():
        return text.encode()
    plain = text.translate({0x201C: '"', 0x201D: '"', 0x2019: "'", 0x2013: "-", 0x2014: "-", 0x2026: "..."})
    return "".join(char if " " <= char <= "~" else "?" for char in plain).encode()


def is_failure(status: int) -> bool:
    """Whether an answer means that the engine failed, and not that the request is wrong or unknown to it."""
    return status >= _FAILURE and status != _UNKNOWN


def _message_of(body: bytes) -> str:
    """What an engine says of its failure, in any dialect; "" where that cannot be read."""
    try:
        told = msgspec.json.decode(body, type=dict[str, Any]).get("error")
    except (msgspec.MsgspecError, RecursionError):
        return ""
    said = told.get("message") if isinstance(told, dict) else told
    return said[:_PREVIEW_BYTES] if isinstance(said, str) else ""


def _is_short(response: UpstreamResponse) -> bool:
    """Whether an answer says that it is no longer than what is kept of a stream anyway."""
    return any(
        name == b"content-length" and len(value) < 6 and int(value) <= _SHORT_BYTES
        for name, value in response.headers
    )


def _framing_of(response: UpstreamResponse) -> Framing | None:
    for name, value in response.headers:
        if name == b"content-type":
            if value == _JSON[1]:
                return None  # as most whole answers
            return _FRAMINGS.get(value.partition(b";")[0].strip().lower())
    return None


def _passed_on(headers: _Headers, dropped: frozenset[bytes]) -> _Headers:
    """Without what is for one hop only: the known ones, and those that `Connection` names."""
    passed = []
    named: set[bytes] = set()
    for pair in headers:
        name, value = pair
        if name not in dropped:
            passed.append(pair)
        elif name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
            named.update(token.strip().lower() for token in value.split(b","))
    return [pair for pair in passed if pair[0] not in named] if named else passed


def _encoded(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")
