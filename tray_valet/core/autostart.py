"""Starting when the user signs in: how it stands, and what would be started.

Decides: the words for it, and the refusal to undo what the user switched off in the system's own list.
Must not: know where a system keeps such entries (`desktop/autostart_*.py` do).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec

from tray_valet.core.errors import ErrorCode, Refused


class AutostartState(StrEnum):
    """What happens when the user signs in next."""

    ON = "on"
    OFF = "off"
    SWITCHED_OFF = "switched_off"  # there is an entry, and the user has switched it off elsewhere


class LaunchCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What starts the valet: an absolute program with its arguments, and what must be in its environment."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


class AutostartView(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands. `place`: the file or registry value; `argv`: what it starts, () where unknown."""

    state: AutostartState
    place: str
    argv: tuple[str, ...] = ()
    switched_off_by: str = ""  # where the user has switched it off, for people
    missing_program: str = ""  # the program it would start is no longer there


class SwitchedOffElsewhere(Refused):
    """The user has switched the entry off in the system's own list, and that is left as it is."""

    code = ErrorCode.NOT_SUPPORTED

    def __init__(self, view: AutostartView) -> None:
        super().__init__(
            f"Starting at sign-in was switched off elsewhere ({view.switched_off_by}).",
            remedy="Switch it on there, or insist with: tray-valet autostart on --force",
        )


class Autostart(Protocol):
    """One system's list of programs to start at sign-in. Calls touch files: not for the loop thread."""

    def view(self) -> AutostartView:
        """How it stands now. Never raises for what is in the list."""
        ...

    def turn_on(self, command: LaunchCommand, *, is_forced: bool = False) -> None:
        """Enter `command` for the next sign-in. On already: brought up to date.

        Raises SwitchedOffElsewhere unless `is_forced`, NotSupported, OSError.
        """
        ...

    def turn_off(self) -> None:
        """Take the entry out. Not there: fine. Nothing that runs is ended. Raises OSError."""
        ...
