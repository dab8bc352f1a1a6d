"""The user's choice for one game, kept as a rule of the settings.

Decides: which game an id means, and which rule says the choice; a choice made anew replaces the old one.
Must not: store it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tray_valet.core.commands import KnownGame
from tray_valet.core.config import GameRuleSettings
from tray_valet.core.errors import NotFound
from tray_valet.core.game_verdict import Action
from tray_valet.core.snapshot import GameView


class GameChoice(msgspec.Struct, frozen=True):
    """`game`: a key (`steam:1145360`), a store's id, a folder or program, or a name."""

    game: str
    action: Action


class ChosenGame(msgspec.Struct, frozen=True, kw_only=True):
    """The game that was meant."""

    key: str
    name: str
    appid: str = ""


def rules_with(
    rules: Sequence[GameRuleSettings],
    choice: GameChoice,
    known: Sequence[KnownGame],
    running: Sequence[GameView],
) -> tuple[list[dict[str, Any]], ChosenGame]:
    """The rules, as plain values for the settings, with the choice first. Raises NotFound."""
    game = _meant(choice.game, known, running)
    matcher = _matcher(game)
    kept = [plain for plain in map(_plain, rules) if not _is_choice_for(plain, matcher, game)]
    return [{**matcher, "action": choice.action.value}, *kept], game


def _meant(text: str, known: Sequence[KnownGame], running: Sequence[GameView]) -> ChosenGame:
    games = [ChosenGame(key=g.key, name=g.name, appid=g.appid) for g in (*running, *known)]
    for is_meant in (
        lambda game: game.key == text,
        lambda game: bool(game.appid) and game.appid == text,
        lambda game: game.name.casefold() == text.casefold(),
    ):
        found = next(filter(is_meant, games), None)
        if found is not None:
            return found
    raise NotFound(f"No game is known as “{text[:80]}”.", remedy="See: tray-valet games", param="id")


def _matcher(game: ChosenGame) -> dict[str, Any]:
    """What recognises it: the key, which is a game's id or its folder; the name helps people read."""
    return {"root": game.key}


def _plain(rule: GameRuleSettings) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(rule)
    return {key: value for key, value in values.items() if value is not None}


def _is_choice_for(plain: dict[str, Any], matcher: dict[str, Any], game: ChosenGame) -> bool:
    """Whether a rule says nothing but an action for this very game."""
    matchers = {key: value for key, value in plain.items() if key != "action"}
    if "action" not in plain:
        return False
    return matchers == matcher or (bool(game.appid) and matchers in ({"appid": game.appid}, _number(game)))


def _number(game: ChosenGame) -> dict[str, Any]:
    return {"appid": int(game.appid)} if game.appid.isdigit() else {"appid": game.appid}
