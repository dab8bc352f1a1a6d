"""The pages: the window's and /docs, their files, and the sale of a key for a one-time code.

Decides: which files there are (those of the package's `ui` folder, by exact name) and the theme that the
page starts with. Must not: build a path from what a caller says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.core.config import Appearance, Settings
from tray_valet.web.control.window_codes import WindowCodes
from tray_valet.web.edge.errors import EdgeCode, ErrorType, HttpError
from tray_valet.web.edge.json_answer import json_answer
from tray_valet.web.edge.json_body import decode

UI_PATH = "/ui/"
SESSION_PATH = "/ui/session"
_INDEX, _DOCS = "index.html", "docs.html"
_SYSTEM_THEME = b'data-appearance="system"'  # as index.html has it
_KINDS: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


class _SessionBody(msgspec.Struct, kw_only=True):
    code: str


class _File(msgspec.Struct, frozen=True):
    content: bytes
    kind: str
    etag: str


class UiPages:
    """Serves the pages. The files are read when one is first asked for, once."""

    def __init__(self, settings: Callable[[], Settings], codes: WindowCodes) -> None:
        self._settings = settings
        self._codes = codes
        self._files: dict[str, _File] | None = None

    def routes(self) -> list[Route]:
        """The routes of the pages and their files."""
        return [
            Route("/ui", self.redirect, methods=["GET"]),
            Route(UI_PATH, self.index, methods=["GET"]),
            Route(SESSION_PATH, self.session, methods=["POST"]),
            Route("/ui/{name}", self.file, methods=["GET"]),
            Route("/docs", self.docs, methods=["GET"]),
        ]

    async def redirect(self, request: Request) -> Response:
        """`GET /ui`: the page's relative addresses need the slash."""
        return Response(status_code=307, headers={"location": UI_PATH})

    async def index(self, request: Request) -> Response:
        """`GET /ui/`: the page, in the theme that the settings choose."""
        page = self._all_files()[_INDEX]
        appearance = self._settings().desktop.appearance
        if appearance is Appearance.SYSTEM:
            return _answer(request, page)
        chosen = f'data-appearance="{appearance.value}" data-theme="{appearance.value}"'
        return _answer(request, _file(page.content.replace(_SYSTEM_THEME, chosen.encode(), 1), page.kind))

    async def file(self, request: Request) -> Response:
        """`GET /ui/{name}`: one of the page's files."""
        if request.scope["path"] == SESSION_PATH:
            raise HTTPException(405)
        found = self._all_files().get(request.path_params["name"])
        if found is None:
            raise HttpError(
                404, ErrorType.NOT_FOUND, EdgeCode.PATH_NOT_FOUND, "The page has no file of that name."
            )
        return _answer(request, found)

    async def docs(self, request: Request) -> Response:
        """`GET /docs`: /openapi.json for people. Its script and styles are under /ui/, too."""
        return _answer(request, self._all_files()[_DOCS])

    async def session(self, request: Request) -> Response:
        """`POST /ui/session {code}` → `{token}`: what the page shows as its bearer token from then on."""
        body = decode(await request.body(), _SessionBody)
        return json_answer({"token": self._codes.buy_token(body.code)}, headers={"cache-control": "no-store"})

    def _all_files(self) -> dict[str, _File]:
        if self._files is None:
            self._files = _read_files()
        return self._files


def _read_files() -> dict[str, _File]:
    from importlib.resources import files  # brings zip files along, which nothing else here needs

    folder = files("tray_valet.web").joinpath("ui")
    return {
        entry.name: _file(entry.read_bytes(), kind)
        for entry in folder.iterdir()
        if (kind := _KINDS.get("." + entry.name.rpartition(".")[2])) and entry.is_file()
    }


def _file(content: bytes, kind: str) -> _File:
    return _File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _answer(request: Request, file: _File) -> Response:
    """The file, or 304 where the browser has it already (it asks each time: no-cache)."""
    headers = {"etag": file.etag, "cache-control": "no-cache"}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.kind, headers=headers)
