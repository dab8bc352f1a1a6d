"""The feed: keeps the slot filled with the newest picture, on the loop thread.

Decides: when a new picture is taken: after every fact, but a few times a second at most, and now and then
without one (countdowns, models that others load). Must not: draw, or wait for who draws.
"""

from __future__ import annotations

import asyncio

from tray_valet.core.commands import Valet
from tray_valet.core.snapshot import Snapshot
from tray_valet.core.tray_view import TrayPicture
from tray_valet.tray.bridge import PictureSlot

_LEAST_APART_S = 0.15
_COUNTDOWN_S = 1.0
_QUIET_S = 2.0


async def feed(slot: PictureSlot, valet: Valet, *, quiet_s: float = _QUIET_S) -> None:
    """Offer pictures until the slot is closed or the valet's facts end; one each `quiet_s` without facts."""
    happened = asyncio.Event()
    listening = asyncio.create_task(_listen(valet, happened), name="tray facts")
    try:
        while not slot.is_closed and not listening.done():
            happened.clear()
            snapshot = valet.snapshot()
            slot.put(TrayPicture(snapshot=snapshot, catalog=valet.catalog()))
            await asyncio.sleep(_LEAST_APART_S)
            await _happened_within(happened, min(quiet_s, _pace_s(snapshot)))
    finally:
        listening.cancel()
        await asyncio.wait((listening,), timeout=1)


async def _listen(valet: Valet, happened: asyncio.Event) -> None:
    async for _ in valet.follow():
        happened.set()


def _pace_s(snapshot: Snapshot) -> float:
    return _QUIET_S if snapshot.resumes_in_s is None else _COUNTDOWN_S


async def _happened_within(happened: asyncio.Event, limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await happened.wait()
    except TimeoutError:
        return
