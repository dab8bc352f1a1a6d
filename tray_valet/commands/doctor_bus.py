"""What the session bus tells of the desktop: whether somebody shows tray icons and notifications.

Decides: how that is asked. Must not: register, own a name, start a service, or show anything.

Sources: the D-Bus specification (NameHasOwner, ListActivatableNames); the StatusNotifierItem
specification (IsStatusNotifierHostRegistered); the Desktop Notifications specification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from dbus_fast.aio import MessageBus

_TIMEOUT_S = 1.5
_BUS, _BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
_WATCHER, _WATCHER_PATH = "org.kde.StatusNotifierWatcher", "/StatusNotifierWatcher"
_NOTIFICATIONS = "org.freedesktop.Notifications"


class BusSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The session bus. `problem` "" = it answers."""

    problem: str = ""
    has_panel: bool = False
    has_notifications: bool = False


def look_at_bus(environ: Mapping[str, str]) -> BusSeen:
    """Ask the session bus, within 3 s. Blocks; not for a loop's thread."""
    return asyncio.run(_look(environ))


async def _look(environ: Mapping[str, str]) -> BusSeen:
    from tray_valet.desktop.notify_dbus import session_bus_address

    address = session_bus_address(environ)
    if address is None:
        return BusSeen(problem="DBUS_SESSION_BUS_ADDRESS is not set")
    try:
        from dbus_fast.aio import MessageBus
        from dbus_fast.errors import DBusFastError
    except ImportError:
        return BusSeen(problem="dbus-fast is not installed")
    bus = None
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            bus = await MessageBus(bus_address=address).connect()
        async with asyncio.timeout(_TIMEOUT_S):
            return BusSeen(
                has_panel=await _has_panel(bus), has_notifications=await _is_served(bus, _NOTIFICATIONS)
            )
    except TimeoutError:
        return BusSeen(problem=f"no answer in {_TIMEOUT_S:.0f} s")
    except (OSError, EOFError, ValueError, DBusFastError) as error:
        return BusSeen(problem=str(error) or type(error).__name__)
    finally:
        if bus is not None:
            bus.disconnect()


async def _has_panel(bus: MessageBus) -> bool:
    if not await _ask(bus, "NameHasOwner", _WATCHER):
        return False
    told = await _call(
        bus,
        _WATCHER,
        _WATCHER_PATH,
        "org.freedesktop.DBus.Properties",
        "Get",
        [_WATCHER, "IsStatusNotifierHostRegistered"],
    )
    return True if told is None else bool(told.value)  # one that does not say shows them


async def _is_served(bus: MessageBus, name: str) -> bool:
    """Whether somebody serves that name, or is started when it is called."""
    if await _ask(bus, "NameHasOwner", name):
        return True
    startable = await _call(bus, _BUS, _BUS_PATH, _BUS, "ListActivatableNames", [])
    return name in (startable or [])


async def _ask(bus: MessageBus, member: str, name: str) -> Any:
    return await _call(bus, _BUS, _BUS_PATH, _BUS, member, [name])


async def _call(
    bus: MessageBus, destination: str, path: str, interface: str, member: str, body: list[Any]
) -> Any:
    """The first value of the answer; None where it is refused."""
    from dbus_fast import Message, MessageType

    message = Message(
        destination=destination,
        path=path,
        interface=interface,
        member=member,
        signature="s" * len(body),
        body=body,
    )
    reply = await bus.call(message)
    if reply is None or reply.message_type is MessageType.ERROR or not reply.body:
        return None
    return reply.body[0]
