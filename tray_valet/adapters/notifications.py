"""How notifications are shown on this system."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from tray_valet.core.ports import Notifier
from tray_valet.core.processes import System
from tray_valet.desktop.notify_chain import NotifierChain
from tray_valet.desktop.notify_tray import TrayBalloons, tray_notifier


def system_notifier(system: System, environ: Mapping[str, str], balloons: TrayBalloons) -> Notifier:
    """The ways that this system has, best first. Nothing is connected or imported before the first notice.

    On Linux nothing follows D-Bus: all that plyer could do there ends at the same service.
    """
    if system is System.LINUX and importlib.util.find_spec("dbus_fast") is not None:
        from tray_valet.desktop.notify_dbus import DbusNotifier

        return DbusNotifier(environ)
    from tray_valet.desktop.notify_plyer import plyer_notifier

    if system is System.WINDOWS:
        return NotifierChain((tray_notifier(balloons), plyer_notifier()))
    if system is System.MACOS:
        from tray_valet.desktop.notify_macos import BundleNotifier, is_bundle
        from tray_valet.desktop.notify_osascript import OsascriptNotifier

        ways: tuple[Notifier, ...] = (OsascriptNotifier(), plyer_notifier())
        return NotifierChain((BundleNotifier(), *ways) if is_bundle() else ways)
    return plyer_notifier()
