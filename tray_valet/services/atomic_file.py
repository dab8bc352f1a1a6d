"""Files that are always whole: the old content or the new one, whatever happens in between.

Decides: how a file is replaced.
Must not: know what is in it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_REPLACE_ATTEMPTS = 20
_REPLACE_PAUSE_S = 0.05
_LEFTOVER_AGE_S = 60.0


def write_atomically(path: str | Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the file's content with `data`, on the disk when this returns.

    A temporary file in the same folder is written, synced and put in place, so that no reader and no crash
    ever meets half a file. A symbolic link stays one: what it points at is replaced. The folder is made
    (0700) where it is missing. Blocks; call it in a worker thread. Raises OSError, and the file is as it was.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    prefix = f".{target.name}."
    temporary = str(target.parent / f"{prefix}{os.getpid()}-{os.urandom(4).hex()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        _replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)
    _remove_leftovers(target, prefix)


def _replace(temporary: str, target: Path) -> None:
    """Windows refuses while a virus scanner or an editor has the file open; that passes."""
    for attempt in range(_REPLACE_ATTEMPTS):
        try:
            os.replace(temporary, target)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) is None or attempt == _REPLACE_ATTEMPTS - 1:
                raise
            time.sleep(_REPLACE_PAUSE_S)


def _sync_folder(folder: Path) -> None:
    """Bring the new name itself to the disk, where folders can be synced (not on Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_leftovers(target: Path, prefix: str) -> None:
    """Temporary files of writers that were killed; their age is told by the file system's own clock."""
    with contextlib.suppress(OSError):
        now_s = target.stat().st_mtime
        for entry in os.scandir(target.parent):
            is_ours = entry.name.startswith(prefix) and entry.name.endswith(".tmp")
            if is_ours and now_s - entry.stat(follow_symlinks=False).st_mtime > _LEFTOVER_AGE_S:
                os.unlink(entry.path)
