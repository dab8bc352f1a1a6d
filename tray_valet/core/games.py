"""Is it a game? One pure function over a process, the installed libraries and the user's rules.

Decides: the verdict on a process, what it is called, and which running game it belongs to.
Must not: read anything, remember anything, or decide what happens then (`holds.py`).

The rules are asked in the order of `_RULES`; the first that knows the program speaks. What is never a
game comes first, wherever it lies; then where a program lies; then what it is called; then weaker signs,
of which always two are needed. Environment variables are inherited by whatever a game opens: they say to
which game a process belongs, never alone that it is one.

One running game has one `root`. Steam's reaper knows the id and, from its command, the folder; a game's
process knows its folder and mostly the id: both are given (`root`, `aliases`) as far as they are at hand,
so that reaper, Wine and game agree on at least one, with a library index or without.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from tray_valet.core import game_starters as starters
from tray_valet.core import game_tables as tables
from tray_valet.core.game_folders import (
    STEAM,
    in_library,
    in_store_folder,
    steam_finding,
    steam_folder_of,
    steam_program,
)
from tray_valet.core.game_library import LibraryIndex, LibraryProblem, LibraryScan, Program, ProgramKind
from tray_valet.core.game_names import by_name, display_name, instance_root, minecraft, runs_content
from tray_valet.core.game_rules import CompiledRule, GameRule, apply_rules, compile_rules
from tray_valet.core.game_subject import Route, Subject, argument_paths, identify, is_shortcut_id, steam_id_in
from tray_valet.core.game_verdict import Action, BuiltInRule, Classification, Verdict
from tray_valet.core.paths import stem_of
from tray_valet.core.processes import Process, System

__all__ = [
    "NO_LIBRARIES",
    "Action",
    "BuiltInRule",
    "Classification",
    "CompiledRule",
    "GameRule",
    "LibraryIndex",
    "LibraryProblem",
    "LibraryScan",
    "Program",
    "ProgramKind",
    "Verdict",
    "classify",
    "compile_rules",
]

NO_LIBRARIES = LibraryIndex()
MAC_CATEGORY = "bundle_category"  # LSApplicationCategoryType of the bundle, as the macOS sensor passes it on

_SYSTEM_PLACE = re.compile(r"(?:[a-z]:)/windows/|/system/|/usr/libexec/|/library/apple/", re.IGNORECASE)
_SHARED_PLACE = re.compile(
    r"/(?:usr|bin|sbin|lib|lib64|opt|snap|app|nix|etc)/"
    r"|[a-z]:/programdata/|[a-z]:/program files(?: \(x86\))?/common files/"
    r"|.*/(?:temp|tmp|steam|battle\.net|ubisoft game launcher|gog galaxy|ea desktop|origin|riot client"
    r"|amazon games/app|epic games/launcher|itch)/",
    re.IGNORECASE,
)
_GAMES_FOLDER = re.compile(r"/games/", re.IGNORECASE)
_MAC_GAME_CATEGORY = re.compile(r"public\.app-category\.(?:[a-z-]+-)?games$")


def classify(
    process: Process,
    system: System,
    index: LibraryIndex = NO_LIBRARIES,
    rules: tuple[CompiledRule, ...] = (),
) -> Classification:
    """Say what a process is: the user's rules first, then the built-in ones.

    Takes about 10–30 µs; safe on any thread. Never raises for strange processes.
    """
    subject = identify(process, system)
    found = _built_in(subject, process, index)
    if rules:
        found = apply_rules(rules, found, subject, process)
    return found if found.place.isascii() and found.name.isascii() else _readable(found)


def _readable(found: Classification) -> Classification:
    """File names need not be text: what goes to people and into JSON must be."""
    return msgspec.structs.replace(
        found,
        name=_text(found.name),
        root=_text(found.root),
        aliases=tuple(_text(alias) for alias in found.aliases),
        place=_text(found.place),
    )


def _text(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")


def _built_in(subject: Subject, process: Process, index: LibraryIndex) -> Classification:
    if subject.route is Route.REAPER:
        return _under_reaper(subject, process, index)
    for rule in _RULES:
        found = rule(subject, process, index)
        if found is not None:
            return found
    return _finding(subject, Verdict.NOT, BuiltInRule.NONE)


def _under_reaper(subject: Subject, process: Process, index: LibraryIndex) -> Classification:
    """Steam's own word that it starts something: the earliest sign, and it lives as long as the game."""
    folder = steam_folder_of(subject.path)
    steam_id = subject.steam_id if subject.steam_id != "0" else steam_id_in(process.env) or "0"
    if subject.is_setup_step or _is_helper(subject):
        return steam_finding(Verdict.NOT, steam_id, folder, BuiltInRule.STEAM_SETUP)
    known = steam_program(steam_id, folder, index, rule=BuiltInRule.STEAM_REAPER)
    if known is not None:
        return known
    if is_shortcut_id(subject.steam_id):
        for rule in (_launcher, _installed, _graphics_application, _desktop_program):
            found = rule(subject, process, index)
            if found is not None:
                return found
        name = display_name(subject)
        return steam_finding(Verdict.GAME, steam_id, "", BuiltInRule.STEAM_SHORTCUT, name)
    if subject.path:
        found = in_library(subject, index) or in_store_folder(subject, process, index)
        if found is not None and found.verdict is not Verdict.GAME:
            return found
    return steam_finding(Verdict.GAME, steam_id, folder, BuiltInRule.STEAM_REAPER)


