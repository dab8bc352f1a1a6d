"""The ledger for people: `ledger`, `ledger --forget [GAME]`.

Decides: which figures make the table. Must not: reword the valet's own sentences, or forget unasked.
"""

from __future__ import annotations

from typing import Any

from tray_valet.commands.client import Client
from tray_valet.commands.tables import NOTHING, as_json, gb, plain, table
from tray_valet.core.wording import count, duration


def show(client: Client, *, is_json: bool) -> None:
    """Print how often, how fast and why slowly the models stepped aside for each game."""
    answer = client.get("/ledger")
    print(as_json(answer) if is_json else text(answer))


def forget(client: Client, game: str | None, *, is_json: bool) -> None:
    """Have one game forgotten (by name or key), or all. Raises ApiError when it is not known."""
    answer = client.delete("/ledger", game=game)
    if is_json:
        print(as_json(answer))
        return
    n = int(answer.get("forgotten") or 0)
    print(f"{count(n, 'game')} forgotten." if n else "Nothing was remembered.")


def text(answer: dict[str, Any]) -> str:
    """The table, and below it what is to be said of each game."""
    games = list(answer.get("games") or [])
    if not games:
        return "No model has stepped aside for a game yet."
    rows = [
        (
            game.get("name"),
            game.get("times"),
            _seconds(game.get("median_seconds")),
            _seconds(game.get("worst_seconds")),
            gb(game.get("freed_mb")),
            _seconds(game.get("restore_median_seconds")),
            _seconds(game.get("played_seconds") or None),
        )
        for game in games
    ]
    header = ("GAME", "TIMES", "MEDIAN", "WORST", "FREED", "BACK IN", "PLAYED")
    right = header[1:]
    said = [f"{plain(game.get('name'))}: {plain(game.get('text'))}" for game in games]
    return "\n".join([table(header, rows, right=right), "", *said])


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else plain(duration(value))
