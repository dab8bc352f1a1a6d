"""A request's head, taken apart once: method, path, headers, who calls, and from what page.

Decides: what counts as a well-formed Host and Origin, and whether the caller is this machine.
Must not: look at `request.url` or X-Forwarded-For: both are the caller's words, not facts.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import msgspec
from starlette.types import ASGIApp, Message, Scope

from tray_valet.core.addresses import as_ip
from tray_valet.web.edge.answer_head import AnswerHead

_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_PORTS = {"http": 80, "https": 443}
CLIENT_KEY = "tray_valet.client"  # where the guard leaves the caller's name in the scope
CYCLE_KEY = "tray_valet.cycle"  # where the server leaves a Cycle; to be taken out, as it refers to the scope
KNOWN_KEY = "tray_valet.known_head"  # where the server leaves a KnownHead, if the head came before
ANSWER_KEY = "tray_valet.answer"  # where the guard leaves a DirectAnswer, if the server has left a cycle


class Authority(msgspec.Struct, frozen=True):
    """Host and port. The host is lower-case, an IPv6 address without brackets; port None = not said."""

    host: str
    port: int | None


class Origin(msgspec.Struct, frozen=True):
    """A page's origin. The port is the scheme's own where none was written."""

    scheme: str
    host: str
    port: int | None


class DirectAnswer(Protocol):
    """An answer that is written at once, from wherever one stands; ASGI's `send` is everybody's way."""

    body: bytes | memoryview  # the request's

    @property
    def writer(self) -> AnswerWriter:
        """Takes the body of the answer, after its start."""
        ...

    def start(self, status: int, head: AnswerHead, length: int | None) -> None:
        """The head; `length` of the body, None = not known. The first part of it must follow at once."""
        ...


class AnswerWriter(Protocol):
    """Where a direct answer goes."""

    @property
    def is_writable(self) -> bool:
        """Whether the client is there and takes what is written."""
        ...

    async def drain(self) -> None:
        """Wait until the client takes more, or is gone."""
        ...

    def write(self, body: bytes, *, has_more: bool) -> None:
        """A part of the answer's body; a client that is gone gets nothing."""
        ...

    @property
    def takes_chunks(self) -> bool:
        """Whether chunks that are framed already may be written from now on, until the last part."""
        ...

    def write_chunk(self, chunk: bytes) -> bool:
        """Write one, as HTTP/1.1 has them, if the client `is_writable`; whether that was so."""
        ...

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Have `call` called when the client leaves, soon if it has left already; None: nothing any more."""
        ...


class Cycle(AnswerWriter, Protocol):
    """One request and its answer on a connection of our own server. `known`: a KnownHead, if the head came
    before."""

    known: Any
    scope: Any

    def whole_body(self) -> bytes | None:
        """The body if it is whole already; else None."""
        ...

    async def gather(self, max_bytes: int, size_bytes: int | None) -> bytes | memoryview:
        """Wait for the whole body, whose head says `size_bytes` (None: nothing). Raises HttpError (413) over
        `max_bytes`, ClientGoneError."""
        ...

    def forget_body(self) -> None:
        """It has been taken; `receive` waits for what comes after it."""
        ...

    async def send(self, message: Message) -> None:
        """ASGI's `send`."""
        ...

    def start(self, status: int, lines: bytes, length: int | None) -> None:
        """As `DirectAnswer.start`; `lines` of the head, each with its line break."""
        ...

    def forget_self(self) -> None:
        """The request has been taken up."""
        ...

    def hand_over(self, app: ASGIApp) -> None:
        """Have a task go on with a request that was begun without one: `app` does it."""
        ...


