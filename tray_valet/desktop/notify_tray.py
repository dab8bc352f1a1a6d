"""Notices as balloons of the tray icon (pystray's `notify`): the way on Windows, where an icon is there.

Decides: Windows' limits. Must not: import pystray or own the icon; whoever runs the icon sets `notify`.
"""

from __future__ import annotations

from collections.abc import Callable

from tray_valet.core.notices import TextLimits
from tray_valet.desktop.notify_call import CallNotifier, ShowCall

# NOTIFYICONDATAW: szInfoTitle[64] and szInfo[256], each with its final zero, in UTF-16 units
# (https://learn.microsoft.com/windows/win32/api/shellapi/ns-shellapi-notifyicondataw); ctypes raises
# ValueError for more.
WINDOWS_LIMITS = TextLimits(title=63, text=255)


class TrayBalloons:
    """The icon's own `notify(message, title)`, from when the icon is there until it goes."""

    def __init__(self) -> None:
        self.notify: Callable[[str, str], None] | None = None

    def find_call(self) -> ShowCall | None:
        """pystray takes the text first."""
        notify = self.notify
        return None if notify is None else lambda title, text: notify(text, title)


def tray_notifier(balloons: TrayBalloons) -> CallNotifier:
    """Shows notices through the icon, while there is one."""
    return CallNotifier("tray icon", WINDOWS_LIMITS, balloons.find_call, absent="There is no tray icon.")
