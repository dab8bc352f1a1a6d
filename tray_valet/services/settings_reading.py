"""One reading of the settings file.

Decides: what is read (a regular file, up to the size that settings have) and how a change is noticed.
Must not: decide what is in force; `settings.py` does.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import msgspec

from tray_valet.core.config_layers import build_settings, merge_layers
from tray_valet.core.config_tree import Node, Origin, empty
from tray_valet.core.errors import SettingsError, SettingsProblem
from tray_valet.services.settings_text import MAX_FILE_BYTES, parse_settings

Signature = tuple[int, int, int]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The file's bytes, what they say (in our spellings), and what is wrong with them."""

    data: bytes = b""
    exists: bool = False
    tree: Node = empty(Origin.FILE)
    error: SettingsError | None = None

    @property
    def version(self) -> str:
        """Differs whenever the content does; "" without a file."""
        return hashlib.sha256(self.data).hexdigest()[:16] if self.exists else ""


def signature_of(path: Path) -> Signature | None:
    """Modification time (ns), size and inode: another file has another signature. None without a file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def read_file(path: Path) -> Reading:
    """Read the settings file; mistakes and refusals of the system are in `error`, no file is no mistake."""
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            raise OSError("it is a pipe")  # reading one would wait for ever
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return Reading()
    except OSError as error:
        message = f"The file cannot be read: {error.strerror or error}."
        return Reading(exists=True, error=SettingsError((SettingsProblem(path=path.name, message=message),)))
    try:
        tree, problems = merge_layers(parse_settings(data, name=path.name))
        if problems:
            # The rest of the mistakes is worth telling in the same breath.
            build_settings(parse_settings(data, name=path.name))
    except SettingsError as error:
        return Reading(data=data, exists=True, error=error)
    return Reading(data=data, exists=True, tree=tree)
