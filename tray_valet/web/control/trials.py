"""Tests that the user asks for: POST /providers/{id}/test and POST /routes/{alias}/test.

Decides: what they answer: a failed test is an error with its remedy, never a 200.
Must not: run a command, or take anything from the request but a name and a wish to send.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tray_valet.core.commands import Valet
from tray_valet.core.desks import Checks
from tray_valet.core.errors import NotFound, TimedOut, UpstreamFailed
from tray_valet.web.control.routes import route_shape
from tray_valet.web.edge.json_answer import json_answer
from tray_valet.web.edge.json_body import decode, expect_nothing
from tray_valet.web.edge.json_faults import MALFORMED

_SEND_S = 60.0
_QUESTION = {"role": "user", "content": "Say hi."}
_SHOWN_HEADERS = ("x-valet-provider", "x-valet-model", "x-valet-reason")


class TestRouteBody(msgspec.Struct, kw_only=True):
    """`POST /routes/{alias}/test`."""

    send: bool = False


class ControlTests:
    """`router` is the router API's app, without its guard: who may ask here may ask there."""

    def __init__(self, valet: Valet, checks: Checks, router: Callable[[], ASGIApp | None]) -> None:
        self._valet = valet
        self._checks = checks
        self._router = router

    def routes(self) -> list[Route]:
        """The routes of the tests."""
        return [
            Route("/providers/{id}/test", self.provider, methods=["POST"]),
            Route("/routes/{alias:path}/test", self.route, methods=["POST"]),
        ]

    async def provider(self, request: Request) -> Response:
        """`POST /providers/{id}/test`: one live look, bounded; 502 or 504 with the remedy if it fails."""
        expect_nothing(await request.body())
        probe = await self._checks.provider(request.path_params["id"])
        return json_answer(
            {
                "ok": True,
                "provider": probe.provider,
                "kind": probe.kind,
                "url": probe.url,
                "took_ms": round(probe.took_s * 1000, 1),
                "version": probe.version,
                "models": list(probe.models),
                "loaded": list(probe.loaded),
            }
        )

    async def route(self, request: Request) -> Response:
        """`POST /routes/{alias}/test {send?}`: who would answer now, and why; with `send`, who did."""
        body = decode(await request.body(), TestRouteBody)
        alias: str = request.path_params["alias"]
        shape = self._shape(alias)
        shape["sent"] = await self._send(alias) if body.send else None
        return json_answer(shape)

    def _shape(self, alias: str) -> dict[str, Any]:
        for view in self._valet.routes():
            if view.alias == alias:
                return route_shape(view)
        raise NotFound(f"No route is called “{alias[:80]}”.", remedy="See: tray-valet routes", param="alias")

    async def _send(self, alias: str) -> dict[str, Any]:
        """One real request of a single token, by the router's own way."""
        import httpx

        app = self._router()
        if app is None:
            raise NotFound("The router is switched off.", remedy="Set router.enabled: true.")
        body = {"model": alias, "messages": [_QUESTION], "max_tokens": 1, "stream": False}
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(_SEND_S):
                transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
                async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                    answer = await client.post("/v1/chat/completions", json=body)
        except TimeoutError:
            raise TimedOut(
                f"“{alias}” did not answer within {_SEND_S:.0f} seconds.",
                remedy="A model that is being loaded may take longer; try again.",
            ) from None
        if answer.status_code != 200:
            raise UpstreamFailed(f"“{alias}” answered {answer.status_code}: {_message_of(answer.content)}")
        return {**_named(answer.headers), "took_ms": round((time.monotonic() - began_s) * 1000, 1)}


def _named(headers: Mapping[str, str]) -> dict[str, Any]:
    return {name.removeprefix("x-valet-"): headers.get(name) for name in _SHOWN_HEADERS}


def _message_of(content: bytes) -> str:
    try:
        message = msgspec.json.decode(content)["error"]["message"]
    except (*MALFORMED, KeyError, TypeError):
        return "no reason given"
    return str(message)[:500]
