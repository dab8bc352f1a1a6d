"""What pystray's Windows icon lacks: sharpness, a menu that stays open, texts that fit.

Decides: the size of the icon and when the menu is rebuilt. Must not: import anything of Windows at the top.

Not run on Windows yet; written from pystray 0.19.5's `_win32.py` and Microsoft's documentation.
"""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path
from typing import Any

from tray_valet.core.short_text import cut

_RIGHT_BUTTON_UP = 0x0205  # WM_RBUTTONUP
_IMAGE_ICON = 1
_LOAD_FROM_FILE = 0x0010
_SMALL_ICON_WIDTH = 49  # SM_CXSMICON: 16 pixels at 96 dpi, more on finer screens
_PER_MONITOR_AWARE_V2 = -4  # DPI_AWARENESS_CONTEXT_PER_MONITOR_AWARE_V2
_BALLOON_TITLE_UNITS = 63  # NOTIFYICONDATAW.szInfoTitle
_BALLOON_TEXT_UNITS = 255  # NOTIFYICONDATAW.szInfo

_Native: Any = object  # the real base comes beside it, from pystray, in `portable.icon_class`


class WindowsManners(_Native):  # type: ignore[misc]  # pystray has no types
    """Goes before pystray's Windows icon. `icon` holds a Drawing."""

    _menu_handle: Any = None
    _icon_handle: Any = None
    _is_menu_open = False

    def run(self, setup: Any = None) -> None:
        _be_dpi_aware()
        super().run(setup)

    def _update_menu(self) -> None:
        """Nothing yet: the menu is made afresh when it is opened. Another thread's rebuild would destroy
        the one that is on the screen."""

    def _on_notify(self, wparam: int, lparam: int) -> None:
        if lparam != _RIGHT_BUTTON_UP:
            super()._on_notify(wparam, lparam)
            return
        if self._is_menu_open:
            return
        self._is_menu_open = True
        try:
            super()._update_menu()
            super()._on_notify(wparam, lparam)
        finally:
            self._is_menu_open = False

    def _assert_icon_handle(self) -> None:
        """Have an icon of exactly the size that the notification area draws."""
        if self._icon_handle:
            return
        size_px = _small_icon_px()
        with tempfile.TemporaryDirectory(prefix="tray-valet-") as folder:
            path = Path(folder, "icon.ico")
            self._icon(size_px).save(path, format="ICO", sizes=[(size_px, size_px)])
            self._icon_handle = _load_icon(path, size_px)

    def _notify(self, message: str, title: str | None = None) -> None:
        super()._notify(cut(message, _BALLOON_TEXT_UNITS), cut(title or "Tray Valet", _BALLOON_TITLE_UNITS))


def escape_label(text: str) -> str:
    """A menu label that shows every `&`: a single one would underline the next letter."""
    return text.replace("&", "&&")


def _user32() -> Any:
    return ctypes.windll.user32  # type: ignore[attr-defined,unused-ignore]  # Windows only


def _be_dpi_aware() -> None:
    """Get real pixels instead of a blurred enlargement. Older systems lack the call, and it fails when
    the program's manifest has decided already: both are fine."""
    try:
        _user32().SetProcessDpiAwarenessContext(ctypes.c_void_p(_PER_MONITOR_AWARE_V2))
    except AttributeError:
        _user32().SetProcessDPIAware()


def _small_icon_px() -> int:
    return max(16, int(_user32().GetSystemMetrics(_SMALL_ICON_WIDTH)))


def _load_icon(path: Path, size_px: int) -> Any:
    load = _user32().LoadImageW
    load.restype = ctypes.c_void_p
    load.argtypes = (
        ctypes.c_void_p,
        ctypes.c_wchar_p,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_uint,
    )
    return load(None, str(path), _IMAGE_ICON, size_px, size_px, _LOAD_FROM_FILE)
