"""The control API's commands for the providers' servers: start, stop, restart.

Decides: their cooldowns, and that both stops share one. Must not: wait for the end of what was begun: these
answer at once, with 200 as their clients know it, and how it went is in the activity (`service_started`,
`service_stopped`, `service_failed`) and in /providers.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.core.commands import Valet
from tray_valet.core.ports import Clock
from tray_valet.core.service_plan import ServiceBegun
from tray_valet.web.control.cooldowns import Cooldowns
from tray_valet.web.control.query_fields import provider_of
from tray_valet.web.edge.json_answer import json_answer
from tray_valet.web.edge.json_body import expect_nothing

_COOLDOWN_S = 3.0


class ControlServices:
    """Takes commands for the servers behind `valet`'s providers."""

    def __init__(self, valet: Valet, clock: Clock) -> None:
        self._valet = valet
        self._cooldowns = Cooldowns(clock, length_s=_COOLDOWN_S)

    def routes(self) -> list[Route]:
        """The routes of these commands."""
        return [
            Route("/start", self.start, methods=["POST"]),
            Route("/stop", self.stop, methods=["POST"]),
            Route("/stop/force", self.stop_force, methods=["POST"]),
            Route("/restart", self.restart, methods=["POST"]),
        ]

    async def start(self, request: Request) -> Response:
        """`POST /start`, `?provider=`: begin to start the provider's server."""
        provider = await _read(request)
        with self._cooldowns.once("start"):
            return _begun("start", await self._valet.start_service(provider))

    async def stop(self, request: Request) -> Response:
        """`POST /stop`, `?provider=`: begin to stop it; it is asked first, and ended by force after 10 s."""
        provider = await _read(request)
        with self._cooldowns.once("stop"):
            return _begun("stop", await self._valet.stop_service(provider))

    async def stop_force(self, request: Request) -> Response:
        """`POST /stop/force`, `?provider=`: the same, but its runners are killed first."""
        provider = await _read(request)
        with self._cooldowns.once("stop"):
            return _begun("stop/force", await self._valet.stop_service(provider, is_forced=True))

    async def restart(self, request: Request) -> Response:
        """`POST /restart`, `?provider=`: begin to stop it and start it again."""
        provider = await _read(request)
        with self._cooldowns.once("restart"):
            return _begun("restart", await self._valet.restart_service(provider))


async def _read(request: Request) -> str | None:
    expect_nothing(await request.body())
    return provider_of(request)


def _begun(command: str, begun: ServiceBegun) -> Response:
    shape = {"ok": True, "action": command, "provider": begun.provider, "message": begun.message}
    return json_answer({**shape, "done": begun.is_done})
