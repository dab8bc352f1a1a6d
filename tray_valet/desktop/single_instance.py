"""One valet per user: a lock that the system takes back however we end.

Decides: whether another valet runs on the same directories. Must not: talk to it.
"""

from __future__ import annotations

import os
from pathlib import Path

from tray_valet.core.errors import Refused
from tray_valet.desktop.file_lock import took


class AlreadyRunning(Refused):
    """Another valet holds the lock."""


class InstanceLock:
    """An exclusive lock on a file; released by `release`, or by the system when the process is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises AlreadyRunning, OSError where the file cannot be made or locked."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            is_ours = took(handle)
        except OSError:
            os.close(handle)
            raise
        if not is_ours:
            os.close(handle)
            raise AlreadyRunning(
                "Tray Valet is already running.", remedy="`tray-valet status` shows how it is."
            )
        self._handle = handle

    def release(self) -> None:
        """Give the lock back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
