"""What pystray's macOS icon lacks: the main thread, a template image, a menu that stays true while open.

Decides: on which thread and when AppKit is told. Must not: import anything of macOS at the top.

A click anywhere on a status item with a menu opens the menu, so "Open…" is the menu's bold default entry.
Not run on macOS yet; written from pystray 0.19.5's `_darwin.py` and Apple's documentation.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

_POINTS = 18
_PIXELS = 2 * _POINTS  # for Retina screens; others scale it down evenly
_MENU_OPEN_AGAIN_S = 0.3
_ACCESSORY = 1  # NSApplicationActivationPolicyAccessory: no icon in the Dock

_Native: Any = object  # the real base comes beside it, from pystray, in `portable.icon_class`


class MacosManners(_Native):  # type: ignore[misc]  # pystray has no types
    """Goes before pystray's macOS icon. `icon` holds a Drawing of a template."""

    def _run(self) -> None:
        # pystray's own would take SIGINT and end the process without our orderly end.
        self._app.setActivationPolicy_(_ACCESSORY)
        self._mark_ready()
        try:
            self._app.run()
        finally:
            self._status_bar.removeStatusItem_(self._status_item)

    def _show(self) -> None:
        _on_main_thread(super()._show)

    def _hide(self) -> None:
        _on_main_thread(super()._hide)

    def _update_icon(self) -> None:
        _on_main_thread(super()._update_icon)

    def _update_title(self) -> None:
        _on_main_thread(super()._update_title)

    def _update_menu(self) -> None:
        _on_main_thread(lambda: self._update_closed_menu(super(MacosManners, self)._update_menu))

    def _stop(self) -> None:
        _on_main_thread(super()._stop)

    def _update_closed_menu(self, update: Callable[[], None]) -> None:
        """Replace the menu while it is closed: pystray finds the clicked item by its place."""
        import AppKit  # type: ignore[import-not-found,unused-ignore]
        from PyObjCTools import AppHelper  # type: ignore[import-not-found,unused-ignore]

        mode = AppKit.NSRunLoop.currentRunLoop().currentMode()
        if mode == AppKit.NSEventTrackingRunLoopMode:
            AppHelper.callLater(_MENU_OPEN_AGAIN_S, self._update_closed_menu, update)
        else:
            update()

    def _assert_image(self) -> None:
        """Have the drawing as a template image, which the menu bar colours for light and dark."""
        import AppKit
        import Foundation  # type: ignore[import-not-found,unused-ignore]

        png = io.BytesIO()
        self._icon(_PIXELS).save(png, format="PNG")
        data = png.getvalue()
        image = AppKit.NSImage.alloc().initWithData_(Foundation.NSData.dataWithBytes_length_(data, len(data)))
        image.setSize_((_POINTS, _POINTS))
        image.setTemplate_(True)
        self._icon_image = image
        self._status_item.button().setImage_(image)


def _on_main_thread(function: Callable[[], None]) -> None:
    """AppKit may be told from the main thread only; anything else is a trap on newer systems."""
    from PyObjCTools import AppHelper

    AppHelper.callAfter(function)
