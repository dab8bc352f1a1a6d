"""Getting onto a panel: registration with whoever shows Status Notifier icons, now and again later.

Decides: when to register, and whether anybody shows the icon. Must not: serve the icon itself.

Source: the StatusNotifierItem specification (RegisterStatusNotifierItem, StatusNotifierHostRegistered);
a watcher that loses its name has forgotten every item, so a new owner is registered with afresh.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

_LOG = logging.getLogger(__name__)
_WATCHER = "org.kde.StatusNotifierWatcher"
_WATCHER_PATH = "/StatusNotifierWatcher"
_BUS = "org.freedesktop.DBus"
_BUS_PATH = "/org/freedesktop/DBus"
_CALL_TIMEOUT_S = 5.0
_TRIES_AFTER_S = (0.0, 0.3, 1.0, 3.0)  # some own the name a moment before they answer


class PanelWatch:
    """Keeps the icon registered. Runs on the connection's loop."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._name = f"org.kde.StatusNotifierItem-{os.getpid()}-1"
        self._look = asyncio.Event()
        self._look.set()  # one may be there already
        self._shown = asyncio.Event()

    async def begin(self) -> None:
        """Take the name that panels will know and listen for them. Raises DBusError, TimeoutError."""
        self._bus.add_message_handler(self._on_message)
        await self._call(_BUS, _BUS_PATH, _BUS, "AddMatch", "s", _owner_rule())
        await self._call(_BUS, _BUS_PATH, _BUS, "AddMatch", "s", _host_rule())
        no_queue = 4
        reply = await self._call(_BUS, _BUS_PATH, _BUS, "RequestName", "su", self._name, no_queue)
        if reply != 1:  # taken: PIDs repeat where sandboxes have numbers of their own
            self._name = self._bus.unique_name or self._name

    async def run(self) -> None:
        """Register with every panel that comes, until cancelled."""
        while True:
            await self._look.wait()
            self._look.clear()
            for after_s in _TRIES_AFTER_S:
                await asyncio.sleep(after_s)
                if await self._register():
                    break

    async def is_shown_within(self, limit_s: float) -> bool:
        """Whether a panel shows the icon now or within `limit_s` seconds."""
        try:
            async with asyncio.timeout(limit_s):
                await self._shown.wait()
        except TimeoutError:
            return False
        return True

    async def _register(self) -> bool:
        """One try; whether somebody has the icon now (a watcher without a panel shows nothing)."""
        from dbus_fast import DBusError

        try:
            await self._call(_WATCHER, _WATCHER_PATH, _WATCHER, "RegisterStatusNotifierItem", "s", self._name)
        except (DBusError, TimeoutError, OSError, EOFError) as error:
            _LOG.debug("No panel took the tray icon: %s", error)
            return False
        if await self._has_host() and not self._shown.is_set():
            self._shown.set()
            _LOG.info("The tray icon is in the panel")
        return True

    async def _has_host(self) -> bool:
        from dbus_fast import DBusError

        name = "IsStatusNotifierHostRegistered"
        try:
            value = await self._call(
                _WATCHER, _WATCHER_PATH, "org.freedesktop.DBus.Properties", "Get", "ss", _WATCHER, name
            )
        except (DBusError, TimeoutError, OSError, EOFError):
            return True  # it does not say; it did take the icon
        return bool(value.value)

    def _on_message(self, message: Message) -> None:
        from dbus_fast import MessageType

        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "NameOwnerChanged" and message.sender == _BUS:
            name, _, new_owner = message.body
            if name == _WATCHER:
                self._shown.clear()
                if new_owner:
                    self._look.set()
        elif message.member == "StatusNotifierHostRegistered" and message.interface == _WATCHER:
            self._look.set()

    async def _call(
        self, destination: str, path: str, interface: str, member: str, signature: str, *body: Any
    ) -> Any:
        """The first value of the answer, None without one. Raises DBusError, TimeoutError."""
        from dbus_fast import DBusError, Message, MessageType

        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
        )
        async with asyncio.timeout(_CALL_TIMEOUT_S):
            reply = await self._bus.call(message)
        if reply.message_type is MessageType.ERROR:
            raise DBusError(reply.error_name or "org.freedesktop.DBus.Error.Failed", str(reply.body))
        return reply.body[0] if reply.body else None


def _owner_rule() -> str:
    return f"type='signal',sender='{_BUS}',interface='{_BUS}',member='NameOwnerChanged',arg0='{_WATCHER}'"


def _host_rule() -> str:
    return f"type='signal',interface='{_WATCHER}',member='StatusNotifierHostRegistered'"
