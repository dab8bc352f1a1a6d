"""Finds ports for runners on loopback.

Decides: which port a runner is offered. Must not: hold it; the runner binds it itself and is checked after.
"""

from __future__ import annotations

import socket

from tray_valet.core.errors import LoadFailed

LOOPBACK = "127.0.0.1"
_SPAN = 1_000  # ports that are tried


class PortRange:
    """Ports from `first` upwards that are free and that no other runner of ours was given."""

    def __init__(self, first: int) -> None:
        """`first` 0 = any port that the system names."""
        self._first = first
        self._taken: set[int] = set()

    def take(self) -> int:
        """Return a free port and keep it from being offered again. Raises LoadFailed if there is none."""
        if self._first == 0:
            candidates = (_any_free_port() for _ in range(_SPAN))
        else:
            candidates = (port for port in range(self._first, min(self._first + _SPAN, 65_536)))
        for port in candidates:
            if port not in self._taken and is_free(port):
                self._taken.add(port)
                return port
        raise LoadFailed(
            f"No port from {self._first} on is free.", remedy="Choose another first_port in the settings."
        )

    def release(self, port: int) -> None:
        """Offer the port again."""
        self._taken.discard(port)


def is_free(port: int) -> bool:
    """Say whether a server could listen on that loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of a runner that just ended linger in TIME_WAIT; they are no obstacle to a server
        # (which sets SO_REUSEADDR too). On Windows that option would allow to share a port in use.
        exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if exclusive is None else exclusive, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _any_free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
