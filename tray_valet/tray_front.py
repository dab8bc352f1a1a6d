"""What a desktop session adds to the services: the icon on the main thread, the notifications on the loop.

Decides: how the two threads meet, what is said where there can be no icon, and when it is tried again: the
valet may outlive a desktop session, and the next one finds it running. Must not: draw, word the menu
(`core/menu.py`) or do what is chosen there.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future

from tray_valet.core.menu import OpenWindow
from tray_valet.desktop.system import current_system
from tray_valet.tray.bridge import Balloons, CommandSender, PictureSlot
from tray_valet.tray.feed import feed
from tray_valet.tray.no_tray import NoTray, NoTrayReason
from tray_valet.wiring import Wiring

_LOG = logging.getLogger(__name__)
_UP_TIMEOUT_S = 15.0
_AGAIN_S = 20.0
_NEW_SLOT_LOOK_S = 1.0
_PASSING = frozenset({NoTrayReason.NO_BUS, NoTrayReason.BUS_LOST})


class TrayFront:
    """The icon and its messages. `say` prints a sentence for whoever has started us by hand.

    `again_s`: how long after an icon could not be shown, or is gone with its session, it is tried again.
    """

    def __init__(self, say: Callable[[str], None], *, again_s: float = _AGAIN_S) -> None:
        self._say = say
        self._again_s = again_s
        self._has_said = False
        self._has_ended = threading.Event()
        self._slot = PictureSlot()
        self._balloons = Balloons()
        self._sender: Future[CommandSender | None] = Future()
        self._is_up = threading.Event()  # the services answer, or have ended
        self._url = ""

    def loops(self, valet: Wiring) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What runs on the loop beside the services. Called there, once they are built."""

        async def open_window() -> None:
            await valet.servers.window.open()

        async def show() -> None:
            self._url = f"{valet.addresses.control_url}/ui/"
            self._is_up.set()
            while True:
                if not self._slot.is_closed:
                    await feed(self._slot, valet.valet)
                await asyncio.sleep(_NEW_SLOT_LOOK_S)  # a new one when the icon is tried again

        sender = CommandSender(
            asyncio.get_running_loop(), valet.valet, open_window=open_window, report=_report
        )
        valet.balloons.notify = lambda text, title: self._balloons.show(title, text)
        valet.notifier.open_window = lambda: sender.choose(OpenWindow())
        self._sender.set_result(sender)
        return {"tray": show}

    def run(self) -> None:
        """Show the icon until the services have ended; returns before where there can never be one.

        Main thread only. Nothing that goes wrong here ends the services.
        """
        try:
            sender = self._sender.result()
            while sender is not None and self._may_come_back(sender):
                self._has_ended.wait(self._again_s)
                self._slot = PictureSlot()
                if self._has_ended.is_set():
                    return
        except Exception:  # noqa: BLE001  # the guard of the main thread
            _LOG.exception("The tray failed; everything else goes on")
            self._slot.close()

    def _may_come_back(self, sender: CommandSender) -> bool:
        """Show the icon once; whether it is worth another try when this has ended."""
        from tray_valet.tray.run import run_tray

        try:
            run_tray(
                self._slot,
                sender,
                system=current_system(),
                balloons=self._balloons,
                report_missing=self._tell_missing,
            )
        except NoTray as error:
            self._tell_missing(error)
            return error.reason in _PASSING
        return False

    def close(self) -> None:
        """The services have ended: let the icon go. Any thread."""
        self._has_ended.set()
        self._slot.close()
        self._is_up.set()
        if not self._sender.done():
            self._sender.set_result(None)

    def _tell_missing(self, error: NoTray) -> None:
        """Say once why there is no icon, and where the window is."""
        self._is_up.wait(_UP_TIMEOUT_S)
        if (
            self._has_said or not self._url
        ):  # without an address the services have not come up: `join` says why
            return
        self._has_said = True
        text = f"{error.message} Tray Valet is at {self._url}. {error.remedy}".strip()
        _LOG.info("%s", text)
        self._say(text)


def _report(text: str) -> None:
    _LOG.warning("%s", text)
