"""The whole valet with its tray, as `tray-valet` starts it, that changes its state when it is told to.

Lines on stdin: `COUNT SECONDS`, answered by one JSON line. The changes are pauses and resumes like a user's,
made on the loop: the API lets no program make so many.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping

from tray_valet import tray_front
from tray_valet.app import run_with_tray
from tray_valet.core.commands import RecordedFact, Valet
from tray_valet.core.events import StateChanged
from tray_valet.wiring import Wiring


class ToldFront(tray_front.TrayFront):
    """The product's own front, and beside it a loop that listens to stdin."""

    def loops(self, valet: Wiring) -> Mapping[str, Callable[[], Awaitable[None]]]:
        return {**super().loops(valet), "told": lambda: _obey(valet.valet)}


async def _obey(valet: Valet) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    seen = Seen()
    counting = asyncio.create_task(seen.count(valet), name="count of changes")
    try:
        while line := await lines.readline():
            count, seconds = line.split()
            print(json.dumps(await _change(valet, seen, int(count), float(seconds))), flush=True)
        await asyncio.Event().wait()  # a loop that ends would be taken for a failure
    finally:
        counting.cancel()


class Seen:
    """How often the state has changed."""

    def __init__(self) -> None:
        self.changes = 0

    async def count(self, valet: Valet) -> None:
        """Follow the facts, until cancelled."""
        async for recorded in valet.follow():
            if isinstance(recorded, RecordedFact) and isinstance(recorded.fact, StateChanged):
                self.changes += 1


async def _change(valet: Valet, seen: Seen, count: int, seconds: float) -> dict[str, float]:
    """Resume and pause in turn until the state has changed `count` times, evenly over `seconds`.

    Then it is paused for an hour, which the tooltip tells from every pause before. Gives how often the state
    really changed, and the seconds that took.
    """
    begin_s, before = time.monotonic(), seen.changes
    while (done := seen.changes - before) < count:
        await asyncio.sleep(max(0.0, begin_s + done * seconds / count - time.monotonic()))
        await valet.resume()
        await valet.pause()
        await asyncio.sleep(0)  # the counter's turn
    took_s = time.monotonic() - begin_s
    await valet.pause(for_s=3600)
    return {"took_s": took_s, "state_changes": done}


def main() -> int:
    tray_front.TrayFront = ToldFront  # type: ignore[misc]  # `run_with_tray` takes it from there
    return run_with_tray(say=lambda text: print(text, file=sys.stderr))


if __name__ == "__main__":
    raise SystemExit(main())
