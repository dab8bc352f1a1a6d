"""The user's choice for a game: which game is meant, and the rule that is kept."""

from __future__ import annotations

import pytest

from tray_valet.core.commands import KnownGame
from tray_valet.core.config import GameRuleSettings
from tray_valet.core.errors import NotFound
from tray_valet.core.game_choice import ChosenGame, GameChoice, chosen_action, rules_with
from tray_valet.core.game_verdict import Action
from tray_valet.core.snapshot import GameView

HADES = KnownGame(
    key="steam:1145360",
    name="Hades",
    store="steam",
    appid="1145360",
    path="/games/Hades",
    kind="game",
    action="on",
)
ELSEWHERE = KnownGame(
    key="gog:Witcher 3", name="Witcher 3", store="gog", appid="", path="/gog/w3", kind="game", action="on"
)
RUNNING = GameView(
    key="/home/me/play/doom",
    name="doom",
    store="",
    appid="",
    rule="games folder",
    action="on",
    pids=(7,),
    since=0.0,
)
OTHER = GameRuleSettings(exe="other", action=Action.OFF)


@pytest.mark.parametrize(
    ("said", "root"),
    [
        ("steam:1145360", "steam:1145360"),
        ("1145360", "steam:1145360"),
        ("hades", "steam:1145360"),
        ("gog:Witcher 3", "/gog/w3"),
        ("doom", "/home/me/play/doom"),
        ("/home/me/play/doom", "/home/me/play/doom"),
    ],
)
def test_a_game_is_meant_by_its_key_its_id_or_its_name(said: str, root: str) -> None:
    rules, _ = rules_with([OTHER], GameChoice(said, Action.ASK), [HADES, ELSEWHERE], [RUNNING])
    assert rules == [{"root": root, "action": "ask"}, {"exe": "other", "action": "off"}]


@pytest.mark.parametrize(
    "old",
    [
        GameRuleSettings(root="steam:1145360", action=Action.ON),
        GameRuleSettings(appid=1145360, action=Action.ON),
        GameRuleSettings(appid="1145360", action=Action.ON),
    ],
)
def test_a_choice_made_anew_takes_the_place_of_the_old_one(old: GameRuleSettings) -> None:
    rules, _ = rules_with([OTHER, old], GameChoice("Hades", Action.OFF), [HADES], [])
    assert rules == [{"root": "steam:1145360", "action": "off"}, {"exe": "other", "action": "off"}]


def test_rules_that_say_more_are_left_alone() -> None:
    old = GameRuleSettings(appid=1145360, exe="Hades", action=Action.ON)
    rules, _ = rules_with([old], GameChoice("Hades", Action.OFF), [HADES], [])
    assert len(rules) == 2


def test_an_unknown_game_is_told() -> None:
    for nobody in ("", "nobody"):
        with pytest.raises(NotFound):
            rules_with([], GameChoice(nobody, Action.OFF), [HADES, ELSEWHERE], [RUNNING])


def test_the_list_of_games_shows_the_choice() -> None:
    game = ChosenGame(key=HADES.key, name=HADES.name, appid=HADES.appid, path=HADES.path)
    chosen = GameRuleSettings(root="steam:1145360", action=Action.OFF)
    assert chosen_action([OTHER, chosen], game) is Action.OFF
    assert chosen_action([OTHER], game) is None


def test_a_game_that_was_switched_off_and_is_listed_no_more_can_be_switched_on_again() -> None:
    off = GameRuleSettings(root="steam:dir:hades", action=Action.OFF)
    rules, game = rules_with([off], GameChoice("steam:dir:hades", Action.ON), [], [])
    assert (rules, game.key) == ([{"root": "steam:dir:hades", "action": "on"}], "steam:dir:hades")
