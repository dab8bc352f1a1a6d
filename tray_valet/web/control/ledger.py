"""The control API's look back: the ledger of games, and the history of the machine.

Decides: their shapes on the wire (MB, seconds, per cents), and what a missing `minutes` means.
Must not: keep any of it, or take a sample.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.core.commands import Valet
from tray_valet.core.errors import InvalidValue
from tray_valet.core.history import MOST_MINUTES, History, Point
from tray_valet.core.ledger import GameRecord, Ledger, SteppedAside
from tray_valet.core.ledger_words import cause, summary, why
from tray_valet.web.control.query_fields import whole_number_of
from tray_valet.web.edge.json_answer import json_answer
from tray_valet.web.edge.json_body import expect_nothing
from tray_valet.web.edge.wire_units import MIB, rounded_pct, rounded_s

_USUAL_MINUTES = 60


class ControlLedger:
    """Answers what was, and forgets it on demand."""

    def __init__(self, valet: Valet) -> None:
        self._valet = valet

    def routes(self) -> list[Route]:
        """The routes of the ledger and the history."""
        return [
            Route("/ledger", self.ledger, methods=["GET"]),
            Route("/ledger", self.forget, methods=["DELETE"]),
            Route("/history", self.history, methods=["GET"]),
        ]

    async def ledger(self, request: Request) -> Response:
        """`GET /ledger`: each game that the models stepped aside for, the latest first."""
        return json_answer(ledger_shape(self._valet.ledger()))

    async def forget(self, request: Request) -> Response:
        """`DELETE /ledger`, `?game=` (a key or a name): forget that game, or all of them."""
        expect_nothing(await request.body())
        return json_answer({"forgotten": await self._valet.forget_ledger(_game(request))})

    async def history(self, request: Request) -> Response:
        """`GET /history?minutes=60` (1 to 1440): how full the machine was, oldest first."""
        minutes = whole_number_of(request, "minutes", usual=_USUAL_MINUTES, most=MOST_MINUTES)
        return json_answer({"minutes": minutes, **history_shape(self._valet.history(minutes))})


def ledger_shape(ledger: Ledger) -> dict[str, Any]:
    """The ledger, with its totals."""
    records = list(ledger.games.values())[::-1]
    return {
        "games": [_game_shape(record) for record in records],
        "times": sum(record.times for record in records),
        "freed_mb": sum(record.freed_bytes for record in records) // MIB,
    }


def history_shape(history: History) -> dict[str, Any]:
    """The points of a history."""
    return {"interval_seconds": history.interval_s, "samples": [_point(point) for point in history.points]}


def _game_shape(record: GameRecord) -> dict[str, Any]:
    return {
        "key": record.key,
        "name": record.name,
        "last_at": record.last_at,
        "times": record.times,
        "median_seconds": rounded_s(record.median_s),
        "worst_seconds": None if record.worst is None else record.worst.took_s,
        "freed_mb": record.freed_bytes // MIB,
        "most_freed_mb": record.most_freed_bytes // MIB,
        "last": _step(record.last),
        "worst": _step(record.worst),
        "slow_times": record.slow_times,
        "slow": [
            {"part": part.value, "times": times, "text": cause(part)}
            for part, times in sorted(record.slow.items(), key=lambda row: -row[1])
        ],
        "played_times": record.played,
        "played_seconds": record.played_s,
        "restores": record.restores,
        "restore_median_seconds": rounded_s(record.median_restore_s),
        "restore_worst_seconds": record.worst_restore_s if record.restores else None,
        "restore_failures": record.restore_failures,
        "reloads": record.reloads,
        "text": summary(record),
    }


def _step(step: SteppedAside | None) -> dict[str, Any] | None:
    if step is None:
        return None
    return {
        "at": step.at,
        "took_seconds": step.took_s,
        "freed_mb": step.freed_bytes // MIB,
        "slow_part": step.slow.part.value if step.slow else None,
        "slow_seconds": step.slow.took_s if step.slow else None,
        "why": why(step.slow) if step.slow else None,
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "at": point.at,
        "ram_pct": round(point.ram_pct, 1),
        "cpu_pct": round(point.cpu_pct, 1),
        "vram_pct": rounded_pct(point.vram_pct),
        "ours_ram_pct": rounded_pct(point.ours_ram_pct),
        "ours_vram_pct": rounded_pct(point.ours_vram_pct),
        "state": point.state.value,
    }


def _game(request: Request) -> str | None:
    asked = request.query_params.getlist("game")
    if not asked:
        return None
    # `?game=` is more likely a mistake of a script than the wish to forget everything.
    if len(asked) > 1 or not asked[0].strip():
        raise InvalidValue("Name one game.", remedy="Leave “game” out to forget all.", param="game")
    return asked[0]
