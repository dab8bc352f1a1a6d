"""Notices on Linux and its relatives: `org.freedesktop.Notifications` on the session bus.

Decides: how a notice becomes a Notify call of the Desktop Notifications Specification 1.3
(https://specifications.freedesktop.org/notification-spec/latest/), and which signal is which answer.
Must not: wait long, raise, or import the D-Bus library before there is a notice and a bus.

The connection is this adapter's own: the tray's lives on another thread. It is made for the first notice
and made again after a loss; ids of a notification service that has gone are forgotten.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tray_valet.core.notices import ChoiceKind, Notice, Subject, TextLimits, fitted

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

_NAME = "org.freedesktop.Notifications"
_PATH = "/org/freedesktop/Notifications"
_BUS = "org.freedesktop.DBus"
_TIMEOUT_S = 5.0  # the service may be started by the call
_LIMITS = TextLimits(title=120, text=400)  # no service has a limit; more than this is not read
_DEFAULT_ACTION = "default"  # the specification's key for a click on the notification itself
_NORMAL = 1
_SERVERS_TIMEOUT = -1
_SOUND = "message-new-instant"  # of the Sound Naming Specification


class DbusNotifier:
    """Implements `core.ports.Notifier`. `icon` is a file for the notification, "" for none."""

    def __init__(self, environ: Mapping[str, str], *, icon: str = "", timeout_s: float = _TIMEOUT_S) -> None:
        self._environ = environ
        self._icon = icon
        self._timeout_s = timeout_s
        self._bus: MessageBus | None = None
        self._capabilities: frozenset[str] | None = None
        self._ids: dict[Subject, int] = {}
        self._on_choice: Callable[[Subject, ChoiceKind], None] = lambda _subject, _choice: None
        self._missing: str | None = None

    @property
    def source(self) -> str:
        return "D-Bus"

    @property
    def missing_because(self) -> str | None:
        return self._missing

    def listen(self, on_choice: Callable[[Subject, ChoiceKind], None]) -> None:
        self._on_choice = on_choice

    async def show(self, notice: Notice, *, has_sound: bool) -> None:
        address = session_bus_address(self._environ)
        if address is None:
            self._missing = "There is no session bus."
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                bus = await self._connected(address)
                capabilities = await self._capabilities_of(bus)
                reply = await bus.call(self._notify_call(fitted(notice, _LIMITS), capabilities, has_sound))
        except TimeoutError:
            self._missing = f"The notification service did not answer within {self._timeout_s:.0f} s."
        except _errors() as error:
            self._missing = f"The session bus does not work: {error}."
        else:
            self._missing = _refusal(reply)
            if self._missing is None:
                self._ids[notice.subject] = reply.body[0]

    async def withdraw(self, subject: Subject) -> None:
        shown_id = self._ids.pop(subject, None)
        if shown_id is None or self._bus is None or not self._bus.connected:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._bus.call(_call("CloseNotification", "u", [shown_id]))
        except _errors():
            return  # it closes with its service, or by its own time

    async def close(self) -> None:
        bus, self._bus = self._bus, None
        self._forget_service()
        if bus is not None and bus.connected:
            bus.disconnect()

    # -- the call ------------------------------------------------------------------------------------

    def _notify_call(self, notice: Notice, capabilities: frozenset[str], has_sound: bool) -> Message:
        from dbus_fast import Variant

        title, text = notice.title, notice.text
        if "body" not in capabilities:
            title, text = f"{title}: {text}", ""
        elif "body-markup" in capabilities:
            text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        actions: list[str] = []
        if "actions" in capabilities:
            for choice in notice.choices:
                actions += [_key_of(choice.kind), choice.label]
        hints = {
            "urgency": Variant("y", _NORMAL),
            "desktop-entry": Variant("s", "tray-valet"),
            "suppress-sound": Variant("b", not has_sound),
        }
        if has_sound:
            hints["sound-name"] = Variant("s", _SOUND)
        replaces_id = self._ids.get(notice.subject, 0)
        body = ["Tray Valet", replaces_id, self._icon, title, text, actions, hints, _SERVERS_TIMEOUT]
        return _call("Notify", "susssasa{sv}i", body)

    async def _capabilities_of(self, bus: MessageBus) -> frozenset[str]:
        if self._capabilities is None:
            reply = await bus.call(_call("GetCapabilities"))
            if _refusal(reply) is not None:
                return frozenset({"body"})  # one that cannot say what it can do is given the least
            self._capabilities = frozenset(reply.body[0])
        return self._capabilities

    # -- the connection ------------------------------------------------------------------------------

    async def _connected(self, address: str) -> MessageBus:
        if self._bus is not None and self._bus.connected:
            return self._bus
        from dbus_fast.aio import MessageBus

        self._forget_service()
        bus = MessageBus(bus_address=address)
        try:
            await bus.connect()
            bus.add_message_handler(self._on_message)
            for rule in (
                f"type='signal',sender='{_NAME}',interface='{_NAME}'",
                f"type='signal',sender='{_BUS}',member='NameOwnerChanged',arg0='{_NAME}'",
            ):
                await bus.call(_call("AddMatch", "s", [rule], name=_BUS, path="/org/freedesktop/DBus"))
        except BaseException:
            bus.disconnect()
            raise
        self._bus = bus
        return bus

    def _forget_service(self) -> None:
        self._ids.clear()
        self._capabilities = None

    def _on_message(self, message: Message) -> None:
        from dbus_fast import MessageType

        if message.message_type is not MessageType.SIGNAL:
            return
        if message.interface == _NAME:
            # After the reply to our own call, which may have come in the same breath, has been read.
            asyncio.get_running_loop().call_soon(self._on_signal, message.member or "", message.body)
        elif message.interface == _BUS and message.member == "NameOwnerChanged":
            self._forget_service()

    def _on_signal(self, member: str, body: list[Any]) -> None:
        subject = next((s for s, shown_id in self._ids.items() if body and shown_id == body[0]), None)
        if subject is None:
            return  # another program's notification
        if member == "NotificationClosed":
            del self._ids[subject]
        elif member == "ActionInvoked" and len(body) > 1 and (kind := _kind_of(body[1])) is not None:
            self._on_choice(subject, kind)


def session_bus_address(environ: Mapping[str, str]) -> str | None:
    """Where the session bus is: as the environment says, or at systemd's usual place; None = nowhere."""
    if address := environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return address
    runtime_dir = environ.get("XDG_RUNTIME_DIR")
    path = os.path.join(runtime_dir, "bus") if runtime_dir else ""
    return f"unix:path={path}" if path and os.path.exists(path) else None


def _call(
    member: str, signature: str = "", body: list[Any] | None = None, *, name: str = _NAME, path: str = _PATH
) -> Message:
    from dbus_fast import Message

    return Message(
        destination=name, path=path, interface=name, member=member, signature=signature, body=body or []
    )


def _refusal(reply: Message) -> str | None:
    """Why the service did not do it, or None when it did."""
    from dbus_fast import MessageType

    if reply.message_type is not MessageType.ERROR:
        return None
    if reply.error_name in (f"{_BUS}.Error.ServiceUnknown", f"{_BUS}.Error.NameHasNoOwner"):
        return "No program on this desktop shows notifications."
    return f"The notification service answered: {reply.body[0] if reply.body else reply.error_name}."


def _errors() -> tuple[type[BaseException], ...]:
    """What a broken or absent bus raises; EOFError is a connection that ends."""
    from dbus_fast.errors import DBusFastError

    return (OSError, EOFError, DBusFastError)  # TimeoutError is an OSError


def _key_of(kind: ChoiceKind) -> str:
    return _DEFAULT_ACTION if kind is ChoiceKind.OPEN else kind.value


def _kind_of(key: object) -> ChoiceKind | None:
    return next((kind for kind in ChoiceKind if _key_of(kind) == key), None)
