"""The tray on Linux: a pystray backend over D-Bus, without GTK and without X.

Decides: how the icon gets onto a panel and stays there (panels come late and start again).
Must not: decide what is shown, or run on any thread but the main one once it runs.

pystray's setters may be called from any thread: what they change is handed to the connection's loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tray_valet.tray.dbus_menu import DbusMenu
from tray_valet.tray.no_tray import NoTray, bus_lost, no_bus, no_panel
from tray_valet.tray.panel_watch import PanelWatch
from tray_valet.tray.pystray_base import BaseIcon
from tray_valet.tray.sni_item import SniItem, pixmaps_of

if TYPE_CHECKING:
    from dbus_fast.aio import MessageBus

_LOG = logging.getLogger(__name__)
_CONNECT_TIMEOUT_S = 5.0
_DISCONNECT_TIMEOUT_S = 1.0


class SniIcon(BaseIcon):  # type: ignore[misc]  # pystray has no types
    """pystray's icon as a Status Notifier item. `icon` holds a Drawing, `title` the tooltip's text.

    `report_missing` is called once, on the main thread, when no panel has shown it for `patience_s`
    seconds: one that starts together with us is given that long.
    """

    HAS_NOTIFICATION = False  # notifications have a connection and an adapter of their own

    def __init__(
        self,
        name: str,
        *,
        environment: Mapping[str, str],
        report_missing: Callable[[NoTray], None],
        patience_s: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, **kwargs)
        self._environment = environment
        self._report_missing = report_missing
        self._patience_s = patience_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._item = SniItem(name, activate=self._activate)
        self._dbus_menu = DbusMenu(click=lambda item: item(self))

    def run(self, setup: Callable[[Any], None] | None = None) -> None:
        """Show the icon until `stop`. Raises NoTray when there is no bus, or no longer.

        `setup` runs in a thread of its own as soon as there is a connection, never without one.
        """
        asyncio.run(self._serve(setup))

    async def _serve(self, setup: Callable[[Any], None] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_on_stray_error)
        bus = await _connect(self._environment)
        try:
            self._fill()
            self._item.bus_object.serve_on(bus)
            self._dbus_menu.bus_object.serve_on(bus)
            panel = await _watch_panels(bus)
            watching = asyncio.create_task(panel.run(), name="tray panel")
            patience = asyncio.create_task(self._say_if_missing(panel), name="tray patience")
            self._start_setup(setup)
            self._mark_ready()
            try:
                await self._until_over(bus)
            finally:
                watching.cancel()
                patience.cancel()
                await asyncio.wait((watching, patience), timeout=_DISCONNECT_TIMEOUT_S)
        finally:
            self._loop = None
            self._running = False
            bus.disconnect()

    def _fill(self) -> None:
        """Have everything in place before the first panel looks."""
        self._item.take_pixmaps(pixmaps_of(self._icon))
        self._item.take_tooltip(self.title)
        self._dbus_menu.take(self.menu)
        self._icon_valid = True

    async def _until_over(self, bus: MessageBus) -> None:
        """Wait for `stop`. Raises NoTray when the bus goes first."""
        stopped = asyncio.create_task(self._stopped.wait(), name="tray stop")
        gone = asyncio.create_task(_gone(bus), name="tray bus")
        done, pending = await asyncio.wait((stopped, gone), return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if stopped not in done:
            raise bus_lost()

    async def _say_if_missing(self, panel: PanelWatch) -> None:
        if not await panel.is_shown_within(self._patience_s):
            self._report_missing(no_panel(self._environment))

    def _activate(self) -> None:
        self()  # pystray's way to choose the default item; it updates the menu, which differs in nothing

    # -- what pystray calls, from any thread --------------------------------------------------------

    def _show(self) -> None:
        self._on_loop(self._item.show, True)

    def _hide(self) -> None:
        self._on_loop(self._item.show, False)

    def _update_icon(self) -> None:
        self._on_loop(self._item.take_pixmaps, pixmaps_of(self._icon))
        self._icon_valid = True

    def _update_title(self) -> None:
        self._on_loop(self._item.take_tooltip, self.title)

    def _update_menu(self) -> None:
        self._on_loop(self._dbus_menu.take, self.menu)

    def _stop(self) -> None:
        self._on_loop(self._stopped.set)

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        loop = self._loop
        if loop is None:
            return  # not running: what is set now is shown from the start of the next run
        try:
            loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            _LOG.debug("The tray has ended already")


def session_bus_address(environment: Mapping[str, str]) -> str:
    """Where the session bus is: as told, or the socket that systemd makes. Raises NoTray.

    Source: libdbus, _dbus_lookup_user_bus ($XDG_RUNTIME_DIR/bus, owned by the user).
    """
    if address := environment.get("DBUS_SESSION_BUS_ADDRESS"):
        return address
    if runtime_dir := environment.get("XDG_RUNTIME_DIR"):
        socket = Path(runtime_dir, "bus")
        if socket.is_socket() and socket.stat().st_uid == os.getuid():
            return f"unix:path={socket}"
    raise no_bus("DBUS_SESSION_BUS_ADDRESS is not set")


async def _connect(environment: Mapping[str, str]) -> MessageBus:
    address = session_bus_address(environment)
    try:
        from dbus_fast.aio import MessageBus
        from dbus_fast.errors import DBusFastError
    except ImportError as error:
        raise no_bus(f"dbus-fast cannot be used: {error}") from error
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            return await MessageBus(bus_address=address).connect()
    except TimeoutError as error:
        raise no_bus(f"{address}: no answer in {_CONNECT_TIMEOUT_S:.0f} s") from error
    except (OSError, EOFError, ValueError, DBusFastError) as error:
        raise no_bus(f"{address}: {error or type(error).__name__}") from error


async def _watch_panels(bus: MessageBus) -> PanelWatch:
    from dbus_fast.errors import DBusError

    panel = PanelWatch(bus)
    try:
        await panel.begin()
    except (DBusError, TimeoutError, OSError, EOFError) as error:
        raise no_bus(str(error) or type(error).__name__) from error
    return panel


def _on_stray_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A signal that was on its way when the bus went has nobody to tell it to; `_gone` has told already."""
    if isinstance(context.get("exception"), OSError | EOFError):
        _LOG.debug("A message did not reach the session bus: %s", context["exception"])
    else:
        loop.default_exception_handler(context)


async def _gone(bus: MessageBus) -> None:
    try:
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # the library's is
    except (OSError, EOFError) as error:
        _LOG.debug("The session bus closed the connection: %s", error)
