"""GET /v1/models/status/stream: the models' states as they change, as server-sent events.

Decides: what is a change worth an event. Must not: look more often than once a second of its own accord;
facts wake it between.

Events, as in the seeds: `full_status` first, then `model_update` {alias, status, port, vram_mb …} for each
model whose status changed, appeared or left (status `off`), `server_update` when the server's did.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from tray_valet.core.commands import RecordedFact, Valet
from tray_valet.core.snapshot import Snapshot
from tray_valet.web.edge.feed import SseFeed
from tray_valet.web.router.management import status_of_all

_HEARTBEAT_S = 30.0
_LOOK_S = 1.0
_SILENT = ("retry_in_seconds", "size_mb")  # what changes without anything having happened


class ModelStatusStream(SseFeed):
    """An ASGI app for one path; `close` ends all streams at once."""

    def __init__(self, valet: Valet, *, heartbeat_s: float = _HEARTBEAT_S, look_s: float = _LOOK_S) -> None:
        super().__init__(what="the models' states", heartbeat_s=heartbeat_s)
        self._valet = valet
        self._look_s = look_s

    async def frames(self) -> AsyncIterator[bytes]:
        """The whole, then what changes. A slow reader gets the newest of each model, not every step."""
        facts = self._valet.follow()
        upcoming: asyncio.Task[Snapshot | RecordedFact | None] | None = None
        seen = status_of_all(self._valet)
        try:
            yield frame("full_status", seen)
            while True:
                upcoming = upcoming or asyncio.create_task(_next(facts), name="status stream: next fact")
                await asyncio.wait({upcoming}, timeout=self._look_s)
                if upcoming.done():
                    if upcoming.result() is None:  # the valet ends
                        yield frame("server_update", {"status": "stopping", "state": "stopping"})
                        return
                    upcoming = None
                now = status_of_all(self._valet)
                for event in _changes(seen, now):
                    yield event
                seen = now
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.wait({upcoming}, timeout=1.0)
            close = getattr(facts, "aclose", None)
            if close is not None:
                await close()


def frame(event: str, data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(data))


def _changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[bytes]:
    if now["server"] != before["server"]:
        yield frame("server_update", now["server"])
    models: dict[str, dict[str, Any]] = now["models"]
    old: dict[str, dict[str, Any]] = before["models"]
    for alias, status in models.items():
        if alias not in old or _essence(old[alias]) != _essence(status):
            yield frame("model_update", {"alias": alias, **status})
    for alias, status in old.items():
        if alias not in models:
            left = {"alias": alias, **status, "status": "off", "port": None, "vram_mb": 0}
            yield frame("model_update", left)


def _essence(status: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name not in _SILENT}


async def _next(facts: AsyncIterator[Snapshot | RecordedFact]) -> Snapshot | RecordedFact | None:
    return await anext(facts, None)
