"""Downloads at Ollama.

Decides: how its stream of lines becomes progress, and which of our errors an error line is.
Must not: queue or repeat downloads.

Facts: server/images.go (PullModel) and server/routes.go (PullHandler) of Ollama. Each layer
tells `digest`, `total` and `completed`; an error comes as a line `{"error": …}` after status 200, or with
a status of its own before the first line. A caller that hangs up ends the download, and partial files stay:
the next pull goes on from them. “verifying sha256 digest” is silent for as long as the disk takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

import httpx
import msgspec

from tray_valet.core.downloads import PullProgress
from tray_valet.core.errors import (
    InvalidValue,
    NotSupported,
    ProviderUnreachable,
    UnknownModel,
    UpstreamFailed,
    ValetError,
)
from tray_valet.providers.http_client import NOT_JSON
from tray_valet.providers.ollama_api import OllamaLimits, not_an_ollama
from tray_valet.providers.ollama_wire import reason_of

_SILENT_S = 20.0  # then the server is asked whether it lives
_MOST_SILENT_S = 1800.0  # a large file is checked in less, on any disk
_MAX_LINE_BYTES = 2**20


class _Line(msgspec.Struct, frozen=True):
    """One line of the stream."""

    status: str = ""
    digest: str = ""
    total: int | None = None
    completed: int | None = None
    error: str | None = None


class OllamaPulls:
    """Pulls at one Ollama. `is_alive` raises what is the matter where it no longer answers."""

    def __init__(
        self,
        endpoint: str,
        client: httpx.AsyncClient,
        limits: OllamaLimits,
        headers: Mapping[str, str],
        is_alive: Callable[[], Awaitable[object]],
        *,
        silent_s: float = _SILENT_S,
    ) -> None:
        self._endpoint = endpoint
        self._client = client
        self._limits = limits
        self._headers = dict(headers)
        self._is_alive = is_alive
        self._silent_s = silent_s

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Download a model; see the port. Closing the iterator ends the download."""
        layers: dict[str, tuple[int, int]] = {}  # digest → (completed, total)
        is_done = False
        lines = self._lines(model)
        try:
            async for line in lines:
                if line.error:
                    raise error_of(model, line.error, 200)
                if line.digest and line.total:
                    before = layers.get(line.digest, (0, 0))[0]
                    layers[line.digest] = (max(before, line.completed or 0), line.total)
                is_done = line.status == "success"
                yield PullProgress(
                    status=line.status,
                    completed_bytes=sum(completed for completed, _ in layers.values()),
                    total_bytes=sum(total for _, total in layers.values()) if layers else None,
                )
        finally:
            await lines.aclose()
        if not is_done:
            raise UpstreamFailed(f"Ollama broke off the download of {model}.")

    async def _lines(self, model: str) -> AsyncGenerator[_Line, None]:
        timeout = httpx.Timeout(self._limits.call_s, connect=self._limits.connect_s, read=None)
        body = {"model": model, "stream": True}
        try:
            async with self._client.stream(
                "POST", f"{self._endpoint}/api/pull", json=body, headers=self._headers, timeout=timeout
            ) as response:
                if response.status_code != 200:
                    raise error_of(model, reason_of(await response.aread()), response.status_code)
                parts = response.aiter_bytes()
                rest = b""
                while (part := await self._next(parts)) is not None:
                    *whole, rest = (rest + part).split(b"\n")
                    for text in whole:
                        if text.strip():
                            yield self._decoded(text)
                    if len(rest) > _MAX_LINE_BYTES:
                        raise UpstreamFailed(f"{self._endpoint} tells of the download without an end.")
                if rest.strip():
                    yield self._decoded(rest)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error

    async def _next(self, parts: AsyncIterator[bytes]) -> bytes | None:
        """The next bytes, or None at the end; a silent server is asked now and then whether it lives."""
        reading = asyncio.create_task(_taken(parts), name="ollama-pull-read")
        silent_s = 0.0
        try:
            while True:
                await asyncio.wait({reading}, timeout=self._silent_s)
                if reading.done():
                    return reading.result()
                silent_s += self._silent_s
                if silent_s >= _MOST_SILENT_S:
                    raise UpstreamFailed("Ollama says nothing more of the download.")
                await self._is_alive()
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading}, timeout=self._limits.give_up_s)

    def _decoded(self, text: bytes) -> _Line:
        try:
            return msgspec.json.decode(text, type=_Line)
        except NOT_JSON as error:
            raise not_an_ollama(self._endpoint, error) from error

    def _unreachable(self, error: Exception) -> ProviderUnreachable:
        return ProviderUnreachable(
            f"The connection to {self._endpoint} failed ({error or type(error).__name__}).",
            remedy="Start Ollama, or correct the provider's url.",
        )


async def _taken(parts: AsyncIterator[bytes]) -> bytes | None:
    return await anext(parts, None)


def error_of(model: str, reason: str, status: int) -> ValetError:
    """What an error that Ollama tells of a pull is to us: final ones are `Refused`."""
    lower = reason.lower()
    if status == 412 or "newer version of ollama" in lower or "status 412" in lower:
        return NotSupported(
            f"{model} needs a newer Ollama: {_first_line(reason)}",
            remedy="Update Ollama (https://ollama.com/download).",
        )
    if "file does not exist" in lower or "status 404" in lower or "not found" in lower:
        return UnknownModel(
            f"No registry has a model {model}.", remedy="Look for its name at ollama.com.", param="model"
        )
    if status == 400 or "invalid model" in lower:
        return InvalidValue(
            f"Ollama does not take the name {model}: {_first_line(reason)}",
            remedy="Use names such as llama3.2:3b or hf.co/USER/MODEL:QUANT.",
            param="model",
        )
    return UpstreamFailed(f"Ollama could not download {model}: {_first_line(reason)}")


def _first_line(reason: str) -> str:
    return (reason.strip().splitlines() or ["no reason given"])[0][:300]
