"""What a program's place says about it: the installed libraries, and the folders that stores use.

Decides: the verdict for a program that lies in a store's folder, and which game that is.
Must not: judge a program by its name or its arguments (`games.py`).

A store's folder counts when the store puts nothing but its programs there (`steamapps/common/X/…`), less
the tools that live beside them. Plain `/usr/games`, `Games` or WindowsApps say nothing.
"""

from __future__ import annotations

import re

from tray_valet.core import game_tables as tables
from tray_valet.core.game_library import LibraryIndex, Program, ProgramKind
from tray_valet.core.game_subject import Subject, steam_id_in
from tray_valet.core.game_verdict import BuiltInRule, Classification, Verdict
from tray_valet.core.paths import file_name
from tray_valet.core.processes import Process

STEAM = "steam"
_STORE_OF_FOLDER = {
    "steamapps/common": STEAM,
    "epic games": "epic",
    "xboxgames": "xbox",
    "modifiablewindowsapps": "xbox",
    "gog galaxy/games": "gog",
    "gog games": "gog",
    "ea games": "ea",
    "origin games": "ea",
    "ubisoft game launcher/games": "ubisoft",
    "amazon games/library": "amazon",
    "itch/apps": "itch",
    "games/heroic": "heroic",
    "rockstar games": "rockstar",
    "riot games": "riot",
    "bethesda.net launcher/games": "bethesda",
    "hoyoplay/games": "hoyoverse",
}
_STORE_FOLDER = re.compile(
    "/(" + "|".join(re.escape(folder) for folder in _STORE_OF_FOLDER) + r")/([^/]+)/(?=(.*))", re.IGNORECASE
)
# What the stores themselves keep beside the games.
_CLIENT_FOLDERS = {
    "epic": frozenset({"launcher", "directxredist", "epic online services", "epiconlineservices"}),
    "rockstar": frozenset({"launcher", "social club"}),
    "riot": frozenset({"riot client"}),
    "xbox": frozenset({"gamesave"}),
    "heroic": frozenset({"prefixes"}),
}
_VERDICT_OF_KIND = {
    ProgramKind.GAME: Verdict.GAME,
    ProgramKind.DEMO: Verdict.GAME,
    ProgramKind.APPLICATION: Verdict.GPU_APP,
    ProgramKind.TOOL: Verdict.NOT,
    ProgramKind.EXTRA: Verdict.NOT,
}
_GAME_KINDS = frozenset({ProgramKind.GAME, ProgramKind.DEMO})


def in_library(subject: Subject, index: LibraryIndex) -> Classification | None:
    """Judge a program by the installed program whose folder holds it."""
    program = index.containing(subject.path, ignore_case=subject.ignore_case)
    return None if program is None else of_program(program)


def of_program(program: Program, *, rule: BuiltInRule = BuiltInRule.LIBRARY) -> Classification:
    """The finding that an installed program stands for."""
    folder = program.installdir or file_name(program.path.replace("\\", "/").rstrip("/"))
    verdict = _VERDICT_OF_KIND[program.kind]
    if program.store == STEAM:
        verdict = _verdict_of_steam_id(program.appid, verdict)
    return Classification(
        verdict=verdict,
        name=program.name or folder,
        store=program.store,
        appid=program.appid,
        rule=rule,
        root=_root(program.store, program.appid, folder),
        aliases=_aliases(program.store, program.appid, folder),
        place=f"steamapps/common/{folder}" if program.store == STEAM else program.path,
    )


