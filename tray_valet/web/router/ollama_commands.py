"""Ollama's commands for models on disk: /api/pull, push, create, copy and delete, passed to an Ollama.

Decides: which Ollama a command is for. Must not: take a lease (they need no GPU), or read the answers: they
stream through as they come.

Source: `docs/api.md` of Ollama (paths, methods; `model`, formerly `name`; `source` for copy).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.types import Receive, Scope, Send

from tray_valet.core.commands import Valet
from tray_valet.core.errors import InvalidValue, NotSupported, ProviderUnreachable, UpstreamFailed
from tray_valet.core.models import ProviderKind, check_model_name
from tray_valet.core.snapshot import ProviderView
from tray_valet.web.edge.feed import begin, pump
from tray_valet.web.edge.json_body import parse_object
from tray_valet.web.relay.dialect_errors import stream_error
from tray_valet.web.relay.ends import shutting_down

if TYPE_CHECKING:
    import httpx

COMMANDS = {
    "/api/pull": "POST",
    "/api/push": "POST",
    "/api/create": "POST",
    "/api/copy": "POST",
    "/api/delete": "DELETE",
}
_NAMES = ("model", "name", "source")
_CONNECT_TIMEOUT_S = 5.0
_SILENCE_TIMEOUT_S = 3600.0  # a push or a create says nothing for long; the client may leave at any time
_JSON = (b"content-type", b"application/json")


class OllamaCommands:
    """Passes commands on. `close` ends those in progress."""

    def __init__(self, valet: Valet) -> None:
        self._valet = valet
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End what is being passed on; an Ollama goes on with a pull when it is asked again."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fields = parse_object(bytes((await receive()).get("body", b"")))
        key, name = _named(fields)
        provider, there = self._provider_for(name)
        fields[key] = there
        if key == "source" and isinstance(fields.get("destination"), str):
            fields["destination"] = fields["destination"].removeprefix(f"{provider.name}/")
        await self._pass_on(provider, scope["method"], scope["path"], fields, receive, send)

    def _provider_for(self, name: str) -> tuple[ProviderView, str]:
        """The Ollama that is named, that has the model, or that should get it; and the name there.

        Raises NotSupported where there is no Ollama, ProviderUnreachable where none answers.
        """
        views = self._valet.snapshot().providers
        ollamas = [view for view in views if view.kind is ProviderKind.OLLAMA]
        if not ollamas:
            there = ", ".join(f"{view.name} ({view.kind.value})" for view in views) or "no provider at all"
            raise NotSupported(
                "Only an Ollama manages models this way, and none is set up here.",
                remedy=f"There is {there}.",
            )
        prefix, _, rest = name.partition("/")
        for view in ollamas:
            if rest and view.name == prefix:
                return view, rest
        owners = {e.ref.provider for e in self._valet.catalog() if e.ref.model in (name, f"{name}:latest")}
        answering = [view for view in ollamas if view.state != "unreachable"]
        for view in (*(view for view in ollamas if view.name in owners), *answering):
            return view, name
        raise ProviderUnreachable(f"{ollamas[0].name} does not answer.", remedy="Start Ollama.")

    async def _pass_on(
        self,
        provider: ProviderView,
        method: str,
        path: str,
        fields: dict[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        import httpx  # heavy, and rarely needed

        timeout = httpx.Timeout(_SILENCE_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
        async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
            request = client.build_request(
                method,
                provider.url.rstrip("/") + path,
                content=msgspec.json.encode(fields),
                # What comes is passed on as it is, so it must not be compressed for us.
                headers={"content-type": "application/json", "accept-encoding": "identity"},
            )
            response = await self._begun(client.send(request, stream=True), provider.name, receive)
            try:
                kind = response.headers.get("content-type", "").encode("latin-1")
                headers = [
                    (b"content-type", kind) if kind else _JSON,
                    (b"x-accel-buffering", b"no"),
                    (b"x-valet-provider", provider.name.encode("ascii", "replace")),
                ]
                await send(
                    {"type": "http.response.start", "status": response.status_code, "headers": headers}
                )
                ended = asyncio.Event()
                pieces = _pieces(path, response, provider.name, ended)
                await pump(pieces, receive, send, closing=self._closing)
                is_cut = self._closing.is_set() and not ended.is_set()
                last = stream_error(path, shutting_down()) if is_cut else b""
                await send({"type": "http.response.body", "body": last, "more_body": False})
            finally:
                await response.aclose()

    async def _begun(
        self, asking: Coroutine[Any, Any, httpx.Response], provider: str, receive: Receive
    ) -> httpx.Response:
        """The answer's head, which a command that does not stream gets at its very end.

        Raises ProviderUnreachable, UpstreamFailed, Paused when the server stops, ClientGoneError.
        """
        import httpx

        try:
            response = await begin(asking, receive, closing=self._closing)
        except (httpx.ConnectError, httpx.TimeoutException) as error:
            self._valet.note_silent(provider)
            raise ProviderUnreachable(f"{provider} does not answer.") from error
        except httpx.HTTPError as error:
            raise UpstreamFailed(f"{provider} broke off before it answered.") from error
        if response is None:
            raise shutting_down()
        return response


def _named(fields: dict[str, Any]) -> tuple[str, str]:
    """The field that names the model, and its value. Raises InvalidValue."""
    for key in _NAMES:
        value = fields.get(key)
        if isinstance(value, str) and value:
            return key, check_model_name(value, param=key)
    raise InvalidValue("The request names no model.", remedy="Set “model”.", param="model")


async def _pieces(
    path: str, response: httpx.Response, provider: str, ended: asyncio.Event
) -> AsyncIterator[bytes]:
    """What comes, until it has `ended`; a connection that breaks ends with a line that says so."""
    import httpx

    try:
        async for piece in response.aiter_raw():
            yield piece
    except httpx.HTTPError:
        yield stream_error(path, UpstreamFailed(f"{provider} broke off."))
    ended.set()
