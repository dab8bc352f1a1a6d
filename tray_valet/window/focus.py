"""Brings the window to the front, in the way its toolkit needs.

Decides: how. Must not: steal the focus without the user's click (it is called for one).
Sources: pywebview's platform modules (what `restore` and `show` do on each); GDK 3's
`gdk_x11_get_server_time`, without which window managers take the request for an old one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def bring_to_front(window: Any, renderer: str) -> None:
    """Unminimise, raise and focus `window` (pywebview's). May be called from any thread."""
    if renderer == "gtkwebkit2":
        _present_gtk(window.native)
        return
    window.restore()
    window.show()
    if renderer == "qtwebengine":
        # Qt's show() raises nothing that is shown already; a change of this flag does.
        window.on_top = True
        window.on_top = False


def _present_gtk(native: Any) -> None:
    glib = import_module("gi.repository.GLib")

    def present() -> bool:
        native.deiconify()
        native.present_with_time(_x11_time(native))
        return False  # once

    glib.idle_add(present)


def _x11_time(native: Any) -> int:
    """The X server's time now; 0 (“now”) on Wayland, where the compositor decides."""
    try:
        import_module("gi").require_version("GdkX11", "3.0")
        gdk_x11 = import_module("gi.repository.GdkX11")
        return int(gdk_x11.x11_get_server_time(native.get_window()))
    except (ImportError, ValueError, TypeError):
        return 0
