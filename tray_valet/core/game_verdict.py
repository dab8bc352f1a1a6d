"""What a process was found to be.

Decides: the verdicts, what a finding says, and when a finding keeps the models away.
Must not: find anything; `games.py` does.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """What a process is, as far as the models are concerned."""

    GAME = "game"
    NOT = "not"
    GPU_APP = "gpu_app"  # needs the GPU, but the models stay unless the user says otherwise
    LAUNCHER = "launcher"  # starts games; by itself it needs nothing


class Action(StrEnum):
    """What the user wants to happen for a game."""

    ON = "on"  # the models step aside
    OFF = "off"  # never
    ASK = "ask"


class BuiltInRule(StrEnum):
    """Which of our own rules spoke; users read these words and scripts compare them."""

    NONE = "no rule matched"
    UNKNOWN = "program unknown"
    SYSTEM = "system program"
    OTHER_DEMO = "another valet's demo"
    HELPER = "helper program"
    LAUNCHER = "launcher"
    GPU_APP = "graphics application"
    DESKTOP = "desktop program"
    WRAPPER = "wrapper"
    STEAM_REAPER = "steam reaper"
    STEAM_SETUP = "steam set-up step"
    STEAM_TOOL = "steam tool"
    STEAM_APPLICATION = "steam application"
    STEAM_FOLDER = "steam folder"
    STEAM_SHORTCUT = "steam shortcut"
    STEAM_CLIENT = "steam client"
    LIBRARY = "installed library"
    STORE_FOLDER = "store folder"
    STORE_CHILD = "started by a store"
    WINE = "windows game in wine"
    KNOWN_GAME = "known game"
    SHIPPING = "unreal shipping build"
    MINECRAFT = "minecraft main class"
    EMULATOR = "emulator with content"
    EMULATOR_MENU = "emulator without content"
    MAC_CATEGORY = "app category games"
    MAC_LIGHT = "light game"


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """One process's verdict and what it rests on.

    `root` names the running game (`steam:1145360`): processes with the same root are one game. `aliases`
    are other names for the same (`steam:dir:hades`), for a process that could not know the first: two
    findings are one game when any of their `keys` agree. `place` is what a log names
    (`steamapps/common/Hades`). `rule` is a `BuiltInRule`, or `user rule N` (N from 1).
    """

    verdict: Verdict
    name: str = ""
    store: str = ""
    appid: str = ""
    rule: str = BuiltInRule.NONE
    root: str = ""
    aliases: tuple[str, ...] = ()
    place: str = ""
    action: Action = Action.ON

    @property
    def keys(self) -> tuple[str, ...]:
        """Every name of the running game that this process belongs to."""
        return (self.root, *self.aliases) if self.root else self.aliases

    @property
    def is_holding(self) -> bool:
        """Whether the models step aside for it without a question."""
        return self.verdict is Verdict.GAME and self.action is Action.ON
