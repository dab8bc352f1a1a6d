"""`GET /memory`: who has the memory, for the window's bars.

Decides: names and units on the wire (MB = 2²⁰ bytes, whole). Must not: count (`core/memory_parts.py` does).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.core.commands import Valet
from tray_valet.core.memory_parts import MemoryBar, ram_bar, vram_bar
from tray_valet.core.ports import ProcessTable
from tray_valet.core.snapshot import GameView
from tray_valet.web.edge.json_answer import json_answer
from tray_valet.web.edge.wire_units import MIB

_LOG = logging.getLogger(__name__)
_MEASURE_S = 2.0
_MAX_PIDS = 200


class MemoryReads:
    """Answers with the last sample; only the games' RAM is measured, in a worker thread."""

    def __init__(self, valet: Valet, table: ProcessTable | None) -> None:
        self._valet = valet
        self._table = table

    def routes(self) -> list[Route]:
        """The one route."""
        return [Route("/memory", self.memory, methods=["GET"])]

    async def memory(self, request: Request) -> Response:
        """`{"vram": bar | null, "ram": bar | null, "gpu_names": […]}`, a bar being total, used, parts."""
        await self._valet.sample()
        snapshot = self._valet.snapshot()
        game_ram_bytes = await self._ram_of(snapshot.games)
        gpus = snapshot.sample.gpus if snapshot.sample else ()
        return json_answer(
            {
                "vram": _bar(vram_bar(snapshot)),
                "ram": _bar(ram_bar(snapshot, game_ram_bytes)),
                "gpu_names": [gpu.name for gpu in gpus],
                "gpu_missing_because": snapshot.gpu_missing_because,
            }
        )

    async def _ram_of(self, games: Sequence[GameView]) -> list[int]:
        table = self._table
        if table is None or not games:
            return [0] * len(games)
        try:
            async with asyncio.timeout(_MEASURE_S):
                return await asyncio.to_thread(lambda: [_ram_bytes(game, table) for game in games])
        except TimeoutError:
            _LOG.debug("The games' memory could not be measured in %.0f s", _MEASURE_S)
            return [0] * len(games)


def _ram_bytes(game: GameView, table: ProcessTable) -> int:
    found = [table.describe(pid) for pid in game.pids[:_MAX_PIDS]]
    return table.usage([process.identity for process in found if process is not None]).ram_bytes


def _bar(bar: MemoryBar | None) -> dict[str, Any] | None:
    if bar is None:
        return None
    return {
        "total_mb": bar.total_bytes // MIB,
        "used_mb": bar.used_bytes // MIB,
        "parts": [
            {"kind": part.kind.value, "name": part.name, "size_mb": part.size_bytes // MIB}
            for part in bar.parts
        ],
    }
