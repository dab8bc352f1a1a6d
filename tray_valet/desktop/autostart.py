"""Starting at sign-in: this system's list, and the command that goes into it.

Decides: which list, and how this very installation is started. Must not: turn anything on by itself.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tray_valet.core.autostart import Autostart, LaunchCommand
from tray_valet.desktop.paths import HOME_VARIABLE

_PROGRAM = "tray-valet"


def system_autostart(environ: Mapping[str, str] = os.environ) -> Autostart:
    """The list of the system this is."""
    if sys.platform == "win32":
        from tray_valet.desktop.autostart_windows import RunKeyAutostart, UserRegistry

        return RunKeyAutostart(UserRegistry())
    if sys.platform == "darwin":
        from tray_valet.desktop.autostart_macos import LaunchAgentAutostart, disabled_services

        return LaunchAgentAutostart(Path.home() / "Library" / "LaunchAgents", disabled_services)
    from tray_valet.desktop.autostart_xdg import XdgAutostart

    return XdgAutostart.of_environment(environ)


def launch_command(
    environ: Mapping[str, str] = os.environ,
    *,
    config_path: str | None = None,
    is_root_allowed: bool = False,
) -> LaunchCommand:
    """What starts this installation with its tray, with the same settings and folders as now."""
    arguments = [
        *(("--config", os.path.abspath(os.path.expanduser(config_path))) if config_path else ()),
        *(("--allow-root",) if is_root_allowed else ()),
    ]
    home = environ.get(HOME_VARIABLE, "")
    kept = ((HOME_VARIABLE, os.path.abspath(os.path.expanduser(home))),) if home else ()
    return LaunchCommand(argv=(*_program(), *arguments), environment=kept)


def _program() -> tuple[str, ...]:
    if getattr(sys, "frozen", False):
        return (os.path.abspath(sys.executable),)
    python = Path(os.path.abspath(sys.executable))  # not resolved: a virtual environment is a link
    if sys.platform == "win32":
        windowless = python.with_name("pythonw.exe")  # a console would stand open beside the tray
        return (str(windowless if windowless.exists() else python), "-m", "tray_valet")
    script = python.with_name(_PROGRAM)
    if script.exists() and shutil.which(str(script)):
        return (str(script),)
    return (str(python), "-m", "tray_valet")
