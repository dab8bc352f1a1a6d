"""Games that are known by their own name, their main class, or what they are given to play.

Decides: whether a file name, a Java command line or an emulator's arguments mean a game.
Must not: look at where a program lies (`game_folders.py`).
"""

from __future__ import annotations

import re

from tray_valet.core import game_tables as tables
from tray_valet.core.game_subject import Subject
from tray_valet.core.game_verdict import BuiltInRule, Classification, Verdict
from tray_valet.core.paths import path_key

# Options of `java` that are followed by a value (java(1)); the first other word is the main class.
_JAVA_OPTIONS_WITH_VALUE = frozenset(
    {"-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules", "--add-opens",
     "--add-exports", "--add-reads", "--upgrade-module-path", "--limit-modules",
     "--enable-native-access", "--source", "-jar"}
)  # fmt: skip
_SHARED_FOLDER = re.compile(
    r"/(?:s?bin|games|opt|applications|program files(?: \(x86\))?|downloads|desktop)$", re.I
)
_UNREAL_BINARIES = "/binaries/"


def display_name(subject: Subject) -> str:
    """The program's file name as a user reads it: without its ending."""
    name = subject.name
    return name[:-4] if name.lower().endswith(".exe") else name


def instance_root(subject: Subject) -> str:
    """What names a running game that no store vouches for: its own folder or bundle.

    A launcher and the game that it starts lie in one folder; programs in `/usr/bin` and its like share
    theirs with everything, so there the file itself is the name.
    """
    key = path_key(subject.path, ignore_case=subject.ignore_case)
    bundle = key.lower().find(".app/contents/")
    if bundle > 0:
        return key[: bundle + len(".app")]
    folder = key[: key.rfind("/")]
    return key if not folder or _SHARED_FOLDER.search(folder) else folder


def by_name(subject: Subject) -> Classification | None:
    """Recognise a finished Unreal build, a known game, or a game of the Windows store by its file name."""
    shipping = tables.SHIPPING_NAME.search(subject.stem)
    if shipping is not None:
        name = subject.name[: shipping.start()]
        return _game(subject, BuiltInRule.SHIPPING, name=name, root=_unreal_folder(subject))
    if subject.stem in tables.KNOWN_GAMES or tables.WINDOWS_STORE_GAMES.search(subject.path):
        return _game(subject, BuiltInRule.KNOWN_GAME)
    return None


def minecraft(subject: Subject) -> Classification | None:
    """Recognise Minecraft's client by its main class; its servers have other classes or say so."""
    main_class, arguments = _java_main(subject.arguments)
    if not subject.is_argv_known and not subject.arguments:
        # The arguments are hidden; the launcher's own Java runs nothing but the game.
        is_game = tables.MINECRAFT_RUNTIME.search(subject.path) is not None
    else:
        is_server = any(tables.MINECRAFT_SERVER_ARGUMENT.fullmatch(word) for word in arguments)
        is_game = main_class in tables.MINECRAFT_MAIN_CLASSES and not is_server
    if not is_game:
        return None
    return Classification(
        verdict=Verdict.GAME,
        name="Minecraft",
        store="minecraft",
        rule=BuiltInRule.MINECRAFT,
        root="minecraft:java",
        place=main_class or subject.path,
    )


def runs_content(arguments: tuple[str, ...]) -> bool:
    """Whether an emulator was given something to play, not just settings."""
    takes_value = False
    for word in arguments:
        if takes_value:
            takes_value = False
        elif word in tables.EMULATOR_OPTIONS_WITH_VALUE:
            takes_value = True
        elif word and (not word.startswith("-") or _is_content_option(word)):
            return True
    return False


def _is_content_option(word: str) -> bool:
    """Whether the option carries a file: `--exec=/roms/a.iso`."""
    option, equals, value = word.partition("=")
    return (
        bool(equals) and option not in tables.EMULATOR_OPTIONS_WITH_VALUE and ("/" in value or "\\" in value)
    )


def _java_main(arguments: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    takes_value = False
    for position, word in enumerate(arguments):
        if takes_value:
            takes_value = False
        elif word in _JAVA_OPTIONS_WITH_VALUE:
            takes_value = word != "-jar"
            if word == "-jar":
                return "", arguments[position + 1 :]
        elif not word.startswith(("-", "@")):
            return word, arguments[position + 1 :]
    return "", ()


def _unreal_folder(subject: Subject) -> str:
    """The folder above `Project/Binaries/Win64`, where the start program of the game lies."""
    key = path_key(subject.path, ignore_case=subject.ignore_case)
    end = key.lower().find(_UNREAL_BINARIES)
    return key[: key.rfind("/", 0, end)] if end > 0 else key[: key.rfind("/")]


def _game(subject: Subject, rule: BuiltInRule, *, name: str = "", root: str = "") -> Classification:
    return Classification(
        verdict=Verdict.GAME,
        name=name or display_name(subject),
        store=tables.STORE_OF_GAME.get(subject.stem, ""),
        rule=rule,
        root=root or instance_root(subject),
        place=subject.path,
    )
