"""Ollama's HTTP API: one method a route, every wait bounded, every failure translated.

Decides: how long each call may take and which of our errors a failure is.
Must not: decide what to load or unload, or keep state.

Facts: server/routes.go of Ollama. Errors are `{"error": "…"}` with 4xx or 5xx. A load ends when its client
hangs up (`WaitUntilRunning` watches the request), and /api/version takes no lock, so it answers while
models load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
import msgspec

from tray_valet.core.errors import (
    LoadFailed,
    NotSupported,
    ProviderUnreachable,
    UnknownModel,
    UpstreamFailed,
    ValetError,
)
from tray_valet.providers.http_client import NOT_JSON
from tray_valet.providers.ollama_wire import (
    PsAnswer,
    RunAnswer,
    ShowAnswer,
    TagsAnswer,
    VersionAnswer,
    reason_of,
)

T = TypeVar("T")
_MAX_ANSWER_BYTES = 32 * 1024 * 1024  # the longest list of models that is believed
_LOG_LINES = 20
_DELETE_S = 30.0  # many gigabytes take a moment


class OllamaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long Ollama may take, in seconds. A load has no limit as long as the server answers at all."""

    connect_s: float = 2.0
    call_s: float = 4.5  # any call but a load, in whole; the port allows 5 s for a look
    heartbeat_s: float = 5.0  # during a load the server is asked this often whether it lives
    heartbeat_misses: int = 3  # and given up after so many calls in a row without an answer
    give_up_s: float = 1.0  # to leave nothing behind when a load is cancelled


