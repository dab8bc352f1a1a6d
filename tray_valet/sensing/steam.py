"""What Steam has installed on this machine.

Decides: where Steam may be, which programs its libraries hold, and what could not be read and why.
Must not: judge processes (`core/games.py`), log, or raise for what lies on the disk; broken files are
reported beside the programs.

Facts: libraryfolders.vdf names the library folders, steamapps/appmanifest_ID.acf each program with its
`installdir` under steamapps/common; a compatibility tool has a toolmanifest.vdf in its folder
(reference files of the Steam client). Manifests do not tell games from applications.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tray_valet.core import game_tables as tables
from tray_valet.core.game_library import LibraryProblem, LibraryScan, Program, ProgramKind
from tray_valet.core.processes import System
from tray_valet.sensing.vdf_files import VdfError, read_vdf

STORE = "steam"
_MANIFEST = re.compile(r"appmanifest_([0-9]{1,10})\.acf", re.IGNORECASE)
_MANIFESTS_MAX = 20_000  # more in one folder is no library of anybody's
_LIBRARIES_MAX = 64
_LINUX_ROOTS = (
    ".local/share/Steam",
    ".steam/steam",
    ".steam/root",
    ".steam/debian-installation",
    ".var/app/com.valvesoftware.Steam/.local/share/Steam",
    ".var/app/com.valvesoftware.Steam/data/Steam",
    ".var/app/com.valvesoftware.Steam/.steam/steam",
    "snap/steam/common/.local/share/Steam",
    "snap/steam/common/.steam/steam",
)
_MACOS_ROOTS = ("Library/Application Support/Steam",)
_REGISTRY_PLACES = (
    ("HKEY_CURRENT_USER", r"Software\Valve\Steam", "SteamPath"),
    ("HKEY_LOCAL_MACHINE", r"SOFTWARE\WOW6432Node\Valve\Steam", "InstallPath"),
    ("HKEY_LOCAL_MACHINE", r"SOFTWARE\Valve\Steam", "InstallPath"),
)


class _Stamp(msgspec.Struct, frozen=True):
    """A file's or folder's state; the same stamp means that nothing was written since."""

    modified_ns: int
    size_bytes: int
    inode: int


class _Remembered(msgspec.Struct, frozen=True):
    """What a manifest said when it had that stamp."""

    stamp: _Stamp | None  # None: not even that could be read
    program: Program | None
    problem: LibraryProblem | None


class SteamLibraries:
    """Steam's installed programs; `scan` is cheap to call again and sees what was installed since.

    `roots` are Steam's own folders (`discover_roots`), `libraries` what the user added: a Steam folder, a
    library folder, or a `steamapps` folder. Blocking file access: call it in a worker thread.
    """

    def __init__(self, roots: Iterable[Path], libraries: Iterable[Path] = ()) -> None:
        self._roots = tuple(roots)
        self._libraries = tuple(libraries)
        self._manifests: dict[Path, _Remembered] = {}
        self._folder_lists: dict[Path, tuple[_Stamp, tuple[Path, ...], LibraryProblem | None]] = {}

    def scan(self) -> LibraryScan:
        """Read what changed since the last call and return everything that is installed now."""
        problems: list[LibraryProblem] = []
        programs: list[Program] = []
        seen: dict[Path, _Remembered] = {}
        for folder in self._steamapps_folders(problems):
            for manifest in _manifests_in(folder, problems):
                remembered = self._look_at(manifest, folder)
                if remembered is None:
                    continue
                seen[manifest] = remembered
                if remembered.program is not None:
                    programs.append(remembered.program)
                if remembered.problem is not None:
                    problems.append(remembered.problem)
        self._manifests = seen
        return LibraryScan(tuple(programs), tuple(dict.fromkeys(problems)))

    def _steamapps_folders(self, problems: list[LibraryProblem]) -> list[Path]:
        """Every library's steamapps folder, each once whatever links lead to it."""
        folders: dict[Path, None] = {}
        for root in self._roots:
            found = _steamapps_of(root)
            if found is not None:
                folders[found] = None
        for library in self._libraries:
            found = _steamapps_of(library)
            if found is None:
                problems.append(
                    LibraryProblem(str(library), "This folder is not there, or holds no Steam library.")
                )
            else:
                folders[found] = None
        for folder in tuple(folders):
            for library in self._listed_libraries(folder, problems):
                found = _steamapps_of(library)
                if found is None:
                    reason = (
                        "Steam lists this library, but it cannot be reached; its drive may not be mounted."
                    )
                    problems.append(LibraryProblem(str(library), reason))
                elif len(folders) < _LIBRARIES_MAX:
                    folders[found] = None
        return list(folders)

    def _listed_libraries(self, steamapps: Path, problems: list[LibraryProblem]) -> tuple[Path, ...]:
        """The other library folders that the Steam folder of this steamapps knows of."""
        for place in (steamapps / "libraryfolders.vdf", steamapps.parent / "config" / "libraryfolders.vdf"):
            try:
                stamp = _stamp(place)
            except VdfError as error:
                problems.append(LibraryProblem(str(place), str(error)))
                continue
            if stamp is None:
                continue
            known = self._folder_lists.get(place)
            if known is None or known[0] != stamp:
                known = (stamp, *_read_library_folders(place))
                self._folder_lists[place] = known
            if known[2] is None:
                return known[1]
            problems.append(known[2])
        return ()

    def _look_at(self, manifest: Path, steamapps: Path) -> _Remembered | None:
        try:
            stamp = _stamp(manifest)
        except VdfError as error:
            return _Remembered(None, None, LibraryProblem(str(manifest), str(error)))
        if stamp is None:
            return None  # uninstalled between the listing and now
        known = self._manifests.get(manifest)
        if known is not None and known.stamp == stamp:
            return known
        try:
            return _Remembered(stamp, _program_of(manifest, steamapps), None)
        except VdfError as error:
            return _Remembered(stamp, None, LibraryProblem(str(manifest), str(error)))


