"""The tray on Windows and macOS: pystray's own backends with the manners that they lack.

Decides: which manners go with which backend, and how texts fit the system. Must not: import a backend
before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tray_valet.core.processes import System
from tray_valet.core.short_text import cut
from tray_valet.core.tray_view import Face, TrayView
from tray_valet.tray.icon_drawing import draw_face
from tray_valet.tray.macos_icon import MacosManners
from tray_valet.tray.no_tray import no_backend
from tray_valet.tray.pystray_base import Drawing
from tray_valet.tray.windows_icon import WindowsManners, escape_label

# NOTIFYICONDATAW.szTip holds 128 units with the closing zero; pystray raises ValueError beyond.
# https://learn.microsoft.com/windows/win32/api/shellapi/ns-shellapi-notifyicondataw
_WINDOWS_TOOLTIP_UNITS = 127
_MACOS_TOOLTIP_UNITS = 320


def icon_class(system: System) -> Callable[..., Any]:
    """The class to make the icon with. Raises NoTray when this system's library cannot be used."""
    try:
        if system is System.WINDOWS:
            from pystray import _win32

            return type("WindowsIcon", (WindowsManners, _win32.Icon), {})
        from pystray import _darwin

        return type("MacosIcon", (MacosManners, _darwin.Icon), {})
    except (ImportError, AttributeError, OSError) as error:
        raise no_backend(f"pystray cannot be used here: {error}") from error


def label_for(system: System) -> Callable[[str], str]:
    """What makes a text a menu label."""
    return escape_label if system is System.WINDOWS else str


def tooltip_for(system: System) -> Callable[[TrayView], str]:
    """What makes a view's title and line a tooltip."""
    units = _WINDOWS_TOOLTIP_UNITS if system is System.WINDOWS else _MACOS_TOOLTIP_UNITS
    return lambda view: cut(f"{view.title}\n{view.line}".strip(), units)


def drawing_for(system: System) -> Callable[[Face], Drawing]:
    """What makes a face a drawing: a template on macOS, which colours menu bar icons itself."""
    return lambda face: partial(draw_face, face, is_template=system is System.MACOS)
