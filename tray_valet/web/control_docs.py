"""GET /openapi.json and GET /docs: what the control API can do, for programs and for people.

Decides: nothing; the document is `control_openapi`'s. Must not: need a network: the page reads the document.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.web.json_answer import json_answer
from tray_valet.web.ui_pages import page_file

_PAGE = "docs.html"


class ControlDocs:
    """Serves the document and the page. Both are made when they are first asked for."""

    def routes(self) -> list[Route]:
        """The two routes."""
        return [
            Route("/openapi.json", self.document, methods=["GET"]),
            Route("/docs", self.page, methods=["GET"]),
        ]

    async def document(self, request: Request) -> Response:
        """`GET /openapi.json`: OpenAPI 3.1."""
        from tray_valet.web.control_openapi import document  # only for those who ask

        return json_answer(document())

    async def page(self, request: Request) -> Response:
        """`GET /docs`: the same for people. Its script and styles are the window's, from /ui/."""
        return page_file(request, _PAGE)
