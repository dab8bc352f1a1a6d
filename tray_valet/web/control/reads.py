"""The control API's GETs: the picture, and the lists that are looked up on demand.

Decides: which question gets which part of the picture. Must not: change anything. Answers come from
what was sampled already, so that a busy machine still answers at once; only the models, the providers
and /metrics look afresh.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.core.commands import Valet
from tray_valet.web.control import list_shapes, status_shape
from tray_valet.web.control.pages import UI_PATH
from tray_valet.web.control.query_fields import whole_number_of
from tray_valet.web.edge.json_answer import json_answer

_USUAL_ACTIVITY, _MAX_ACTIVITY = 200, 1000  # entries


class ControlReads:
    """Answers questions about `valet`."""

    def __init__(self, valet: Valet) -> None:
        self._valet = valet

    def routes(self) -> list[Route]:
        """The routes of all questions."""
        handlers = {
            "/": self.root,
            "/status": self.status,
            "/watchdog": self.watchdog,
            "/metrics": self.metrics,
            "/models": self.models,
            "/providers": self.providers,
            "/config": self.config,
            "/games": self.games,
            "/holds": self.holds,
            "/explain": self.explain,
            "/activity": self.activity,
            "/logs": self.logs,
            "/openapi.json": self.description,
        }
        return [Route(path, handler, methods=["GET"]) for path, handler in handlers.items()]

    async def root(self, request: Request) -> Response:
        """`GET /`: who answers here; a browser is led to the page."""
        if "text/html" in request.headers.get("accept", ""):
            return Response(status_code=307, headers={"location": UI_PATH})
        version = self._valet.snapshot().version
        return json_answer({"name": "Tray Valet", "version": version, "status": "/status"})

    async def status(self, request: Request) -> Response:
        """`GET /status`: everything at one moment, from the last sample."""
        snapshot = self._valet.snapshot()
        sample = snapshot.sample or await self._valet.sample()
        return json_answer(status_shape.status(snapshot, sample, self._valet.settings))

    async def watchdog(self, request: Request) -> Response:
        """`GET /watchdog`: state and last reason."""
        return json_answer(status_shape.watchdog(self._valet.snapshot()))

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`: a live sample of the machine."""
        sample = await self._valet.sample()
        missing_because = self._valet.snapshot().gpu_missing_because
        return json_answer(status_shape.metrics(sample, self._valet.settings.thresholds, missing_because))

    async def models(self, request: Request) -> Response:
        """`GET /models`: what could be loaded, over all providers that answer."""
        installed = await self._valet.installed()
        return json_answer(list_shapes.models(installed, self._valet.snapshot()))

    async def providers(self, request: Request) -> Response:
        """`GET /providers`: every provider, with conditions and models."""
        installed = await self._valet.installed()
        return json_answer(list_shapes.providers(installed, self._valet.snapshot()))

    async def config(self, request: Request) -> Response:
        """`GET /config`: the thresholds."""
        return json_answer(msgspec.to_builtins(self._valet.settings.thresholds))

    async def games(self, request: Request) -> Response:
        """`GET /games`: known and running."""
        return json_answer(list_shapes.games(self._valet.known_games(), self._valet.snapshot()))

    async def holds(self, request: Request) -> Response:
        """`GET /holds`: the active reasons to stay paused."""
        snapshot = self._valet.snapshot()
        return json_answer({"holds": [status_shape.hold(view) for view in snapshot.holds]})

    async def explain(self, request: Request) -> Response:
        """`GET /explain`: why it is as it is."""
        return json_answer(list_shapes.explain(self._valet.snapshot()))

    async def activity(self, request: Request) -> Response:
        """`GET /activity?limit=200`: what happened, newest first."""
        limit = whole_number_of(request, "limit", usual=_USUAL_ACTIVITY, most=_MAX_ACTIVITY)
        return json_answer(list_shapes.activity(self._valet.activity(limit)))

    async def logs(self, request: Request) -> Response:
        """`GET /logs?runner=`: what a model's runner wrote last; without a runner the valet's own log."""
        runner = request.query_params.get("runner") or None
        lines = await self._valet.log_lines(runner)
        return json_answer({"runner": runner, "lines": list(lines)})

    async def description(self, request: Request) -> Response:
        """`GET /openapi.json`: this API as OpenAPI 3.1, made when it is first asked for."""
        from tray_valet.web.control.openapi.description import document  # only for those who ask

        return json_answer(document())
