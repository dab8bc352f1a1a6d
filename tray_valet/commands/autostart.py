"""`autostart on|off|status`: whether the valet starts when the user signs in.

Decides: what is said about it, and that the settings say the same afterwards.
Must not: need a running valet, or start and end one.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from tray_valet.commands.tables import as_json
from tray_valet.core.autostart import AutostartState, AutostartView
from tray_valet.core.errors import ValetError
from tray_valet.desktop.autostart import launch_command, system_autostart
from tray_valet.desktop.paths import config_file_of, directories_of
from tray_valet.services.autostart_wish import AutostartWish
from tray_valet.services.settings import SettingsStore


def turn_on(*, config_path: str | None, is_root_allowed: bool, is_forced: bool, is_json: bool) -> None:
    """Start at every sign-in from the next one on. Raises SwitchedOffElsewhere, NotSupported, OSError."""
    command = launch_command(os.environ, config_path=config_path, is_root_allowed=is_root_allowed)
    system_autostart(os.environ).turn_on(command, is_forced=is_forced)
    _note(config_path, is_wanted=True)
    status(is_json=is_json)


def turn_off(*, config_path: str | None, is_json: bool) -> None:
    """Start no more at sign-in; a valet that runs goes on. Raises OSError."""
    system_autostart(os.environ).turn_off()
    _note(config_path, is_wanted=False)
    status(is_json=is_json)


def status(*, is_json: bool) -> None:
    """How it stands."""
    view = system_autostart(os.environ).view()
    print(as_json(json_of(view)) if is_json else text_of(view))


def json_of(view: AutostartView) -> dict[str, Any]:
    """The same for programs."""
    return {
        "autostart": "on" if view.state is AutostartState.ON else "off",
        "switched_off_elsewhere": view.state is AutostartState.SWITCHED_OFF,
        "switched_off_by": view.switched_off_by or None,
        "place": view.place,
        "command": list(view.argv),
        "missing_program": view.missing_program or None,
    }


def text_of(view: AutostartView) -> str:
    """In words."""
    if view.state is AutostartState.OFF:
        return "Autostart is off. Nothing steps aside unless Tray Valet runs: tray-valet autostart on"
    if view.state is AutostartState.SWITCHED_OFF:
        return f"Autostart is off: it was switched off elsewhere ({view.switched_off_by})."
    text = f"Autostart is on: Tray Valet starts when you sign in ({view.place})."
    if view.missing_program:
        text += (
            f"\nBut {view.missing_program} is no longer there. Bring it up to date: tray-valet autostart on"
        )
    return text


def _note(config_path: str | None, *, is_wanted: bool) -> None:
    """Let the settings say the same; what they say counts as applied, so that no valet applies it again."""
    directories = directories_of(os.environ)
    store = SettingsStore(config_file_of(directories, os.environ, config_path), os.environ)
    wish = AutostartWish(
        directories.autostart_file,
        lambda: system_autostart(os.environ),
        lambda: launch_command(os.environ, config_path=config_path),
    )
    try:
        directories.make()
        try:
            if store.load().desktop.autostart is not is_wanted:
                store.update({"desktop": {"autostart": is_wanted}})
        finally:
            wish.note(store.current.desktop.autostart)
    except (ValetError, OSError) as error:
        print(f"tray-valet: The settings file could not be brought up to date: {error}", file=sys.stderr)
