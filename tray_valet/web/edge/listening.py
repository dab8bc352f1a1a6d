"""Listening sockets: bound before the server starts, so that a taken port is a clear error.

Decides: which addresses a host setting means. Must not: accept connections.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Callable

from tray_valet.core.addresses import as_ip
from tray_valet.core.errors import AddressInUse

BACKLOG = 512  # connections that may wait to be taken
_RESOLVE_TIMEOUT_S = 5.0
_TRIES_FOR_BOTH = 8
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # no such address, or none of its kind at all


async def listen(
    host: str, port: int, *, name: str, who_listens: Callable[[int], str | None] | None = None
) -> list[socket.socket]:
    """Bind and listen at `host`; `localhost` means 127.0.0.1 and, where there is IPv6, ::1.

    Port 0 = any free one, the same for both. `name` (`control`, `router`) is the settings' section, for
    the error. `who_listens` may tell who has a port. Raises AddressInUse.
    """
    hosts = await _addresses_of(host, name)
    for tries_left in range(_TRIES_FOR_BOTH - 1, -1, -1):
        sockets: list[socket.socket] = []
        try:
            for address in hosts:
                wanted = port or (sockets[0].getsockname()[1] if sockets else 0)
                sockets.append(_bound(address, wanted))
            return sockets
        except OSError as error:
            for bound in sockets:
                bound.close()
            if sockets and error.errno in _NO_IPV6:
                hosts = hosts[:1]
                continue
            if port == 0 and sockets and tries_left:
                continue  # free at the first address, taken at the second
            raise _explained(error, host, port, name, who_listens) from None
    raise AddressInUse(f"No free port was found at {host}.", param=f"{name}.port")


async def _addresses_of(host: str, name: str) -> list[str]:
    if host.lower() == "localhost":
        return ["127.0.0.1", "::1"] if socket.has_ipv6 else ["127.0.0.1"]
    address = as_ip(host)
    if address is not None:
        return [str(address)]
    try:
        async with asyncio.timeout(_RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        raise AddressInUse(
            f"“{host}” is not an address of this machine.",
            remedy=f"Set {name}.host to 127.0.0.1.",
            param=f"{name}.host",
        ) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that say they are TCP; without it each answer waits 40 ms
    # for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform == "win32":
            # SO_REUSEADDR there means that anyone may take the port over.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == "::" else 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _explained(
    error: OSError, host: str, port: int, name: str, who_listens: Callable[[int], str | None] | None
) -> AddressInUse:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno in (errno.EADDRINUSE, errno.EACCES) and port:
        owner = who_listens(port) if who_listens is not None else None
        if error.errno == errno.EACCES:
            message = f"The system does not let us listen at {place}."
        else:
            message = f"Port {port} is taken: {owner or 'another program'} listens at {place}."
        return AddressInUse(
            message, remedy=f"End that program, or set {name}.port to another port.", param=f"{name}.port"
        )
    return AddressInUse(
        f"Cannot listen at {place}: {error.strerror or error}.",
        remedy=f"Set {name}.host to 127.0.0.1, or to an address of this machine.",
        param=f"{name}.host",
    )
