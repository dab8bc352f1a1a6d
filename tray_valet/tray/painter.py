"""The painter: brings the newest picture onto the icon, in a thread of its own.

Decides: what must be redrawn (only what differs) and how often at most. Must not: know the system.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from tray_valet.core.menu import Choice
from tray_valet.core.tray_view import Face, TrayPicture, TrayView, starting_view, tray_view
from tray_valet.tray.bridge import PictureSlot
from tray_valet.tray.pystray_base import Drawing, menu_of

_LOG = logging.getLogger(__name__)
_LEAST_APART_S = 0.2


class Painter:
    """Paints a pystray icon. `drawing`, `tooltip` and `label` make what a system shows of our values."""

    def __init__(
        self,
        slot: PictureSlot,
        choose: Callable[[Choice], None],
        *,
        drawing: Callable[[Face], Drawing],
        tooltip: Callable[[TrayView], str],
        label: Callable[[str], str] = str,
    ) -> None:
        self._slot = slot
        self._choose = choose
        self._drawing = drawing
        self._tooltip = tooltip
        self._label = label
        self._shown = starting_view()

    def first_look(self) -> dict[str, Any]:
        """What the icon is made with, before any picture has come."""
        return {
            "icon": self._drawing(self._shown.face),
            "title": self._tooltip(self._shown),
            "menu": menu_of(self._shown.entries, self._choose, self._label),
        }

    def run(self, icon: Any) -> None:
        """Paint until the slot is closed, then stop the icon. For pystray's set-up thread."""
        try:
            icon.visible = True
            while not self._slot.is_closed:
                picture = self._slot.take()
                if picture is not None:
                    self._paint_guarded(icon, picture)
                self._slot.wait_closed(_LEAST_APART_S)
        finally:
            icon.stop()

    def _paint_guarded(self, icon: Any, picture: TrayPicture) -> None:
        try:
            self._paint(icon, tray_view(picture))
        except Exception:  # noqa: BLE001  # a task guard: one bad picture is not the end of the tray
            _LOG.exception("The tray could not be painted")

    def _paint(self, icon: Any, view: TrayView) -> None:
        before, self._shown = self._shown, view
        if view.face != before.face:
            icon.icon = self._drawing(view.face)
        if (view.title, view.line) != (before.title, before.line):
            icon.title = self._tooltip(view)
        if view.entries != before.entries:
            icon.menu = menu_of(view.entries, self._choose, self._label)
