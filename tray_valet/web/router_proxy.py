"""One exchange with an upstream: the request goes there, its bytes come back as they arrive.

Decides: which headers pass, when an exchange ends (the client leaves, the lease is revoked, the
upstream fails or falls silent) and how each end looks to the client.
Must not: choose the upstream or wait for a model; nor touch a byte of the body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.types import Send

from tray_valet.core.commands import Lease
from tray_valet.core.errors import Paused, ProviderUnreachable, TimedOut, UpstreamFailed, ValetError
from tray_valet.web.bodies import ClientGoneError
from tray_valet.web.errors import answer_for
from tray_valet.web.whole_events import WholeEvents

if TYPE_CHECKING:
    import httpx

_T = TypeVar("_T")
_Headers = list[tuple[bytes, bytes]]
_CONNECT_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 0.3
# RFC 9110, 7.6.1, and what belongs to one hop or to us alone.
_NOT_UPSTREAM = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade host content-length authorization x-api-key api-key cookie "
    b"accept-encoding expect origin referer forwarded x-forwarded-for x-forwarded-host "
    b"x-forwarded-proto".split()
)
_NOT_DOWNSTREAM = frozenset(
    b"connection keep-alive proxy-authenticate proxy-connection te trailer transfer-encoding upgrade "
    b"server date set-cookie access-control-allow-origin access-control-allow-credentials "
    b"access-control-allow-methods access-control-allow-headers access-control-expose-headers "
    b"access-control-allow-private-network access-control-max-age".split()
)


class UpstreamClient:
    """The connections to upstreams. Made at the first request: its library is heavy."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    def get(self) -> httpx.AsyncClient:
        """The client, with a connect time-out, no total one, and no word from the environment."""
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S, pool=_CONNECT_TIMEOUT_S),
                # A fresh connection each time: local ones cost nothing, and none is stale on reuse.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            )
        return self._client

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """What ends an exchange from outside: the client left, or the server stops."""

    gone: asyncio.Task[None]
    closing: asyncio.Task[Any]


def shutting_down() -> Paused:
    """Why an answer ends when the valet itself does."""
    return Paused("Tray Valet is shutting down.", retry_after_s=10.0)