def in_store_folder(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    """Judge a program by the shape of its path, for what no library lists."""
    for match in _STORE_FOLDER.finditer(subject.path):
        store, folder, rest = _STORE_OF_FOLDER[match[1].lower()], match[2], match[3]
        if store == STEAM:
            return _in_steam_folder(folder, steam_id_in(process.env), index)
        verdict = _verdict_in_folder(store, folder.lower(), rest.lower())
        if verdict is None:
            continue
        return Classification(
            verdict=verdict,
            name=folder,
            store=store,
            rule=BuiltInRule.STORE_FOLDER,
            root=_root(store, "", folder),
            place=subject.path[: match.end(2)],
        )
    return None


def steam_program(
    steam_id: str, folder: str, index: LibraryIndex, *, rule: BuiltInRule = BuiltInRule.LIBRARY
) -> Classification | None:
    """The finding for an id of Steam's that the library or the tables know; None for any other."""
    program = index.by_appid(STEAM, steam_id)
    if program is not None:
        return of_program(program, rule=rule if program.kind in _GAME_KINDS else BuiltInRule.LIBRARY)
    verdict = _verdict_of_steam_id(steam_id, Verdict.GAME)
    if verdict is Verdict.GAME:
        return None
    word = BuiltInRule.STEAM_TOOL if verdict is Verdict.NOT else BuiltInRule.STEAM_APPLICATION
    return steam_finding(verdict, steam_id, folder, word)


def steam_finding(
    verdict: Verdict, steam_id: str, folder: str, rule: BuiltInRule, name: str = ""
) -> Classification:
    """A finding about a program of Steam's, by whichever of id and folder is known."""
    return Classification(
        verdict=verdict,
        name=name or folder or f"Steam app {steam_id}",
        store=STEAM,
        appid=steam_id,
        rule=rule,
        root=_root(STEAM, steam_id, folder),
        aliases=_aliases(STEAM, steam_id, folder),
        place=f"steamapps/common/{folder}" if folder else f"AppId={steam_id}",
    )


def steam_folder_of(path: str) -> str:
    """The folder under steamapps/common that holds the path, "" elsewhere."""
    for match in _STORE_FOLDER.finditer(path):
        if _STORE_OF_FOLDER[match[1].lower()] == STEAM:
            return match[2]
    return ""


def _in_steam_folder(folder: str, steam_id: str, index: LibraryIndex) -> Classification:
    if tables.STEAM_TOOL_FOLDER.match(folder):
        return steam_finding(Verdict.NOT, "", folder, BuiltInRule.STEAM_TOOL)
    program = index.by_installdir(STEAM, folder)  # the library, seen through another mount
    if program is not None:
        return of_program(program)
    if folder.lower() in tables.STEAM_APPLICATION_FOLDERS:
        return steam_finding(Verdict.GPU_APP, "", folder, BuiltInRule.STEAM_APPLICATION)
    if steam_id in tables.STEAM_APPLICATION_IDS:
        return steam_finding(Verdict.GPU_APP, steam_id, folder, BuiltInRule.STEAM_APPLICATION)
    if steam_id in tables.STEAM_TOOL_IDS:
        steam_id = ""  # inherited from SteamVR or an overlay that started the game
    return steam_finding(Verdict.GAME, steam_id, folder, BuiltInRule.STEAM_FOLDER)


def _verdict_in_folder(store: str, folder: str, rest: str) -> Verdict | None:
    """What lies in a store's folder of that name; None where the folder says nothing."""
    if folder in _CLIENT_FOLDERS.get(store, frozenset()):
        return None if store in ("heroic", "xbox") else Verdict.LAUNCHER
    if store == "epic" and folder.startswith("ue_"):
        return Verdict.GPU_APP  # the engine's editor
    if store == "xbox" and not rest.startswith("content/"):
        return None
    if folder == "minecraft launcher":
        return Verdict.LAUNCHER
    if store == "riot" and folder == "league of legends" and not rest.startswith("game/"):
        return Verdict.LAUNCHER  # the lobby; the game itself is under Game
    return Verdict.GAME


def _verdict_of_steam_id(steam_id: str, otherwise: Verdict) -> Verdict:
    if steam_id in tables.STEAM_TOOL_IDS:
        return Verdict.NOT
    return Verdict.GPU_APP if steam_id in tables.STEAM_APPLICATION_IDS else otherwise


def _root(store: str, appid: str, folder: str) -> str:
    return f"{store}:{appid}" if appid else f"{store}:dir:{folder.casefold()}"


def _aliases(store: str, appid: str, folder: str) -> tuple[str, ...]:
    return (f"{store}:dir:{folder.casefold()}",) if appid and folder else ()