# -- the rules, in their order -----------------------------------------------------------------------


def _unknown_or_system(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    if not subject.path:
        rule = BuiltInRule.WRAPPER if subject.route is Route.WINE else BuiltInRule.UNKNOWN
        return _finding(subject, Verdict.NOT, rule)
    if _SYSTEM_PLACE.match(subject.path):
        return _finding(subject, Verdict.NOT, BuiltInRule.SYSTEM)
    return None


def _other_demo(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    """The demo's made-up game is one for the demo's own valet, which has its library, and for no other."""
    if tables.DEMO_FOLDER in subject.path and index.containing(subject.path) is None:
        return _finding(subject, Verdict.NOT, BuiltInRule.OTHER_DEMO)
    return None


def _helper(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    return _finding(subject, Verdict.NOT, BuiltInRule.HELPER) if _is_helper(subject) else None


def _launcher(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    is_launcher = subject.stem in tables.LAUNCHERS
    return _finding(subject, Verdict.LAUNCHER, BuiltInRule.LAUNCHER) if is_launcher else None


def _graphics_application(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    if _is_graphics_application(subject):
        return _finding(subject, Verdict.GPU_APP, BuiltInRule.GPU_APP)
    return None


def _installed(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    found = in_library(subject, index) or in_store_folder(subject, process, index)
    if found is not None and found.verdict is Verdict.GAME and _is_graphics_application(subject):
        return msgspec.structs.replace(found, verdict=Verdict.GPU_APP, rule=BuiltInRule.GPU_APP)
    return found  # stores sell editors and paint programs beside games


def _is_graphics_application(subject: Subject) -> bool:
    return subject.stem in tables.GPU_APPS or tables.GODOT_EDITOR.match(subject.stem) is not None


def _named(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    return by_name(subject)


def _java_game(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    return minecraft(subject) if subject.stem in starters.JAVA else None


def _run_time(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    """A run-time outside of the game's folder that runs a file inside of it."""
    if subject.stem not in starters.RUNTIMES:
        return None
    for path in argument_paths(subject, process):
        inner = Subject(
            path=path,
            name=subject.name,
            stem=subject.stem,
            system=subject.system,
            ignore_case=subject.ignore_case,
        )
        found = _installed(inner, process, index)
        if found is not None:
            return found
    return None


def _emulator(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    is_emulator = subject.stem in tables.EMULATORS
    if subject.system is not System.LINUX or subject.route is Route.WINE:
        is_emulator = is_emulator or subject.stem in tables.EMULATORS_NOT_ON_LINUX
    if not is_emulator:
        return None
    # Only where the arguments can be seen is it certain that nothing is played yet.
    if subject.is_argv_known and not runs_content(subject.arguments):
        return _finding(subject, Verdict.LAUNCHER, BuiltInRule.EMULATOR_MENU)
    return _finding(subject, Verdict.GAME, BuiltInRule.EMULATOR, store="emulator")


def _desktop_program(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    if subject.stem in tables.GPU_APPS_OUTSIDE:
        return _finding(subject, Verdict.GPU_APP, BuiltInRule.GPU_APP)
    if subject.stem in tables.DESKTOP_PROGRAMS:
        return _finding(subject, Verdict.NOT, BuiltInRule.DESKTOP)
    return None


def _mac_category(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    category = process.env.get(MAC_CATEGORY, "")
    if subject.system is not System.MACOS or not _MAC_GAME_CATEGORY.match(category):
        return None
    bundle = re.search(r"/([^/]+)\.app/Contents/MacOS/[^/]+$", subject.path)
    if bundle is None:
        return None
    if tables.LIGHT_MAC_GAMES.match(bundle[1].lower()):
        return _finding(subject, Verdict.NOT, BuiltInRule.MAC_LIGHT)
    return _finding(subject, Verdict.GAME, BuiltInRule.MAC_CATEGORY, name=bundle[1])


def _wine_program(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    """A Windows program that a store, or the user's games folder, vouches for."""
    if subject.route is not Route.WINE:
        return None
    steam_id = steam_id_in(process.env)
    if steam_id:
        known = steam_program(steam_id, "", index)
        name = display_name(subject)
        return known or steam_finding(Verdict.GAME, steam_id, "", BuiltInRule.WINE, name)
    for variable, store in starters.STORE_VARIABLES:
        value = process.env.get(variable, "")
        if value:
            root = "" if value in starters.NOBODYS_IDS else f"{store}:{value}"
            return _finding(subject, Verdict.GAME, BuiltInRule.WINE, store=store, root=root)
    if _GAMES_FOLDER.search(subject.path) or stem_of(process.parent_name) in starters.STORE_OF_STARTER:
        return _finding(subject, Verdict.GAME, BuiltInRule.WINE)
    return None


def _store_child(subject: Subject, process: Process, index: LibraryIndex) -> Classification | None:
    """A program that a store's client started from a place of its own, or marked in a games folder."""
    if _SHARED_PLACE.match(subject.path):
        return None
    parent = stem_of(process.parent_name)
    is_child = parent in starters.STORE_OF_STARTER or (parent == STEAM and subject.system is System.WINDOWS)
    steam_id = steam_id_in(process.env)
    marks = [
        f"{store}:{value}"
        for name, store in starters.STORE_VARIABLES
        if (value := process.env.get(name, "")) and value not in starters.NOBODYS_IDS
    ]
    is_marked = bool(marks or is_shortcut_id(steam_id)) and _GAMES_FOLDER.search(subject.path) is not None
    if not is_child and not is_marked:
        return None
    if parent in ("reaper", STEAM) or steam_id:
        if steam_id:
            name = display_name(subject)
            known = steam_program(steam_id, "", index)
            return known or steam_finding(Verdict.GAME, steam_id, "", BuiltInRule.STORE_CHILD, name)
        return _finding(subject, Verdict.GAME, BuiltInRule.STORE_CHILD, store=STEAM)
    store = marks[0].split(":")[0] if marks else starters.STORE_OF_STARTER.get(parent, "")
    root = marks[0] if marks else ""
    return _finding(subject, Verdict.GAME, BuiltInRule.STORE_CHILD, store=store, root=root)


_Rule = Callable[[Subject, Process, LibraryIndex], Classification | None]
_RULES: tuple[_Rule, ...] = (
    _unknown_or_system,
    _other_demo,
    _helper,
    _launcher,
    _installed,
    _graphics_application,
    _java_game,
    _run_time,
    _emulator,
    _desktop_program,
    _named,
    _mac_category,
    _wine_program,
    _store_child,
)


def _is_helper(subject: Subject) -> bool:
    if subject.stem in tables.HELPERS or tables.HELPER_NAME.search(subject.stem):
        return True
    folders = subject.path.lower().split("/")[:-1]
    return not tables.HELPER_FOLDERS.isdisjoint(folders)


def _finding(
    subject: Subject, verdict: Verdict, rule: BuiltInRule, *, name: str = "", store: str = "", root: str = ""
) -> Classification:
    """A finding about a program that is known by its file."""
    if not root and verdict is Verdict.GAME:
        root = instance_root(subject)
    name = name or display_name(subject)
    return Classification(verdict=verdict, name=name, store=store, rule=rule, root=root, place=subject.path)
