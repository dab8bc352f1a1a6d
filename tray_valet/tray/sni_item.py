"""The icon on D-Bus (org.kde.StatusNotifierItem): what panels read to draw it.

Decides: the properties and signals of the item, and the form of its pixmaps. Must not: register it.

Source: https://www.freedesktop.org/wiki/Specifications/StatusNotifierItem/StatusNotifierItem/
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from tray_valet.core.short_text import cut
from tray_valet.tray.bus_object import BusObject, Method, Property
from tray_valet.tray.dbus_menu import MENU_PATH
from tray_valet.tray.icon_drawing import PANEL_SIZES_PX
from tray_valet.tray.pystray_base import Drawing

ITEM_PATH = "/StatusNotifierItem"
_INTERFACE = "org.kde.StatusNotifierItem"
_TITLE_UNITS = 80
_LINE_UNITS = 240

Pixmap = list[Any]  # [width, height, bytes]


class SniItem:
    """Serves the icon. `activate` is called for a left click, on the connection's loop."""

    def __init__(self, name: str, activate: Callable[[], None]) -> None:
        self._activate = activate
        self._pixmaps: list[Pixmap] = []
        self._tooltip = ("", "")
        self._is_shown = True
        nothing = Property("a(iiay)", list)
        no_name = Property("s", str)
        self.bus_object = BusObject(
            ITEM_PATH,
            _INTERFACE,
            methods={
                "Activate": Method("ii", "", self._on_activate),
                "SecondaryActivate": Method("ii", "", lambda _x, _y: []),
                "ContextMenu": Method("ii", "", lambda _x, _y: []),  # panels show the menu themselves
                "Scroll": Method("is", "", lambda _delta, _orientation: []),
                "ProvideXdgActivationToken": Method("s", "", lambda _token: []),
            },
            properties={
                "Category": Property("s", lambda: "ApplicationStatus"),
                "Id": Property("s", lambda: name),
                "Title": Property("s", lambda: "Tray Valet"),
                "Status": Property("s", lambda: "Active" if self._is_shown else "Passive"),
                "WindowId": Property("i", lambda: 0),
                "IconThemePath": no_name,
                "IconName": no_name,
                "IconPixmap": Property("a(iiay)", lambda: self._pixmaps),
                "OverlayIconName": no_name,
                "OverlayIconPixmap": nothing,
                "AttentionIconName": no_name,
                "AttentionIconPixmap": nothing,
                "AttentionMovieName": no_name,
                "ToolTip": Property("(sa(iiay)ss)", self._read_tooltip),
                "ItemIsMenu": Property("b", lambda: False),  # a left click is Activate, not the menu
                "Menu": Property("o", lambda: MENU_PATH),
            },
            signals={
                "NewIcon": "",
                "NewTitle": "",
                "NewToolTip": "",
                "NewAttentionIcon": "",
                "NewOverlayIcon": "",
                "NewStatus": "s",
            },
        )

    def take_pixmaps(self, pixmaps: list[Pixmap]) -> None:
        """Show these from now on."""
        self._pixmaps = pixmaps
        self.bus_object.emit("NewIcon")

    def take_tooltip(self, text: str) -> None:
        """Show this text from now on: a title, and after a line break what stands below it."""
        title, _, line = text.partition("\n")
        self._tooltip = (cut(title, _TITLE_UNITS), cut(line, _LINE_UNITS))
        self.bus_object.emit("NewToolTip")

    def show(self, is_shown: bool) -> None:
        """Let panels show or hide the icon."""
        self._is_shown = is_shown
        self.bus_object.emit("NewStatus", "Active" if is_shown else "Passive")

    def _read_tooltip(self) -> list[Any]:
        title, line = self._tooltip
        return ["", [], title, escape(line, quote=False)]  # the description may hold mark-up, says the source

    def _on_activate(self, _x: int, _y: int) -> list[Any]:
        self._activate()
        return []


def pixmaps_of(drawing: Drawing) -> list[Pixmap]:
    """A drawing in every panel size, as ARGB with the alpha first (network byte order)."""
    pixmaps = []
    for size_px in PANEL_SIZES_PX:
        rgba = drawing(size_px).tobytes("raw", "RGBA")
        argb = bytearray(len(rgba))
        argb[0::4], argb[1::4], argb[2::4], argb[3::4] = rgba[3::4], rgba[0::4], rgba[1::4], rgba[2::4]
        pixmaps.append([size_px, size_px, bytes(argb)])
    return pixmaps
