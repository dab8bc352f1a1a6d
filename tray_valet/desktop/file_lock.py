"""A lock between processes on a file, let go by the system when its holder dies.

Decides: how this system locks a file.
Must not: know what the lock protects.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tray_valet.core.errors import TimedOut

_PAUSE_S = 0.02


@contextlib.contextmanager
def locked(path: Path, *, timeout_s: float = 5.0) -> Iterator[None]:
    """Hold the lock file `path` (made where missing, 0600, never removed) exclusively.

    Blocks; call it in a worker thread. Raises TimedOut after `timeout_s` seconds, OSError where no lock
    file can be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline_s = time.monotonic() + timeout_s
        while not took(handle):
            if time.monotonic() > deadline_s:
                raise TimedOut(f"{path.name} is held by another program.", retry_after_s=1.0)
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(handle)  # lets go, too


def took(handle: int) -> bool:
    """Whether the lock on an open file is ours now; False while another program holds it. Raises OSError."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX says the first, Windows' locking the second
        return False
    return True
