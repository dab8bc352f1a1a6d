"""The bridge between the loop thread and the main thread: pictures one way, choices the other.

Decides: that the newest picture wins, and that a choice never waits and never piles up.
Must not: draw, or know what a choice does beyond the command it becomes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable

from tray_valet.core import menu
from tray_valet.core.commands import Valet
from tray_valet.core.errors import ValetError
from tray_valet.core.tray_view import TrayPicture
from tray_valet.tray.no_tray import NoTray, NoTrayReason

_LOG = logging.getLogger(__name__)
_MAX_IN_FLIGHT = 16
_COMMAND_TIMEOUT_S = 900.0  # the largest model from the slowest disk; commands have shorter bounds inside


class PictureSlot:
    """Room for one picture: a newer one takes the place of one that nobody has fetched yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: TrayPicture | None = None
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def put(self, picture: TrayPicture) -> None:
        """Offer a picture. Any thread; returns at once; ignored when closed."""
        with self._changed:
            if not self._is_closed:
                self._newest = picture
                self._changed.notify()

    def take(self, timeout_s: float | None = None) -> TrayPicture | None:
        """Wait for a picture that was not taken yet; None when the slot is closed or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._newest is not None, timeout_s)
            newest, self._newest = self._newest, None
            return None if self._is_closed else newest

    def wait_closed(self, timeout_s: float) -> None:
        """Wait until the slot is closed, but no longer than `timeout_s` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, timeout_s)

    def close(self) -> None:
        """End the tray. Any thread, at any time; twice does nothing."""
        with self._changed:
            self._is_closed = True
            self._newest = None
            self._changed.notify_all()


class CommandSender:
    """Turns choices of the menu into commands on the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        valet: Valet,
        *,
        open_window: Callable[[], Awaitable[None]],
        report: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._valet = valet
        self._open_window = open_window
        self._report = report
        self._running: dict[menu.Choice, asyncio.Task[None]] = {}

    def choose(self, choice: menu.Choice) -> None:
        """Have a choice done. Any thread; returns at once. Failures go to `report`, on the loop."""
        try:
            self._loop.call_soon_threadsafe(self._start, choice)
        except RuntimeError:  # the loop is closed: the valet is ending
            _LOG.debug("Too late for %s", choice)

    def _start(self, choice: menu.Choice) -> None:
        if choice in self._running or len(self._running) >= _MAX_IN_FLIGHT:
            return  # an impatient second click asks for nothing new
        name = f"tray: {choice.__struct_config__.tag}"
        self._running[choice] = self._loop.create_task(self._guarded(choice), name=name)

    async def _guarded(self, choice: menu.Choice) -> None:
        try:
            async with asyncio.timeout(_COMMAND_TIMEOUT_S):
                await self._do(choice)
        except TimeoutError:
            self._report("What was chosen in the tray did not happen in time.")
        except ValetError as error:
            self._report(str(error))
        except Exception:  # noqa: BLE001  # a task guard
            _LOG.exception("A choice of the tray failed: %s", choice)
            self._report("What was chosen in the tray failed; the log says why.")
        finally:
            self._running.pop(choice, None)

    async def _do(self, choice: menu.Choice) -> None:
        match choice:
            case menu.Pause(for_s=for_s):
                await self._valet.pause(for_s=for_s)
            case menu.Resume() | menu.KeepRunning():
                await self._valet.resume()
            case menu.EndPauses(hold_ids=hold_ids):
                for hold_id in hold_ids:
                    await self._valet.end_hold(hold_id)
            case menu.Load(ref=ref):
                await self._valet.load(ref.model, provider=ref.provider)
            case menu.Unload(ref=ref):
                await self._valet.unload(ref.model, provider=ref.provider)
            case menu.OpenWindow():
                await self._open_window()
            case menu.Quit():
                self._valet.request_quit()


class Balloons:
    """The messages that the tray's own system can show (Windows); attached while such a tray runs."""

    def __init__(self) -> None:
        self._show: Callable[[str, str], None] | None = None

    def attach(self, show: Callable[[str, str], None] | None) -> None:
        """Use `show(title, text)` from now on; None = there is none (any more)."""
        self._show = show

    def show(self, title: str, text: str) -> None:
        """Show a message. Any thread. Raises NoTray where no tray that can do it is running."""
        show = self._show
        if show is None:
            raise NoTray(NoTrayReason.NO_BACKEND, "The tray of this system shows no messages.")
        show(title, text)
