"""The control API: one Starlette app of reads, commands and events.

Decides: the paths, and that every failure leaves as JSON. Must not: check who calls (`guard.py` does).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tray_valet.core.commands import Valet
from tray_valet.core.desks import Desks
from tray_valet.core.errors import ValetError
from tray_valet.core.ports import Clock, ProcessTable
from tray_valet.desktop.window_opener import WindowShown
from tray_valet.web.control.event_stream import EventStream
from tray_valet.web.control.ledger import ControlLedger
from tray_valet.web.control.memory_reads import MemoryReads
from tray_valet.web.control.models import ControlModels
from tray_valet.web.control.opening import ControlOpen
from tray_valet.web.control.pages import UiPages
from tray_valet.web.control.reads import ControlReads
from tray_valet.web.control.routes import ControlRoutes
from tray_valet.web.control.services import ControlServices
from tray_valet.web.control.settings import ControlSettings
from tray_valet.web.control.setup import ControlSetup
from tray_valet.web.control.trials import ControlTests
from tray_valet.web.control.window_codes import WindowCodes
from tray_valet.web.control.writes import ControlWrites
from tray_valet.web.edge.errors import HttpError, mistake_of_ours, not_allowed, nothing_there
from tray_valet.web.edge.json_answer import error_answer


class ControlApi:
    """The ASGI app of the control API.

    `codes`: where windows buy their keys; `table` measures games; `open_window` None: there is no /open.
    `desks` None: no disk, set-up, settings as a whole, keys and tests. `router`: the router API's app.
    """

    def __init__(
        self,
        valet: Valet,
        *,
        clock: Clock,
        codes: WindowCodes | None = None,
        table: ProcessTable | None = None,
        open_window: Callable[[], Awaitable[WindowShown]] | None = None,
        desks: Desks | None = None,
        router: Callable[[], ASGIApp | None] = lambda: None,
    ) -> None:
        self._events = EventStream(valet)
        self._routes = [
            *ControlReads(valet).routes(),
            *ControlLedger(valet).routes(),
            *ControlWrites(valet, clock).routes(),
            *ControlServices(valet, clock).routes(),
            *ControlRoutes(valet).routes(),
            *MemoryReads(valet, table).routes(),
            *UiPages(lambda: valet.settings, codes or WindowCodes(clock)).routes(),
            *(ControlOpen(open_window).routes() if open_window is not None else ()),
            *(_desk_routes(valet, clock, desks, router) if desks is not None else ()),
            Route("/events", self._events, methods=["GET"]),
        ]
        self._app = Starlette(
            routes=self._routes,
            exception_handlers={
                ValetError: _on_failure,
                HttpError: _on_failure,
                HTTPException: self._on_http_exception,
                Exception: _on_mistake,  # Starlette raises it again after this answer; the guard logs it
            },
        )
        self._app.router.redirect_slashes = False  # a redirect would be built from the caller's own words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @property
    def routes(self) -> Sequence[Route]:
        """Every route, as the description has them."""
        return tuple(self._routes)

    def end_streams(self) -> None:
        """End every open event stream; the server is about to stop."""
        self._events.close()

    async def _on_http_exception(self, request: Request, error: Exception) -> Response:
        allowed = self._methods_at(request)
        return error_answer(not_allowed(request.method, allowed) if allowed else nothing_there())

    def _methods_at(self, request: Request) -> list[str]:
        """What can be done at the path; the first route that fits says which path that is."""
        matching = [route for route in self._routes if route.matches(request.scope)[0] is not Match.NONE]
        return sorted(
            {method for route in matching if route.path == matching[0].path for method in route.methods or ()}
        )


def _desk_routes(
    valet: Valet, clock: Clock, desks: Desks, router: Callable[[], ASGIApp | None]
) -> list[Route]:
    return [
        *ControlModels(desks.store, clock).routes(),
        *ControlSetup(desks.setup).routes(),
        *ControlSettings(valet, desks.settings, desks.secrets).routes(),
        *ControlTests(valet, desks.checks, router).routes(),
    ]


async def _on_failure(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValetError | HttpError)
    return error_answer(error)


async def _on_mistake(request: Request, error: Exception) -> Response:
    return error_answer(mistake_of_ours())
