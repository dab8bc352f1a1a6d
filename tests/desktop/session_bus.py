"""A session bus of the test's own, and a notification service on it that records what it is told.

The bus starts no services by itself, so "nobody shows notifications" is really so. The service follows
the Desktop Notifications Specification: ids, replacement, actions, closing, and an error for what is not
allowed.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dbus_fast import Message, MessageType, RequestNameReply
from dbus_fast.aio import MessageBus

NAME, PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
ALL = ("actions", "body", "body-markup", "persistence")
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:dir={dir}</listen><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
</policy></busconfig>"""


@contextmanager
def session_bus(folder: Path) -> Iterator[str]:
    """Run a bus; gives its address."""
    program = shutil.which("dbus-daemon")
    if program is None:
        pytest.skip("dbus-daemon is not installed")
    config = folder / "bus.conf"
    config.write_text(_CONFIG.format(dir=folder))
    daemon = subprocess.Popen(
        [program, f"--config-file={config}", "--print-address", "--nofork"], stdout=subprocess.PIPE, text=True
    )
    assert daemon.stdout is not None
    with daemon.stdout:
        try:
            yield daemon.stdout.readline().strip()
        finally:
            daemon.terminate()
            daemon.wait(30)


class Shown(msgspec.Struct):
    """One notification as it stands on the screen."""

    id: int
    title: str
    text: str
    actions: dict[str, str]
    hints: dict[str, Any]
    icon: str
    timeout_ms: int


class NotificationService:
    """`await NotificationService.start(address)`; `shown` is the screen, `calls` everything in order."""

    def __init__(self, bus: MessageBus, capabilities: tuple[str, ...]) -> None:
        self._bus = bus
        self.capabilities = capabilities
        self.shown: dict[int, Shown] = {}
        self.calls: list[Shown] = []
        self.is_silent = False  # takes calls and never answers
        self._next_id = 1
        self._changed = asyncio.Event()

    @classmethod
    async def start(cls, address: str, capabilities: tuple[str, ...] = ALL) -> NotificationService:
        bus = await MessageBus(bus_address=address).connect()
        service = cls(bus, capabilities)
        bus.add_message_handler(service._on_call)
        assert await bus.request_name(NAME) is RequestNameReply.PRIMARY_OWNER
        return service

    async def stop(self) -> None:
        self._bus.disconnect()

    def _on_call(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL or message.interface != NAME:
            return None
        if self.is_silent:
            return True
        match message.member:
            case "GetCapabilities":
                return Message.new_method_return(message, "as", [list(self.capabilities)])
            case "Notify":
                return self._notify(message)
            case "CloseNotification":
                if message.body[0] not in self.shown:
                    return Message.new_error(message, f"{NAME}.Error.InvalidId", "no such notification")
                self.close(message.body[0], reason=3)
                return Message.new_method_return(message)
        return None

    def _notify(self, message: Message) -> Message:
        _, replaces, icon, title, text, actions, hints, timeout_ms = message.body
        if len(actions) % 2 or not title:
            return Message.new_error(message, f"{NAME}.Error.Invalid", "actions come in pairs, after a title")
        new_id = replaces if replaces in self.shown else self._next_id
        self._next_id = max(self._next_id, new_id + 1)
        one = Shown(
            id=new_id,
            title=title,
            text=text,
            actions=dict(zip(actions[::2], actions[1::2], strict=True)),
            hints={key: value.value for key, value in hints.items()},
            icon=icon,
            timeout_ms=timeout_ms,
        )
        self.shown[new_id] = one
        self.calls.append(one)
        self._changed.set()
        return Message.new_method_return(message, "u", [new_id])

    def click(self, shown_id: int, action: str) -> None:
        """What the user does with the mouse."""
        assert action in self.shown[shown_id].actions, self.shown[shown_id].actions
        self._signal("ActionInvoked", "us", [shown_id, action])
        self.close(shown_id, reason=2)

    def close(self, shown_id: int, *, reason: int) -> None:
        del self.shown[shown_id]
        self._signal("NotificationClosed", "uu", [shown_id, reason])
        self._changed.set()

    def _signal(self, member: str, signature: str, body: list[Any]) -> None:
        signal = Message(
            message_type=MessageType.SIGNAL,
            path=PATH,
            interface=NAME,
            member=member,
            signature=signature,
            body=body,
        )
        self._bus.send(signal)

    async def call(self, number: int, within_s: float = 40.0) -> Shown:
        """The n-th Notify call, from 1."""
        async with asyncio.timeout(within_s):
            while len(self.calls) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.calls[number - 1]

    async def screen_is_empty(self, within_s: float = 40.0) -> None:
        async with asyncio.timeout(within_s):
            while self.shown:
                self._changed.clear()
                await self._changed.wait()