def discover_roots(system: System, home: Path) -> tuple[Path, ...]:
    """The folders where Steam is installed for this user; links to the same folder count once."""
    if system is System.WINDOWS:
        candidates = [Path(text) for text in _registry_paths()]
        candidates += [Path(drive) / "Steam" for drive in (r"C:\Program Files (x86)", r"C:\Program Files")]
    else:
        names = _MACOS_ROOTS if system is System.MACOS else _LINUX_ROOTS
        candidates = [home / name for name in names]
    found: dict[Path, None] = {}
    for candidate in candidates:
        real = _real_folder(candidate)
        if real is not None:
            found[real] = None
    return tuple(found)


def _registry_paths() -> list[str]:
    """Steam's folder as its installer and client wrote it to the Windows registry."""
    paths: list[str] = []
    if sys.platform == "win32":
        import winreg  # exists on Windows only

        for hive, key, value in _REGISTRY_PLACES:
            try:
                with winreg.OpenKey(getattr(winreg, hive), key) as opened:
                    text, _ = winreg.QueryValueEx(opened, value)
            except OSError:
                continue
            if isinstance(text, str) and text:
                paths.append(text)
    return paths


def _steamapps_of(folder: Path) -> Path | None:
    """The steamapps folder that is meant by a Steam folder, a library folder, or itself."""
    for candidate in (folder / "steamapps", folder / "SteamApps", folder):
        real = _real_folder(candidate)
        if real is not None and real.name.lower() == "steamapps":
            return real
    return None


def _real_folder(path: Path) -> Path | None:
    try:
        real = path.resolve(strict=True)
        return real if real.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # RuntimeError: links in a circle, before Python 3.13
        return None