@runtime_checkable
class PromptApp(Protocol):
    """An app that serves requests without a task, where nothing is in the way."""

    def ask_now(self, scope: Scope, body: bytes, client: str, known: Any) -> Any | None:
        """Begin to serve a request; None: it takes a task, and nothing has happened.

        `scope` is to read only: it may be that of all requests with the same head, which is `known` then (a
        KnownHead). `client` is the name of its key.
        """
        ...

    def expect(
        self,
        begun: Any,
        answer: DirectAnswer,
        work_on: Callable[[Callable[[], Awaitable[None]]], None],
        on_over: Callable[[], None],
    ) -> None:
        """Serve what `ask_now` has begun, at once after it.

        `on_over` is called when that was all. Should something come up, `work_on` gets what a task has to do,
        and `on_over` is not called. Where this raises, `drop` is due.
        """
        ...

    def drop(self, begun: Any) -> None:
        """Take back what `ask_now` has begun."""
        ...


class RequestHead:
    """What the checks look at. Header names are lower-case bytes, as ASGI hands them over."""

    __slots__ = (
        "_one",
        "_several",
        "client_host",
        "method",
        "path",
        "scheme",
        "server_host",
        "server_port",
        "shown_keys",
    )

    def __init__(self, scope: Scope) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.scheme: str = scope.get("scheme", "http")
        client, server = scope.get("client"), scope.get("server")
        self.client_host: str | None = client[0] if client else None
        self.server_host: str | None = server[0] if server else None
        self.server_port: int | None = server[1] if server else None
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.shown_keys: list[bytes] | None = None  # those in its headers, once somebody has looked
        self._one: dict[bytes, bytes] = dict(headers)
        # Nearly every head has each header once: no list is made for them.
        self._several = _several(headers) if len(self._one) != len(headers) else None

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header, in order; [] where it is missing."""
        if self._several is not None and name in self._several:
            return self._several[name]
        value = self._one.get(name)
        return [] if value is None else [value]

    def one(self, name: bytes) -> bytes | None:
        """The one value of a header; None when it is missing or there are several."""
        return None if self._several is not None and name in self._several else self._one.get(name)

    def has(self, name: bytes) -> bool:
        """Whether it has such a header."""
        return name in self._one

    def has_none_of(self, names: frozenset[bytes]) -> bool:
        """Whether it has no header of any of these names."""
        return names.isdisjoint(self._one)

    def text(self, name: bytes) -> str:
        """The one value of a header, or "" when it is missing or there are several."""
        value = self.one(name)
        return value.decode("latin-1").strip() if value is not None else ""

    @property
    def is_from_loopback(self) -> bool:
        """Whether the connection comes from this machine's loopback, by its socket alone."""
        if self.client_host in ("127.0.0.1", "::1"):
            return True  # as nearly always
        address = as_ip(self.client_host) if self.client_host else None
        return address is not None and address.is_loopback


def _several(headers: list[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """The values of the headers that come more than once."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return {name: found for name, found in values.items() if len(found) > 1}


@lru_cache(maxsize=256)
def parse_authority(text: str) -> Authority | None:
    """Take `host[:port]` apart; None if it is malformed, carries a user name, or is a trick.

    Names in a form that only some resolvers read as an address (`127.1`, `0x7f.1`) stay names, and so
    match nothing. A trailing dot is malformed: no client writes one by itself.
    """
    host, port = text, ""
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        address = as_ip(inner) if bracket and ":" in inner and "%" not in inner else None
        if address is None or (rest and not rest.startswith(":")):
            return None
        host, port = str(address), rest
    else:
        host, colon, digits = text.lower().partition(":")
        port = colon + digits
        if not _NAME.fullmatch(host):
            return None
    if not port:
        return Authority(host, None)
    number = port[1:]
    if not (number.isascii() and number.isdigit() and len(number) <= 5 and 1 <= int(number) <= 65535):
        return None
    return Authority(host, int(number))


def parse_origin(text: str) -> Origin | None:
    """Take an Origin header's value apart; None for `null` and for whatever is not one origin."""
    scheme, separator, rest = text.lower().partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return None
    authority = parse_authority(rest)
    if authority is None:
        return None
    return Origin(scheme, authority.host, authority.port or _PORTS.get(scheme))


def host_of(text: str) -> Authority | None:
    """A host from the settings: `name`, `name:port`, an address with or without brackets."""
    address = as_ip(text)
    return Authority(str(address), None) if address is not None else parse_authority(text)
