"""Notices through plyer: the portable fallback where nothing better is there.

Decides: what plyer must not be given. Must not: be the first choice: on Linux it may end in notify-send,
which reads a title that begins with a hyphen as an option and never lets the notice expire; on macOS it
needs pyobjus (plyer 2.1, plyer/platforms/*/notification.py).
"""

from __future__ import annotations

from tray_valet.desktop.notify_call import CallNotifier, ShowCall
from tray_valet.desktop.notify_tray import WINDOWS_LIMITS

_SHOWN_S = 10
_WORD_JOINER = "\u2060"


def plyer_notifier() -> CallNotifier:
    """Shows notices by whatever plyer finds here."""
    return CallNotifier("plyer", WINDOWS_LIMITS, _find_call, absent="plyer is not installed.")


def _find_call() -> ShowCall | None:
    try:
        from plyer import notification
    except ImportError:
        return None

    def call(title: str, text: str) -> None:
        notification.notify(
            title=_no_option(title), message=_no_option(text), app_name="Tray Valet", timeout=_SHOWN_S
        )

    return call


def _no_option(text: str) -> str:
    """An invisible character in front keeps a hyphen from being taken for an option."""
    return _WORD_JOINER + text if text.startswith("-") else text
