"""A real session bus, a watcher like a panel's, and a client that reads and clicks as panels do."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

WATCHER = "org.kde.StatusNotifierWatcher"
WATCHER_PATH = "/StatusNotifierWatcher"
ITEM = "org.kde.StatusNotifierItem"
MENU = "com.canonical.dbusmenu"
PROPERTIES = "org.freedesktop.DBus.Properties"
_CALL_S = 40.0


@contextmanager
def session_bus(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """A dbus-daemon of our own; gives its address. What it starts gets `environment`."""
    address = f"unix:path={folder / 'bus'}"
    daemon = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", f"--address={address}", "--print-address"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=None if environment is None else dict(environment),
    )
    assert daemon.stdout is not None
    try:
        yield daemon.stdout.readline().strip()
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)
        daemon.stdout.close()


def plain(value: Any) -> Any:
    """A D-Bus value without its variants."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


class Panel:
    """A watcher with a host: takes registrations, reads icons and menus, clicks."""

    def __init__(self, bus: MessageBus, *, has_host: bool = True) -> None:
        self.bus = bus
        self.has_host = has_host
        self.items: list[str] = []
        self.registered = asyncio.Event()
        self.signals: list[tuple[str, list[Any]]] = []
        self.signalled = asyncio.Event()

    @classmethod
    async def start(cls, address: str, *, has_host: bool = True) -> Panel:
        panel = cls(await MessageBus(bus_address=address).connect(), has_host=has_host)
        panel.bus.add_message_handler(panel._on_message)
        for interface in (ITEM, MENU):
            await panel.call(
                "org.freedesktop.DBus",
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus",
                "AddMatch",
                "s",
                f"type='signal',interface='{interface}'",
            )
        await panel.bus.request_name(WATCHER)
        return panel

    async def stop(self) -> None:
        self.bus.disconnect()
        await asyncio.wait_for(self.bus.wait_for_disconnect(), _CALL_S)

    def _on_message(self, message: Message) -> Message | None:
        if message.message_type is MessageType.SIGNAL and message.interface in (ITEM, MENU):
            self.signals.append((message.member or "", plain(message.body)))
            self.signalled.set()
        if message.message_type is not MessageType.METHOD_CALL or message.path != WATCHER_PATH:
            return None
        if message.member == "RegisterStatusNotifierItem":
            name = message.body[0]
            self.items.append(name if not name.startswith("/") else f"{message.sender}{name}")
            self.registered.set()
            return Message.new_method_return(message)
        if message.member == "Get" and message.body[1] == "IsStatusNotifierHostRegistered":
            return Message.new_method_return(message, "v", [Variant("b", self.has_host)])
        return None

    async def add_host(self) -> None:
        self.has_host = True
        await self.bus.send(Message.new_signal(WATCHER_PATH, WATCHER, "StatusNotifierHostRegistered"))

    async def call(
        self, to: str, path: str, interface: str, member: str, signature: str = "", *body: Any
    ) -> list[Any]:
        message = Message(
            destination=to,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
        )
        reply = await asyncio.wait_for(self.bus.call(message), _CALL_S)
        assert reply is not None
        if reply.message_type is MessageType.ERROR:
            raise RuntimeError(f"{member}: {reply.error_name} {reply.body}")
        return reply.body

    async def item(self) -> str:
        """The bus name of the registered icon, once there is one."""
        await asyncio.wait_for(self.registered.wait(), _CALL_S)
        return self.items[-1]

    async def properties(self) -> dict[str, Any]:
        name = await self.item()
        return plain((await self.call(name, "/StatusNotifierItem", PROPERTIES, "GetAll", "s", ITEM))[0])

    async def menu_call(self, member: str, signature: str, *body: Any) -> list[Any]:
        properties = await self.properties()
        return await self.call(await self.item(), properties["Menu"], MENU, member, signature, *body)

    async def menu(self) -> dict[str, Any]:
        """The whole menu as nested dictionaries: id, properties, children."""
        _, layout = await self.menu_call("GetLayout", "iias", 0, -1, [])
        return _nested(plain(layout))

    async def click(self, label: str) -> int:
        entry = find(await self.menu(), label)
        assert entry is not None, f"no {label!r} in the menu"
        await self.menu_call("Event", "isvu", entry["id"], "clicked", Variant("i", 0), 0)
        return int(entry["id"])

    async def activate(self) -> None:
        await self.call(await self.item(), "/StatusNotifierItem", ITEM, "Activate", "ii", 10, 10)

    async def wait_for_label(self, label: str, *, is_there: bool = True) -> None:
        """Wait until the menu has (or no longer has) an entry with that label."""
        async with asyncio.timeout(_CALL_S):
            while (find(await self.menu(), label) is not None) is not is_there:
                self.signalled.clear()
                if (find(await self.menu(), label) is not None) is is_there:
                    return
                await self.signalled.wait()


def _nested(node: list[Any]) -> dict[str, Any]:
    number, properties, children = node
    return {"id": number, **properties, "children": [_nested(child) for child in children]}


def entries(menu: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every entry of a menu, depth first."""
    for child in menu["children"]:
        yield child
        yield from entries(child)


def find(menu: dict[str, Any], label: str) -> dict[str, Any] | None:
    """The first entry with that label (as a user reads it)."""
    return next((e for e in entries(menu) if e.get("label", "").replace("__", "_") == label), None)
