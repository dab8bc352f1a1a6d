"""What the router answers itself: lists, management, monitoring, in the dialect of each path.

Decides: the paths and methods. Must not: make the answers (the modules of each subject do), or pass requests
for an answer on (`router/api.py` has those paths).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from tray_valet.core.commands import Valet
from tray_valet.core.errors import ValetError
from tray_valet.web.edge.errors import HttpError, not_allowed, nothing_there
from tray_valet.web.relay.dialect_errors import answer_at
from tray_valet.web.router import lists, management, monitoring, ollama_lists
from tray_valet.web.router.metrics import MetricsStream, RouterMetrics
from tray_valet.web.router.ollama_commands import COMMANDS, OllamaCommands
from tray_valet.web.router.openapi import document
from tray_valet.web.router.status_stream import ModelStatusStream

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
_MODELS = "/v1/models/"
_encode = msgspec.json.encode


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request for one of our own answers. `name`: the model in the path, "" where there is none."""

    name: str
    body: bytes
    accept: str


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    body: bytes
    status: int = 200
    kind: bytes = _JSON


_Handler = Callable[[Asked], Awaitable[Told]]


class RouterAnswers:
    """An ASGI app. `resident_bytes`: memory of this process, for /metrics."""

    def __init__(self, valet: Valet, *, resident_bytes: Callable[[], int | None] = lambda: None) -> None:
        self._valet = valet
        self._metrics = RouterMetrics(valet, resident_bytes)
        self._status_stream = ModelStatusStream(valet)
        self._metrics_stream = MetricsStream(self._metrics, valet)
        self._commands = OllamaCommands(valet)
        self._whole: dict[str, dict[str, _Handler]] = self._whole_answers()
        self._streams: dict[str, tuple[str, ASGIApp]] = {
            "/v1/models/status/stream": ("GET", self._status_stream),
            "/metrics/stream": ("GET", self._metrics_stream),
            **{path: (method, self._commands) for path, method in COMMANDS.items()},
        }

    def end_streams(self) -> None:
        """End every stream: the server is about to stop."""
        for feed in (self._status_stream, self._metrics_stream, self._commands):
            feed.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, errors included."""
        path: str = scope["path"]
        try:
            if (stream := self._streams.get(path)) is not None:
                method, app = stream
                _check_method(scope["method"], (method,))
                await app(scope, receive, send)
                return
            told = await self._answer(scope, receive)
        except (ValetError, HttpError) as error:
            answer = answer_at(path, error)
            await _send(send, Told(body=answer.body, status=answer.status), answer.headers)
        else:
            await _send(send, told, ())

    async def _answer(self, scope: Scope, receive: Receive) -> Told:
        name, handlers = self._find(scope["path"])
        method: str = scope["method"]
        _check_method(method, tuple(handlers))
        body = b"" if method in ("GET", "HEAD") else bytes((await receive()).get("body", b""))
        accept = b",".join(value for key, value in scope["headers"] if key == b"accept")
        asked = Asked(name=name, body=body, accept=accept.decode("latin-1"))
        return await handlers["GET" if method == "HEAD" else method](asked)

    def _find(self, path: str) -> tuple[str, dict[str, _Handler]]:
        """The model in the path and what can be asked there. Raises 404."""
        if (handlers := self._whole.get(path)) is not None:
            return "", handlers
        name = path.removeprefix(_MODELS)
        if name == path or not name:
            raise nothing_there()
        about, slash, what = name.rpartition("/")
        # Names have slashes too: a model that is really called “…/status” is meant first.
        is_model = lists.find_entry(self._valet.catalog(), name) is not None
        if about and slash and not is_model:
            if what == "status":
                return about, {"GET": self._model_status}
            if what == "reset":
                return about, {"POST": self._reset}
        return name, {"GET": self._model}

    def _whole_answers(self) -> dict[str, dict[str, _Handler]]:
        valet = self._valet
        return {
            "/": {"GET": _text(ollama_lists.GREETING)},
            "/health": {"GET": self._health},
            "/openapi.json": {"GET": _json(document)},
            "/metrics": {"GET": self._metrics_text},
            "/vram": {"GET": self._vram},
            "/v1/models": {"GET": _json(lambda: lists.model_list(valet))},
            "/v1/models/eject": {"POST": self._eject},
            "/v1/models/failed": {"GET": _json(lambda: management.failed(valet))},
            "/v1/models/status": {"GET": _json(lambda: management.status_of_all(valet))},
            "/v1/queue/stats": {"GET": _json(lambda: monitoring.queue_stats(valet))},
            "/v1/telemetry/summary": {"GET": _json(lambda: monitoring.telemetry(valet))},
            "/v1/health/models": {"GET": _json(lambda: monitoring.models_health(valet))},
            "/api/tags": {"GET": _json(lambda: ollama_lists.tags(valet.catalog()))},
            "/api/ps": {"GET": _json(lambda: ollama_lists.processes(valet))},
            "/api/version": {"GET": _json(lambda: ollama_lists.version(valet.snapshot()))},
        }

    async def _health(self, asked: Asked) -> Told:
        status, shape = monitoring.health(self._valet)
        return Told(body=_encode(shape), status=status)

    async def _metrics_text(self, asked: Asked) -> Told:
        text, kind = await self._metrics.text(asked.accept)
        return Told(body=text, kind=kind.encode())

    async def _vram(self, asked: Asked) -> Told:
        return Told(body=_encode(await monitoring.vram(self._valet)))

    async def _eject(self, asked: Asked) -> Told:
        return Told(body=_encode(await management.eject(self._valet, asked.body)))

    async def _reset(self, asked: Asked) -> Told:
        return Told(body=_encode(await management.reset(self._valet, asked.name)))

    async def _model_status(self, asked: Asked) -> Told:
        return Told(body=_encode(management.status_of_one(self._valet, asked.name)))

    async def _model(self, asked: Asked) -> Told:
        return Told(body=_encode(lists.one_model(self._valet, asked.name)))


def _json(make: Callable[[], dict[str, Any]]) -> _Handler:
    async def handler(asked: Asked) -> Told:
        return Told(body=_encode(make()))

    return handler


def _text(text: str) -> _Handler:
    async def handler(asked: Asked) -> Told:
        return Told(body=text.encode(), kind=_TEXT)

    return handler


def _check_method(method: str, allowed: tuple[str, ...]) -> None:
    listed = [each for name in allowed for each in (("GET", "HEAD") if name == "GET" else (name,))]
    if method not in listed:
        raise not_allowed(method, listed)


async def _send(send: Send, told: Told, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    usual = [(b"content-type", told.kind), (b"content-length", str(len(told.body)).encode())]
    await send({"type": "http.response.start", "status": told.status, "headers": [*usual, *headers]})
    await send({"type": "http.response.body", "body": told.body, "more_body": False})
