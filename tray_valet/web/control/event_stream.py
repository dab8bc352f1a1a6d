"""GET /events: what happens, as server-sent events.

Decides: the framing of facts and snapshots. Must not: keep events for slow readers: the valet folds what
they missed into a fresh snapshot (newest wins).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from tray_valet.core.commands import RecordedFact, Valet
from tray_valet.core.snapshot import Snapshot
from tray_valet.web.control import list_shapes, status_shape
from tray_valet.web.edge.feed import SseFeed

_HEARTBEAT_S = 15.0
_MAX_CLIENTS = 32


class EventStream(SseFeed):
    """An ASGI app for one path. `close` ends all streams at once."""

    def __init__(
        self, valet: Valet, *, heartbeat_s: float = _HEARTBEAT_S, max_clients: int = _MAX_CLIENTS
    ) -> None:
        super().__init__(what="the events", heartbeat_s=heartbeat_s, max_clients=max_clients)
        self._valet = valet

    async def frames(self) -> AsyncIterator[bytes]:
        """A snapshot, then every fact."""
        events = self._valet.follow()
        try:
            async for event in events:
                yield self._frame(event)
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()

    def _frame(self, event: Snapshot | RecordedFact) -> bytes:
        if isinstance(event, Snapshot):
            data = status_shape.status(event, event.sample, self._valet.settings)
            return b"event: snapshot\ndata: " + msgspec.json.encode(data) + b"\n\n"
        entry = event.entry
        data = list_shapes.fact(event)
        return b"event: %s\nid: %d\ndata: %s\n\n" % (
            entry.kind.encode(),
            entry.id,
            msgspec.json.encode(data),
        )
