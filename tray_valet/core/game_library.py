"""The programs that the machine's stores have installed, and which of them a path belongs to.

Decides: what an installed program is, and which one holds a file (whole components, nearest folder).
Must not: read a store's files; `sensing/` does, one file a store.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

import msgspec

from tray_valet.core.paths import folders_above, ignores_case, normal_path, path_key
from tray_valet.core.processes import System

_Key = TypeVar("_Key")


class ProgramKind(StrEnum):
    """What a store sells or installs."""

    GAME = "game"
    DEMO = "demo"
    APPLICATION = "application"  # Blender: needs the GPU, is not a game
    TOOL = "tool"  # runtimes, Proton, SDKs, dedicated servers, wallpapers
    EXTRA = "extra"  # soundtracks, videos, add-ons: nothing that runs by itself


# What stores call their kinds (Steam's `common/type`, Epic's categories) beside our own words.
_WORDS = {
    **{kind.value: kind for kind in ProgramKind},
    **dict.fromkeys(("games", "beta", "playtest", "mod"), ProgramKind.GAME),
    **dict.fromkeys(("app", "applications", "software", "engine", "editor"), ProgramKind.APPLICATION),
    **dict.fromkeys(
        ("tools", "runtime", "redist", "redistributable", "redistributables", "sdk", "server", "config",
         "dedicated_server", "driver", "launcher", "helper", "wallpaper", "compatibility_tool"),
        ProgramKind.TOOL,
    ),
}  # fmt: skip


def program_kind(text: str) -> ProgramKind:
    """The kind that a store's word means; a word nobody knows is an extra, never a game."""
    return _WORDS.get(text.strip().lower(), ProgramKind.EXTRA)


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """An installed program. `path` is its full folder; `appid` is the store's own id."""

    store: str
    path: str
    installdir: str = ""
    name: str = ""
    appid: str = ""
    kind: ProgramKind = ProgramKind.GAME


class LibraryProblem(msgspec.Struct, frozen=True):
    """A part of a library that could not be read: where, and why in one plain sentence."""

    path: str
    reason: str


class LibraryScan(msgspec.Struct, frozen=True):
    """What one look at a store's libraries found."""

    programs: tuple[Program, ...] = ()
    problems: tuple[LibraryProblem, ...] = ()


class LibraryIndex:
    """Finds the installed program that a path belongs to; immutable, safe to share between threads."""

    def __init__(self, programs: Iterable[Program] = (), system: System = System.LINUX) -> None:
        self.programs = tuple(programs)
        self.system = system
        self._by_folder: dict[str, Program] = {}
        self._by_folder_any_case: dict[str, Program] = {}
        self._by_appid: dict[tuple[str, str], Program] = {}
        self._by_installdir: dict[tuple[str, str], Program] = {}
        for program in self.programs:
            self._add(program)

    def containing(self, path: str, *, ignore_case: bool | None = None) -> Program | None:
        """The program whose folder holds `path` (a normal path), the innermost where folders nest.

        `ignore_case` None = as the system does; programs in Wine ignore it everywhere.
        """
        if not self.programs:
            return None
        any_case = ignores_case(self.system) if ignore_case is None else ignore_case
        folders = self._by_folder_any_case if any_case else self._by_folder
        key = path_key(path, ignore_case=any_case)
        found = folders.get(key)  # a macOS bundle may be named itself
        if found is not None:
            return found
        return next((folders[folder] for folder in folders_above(key) if folder in folders), None)

    def by_appid(self, store: str, appid: str) -> Program | None:
        """The program with that id in that store."""
        return self._by_appid.get((store, appid))

    def by_installdir(self, store: str, installdir: str) -> Program | None:
        """The program whose folder has that name, for paths seen through another mount."""
        return self._by_installdir.get((store, installdir.casefold()))

    def _add(self, program: Program) -> None:
        path = normal_path(program.path, self.system)
        if path:
            _keep_better(self._by_folder, path_key(path, ignore_case=False), program)
            _keep_better(self._by_folder_any_case, path_key(path, ignore_case=True), program)
        if program.appid:
            _keep_better(self._by_appid, (program.store, program.appid), program)
        if program.installdir:
            _keep_better(self._by_installdir, (program.store, program.installdir.casefold()), program)


def _keep_better(table: dict[_Key, Program], key: _Key, program: Program) -> None:
    """An add-on shares its game's folder: the game is what runs there."""
    present = table.get(key)
    if present is None or (present.kind is ProgramKind.EXTRA and program.kind is not ProgramKind.EXTRA):
        table[key] = program
