"""Which program a process really runs: behind Steam's reaper, Wine, a translator or a run-time.

Decides: how a process's path and arguments are read, and what its stand-in is.
Must not: say whether that program is a game (`games.py`).

Facts: Steam starts `reaper SteamLaunch AppId=N [Install=1] -- COMMAND`, where Install=1 marks the steps
before the first start (public issue logs of steamtinkerlaunch and min-ed-launcher); Wine puts the Windows
path into argv[0] and pads the old arguments with NULs (read from /proc).
"""

from __future__ import annotations

import re
from enum import Enum, auto

import msgspec

from tray_valet.core import game_starters as starters
from tray_valet.core import game_tables as tables
from tray_valet.core.paths import (
    file_name,
    ignores_case,
    is_windows_path,
    normal_path,
    posix_path,
    stem_of,
    windows_path,
    wine_path,
)
from tray_valet.core.processes import Process, System

_APP_ID = re.compile(r"AppId=([0-9]{1,20})")
_EXE_WITH_ARGUMENTS = re.compile(r'^("?)(.+?\.exe)(?=["\s]|$)', re.IGNORECASE)
_WINDOWS_PROGRAM = re.compile(r"\.(?:exe|bat|msi|com)$", re.IGNORECASE)
_ARGUMENTS_READ = 64  # nothing that the rules look for comes later
_STEAM_PART = re.compile(
    r"/(?:ubuntu12_(?:32|64)|linux(?:32|64)|compatibilitytools\.d|steamrt\d*)/", re.IGNORECASE
)
_STEAM_COMMON = re.compile(r"/steamapps/common/([^/]+)/", re.IGNORECASE)
_SHORTCUT_FLOOR = 0x80000000  # ids of non-Steam shortcuts have the top bit set


