"""`GET /routes`: the aliases, who would answer each now, and what a pause means for it.

Decides: names on the wire. Must not: choose (`core/routing.py` does), or change anything.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.core.commands import Valet
from tray_valet.core.route_views import CandidateView, RouteView
from tray_valet.web.edge.json_answer import json_answer


class ControlRoutes:
    """Answers what the aliases of `valet` stand for."""

    def __init__(self, valet: Valet) -> None:
        self._valet = valet

    def routes(self) -> list[Route]:
        """The one route."""
        return [Route("/routes", self.show, methods=["GET"])]

    async def show(self, request: Request) -> Response:
        """`GET /routes`: every alias; `default` is what a pause means for models without one."""
        router = self._valet.settings.router
        return json_answer(
            {
                "routes": [route_shape(view) for view in self._valet.routes()],
                "default": {"when_paused": router.when_paused.value},
            }
        )


def route_shape(view: RouteView) -> dict[str, Any]:
    """An alias: its candidates, what a pause means for it, and what would happen now."""
    return {
        "alias": view.alias,
        "candidates": [_candidate(each) for each in view.candidates],
        "when_paused": view.when_paused.value,
        "wait_seconds": view.wait_s,
        "priority": view.priority.value,
        "num_ctx": view.num_ctx,
        "keep_alive": view.keep_alive,
        "now": {
            "outcome": view.outcome.value,
            "why": view.why,
            "provider": view.goes_to.provider if view.goes_to else None,
            "model": view.goes_to.model if view.goes_to else None,
        },
    }


def _candidate(view: CandidateView) -> dict[str, Any]:
    return {
        "provider": view.ref.provider,
        "model": view.ref.model,
        "pool": view.pool or None,
        "exists": view.exists,
        "provider_state": view.provider_state,
        "local": view.is_local,
        "loaded": view.is_loaded,
        "loaded_context_length": view.context_length,
        "standing": view.standing.name.lower(),
        "why_closed": view.why_closed or None,
        "set": list(view.sets),
        "strip": list(view.strips),
    }