class Exchange:
    """One request forwarded under a lease."""

    def __init__(
        self,
        client: UpstreamClient,
        lease: Lease,
        send: Send,
        *,
        ends: Ends,
        silence_timeout_s: float,
    ) -> None:
        self._client = client
        self._lease = lease
        self._send = send
        self._ends = ends
        self._silence_timeout_s = silence_timeout_s
        self._revoked = asyncio.create_task(_revocation(lease), name="router: lease revoked")
        self._is_event_stream = False
        self._is_started = False
        self._events = WholeEvents()

    async def run(self, path: str, headers: _Headers, body: bytes) -> None:
        """Forward and stream back. Raises a ValetError before the first byte, ClientGoneError any time;
        after the first byte of an event stream an error becomes its last event."""
        response: httpx.Response | None = None
        try:
            response = await self._open(path, headers, body)
            await self._start(response)
            await self._stream(response)
        except ValetError as error:
            if not self._is_started:
                raise
            if response is not None:
                await _close(response)  # the engine stops first; the client is told after
            await self._end_early(error)
        finally:
            self._revoked.cancel()
            if response is not None:
                await _close(response)

    async def _open(self, path: str, headers: _Headers, body: bytes) -> httpx.Response:
        import httpx

        upstream = self._lease.upstream
        request = httpx.Request(
            "POST",
            upstream.base_url.rstrip("/") + path,
            headers=[*_passed_on(headers, _NOT_UPSTREAM), *_encoded(upstream.headers)],
            content=body,
        )
        try:
            return await self._bounded(self._client.get().send(request, stream=True))
        except httpx.ConnectError as error:
            raise ProviderUnreachable(f"{self._lease.ref.provider} does not answer.") from error
        except httpx.TimeoutException as error:
            raise ProviderUnreachable(f"{self._lease.ref.provider} does not answer in time.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UpstreamFailed(f"{self._lease.ref.provider} broke off before it answered.") from error

    async def _start(self, response: httpx.Response) -> None:
        kind = response.headers.get("content-type", "")
        self._is_event_stream = kind.partition(";")[0].strip().lower() == "text/event-stream"
        headers = [
            *_passed_on(response.headers.raw, _NOT_DOWNSTREAM),
            (b"x-accel-buffering", b"no"),
            *valet_headers(self._lease),
        ]
        if self._is_event_stream:
            headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
        await self._delivered(
            {"type": "http.response.start", "status": response.status_code, "headers": headers}
        )
        self._is_started = True

    async def _stream(self, response: httpx.Response) -> None:
        import httpx

        chunks = response.aiter_raw()
        try:
            while (chunk := await self._bounded(_next(chunks))) is not None:
                if ready := self._events.pass_on(chunk) if self._is_event_stream else chunk:
                    await self._delivered({"type": "http.response.body", "body": ready, "more_body": True})
        except httpx.HTTPError as error:
            raise UpstreamFailed(
                f"{self._lease.ref.provider} broke off in the middle of an answer."
            ) from error
        await self._delivered(
            {"type": "http.response.body", "body": self._events.finish(), "more_body": False}
        )

    async def _end_early(self, error: ValetError) -> None:
        """Say in the stream's own terms why it ends. Another body can only be cut: it is not whole."""
        if not self._is_event_stream:
            raise ClientGoneError from error
        event = self._events.cut() + b"data: " + answer_for(error).body + b"\n\n"
        sending = asyncio.ensure_future(
            _sent(self._send, {"type": "http.response.body", "body": event, "more_body": False})
        )
        await self._settled(sending, timeout_s=_CLOSE_TIMEOUT_S)
        if not sending.done() or sending.cancelled():
            raise ClientGoneError
        sending.result()

    async def _bounded(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Wait for the upstream, no longer than the client, the lease and the silence allow."""
        task = asyncio.ensure_future(step)
        if await self._settled(task, timeout_s=self._silence_timeout_s, others=self._outside()):
            return task.result()
        self._raise_if_ended()
        raise TimedOut(
            f"{self._lease.ref} was silent for {self._silence_timeout_s:g} seconds.",
            remedy="Slow models need a larger router.request_timeout_seconds.",
        )

    async def _delivered(self, message: dict[str, Any]) -> None:
        """Send to the client; one that reads slowly must not outlive the lease."""
        task = asyncio.ensure_future(_sent(self._send, message))
        if await self._settled(task, timeout_s=None, others=self._outside()):
            task.result()
            return
        self._raise_if_ended()

    async def _settled(
        self,
        task: asyncio.Future[Any],
        *,
        timeout_s: float | None,
        others: frozenset[asyncio.Task[Any]] = frozenset(),
    ) -> bool:
        """Whether the task ended by itself in time and before any other; if not it is cancelled."""
        try:
            await asyncio.wait({task, *others}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            return task.done()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CLOSE_TIMEOUT_S)
            if task.done() and not task.cancelled():
                task.exception()  # looked at, so that asyncio does not complain about it

    def _outside(self) -> frozenset[asyncio.Task[Any]]:
        return frozenset({self._ends.gone, self._ends.closing, self._revoked})

    def _raise_if_ended(self) -> None:
        if self._ends.gone.done():
            raise ClientGoneError
        if self._revoked.done():
            raise self._revoked.result()
        if self._ends.closing.done():
            raise shutting_down()


async def _revocation(lease: Lease) -> ValetError:
    revoked: asyncio.Future[ValetError] = asyncio.get_running_loop().create_future()
    lease.when_revoked(lambda why: None if revoked.done() else revoked.set_result(why))
    return await revoked


def valet_headers(lease: Lease) -> _Headers:
    """Who answered, and why that one."""
    return [
        (b"x-valet-provider", _header_text(lease.ref.provider)),
        (b"x-valet-model", _header_text(lease.ref.model)),
        (b"x-valet-reason", _header_text(lease.reason)),
    ]


def _header_text(text: str) -> bytes:
    # Header values are Latin-1 at most and one line; reasons are sentences with typographic marks.
    plain = text.translate({0x201C: '"', 0x201D: '"', 0x2019: "'", 0x2013: "-", 0x2014: "-", 0x2026: "..."})
    return "".join(char if " " <= char <= "~" else "?" for char in plain).encode()


def _passed_on(headers: _Headers, dropped: frozenset[bytes]) -> _Headers:
    """Without what is for one hop only: the known ones, and those that `Connection` names."""
    named = {
        token.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    return [(n, v) for n, v in headers if n.lower() not in dropped and n.lower() not in named]


def _encoded(headers: dict[str, str]) -> _Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


async def _sent(send: Send, message: dict[str, Any]) -> None:
    await send(message)


async def _close(response: httpx.Response) -> None:
    """Close the connection to the upstream, so that it stops; what fails in that is over anyway."""
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await response.aclose()
    except (TimeoutError, OSError):
        return
