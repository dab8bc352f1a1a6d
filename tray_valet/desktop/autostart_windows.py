"""Starting at sign-in on Windows: a value of the user's Run key.

Decides: what the value says, and when Windows ignores it. Must not: need administrator rights, or write
what Task Manager and Settings write, unless the user insists.

Sources: learn.microsoft.com, “Run and RunOnce Registry Keys” (a command line of up to 260 characters);
the list that Task Manager and Settings keep in `Explorer\\StartupApproved\\Run` is not documented: twelve
bytes, of which the first is even (02, 06) for enabled and odd (03, 07) for disabled, as seen by those who
traced it. No value there means enabled. Written from these; not run on Windows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Protocol

from tray_valet.core.autostart import AutostartState, AutostartView, LaunchCommand, SwitchedOffElsewhere
from tray_valet.core.errors import NotSupported

VALUE_NAME = "Tray Valet"
RUN_KEY = r"Software\Microsoft\Windows\CurrentVersion\Run"
APPROVED_KEY = r"Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run"
_COMMAND_MAX_CHARS = 260


class Registry(Protocol):
    """Values under HKEY_CURRENT_USER."""

    def read(self, key: str, name: str) -> str | bytes | None: ...

    def write_text(self, key: str, name: str, text: str) -> None: ...

    def remove(self, key: str, name: str) -> None: ...


class RunKeyAutostart:
    """The user's Run key, and the list by which Windows switches its values off."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def view(self) -> AutostartView:
        """How it stands, by both lists."""
        place = rf"HKEY_CURRENT_USER\{RUN_KEY}\{VALUE_NAME}"
        line = self._registry.read(RUN_KEY, VALUE_NAME)
        if not isinstance(line, str) or not line.strip():
            return AutostartView(state=AutostartState.OFF, place=place)
        argv = split_command_line(line)
        if self._is_switched_off():
            by = "Startup apps in Task Manager or Settings"
            return AutostartView(
                state=AutostartState.SWITCHED_OFF, place=place, argv=argv, switched_off_by=by
            )
        missing = argv[0] if argv and not (os.path.exists(argv[0]) or shutil.which(argv[0])) else ""
        return AutostartView(state=AutostartState.ON, place=place, argv=argv, missing_program=missing)

    def turn_on(self, command: LaunchCommand, *, is_forced: bool = False) -> None:
        """Write the value. Raises SwitchedOffElsewhere, NotSupported for a command line that is too long."""
        # Windows keeps the switch after the value itself is gone, and so it counts then, too.
        if self._is_switched_off():
            if not is_forced:
                raise SwitchedOffElsewhere(
                    AutostartView(
                        state=AutostartState.SWITCHED_OFF,
                        place=RUN_KEY,
                        switched_off_by="Startup apps in Task Manager or Settings",
                    )
                )
            self._registry.remove(APPROVED_KEY, VALUE_NAME)
        line = subprocess.list2cmdline(command.argv)
        if not line.startswith('"'):
            line = f'"{command.argv[0]}"{line[len(command.argv[0]) :]}'
        if len(line) > _COMMAND_MAX_CHARS:
            raise NotSupported(
                f"The command line is too long for Windows to start it at sign-in ({len(line)} characters).",
                remedy=f"Install it in a shorter folder: {_COMMAND_MAX_CHARS} characters at most.",
            )
        self._registry.write_text(RUN_KEY, VALUE_NAME, line)

    def turn_off(self) -> None:
        """Remove the value; the user's own switch stays as it is."""
        self._registry.remove(RUN_KEY, VALUE_NAME)

    def _is_switched_off(self) -> bool:
        approval = self._registry.read(APPROVED_KEY, VALUE_NAME)
        return isinstance(approval, bytes) and len(approval) > 0 and approval[0] % 2 == 1


def split_command_line(line: str) -> tuple[str, ...]:
    """The words of a Windows command line that is quoted as paths are (no quote inside a word)."""
    words: list[str] = []
    rest = line.strip()
    while rest:
        if rest.startswith('"'):
            word, _, rest = rest[1:].partition('"')
        else:
            word, _, rest = rest.partition(" ")
        words.append(word)
        rest = rest.strip()
    return tuple(words)


class UserRegistry:
    """The real registry. Every method raises NotSupported on other systems."""

    def read(self, key: str, name: str) -> str | bytes | None:
        """The value; None where there is none, or where it is neither text nor bytes."""
        if sys.platform == "win32":
            import winreg

            try:
                with winreg.OpenKey(winreg.HKEY_CURRENT_USER, key) as handle:
                    value, _ = winreg.QueryValueEx(handle, name)
            except OSError:
                return None
            return value if isinstance(value, str | bytes) else None
        raise NotSupported("There is no registry on this system.")

    def write_text(self, key: str, name: str, text: str) -> None:
        """Set a text value, making the key where it is missing. Raises OSError."""
        if sys.platform == "win32":
            import winreg

            with winreg.CreateKeyEx(winreg.HKEY_CURRENT_USER, key, 0, winreg.KEY_SET_VALUE) as handle:
                winreg.SetValueEx(handle, name, 0, winreg.REG_SZ, text)
            return
        raise NotSupported("There is no registry on this system.")

    def remove(self, key: str, name: str) -> None:
        """Remove a value. Not there: fine. Raises OSError."""
        if sys.platform == "win32":
            import contextlib
            import winreg

            with (
                contextlib.suppress(FileNotFoundError),
                winreg.OpenKey(winreg.HKEY_CURRENT_USER, key, 0, winreg.KEY_SET_VALUE) as handle,
            ):
                winreg.DeleteValue(handle, name)
            return
        raise NotSupported("There is no registry on this system.")
