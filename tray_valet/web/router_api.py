"""The router API: clients' requests in their own dialect, admitted by the valet and passed on.

Decides: which paths there are, which model a request is for, and how refusals look to the clients.
Must not: choose providers, load models or wait in queues (the valet admits), or copy bytes
(`router_proxy.py` does). A raw ASGI app: frameworks cost more than the whole rest here.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from tray_valet.core.commands import CatalogEntry, Valet, Wish
from tray_valet.core.errors import InvalidJson, InvalidValue, UnknownModel, ValetError
from tray_valet.core.models import check_model_name
from tray_valet.web.bodies import ClientGoneError
from tray_valet.web.errors import MIB, EdgeCode, ErrorType, HttpError, answer_for
from tray_valet.web.requests import CLIENT_KEY
from tray_valet.web.router_proxy import Ends, Exchange, UpstreamClient, shutting_down

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_name = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode
_MODELS_PATH = "/v1/models"
_CLOSING_S = 1.0  # an exchange that is told to end has this long to say so to its client
_FORWARDED = frozenset({"/v1/chat/completions"})


class RouterApi:
    """The ASGI app of the router API."""

    def __init__(self, valet: Valet, *, client: UpstreamClient | None = None) -> None:
        self._valet = valet
        self._client = client or UpstreamClient()
        self._closing = asyncio.Event()

    async def close(self) -> None:
        """Close the connections to the upstreams."""
        await self._client.close()

    def end_streams(self) -> None:
        """End what is in flight: the server is about to stop."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        method: str = scope["method"]
        try:
            if path in _FORWARDED:
                _check_method(method, ("POST",))
                await self._forward(scope, receive, send)
            elif path == _MODELS_PATH:
                _check_method(method, ("GET", "HEAD"))
                await _answer(send, 200, self._models())
            elif path.startswith(_MODELS_PATH + "/"):
                _check_method(method, ("GET", "HEAD"))
                await _answer(send, 200, self._model(path.removeprefix(_MODELS_PATH + "/")))
            elif path == "/health":
                _check_method(method, ("GET", "HEAD"))
                status, shape = self._health()
                await _answer(send, status, shape)
            else:
                raise HttpError(
                    404, ErrorType.NOT_FOUND, EdgeCode.PATH_NOT_FOUND, "There is nothing at that path."
                )
        except (ValetError, HttpError) as error:
            answer = answer_for(error)
            await _send_whole(send, answer.status, answer.body, answer.headers)

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()  # the guard hands the body over whole
        fields, name = parse_request(message.get("body", b""))
        gone = asyncio.create_task(_wait_gone(receive), name="router: client leaves")
        closing = asyncio.create_task(self._closing.wait(), name="router: closing")
        work = asyncio.create_task(
            self._admitted(scope, fields, name, send, Ends(gone=gone, closing=closing)),
            name="router: exchange",
        )
        try:
            # A client that leaves ends the wait for a model too, not only the answer.
            await asyncio.wait({work, gone, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not gone.done():
                await asyncio.wait({work, gone}, timeout=_CLOSING_S, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                return
            if gone.done():
                raise ClientGoneError
            raise shutting_down()
        finally:
            gone.cancel()
            closing.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait({work}, timeout=_CLOSING_S)
            if work.done() and not work.cancelled():
                work.exception()  # looked at: it is told already, or nobody is left to tell

    async def _admitted(
        self, scope: Scope, fields: dict[str, msgspec.Raw], name: str, send: Send, ends: Ends
    ) -> None:
        try:
            async with self._valet.admit(Wish(model=name, client=scope.get(CLIENT_KEY, ""))) as lease:
                fields["model"] = msgspec.Raw(_encode(lease.upstream.model))
                exchange = Exchange(
                    self._client,
                    lease,
                    send,
                    ends=ends,
                    silence_timeout_s=float(self._valet.settings.router.request_timeout_seconds),
                )
                await exchange.run(scope["path"], scope["headers"], _encode(fields))
        except UnknownModel as error:
            raise self._with_suggestion(error, name) from None

    def _with_suggestion(self, error: UnknownModel, name: str) -> UnknownModel:
        """Name the model that was probably meant, where the error does not say more."""
        if error.remedy:
            return error
        import difflib

        entries = self._valet.catalog()
        names = [*(entry.name for entry in entries), *(str(entry.ref) for entry in entries)]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        remedy = f"Did you mean “{near[0]}”?" if near else "GET /v1/models lists what there is."
        return UnknownModel(error.message, remedy=remedy, param=error.param or "model")

    def _models(self) -> dict[str, Any]:
        snapshot = self._valet.snapshot()
        vram_mb = {
            (view.name, model.name): model.vram_bytes // MIB
            for view in snapshot.providers
            for model in view.loaded
        }
        return {
            "object": "list",
            "data": [
                _model_object(entry, vram_mb.get((entry.ref.provider, entry.ref.model)))
                for entry in self._valet.catalog()
            ],
        }

    def _model(self, name: str) -> dict[str, Any]:
        shapes: list[dict[str, Any]] = self._models()["data"]
        spellings = (name, f"{name}:latest")
        # An alias is another name for its model, not the model that `provider/model` asks for.
        for shape in sorted(shapes, key=lambda shape: (shape["id"] != name, shape["alias"])):
            if shape["id"] in spellings or f"{shape['provider']}/{shape['model']}" in spellings:
                return shape
        check_model_name(name)
        raise self._with_suggestion(UnknownModel(f"There is no model “{name}”.", param="model"), name)

    def _health(self) -> tuple[int, dict[str, Any]]:
        """Degraded while some provider is silent, 503 when all are; a pause is not an illness."""
        snapshot = self._valet.snapshot()
        checks: dict[str, dict[str, Any]] = {
            f"provider:{view.name}": {"status": "ok" if view.state == "ready" else view.state}
            for view in snapshot.providers
        }
        silent = sum(view.state == "unreachable" for view in snapshot.providers)
        is_down = silent > 0 and silent == len(snapshot.providers)
        checks["valet"] = {"status": "ok", "state": snapshot.state.value, "reason": snapshot.last_reason}
        shape = {"status": "down" if is_down else "degraded" if silent else "ok", "checks": checks}
        return (503 if is_down else 200), shape


def parse_request(body: bytes) -> tuple[dict[str, msgspec.Raw], str]:
    """Take a request apart: its fields as they were written, and the model it names.

    Raises InvalidJson, or InvalidValue for the model.
    """
    try:
        fields = _decode_fields(body)
    except RecursionError:
        raise InvalidJson("The JSON is nested too deeply.") from None
    except msgspec.ValidationError:
        raise InvalidJson("The body must be a JSON object ({…}).") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidJson(f"The body is not valid JSON: {str(error)[:200]}.") from None
    raw = fields.get("model")
    if raw is None:
        raise InvalidValue("The request names no model.", remedy="Set “model”.", param="model")
    try:
        name = _decode_name(raw)
    except (msgspec.DecodeError, UnicodeError):
        raise InvalidValue("The model must be a name in quotes.", param="model") from None
    return fields, check_model_name(name)


def _model_object(entry: CatalogEntry, vram_mb: int | None) -> dict[str, Any]:
    return {
        "id": entry.name,
        "object": "model",
        "created": entry.created,
        "owned_by": entry.ref.provider,
        "status": entry.status,
        "provider": entry.ref.provider,
        "model": entry.ref.model,
        "alias": entry.is_alias,
        "size_mb": entry.size_bytes // MIB,
        "vram_mb": vram_mb,
        "context_length": entry.context_length,
    }


def _check_method(method: str, allowed: tuple[str, ...]) -> None:
    if method not in allowed:
        listed = ", ".join(allowed)
        raise HttpError(
            405,
            ErrorType.INVALID_REQUEST,
            EdgeCode.METHOD_NOT_ALLOWED,
            f"{method} is not possible there. Use {listed}.",
            headers=((b"allow", listed.encode()),),
        )


async def _wait_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(send: Send, status: int, shape: dict[str, Any]) -> None:
    await _send_whole(send, status, _encode(shape), ())


async def _send_whole(send: Send, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    usual = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*usual, *headers]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
