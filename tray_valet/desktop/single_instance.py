"""One valet per user: a lock that the system takes back however we end.

Decides: whether another valet runs on the same directories. Must not: talk to it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

from tray_valet.core.errors import Refused


class AlreadyRunning(Refused):
    """Another valet holds the lock."""


class InstanceLock:
    """An exclusive lock on a file; released by `release`, or by the system when the process is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock. Raises AlreadyRunning."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        file = os.fdopen(descriptor, "r+", encoding="ascii")
        try:
            _lock(file)
        except OSError as error:
            file.close()
            raise AlreadyRunning(
                "Tray Valet is already running.", remedy="`tray-valet status` shows how it is."
            ) from error
        self._file = file

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lock(file: IO[str]) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
