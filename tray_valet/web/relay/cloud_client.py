"""The client for addresses out there: TLS, proxies and all, by httpx.

Decides: which error a failure is. Must not: follow redirects (a key would go along), or decode what comes.
Looks like `upstream_client.LocalClient`; the environment's proxies are used, as a company's network needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from tray_valet.core.errors import ProviderUnreachable, UpstreamFailed
from tray_valet.web.relay.upstream_client import (
    CONNECT_TIMEOUT_S,
    UpstreamRequest,
    UpstreamResponse,
)
from tray_valet.web.relay.upstream_connection import Connection, Listener

if TYPE_CHECKING:
    import httpx

_CLOSE_TIMEOUT_S = 1.0


class CloudClient:
    """Made at the first request: its library is heavy."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None
        self._closings: set[asyncio.Task[None]] = set()

    def send(self, request: UpstreamRequest) -> None:
        """None: its connections are its library's."""
        return

    async def open(
        self, request: UpstreamRequest, listener: Listener | None = None, sent: Connection | None = None
    ) -> UpstreamResponse:
        """Ask, and return with the answer's head. Raises ProviderUnreachable, UpstreamFailed."""
        import httpx

        head = request.head
        try:
            asked = httpx.Request(
                head.method.decode(),
                head.base_url.rstrip("/") + head.target.decode("latin-1"),
                # What comes is passed on as it is, so it must not be compressed for us.
                headers=[*head.headers, (b"accept-encoding", b"identity")],
                content=request.body if isinstance(request.body, bytes) else b"".join(request.body),
            )
            response = await self._get().send(asked, stream=True)
        except httpx.ConnectError as error:
            raise ProviderUnreachable(f"{request.who} does not answer.") from error
        except httpx.TimeoutException as error:
            raise ProviderUnreachable(f"{request.who} does not answer in time.") from error
        except httpx.InvalidURL as error:
            raise ProviderUnreachable(f"{head.base_url!r} is not an address.") from error
        except (httpx.HTTPError, OSError) as error:
            raise UpstreamFailed(f"{request.who} broke off before it answered.") from error
        return CloudResponse(self, response, request.who)

    async def close(self) -> None:
        """Close every connection."""
        if self._closings:
            await asyncio.wait(tuple(self._closings), timeout=_CLOSE_TIMEOUT_S)
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    def end(self, response: httpx.Response) -> None:
        """Close a response soon."""
        task = asyncio.create_task(_closed(response), name="router: close cloud answer")
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    def _get(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(
                trust_env=True,
                follow_redirects=False,
                timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S, pool=CONNECT_TIMEOUT_S),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            )
        return self._client


class CloudResponse:
    """An answer, as far as it has come."""

    def __init__(self, client: CloudClient, response: httpx.Response, who: str) -> None:
        self.status = response.status_code
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        self.headers = tuple(pair for pair in headers if pair[0] not in (b"content-length", b"date"))
        length = response.headers.get("content-length", "")
        self.length = int(length) if length.isdecimal() else None
        self._client = client
        self._response = response
        self._who = who
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()
        self._is_ended = False

    @property
    def is_complete(self) -> bool:
        return self._is_ended

    @property
    def has_unread(self) -> bool:
        return False

    @property
    def is_ended(self) -> bool:
        return self._is_ended

    def take(self) -> bytes:
        """Nothing: what has come is its library's until it is asked for."""
        return b""

    async def read_chunk(self) -> bytes | None:
        """The next bytes of the body, None at its end. Raises UpstreamFailed if it breaks off."""
        import httpx

        if self._is_ended:
            return None
        try:
            chunk = await anext(self._chunks, None)
        except (httpx.HTTPError, OSError) as error:
            raise UpstreamFailed(f"{self._who} broke off in the middle of an answer.") from error
        self._is_ended = chunk is None
        return chunk

    def close(self) -> None:
        """Be done with it."""
        if not self._response.is_closed:
            self._client.end(self._response)


async def _closed(response: httpx.Response) -> None:
    """What fails in closing is over anyway."""
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await response.aclose()
    except Exception:  # noqa: BLE001  # a task's guard
        return
