"""`POST /open`: the window, for a second start and for the commands.

Decides: what the answer says. Must not: know how a window is opened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.desktop.window_opener import WindowShown
from tray_valet.web.edge.json_answer import json_answer
from tray_valet.web.edge.json_body import expect_nothing


class ControlOpen:
    """Opens the window on request. `open_window` answers how it came up."""

    def __init__(self, open_window: Callable[[], Awaitable[WindowShown]]) -> None:
        self._open_window = open_window

    def routes(self) -> list[Route]:
        """The one route."""
        return [Route("/open", self.open, methods=["POST"])]

    async def open(self, request: Request) -> Response:
        """`POST /open`: show the window, or bring it to the front."""
        expect_nothing(await request.body())
        shown = await self._open_window()
        return json_answer({"ok": True, "action": "open", "way": shown.way.value, "url": shown.url})