class OllamaApi:
    """The routes that the valet uses. All methods run on the loop."""

    def __init__(
        self,
        endpoint: str,
        client: httpx.AsyncClient,
        limits: OllamaLimits,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`endpoint` is the address without a trailing slash; the caller closes `client`."""
        self._endpoint = endpoint
        self._client = client
        self._limits = limits
        self._headers = dict(headers or {})

    async def ps(self) -> PsAnswer:
        """List what is loaded. Raises ProviderUnreachable."""
        return await self._get("/api/ps", PsAnswer)

    async def tags(self) -> TagsAnswer:
        """List what is on disk. Raises ProviderUnreachable."""
        return await self._get("/api/tags", TagsAnswer)

    async def version(self) -> str:
        """Tell Ollama's version. Raises ProviderUnreachable."""
        return (await self._get("/api/version", VersionAnswer)).version

    async def show(self, model: str) -> ShowAnswer:
        """Tell details of a model. Raises UnknownModel, UpstreamFailed, ProviderUnreachable."""
        response = await self._call("POST", "/api/show", {"model": model})
        if response.status_code in (400, 404):
            raise unknown_model(model)
        if response.status_code != 200:
            raise UpstreamFailed(f"Ollama could not describe {model}: {reason_of(response.content)}")
        return self._decoded(response, ShowAnswer)

    async def unload(self, model: str) -> None:
        """Ask for a model to go: /api/generate without a prompt and with keep_alive 0.

        Ollama answers at once; a running generation is finished first. Raises UnknownModel,
        UpstreamFailed, ProviderUnreachable.
        """
        body = {"model": model, "keep_alive": 0, "stream": False}
        response = await self._call("POST", "/api/generate", body)
        if response.status_code == 404:
            raise unknown_model(model)
        if response.status_code != 200:
            raise UpstreamFailed(f"Ollama did not unload {model}: {reason_of(response.content)}")

    async def load(self, model: str, *, context_length: int | None, keep_alive: str | int | None) -> None:
        """Load a model and return when it is ready; no limit while the server lives.

        Hanging up (cancelling) makes Ollama give the load up. Raises UnknownModel, LoadFailed,
        ProviderUnreachable.
        """
        body: dict[str, Any] = {"model": model, "stream": False}
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        if context_length is not None:
            body["options"] = {"num_ctx": context_length}
        response = await self._watched_post("/api/generate", body)
        if response.status_code == 400 and "does not support generate" in reason_of(response.content):
            # A model that only embeds; without an input nothing is computed.
            response = await self._watched_post("/api/embed", body)
        if response.status_code == 404:
            raise unknown_model(model)
        if response.status_code != 200:
            raise _load_failed(model, reason_of(response.content))
        if error := self._decoded(response, RunAnswer).error:
            raise _load_failed(model, str(error))

    async def delete(self, model: str) -> None:
        """Delete a model from the disk. Raises UnknownModel, UpstreamFailed, ProviderUnreachable."""
        response = await self._call("DELETE", "/api/delete", {"model": model}, within_s=_DELETE_S)
        if response.status_code == 404:
            raise UnknownModel(f"Ollama has no model {model}.", param="model")
        if response.status_code != 200:
            raise UpstreamFailed(f"Ollama did not delete {model}: {reason_of(response.content)}")

    # -- how calls are made ---------------------------------------------------------------------------

    async def _get(self, path: str, kind: type[T]) -> T:
        response = await self._call("GET", path, None)
        if response.status_code != 200:
            why = reason_of(response.content)
            raise ProviderUnreachable(f"{self._endpoint} answers {path} with {response.status_code}: {why}")
        return self._decoded(response, kind)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, within_s: float | None = None
    ) -> httpx.Response:
        """Make a call that takes `within_s` at most, None = as long as any."""
        limit_s = within_s or self._limits.call_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._send(method, path, body, read_s=limit_s)
        except TimeoutError as error:
            raise self._no_answer(path) from error

    async def _watched_post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """Make a call of any length, given up when the server stops answering others."""
        post = asyncio.create_task(self._send("POST", path, body, read_s=None), name=f"ollama-post-{path}")
        misses = 0
        try:
            while not post.done():
                await asyncio.wait({post}, timeout=self._limits.heartbeat_s)
                if post.done():
                    break
                misses = 0 if await self._answers_still() else misses + 1
                if misses >= self._limits.heartbeat_misses:
                    raise self._no_answer(path)
            return post.result()
        finally:
            if not post.done():
                post.cancel()
                await asyncio.wait({post}, timeout=self._limits.give_up_s)

    async def _answers_still(self) -> bool:
        try:
            await self.version()
        except ValetError:
            return False
        return True

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, read_s: float | None
    ) -> httpx.Response:
        """The one place where httpx's errors become ours."""
        timeout = httpx.Timeout(self._limits.call_s, connect=self._limits.connect_s, read=read_s)
        try:
            request = self._client.build_request(
                method, f"{self._endpoint}{path}", json=body, headers=self._headers, timeout=timeout
            )
            response = await self._client.send(request, stream=True)
            try:
                content = bytearray()
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > _MAX_ANSWER_BYTES:
                        raise ProviderUnreachable(f"{self._endpoint} answers {path} without an end.")
            finally:
                await response.aclose()
        except httpx.TimeoutException as error:
            raise self._no_answer(path) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderUnreachable(
                f"Nothing answers at {self._endpoint} ({error or type(error).__name__}).",
                remedy="Start Ollama, or correct the provider's url.",
            ) from error
        return httpx.Response(response.status_code, content=bytes(content))

    def _no_answer(self, path: str) -> ProviderUnreachable:
        return ProviderUnreachable(f"{self._endpoint} does not answer {path} in time.")

    def _decoded(self, response: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except NOT_JSON as error:
            raise not_an_ollama(self._endpoint, error) from error


def not_an_ollama(endpoint: str, error: Exception) -> ProviderUnreachable:
    """The error for an answer that Ollama would not give."""
    return ProviderUnreachable(
        f"What answers at {endpoint} is not an Ollama ({error}).",
        remedy="Correct the provider's url or kind.",
    )


def unknown_model(model: str) -> UnknownModel:
    """The error for a model that is not on Ollama's disk."""
    return UnknownModel(f"Ollama has no model {model}.", remedy=f"Pull it: tray-valet pull {model}.")


def _load_failed(model: str, reason: str) -> LoadFailed:
    lines = tuple(reason.splitlines())[-_LOG_LINES:]
    return LoadFailed(f"Ollama could not load {model}: {lines[0] if lines else reason}", log_tail=lines)


def deleted_while_loaded(model: str) -> NotSupported:
    """The error for a model whose files went while it was loaded: Ollama unloads no name it cannot find."""
    return NotSupported(
        f"{model} was deleted while it was loaded; Ollama cannot be told to unload it.",
        remedy="Pause with force to end its process, or restart Ollama.",
    )
