"""One object on the D-Bus session bus: methods, properties and signals from a table.

Decides: how calls of the standard interfaces (Properties, Introspectable) are answered from the table.
Must not: know what the object is for.

Imports dbus-fast inside its functions: the module loads on systems that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.sax.saxutils import quoteattr

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

_PROPERTIES = "org.freedesktop.DBus.Properties"
_INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"


class Method(NamedTuple):
    """A method: D-Bus signatures in and out, and what answers it with the list of results."""

    takes: str
    gives: str
    run: Callable[..., list[Any]]


class Property(NamedTuple):
    """A property that others may read."""

    signature: str
    read: Callable[[], Any]


class BusObject:
    """Serves one interface at one path of a connection. Runs on the connection's loop."""

    def __init__(
        self,
        path: str,
        interface: str,
        *,
        methods: Mapping[str, Method],
        properties: Mapping[str, Property],
        signals: Mapping[str, str],
    ) -> None:
        self._path = path
        self._interface = interface
        self._methods = methods
        self._properties = properties
        self._signals = signals
        self._bus: MessageBus | None = None

    def serve_on(self, bus: MessageBus) -> None:
        """Answer calls that come over this connection."""
        self._bus = bus
        bus.add_message_handler(self._answer)

    def emit(self, signal: str, *values: Any) -> None:
        """Send a signal of the table; nothing is sent while there is no connection."""
        if self._bus is None or not self._bus.connected:
            return
        from dbus_fast import Message

        self._bus.send(
            Message.new_signal(self._path, self._interface, signal, self._signals[signal], list(values))
        )

    def _answer(self, message: Message) -> Message | None:
        from dbus_fast import Message as Reply
        from dbus_fast import MessageType

        if message.message_type is not MessageType.METHOD_CALL or message.path != self._path:
            return None
        method = self._method(message.interface, message.member or "")
        if method is None:
            return None  # the library knows Peer, and says what is unknown
        if message.signature != method.takes:
            raise invalid_arguments(f"{message.member} takes {method.takes!r}, not {message.signature!r}.")
        return Reply.new_method_return(message, method.gives, method.run(*message.body))

    def _method(self, interface: str | None, member: str) -> Method | None:
        if interface == _PROPERTIES:
            return {
                "Get": Method("ss", "v", self._get),
                "GetAll": Method("s", "a{sv}", self._get_all),
                "Set": Method("ssv", "", self._set),
            }.get(member)
        if interface == _INTROSPECTABLE and member == "Introspect":
            return Method("", "s", lambda: [self._introspection()])
        return self._methods.get(member) if interface in (None, "", self._interface) else None

    # -- standard interfaces ------------------------------------------------------------------------

    def _get(self, interface: str, name: str) -> list[Any]:
        from dbus_fast import Variant

        prop = self._properties.get(name) if interface in ("", self._interface) else None
        if prop is None:
            raise invalid_arguments(f"There is no property {interface}.{name} here.")
        return [Variant(prop.signature, prop.read())]

    def _get_all(self, interface: str) -> list[Any]:
        from dbus_fast import Variant

        mine = self._properties if interface in ("", self._interface) else {}
        return [{name: Variant(prop.signature, prop.read()) for name, prop in mine.items()}]

    def _set(self, interface: str, name: str, _value: Any) -> list[Any]:
        from dbus_fast import DBusError

        raise DBusError("org.freedesktop.DBus.Error.PropertyReadOnly", f"{interface}.{name} is read-only.")

    def _introspection(self) -> str:
        from dbus_fast.signature import get_signature_tree

        def args(signature: str, direction: str) -> str:
            types = get_signature_tree(signature).types
            return "".join(f'<arg type="{t.signature}"{direction}/>' for t in types)

        lines = [
            f"<method name={quoteattr(name)}>"
            + args(method.takes, ' direction="in"')
            + args(method.gives, ' direction="out"')
            + "</method>"
            for name, method in self._methods.items()
        ]
        lines += (
            f'<property name={quoteattr(name)} type="{prop.signature}" access="read"/>'
            for name, prop in self._properties.items()
        )
        lines += (
            f"<signal name={quoteattr(name)}>{args(signature, '')}</signal>"
            for name, signature in self._signals.items()
        )
        return f"<node><interface name={quoteattr(self._interface)}>{''.join(lines)}</interface></node>"


def invalid_arguments(text: str) -> Exception:
    """The error reply for a call about something that is not there; raise it from a method."""
    from dbus_fast import DBusError

    return DBusError("org.freedesktop.DBus.Error.InvalidArgs", text)
