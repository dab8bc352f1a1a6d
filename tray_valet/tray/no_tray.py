"""Why there is no tray, and what the user can do about it.

Decides: the sentence and the remedy of each case. Must not: find out which case it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from tray_valet.core.errors import ValetError


class NoTrayReason(StrEnum):
    """What is missing."""

    NO_BUS = "no_bus"  # no session bus answers: no desktop session, or a bare container
    BUS_LOST = "bus_lost"  # it went away: the session ended
    NO_PANEL = "no_panel"  # a bus, but nobody who shows icons; one may come later
    NO_BACKEND = "no_backend"  # a library for this system is missing or broken


class NoTray(ValetError):
    """There is no tray here (yet); the valet itself is fine."""

    def __init__(self, reason: NoTrayReason, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


def no_bus(detail: str) -> NoTray:
    """No session bus answers; `detail` says what was tried."""
    return NoTray(
        NoTrayReason.NO_BUS,
        f"There is no tray: no D-Bus session bus answers ({detail}).",
        remedy="Start Tray Valet inside a desktop session, or use `tray-valet serve`.",
    )


def bus_lost() -> NoTray:
    """The session bus closed the connection."""
    return NoTray(
        NoTrayReason.BUS_LOST,
        "The tray is gone: the D-Bus session bus closed the connection.",
        remedy="Start Tray Valet again in the new desktop session.",
    )


def no_panel(environment: Mapping[str, str]) -> NoTray:
    """Nobody shows Status Notifier icons. GNOME has none of its own; its extension brings it.

    Source: https://extensions.gnome.org/extension/615/appindicator-support/
    """
    desktop = environment.get("XDG_CURRENT_DESKTOP", "")
    if "GNOME" in desktop.upper().split(":"):
        remedy = (
            "Install the GNOME extension “AppIndicator and KStatusNotifierItem Support” "
            "(package gnome-shell-extension-appindicator) and switch it on."
        )
    elif environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"):
        remedy = (
            "Add a system tray (Status Notifier) to the panel; "
            "on GNOME, the extension “AppIndicator and KStatusNotifierItem Support”."
        )
    else:
        remedy = "There is no display either; `tray-valet serve` runs without one."
    return NoTray(NoTrayReason.NO_PANEL, "This desktop has no tray.", remedy=remedy)


def no_backend(detail: str) -> NoTray:
    """This system's tray library cannot be used."""
    return NoTray(
        NoTrayReason.NO_BACKEND,
        f"There is no tray: {detail}",
        remedy="Install Tray Valet again, or use `tray-valet serve`.",
    )
