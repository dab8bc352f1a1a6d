"""A tray that runs in a thread, over a valet that only notes what was asked of it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import Any, cast

from tests.tray import pictures as pic
from tray_valet.core.commands import CatalogEntry, RecordedFact, Valet
from tray_valet.core.errors import GameRunning
from tray_valet.core.processes import System
from tray_valet.core.snapshot import Snapshot
from tray_valet.tray.bridge import Balloons, CommandSender, PictureSlot
from tray_valet.tray.no_tray import NoTray
from tray_valet.tray.run import run_tray

_END_S = 40.0


class NotingValet:
    """Notes commands. A load is refused, as during a game."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self.snapshots_taken = 0
        self.facts: asyncio.Queue[Snapshot | RecordedFact] = asyncio.Queue()

    async def next_asked(self) -> tuple[Any, ...]:
        return await asyncio.wait_for(self.asked.get(), _END_S)

    async def pause(self, *, for_s: float | None = None) -> None:
        self.asked.put_nowait(("pause", for_s))

    async def resume(self) -> None:
        self.asked.put_nowait(("resume",))

    async def end_hold(self, hold_id: str) -> None:
        self.asked.put_nowait(("end_hold", hold_id))

    async def load(self, model: str, *, provider: str) -> None:
        self.asked.put_nowait(("load", provider, model))
        raise GameRunning("A game runs.")

    async def unload(self, model: str, *, provider: str) -> None:
        self.asked.put_nowait(("unload", provider, model))

    def request_quit(self) -> None:
        self.asked.put_nowait(("quit",))

    def snapshot(self) -> Snapshot:
        self.snapshots_taken += 1
        return pic.snapshot(title=f"Picture {self.snapshots_taken}")

    def catalog(self) -> tuple[CatalogEntry, ...]:
        return ()

    async def follow(self) -> AsyncIterator[Snapshot | RecordedFact]:
        while True:
            yield await self.facts.get()


class RunningTray:
    """`async with RunningTray() as tray`; the environment names the bus. The loop is the test's."""

    def __init__(self, *, patience_s: float = 60.0) -> None:
        self.slot = PictureSlot()
        self._patience_s = patience_s
        self.valet = NotingValet()
        self.opened = asyncio.Event()
        self.reports: list[str] = []
        self.missing: asyncio.Queue[NoTray] = asyncio.Queue()
        self.failure: NoTray | None = None
        self._thread = threading.Thread(target=self._run, name="tray under test")

    async def __aenter__(self) -> RunningTray:
        self._loop = asyncio.get_running_loop()
        self.sender = CommandSender(
            self._loop,
            cast(Valet, self.valet),
            open_window=self._open,
            report=self.reports.append,
        )
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.slot.close()
        await self.ended()

    async def ended(self) -> None:
        await asyncio.to_thread(self._thread.join, _END_S)
        assert not self._thread.is_alive()

    async def _open(self) -> None:
        self.opened.set()

    def _on_missing(self, missing: NoTray) -> None:
        self._loop.call_soon_threadsafe(self.missing.put_nowait, missing)

    def _run(self) -> None:
        try:
            run_tray(
                self.slot,
                self.sender,
                system=System.LINUX,
                balloons=Balloons(),
                report_missing=self._on_missing,
                patience_s=self._patience_s,
            )
        except NoTray as error:
            self.failure = error


def resident_bytes(pid: int | str) -> int:
    """What a process (a PID, or `self`) holds in RAM."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
