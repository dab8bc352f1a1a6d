"""Paths as the rules compare them: whole components, the system's idea of letter case.

Decides: one spelling for every way a program's path is written (Windows, Wine, macOS, Linux).
Must not: look at the disk; a path is only text here.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterator

from tray_valet.core.processes import System

_WINDOWS_PATH = re.compile(r'^"?(?:[A-Za-z]:[\\/]|\\\\|//[?.]/)')
_NEEDS_TIDYING = re.compile(r"//|/\.\.?(?:/|$)")
_DELETED = " (deleted)"  # proc_pid_exe(5): the file was replaced while the program runs
_SANDBOX_HOST = "/run/host/"  # where pressure-vessel and Flatpak mount the host's files


def is_windows_path(text: str) -> bool:
    """Whether the text is a path as Windows programs write it (`C:\\…`, `\\\\?\\…`)."""
    return _WINDOWS_PATH.match(text) is not None


def windows_path(text: str) -> str:
    """The path with forward slashes and without `\\\\?\\`, quotes, `.`, `..` and a closing slash."""
    path = text.strip('"\x00 ').replace("\\", "/")
    if path[:4] in ("//?/", "//./", "/??/"):
        path = path[4:]
        if path[:4].lower() == "unc/":
            path = "//" + path[4:]
    return _tidied(path)


def posix_path(text: str) -> str:
    """The path without `.`, `..`, doubled slashes and what the system adds to it."""
    path = text.removesuffix(_DELETED) if text.endswith(_DELETED) else text
    if path.startswith(_SANDBOX_HOST):
        path = path[len(_SANDBOX_HOST) - 1 :]
    return _tidied(path)


def normal_path(text: str, system: System) -> str:
    """The one spelling of a path of that system."""
    return windows_path(text) if system is System.WINDOWS else posix_path(text)


def wine_path(text: str) -> str:
    """The path of a program in Wine: drive Z: is the root of the real file system, others stay."""
    path = windows_path(text)
    if path[:2] in ("Z:", "z:"):
        return path[2:] or "/"
    if path[:5].lower() == "unix/":  # \\?\unix\home\…
        return path[4:]
    return path


def path_key(path: str, *, ignore_case: bool) -> str:
    """What two spellings of the same place have in common; `path` is a normal path."""
    if not path.isascii():
        path = unicodedata.normalize("NFC", path)  # macOS writes NFD, people type NFC
    return path.casefold() if ignore_case else path


def ignores_case(system: System) -> bool:
    """Whether that system takes `Hades` and `hades` for the same file."""
    return system is not System.LINUX


def folders_above(key: str) -> Iterator[str]:
    """Every folder that holds the path, the nearest first; the path itself is not among them."""
    end = key.rfind("/")
    while end > 0:
        yield key[:end]
        end = key.rfind("/", 0, end)


def is_inside(key: str, folder_key: str) -> bool:
    """Whether the path is the folder or lies in it, by whole components."""
    return key == folder_key or key.startswith(folder_key if folder_key.endswith("/") else folder_key + "/")


def file_name(path: str) -> str:
    """The last component of a normal path."""
    return path[path.rfind("/") + 1 :]


def stem_of(name: str) -> str:
    """The file name as the tables have it: lower case, without `.exe`."""
    return name.lower().removesuffix(".exe")


def _tidied(path: str) -> str:
    if _NEEDS_TIDYING.search(path):
        path = ("/" if path.startswith("//") else "") + re.sub("/{2,}", "/", path)
        is_share = path.startswith("//")
        path = ("/" if is_share else "") + posixpath.normpath(path[1:] if is_share else path)
    return path.rstrip("/") if len(path) > 1 else path
