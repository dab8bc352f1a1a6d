"""Which operating system this is, and whether we may run as who we are."""

from __future__ import annotations

import os
import sys

from tray_valet.core.errors import RootRefused
from tray_valet.core.processes import System


def current_system() -> System:
    """The system whose rules and adapters apply."""
    if sys.platform == "win32":
        return System.WINDOWS
    return System.MACOS if sys.platform == "darwin" else System.LINUX


def is_root() -> bool:
    """Whether this process may do everything, as far as the system has such a user."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def refuse_root(*, is_allowed: bool) -> None:
    """Raise RootRefused when run as root without being told that it is meant."""
    if is_root() and not is_allowed:
        raise RootRefused(
            "Tray Valet does not run as root.",
            remedy="Start it as the user who plays, or say --allow-root (TRAY_VALET_ALLOW_ROOT=1).",
        )