class Route(Enum):
    """By what a program is run."""

    DIRECT = auto()
    REAPER = auto()
    WINE = auto()


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The program to judge. `path` is normal (`paths.py`), `stem` as the tables have names."""

    path: str
    name: str
    stem: str
    route: Route = Route.DIRECT
    system: System
    ignore_case: bool
    arguments: tuple[str, ...] = ()  # the program's own, after its name
    own_path: str = ""  # of the process itself: the reaper, the Wine loader
    steam_id: str = ""  # from the reaper's arguments
    is_setup_step: bool = False  # the reaper watches over an install script, not the game
    is_argv_known: bool = False  # whether argv[0] is the program: Windows may not tell arguments


def identify(process: Process, system: System) -> Subject:
    """Find the program that the process runs."""
    argv = process.argv
    exe = process.exe or (argv[0] if argv and argv[0][:1] == "/" else "")
    if system is System.WINDOWS:
        path = windows_path(exe)
        if not path and argv and is_windows_path(argv[0]):
            path = windows_path(argv[0])
        return _direct(path, process, system)
    path = posix_path(exe) if exe else ""
    stem = stem_of(file_name(path))
    first = argv[0] if argv else ""
    if stem == "reaper" or (not stem and file_name(first) == "reaper"):
        return _behind_reaper(path or first, process, system)
    if stem in starters.TRANSLATORS and len(argv) > 1:
        inner = msgspec.structs.replace(process, exe=_absolute(argv[1], process.cwd), argv=argv[1:])
        if stem_of(file_name(inner.exe)) not in starters.TRANSLATORS:
            return identify(inner, system)
    if stem in starters.WINE_LOADERS or is_windows_path(first):
        return _behind_wine(path, process, system)
    return _direct(path, process, system)


def is_shortcut_id(steam_id: str) -> bool:
    """Whether the id is of a program that the user added to Steam, not of one that Steam sells."""
    return _is_number(steam_id) and (int(steam_id) == 0 or int(steam_id) >= _SHORTCUT_FLOOR)


def steam_id_in(env: dict[str, str]) -> str:
    """The id that Steam gave its child, "" without one; a shortcut's comes from the 64-bit SteamGameId.

    Only a hint at *which* game a process belongs to: every child of a game inherits it.
    """
    for name in ("SteamAppId", "STEAM_COMPAT_APP_ID"):
        value = env.get(name, "")
        if _is_number(value) and value.strip("0"):
            return value
    game_id = env.get("SteamGameId", "")
    if _is_number(game_id) and int(game_id) > 0xFFFFFFFF:
        return str(int(game_id) >> 32)
    return ""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


def _direct(path: str, process: Process, system: System) -> Subject:
    name = file_name(path)
    stem = stem_of(name)
    argv = process.argv
    return Subject(
        path=path,
        name=name,
        stem=stem,
        system=system,
        ignore_case=ignores_case(system),
        arguments=argv[1:_ARGUMENTS_READ],
        own_path=path,
        is_argv_known=bool(argv) and stem_of(file_name(argv[0].replace("\\", "/"))) == stem,
    )


def _behind_reaper(own_path: str, process: Process, system: System) -> Subject:
    argv = process.argv[:_ARGUMENTS_READ]
    end = argv.index("--") if "--" in argv else len(argv)
    options = argv[1:end]
    ids = [match[1] for word in options if (match := _APP_ID.fullmatch(word))]
    if not options or options[0] != "SteamLaunch" or len(ids) != 1:
        return _direct(own_path, process, system)  # some other program of that name
    target, arguments, is_windows = _reaper_target(argv[end + 1 :], process.cwd)
    name = file_name(target)
    return Subject(
        path=target,
        name=name,
        stem=stem_of(name),
        route=Route.REAPER,
        system=system,
        ignore_case=is_windows or ignores_case(system),
        arguments=arguments,
        own_path=own_path,
        steam_id=str(int(ids[0])),
        is_setup_step=any(word.startswith("Install=") and word != "Install=0" for word in options),
        is_argv_known=True,
    )


def _reaper_target(command: tuple[str, ...], cwd: str) -> tuple[str, tuple[str, ...], bool]:
    """The program at the end of the chain of wrappers, its arguments, and whether Windows made it."""
    for position, word in enumerate(command):
        if not word or word.startswith("-"):
            continue
        is_windows = is_windows_path(word) or word.lower().endswith(".exe")
        if not is_windows and not word.startswith("/"):
            if position == 0 or command[position - 1] == "--":
                word = "/usr/bin/" + word  # `gamemoderun game`: found on PATH, the usual place will do
            else:
                continue  # a wrapper's verb or option value: waitforexitandrun
        path = wine_path(word) if is_windows_path(word) else posix_path(_absolute(word, cwd))
        if is_wrapper_path(path):
            continue
        if stem_of(file_name(path)) == "flatpak":
            path = next(
                (_flatpak_program(arg) for arg in command[position + 1 :] if arg.count(".") > 1), path
            )
        return path, command[position + 1 :], is_windows
    return "", (), False


def _flatpak_program(app_id: str) -> str:
    """The path inside the sandbox of `org.mozilla.firefox`, as far as its id tells."""
    return "/app/bin/" + app_id.rsplit(".", 1)[-1]


def is_wrapper_path(path: str) -> bool:
    """Whether the file belongs to what runs games: Steam's own parts, Proton, a shell, gamescope."""
    common = _STEAM_COMMON.search(path)
    if common is not None:
        return tables.STEAM_RUNNER_FOLDER.match(common[1]) is not None
    stem = stem_of(file_name(path))
    return stem in starters.WRAPPERS or (_STEAM_PART.search(path) is not None and stem != "fossilize_replay")


def _behind_wine(own_path: str, process: Process, system: System) -> Subject:
    target, arguments = _wine_target(process)
    name = file_name(target)
    return Subject(
        path=target,
        name=name,
        stem=stem_of(name),
        route=Route.WINE,
        system=system,
        ignore_case=True,
        arguments=arguments,
        own_path=own_path,
        is_argv_known=True,
    )


def _wine_target(process: Process) -> tuple[str, tuple[str, ...]]:
    """The Windows program among a Wine loader's arguments and its own arguments."""
    argv = [word.strip("\x00") for word in process.argv[:_ARGUMENTS_READ]]
    for position, word in enumerate(argv):
        match = _EXE_WITH_ARGUMENTS.match(word)
        program = match[2] if match else word.strip('"')
        rest = tuple(argv[position + 1 :])
        if is_windows_path(program):
            return wine_path(program), rest
        if position and _WINDOWS_PROGRAM.search(program):
            return posix_path(_absolute(program.replace("\\", "/"), process.cwd)), rest
    return "", ()


def _absolute(path: str, folder: str) -> str:
    return path if path.startswith("/") or not folder else f"{folder}/{path}"


def argument_paths(subject: Subject, process: Process) -> list[str]:
    """The files that a run-time's arguments name, as normal paths; the folder it works in counts."""
    files = []
    for word in subject.arguments:
        text = word if not word.startswith("-") else ""
        if text and ("/" in text or "\\" in text or "." in text):
            is_absolute = text.startswith("/") or is_windows_path(text)
            files.append(normal_path(text if is_absolute else f"{process.cwd}/{text}", subject.system))
    return files
