"""The one call the valet itself makes to an OpenAI-style server: which models are there.

Decides: how long it may take and what its answers mean. Must not: call anything that costs money or loads a
model. Source: OpenAI's API reference, “List models”.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from tray_valet.core.errors import ProviderUnreachable
from tray_valet.providers.http_client import NOT_JSON, new_client

if TYPE_CHECKING:
    import httpx

_CALL_S = 4.5  # in whole; the port allows 5 s for a look
_CONNECT_S = 3.0
_MAX_ANSWER_BYTES = 8 * 1024 * 1024
_NO_KEY = frozenset({401, 403})


class _Entry(msgspec.Struct, frozen=True):
    id: str
    created: int | float | None = None


class _ModelsAnswer(msgspec.Struct, frozen=True):
    data: tuple[_Entry, ...] = ()


class ServedModels(msgspec.Struct, frozen=True, kw_only=True):
    """What a server said. `names` None: it answers, but has no such list. `is_key_refused`: 401 or 403."""

    names: tuple[str, ...] | None = None
    is_key_refused: bool = False


class OpenAiApi:
    """Asks one server. Lives on the loop."""

    def __init__(self, base_url: str, *, is_loopback: bool) -> None:
        """`base_url` is the address without `/v1`."""
        self._url = f"{base_url}/v1/models"
        self._is_loopback = is_loopback
        self._client: httpx.AsyncClient | None = None

    async def models(self, headers: dict[str, str]) -> ServedModels:
        """List the models, within 5 s. Raises ProviderUnreachable."""
        import httpx

        try:
            async with asyncio.timeout(_CALL_S):
                status, body = await self._get(headers)
        except TimeoutError as error:
            raise ProviderUnreachable(f"{self._url} did not answer in {_CALL_S:.0f} s.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderUnreachable(f"Nothing answers at {self._url}.") from error
        if status in _NO_KEY:
            return ServedModels(is_key_refused=True)
        if status >= 500 or status == 429:
            raise ProviderUnreachable(f"{self._url} answered {status}.")
        if status != 200:
            return ServedModels()
        try:
            answer = msgspec.json.decode(body, type=_ModelsAnswer)
        except NOT_JSON:
            return ServedModels()
        return ServedModels(names=tuple(dict.fromkeys(entry.id for entry in answer.data if entry.id)))

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _get(self, headers: dict[str, str]) -> tuple[int, bytes]:
        """(status, body); a body that is too long is cut, and then is no JSON."""
        async with self._opened().stream("GET", self._url, headers=headers) as response:
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES:
                    break
            return response.status_code, body

    def _opened(self) -> httpx.AsyncClient:
        import httpx

        if self._client is None:
            self._client = new_client(
                self._url,
                is_loopback=self._is_loopback,
                max_connections=4,
                max_idle=1,
                timeout=httpx.Timeout(_CALL_S, connect=_CONNECT_S),
            )
        return self._client
