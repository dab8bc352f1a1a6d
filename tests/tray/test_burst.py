"""Two thousand changes in three seconds: the newest is shown, and neither memory nor messages grow."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.tray.session_bus import Panel, entries

_ROOT = Path(__file__).parents[2]
_ANSWER_S = 60.0
MIB = 2**20


class TrayProcess:
    """The process of `tray_process.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), _ANSWER_S)
        return dict(json.loads(line))

    async def ask(self, line: str) -> dict[str, Any]:
        self.tell(line)
        return await self.answer()


@asynccontextmanager
async def tray_process(**environment: str) -> AsyncIterator[TrayProcess]:
    """A tray process; it must end by itself when its stdin does."""
    import os

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.tray.tray_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env={**os.environ, **environment},
    )
    try:
        yield TrayProcess(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), _ANSWER_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_two_thousand_changes_in_three_seconds_raise_neither_memory_nor_the_queue(
    panel: Panel,
) -> None:
    async with tray_process() as tray:
        await panel.item()
        await tray.ask("burst 100 1")  # everything that is made once has been made
        await panel.wait_for_label("Change 100")
        before = await tray.ask("measure")
        panel.signals.clear()
        burst = await tray.ask("burst 2000 3")
        await panel.wait_for_label("Change 2000")
        after = await tray.ask("measure")
        menu = await panel.menu()
    assert burst["took_s"] < 30
    redraws = sum(name == "NewToolTip" for name, _ in panel.signals)
    assert 1 <= redraws <= 6 * burst["took_s"] + 2
    assert len(panel.signals) <= 5 * redraws
    assert after["rss_bytes"] - before["rss_bytes"] < 3 * MIB
    assert after["threads"] == before["threads"]
    assert after["rss_bytes"] < 60 * MIB
    assert len(list(entries(menu))) < 40
