"""Starting at sign-in on macOS: a launch agent of the user.

Decides: what the property list says, and when launchd would ignore it. Must not: load or unload it now:
that would start a second valet, or end the one that launchd has started.

Sources: launchd.plist(5) on Label, ProgramArguments, RunAtLoad, ProcessType, LimitLoadToSessionType and
Disabled; launchctl(1) on `print-disabled`, whose lines read `"label" => disabled` (`=> true` in older ones).
Written from these; not run on a Mac.
"""

from __future__ import annotations

import os
import plistlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tray_valet.core.autostart import AutostartState, AutostartView, LaunchCommand, SwitchedOffElsewhere

LABEL = "io.github.tray-valet"
_TIMEOUT_S = 5.0
_DISABLED_LINE = re.compile(r'^\s*"(?P<label>[^"]+)"\s*=>\s*(?:disabled|true)\s*$', re.MULTILINE)


class LaunchAgentAutostart:
    """`~/Library/LaunchAgents` and launchd's own list of what the user has disabled (labels)."""

    def __init__(self, folder: Path, disabled: Callable[[], frozenset[str]]) -> None:
        self._file = folder / f"{LABEL}.plist"
        self._disabled = disabled

    def view(self) -> AutostartView:
        """How it stands, by the property list and by launchd."""
        agent = self._read()
        if agent is None:
            return AutostartView(state=AutostartState.OFF, place=str(self._file))
        argv = tuple(str(word) for word in agent.get("ProgramArguments", ()))
        missing = argv[0] if argv and not os.access(argv[0], os.X_OK) else ""
        by = ""
        if agent.get("Disabled") is True:
            by = f"Disabled in {self._file}"
        elif LABEL in self._disabled():
            by = "Login Items in System Settings, or launchctl"
        state = AutostartState.ON if argv and agent.get("RunAtLoad") is True else AutostartState.OFF
        return AutostartView(
            state=AutostartState.SWITCHED_OFF if by else state,
            place=str(self._file),
            argv=argv,
            switched_off_by=by,
            missing_program="" if by else missing,
        )

    def turn_on(self, command: LaunchCommand, *, is_forced: bool = False) -> None:
        """Write the property list; launchd reads it at the next sign-in. Raises SwitchedOffElsewhere."""
        view = self.view()
        if view.state is AutostartState.SWITCHED_OFF and not is_forced:
            raise SwitchedOffElsewhere(view)
        agent: dict[str, Any] = {
            "Label": LABEL,
            "ProgramArguments": list(command.argv),
            "RunAtLoad": True,
            "ProcessType": "Interactive",
            "LimitLoadToSessionType": "Aqua",
        }
        if command.environment:
            agent["EnvironmentVariables"] = dict(command.environment)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(plistlib.dumps(agent))
            temporary.replace(self._file)
        finally:
            temporary.unlink(missing_ok=True)
        if LABEL in self._disabled():
            _enable()

    def turn_off(self) -> None:
        """Remove the property list; what runs goes on."""
        self._file.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        try:
            agent = plistlib.loads(self._file.read_bytes())
        except (OSError, ValueError, plistlib.InvalidFileException):
            return None
        return agent if isinstance(agent, dict) else None


def disabled_services() -> frozenset[str]:
    """The labels that launchd has disabled for this user; none where it cannot be asked."""
    return disabled_labels(_launchctl("print-disabled", _domain()))


def disabled_labels(text: str) -> frozenset[str]:
    """The labels in the answer of `launchctl print-disabled`."""
    return frozenset(found["label"] for found in _DISABLED_LINE.finditer(text))


def _enable() -> None:
    """Lift launchd's own switch; it starts nothing by itself."""
    _launchctl("enable", f"{_domain()}/{LABEL}")


def _domain() -> str:
    return f"gui/{os.getuid() if hasattr(os, 'getuid') else 0}"


def _launchctl(*words: str) -> str:
    try:
        done = subprocess.run(
            ["/bin/launchctl", *words], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
