"""The control API's commands for the disk: downloads and deletions.

Decides: the bodies' fields, the cooldown, and which end of a download has which status.
Must not: download or delete (`core.desks.ModelStore` does).
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.core.desks import ModelStore
from tray_valet.core.downloads import Download, DownloadState
from tray_valet.core.errors import Refused, UpstreamFailed
from tray_valet.core.models import check_model_name
from tray_valet.core.ports import Clock
from tray_valet.web.control.cooldowns import Cooldowns
from tray_valet.web.control.query_fields import provider_of
from tray_valet.web.control.status_shape import download
from tray_valet.web.edge.json_answer import json_answer
from tray_valet.web.edge.json_body import decode, expect_nothing

_COOLDOWN_S = 5.0
_PULL = "pull"


class PullBody(msgspec.Struct, kw_only=True):
    """`POST /models/pull`."""

    model: str
    wait: bool = False


class ControlModels:
    """Takes commands for `store`."""

    def __init__(self, store: ModelStore, clock: Clock) -> None:
        self._store = store
        self._cooldowns = Cooldowns(clock, length_s=_COOLDOWN_S)

    def routes(self) -> list[Route]:
        """The routes of these commands."""
        return [
            Route("/models/pull", self.pull, methods=["POST"]),
            Route("/models/{model:path}", self.delete, methods=["DELETE"]),
            Route("/downloads", self.downloads, methods=["GET"]),
            Route("/downloads/{id}", self.cancel, methods=["DELETE"]),
        ]

    async def pull(self, request: Request) -> Response:
        """`POST /models/pull {model, wait?}`, `?provider=`: 202, or with `wait` 200 once it is there."""
        body = decode(await request.body(), PullBody)
        model, provider = check_model_name(body.model), provider_of(request)
        with self._cooldowns.once("models/pull"):
            begun = await self._store.pull(model, provider)
        if not body.wait:
            return json_answer(
                {"ok": True, "action": "pull", "id": begun.id, "download": download(begun)}, status=202
            )
        return _ended(await self._store.wait(begun.id))

    async def delete(self, request: Request) -> Response:
        """`DELETE /models/{name with slashes}`, `?provider=`: from the disk; unloaded first."""
        expect_nothing(await request.body())
        if request.path_params["model"] == _PULL:
            raise HTTPException(405)  # that path is a command; the model is called pull:latest
        model = check_model_name(request.path_params["model"])
        ref = await self._store.delete(model, provider_of(request))
        return json_answer({"ok": True, "action": "delete", "model": ref.model, "provider": ref.provider})

    async def downloads(self, request: Request) -> Response:
        """`GET /downloads`: those that have not ended in their order, then the last ended ones."""
        return json_answer({"downloads": [download(each) for each in self._store.downloads()]})

    async def cancel(self, request: Request) -> Response:
        """`DELETE /downloads/{id}`: take it back for good."""
        expect_nothing(await request.body())
        cancelled = await self._store.cancel(request.path_params["id"])
        return json_answer({"ok": True, "action": "cancel", "download": download(cancelled)})


def _ended(ended: Download) -> Response:
    if ended.state is DownloadState.FAILED:
        raise UpstreamFailed(f"{ended.model} could not be downloaded: {ended.error}", retry_after_s=30.0)
    if ended.state is DownloadState.CANCELLED:
        raise Refused(f"The download of {ended.model} was cancelled.")
    shape: dict[str, Any] = {"ok": True, "action": "pull", "model": ended.model, "provider": ended.provider}
    return json_answer({**shape, "id": ended.id, "download": download(ended)})
