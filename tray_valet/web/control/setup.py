"""The first set-up: GET /setup, POST /setup/acknowledge, POST /setup/apply.

Decides: who may ask (this machine, and no page of another origin, whatever cors_origins says), and the
bodies' ranges. Must not: know how a key is made or an address changed (`core.desks.Setup` does).
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.core.desks import Setup
from tray_valet.core.errors import InvalidValue, LocalOnly
from tray_valet.web.edge.json_answer import json_answer
from tray_valet.web.edge.json_body import decode, expect_nothing
from tray_valet.web.edge.requests import RequestHead

# A proxy on this machine passes on what comes from elsewhere, and says so.
_PROXIED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_MAX_PORT = 65_535


class ApplyBody(msgspec.Struct, kw_only=True):
    """`POST /setup/apply`."""

    host: str | None = None
    port: int | None = None


class ControlSetup:
    """Asks `setup`, for callers on this machine."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def routes(self) -> list[Route]:
        """The routes of the set-up."""
        return [
            Route("/setup", self.state, methods=["GET"]),
            Route("/setup/acknowledge", self.acknowledge, methods=["POST"]),
            Route("/setup/apply", self.apply, methods=["POST"]),
        ]

    async def state(self, request: Request) -> Response:
        """`GET /setup`: {needs_setup, api_key}; the key only until it is acknowledged."""
        _require_local(request)
        state = self._setup.state()
        return json_answer({"needs_setup": state.needs_setup, "api_key": state.api_key})

    async def acknowledge(self, request: Request) -> Response:
        """`POST /setup/acknowledge`: the user has noted the key."""
        _require_local(request)
        expect_nothing(await request.body())
        await self._setup.acknowledge()
        return json_answer({"ok": True, "action": "setup/acknowledge"})

    async def apply(self, request: Request) -> Response:
        """`POST /setup/apply {host?, port?}`: listen there from now on; the answer names the new url."""
        _require_local(request)
        body = decode(await request.body(), ApplyBody)
        if body.port is not None and not 0 <= body.port <= _MAX_PORT:
            raise InvalidValue(
                f"{body.port} is not a port.", remedy="Use 1 to 65535, or 0 for any free one.", param="port"
            )
        if body.host is not None and (not body.host or len(body.host) > 253):
            raise InvalidValue("That is not a host.", remedy="Use 127.0.0.1 or 0.0.0.0.", param="host")
        if body.host is None and body.port is None:
            raise InvalidValue("Nothing is to be changed.", remedy="Give host, port, or both.", param="host")
        applied = await self._setup.apply(body.host, body.port)
        shape = {"ok": True, "action": "setup/apply", "url": applied.url}
        return json_answer({**shape, "host": applied.host, "port": applied.port})


def _require_local(request: Request) -> None:
    head = RequestHead(request.scope)
    origin = head.text(b"origin")
    is_other_page = bool(origin) and origin != f"{head.scheme}://{head.text(b'host')}"
    is_proxied = any(name in request.headers for name in _PROXIED)
    if not head.is_from_loopback or is_other_page or is_proxied:
        raise LocalOnly(
            "The set-up is done on this machine only.",
            remedy="Open Tray Valet's window there (tray-valet open).",
        )
