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

_STEAM = "steam:"


class GameChoice(msgspec.Struct, frozen=True):
    """`game`: a key (`steam:1145360`), a store's id, a folder or program, or a name."""

    game: str
    action: Action


class ChosenGame(msgspec.Struct, frozen=True, kw_only=True):
    """The game that was meant."""

    key: str
    name: str
    appid: str = ""
    path: str = ""


def rules_with(
    rules: Sequence[GameRuleSettings],
    choice: GameChoice,
    known: Sequence[KnownGame],
    running: Sequence[GameView],
) -> tuple[list[dict[str, Any]], ChosenGame]:
    """The rules, as plain values for the settings, with the choice first. Raises NotFound."""
    game = _meant(choice.game, known, running) or _chosen_before(choice.game, rules)
    if game is None:
        raise NotFound(
            f"No game is known as “{choice.game[:80]}”.", remedy="See: tray-valet games", param="id"
        )
    matcher = {"root": _root(game)}
    kept = [_plain(rule) for rule in rules if not _is_choice_for(rule, game)]
    return [{**matcher, "action": choice.action.value}, *kept], game


def chosen_action(rules: Sequence[GameRuleSettings], game: ChosenGame) -> Action | None:
    """What the first rule that is a choice for this very game says; None where there is none."""
    for rule in rules:
        if _is_choice_for(rule, game):
            return rule.action
    return None


def _meant(text: str, known: Sequence[KnownGame], running: Sequence[GameView]) -> ChosenGame | None:
    games = [ChosenGame(key=g.key, name=g.name, appid=g.appid) for g in running]
    games += [ChosenGame(key=g.key, name=g.name, appid=g.appid, path=g.path) for g in known]
    for game in games:
        if game.key == text:
            return game
    for game in games:
        if text and text in (game.appid, game.path):
            return game
    for game in games:
        if game.name.casefold() == text.casefold():
            return game
    return None


def _chosen_before(text: str, rules: Sequence[GameRuleSettings]) -> ChosenGame | None:
    """A game that was switched off, and so is listed as none any more, can be switched on again."""
    game = ChosenGame(key=text, name=text)
    return game if text and chosen_action(rules, game) is not None else None


def _root(game: ChosenGame) -> str:
    """What recognises it: Steam's ids are known of processes too, other stores' games by their folder."""
    return game.path if game.path and not game.key.startswith(_STEAM) else game.key


def _plain(rule: GameRuleSettings) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(rule)
    return {key: value for key, value in values.items() if value is not None}


def _is_choice_for(rule: GameRuleSettings, game: ChosenGame) -> bool:
    """Whether a rule says nothing but an action for this very game. Asked for each installed game."""
    others = (rule.exe, rule.name, rule.argv_regex, rule.verdict)
    if rule.action is None or any(other is not None for other in others):
        return False
    if rule.appid is not None:
        return rule.root is None and bool(game.appid) and str(rule.appid) == game.appid
    return rule.root is not None and rule.root in (game.key, game.path or game.key)