def _stamp(path: Path) -> _Stamp | None:
    """The file's state, None where there is no file. Raises VdfError where something else is there."""
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not path.is_symlink():
            return None
        reason = "It is a link that leads nowhere." if path.is_symlink() else f"It cannot be read: {error}."
        raise VdfError(reason) from error
    if not stat.S_ISREG(state.st_mode):
        raise VdfError("It is not a file.")
    return _Stamp(state.st_mtime_ns, state.st_size, state.st_ino)


def _manifests_in(steamapps: Path, problems: list[LibraryProblem]) -> list[Path]:
    try:
        with os.scandir(steamapps) as entries:
            names = [entry.name for entry in entries if _MANIFEST.fullmatch(entry.name)]
    except OSError as error:
        problems.append(LibraryProblem(str(steamapps), f"The folder cannot be read: {error.strerror}."))
        return []
    if len(names) > _MANIFESTS_MAX:
        reason = f"The folder holds {len(names)} manifests; only the first {_MANIFESTS_MAX} were read."
        problems.append(LibraryProblem(str(steamapps), reason))
    return [steamapps / name for name in sorted(names)[:_MANIFESTS_MAX]]


def _read_library_folders(place: Path) -> tuple[tuple[Path, ...], LibraryProblem | None]:
    """The folders in a libraryfolders.vdf, of both forms: with blocks since 2021, plain paths before."""
    try:
        content = _section(read_vdf(place), "libraryfolders")
    except VdfError as error:
        return (), LibraryProblem(str(place), str(error))
    folders: list[Path] = []
    for key, value in content.items():
        path = _text(value, "path") if isinstance(value, Mapping) else value if key.isdigit() else ""
        if isinstance(path, str) and path and "\x00" not in path:
            folders.append(Path(path))
    return tuple(folders[:_LIBRARIES_MAX]), None


def _program_of(manifest: Path, steamapps: Path) -> Program:
    state = _section(read_vdf(manifest), "AppState")
    match = _MANIFEST.fullmatch(manifest.name)
    appid = _text(state, "appid") or (match[1] if match else "")
    installdir = _text(state, "installdir")
    if not re.fullmatch("[0-9]{1,20}", appid):
        raise VdfError(f"Its appid {appid[:40]!r} is not a number.")
    if not installdir or installdir in (".", "..") or re.search(r"[/\\\x00]", installdir):
        raise VdfError(f"Its installdir {installdir[:80]!r} is not the name of a folder.")
    name = _text(state, "name") or installdir
    folder = steamapps / "common" / installdir
    return Program(
        store=STORE,
        path=str(folder),
        installdir=installdir,
        name=name,
        appid=str(int(appid)),
        kind=_kind_of(str(int(appid)), name, installdir, folder),
    )


def _kind_of(appid: str, name: str, installdir: str, folder: Path) -> ProgramKind:
    """Games and the rest: by id, by name, and by what lies in a compatibility tool's folder."""
    if appid in tables.STEAM_TOOL_IDS:
        return ProgramKind.TOOL
    if appid in tables.STEAM_APPLICATION_IDS or installdir.lower() in tables.STEAM_APPLICATION_FOLDERS:
        return ProgramKind.APPLICATION
    if tables.STEAM_TOOL_FOLDER.match(name) or tables.STEAM_TOOL_FOLDER.match(installdir):
        return ProgramKind.TOOL
    if (folder / "toolmanifest.vdf").is_file():
        return ProgramKind.TOOL
    return ProgramKind.DEMO if name.lower().endswith(" demo") else ProgramKind.GAME


def _section(content: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The block of that name; Steam does not mind its letters' case."""
    for key, value in content.items():
        if key.lower() == name.lower() and isinstance(value, Mapping):
            return value
    raise VdfError(f"It has no {name!r} block.")


def _text(block: Mapping[str, object], name: str) -> str:
    for key, value in block.items():
        if key.lower() == name.lower() and isinstance(value, str):
            return value.strip()
    return ""
